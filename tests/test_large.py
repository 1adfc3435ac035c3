"""Sizes beyond 32 bits, and how much memory a call takes (``make test-full``)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend

pytestmark = pytest.mark.large

GIB: Final = 2**30


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo has no MemAvailable")


def needs(gib: float) -> None:
    """Skip where memory is short."""
    if available_bytes() < gib * GIB:
        pytest.skip(f"needs {gib} GiB of free memory, found {available_bytes() / GIB:.1f}")


@pytest.fixture(params=["zeros", "memmap"])
def vast_image(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NDArray[np.uint8]]:
    """Return an image of 2**31 + 2**22 pixels, of which only the last rows take memory.

    Its last two rows and its first are filled with numbers that tell their place.
    """
    shape = (2, 1, 2**30 + 2**21, 1)
    image: NDArray[np.uint8]
    if request.param == "zeros":
        image = np.zeros(shape, np.uint8)
    else:
        image = np.memmap(tmp_path / "image", np.uint8, "w+", shape=shape)
    end = np.arange(1, 101, dtype=np.uint8)
    image[1, 0, -100:, 0] = end
    image[0, 0, :100, 0] = end + 100
    yield image
    del image


# Axes of 2**24 pixels and more have positions that float32 cannot tell apart; float64 can.
def test_far_end_of_a_long_row(vast_image: NDArray[np.uint8], each_backend: Backend) -> None:
    width = vast_image.shape[2]
    far = (width - 100) / (width - 1)
    result = cropkit.crop_and_resize(
        vast_image,
        [[0, far, 0, 1], [0, 0, 0, 99 / (width - 1)]],
        [1, 0],
        (1, 100),
        "nearest",
        dtype=np.float64,
        backend=each_backend,
    )
    assert result[0, 0, :, 0].tolist() == list(range(1, 101))
    assert result[1, 0, :, 0].tolist() == list(range(101, 201))


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_far_end_of_many_rows(method: str, each_backend: Backend) -> None:
    """Offsets beyond 2**31 along every axis that has a stride."""
    image = np.zeros((3, 40_000, 6_000, 3), np.uint8)  # 2.16e9 bytes, untouched ones unused
    assert image.size > 2**31
    image[2, -3:, -5:] = np.arange(1, 46).reshape(3, 5, 3)
    y, x = 1 - 2 / 39_999, 1 - 4 / 5_999
    for flipped in (False, True):
        box = [1, 1, y, x] if flipped else [y, x, 1, 1]
        result = cropkit.crop_and_resize(
            image, [box], [2], (3, 5), method, dtype=np.float64, backend=each_backend
        )
        expected = np.arange(1, 46).reshape(3, 5, 3)[
            :: -1 if flipped else 1, :: -1 if flipped else 1
        ]
        np.testing.assert_allclose(result[0], expected, atol=1e-6)
    # The same in float32, at the very last pixel.
    result = cropkit.crop_and_resize(
        image, [[1, 1, 1, 1]], [2], (1, 1), method, backend=each_backend
    )
    assert result.ravel().tolist() == [43, 44, 45]
    # And backwards through the array: strides that are negative and large.
    result = cropkit.crop_and_resize(
        image[::-1, ::-1, ::-1], [[0, 0, 0, 0]], [0], (1, 1), method, backend=each_backend
    )
    assert result.ravel().tolist() == [43, 44, 45]


def test_image_of_more_than_2_31_elements_of_float32(each_cpu_backend: Backend) -> None:
    """A broadcast view: as long as any, and no memory."""
    row = np.arange(5, dtype=np.float32).repeat(3).reshape(1, 1, 5, 3)
    image = np.broadcast_to(row, (2**20, 2**20, 5, 3))
    assert image.size > 2**43
    result = cropkit.crop_and_resize(
        image, [[0, 0, 1, 1]], [2**20 - 1], (3, 5), backend=each_cpu_backend
    )
    np.testing.assert_array_equal(result[0], np.broadcast_to(row[0], (3, 5, 3)))


@pytest.mark.parametrize("threads", [1, 2])
def test_result_of_more_than_2_31_bytes(threads: int, each_cpu_backend: Backend) -> None:
    needs(4)
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    count, size = 600, (1000, 1000)
    boxes = np.tile([0.0, 0, 1, 1], (count, 1))
    boxes[-1] = [1, 1, 0, 0]
    result = cropkit.crop_and_resize(
        image, boxes, None, size, backend=each_cpu_backend, num_threads=threads
    )
    assert result.nbytes > 2**31
    alone = cropkit.crop_and_resize(
        image, boxes[-2:], None, size, backend="reference", num_threads=1
    )
    np.testing.assert_array_equal(result[-2:], alone)
    np.testing.assert_array_equal(result[0], alone[0])
    np.testing.assert_array_equal(result[count // 2], alone[0])


def test_one_crop_of_more_than_2_31_bytes(each_cpu_backend: Backend) -> None:
    """Steps are powers of two, so that each value is exact: 9 * row + column."""
    needs(4)
    image = np.arange(81, dtype=np.uint8).reshape(1, 9, 9, 1)
    result = cropkit.crop_and_resize(
        image, [[0, 0, 1, 1]], [0], (2**16 + 1, 2**13 + 1), backend=each_cpu_backend, num_threads=2
    )
    assert result.nbytes > 2**31
    columns = np.arange(2**13 + 1, dtype=np.float32) / 2**10
    for row in (0, 1, 12345, 2**15, 54321, 2**16 - 1, 2**16):
        np.testing.assert_array_equal(result[0, row, :, 0], 9 * row / 2**13 + columns)


# ---- memory --------------------------------------------------------------------------------

PEAK_PROGRAM: Final = """if True:
    import resource, sys
    import numpy as np
    import cropkit

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    layout, dtype, count, rows, columns = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    rng = np.random.default_rng(0)
    # Made in place: a temporary here would hide one of the same size in the call.
    if layout == "channels first":
        image = np.ones((2, 3, 1500, 2000), dtype).transpose(0, 2, 3, 1)
    elif layout == "misaligned":
        size = 2 * 1500 * 2000 * 3 * np.dtype(dtype).itemsize
        image = np.ones(size + 1, np.uint8)[1:].view(dtype).reshape(2, 1500, 2000, 3)
    else:
        order = ">" if layout == "byte-swapped" else "="
        image = np.ones((2, 1500, 2000, 3), np.dtype(dtype).newbyteorder(order))
    boxes = rng.uniform(0, 1, (count, 4)).astype(np.float32)
    indices = rng.integers(0, 2, count)
    # A first call loads the kernels and starts the threads.
    cropkit.crop_and_resize(image, boxes[:40], indices[:40], (100, 100), num_threads=2)
    out = np.ones((count, rows, columns, 3), np.float32)
    before = peak()
    cropkit.crop_and_resize(image, boxes, indices, (rows, columns), out=out, num_threads=2)
    with_out = peak() - before
    del out
    print(with_out, image.nbytes, count * rows * columns * 12)
"""


@pytest.mark.parametrize("layout", ["packed", "channels first", "byte-swapped", "misaligned"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("sizes", [(300, 200, 224), (2, 3000, 4000), (200_000, 2, 3)])
def test_peak_memory(layout: str, dtype: str, sizes: tuple[int, int, int]) -> None:
    """Beside inputs and result a call takes a few rows a thread and a few bytes a box."""
    arguments = [layout, dtype, *map(str, sizes)]
    done = subprocess.run(
        [sys.executable, "-c", PEAK_PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    more, image_bytes, result_bytes = map(int, done.stdout.split())
    count, _, columns = sizes
    row = (columns + 32) * 3 * 8
    # Per thread: two interpolated rows, one line, the loaded pixels and the tables.
    limit = 2 * 20 * row + 32 * count + 2 * 2**20
    assert limit < image_bytes, "the limit would not notice a copy of the image"
    assert limit < result_bytes, "the limit would not notice a copy of the result"
    assert more <= limit


def test_peak_memory_with_a_new_result() -> None:
    """Without `out`: nothing but the result is added."""
    program = """if True:
        import resource, numpy as np, cropkit
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        image = np.ones((1, 500, 500, 3), np.uint8)
        boxes = np.tile([0.0, 0, 1, 1], (200, 1))
        cropkit.crop_and_resize(image, boxes[:40], None, (100, 100), num_threads=2)
        before = peak()
        result = cropkit.crop_and_resize(image, boxes, None, (300, 300), num_threads=2)
        print(peak() - before, result.nbytes)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    more, result_bytes = map(int, done.stdout.split())
    assert more <= result_bytes + 2 * 2**20


def test_backends_agree_on_a_large_image(each_cpu_backend: Backend, bits_equal: Any) -> None:
    """Float32 positions on an axis that float32 cannot count."""
    row = np.arange(251, dtype=np.uint8)
    image = np.zeros((1, 1, 2**25 + 3, 1), np.uint8)
    image[0, 0, -251:, 0] = row
    image[0, 0, :251, 0] = row
    boxes = [[0, 1 - 2.0**-20, 0, 1], [0, 1, 0, 1 - 2.0**-18], [0, 0, 0, 2.0**-19], [0, 1, 0, 0]]
    for method in ("bilinear", "nearest"):
        arguments = (image, boxes, None, (1, 77), method)
        result = cropkit.crop_and_resize(*arguments, backend=each_cpu_backend)
        bits_equal(result, cropkit.crop_and_resize(*arguments, backend="reference"), method)
