import mlflow

mlflow.autolog()
