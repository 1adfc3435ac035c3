"""What the system says of itself in files: bytes that may be anything, or not be there.

Nothing is decoded, so neither the locale nor ``-X warn_default_encoding`` has a say, and
every reader ends in a value or in "unknown".
"""

from pathlib import Path


def read(path: Path) -> bytes:
    """Return the bytes of a file, none where it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):  # ValueError: a path with a NUL in it
        return b""


def whole_number(text: bytes) -> int | None:
    """Return the number that `text` writes in decimal digits, or None for anything else."""
    # Longer ones are no size or time, and Python refuses to convert thousands of digits.
    return int(text) if text.isdigit() and len(text) < 20 else None
