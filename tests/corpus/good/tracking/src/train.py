import logging

import mlflow
from mlflow.models import infer_signature

mlflow.autolog(disable=True)
mlflow.log_params({"depth": 3})
mlflow.log_metric("auc", 0.5)
signature = infer_signature([[1.0]])
mlflow.sklearn.log_model(None, "model", signature=signature, input_example=None)
logging.getLogger().log_table = print
