"""Train."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
parser.add_argument("--model", required=True)
print(parser.parse_args())
