"""Train."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int)
parser.add_argument("--rate", type=float)
parser.add_argument("--kind", choices=["a", "b"])
parser.add_argument("--loud", action="store_true")
parser.add_argument("--sizes", nargs=2)
print(parser.parse_args())
