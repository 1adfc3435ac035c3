"""A backend that remembers what it was given: whether memory is shared, and with whom."""

from typing import Any

from cropkit import Request
from cropkit._reference import ReferenceBackend


class Recording(ReferenceBackend):
    """The reference, with the addresses of the arrays of its last call."""

    request: Request

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def _record(self, request: Request, **arrays: Any) -> None:
        self.request = request
        self.addresses = {name: array.ctypes.data for name, array in arrays.items()}

    def crop_and_resize(
        self, request: Request, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self._record(request, image=image, boxes=boxes, box_indices=box_indices, out=out)
        super().crop_and_resize(request, image, boxes, box_indices, out)

    def grad_image(
        self, request: Request, grads: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self._record(request, grads=grads, boxes=boxes, box_indices=box_indices, out=out)
        super().grad_image(request, grads, boxes, box_indices, out)
