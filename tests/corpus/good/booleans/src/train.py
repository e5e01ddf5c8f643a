"""Train."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--loud", type=lambda text: text.lower() == "true")
parser.add_argument("--fast", type=bool)
print(parser.parse_args())
