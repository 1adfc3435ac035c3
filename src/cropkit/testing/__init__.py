"""The conformance suite: tells a backend's author whether the backend is right.

Needs pytest and hypothesis: ``pip install 'cropkit[testing]'``. Two lines in a pytest file
are all of the author's part,

>>> from cropkit.testing import BackendTests
>>> class TestMine(BackendTests):
...     backend = "reference"

or none: ``python -m cropkit.testing NAME`` prints a report and ends in a line
``N passed, N failed``.
"""

if not __debug__:  # the verdict would rest on nothing
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
