"""Time of the modules for frameworks, beside the frameworks' own operators and the plain functions.

One process a framework; `peers/report_frameworks.py` runs the calls of a case in turn.
"""

import os

from .framework_calls import CASES, OURS, PLAIN, THEIRS


class Frameworks:
    """A case by its place in the framework's list."""

    params = (tuple(CASES), (0, 1, 2), (OURS, THEIRS, PLAIN))
    param_names = ("framework", "case", "call")
    repeat = (3, 10, 1.0)
    sample_time = 0.01
    warmup_time = 0.1
    timeout = 120

    def setup(self, framework, case, call):
        try:
            cases = CASES[framework](os.cpu_count() or 1)
        except ImportError as error:
            raise NotImplementedError(f"{error.name} is not installed") from None
        calls = list(cases.values())[case]
        if call not in calls:
            raise NotImplementedError(f"{framework} has no operator of its own for this")
        self.call = calls[call]
        self.call()

    def time_call(self, framework, case, call):
        self.call()
