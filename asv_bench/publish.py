"""Publish the record as asv's page, with its curves and its list of regressions.

python -m asv_bench.publish asv_bench/html
"""

import datetime
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from asv_bench.commits import ROOT
from asv_bench.records import BENCHMARKS, RECORDS, Record, read_all
from asv_bench.run_asv import run_asv

# asv drops results of another version of a benchmark than the one in benchmarks.json. What is on
# record stays comparable, so all has one version.
VERSION = "1"


def publish(records: list[Record], html: Path, repository: Path = ROOT) -> None:
    """Write asv's page.

    Parameters
    ----------
    records : list of Record
        What is published; their commits must be on the branch main.
    html : Path
        The folder to write; what was in it is removed.
    repository : Path
        Where the commits are.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_results(records, folder / "results")
        run_asv(folder, "publish", "--no-pull", repository=repository)
        shutil.rmtree(html, ignore_errors=True)
        shutil.copytree(folder / "html", html)


def write_results(records: list[Record], folder: Path) -> None:
    """Write the record as asv's results: a file for each commit and conditions."""
    cases = {
        benchmark: list(
            dict.fromkeys(
                case
                for record in records
                for values in record.results(benchmark).values()
                for case in values
            )
        )
        for benchmark in BENCHMARKS
    }
    write_json(folder / "benchmarks.json", {"version": 2} | {
        name: {"name": name, "type": benchmark.kind, "unit": benchmark.unit, "version": VERSION,
               "param_names": ["case"], "params": [cases[name]], "code": ""}
        for name, benchmark in BENCHMARKS.items()
    })  # fmt: skip
    for record in records:
        date = datetime.datetime.fromisoformat(record.date).timestamp()
        for each in record.measured:
            conditions = {"machine": each.machine, "toolchain": each.toolchain}
            write_json(folder / each.machine / "machine.json",
                       {"version": 1, "machine": each.machine})  # fmt: skip
            environment = each.toolchain.replace(", ", "-").replace(" ", "")
            write_json(folder / each.machine / f"{record.commit[:8]}-{environment}.json", {
                "version": 2, "commit_hash": record.commit, "date": int(date * 1000),
                "params": conditions, "env_name": environment, "env_vars": {}, "python": "",
                "requirements": {}, "durations": {},
                "result_columns": ["result", "params", "version"],
                "results": {
                    name: [[values.get(case) for case in cases[name]], [cases[name]], VERSION]
                    for name, values in each.results.items()
                },
            })  # fmt: skip


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    publish(read_all(RECORDS), Path(sys.argv[1]))
