import typer


def main(rows: str, batch_size: int = 8, fast: bool = False):
    print(rows, batch_size, fast)


if __name__ == "__main__":
    typer.run(main)
