"""Train."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int)
parser.add_argument("--kind", choices=["a", "b"])
parser.add_argument("--loud", action="store_true")
print(parser.parse_args())
