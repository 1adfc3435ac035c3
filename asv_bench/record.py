"""Build commits, measure them with this checkout's benchmarks, and put the results on record.

    python -m asv_bench.record 'HEAD^!'
    python -m asv_bench.record '-20 main -- src/cropkit/_kernels'

The argument goes to ``git rev-list``. A commit that has been measured on a machine like this one,
with this toolchain, is left alone.
"""

import ast
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asv.results import Results

from asv_bench import records
from asv_bench.benchmarks import callgrind
from asv_bench.commits import BuildError, built, git
from asv_bench.run_asv import run_asv

# Where this does not run, no benchmark does.
TRIAL = """
import numpy, cropkit
cropkit.crop_and_resize(numpy.zeros((1, 4, 4, 1), numpy.uint8), [[0, 0, 1, 1]], [0], (2, 2))
"""
# Of processors whose names say less, by vendor, family and models. The list is not complete.
DESIGNS = {
    ("amd", 25, range(0x10)): "zen3",
    ("amd", 25, range(0x10, 0x20)): "zen4",
    ("amd", 25, range(0xA0, 0xB0)): "zen4",
    ("amd", 26, range(0x30)): "zen5",
    ("intel", 6, range(0x6A, 0x6B)): "ice-lake",
    ("intel", 6, range(0x8F, 0x90)): "sapphire-rapids",
    ("intel", 6, range(0xCF, 0xD0)): "emerald-rapids",
}


def describe_processor(cpuinfo: str, cpus: int) -> str:
    """Return a name such as ``amd-epyc-zen5-2cpu``: what times depend on, and nothing private.

    Parameters
    ----------
    cpuinfo : str
        The text of ``/proc/cpuinfo``.
    cpus : int
        The number of processors.
    """
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", cpuinfo.partition("\n\n")[0], re.MULTILINE))
    vendor = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(fields.get("vendor_id", ""), "")
    known = re.findall(r"epyc|ryzen|xeon|core", fields.get("model name", "").lower())
    family, model = int(fields.get("cpu family", -1)), int(fields.get("model", -1))
    design = f"family{family}-model{model}" if vendor else os.uname().machine
    for (made_by, its_family, models), name in DESIGNS.items():
        if (vendor, family) == (made_by, its_family) and model in models:
            design = name
    return "-".join([*([vendor] if vendor else []), *known[:1], design, f"{cpus}cpu"])


def measure(site: Path) -> records.Results:
    """Run the recorded benchmarks on the package in `site`; return the values.

    Raises
    ------
    RuntimeError
        asv fails; the message is what it printed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # asv asks for the machine's name and details, which it keeps in the home folder.
        here = dict.fromkeys(("arch", "cpu", "num_cpu", "os", "ram"), "") | {"machine": "here"}
        machines = {"version": 1, "here": here}
        (folder / ".asv-machine.json").write_text(json.dumps(machines))
        select = [argument for name in records.BENCHMARKS for argument in ("--bench", f"^{name}")]
        run_asv(
            folder, "run", "--machine", "here", "--set-commit-hash", git("rev-parse", "HEAD"),
            "--environment", f"existing:{sys.executable}", "--record-samples", *select,
            HOME=name, ASV_PYTHONPATH=str(site),
        )  # fmt: skip
        (path,) = (folder / "results" / "here").glob("*-*.json")
        measured = Results.load(str(path))
    results: records.Results = {}
    for name, benchmark in records.BENCHMARKS.items():
        (cases,) = measured.get_result_params(name)
        values = measured.get_result_value(name, [cases])
        if benchmark.kind == "time":
            # The least, not asv's median: whatever else runs here can only add.
            samples = measured.get_result_samples(name, [cases])
            values = [min(each, default=None) if each else None for each in samples]
        found = {
            ast.literal_eval(case): rounded(value, benchmark.digits)
            for case, value in zip(cases, values, strict=True)
            if value is not None and not math.isnan(value)
        }
        if found:
            results[name] = found
    return results


def rounded(value: float, digits: int | None) -> float:
    """Round to a number of digits."""
    if digits is None:
        return int(value)
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short


def failure(site: Path) -> str | None:
    """Return why the package in `site` cannot be used, or None."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-c", TRIAL]
    done = subprocess.run(
        command, env=environment, cwd=site, capture_output=True, text=True, check=False
    )
    if not done.returncode:
        return None
    return f"does not run: {done.stderr.replace(str(site), '.').strip().splitlines()[-1]}"


def record(commit: str, machine: str) -> records.Record:
    """Build and measure one commit; return its record, with what others have measured of it."""
    path = records.RECORDS / records.file_of(commit)
    if path.exists():
        result = records.read(path)
    else:
        date, subject = git("log", "-1", "--format=%cI%n%s", commit).splitlines()
        result = records.Record(commit, date, subject)
    try:
        with built(commit) as site:
            result.skipped = failure(site)
            if not result.skipped:
                toolchain = callgrind.toolchain(site / "cropkit" / "_kernels")
                everywhere, here = split(measure(site))
                result.add(records.Measured(records.ANY, toolchain, everywhere))
                result.add(records.Measured(machine, toolchain, here))
    except BuildError as error:
        result.skipped = f"does not build: {error}"
    records.write(path, result)
    return result


def split(results: records.Results) -> tuple[records.Results, records.Results]:
    """Return what is the same on every machine, and what is this machine's."""
    parts: tuple[records.Results, records.Results] = ({}, {})
    for name, values in results.items():
        parts[not records.BENCHMARKS[name].same_everywhere][name] = values
    return parts


def main(selection: str) -> int:
    """Put on record the commits that ``git rev-list`` gives for `selection`."""
    if reason := callgrind.missing():
        print(f"bench-record: {reason}", file=sys.stderr)
        return 2
    if git("rev-parse", "--is-shallow-repository") == "true":
        print("bench-record: in a shallow clone a commit has no number", file=sys.stderr)
        return 2
    machine = describe_processor(Path("/proc/cpuinfo").read_text(), os.cpu_count() or 1)
    here = machine, callgrind.toolchain()
    there = {known.commit: known for known in records.read_all()}
    for commit in git("rev-list", "--reverse", *shlex.split(selection)).split():
        begin = time.monotonic()
        known = there.get(commit)
        if known and (
            known.skipped or here in [(each.machine, each.toolchain) for each in known.measured]
        ):
            print(f"{commit[:8]} is on record", flush=True)
            continue
        try:
            result = record(commit, machine)
        except RuntimeError as error:
            print(f"bench-record: {commit[:8]}: {error}", file=sys.stderr)
            return 2
        done = f"skipped: {result.skipped}" if result.skipped else f"measured on {machine}"
        print(f"{commit[:8]} {done} ({time.monotonic() - begin:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
