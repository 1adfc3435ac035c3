"""What the system says in files, bytes that may be anything: a value, or unknown."""

from pathlib import Path

import pytest

from cropkit import _cpu, _threads
from tests.support.children import python


def quota(folder: Path, groups: str, files: dict[str, str]) -> int:
    """Return the quota of a process in `groups`, of a made-up hierarchy."""
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8").replace(b"\xef\xbf\xbd", b"\xff"))
    (folder / "self").write_bytes(groups.encode("utf-8").replace(b"\xef\xbf\xbd", b"\xff"))
    return _threads._quota(folder / "cgroup", folder / "self")


NONE = _threads._NO_QUOTA


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        # Version 2: in a container, the root's own; whole CPUs, rounded up, at least one.
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, NONE),
        ("0::/\n", {}, NONE),
        # Nested: the least on the way to the root.
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "100000 50000\n"}, 2),
        ("0::/a\n", {"a/b/cpu.max": "100000 100000\n"}, NONE),
        # The path is the host's, and what is mounted is the container's.
        ("0::/kubepods/pod1/c1\n", {"cpu.max": "400000 100000\n"}, 4),
        # Version 1, alone and beside version 2.
        ("4:cpu,cpuacct:/x\n2:memory:/x\n",
         {"cpu/x/cpu.cfs_quota_us": "250000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu,cpuacct:/x\n",
         {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, NONE),
        ("4:cpu:/x/y\n0::/x/y\n",
         {"cpu/x/cpu.cfs_quota_us": "100000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 1),
        ("4:cpuset:/x\n",
         {"cpu/x/cpu.cfs_quota_us": "100000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, NONE),
        # Damaged.
        ("0::/\n", {"cpu.max": "\n"}, NONE),
        ("0::/\n", {"cpu.max": "100000 0\n"}, NONE),
        ("0::/\n", {"cpu.max": "100000 " + "9" * 5000}, NONE),
        ("0::/\n", {"cpu.max": "\ufffd\u00b2 100000\n"}, NONE),
        ("no colon\n0::\ufffd\0/x\n0::/\n", {"cpu.max": "200000 100000\n"}, 2),
    ],
)  # fmt: skip
def test_quota_of_control_groups(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert quota(tmp_path, groups, files) == expected


def test_no_control_groups(tmp_path: Path) -> None:
    assert _threads._quota(tmp_path / "cgroup", tmp_path / "self") == NONE


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"1024K\n", 1 << 20), (b"1M", 1 << 20), (b"260M\n", 16 << 20), (b"\xff\xfe", 16 << 20),
     (b"", 16 << 20), (b"K", 16 << 20), (b"12", 16 << 20), (b"9" * 5000 + b"K", 16 << 20)],
)  # fmt: skip
def test_the_cache_size_is_read_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: int
) -> None:
    (tmp_path / "size").write_bytes(content)
    monkeypatch.setattr(_cpu, "_CACHE_SIZE", tmp_path / "size")
    assert _cpu.streaming_threshold.__wrapped__() == expected


def test_no_file_of_the_system_is_decoded() -> None:
    """Whatever the locale: a large call, and all that `show_runtime` looks at."""
    code = """
import numpy, cropkit
cropkit.crop_and_resize(numpy.zeros((1, 9, 9, 3)), [[0, 0, 1, 1]] * 9, [0] * 9, (600, 600))
cropkit.show_runtime()
"""
    python("", "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-c", code)
