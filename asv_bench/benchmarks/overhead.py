"""What a call costs beyond its kernel, and what the import costs."""

import numpy as np

from cropkit import crop_and_resize

from . import workloads


class Tiny:
    """The operator's own example; and a call with one pixel: checks and choice alone."""

    params = (("tiny", "one_pixel"), ("fresh", "reused"), ("array", "list"))
    param_names = ("call", "result", "boxes")
    sample_time = 0.02

    def setup(self, call, result, boxes):
        work = workloads.make("tiny")
        image, box, index, crop_size = work.arguments
        if call == "one_pixel":
            box, index, crop_size = box[:1], index[:1], (1, 1)
        if boxes == "list":
            box, index = box.tolist(), index.tolist()
        self.arguments = image, box, index, crop_size
        shape = (len(box), *crop_size, image.shape[3])
        self.out = np.zeros(shape, np.float32) if result == "reused" else None

    def time_call(self, call, result, boxes):
        crop_and_resize(*self.arguments, out=self.out)


def timeraw_import():
    """Import cropkit, NumPy being there already."""
    return "import cropkit", "import numpy"


def timeraw_first_call():
    """Call for the first time: this chooses a backend and loads the kernels."""
    return (
        "cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2))",
        "import numpy, cropkit; image = numpy.zeros((1, 4, 4, 1), numpy.uint8)",
    )


# Each is done once in a process.
timeraw_import.number = timeraw_first_call.number = 1
timeraw_import.repeat = timeraw_first_call.repeat = 10
