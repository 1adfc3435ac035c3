"""Random calls, compared with TensorFlow 2.21 on the spot, bit by bit (``make test-full``)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import _cpu

from .support.backends import BACKENDS
from .support.cases import LAYOUTS, METHODS, OUT_LAYOUTS, TENSORFLOW_DTYPES, empty_out, pixels
from .support.random_calls import CALLS, FIXED_SEED, FRESH_SEED, random_call

pytestmark = pytest.mark.oracle

Operator = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="module")
def operator(tensorflow: Any) -> Operator:
    """Return TensorFlow's operator."""

    def crop_and_resize(*arguments: Any) -> NDArray[np.float32]:
        with tensorflow.device("CPU"):
            result: NDArray[np.float32] = tensorflow.image.crop_and_resize(*arguments).numpy()
        return result

    return crop_and_resize


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [FIXED_SEED, FRESH_SEED], ids=["fixed", "fresh"])
def test_random_calls(
    seed: int, operator: Operator, bits_equal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every backend and instruction set on each call; layouts and threads at random."""
    layouts = sorted(LAYOUTS)
    for number in range(CALLS // 2):
        rng = np.random.default_rng((seed, number))
        call = random_call(rng)
        expected = operator(*call)
        layout, threads = str(rng.choice(layouts)), rng.choice([None, 1, 2, 5])
        out_layout = str(rng.choice(OUT_LAYOUTS)) if rng.random() < 0.5 else None
        cache_bytes = 0 if rng.random() < 0.3 else 2**40  # less than the result: streams
        monkeypatch.setattr(_cpu, "streaming_threshold", lambda size=cache_bytes: size)
        image = LAYOUTS[layout](call[0])
        for name, backend in BACKENDS.items():
            out = empty_out(expected.shape, "float32", out_layout) if out_layout else None
            result = cropkit.crop_and_resize(
                image, *call[1:], backend=backend, num_threads=threads, out=out
            )
            bits_equal(
                result,
                expected,
                f"CROPKIT_ORACLE_SEED={seed}, call {number}, {name}: {image.dtype}{image.shape} "
                f"{layout}, {call[3:]}, into {out_layout}, {threads} threads, boxes "
                f"{call[1].tolist()}",
            )


@pytest.mark.parametrize("dtype", TENSORFLOW_DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_large_calls(dtype: str, method: str, operator: Operator, bits_equal: Any) -> None:
    """As large as real ones: many boxes, bands, teams, and boxes ordered by where they read."""
    rng = np.random.default_rng(FIXED_SEED)
    for shape, count, size in (((2, 700, 500, 3), 60, (50, 61)), ((1, 40, 50, 5), 2, (300, 400))):
        image = pixels(shape, dtype, 3)
        boxes = rng.uniform(-0.1, 1.1, (count, 4)).astype(np.float32)
        indices = rng.integers(0, shape[0], count).astype(np.int32)
        expected = operator(image, boxes, indices, size, method)
        for name, backend in BACKENDS.items():
            for threads in (1, 2, 5):
                result = cropkit.crop_and_resize(
                    image, boxes, indices, size, method, backend=backend, num_threads=threads
                )
                bits_equal(result, expected, f"{name}, {threads} threads")


def test_golden_results_are_still_the_operators(operator: Operator) -> None:
    from .data.make_golden import PATH, digest, golden_cases

    with np.load(PATH) as golden:
        for name, case in golden_cases().items():
            result = operator(*case)
            stored = golden[name]
            alike = digest(result) if stored.dtype == np.uint8 else result
            np.testing.assert_array_equal(alike, stored, name)
