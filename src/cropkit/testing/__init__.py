"""The conformance suite: tells a backend's author whether the backend is right.

The suite needs pytest and hypothesis: ``pip install 'cropkit[testing]'``. In a pytest file,
these lines run it on one backend:

>>> from cropkit.testing import BackendTests
>>> class TestMine(BackendTests):
...     backend = "reference"

Without a file, ``python -m cropkit.testing NAME`` runs the suite and prints a report, which
ends in a line ``N passed, N failed``.
"""

if not __debug__:  # without assert statements, every test would pass
    raise ImportError(
        "cropkit.testing checks by assert statements, which python -O and PYTHONOPTIMIZE remove: "
        "run it without them"
    )

try:
    from cropkit.testing._levels import BackendTests
except ImportError as _error:
    if _error.name not in ("pytest", "hypothesis"):
        raise
    raise ImportError(
        f"cropkit.testing needs pytest and hypothesis, and {_error.name} is not installed: "
        "pip install 'cropkit[testing]'",
        name=_error.name,
    ) from None

__all__ = ["BackendTests"]
