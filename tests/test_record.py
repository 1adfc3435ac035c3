"""The record of performance: what is kept, and that a step in it is seen and named."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from asv_bench import curves
from asv_bench.commits import BuildError, built
from asv_bench.publish import publish
from asv_bench.record import describe_processor, failure
from asv_bench.records import (
    ANY,
    BENCHMARKS,
    INSTRUCTIONS,
    RECORDS,
    TIME,
    Measured,
    Record,
    read,
    read_all,
    write,
)

SLOW, STEADY = "avx2/features/bilinear", "avx2/tiny/nearest"
TOOLCHAIN = "GCC 1.0, Cython 3.0"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of eight empty commits."""
    path = tmp_path / "repository"
    git(path.parent, "init", "--quiet", "--initial-branch=main", path.name)
    for number in range(1, 9):
        git(path, "commit", "--quiet", "--allow-empty", f"--message=commit {number}")
    return path


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def planted(repository: Path, growth: float) -> list[Record]:
    """Return records in which the sixth commit lets one count grow, for good."""
    found = []
    for day, commit in enumerate(git(repository, "rev-list", "--reverse", "main").split(), 1):
        counts = {SLOW: round(1_000_000 * (1 + growth * (day >= 6))), STEADY: 40_000.0}
        measured = Measured(ANY, TOOLCHAIN, {INSTRUCTIONS: counts})
        date = f"2026-01-0{day}T00:00:00+00:00"
        found.append(Record(commit, date, f"commit {day}", [measured]))
    return found


def test_asv_names_the_commit_of_a_planted_slowdown(repository, tmp_path):
    slower = planted(repository, 0.05)
    publish(slower, tmp_path / "html", repository)
    page = {
        name: json.loads((tmp_path / "html" / f"{name}.json").read_text())
        for name in ("regressions", "index")
    }
    ((benchmark, _, _, _, latest, best, steps),) = page["regressions"]["regressions"]
    assert benchmark == f"{INSTRUCTIONS}({SLOW})"
    assert (best, latest) == (1_000_000, 1_050_000)
    ((_, revision, _, _),) = steps
    assert page["index"]["revision_to_hash"][str(revision)] == slower[5].commit


def test_asv_reports_no_growth_within_the_gate(repository, tmp_path):
    publish(planted(repository, 0.02), tmp_path / "html", repository)
    assert json.loads((tmp_path / "html" / "regressions.json").read_text()) == {"regressions": []}


def test_the_curves_mark_the_commit_of_a_planted_slowdown(repository):
    slower = planted(repository, 0.05)
    marks = re.findall(r'<circle class="(\w+)".*?<title>(.*?)</title>', curves.page(slower))
    assert marks == [("up", f"avx2, {TOOLCHAIN}: +5.0%: {slower[5].commit[:8]} commit 6")]
    assert "<circle" not in curves.page(planted(repository, 0.02))


def test_a_commit_that_does_not_build_says_why(repository):
    (repository / "setup.py").write_text("raise SystemExit('error: no compiler')")
    git(repository, "add", "setup.py")
    git(repository, "commit", "--quiet", "--message=broken")
    for commit, reason in {
        "main^": "ERROR: Directory '.' is not installable. Neither 'setup.py' nor",
        "main": "error: no compiler",
    }.items():
        with pytest.raises(BuildError, match=f"^{re.escape(reason)}"), built(commit, repository):
            pass
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_package_that_does_not_run_says_why(tmp_path):
    (tmp_path / "cropkit.py").write_text("import cropkit.kernels")
    reason = "does not run: ModuleNotFoundError: No module named 'cropkit.kernels'"
    assert failure(tmp_path).startswith(reason)


def test_a_record_is_read_as_it_was_written(repository, tmp_path):
    (record, *_) = planted(repository, 0.0)
    record.add(Measured("amd-epyc-zen5-2cpu", TOOLCHAIN, {TIME: {"tiny/nearest": 1e-5}}))
    skipped = Record(record.commit, record.date, record.subject, skipped="does not run: ...")
    for kept in (record, skipped):
        write(tmp_path / "record.json", kept)
        assert read(tmp_path / "record.json") == kept


def test_measuring_again_replaces_what_was_measured_alike():
    record = Record("0" * 40, "2026-01-01T00:00:00+00:00", "subject")
    for machine, value in (("b", 1.0), (ANY, 2.0), ("a", 3.0), ("b", 4.0)):
        record.add(Measured(machine, TOOLCHAIN, {TIME: {"tiny/nearest": value}}))
    values = {machine: of["tiny/nearest"] for (machine, _), of in record.results(TIME).items()}
    assert list(values.items()) == [(ANY, 2.0), ("a", 3.0), ("b", 4.0)]


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name", "expected"),
    [
        ("AuthenticAMD", 26, 2, "AMD EPYC", "amd-epyc-zen5-2cpu"),
        ("GenuineIntel", 6, 207, "Intel(R) Xeon(R) Processor", "intel-xeon-emerald-rapids-2cpu"),
        ("GenuineIntel", 6, 999, "Intel(R) Core(TM) i9", "intel-core-family6-model999-2cpu"),
    ],
)
def test_a_processor_is_described(vendor, family, model, name, expected):
    fields = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
    cpuinfo = f"processor\t: 0\n{fields}model name\t: {name}\nflags\t\t: fpu\n\n"
    assert describe_processor(cpuinfo * 2, 2) == expected


def test_what_is_on_record_is_whole_and_small():
    records = read_all()
    assert records
    assert sum(path.stat().st_size for path in RECORDS.iterdir()) < 300_000
    for path, record in zip(sorted(RECORDS.iterdir()), records, strict=True):
        assert re.fullmatch(rf"\d{{5}}-{record.commit[:8]}\.json", path.name)
        assert bool(record.skipped) != bool(record.measured), path.name
        for each in record.measured:
            names = {name for name, known in BENCHMARKS.items()
                     if known.same_everywhere == (each.machine == ANY)}  # fmt: skip
            assert each.results.keys() <= names, path.name
            assert all(each.results.values()), path.name
            assert re.fullmatch(r"any|[a-z0-9-]+-\d+cpu", each.machine), path.name
