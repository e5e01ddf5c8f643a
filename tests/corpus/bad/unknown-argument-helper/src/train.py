import argparse

from options import common

parser = common(argparse.ArgumentParser())
parser.add_argument("--depth")
print(parser.parse_args())
