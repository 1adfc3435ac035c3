"""Memory that a call needs beyond its arguments and its result."""

import numpy as np

from cropkit import crop_and_resize

from . import workloads


class Memory:
    """Peak resident memory of the process; `peakmem_twin` does all but the call.

    The difference of the two is what the call needs. It must not grow with the image, the
    result or the number of boxes.
    """

    params = (workloads.NAMES,)
    param_names = ("workload",)

    def setup(self, name):
        work = workloads.make(name)
        self.arguments = work.arguments
        # Not zeros, whose pages the call would be the first to touch.
        self.out = np.ones(work.result_shape, np.float32)
        # Load the kernels and start the team: neither is what is asked.
        crop_and_resize(*workloads.make("tiny").arguments, num_threads=2)

    def peakmem_call(self, name):
        # On all CPUs the memory would depend on how many there are.
        crop_and_resize(*self.arguments, out=self.out, num_threads=2)

    def peakmem_twin(self, name):
        pass
