"""The registry of backends: the only place that chooses one.

``reference`` and ``cpu`` are built in. Every other backend enters by the entry point
group ``cropkit.backends``, whose value names an object that satisfies `Backend`. Plugins
are searched for only when they are needed: a call on arrays in the CPU's memory that names
no backend loads no plugin, so installing a plugin never changes the result of such a call.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from cropkit._arguments import CPU_DEVICE
from cropkit._arrays import device_name
from cropkit._kernels._checks import Call, in_environment
from cropkit._plugins import BUILT_IN, Entry, built_in, entry_of_object, scan
from cropkit._protocol import Backend, GradientBackend
from cropkit._request import Request, request_of

if TYPE_CHECKING:
    from cropkit._cpu import CpuBackend


class BackendError(RuntimeError):
    """No backend can run a call; the message holds each candidate's reason."""

    __module__ = "cropkit"  # the public module, which tracebacks then name


@dataclass(frozen=True)
class BackendInfo:
    """What is known of one backend: an element of what `list_backends` returns.

    Attributes
    ----------
    name : str
    origin : str
        The distribution that brings the backend, with its version.
    device_types : tuple of str
        For example ``("CPU",)``; empty when the backend could not be loaded.
    exact : bool or None
        Whether results are bit-equal to those of ``reference`` (see `Backend`); None when the
        backend could not be loaded.
    features : tuple of str
        The features that the backend declares (see `Backend`).
    reason : str or None
        Why the backend cannot be used; None when it can be used.
    backend : Backend or None
        The backend itself; None when it could not be loaded.
    module : str or None
        The module that a plugin's entry point names; None for other backends.
    """

    name: str
    origin: str
    device_types: tuple[str, ...]
    exact: bool | None
    features: tuple[str, ...]
    reason: str | None
    backend: Backend | None
    module: str | None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.origin})"


class _Choice:
    """A ``with`` block of `use_backend`: its backend, and the block around this one."""

    __slots__ = ("ended", "entry", "outer")

    def __init__(self, entry: Entry, outer: "_Choice | None") -> None:
        self.entry = entry
        self.outer = outer
        self.ended = False  # seen by every context that still has this choice


_preferred: ContextVar[_Choice | None] = ContextVar("cropkit_backend", default=None)


def _chosen_by_block() -> Entry | None:
    """Return the backend of the innermost block of `use_backend` that has not ended."""
    choice = _preferred.get()
    while choice is not None and choice.ended:
        choice = choice.outer
    return None if choice is None else choice.entry


def choose(call: Call, backend: str | Backend | None) -> Backend:
    """Choose the backend that runs `call`.

    The first that names a backend decides: the argument `backend`, `use_backend`,
    ``CROPKIT_BACKEND``, the device of the image. If a backend that was asked for cannot run
    the call, the call raises and says why; there is no silent fallback.

    Raises
    ------
    BackendError
        No backend can run the call; the message gives the reason of each one considered.
    """
    if (
        backend is None
        and call.request is None
        and _preferred.get() is None
        and not in_environment(b"CROPKIT_BACKEND")
    ):
        return _usable_cpu()  # the result of the code below, in a third of a microsecond
    entry, asked_by = _asked_for(backend)
    if entry is None:
        if call.request is None or call.request.device_type == CPU_DEVICE:
            return _usable_cpu()
        return _choose_by_device(call.request)
    reason = entry.why_not(request_of(call))
    if reason is not None:
        raise BackendError(f"backend {entry}{asked_by} cannot run this call: {reason}")
    return cast(Backend, entry.backend)


def perform(backend: Backend, call: Call) -> None:
    """Let the chosen `backend` fill ``call.out``."""
    request = request_of(call)
    boxes, indices, out = call.boxes, call.box_indices, call.out
    if call.operation == "crop_and_resize":
        backend.crop_and_resize(request, call.image, boxes, indices, out)
    elif call.operation == "grad_image":
        cast(GradientBackend, backend).grad_image(request, call.grads, boxes, indices, out)
    else:
        cast(GradientBackend, backend).grad_boxes(
            request, call.grads, call.image, boxes, indices, out
        )


@cache
def _usable_cpu() -> "CpuBackend":
    entry = built_in("cpu")
    reason = entry.why_not()
    if reason is not None:
        raise BackendError(f"backend {entry} cannot run this call: {reason}")
    return cast("CpuBackend", entry.backend)


def _asked_for(backend: str | Backend | None) -> tuple[Entry | None, str]:
    """Return the backend that was asked for, if any, and words for how it was."""
    if backend is not None:
        return find(backend, "backend="), ""
    entry = _chosen_by_block()
    if entry is not None:
        return entry, ", asked for by use_backend,"
    if in_environment(b"CROPKIT_BACKEND"):
        name = os.environ.get("CROPKIT_BACKEND")
        if name:
            return find(name, "CROPKIT_BACKEND="), ", asked for by CROPKIT_BACKEND,"
    return None, ""


def _choose_by_device(request: Request) -> Backend:
    registered, rejected = scan()
    reasons = []
    for entry in (*registered.values(), *rejected):
        reason = entry.why_not(request)
        if reason is None and entry.backend is not None:
            if entry.exact:
                return entry.backend
            reason = "it is not exact, so it runs only when it is named"
        reasons.append(f"  {entry}: {reason}")
    raise BackendError(
        f"no backend runs on {device_name(request.device_type)} arrays:\n" + "\n".join(reasons)
    )


def allocate(backend: Backend, request: Request, like: object) -> Any:
    """Let `backend` allocate the result of `request` on the device of the array `like`.

    Raises
    ------
    BackendError
        The backend has no method ``empty``.
    """
    empty = getattr(backend, "empty", None)
    if empty is None:
        raise BackendError(
            f"backend {backend.name!r} allocates no results on "
            f"{device_name(request.device_type)}, since it has no method empty: pass out="
        )
    return empty(request.result_shape, request.result_dtype, like)


def find(wanted: str | Backend, source: str) -> Entry:
    if not isinstance(wanted, str):
        return entry_of_object(wanted)
    if wanted in BUILT_IN:
        return built_in(wanted)
    registered, _ = scan()
    if wanted not in registered:
        raise BackendError(
            f"{source}{wanted!r}: no such backend; found: {', '.join(sorted(registered))}"
        )
    return registered[wanted]


@contextmanager
def use_backend(backend: str | Backend) -> Iterator[None]:
    """Run the calls inside a ``with`` block on one backend.

    The block holds for the current thread or asyncio task (the choice is a context variable),
    and for those that start inside the block and inherit its context: tasks do, threads do where
    ``sys.flags.thread_inherit_context`` is set, as on free-threaded Pythons from 3.14 on. The
    argument ``backend=`` of a call goes before the block, and the block before
    ``CROPKIT_BACKEND``. A block in a generator holds for the code that runs the generator,
    until the block is left, by whichever context.

    Parameters
    ----------
    backend : str or Backend
        A name that `list_backends` shows, or an object with a backend's methods.

    Raises
    ------
    BackendError
        There is no backend of that name, or it cannot be used.

    Examples
    --------
    >>> import numpy as np, cropkit
    >>> image = np.arange(4.0, dtype="float32").reshape(1, 2, 2, 1)
    >>> with cropkit.use_backend("reference"):
    ...     crop = cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], (1, 1))
    >>> crop.item()
    1.5
    """
    entry = find(backend, "use_backend: ")
    reason = entry.why_not()
    if reason is not None:
        raise BackendError(f"backend {entry} cannot be used: {reason}")
    choice = _Choice(entry, _preferred.get())
    token = _preferred.set(choice)
    try:
        yield
    finally:
        _leave(choice, token)


def _leave(choice: _Choice, token: "Token[_Choice | None]") -> None:
    """End a block, even where another context closes its generator, or out of order."""
    if _preferred.get() is choice:
        try:
            _preferred.reset(token)
        except ValueError:  # this is a copy of the context that entered the block
            pass
        else:
            return
    choice.ended = True


def list_backends() -> list[BackendInfo]:
    """List every backend that was found, with the reason of each that cannot be used.

    Returns
    -------
    list of BackendInfo
        The built-in backends first, then plugins by name, then plugins whose name is taken.

    Examples
    --------
    >>> import cropkit
    >>> [info.name for info in cropkit.list_backends()][:2]
    ['cpu', 'reference']
    """
    registered, rejected = scan()
    return [_info(entry) for entry in (*registered.values(), *rejected)]


def find_backend(backend: str | Backend) -> BackendInfo:
    """Look up one backend, usable or not, as a call with ``backend=`` does.

    Parameters
    ----------
    backend : str or Backend
        A name that `list_backends` shows, or an object with a backend's methods.

    Returns
    -------
    BackendInfo
        What is known of the backend; `reason` says why it cannot be used, or is None.

    Raises
    ------
    BackendError
        There is no backend of that name.

    Examples
    --------
    >>> import cropkit
    >>> info = cropkit.find_backend("cpu")
    >>> info.device_types, info.exact, info.reason
    (('CPU',), True, None)
    """
    return _info(find(backend, "backend="))


def _info(entry: Entry) -> BackendInfo:
    return BackendInfo(
        name=entry.name,
        origin=entry.origin,
        device_types=tuple(device_name(device) for device in sorted(entry.device_types)),
        exact=entry.exact,
        features=tuple(sorted(entry.features)),
        reason=entry.why_not(),
        backend=entry.backend,
        module=entry.module,
    )
