import mlflow

mlflow.log_metric("auc", 0.5)  # edgeml: allow logged-files, because of an earlier version
mlflow.autolog()  # edgeml: allow mlflow-autolog
