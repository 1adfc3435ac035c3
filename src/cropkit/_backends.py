"""The registry of backends: the only place that chooses one.

``reference`` and ``cpu`` are built in. Every other backend enters by the entry point
group ``cropkit.backends``, whose value names an object that satisfies `Backend`. Nothing
is looked for before it is needed: a call on arrays in the CPU's memory that names no
backend loads no plugin, and so installing one never changes its result.
"""

import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

from numpy.typing import NDArray

from cropkit._arguments import CPU_DEVICE
from cropkit._arrays import device_name
from cropkit._kernels._checks import in_environment
from cropkit._request import Request

# Imported where plugins are: it would triple the time of `import cropkit`.
if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from cropkit._cpu import CpuBackend

GROUP: Final = "cropkit.backends"
_BUILT_IN: Final = {"cpu": "cropkit._cpu:backend", "reference": "cropkit._reference:backend"}
# What a plugin may raise without taking others along: one that exits too.
_PLUGIN_ERRORS: Final = (Exception, SystemExit)


class BackendError(RuntimeError):
    """No backend can run a call; the message holds each candidate's reason."""

    __module__ = "cropkit"  # as tracebacks name it: where it is to be had


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


# How many arguments each method is called with.
_METHODS: Final = {"unavailable": 0, "refuses": 1, "crop_and_resize": 5}
_GRADIENT_METHODS: Final = {"grad_image": 5, "grad_boxes": 6}
_OPTIONAL_METHODS: Final = {"empty": 3, "synchronize": 0}


@dataclass(frozen=True)
class BackendInfo:
    """One row of `list_backends`.

    Attributes
    ----------
    name : str
    origin : str
        The distribution that brings it, with its version.
    device_types : tuple of str
        For example ``("CPU",)``; empty when the backend could not be loaded.
    exact : bool or None
        Whether it is bit-equal to ``reference`` (see `Backend`); None when it could not be loaded.
    reason : str or None
        Why it cannot be used, or None when it can.
    """

    name: str
    origin: str
    device_types: tuple[str, ...]
    exact: bool | None
    reason: str | None


@dataclass(frozen=True)
class _Entry:
    """A backend that was found: loaded, or with what keeps it from being registered."""

    name: str
    origin: str
    backend: Backend | None
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.origin})"

    def why_not(self, request: Request | None = None) -> str | None:
        """Say why this entry cannot be used (for `request`), or None."""
        if self.backend is None:
            return self.problem
        try:
            reason = self.backend.unavailable()
            if reason is None and request is not None:
                if request.device_type not in self.backend.device_types:
                    return f"it does not run on {device_name(request.device_type)} arrays"
                if not hasattr(self.backend, request.operation):
                    return f"it has no method {request.operation}"
                reason = self.backend.refuses(request)
        except _PLUGIN_ERRORS as error:
            return f"it raised when asked: {_one_line(error)}"
        if reason is not None and not isinstance(reason, str):
            return f"its reason is a {type(reason).__name__}: expected str or None"
        return None if reason is None else " ".join(reason.split())  # one line in every list


# ---- choosing ------------------------------------------------------------------------

_preferred: ContextVar[_Entry | None] = ContextVar("cropkit_backend", default=None)


def choose(request: Request, backend: str | Backend | None) -> Backend:
    """Choose the backend that runs `request`.

    In this order: the `backend` argument, `use_backend`, ``CROPKIT_BACKEND``, and by the
    image's device. A backend that was asked for runs or raises; no other steps in.

    Raises
    ------
    BackendError
        With the reason of each backend that was considered.
    """
    entry, asked_by = _asked_for(backend)
    if entry is None:
        if request.device_type != CPU_DEVICE:
            return _choose_by_device(request)
        entry = _built_in("cpu")
    reason = entry.why_not(request)
    if reason is not None:
        raise BackendError(f"backend {entry}{asked_by} cannot run this call: {reason}")
    return cast(Backend, entry.backend)


def cpu_unless_asked() -> "CpuBackend | None":
    """Return the backend ``cpu`` unless the program or the environment names one."""
    if _preferred.get() is not None or in_environment(b"CROPKIT_BACKEND"):
        return None
    return _usable_cpu()


@cache
def _usable_cpu() -> "CpuBackend":
    entry = _built_in("cpu")
    reason = entry.why_not()
    if reason is not None:
        raise BackendError(f"backend {entry} cannot run this call: {reason}")
    return cast("CpuBackend", entry.backend)


def _asked_for(backend: str | Backend | None) -> tuple[_Entry | None, str]:
    """Return the backend that the caller wants, if any, and where that was said."""
    if backend is not None:
        return _find(backend, "backend="), ""
    entry = _preferred.get()
    if entry is not None:
        return entry, ", asked for by use_backend,"
    if in_environment(b"CROPKIT_BACKEND"):
        name = os.environ.get("CROPKIT_BACKEND")
        if name:
            return _find(name, "CROPKIT_BACKEND="), ", asked for by CROPKIT_BACKEND,"
    return None, ""


def _choose_by_device(request: Request) -> Backend:
    registered, rejected = _scan()
    reasons = []
    for entry in (*registered.values(), *rejected):
        reason = entry.why_not(request)
        if reason is None and entry.backend is not None:
            if entry.backend.exact:
                return entry.backend
            reason = "it is not exact, so it runs only when it is named"
        reasons.append(f"  {entry}: {reason}")
    raise BackendError(
        f"no backend runs on {device_name(request.device_type)} arrays:\n" + "\n".join(reasons)
    )


def allocate(backend: Backend, request: Request, like: object) -> Any:
    """Let `backend` allocate the result of `request`, where the array `like` is.

    Raises
    ------
    BackendError
        It has no method for that.
    """
    empty = getattr(backend, "empty", None)
    if empty is None:
        raise BackendError(
            f"backend {backend.name!r} allocates no results on "
            f"{device_name(request.device_type)}, since it has no method empty: pass out="
        )
    return empty(request.result_shape, request.result_dtype, like)


def _find(wanted: str | Backend, source: str) -> _Entry:
    if not isinstance(wanted, str):
        return _wrap(wanted)
    if wanted in _BUILT_IN:
        return _built_in(wanted)
    registered, _ = _scan()
    if wanted not in registered:
        raise BackendError(
            f"{source}{wanted!r}: no such backend; found: {', '.join(sorted(registered))}"
        )
    return registered[wanted]


@contextmanager
def use_backend(backend: str | Backend) -> Iterator[None]:
    """Run the calls inside a ``with`` block on one backend.

    Holds for the current thread or asyncio task only (it is a context variable). A call's
    own ``backend=`` goes before it; ``CROPKIT_BACKEND`` comes after it.

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
    entry = _find(backend, "use_backend: ")
    reason = entry.why_not()
    if reason is not None:
        raise BackendError(f"backend {entry} cannot be used: {reason}")
    token = _preferred.set(entry)
    try:
        yield
    finally:
        _preferred.reset(token)


def list_backends() -> list[BackendInfo]:
    """List every backend found, usable or not, and why not.

    Returns
    -------
    list of BackendInfo
        The built-in ones first, then plugins by name, then those whose name is taken.

    Examples
    --------
    >>> import cropkit
    >>> [info.name for info in cropkit.list_backends()][:2]
    ['cpu', 'reference']
    """
    rows = []
    registered, rejected = _scan()
    for entry in (*registered.values(), *rejected):
        names: tuple[str, ...] = ()
        exact = None
        if entry.backend is not None:
            names = tuple(device_name(device) for device in sorted(entry.backend.device_types))
            exact = entry.backend.exact
        rows.append(BackendInfo(entry.name, entry.origin, names, exact, entry.why_not()))
    return rows


# ---- finding -------------------------------------------------------------------------


@cache
def _built_in(name: str) -> _Entry:
    module, attribute = _BUILT_IN[name].split(":")
    backend = getattr(importlib.import_module(module), attribute)
    return _Entry(name, "built in", backend)


# By identity, since a backend need not be hashable; an entry keeps its backend alive, so
# that no identity is used again. Looking at an object takes as long as a small call.
_wrapped: dict[int, _Entry] = {}


def _wrap(backend: Backend) -> _Entry:
    """Entry of a backend that was passed as an object."""
    entry = _wrapped.get(id(backend))
    if entry is None:
        origin = f"{type(backend).__module__}.{type(backend).__qualname__}"
        flaw = _flaw(backend)
        if flaw is not None:
            return _Entry(type(backend).__name__, origin, None, f"it {flaw}")
        entry = _Entry(backend.name, origin, backend)
        if len(_wrapped) >= 64:
            _wrapped.clear()
        _wrapped[id(backend)] = entry
    return entry


@cache
def _scan() -> tuple[dict[str, _Entry], tuple[_Entry, ...]]:
    """Load every plugin: those registered, by name, and those whose name is taken.

    A plugin that cannot be loaded keeps its name, so that asking for it tells why.
    """
    from importlib.metadata import entry_points

    registered = {name: _built_in(name) for name in _BUILT_IN}
    rejected = []
    found = [(point.name, _origin(point), point) for point in entry_points(group=GROUP)]
    for name, origin, point in sorted(found, key=lambda row: row[:2]):
        if name in registered:
            problem = f"the name {name!r} is already taken: {registered[name].origin}"
            rejected.append(_Entry(name, origin, None, problem))
        else:
            registered[name] = _load(point, origin)
    return registered, tuple(rejected)


def _origin(point: "EntryPoint") -> str:
    """Name and version of the distribution that an entry point came with."""
    try:
        if point.dist is not None and point.dist.name:
            return f"{point.dist.name} {point.dist.version}"
    except Exception:  # its metadata is missing or damaged
        pass
    return point.value


def _load(point: "EntryPoint", origin: str) -> _Entry:
    try:
        backend = point.load()
    except _PLUGIN_ERRORS as error:
        problem = f"importing {point.value} failed: {_one_line(error)}"
        return _Entry(point.name, origin, None, problem)
    flaw = _flaw(backend)
    if flaw is None and backend.name != point.name:
        flaw = f"has name {backend.name!r}: expected the entry point's name, {point.name!r}"
    if flaw is not None:
        return _Entry(point.name, origin, None, f"{point.value} {flaw}")
    return _Entry(point.name, origin, backend)


def _flaw(backend: object) -> str | None:
    """Say what keeps an object from being a backend, or None."""
    try:
        if isinstance(backend, type):
            return "is a class: expected an instance"
        name = getattr(backend, "name", None)
        if not isinstance(name, str):
            return f"has name {name!r}: expected a str"
        devices = getattr(backend, "device_types", None)
        if not isinstance(devices, frozenset) or not all(type(d) is int for d in devices):
            return f"has device_types {devices!r}: expected a frozenset of int"
        exact = getattr(backend, "exact", None)
        if not isinstance(exact, bool):
            return f"has exact {exact!r}: expected True or False"
        methods = dict(_METHODS)
        if any(hasattr(backend, method) for method in _GRADIENT_METHODS):
            methods |= _GRADIENT_METHODS
        methods |= {m: n for m, n in _OPTIONAL_METHODS.items() if hasattr(backend, m)}
        for method, count in methods.items():
            flaw = _method_flaw(getattr(backend, method, None), method, count)
            if flaw is not None:
                return flaw
    except _PLUGIN_ERRORS as error:
        return f"raised when it was looked at: {_one_line(error)}"
    return None


def _method_flaw(method: Callable[..., object] | None, name: str, count: int) -> str | None:
    if not callable(method):
        return f"has no method {name}"
    signature = inspect.signature(method)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.VAR_KEYWORD in kinds:
        return f"has a method {name}{signature}: expected {count} parameters, each with its name"
    try:
        signature.bind(*range(count))
    except TypeError:
        return f"has a method {name}{signature}: expected {count} parameters"
    return None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
