"""The entry script of azureml-inference-server-http: the least that scores named columns with onnxruntime."""

import json
import os

import numpy as np
import onnxruntime


def init():
    global session, names, outputs
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    outputs = [port.name for port in session.get_outputs()]


def run(data):
    table = json.loads(data)["input_data"]
    matrix = np.array(table["data"], dtype="float32")
    if len(names) == 1:
        feed = {names[0]: matrix}
    else:
        place = {name: index for index, name in enumerate(table["columns"])}
        feed = {name: matrix[:, [place[name]]] for name in names}
    return {name: answer.tolist() for name, answer in zip(outputs, session.run(outputs, feed), strict=True)}
