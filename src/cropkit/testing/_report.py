"""The report of ``python -m cropkit.testing``: a line for each test, and why tests are skipped."""

from collections import Counter, defaultdict
from typing import Any, Final

import pytest

from cropkit.testing._levels import LEVELS

# The width of a test's name in its line, and the most lines shown of one failure.
_WIDTH: Final = 72
_MESSAGE_LINES: Final = 12
# The most failures shown of one test; they differ in a parameter such as a dtype.
_SHOWN: Final = 2


class Report:
    """A plugin of pytest that prints the report while the tests run."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._level = ""
        self._test = ""
        self._outcomes: Counter[str] = Counter()
        self._notes: list[str] = []
        self._failures: list[str] = []
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in the result of a test's setup, call or teardown."""
        name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        if name != self._test:
            self.flush()
            self._test = name
        if report.failed:
            if report.nodeid not in self._failed:  # else its call has failed before its teardown
                self._failed.add(report.nodeid)
                self._count("FAILED")
            self._failures.append(_failure(report, parameters.rstrip("]")))
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            kind, _, why = reason.removeprefix("Skipped: ").partition(": ")
            self._count(kind)
            self.reasons[kind][why] += 1
        elif report.when == "call":
            self._count("passed")
            self._notes += [str(value) for name, value in report.user_properties if name == "note"]

    def _count(self, outcome: str) -> None:
        self._outcomes[outcome] += 1
        self.totals[outcome] += 1

    def flush(self) -> None:
        """Print the line of the test that has ended, under the heading of its level."""
        if not self._test:
            return
        # The docstrings of the levels' classes are headings of the report.
        titles = [str(level.__doc__).rstrip(".") for level in LEVELS if self._test in vars(level)]
        title = titles[0] if titles else "Tests that the class adds"
        if title != self._level:
            self._level = title
            print(f"\n{title}")
        words = self._test.removeprefix("test_").replace("_", " ")
        outcomes = ", ".join(_numbered(outcome, n) for outcome, n in self._outcomes.items())
        notes = f" ({', '.join(self._notes)})" if self._notes else ""
        print(f"  {words + ' ':.<{_WIDTH}} {outcomes}{notes}", flush=True)
        for text in self._failures[:_SHOWN]:
            print(text)
        if len(self._failures) > _SHOWN:
            print(f"      and {len(self._failures) - _SHOWN} more")
        self._test = ""
        self._outcomes.clear()
        self._notes.clear()
        self._failures.clear()

    def summary(self) -> str:
        """Say why tests were skipped, and how many passed and failed."""
        lines = []
        for kind, reasons in self.reasons.items():
            lines.append(f"{kind}: {self.totals[kind]}")
            lines += [f"  {why} ({count})" for why, count in reasons.items()]
        lines.append(f"{self.totals['passed']} passed, {self.totals['FAILED']} failed")
        return "\n".join(lines)


def _numbered(outcome: str, count: int) -> str:
    return outcome if count == 1 else f"{count} {outcome}"


def _failure(report: pytest.TestReport, parameters: str) -> str:
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else report.longreprtext
    lines = message.removeprefix("Failed: ").removeprefix("AssertionError: ").splitlines()
    if len(lines) > _MESSAGE_LINES:
        lines[_MESSAGE_LINES:] = ["..."]
    if parameters:
        lines.insert(0, f"[{parameters}]")
    return "\n".join(f"      {line}" for line in lines)
