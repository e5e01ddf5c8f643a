import mlflow as m
from mlflow import sklearn as s
from mlflow import autolog

m.autolog()
s.autolog(log_input_examples=True)
autolog(log_models=False)
start = m.pytorch.autolog
