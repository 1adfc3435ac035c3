"""Nothing is read or written outside an array, not even by a vector that hangs over its end.

Images lie flush against pages that may not be touched, in a process of its own: a read
astray ends it. What surrounds `out` in its memory is compared afterwards.
"""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend, _cpu

from .support.cases import (
    DEPTHS,
    DTYPES,
    GEOMETRIES,
    METHODS,
    OUT_LAYOUTS,
    Geometry,
    empty_out,
    indices_of,
    memory_of,
    pixels,
)
from .support.guarded import guarded

ROOT = Path(__file__).parents[1]


@cache
def expected_of(geometry: Geometry, depth: int, method: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an image and, by the reference, its crops; the same for every test."""
    image = pixels((*geometry.image_shape, depth), "uint8", depth)
    arguments = image, geometry.boxes, indices_of(geometry), geometry.crop_size, method
    return image, cropkit.crop_and_resize(*arguments, backend="reference")


@pytest.mark.parametrize("stream", [False, True], ids=["cached", "streamed"])
@pytest.mark.parametrize("layout", OUT_LAYOUTS)
def test_only_out_is_written(
    layout: str, stream: bool, each_cpu_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cpu, "streaming_threshold", lambda: 0 if stream else 2**40)
    for geometry, depth, method in itertools.product(GEOMETRIES, DEPTHS, METHODS):
        image, expected = expected_of(geometry, depth, method)
        arguments = (image, geometry.boxes, indices_of(geometry), geometry.crop_size, method)
        out = empty_out(expected.shape, "float32", layout)
        untouched = empty_out(expected.shape, "float32", layout)
        untouched[...] = expected
        cropkit.crop_and_resize(*arguments, backend=each_cpu_backend, out=out, num_threads=2)
        what = f"{geometry.name} depth {depth} {method}"
        assert memory_of(out) == memory_of(untouched), what


@pytest.mark.parametrize("stream", [False, True], ids=["cached", "streamed"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_out_at_every_place_within_a_cache_line(
    dtype: str, stream: bool, each_cpu_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cpu, "streaming_threshold", lambda: 0 if stream else 2**40)
    for (box, columns), depth, method in itertools.product(
        (([0, 0, 1, 1], 23), ([0.2, -0.3, 0.9, 1.1], 37), ([0, 0, 1, 1], 3)), (1, 3, 5), METHODS
    ):
        image = pixels((1, 6, 40, depth), "uint8", depth)
        arguments = (image, [box, box], None, (5, columns), method)
        expected = cropkit.crop_and_resize(*arguments, dtype=dtype, backend="reference")
        for offset in range(17):
            memory = np.full(expected.size + 40, 0.625, dtype)
            out = memory[offset : offset + expected.size].reshape(expected.shape)
            cropkit.crop_and_resize(*arguments, dtype=dtype, backend=each_cpu_backend, out=out)
            np.testing.assert_array_equal(out, expected, f"offset {offset} depth {depth} {method}")
            assert (memory[:offset] == 0.625).all()
            assert (memory[offset + expected.size :] == 0.625).all()


# ---- pages that may not be touched ---------------------------------------------------


def guarded_geometries() -> Iterator[Geometry]:
    """Yield geometries whose boxes read up to the image's edges, the smallest images too."""
    yield from GEOMETRIES
    whole = ((0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 0.0, 0.0))
    for width, columns in itertools.product((1, 2, 3, 4, 5, 7, 8, 16, 17), (1, 3, 8, 21, 64)):
        yield Geometry("edge", (1, 2, width), whole, (3, columns))


def read_next_to_guards(isa: str) -> None:
    """Run calls on guarded images; ends the process if one reads outside."""
    backend = _cpu.CpuBackend(isa)
    depths = (1, 2, 3, 4, 5, 17)
    for geometry, dtype, depth in itertools.product(guarded_geometries(), DTYPES, depths):
        image = pixels((*geometry.image_shape, depth), dtype, depth)
        for at_end, backwards in itertools.product((False, True), (False, True)):
            view = guarded(image, at_end)
            if backwards:
                view = view[::-1, ::-1, ::-1]
            for method, result_dtype in itertools.product(METHODS, ("float32", "float64")):
                cropkit.crop_and_resize(
                    view,
                    geometry.boxes,
                    indices_of(geometry),
                    geometry.crop_size,
                    method,
                    dtype=result_dtype,
                    backend=backend,
                    num_threads=1,
                )
    print("survived")


@pytest.mark.parametrize("isa", _cpu.built_instruction_sets())
def test_nothing_is_read_next_to_the_image(isa: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import tests.test_guards as t; t.read_next_to_guards({isa!r})"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"ended by {done.returncode}: {done.stderr[-1000:]}"
    assert done.stdout == "survived\n"


def test_the_guard_pages_do_guard() -> None:
    program = """if True:
        import numpy as np
        import tests.test_guards as t
        view = t.guarded(np.ones((1, 2, 2, 1), np.uint8), True)
        np.lib.stride_tricks.as_strided(view, (1, 2, 3, 1)).copy()
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode < 0  # a signal
