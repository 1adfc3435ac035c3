"""Processor time of the calls that are counted, by the instruction set that a user gets."""

import time
from functools import cache

from cropkit._cpu import CpuBackend

from . import callgrind_cases


class ProcessorTime:
    """One thread's own time, which other processes stretch less than what a clock on the wall says.

    The calls have few boxes, so that a commit's times are quickly put on record.
    """

    params = (tuple(callgrind_cases.plain_names()),)
    param_names = ("case",)
    timer = time.process_time
    rounds = 1
    repeat = (20, 1000, 0.4)
    warmup_time = 0.05

    def setup(self, case):
        self.call = prepared(case)

    def time_call(self, case):
        self.call()


@cache
def prepared(case):
    # asv-runner 0.3.2 sets up before each single call, which would be the first of a new backend.
    return callgrind_cases.prepare(case, CpuBackend())
