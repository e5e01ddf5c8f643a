"""Train."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("rows")
parser.add_argument("--rate", type=float, required=True)
parser.add_argument("--depth", type=int, choices=range(1, 9))
parser.add_argument("--loud", action="store_true")
parser.add_argument("-n", type=int)
parser.add_argument("--kind", choices=["a", "b", "c"])
parser.add_argument("--sizes", type=int, nargs="+")
parser.add_argument("--shift", type=int)
parser.add_argument("--model", required=True)
parser.add_argument("--name")
print(parser.parse_args())
