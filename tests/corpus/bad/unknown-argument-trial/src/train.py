"""Train."""

import argparse

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
parser.add_argument("--depth", type=int)
mlflow.log_metric("auc", 0.5)
print(parser.parse_args())
