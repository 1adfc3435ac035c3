"""What runs here: versions, instruction set, threads, and every backend with its reason."""

import os
import platform
import sys
from typing import TextIO

import numpy as np

from cropkit._backends import list_backends

_VARIABLES = ("CROPKIT_BACKEND", "CROPKIT_ISA", "CROPKIT_NUM_THREADS", "OMP_NUM_THREADS")


def show_runtime(file: TextIO | None = None) -> None:
    """Print versions, the CPU's instruction sets, the threads and the backends.

    The text to put into a bug report; ``python -m cropkit info`` prints the same.

    Parameters
    ----------
    file : file-like, optional
        Where to print; the standard output by default.

    Examples
    --------
    >>> import cropkit
    >>> cropkit.show_runtime()  # doctest: +ELLIPSIS
    cropkit ...
    """
    print(runtime_text(), file=file or sys.stdout)


def runtime_text() -> str:
    """Return what `show_runtime` prints."""
    import cropkit
    from cropkit import _cpu, _threads
    from cropkit._kernels import _openmp

    usable = _cpu.built_instruction_sets()
    try:
        chosen = _cpu.choose_instruction_set()
    except ValueError as error:
        chosen = f"none: {error}"
    openmp = _openmp.openmp_version()
    lines = [
        f"cropkit {cropkit.__version__}",
        f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{platform.system()} {platform.machine()}",
        f"instruction set: {chosen} (usable: {', '.join(usable)})",
        f"threads: {_threads.default_team_size()} "
        + (f"(OpenMP {openmp})" if openmp else "(built without OpenMP)"),
    ]
    settings = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    lines.append(f"environment: {', '.join(settings) or 'nothing set'}")
    lines.append("backends:")
    for info in list_backends():
        state = "usable" if info.reason is None else f"not usable: {info.reason}"
        kind = "" if info.exact is None else ", exact" if info.exact else ", not exact"
        devices = f" on {', '.join(info.device_types)}" if info.device_types else ""
        lines.append(f"  {info.name} ({info.origin}){devices}{kind}: {state}")
    return "\n".join(lines)
