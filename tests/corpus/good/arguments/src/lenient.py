import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
print(parser.parse_known_args())
