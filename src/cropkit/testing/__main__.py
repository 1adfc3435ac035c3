"""``python -m cropkit.testing NAME``: run the conformance suite, print a report.

The exit status is 0 if every test passed and something ran.
"""

import argparse
import importlib
import os

import pytest

import cropkit
from cropkit import BackendError
from cropkit._runtime import run_in_pipe
from cropkit.testing import BackendTests, _named
from cropkit.testing._report import Report


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cropkit.testing", description="Tell whether a backend is right."
    )
    parser.add_argument(
        "name", metavar="NAME",
        help="a backend's name; or module:object, a backend or a class derived from BackendTests",
    )  # fmt: skip
    parser.add_argument(
        "-k", dest="expression", default="", help="run only the tests whose names match (pytest's)"
    )
    given = parser.parse_args(arguments)
    try:
        tests = tests_of(given.name)
        print(heading(tests))
    except (BackendError, ImportError, AttributeError, TypeError) as error:
        print(f"{error}\n\n0 passed, 1 failed")
        return 1
    report = run(tests, given.expression)
    print(f"\n{report.summary()}")
    return 0 if report.totals["passed"] and not report.totals["FAILED"] else 1


def tests_of(name: str) -> type[BackendTests]:
    """Return the class of tests for `name`: a backend's name, or ``module:object``.

    Raises
    ------
    ImportError, AttributeError
        There is no such module or object.
    TypeError
        The object is a class that is not derived from `BackendTests`.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        return type("Tests", (BackendTests,), {"backend": name})
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, type):
        return type("Tests", (BackendTests,), {"backend": found, "module": module})
    if not issubclass(found, BackendTests):
        raise TypeError(f"{name} is a class that is not derived from BackendTests")
    return found


def heading(tests: type[BackendTests]) -> str:
    """Return the report's first line: the backend, its devices and whether it is exact.

    Raises
    ------
    BackendError
        There is no such backend, or the backend cannot be used here.
    """
    info = tests().info
    if info.reason is not None:
        raise BackendError(f"backend {info} cannot be used here: {info.reason}")
    kind = "exact" if info.exact else f"not exact, tolerance {tests.tolerance:g}"
    devices = ", ".join(info.device_types)
    return f"cropkit {cropkit.__version__}, backend {info} on {devices}, {kind}"


def run(tests: type[BackendTests], expression: str = "") -> Report:
    """Run the tests whose names match `expression` by pytest, printing a line for each."""
    report = Report()
    _named.TestNamed = type("TestNamed", (tests,), {"__test__": True})
    # pytest reads no settings of the current folder and loads no other plugins.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = [
        str(_named.__file__), "-c", os.devnull, "--rootdir", os.path.dirname(__file__),
        "-p", "no:cacheprovider", "-p", "no:terminalreporter", "-k", expression,
    ]  # fmt: skip
    status = pytest.main(options, plugins=[report])
    report.flush()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(f"\npytest ended with exit status {int(status)}: no test was run, or not all were")
        report.totals["FAILED"] += 1
    return report


if __name__ == "__main__":
    raise SystemExit(run_in_pipe(main))
