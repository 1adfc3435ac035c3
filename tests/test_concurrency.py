"""Many threads that call everything at once, with the GIL or without it."""

import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import cropkit
from tests.support.constant import Constant, value

THREADS = 8
ROUNDS = 20

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (2, 60, 70, 3), np.uint8)
BOXES = rng.uniform(-0.2, 1.2, (30, 4)).astype(np.float32)
INDICES = np.arange(30, dtype=np.int32) % 2
GRADS = rng.random((30, 20, 30, 3), np.float32)


def crops(size: tuple[int, int], method: str, dtype: str, num_threads: int) -> bytes:
    return cropkit.crop_and_resize(
        IMAGES.astype(dtype), BOXES, INDICES, size, method, num_threads=num_threads
    ).tobytes()


def in_block(number: int) -> bytes:
    with cropkit.use_backend(Constant(number)):
        return str(value()).encode()


def refusal() -> bytes:
    with pytest.raises(IndexError) as error:
        cropkit.crop_and_resize(IMAGES, BOXES, INDICES + 1, (2, 2))
    return str(error.value).encode()


# Small and large ones: results of 4 MiB and more take the memory of each other.
CALLS: list[Callable[[], bytes]] = [
    lambda: crops((20, 30), "bilinear", "uint8", 1),
    lambda: crops((20, 30), "nearest", ">f4", 2),
    lambda: crops((150, 150), "bilinear", "float32", 1),
    lambda: crops((150, 150), "nearest", "float64", 3),
    lambda: cropkit.crop_and_resize_grad_image(GRADS, BOXES, INDICES, IMAGES.shape).tobytes(),
    lambda: cropkit.crop_and_resize_grad_boxes(GRADS, IMAGES, BOXES, INDICES).tobytes(),
    lambda: in_block(1),
    lambda: in_block(2),
    refusal,
]


@contextmanager
def hasty_switches() -> Iterator[None]:
    """Let the GIL, where there is one, change hands a hundred times as often."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def test_calls_of_many_threads_give_what_they_give_alone() -> None:
    expected = [call() for call in CALLS]
    assert expected[6:8] == [b"1.0", b"2.0"]
    wrong: list[str] = []
    start = threading.Barrier(THREADS)

    def work(first: int) -> None:
        start.wait()
        for number in range(first, first + ROUNDS * len(CALLS)):
            which = number % len(CALLS)
            try:
                if CALLS[which]() != expected[which]:
                    wrong.append(f"call {which} gave something else")
            except Exception as error:
                wrong.append(f"call {which}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    with hasty_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_free_threaded_python_stays_so() -> None:
    """A module that does not say that it can do without the GIL turns it on for everybody."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert gil == (not sysconfig.get_config_var("Py_GIL_DISABLED"))
