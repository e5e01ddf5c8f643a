import argparse


def init():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.parse_known_args()


def run(batch):
    return batch
