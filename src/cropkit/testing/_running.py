"""Running: the same bits on every run, from threads, on devices and their streams."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from cropkit.testing._arrays import pixels
from cropkit.testing._suite import Suite, reference, same_bits

RUNS: Final = 20
OPERATIONS: Final = ("crop_and_resize", "grad_image", "grad_boxes")
operations = pytest.mark.parametrize("operation", OPERATIONS)


def arguments_of(operation: str, seed: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return arguments whose boxes overlap: the arrays for the device, then all others.

    The call is large enough for several threads, and has so few samples that a slow backend
    can run it.
    """
    image = pixels((2, 13, 11, 40), "float32", seed)
    boxes = (pixels((10, 4), "int8", seed + 1) / 200 + 0.5).astype(np.float32)
    indices = np.arange(10) % 2
    grads = pixels((10, 9, 10, 40), "float32", seed + 2)
    if operation == "crop_and_resize":
        return (image,), (boxes, indices, (9, 10))
    if operation == "grad_image":
        return (grads,), (boxes, indices, image.shape)
    return (grads, image), (boxes, indices)


class RunningTests(Suite):
    """Determinism, concurrency and devices."""

    def compute(self, operation: str, seed: int, **options: Any) -> NDArray[Any]:
        """Run one call on arrays of its own."""
        arrays, more = arguments_of(operation, seed)
        there = [self.to_device(array) for array in arrays]
        return self.from_device(self.run(operation, *there, *more, **options))

    # ---- determinism --------------------------------------------------------------------

    @operations
    def test_twenty_runs_give_the_same_bits(self, operation: str) -> None:
        first = self.compute(operation, 1).copy()
        for run in range(2, RUNS + 1):
            same_bits(self.compute(operation, 1), first, f"{operation}: run {run} and the first")

    @operations
    def test_any_number_of_threads_gives_the_same_bits(self, operation: str) -> None:
        first = self.compute(operation, 2, num_threads=1).copy()
        for threads in (2, 3, 7):
            result = self.compute(operation, 2, num_threads=threads)
            same_bits(result, first, f"{operation}: num_threads={threads} and 1")

    # ---- concurrency --------------------------------------------------------------------

    @operations
    def test_python_threads_may_call_at_once(self, operation: str) -> None:
        """Six threads call at once, and get the results that one thread gets alone."""
        seeds = range(6)
        alone = {seed: self.compute(operation, seed).copy() for seed in seeds}
        start = Barrier(len(seeds))

        def work(seed: int) -> list[NDArray[Any]]:
            start.wait(60)
            return [self.compute(operation, seed).copy() for _ in range(4)]

        with ThreadPoolExecutor(len(seeds)) as pool:
            for seed, results in zip(seeds, pool.map(work, seeds), strict=True):
                for result in results:
                    same_bits(result, alone[seed], f"{operation} from six threads, and alone")

    # ---- devices ------------------------------------------------------------------------

    @operations
    def test_out_is_filled_in_place(self, operation: str) -> None:
        """The call returns the given array itself, filled with the result."""
        arrays, more = arguments_of(operation, 3)
        expected = reference(operation, *arrays, *more)
        out = self.to_device(np.full(expected.shape, -77777.25, np.float32))
        there = [self.to_device(array) for array in arrays]
        result = self.run(operation, *there, *more, out=out)
        assert result is out, f"{operation} returned another array than out"
        what = f"{operation}: the array given as out"
        self.same_operation(operation, self.from_device(out), expected, arrays, what)

    @operations
    def test_boxes_may_be_where_the_image_is(self, operation: str) -> None:
        arrays, more = arguments_of(operation, 3)
        there = [self.to_device(array) for array in arrays]
        boxes, indices = self.to_device(more[0]), self.to_device(more[1])
        result = self.run(operation, *there, boxes, indices, *more[2:])
        expected = reference(operation, *arrays, *more)
        what = f"{operation} with boxes on the device"
        self.same_operation(operation, self.from_device(result), expected, arrays, what)

    @operations
    def test_results_are_arrays_like_the_image_and_share_nothing_with_it(
        self, operation: str
    ) -> None:
        """A result has the type and the device of the image: nothing is moved silently."""
        arrays, more = arguments_of(operation, 4)
        there = [self.to_device(array) for array in arrays]
        first = self.run(operation, *there, *more)
        for what, of in (("type", type), ("device", device_of)):
            assert of(first) == of(there[0]), (
                f"{operation} on an array of {what} {of(there[0])} gave one of {what} {of(first)}"
            )
        kept = self.from_device(first).copy()
        again = self.from_device(self.run(operation, *there, *more, out=self.like(first)))
        same_bits(again, kept, f"{operation}: a second result")
        same_bits(self.from_device(first), kept, f"{operation}: the first, after the second")

    def like(self, result: Any) -> Any:
        """Return a new array of the backend's library, of the shape and dtype of `result`."""
        return self.to_device(np.full_like(self.from_device(result), 5))

    @operations
    def test_what_was_written_before_a_call_is_read_by_it(self, operation: str) -> None:
        """Arrays change in place between calls, on another stream if the device has streams."""
        with self.stream():
            arrays, more = arguments_of(operation, 5)
            there = [self.to_device(array) for array in arrays]
            for seed in range(6, 11):
                others, _ = arguments_of(operation, seed)
                for array, other in zip(there, others, strict=True):
                    array[...] = self.to_device(other)
                result = self.from_device(self.run(operation, *there, *more))
                expected = reference(operation, *others, *more)
                self.same(result, expected, f"{operation}: arrays rewritten for call {seed - 5}")

    @operations
    def test_streams_do_not_mix_up_their_calls(self, operation: str) -> None:
        """Calls are queued on two streams in turn; the results are read at the end."""
        streams = (self.stream, self.stream)
        calls: list[tuple[Any, NDArray[Any]]] = []
        for seed, stream in enumerate(streams * 3):
            with stream():
                arrays, more = arguments_of(operation, seed)
                there = [self.to_device(array) for array in arrays]
                calls.append((self.run(operation, *there, *more),
                              reference(operation, *arrays, *more)))  # fmt: skip
        for result, expected in calls:
            self.same(self.from_device(result), expected, f"{operation} on two streams in turn")


def device_of(array: Any) -> Any:
    """Return the device of an array, as DLPack gives it."""
    find: Callable[[], Any] | None = getattr(array, "__dlpack_device__", None)
    return tuple(find()) if find is not None else None
