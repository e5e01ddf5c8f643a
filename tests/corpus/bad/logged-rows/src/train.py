import mlflow
from mlflow import MlflowClient

model, rows = [], []
mlflow.sklearn.log_model(model, "model", input_example=rows)
mlflow.log_table({"a": [1]}, "a.json")
client = MlflowClient()
client.log_table("run", {"a": [1]}, "a.json")
MlflowClient().log_inputs("run", rows)
mlflow.log_input(rows)
