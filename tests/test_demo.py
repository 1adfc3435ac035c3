"""``python -m cropkit demo``: what it writes, prints, and says without Matplotlib."""

import os
import re
import struct
import subprocess
import sys

from cropkit._cpu import built_instruction_sets


def run(*arguments, folder, **environment):
    """Run Python in `folder`; return the finished process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CROPKIT_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env={**kept, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def png_size(path):
    """Return width and height from a PNG's header."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:])


def test_demo_writes_the_sheet_and_prints_what_ran(tmp_path):
    done = run("-m", "cropkit", "demo", folder=tmp_path, CROPKIT_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert png_size(tmp_path / "demo.png") == (1560, 690)
    lines = done.stdout.splitlines()
    assert "backend: cpu" in lines
    assert "threads: 2" in lines
    assert any(re.fullmatch(r"instruction set: \w+", line) for line in lines)
    timed = [line for line in lines if re.search(r": [\d.]+ megapixels in .* ms, \d+ megap", line)]
    assert len(timed) == 3
    assert lines[-1] == "wrote demo.png"


def test_demo_takes_another_file_and_instruction_set(tmp_path):
    arguments = ("-m", "cropkit", "demo", "--output", "sheet.png")
    isa = built_instruction_sets()[-1]
    done = run(*arguments, folder=tmp_path, CROPKIT_ISA=isa)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert f"instruction set: {isa}" in done.stdout.splitlines()


def test_without_matplotlib_one_sentence_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['matplotlib'] = None; from cropkit import __main__ as m"
    done = run("-c", code + "; m.main(['demo'])", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "the demo draws with matplotlib, which is not installed: pip install matplotlib"
    ]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    for output, sentence in (
        ("missing/sheet.png", "--output missing/sheet.png: there is no folder missing"),
        (".", "--output .: Is a directory"),
    ):
        done = run("-m", "cropkit", "demo", "--output", output, folder=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines() == [sentence]


def test_a_reader_that_leaves_early_sees_no_traceback(tmp_path):
    """As ``head -1`` does: the pipe is closed before the first line is written."""
    for arguments in (("cropkit", "info"), ("cropkit", "demo"), ("cropkit.testing", "cpu")):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
        os.close(write)
        assert (done.returncode, done.stderr) == (1, ""), arguments


def test_the_suite_refuses_to_run_without_assert(tmp_path):
    for switch, environment in (("-O", {}), ("-B", {"PYTHONOPTIMIZE": "1"})):
        done = run(switch, "-m", "cropkit.testing", "cpu", folder=tmp_path, **environment)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.splitlines()[-1].startswith(
            "ImportError: cropkit.testing checks by assert statements, which python -O and "
        )
