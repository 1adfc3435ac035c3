"""Inputs that another thread changes during the call: any result will do, but no crash."""

import contextlib
import threading

import numpy as np

import cropkit
from cropkit import Backend

from .support.cases import pixels


def test_box_indices_that_another_thread_changes(each_cpu_backend: Backend) -> None:
    """The kernel compares each index itself: an index gone bad reads no memory."""
    image = pixels((2, 8, 8, 3), "uint8", 1)
    boxes = np.tile(np.float32([0, 0, 1, 1]), (2000, 1))
    indices = np.zeros(2000, np.intp)
    out = np.zeros((2000, 20, 20, 3), np.float32)
    stop = threading.Event()

    def spoil() -> None:
        while not stop.is_set():
            indices[:] = 2**62
            boxes[:] = np.nan
            indices[:] = 0
            boxes[:] = 0

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    try:
        for _ in range(30):
            # Either may be raised when the change comes before the check.
            with contextlib.suppress(IndexError, ValueError):
                cropkit.crop_and_resize(image, boxes, indices, (20, 20), out=out, num_threads=2,
                                        backend=each_cpu_backend)  # fmt: skip
            # Pixels of the image, mixed, or the extrapolation value: no other memory was read.
            assert (out >= 0).all()
            assert (out <= image.max()).all()
    finally:
        stop.set()
        spoiler.join()


def test_an_index_gone_bad_after_the_check(each_cpu_backend: Backend) -> None:
    """The same without chance: the backend is given a bad index directly."""
    kind = np.dtype("float32")
    request = cropkit.Request(
        operation="crop_and_resize", sampling=cropkit.Sampling(), image_shape=(2, 8, 8, 3),
        image_dtype=np.dtype("uint8"), num_boxes=3, crop_size=(4, 4), compute_dtype=kind,
        result_dtype=kind, extrapolation_value=-7.0, num_threads=2,
    )  # fmt: skip
    boxes = np.zeros((3, 4), np.float32)
    boxes[2] = np.nan
    out = np.zeros(request.result_shape, np.float32)
    each_cpu_backend.crop_and_resize(
        request, pixels((2, 8, 8, 3), "uint8"), boxes, np.array([2**62, -1, 0]), out
    )
    assert (out == -7).all()
