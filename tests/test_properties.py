"""Laws that hold for any call, and the equality of every backend with the reference.

``HYPOTHESIS_PROFILE=full`` tries many more examples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import cropkit
from cropkit import Backend

from .support.cases import DEPTHS, DTYPES, LAYOUTS, METHODS, OUT_LAYOUTS, empty_out, pixels

# ---- strategies ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Arguments:
    """One call, without the backend."""

    image: NDArray[Any]
    boxes: NDArray[Any]
    box_indices: NDArray[np.intp]
    crop_size: tuple[int, int]
    method: str
    extrapolation_value: float

    def run(self, backend: Any, **changed: Any) -> NDArray[Any]:
        """Make the call; `changed` replaces or adds arguments."""
        return cropkit.crop_and_resize(**{**vars(self), "backend": backend, **changed})


def edges(n: int) -> st.SearchStrategy[float]:
    """Draw normalized edges for an axis of length `n`, all finite in float32."""
    pixel = max(n - 1, 1)
    return st.one_of(
        st.floats(-0.5, 1.5, width=32),
        st.integers(-2, n + 1).map(lambda i: i / pixel),
        st.integers(-3, 2 * n + 1).map(lambda i: i / 2 / pixel),  # halves of pixels
        st.sampled_from([0.0, -0.0, 1.0, 0.5, -1e-43, 1e-43, 1e-45, -1.2e-38, 1 + 2.0**-23]),
        st.floats(-(2.0**-122), 2.0**-122, width=32),
        st.floats(allow_nan=False, allow_infinity=False, width=32),
    )


@st.composite
def images(draw: st.DrawFn, dtype: str | None = None, special: float = 0.05) -> NDArray[Any]:
    """Draw an image: short and long rows, every depth that kernels tell apart."""
    width = st.one_of(st.integers(1, 6), st.integers(1, 70))
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 9)),
        draw(width),
        draw(st.sampled_from(DEPTHS)),
    )
    name = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    share = draw(st.sampled_from([0.0, special]))
    return pixels(shape, name, draw(st.integers(0, 2**20)), share)


@st.composite
def calls(draw: st.DrawFn, image: NDArray[Any] | None = None, least: int = 1) -> Arguments:
    """Draw a call."""
    if image is None:
        image = draw(images())
    batch, height, width, _ = image.shape
    box = st.tuples(edges(height), edges(width), edges(height), edges(width))
    boxes = draw(st.lists(box, min_size=least, max_size=5))
    count = len(boxes)
    return Arguments(
        image,
        np.array(boxes, np.float64),
        np.array(draw(st.lists(st.integers(0, batch - 1), min_size=count, max_size=count))),
        (draw(st.integers(1, 12)), draw(st.one_of(st.integers(1, 5), st.integers(1, 60)))),
        draw(st.sampled_from(METHODS)),
        draw(st.sampled_from([0.0, -1.5, float("nan"), 1e-40])),
    )


def plain_calls(dtype: str = "int16", **more: Any) -> st.SearchStrategy[Arguments]:
    """Draw calls whose images hold plain numbers only."""
    return images(dtype, special=0.0).flatmap(lambda image: calls(image, **more))


result_dtypes = st.sampled_from(["float32", "float64"])
threads = st.sampled_from([1, 2, 5])


# ---- equality ------------------------------------------------------------------------------


@given(
    call=calls(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    out_layout=st.sampled_from((None, *OUT_LAYOUTS)),
    dtype=result_dtypes,
    num_threads=threads,
)
def test_equal_to_the_reference(
    call: Arguments,
    layout: str,
    out_layout: str | None,
    dtype: str,
    num_threads: int,
    each_cpu_backend: Backend,
    bits_equal: Any,
) -> None:
    expected = call.run("reference", dtype=dtype)
    out = None if out_layout is None else empty_out(expected.shape, dtype, out_layout)
    result = call.run(
        each_cpu_backend,
        image=LAYOUTS[layout](call.image),
        dtype=dtype,
        num_threads=num_threads,
        out=out,
    )
    bits_equal(result, expected)


@given(
    call=calls(),
    scale=st.sampled_from([1e300, 1e154, 1e-300, 5e-324]),
    method=st.sampled_from(METHODS),
)
def test_equal_to_the_reference_beyond_float32(
    call: Arguments, scale: float, method: str, each_cpu_backend: Backend, bits_equal: Any
) -> None:
    """Boxes that only float64 can tell apart."""
    with np.errstate(over="ignore"):
        boxes = call.boxes * scale
    assume(np.isfinite(boxes).all())
    changed = {"boxes": boxes, "dtype": np.float64, "method": method}
    bits_equal(call.run(each_cpu_backend, **changed), call.run("reference", **changed))


# ---- laws ----------------------------------------------------------------------------------


@given(image=images(special=0.0), dtype=result_dtypes, method=st.sampled_from(METHODS))
def test_identity(
    image: NDArray[Any], dtype: str, method: str, each_backend: Backend, bits_equal: Any
) -> None:
    """A whole image at its own size is itself: the step is one pixel, exactly."""
    batch, height, width, _ = image.shape
    result = cropkit.crop_and_resize(
        image,
        np.tile([0, 0, 1, 1], (batch, 1)),
        None,
        (height, width),
        method,
        dtype=dtype,
        backend=each_backend,
    )
    if height == 1 or width == 1:
        # One sample lies in the middle of the axis, which is its only pixel.
        assert result.shape == image.shape
    bits_equal(result, image.astype(dtype) + np.dtype(dtype).type(0))


@st.composite
def dyadic_calls(draw: st.DrawFn) -> Arguments:
    """Draw a call whose positions are exact, backwards too: powers of two throughout."""
    height, width = (2 ** draw(st.integers(0, 4)) + 1 for _ in range(2))
    image = pixels(
        (1, height, width, draw(st.sampled_from(DEPTHS))),
        draw(st.sampled_from(DTYPES)),
        draw(st.integers(0, 1000)),
        0.02,
    )
    edge = st.integers(-4, 20).map(lambda i: i / 16)
    box = draw(st.tuples(edge, edge, edge, edge))
    size = tuple(2 ** draw(st.integers(0, 5)) + 1 for _ in range(2))
    return Arguments(
        image, np.array([box]), np.array([0]), size, draw(st.sampled_from(METHODS)), -2.0
    )


@given(call=dyadic_calls(), dtype=result_dtypes)
def test_flipped_box_is_the_reversed_crop(
    call: Arguments, dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    whole = call.run(each_backend, dtype=dtype)
    upside_down = call.run(each_backend, dtype=dtype, boxes=call.boxes[:, [2, 1, 0, 3]])
    mirrored = call.run(each_backend, dtype=dtype, boxes=call.boxes[:, [0, 3, 2, 1]])
    bits_equal(upside_down + 0, whole[:, ::-1] + 0)
    bits_equal(mirrored + 0, whole[:, :, ::-1] + 0)


@given(call=plain_calls(), power=st.integers(-20, 20), dtype=result_dtypes)
def test_linear_in_the_image(
    call: Arguments, power: int, dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    """Twice the image is twice the crop, exactly, and so for each power of two."""
    factor = np.dtype(dtype).type(2.0**power)
    image = call.image.astype(dtype)
    changed: dict[str, Any] = {"dtype": dtype, "extrapolation_value": 0.0}
    # Weights may be tiny and products then subnormal, which scaling does not commute with.
    boxes = np.where(np.abs(call.boxes) < 1e-20, 0, call.boxes)
    once = call.run(each_backend, image=image, boxes=boxes, **changed)
    scaled = call.run(each_backend, image=image * factor, boxes=boxes, **changed)
    bits_equal(scaled, once * factor)


@given(call=plain_calls(), dtype=result_dtypes)
def test_odd_in_the_image(
    call: Arguments, dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    """The negative's crop is the crop's negative."""
    changed: dict[str, Any] = {"dtype": dtype, "extrapolation_value": 0.0}
    image = call.image.astype(dtype)
    positive = call.run(each_backend, image=image, **changed)
    negative = call.run(each_backend, image=-image, **changed)
    bits_equal(negative + 0, -positive + 0)


@given(call=plain_calls("float64"), value=st.sampled_from([7.0, 1e300]))
def test_constant_image(call: Arguments, value: float, each_backend: Backend) -> None:
    """It is the constant inside, the extrapolation value outside, and nothing else."""
    result = call.run(
        each_backend,
        image=np.full_like(call.image, value),
        extrapolation_value=-1.0,
        dtype=np.float64,
    )
    assert set(result.ravel().tolist()) <= {value, -1.0}


@given(call=calls(), dtype=result_dtypes)
def test_extrapolation_value_fills_the_outside_only(
    call: Arguments, dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    ones = np.ones_like(call.image)
    mask = call.run(each_backend, image=ones, dtype=dtype, extrapolation_value=0.0)
    assert np.isin(mask, (0, 1)).all()
    # Whole rows and whole columns of a crop are outside.
    inside = mask != 0
    rows, columns = inside.any((2, 3)), inside.any((1, 3))
    assert (inside == (rows[:, :, None] & columns[:, None, :])[..., None]).all()
    for value in (0.25, float("nan")):
        result = call.run(each_backend, dtype=dtype, extrapolation_value=value)
        zero = call.run(each_backend, dtype=dtype, extrapolation_value=0.0)
        bits_equal(result, np.where(inside, zero, np.dtype(dtype).type(value)))


@given(call=calls(), dtype=result_dtypes)
def test_inside_does_not_depend_on_the_method(
    call: Arguments, dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    changed: dict[str, Any] = {"image": np.ones_like(call.image), "extrapolation_value": 0.0}
    masks = [call.run(each_backend, dtype=dtype, method=m, **changed) for m in METHODS]
    bits_equal(masks[0], masks[1])


@given(call=calls(least=2), data=st.data(), dtype=result_dtypes, num_threads=threads)
def test_boxes_do_not_depend_on_each_other(
    call: Arguments,
    data: st.DataObject,
    dtype: str,
    num_threads: int,
    each_backend: Backend,
    bits_equal: Any,
) -> None:
    """Any choice of the boxes, in any order and repeated, gives that choice of the crops."""
    whole = call.run(each_backend, dtype=dtype)
    choice = data.draw(st.lists(st.integers(0, len(call.boxes) - 1), min_size=1, max_size=12))
    changed: dict[str, Any] = {"boxes": call.boxes[choice], "box_indices": call.box_indices[choice]}
    bits_equal(
        call.run(each_backend, dtype=dtype, num_threads=num_threads, **changed), whole[choice]
    )


@given(call=calls(), dtype=result_dtypes)
def test_channels_do_not_depend_on_each_other(
    call: Arguments, dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    """Which is more than it seems: each depth has its own way through the kernels."""
    whole = call.run(each_backend, dtype=dtype)
    for channels in (slice(0, 1), slice(-3, None), slice(-2, None), slice(None, None, -1)):
        result = call.run(each_backend, dtype=dtype, image=call.image[..., channels])
        bits_equal(result, whole[..., channels], f"{channels}")


@given(call=calls(), dtype=result_dtypes)
def test_images_do_not_depend_on_each_other(
    call: Arguments, dtype: str, each_backend: Backend, bits_equal: Any
) -> None:
    whole = call.run(each_backend, dtype=dtype)
    for number, index in enumerate(call.box_indices):
        alone = call.run(
            each_backend,
            dtype=dtype,
            image=call.image[index : index + 1],
            boxes=call.boxes[number : number + 1],
            box_indices=None,
        )
        bits_equal(alone[0], whole[number])


@given(
    call=calls(),
    dtype=result_dtypes,
    layout=st.sampled_from(sorted(LAYOUTS)),
    out_layout=st.sampled_from(OUT_LAYOUTS),
    num_threads=threads,
)
def test_layouts_and_threads_do_not_matter(
    call: Arguments,
    dtype: str,
    layout: str,
    out_layout: str,
    num_threads: int,
    each_backend: Backend,
    bits_equal: Any,
) -> None:
    plain = call.run(each_backend, dtype=dtype, num_threads=1)
    result = call.run(
        each_backend,
        dtype=dtype,
        num_threads=num_threads,
        image=LAYOUTS[layout](call.image),
        boxes=np.asfortranarray(call.boxes.astype(">f8")),
        box_indices=call.box_indices.astype(">i2")[::-1].copy()[::-1],
        out=empty_out(plain.shape, dtype, out_layout),
    )
    bits_equal(result, plain)


@given(call=calls(), dtype=result_dtypes)
def test_nearest_only_copies(call: Arguments, dtype: str, each_backend: Backend) -> None:
    result = call.run(each_backend, dtype=dtype, method="nearest", extrapolation_value=0.0)
    with np.errstate(over="ignore"):
        values = call.image.astype(dtype)
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    if call.image.dtype == np.float64 and dtype == "float32":
        values = np.where(tiny, 0, values)  # rounding flushes
    assert np.isin(result[~np.isnan(result)], [*values[~np.isnan(values)].ravel(), 0.0]).all()


@given(call=calls())
def test_arguments_are_left_alone(call: Arguments, each_backend: Backend, bits_equal: Any) -> None:
    before = [call.image.tobytes(), call.boxes.tobytes(), call.box_indices.tobytes()]
    call.run(each_backend)
    after = [call.image.tobytes(), call.boxes.tobytes(), call.box_indices.tobytes()]
    assert before == after
