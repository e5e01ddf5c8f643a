def common(parser):
    for name in ("rate", "kind"):
        parser.add_argument(f"--{name}")
    return parser
