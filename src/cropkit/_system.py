"""Reading the files in which the system describes itself; any of them may be missing or odd.

Bytes are not decoded, so neither the locale nor ``-X warn_default_encoding`` matters, and every
reader returns a value or "unknown".
"""

from pathlib import Path


def read(path: Path) -> bytes:
    """Return the bytes of a file, or no bytes if the file cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):  # ValueError: a path with a NUL in it
        return b""


def whole_number(text: bytes) -> int | None:
    """Return the number that `text` writes in decimal digits, or None for anything else."""
    # A longer number is no size or time, and Python refuses to convert thousands of digits.
    return int(text) if text.isdigit() and len(text) < 20 else None
