import argparse

args = None


def main():
    print(args.rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", required=True)
    args = parser.parse_args()
    main()
