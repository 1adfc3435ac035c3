"""Bad input: every bad argument is an error before any work is done, with any backend."""

from typing import Any, Final, NamedTuple

import numpy as np
import pytest

from cropkit.testing._suite import Suite

IMAGE: Final = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
BOX: Final = [[0.0, 0.0, 1.0, 1.0]]
NO_BOXES: Final = np.zeros((0, 4))
GOOD: Final[dict[str, dict[str, Any]]] = {
    "crop_and_resize": {"image": IMAGE, "boxes": BOX, "box_indices": [0], "crop_size": (2, 3)},
    "grad_image": {"grads": np.ones((1, 2, 3, 3), np.float32), "boxes": BOX, "box_indices": [0],
                   "image_size": (2, 4, 5, 3)},
    "grad_boxes": {"grads": np.ones((1, 2, 3, 3), np.float32), "image": IMAGE, "boxes": BOX,
                   "box_indices": [0]},
}  # fmt: skip


class Bad(NamedTuple):
    """A good call with some arguments changed, and the error that it must raise."""

    error: type[Exception]
    text: str
    changed: dict[str, Any]
    operation: str = "crop_and_resize"


CALLS: Final = {
    "image of three axes": Bad(ValueError, "image has shape (4, 5, 3)", {"image": IMAGE[0]}),
    "image without rows": Bad(ValueError, "must be at least 1", {"image": IMAGE[:, :0]}),
    "image without columns": Bad(ValueError, "must be at least 1", {"image": IMAGE[:, :, :0]}),
    "boxes of three edges": Bad(ValueError, "boxes has shape (1, 3)", {"boxes": [[0, 0, 1]]}),
    "boxes of one axis": Bad(ValueError, "boxes has shape (4,)", {"boxes": [0, 0, 1, 1]}),
    "no boxes, of one axis": Bad(ValueError, "boxes has shape (0,)",
                                 {"boxes": np.zeros(0), "box_indices": []}),
    "indices of two axes": Bad(ValueError, "box_indices has shape (1, 1)", {"box_indices": [[0]]}),
    "too many indices": Bad(ValueError, "box_indices has shape (2,)", {"box_indices": [0, 1]}),
    "indices and no boxes": Bad(ValueError, "box_indices has shape (2,)",
                                {"boxes": NO_BOXES, "box_indices": [0, 1]}),
    "crop without rows": Bad(ValueError, "crop_size=(0, 3)", {"crop_size": (0, 3)}),
    "crop of negative width": Bad(ValueError, "crop_size=(2, -1)", {"crop_size": (2, -1)}),
    "crop of one size": Bad(ValueError, "crop_size=(2,)", {"crop_size": (2,)}),
    "NaN edge": Bad(ValueError, "boxes[0] = [nan,", {"boxes": [[np.nan, 0, 1, 1]]}),
    "infinite edge": Bad(ValueError, "must be finite", {"boxes": [[0, 0, np.inf, 1]]}),
    "edge that float32 cannot hold": Bad(ValueError, "must be finite in float32",
                                         {"boxes": [[1e40, 0, 0, 0]], "box_indices": [1],
                                          "crop_size": (1, 1)}),
    "index past the images": Bad(IndexError, "box_indices[0] = 2", {"box_indices": [2]}),
    "negative index": Bad(IndexError, "box_indices[0] = -1", {"box_indices": [-1]}),
    "box and no images": Bad(IndexError, "one of the 0 images", {"image": IMAGE[:0]}),
    "unknown method": Bad(ValueError, "method='cubic'", {"method": "cubic"}),
    "complex image": Bad(TypeError, "image has dtype complex64",
                         {"image": IMAGE.astype(np.complex64)}),
    "image of objects": Bad(TypeError, "image has dtype object", {"image": IMAGE.astype(object)}),
    "image of strings": Bad(TypeError, "image has dtype <U1",
                            {"image": np.full((1, 2, 2, 1), "a")}),
    "complex boxes": Bad(TypeError, "boxes has dtype complex128", {"boxes": [[0, 0, 1, 1j]]}),
    "fractional index": Bad(TypeError, "box_indices has dtype float64", {"box_indices": [0.5]}),
    "fractional crop size": Bad(TypeError, "crop_size=(2.5, 3)", {"crop_size": (2.5, 3)}),
    "integer result": Bad(TypeError, "dtype=int32", {"dtype": np.int32}),
    "no threads": Bad(ValueError, "num_threads=0", {"num_threads": 0}),
    "result larger than the memory": Bad(MemoryError, "is larger than this machine's memory",
                                         {"crop_size": (10**6, 10**7)}),
    "result larger than the address space": Bad(MemoryError, "is larger than",
                                                {"crop_size": (2065374891, 1145309325)}),
    "grads of other boxes": Bad(ValueError, "expected one crop for each box",
                                {"boxes": BOX * 2, "box_indices": [0, 0]}, "grad_image"),
    "grads of another depth": Bad(ValueError, "expected depth 4", {"image_size": (2, 4, 5, 4)},
                                  "grad_image"),
    "negative image size": Bad(ValueError, "must not be negative", {"image_size": (-1, 4, 5, 3)},
                               "grad_image"),
    "image size without images": Bad(IndexError, "one of the 0 images",
                                     {"image_size": (0, 4, 5, 3)}, "grad_image"),
    "image size larger than memory": Bad(MemoryError, "is larger than",
                                         {"image_size": (2, 2**40, 2**40, 3)}, "grad_image"),
    "NaN edge of a gradient": Bad(ValueError, "must be finite", {"boxes": [[np.nan, 0, 1, 1]]},
                                  "grad_boxes"),
    "complex gradients": Bad(TypeError, "grads has dtype complex64",
                             {"grads": np.ones((1, 2, 3, 3), np.complex64)}, "grad_boxes"),
}  # fmt: skip

# Changes to an `out` that would be right, and the errors that they must raise.
OUTS: Final = {
    "of another shape": Bad(ValueError, "out has shape (1, 3, 2, 3)", {"shape": (1, 3, 2, 3)}),
    "of another dtype": Bad(ValueError, "out has dtype float64", {"dtype": np.float64}),
}


class BadInputTests(Suite):
    """Bad input."""

    @pytest.mark.parametrize("operation", list(GOOD))
    def test_the_calls_that_the_bad_ones_are_made_from_are_good(self, operation: str) -> None:
        self.run(operation, **self.there(GOOD[operation]))

    def there(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return `arguments` with float32 images and gradients moved to the device."""
        return {
            name: self.to_device(value.copy())
            if name in ("image", "grads") and value.dtype == np.float32
            else value
            for name, value in arguments.items()
        }

    def fails(self, error: type[Exception], text: str, operation: str, **arguments: Any) -> None:
        """Assert that a call raises `error`, with `text` in its message."""
        if error is MemoryError and not self.on_host:
            text = ""  # the device words the message
        found = "no error"
        try:
            self.run(operation, **arguments)
        except Exception as caught:
            if isinstance(caught, error) and text in str(caught):
                return
            found = repr(caught)
        pytest.fail(f"{found}: expected {error.__name__} with the words {text!r}")

    @pytest.mark.parametrize("what", list(CALLS))
    def test_bad_arguments_are_errors_that_say_so(self, what: str) -> None:
        error, text, changed, operation = CALLS[what]
        self.fails(error, text, operation, **self.there(GOOD[operation] | changed))

    @pytest.mark.parametrize("what", list(OUTS))
    def test_bad_outs_are_errors_that_say_so(self, what: str) -> None:
        error, text, form, operation = OUTS[what]
        array = np.zeros(form.get("shape", (1, 2, 3, 3)), form.get("dtype", np.float32))
        out = self.to_device(array)
        self.fails(error, text, operation, **self.there(GOOD[operation]), out=out)
        assert not self.from_device(out).any(), f"an out {what} was written to"

    def test_an_out_that_is_the_image_is_an_error(self) -> None:
        image = self.to_device(np.ones((1, 2, 3, 3), np.float32))
        self.fails(ValueError, "out overlaps image", "crop_and_resize",
                   **GOOD["crop_and_resize"] | {"image": image, "out": image})  # fmt: skip

    def test_a_bad_call_leaves_out_alone(self) -> None:
        out = self.to_device(np.full((1, 2, 3, 3), 5, np.float32))
        for wrong in ({"boxes": [[np.nan] * 4]}, {"box_indices": [9]}, {"num_threads": 0}):
            with pytest.raises((ValueError, IndexError)):
                self.run("crop_and_resize", **self.there(GOOD["crop_and_resize"] | wrong), out=out)
        assert (self.from_device(out) == 5).all(), "out was written to by a call that failed"
