"""The record of performance: one small JSON file a commit, in ``asv_bench/records``.

A file's name is the number of the commit's ancestors, itself included, and its hash, so that
files lie in the order of history. It holds

* ``commit``, ``date`` and ``subject``;
* ``measured``, a list: what was measured on which ``machine``, made by which ``toolchain``, as a
  value for each case of each of `BENCHMARKS`. The machine is `ANY` where the value is the same on
  each: instructions, and peak memory to a few hundred kB;
* or, instead of that, ``skipped``: why nothing could be measured.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from asv_bench.commits import git

RECORDS = Path(__file__).with_name("records")
ANY = "any"


@dataclass(frozen=True)
class Benchmark:
    """One of asv's benchmarks that goes on record, with a single parameter: the case."""

    kind: str  # as asv knows it: track, peakmemory, time
    unit: str
    digits: int | None  # rounded to so many, as the rest of it is noise
    same_everywhere: bool


INSTRUCTIONS = "instructions.Instructions.track_instructions"
CALL, TWIN = "memory.Memory.peakmem_call", "memory.Memory.peakmem_twin"
TIME = "processor_time.ProcessorTime.time_call"
BENCHMARKS = {
    INSTRUCTIONS: Benchmark("track", "instructions", None, same_everywhere=True),
    CALL: Benchmark("peakmemory", "bytes", 4, same_everywhere=True),
    TWIN: Benchmark("peakmemory", "bytes", 4, same_everywhere=True),
    TIME: Benchmark("time", "seconds", 3, same_everywhere=False),
}
Results = dict[str, dict[str, float]]  # by benchmark and case


@dataclass
class Measured:
    """What was measured of a commit under one set of conditions."""

    machine: str
    toolchain: str
    results: Results


@dataclass
class Record:
    """What is kept of a commit."""

    commit: str
    date: str
    subject: str
    measured: list[Measured] = field(default_factory=list)
    skipped: str | None = None

    def add(self, new: Measured) -> None:
        """Add what was measured, in place of what was so under the same conditions."""

        def conditions(each: Measured) -> tuple[bool, str]:
            return each.machine != ANY, f"{each.machine} {each.toolchain}"

        others = [each for each in self.measured if conditions(each) != conditions(new)]
        self.measured = sorted([*others, new], key=conditions)

    def results(self, benchmark: str) -> dict[tuple[str, str], dict[str, float]]:
        """Return the values of a benchmark's cases by machine and toolchain."""
        return {
            (each.machine, each.toolchain): each.results[benchmark]
            for each in self.measured
            if benchmark in each.results
        }


def file_of(commit: str) -> str:
    """Return the name of the file of a commit, given by its whole hash."""
    return f"{int(git('rev-list', '--count', commit)):05d}-{commit[:8]}.json"


def read(path: Path) -> Record:
    """Read one file."""
    content = json.loads(path.read_text())
    measured = [Measured(**each) for each in content.pop("measured", [])]
    return Record(**content, measured=measured)


def read_all(folder: Path = RECORDS) -> list[Record]:
    """Read all files, in the order of history."""
    return [read(path) for path in sorted(folder.glob("*.json"))]


def write(path: Path, record: Record) -> None:
    """Write one file."""
    content = {key: value for key, value in asdict(record).items() if value}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
