"""``python -m cropkit``: ``info`` prints text for a bug report, ``demo`` crops a photograph."""

import argparse
from pathlib import Path

from cropkit._runtime import run_in_pipe, show_runtime


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m cropkit")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print versions, instruction set, threads and backends")
    demo = commands.add_parser("demo", help="crop a photograph: a contact sheet and timings")
    demo.add_argument(
        "--output", type=Path, default=Path("demo.png"), metavar="FILE",
        help="the PNG to write (default: %(default)s)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    if given.command == "demo":
        from cropkit import _demo

        _demo.run(given.output)
    else:
        show_runtime()
    return 0


if __name__ == "__main__":
    raise SystemExit(run_in_pipe(main))
