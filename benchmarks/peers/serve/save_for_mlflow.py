"""Save an ONNX model in MLflow's form into the working folder, with the signature by which its server casts numbers."""

import sys

import mlflow.onnx
import numpy
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

model = onnx.load(sys.argv[1])
inputs = [
    TensorSpec(numpy.dtype("float32"), [size.dim_value or -1 for size in port.type.tensor_type.shape.dim], port.name)
    for port in model.graph.input
]
mlflow.onnx.save_model(model, "model", signature=ModelSignature(inputs=Schema(inputs)))
