"""The laws that the gradients obey, on random calls."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import cropkit
from cropkit.testing._suite import same_sums

from .support.backends import BACKENDS, CPU_BACKENDS
from .support.bits import assert_bits_equal
from .support.cases import DEPTHS, METHODS, random_gradients
from .support.exact_gradient import exact_box_gradient

grad_image = cropkit.crop_and_resize_grad_image
grad_boxes = cropkit.crop_and_resize_grad_boxes

CALLS = st.tuples(
    st.integers(0, 2**32 - 1),  # seed
    st.integers(1, 6),  # boxes
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.sampled_from(DEPTHS)),
)


@given(CALLS, st.sampled_from(METHODS), st.sampled_from(list(BACKENDS)))
def test_image_gradient_is_the_adjoint(call: Any, method: str, name: str) -> None:
    """<crop(image), grads> is <image, grad_image(grads)>, in float64."""
    grads, image, boxes, indices = random_gradients(*call)
    crops = cropkit.crop_and_resize(image, boxes, indices, call[2], method, dtype=np.float64)
    adjoint = grad_image(grads, boxes, indices, image.shape, method, dtype=np.float64,
                         backend=BACKENDS[name])  # fmt: skip
    scale = np.abs(grads).sum() * np.abs(image).max() + 1
    assert abs(np.vdot(crops, grads.astype(float)) - np.vdot(image.astype(float), adjoint)) <= (
        1e-12 * scale
    )


@given(CALLS, st.sampled_from(METHODS), st.sampled_from(list(BACKENDS)))
def test_mass_is_conserved(call: Any, method: str, name: str) -> None:
    """What the inside samples bring is what the image's gradient holds."""
    grads, image, boxes, indices = random_gradients(*call)
    ones = cropkit.crop_and_resize(np.ones_like(image), boxes, indices, call[2], method)
    inside = (grads * (ones != 0)).astype(float)
    result = grad_image(grads, boxes, indices, image.shape, method, dtype=np.float64,
                        backend=BACKENDS[name])  # fmt: skip
    for index in range(call[3][0]):
        brought = inside[indices == index].sum((0, 1, 2))
        np.testing.assert_allclose(result[index].sum((0, 1)), brought, atol=1e-10)


def slopes_by_differences(
    image: NDArray[Any], boxes: NDArray[Any], indices: Any, size: Any, grads: NDArray[Any]
) -> NDArray[Any]:
    """Differentiate the sum of grads times the crops by moving each edge, in float64."""
    step = 1e-7
    result = np.empty(boxes.shape)
    for k in range(4):
        ends = []
        for sign in (1, -1):
            moved = boxes.copy()
            moved[:, k] += sign * step
            crops = cropkit.crop_and_resize(image, moved, indices, size, dtype=np.float64)
            ends.append((crops * grads).sum((1, 2, 3)))
        result[:, k] = (ends[0] - ends[1]) / (2 * step)
    return result


@given(CALLS, st.sampled_from(list(BACKENDS)))
def test_box_gradient_is_the_limit_of_differences(call: Any, name: str) -> None:
    grads, image, boxes, indices = random_gradients(*call)
    boxes = boxes.astype(np.float64)
    # Away from pixels, where the slope changes, and from the image's rim.
    for n, (y1, x1, y2, x2) in enumerate(boxes):
        rows = positions(y1, y2, image.shape[1], call[2][0])
        columns = positions(x1, x2, image.shape[2], call[2][1])
        for v in (rows, columns):
            if (np.abs(v - np.round(v)) < 1e-4).any():
                grads[n] = 0
    expected = slopes_by_differences(image, boxes, indices, call[2], grads.astype(float))
    result = grad_boxes(grads, image, boxes, indices, dtype=np.float64, backend=BACKENDS[name])
    scale = np.abs(grads).sum() * max(image.shape[1:3]) + 1
    np.testing.assert_allclose(result, expected, atol=1e-7 * scale)


def positions(a: float, b: float, n: int, count: int) -> NDArray[np.float64]:
    if count == 1:
        return np.array([0.5 * (a + b) * (n - 1)])
    return np.asarray((a + (b - a) * np.arange(count) / (count - 1)) * (n - 1))


@given(CALLS, st.sampled_from(list(BACKENDS)))
def test_box_gradient_is_near_its_exact_sum(call: Any, name: str) -> None:
    """Against `math.fsum` of the terms: what is left is the rounding of the result."""
    grads, image, boxes, indices = random_gradients(*call)
    result = grad_boxes(grads, image, boxes, indices, backend=BACKENDS[name])
    for n, box in enumerate(boxes):
        expected, magnitude = exact_box_gradient(grads[n], image[indices[n]], box)
        error = np.abs(result[n] - expected)
        assert (error <= 2.0**-24 * np.abs(expected) + 1e-14 * magnitude + 2.0**-149).all()


@given(CALLS, st.sampled_from(METHODS), st.integers(1, 4), st.sampled_from(list(CPU_BACKENDS)))
def test_random_calls_equal_the_reference(call: Any, method: str, threads: int, name: str) -> None:
    grads, image, boxes, indices = random_gradients(*call)
    keywords = {"backend": BACKENDS[name], "num_threads": threads}
    assert_bits_equal(
        grad_image(grads, boxes, indices, image.shape, method, **keywords),
        grad_image(grads, boxes, indices, image.shape, method, backend="reference"), "image",
    )  # fmt: skip
    same_sums(
        grad_boxes(grads, image, boxes, indices, **keywords),
        grad_boxes(grads, image, boxes, indices, backend="reference"), grads, image, "boxes",
    )  # fmt: skip


@given(CALLS, st.sampled_from(METHODS))
def test_boxes_of_other_images_do_not_matter(call: Any, method: str) -> None:
    """An image's gradient is that of its own boxes, in their order."""
    grads, image, boxes, indices = random_gradients(*call)
    whole = grad_image(grads, boxes, indices, image.shape, method)
    for index in range(call[3][0]):
        own = indices == index
        alone = grad_image(grads[own], boxes[own], indices[own] * 0, (1, *image.shape[1:]), method)
        assert_bits_equal(alone[0], whole[index])
