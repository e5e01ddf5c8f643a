import argparse

import mlflow

mlflow.autolog()
parser = argparse.ArgumentParser()
parser.add_argument("--c", type=float)
print(parser.parse_args().c)
