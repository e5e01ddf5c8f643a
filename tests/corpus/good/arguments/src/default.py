"""Train."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float, required=True)
parser.add_argument("--loud", action="store_true")
print(parser.parse_args())
