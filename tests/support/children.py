"""Python children: what a fresh process does, with a clean environment."""

import os
import subprocess
import sys
import textwrap
from typing import Any

# Seconds after which a child counts as hanging. Far above what any takes, since nothing
# here is about speed.
PATIENCE = 60

_OURS = ("CROPKIT_", "OMP_", "GOMP_", "KMP_")


def python(
    code: str = "",
    *arguments: str,
    status: int = 0,
    patience: int = PATIENCE,
    **environment: Any,
) -> subprocess.CompletedProcess[str]:
    """Run `code` (or ``python arguments``) in a child; check its exit status.

    The child's environment is this one without the variables that cropkit and OpenMP
    read, and with `environment`; its ``PYTHONPATH`` goes before that of this process, which
    may say which build is tested.
    """
    __tracebackhide__ = True
    command = [sys.executable, *(("-c", textwrap.dedent(code)) if code else ()), *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    variables = {name: str(value) for name, value in environment.items()}
    if "PYTHONPATH" in inherited.keys() & variables.keys():
        variables["PYTHONPATH"] += os.pathsep + inherited["PYTHONPATH"]
    child = subprocess.run(
        command,
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
    assert child.returncode == status, f"exit status {child.returncode}:\n{child.stderr}"
    return child
