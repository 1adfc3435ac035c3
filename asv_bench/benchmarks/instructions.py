"""Instructions that the kernels execute, in the cases of the regression gate."""

from . import callgrind, callgrind_cases


class Instructions:
    """One thread, counted by valgrind: the same binary gives the same count."""

    params = (tuple(callgrind_cases.names()),)
    param_names = ("case",)
    unit = "instructions"
    timeout = 300

    def setup_cache(self):
        if reason := callgrind.missing():
            return reason
        return callgrind.count()

    setup_cache.timeout = 300

    def setup(self, counts, case):
        if isinstance(counts, str):
            raise NotImplementedError(counts)
        if case not in counts:
            raise NotImplementedError("this CPU has no such instruction set")

    def track_instructions(self, counts, case):
        return counts[case]
