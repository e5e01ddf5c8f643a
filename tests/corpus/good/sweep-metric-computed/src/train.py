import argparse

import mlflow

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
rate = parser.parse_args().rate
mlflow.log_metric("test" + "_f1", rate)
