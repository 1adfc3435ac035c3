"""``python -m cropkit info``: what to put into a bug report."""

import argparse

from cropkit._runtime import show_runtime


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m cropkit")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print versions, instruction set, threads and backends")
    parser.parse_args(arguments)
    show_runtime()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
