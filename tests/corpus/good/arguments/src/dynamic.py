import argparse
import json

parser = argparse.ArgumentParser()
for name in json.load(open("names.json")):
    parser.add_argument(f"--{name}", required=True)
print(parser.parse_args())
