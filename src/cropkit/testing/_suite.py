"""The base class of all tests of the suite: the backend, its arrays, and comparisons."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit
from cropkit import Backend, BackendError, BackendInfo, find_backend
from cropkit.testing._arrays import LAYOUTS, VIEWS, room_for


class Suite:
    """Hooks that a backend's author sets, and what the tests do with them.

    See `cropkit.testing.BackendTests`.
    """

    backend: ClassVar[str | Backend]
    tolerance: ClassVar[float] = 0.0
    module: ClassVar[str | None] = None

    # ---- hooks -----------------------------------------------------------------------

    def to_device(self, array: NDArray[Any]) -> Any:
        """Return `array` as an array that the backend computes on; NumPy's by default.

        Parameters
        ----------
        array : ndarray
            An image, gradients or an `out`. If this method is overridden, the array is
            writable, packed and in native byte order; else it has any layout.
        """
        return array

    def from_device(self, array: Any) -> NDArray[Any]:
        """Wait until the backend's array is computed, and return it as a NumPy array."""
        return np.asarray(array)

    def stream(self) -> AbstractContextManager[Any]:
        """Return a context in which work is queued on another stream than usual.

        A device that has streams should return a new stream, which the array's library makes
        current and which waits for work queued before. By default, nothing changes.
        """
        return nullcontext()

    @property
    def exact(self) -> bool:
        """Whether the backend says that its bits are those of ``reference``."""
        backend = self.info.backend
        return backend is None or backend.exact

    # ---- running ---------------------------------------------------------------------

    @cached_property
    def info(self) -> BackendInfo:
        """The backend as the registry sees it."""
        return find_backend(self.backend)

    @property
    def on_host(self) -> bool:
        """Whether the backend's arrays are NumPy's."""
        return type(self).to_device is Suite.to_device

    def run(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Call an operator on the backend; skip the test where the backend refuses.

        Parameters
        ----------
        operation : {"crop_and_resize", "grad_image", "grad_boxes"}
        *arguments, **options
            Arguments of the public function; arrays are of the backend's library.
        """
        if operation != "crop_and_resize":
            self.require(operation)
        try:
            return OPERATORS[operation](*arguments, backend=self.backend, **options)
        except BackendError as error:
            reason = find_backend(self.backend).reason
            if reason is not None:
                pytest.fail(f"the backend cannot be used here: {reason}")
            refusal = str(error).partition("cannot run this call: ")[2]
            if not refusal:
                raise
            pytest.skip(f"refused: {refusal}")

    def require(self, operation: str) -> None:
        """Skip the test if the backend has no such method."""
        if not hasattr(self.info.backend, operation):
            pytest.skip(f"not offered: the backend has no method {operation}")

    def crop(
        self, image: NDArray[Any], boxes: Any, indices: Any, size: Any, *more: Any, **options: Any
    ) -> NDArray[Any]:
        """Crop on the backend; NumPy arrays in and out."""
        result = self.run(
            "crop_and_resize", self.to_device(image), boxes, indices, size, *more, **options
        )
        return self.from_device(result)

    def grad_image(
        self, grads: NDArray[Any], boxes: Any, indices: Any, size: Any, *more: Any, **options: Any
    ) -> NDArray[Any]:
        """Differentiate by the image on the backend; NumPy arrays in and out."""
        result = self.run(
            "grad_image", self.to_device(grads), boxes, indices, size, *more, **options
        )
        return self.from_device(result)

    def grad_boxes(
        self, grads: NDArray[Any], image: NDArray[Any], boxes: Any, indices: Any, **options: Any
    ) -> NDArray[Any]:
        """Differentiate by the boxes on the backend; NumPy arrays in and out."""
        result = self.run(
            "grad_boxes", self.to_device(grads), self.to_device(image), boxes, indices, **options
        )
        return self.from_device(result)

    def layouts(self, array: NDArray[Any]) -> Iterator[tuple[str, Any]]:
        """Yield the backend's array in each layout that it can have."""
        if self.on_host:
            for name, lay_out in LAYOUTS.items():
                yield name, lay_out(array)
        else:
            for name, view in VIEWS.items():
                yield name, self.to_device(room_for(view, array))[view.place]

    # ---- comparing -------------------------------------------------------------------

    def same_boxes(
        self,
        actual: NDArray[Any],
        expected: NDArray[Any],
        grads: NDArray[Any],
        image: NDArray[Any],
        what: str,
    ) -> None:
        """Assert that `actual` is the gradient of boxes that the reference expects.

        For an exact backend, bits may differ by the order of its float64 sums.
        """
        __tracebackhide__ = True
        if self.exact:
            same_sums(actual, expected, grads, image, what)
        else:
            self.same(actual, expected, what)

    def same_operation(
        self,
        operation: str,
        actual: NDArray[Any],
        expected: NDArray[Any],
        arrays: tuple[Any, ...],
        what: str,
    ) -> None:
        """Assert that `actual` is what the reference expects of any operation on `arrays`."""
        __tracebackhide__ = True
        if operation == "grad_boxes":
            self.same_boxes(actual, expected, arrays[0], arrays[1], what)
        else:
            self.same(actual, expected, what)

    def same(
        self, actual: NDArray[Any], expected: NDArray[Any], what: str, scale: float | None = None
    ) -> None:
        """Assert equal bits, or values within the tolerance of a backend that is not exact.

        Parameters
        ----------
        actual, expected : ndarray
        what : str
            Words for the message: what was computed.
        scale : float, optional
            The largest magnitude that went into the result, by which the tolerance is
            multiplied. The default is the largest magnitude in `expected`.
        """
        __tracebackhide__ = True
        if self.exact:
            same_bits(actual, expected, what)
            return
        same_form(actual, expected, what)
        with np.errstate(all="ignore"):
            finite = expected[np.isfinite(expected)].astype(np.float64)
            if scale is None:
                scale = float(np.abs(finite).max(initial=0.0))
            near = np.abs(actual.astype(np.float64) - expected) <= self.tolerance * scale
        near |= (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        if not near.all():
            pytest.fail(
                f"{what}: {differences(actual, expected, ~near)}; the tolerance is "
                f"{self.tolerance:g} of {scale:g}"
            )


OPERATORS: Final[dict[str, Callable[..., Any]]] = {
    "crop_and_resize": cropkit.crop_and_resize,
    "grad_image": cropkit.crop_and_resize_grad_image,
    "grad_boxes": cropkit.crop_and_resize_grad_boxes,
}


def reference(operation: str, *arguments: Any, **options: Any) -> NDArray[Any]:
    """Call an operator on backend ``reference``."""
    result: NDArray[Any] = OPERATORS[operation](*arguments, backend="reference", **options)
    return result


def same_sums(
    actual: NDArray[Any],
    expected: NDArray[Any],
    grads: NDArray[Any],
    image: NDArray[Any],
    what: str,
) -> None:
    """Assert that box gradients differ by no more than the order of float64 sums explains.

    A sum may differ by 2**-40 of a bound on the sum of its terms' magnitudes, and the result by
    one unit in the last place more.
    """
    __tracebackhide__ = True
    same_form(actual, expected, what)
    with np.errstate(all="ignore"):
        terms = np.abs(finite(grads)).sum((1, 2, 3))[:, None]
        steepest = 2 * np.abs(finite(image)).max(initial=0) * max(image.shape[1:3])
        wanted = expected.astype(np.float64)
        limit = 2.0**-40 * terms * steepest + np.spacing(np.abs(expected)).astype(np.float64)
        near = np.abs(actual.astype(np.float64) - wanted) <= limit
    # Infinities and NaN do not depend on the order of a sum; NaN compares false above.
    near = np.where(np.isfinite(wanted), near, actual == expected)
    near |= np.isnan(actual) & np.isnan(expected)
    if not near.all():
        pytest.fail(f"{what}: {differences(actual, expected, ~near)}")


def finite(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return `array` in float64, with zeros for what is not finite."""
    values = array.astype(np.float64)
    return np.where(np.isfinite(values), values, 0)


def same_form(actual: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    """Assert the same shape and dtype."""
    __tracebackhide__ = True
    for name in ("shape", "dtype"):
        found, wanted = getattr(actual, name), getattr(expected, name)
        if found != wanted:
            pytest.fail(f"{what}: the result has {name} {found}: expected {wanted}")


def same_bits(actual: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    """Assert the same shape, dtype and bits; any NaN equals any NaN."""
    __tracebackhide__ = True
    same_form(actual, expected, what)
    bits = f"u{actual.dtype.itemsize}"
    same = np.ascontiguousarray(actual).view(bits) == np.ascontiguousarray(expected).view(bits)
    same |= (actual != actual) & (expected != expected)
    if not same.all():
        pytest.fail(f"{what}: {differences(actual, expected, ~same)}")


def differences(actual: NDArray[Any], expected: NDArray[Any], where: NDArray[np.bool]) -> str:
    """Say how many values differ, and show the first one."""
    first = tuple(int(i) for i in np.argwhere(where)[0])
    return (
        f"{np.count_nonzero(where)} of {where.size} values differ, the first at "
        f"{list(first)}: {number(actual[first])}, expected {number(expected[first])}"
    )


def number(value: Any) -> str:
    """Write a value so that it can be told from its neighbours."""
    return f"{value!s} ({value.tobytes()[::-1].hex()})"
