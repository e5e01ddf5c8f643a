import mlflow

mlflow.log_artifact("rows.csv")
mlflow.log_figure(None, "a.png")
