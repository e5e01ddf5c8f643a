"""The least that scores: parse, call onnxruntime, write."""

import os

import numpy as np
import onnxruntime
import orjson

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0].name
names = [port.name for port in session.get_outputs()]


def score(body):
    matrix = np.array(orjson.loads(body)["input_data"]["data"], "float32")
    label, chance = session.run(names, {given: matrix})
    return orjson.dumps({"label": label.tolist(), "probabilities": chance.tolist()})
