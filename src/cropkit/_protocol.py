"""The protocol of a backend: the methods that cropkit calls, and their arguments."""

from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from cropkit._request import Request


@runtime_checkable
class Backend(Protocol):
    """An object that computes the operator for arrays on some types of devices.

    Boxes and indices are always NumPy arrays in the CPU's memory: cropkit has checked each
    value, and for that has copied them from any other device. On the CPU, images, gradients
    and `out` are NumPy arrays; on another device they are arrays of the caller's library,
    unconverted.

    Two methods are optional, for devices other than the CPU. ``empty(shape, dtype, like)``
    allocates a result on the device of the array `like`, as an array of the same library; a
    call without ``out=`` needs this method. cropkit refuses a shape of more than
    ``sys.maxsize`` bytes before. In a call without boxes or channels cropkit fills the array
    by ``array[...] = 0``, or takes the library's ``zeros_like`` if that raises `TypeError`.
    ``synchronize()`` returns when everything that the backend has started is done; cropkit
    never calls it, programs that compare or time results do.

    The attribute ``features`` is optional, too: a frozenset of the names of the features that
    the backend knows beyond the protocol of cropkit 0.1. A call that needs a feature is given
    only to backends that declare the feature (see `Request`).

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
        """Say why the backend cannot run here (no driver, no package), or return None."""
        ...

    def refuses(self, request: Request) -> str | None:
        """Say why the backend cannot run this call (a dtype, a method), or return None."""
        ...

    def crop_and_resize(
        self,
        request: Request,
        image: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill all of `out` with the crops. All arrays are checked, and none is empty."""
        ...


@runtime_checkable
class GradientBackend(Backend, Protocol):
    """A backend that computes both gradients, too.

    A backend has both gradient methods or neither. Without them, cropkit refuses calls of
    gradients without asking the backend's `refuses`.
    """

    def grad_image(
        self,
        request: Request,
        grads: Any,
        boxes: NDArray[Any],
        box_indices: NDArray[Any],
        out: Any,
    ) -> None:
        """Fill all of `out` with the image's gradient. No array is empty."""
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
        """Fill all of `out` with the boxes' gradient. No array is empty."""
        ...
