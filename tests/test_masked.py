"""Masked arrays are refused: what they mask would be read as if it were not."""

from typing import Any, Final

import numpy as np
import pytest

import cropkit

IMAGE: Final = np.ones((2, 4, 5, 3), np.float32)
GRADS: Final = np.ones((2, 3, 2, 3), np.float32)
BOXES: Final = np.array([[0, 0, 1, 1], [0.5, 0, 1, 1]], np.float32)
INDICES: Final = np.array([0, 1])
CALLS: Final[list[tuple[Any, dict[str, Any]]]] = [
    (cropkit.crop_and_resize,
     {"image": IMAGE, "boxes": BOXES, "box_indices": INDICES, "crop_size": np.array([3, 2]),
      "extrapolation_value": np.array(1.0), "num_threads": np.array(1), "out": GRADS.copy()}),
    (cropkit.crop_and_resize_grad_image,
     {"grads": GRADS, "boxes": BOXES, "box_indices": INDICES, "image_size": np.array(IMAGE.shape),
      "num_threads": np.array(1), "out": IMAGE.copy()}),
    (cropkit.crop_and_resize_grad_boxes,
     {"grads": GRADS, "image": IMAGE, "boxes": BOXES, "box_indices": INDICES,
      "num_threads": np.array(1), "out": BOXES.copy()}),
]  # fmt: skip


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("call", "arguments"), CALLS)
def test_a_masked_argument(call: Any, arguments: dict[str, Any], masks: bool) -> None:
    call(**arguments)
    for name, value in arguments.items():
        masked = np.ma.masked_array(value, masks)
        way_out = "out.data is" if name == "out" else rf"{name}\.filled\(value\) is"
        with pytest.raises(TypeError, match=rf"^{name} is a masked array, .*: {way_out}"):
            call(**arguments | {name: masked})
        plain = masked.data if name == "out" else masked.filled(0)
        assert type(plain) is np.ndarray


@pytest.mark.parametrize(("call", "arguments"), CALLS)
def test_a_list_of_masked_arrays(call: Any, arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if value.ndim == 0 or name == "out":
            continue
        rows = list(value)
        call(**arguments | {name: rows})
        lists: list[Any] = [[*rows[:-1], np.ma.masked_array(rows[-1], True)]]
        if value.ndim > 1:
            lists.append((*rows[:-1], [*rows[-1][:-1], np.ma.masked_array(rows[-1][-1], True)]))
        else:
            lists.append([*rows[:-1], np.ma.masked])
        for masked in lists:
            with pytest.raises(TypeError, match=f"^{name} holds a masked array, whose mask"):
                call(**arguments | {name: masked})
