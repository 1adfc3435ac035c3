"""What a backend is: the methods that the core calls, and with what."""

from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from cropkit._request import Request


@runtime_checkable
class Backend(Protocol):
    """What computes the operator for arrays on the devices that it knows.

    Boxes and indices are always NumPy arrays, checked, in the CPU's memory: the core has
    looked at each of them, so it has copied them from wherever they were. Images,
    gradients and `out` are NumPy arrays for the CPU; on another device they are what the
    caller's library has there, unconverted.

    Two methods are optional, and of use off the CPU only. ``empty(shape, dtype, like)``
    allocates a result where the array `like` is, as an array of its library; a call without
    ``out=`` needs it. A shape whose bytes exceed ``sys.maxsize`` has been refused before. A
    call without boxes or channels gets ``array[...] = 0``, or the library's ``zeros_like``
    where that is a `TypeError`. ``synchronize()`` returns when everything that the backend
    has started is done; the core never calls it, and who compares or times results does.

    An attribute is optional, too: ``features``, a frozenset of the names of what the backend
    knows beyond this protocol as it was in cropkit 0.1. A call that needs a feature is given
    to no backend that does not declare it (see `Request`).

    Attributes
    ----------
    name : str
        The entry point's name, which users pass as ``backend=``.
    device_types : frozenset of int
        DLPack device types: 1 CPU, 2 CUDA, 4 OpenCL, 10 ROCm.
    exact : bool
        Whether results are bit-equal to those of ``reference``, the gradient of boxes up to
        the order of its float64 sums.
    """

    @property
    def name(self) -> str: ...

    @property
    def device_types(self) -> frozenset[int]: ...

    @property
    def exact(self) -> bool: ...

    def unavailable(self) -> str | None:
        """Say why it cannot run here (no driver, no package), or None."""
        ...

    def refuses(self, request: Request) -> str | None:
        """Say why it cannot run this call (a dtype, a method), or None."""
        ...

    def crop_and_resize(
        self,
        request: Request,
        image: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill `out`. Everything has been checked, and nothing is empty."""
        ...


@runtime_checkable
class GradientBackend(Backend, Protocol):
    """A backend that computes the gradients, too.

    It has both methods or none of them. A `Backend` without them refuses gradients, so
    its own `refuses` need not.
    """

    def grad_image(
        self,
        request: Request,
        grads: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill `out`, all of it, with the image's gradient. Nothing is empty."""
        ...

    def grad_boxes(
        self,
        request: Request,
        grads: Any,
        image: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill `out` with the boxes' gradient. Nothing is empty."""
        ...
