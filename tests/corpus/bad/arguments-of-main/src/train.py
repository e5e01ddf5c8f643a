import argparse
import pathlib


def load():
    return sorted(pathlib.Path(args.rows).iterdir())


def main(args):
    print(args.rows, load())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", required=True)
    args = parser.parse_args()
    main(args)
