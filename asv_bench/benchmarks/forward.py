"""Time of each workload, on each instruction set, on one thread and on all."""

import os

import numpy as np

from cropkit import crop_and_resize
from cropkit._cpu import CpuBackend, built_instruction_sets

from . import workloads

ALL_THREADS = os.cpu_count() or 1


class Forward:
    """`out=` is reused: nobody pays for new pages."""

    params = (
        workloads.NAMES,
        workloads.METHODS,
        ("float32", "float64"),
        ("baseline", "avx2", "avx512", "neon"),
        ("1", "all"),
    )
    param_names = ("workload", "method", "dtype", "isa", "threads")
    rounds = 2
    repeat = (3, 10, 0.5)
    sample_time = 0.01
    warmup_time = 0.1

    def setup(self, name, method, dtype, isa, threads):
        if dtype == "float64" and name not in workloads.FLOAT64_NAMES:
            raise NotImplementedError(f"{name} is not run in float64")
        if isa not in built_instruction_sets():
            raise NotImplementedError(f"this CPU has no {isa}")
        if threads == "all" and ALL_THREADS == 1:
            raise NotImplementedError("this machine has one CPU")
        work = workloads.make(name)
        self.arguments = (*work.arguments, method)
        # The size of the team is given: under OMP_PROC_BIND the main thread is bound to one
        # CPU, and then that is all that this process seems to have.
        self.keywords = {
            "dtype": dtype,
            "out": np.zeros(work.result_shape, dtype),
            "backend": CpuBackend(isa),
            "num_threads": ALL_THREADS if threads == "all" else 1,
        }
        self.time_forward(name, method, dtype, isa, threads)

    def time_forward(self, name, method, dtype, isa, threads):
        crop_and_resize(*self.arguments, **self.keywords)
