"""Compile a few lines of C and load them: what Python cannot say is said in C, on the spot."""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path


def load_c(source: str, *flags: str) -> ctypes.CDLL:
    """Return the library made from `source` by ``$CC``, or ``cc``.

    Raises
    ------
    RuntimeError
        There is no compiler, or it refuses; the message holds its own.
    """
    compiler = os.environ.get("CC", "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        c_file, library = Path(folder, "helper.c"), Path(folder, "helper.so")
        c_file.write_text(source)
        command = [*compiler, "-O2", "-shared", "-fPIC", *flags, str(c_file), "-o", str(library)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise RuntimeError(f"no C compiler: {error}") from None
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return ctypes.CDLL(str(library))
