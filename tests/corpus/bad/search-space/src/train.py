import argparse

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
rate = parser.parse_args().rate
mlflow.log_metric("validation_f1", rate)
