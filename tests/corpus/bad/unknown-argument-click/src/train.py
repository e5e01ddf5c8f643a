import click


@click.command()
@click.option("--rate", type=float, required=True)
def main(rate):
    print(rate)


if __name__ == "__main__":
    main()
