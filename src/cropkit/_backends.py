"""The registry of backends: the only place that chooses one.

``reference`` and ``cpu`` are built in. Every other backend enters by the entry point
group ``cropkit.backends``, whose value names an object that satisfies `Backend`. Nothing
is looked for before it is needed: a call on arrays in the CPU's memory that names no
backend loads no plugin, and so installing one never changes its result.
"""

import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

from numpy.typing import NDArray

from cropkit._arguments import CPU_DEVICE
from cropkit._arrays import device_name
from cropkit._kernels._checks import in_environment
from cropkit._request import Request

# Imported where plugins are: it would triple the time of `import cropkit`.
if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

    from cropkit._cpu import CpuBackend

GROUP: Final = "cropkit.backends"
_BUILT_IN: Final = {"cpu": "cropkit._cpu:backend", "reference": "cropkit._reference:backend"}
_OWN: Final = "cropkit"  # the distribution whose entry points go before others' of their names


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
    # What it said when it was loaded: asked again, a plugin might raise.
    device_types: frozenset[int] = frozenset()
    exact: bool | None = None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.origin})"

    def why_not(self, request: Request | None = None) -> str | None:
        """Say why this entry cannot be used (for `request`), or None."""
        if self.backend is None:
            return self.problem
        try:
            reason = self.backend.unavailable()
            if reason is None and request is not None:
                if request.device_type not in self.device_types:
                    return f"it does not run on {device_name(request.device_type)} arrays"
                if not hasattr(self.backend, request.operation):
                    return f"it has no method {request.operation}"
                reason = self.backend.refuses(request)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a plugin raises takes no other along
            return f"it raised when asked: {_one_line(error)}"
        if reason is None:
            return None
        if not isinstance(reason, str):
            return f"its reason is a {type(reason).__name__}: expected str or None"
        one_line = " ".join(reason.split())  # in every list
        return one_line or "it refuses without a reason: expected a sentence, or None"


# ---- choosing ------------------------------------------------------------------------


class _Choice:
    """A block of `use_backend`: its backend, and the block around it."""

    __slots__ = ("ended", "entry", "outer")

    def __init__(self, entry: _Entry, outer: "_Choice | None") -> None:
        self.entry = entry
        self.outer = outer
        self.ended = False  # seen by every context that still has this choice


_preferred: ContextVar[_Choice | None] = ContextVar("cropkit_backend", default=None)


def _chosen_by_block() -> _Entry | None:
    """Return the backend of the innermost block of `use_backend` that has not ended."""
    choice = _preferred.get()
    while choice is not None and choice.ended:
        choice = choice.outer
    return None if choice is None else choice.entry


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
    if _chosen_by_block() is not None or in_environment(b"CROPKIT_BACKEND"):
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
    entry = _chosen_by_block()
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
            if entry.exact:
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
    own ``backend=`` goes before it; ``CROPKIT_BACKEND`` comes after it. A block in a generator
    holds for whoever runs the generator until the block is left, in whatever context that is.

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
    choice = _Choice(entry, _preferred.get())
    token = _preferred.set(choice)
    try:
        yield
    finally:
        _leave(choice, token)


def _leave(choice: _Choice, token: "Token[_Choice | None]") -> None:
    """End a block, also one in a generator that another context closes, or out of order."""
    if _preferred.get() is choice:
        try:
            _preferred.reset(token)
        except ValueError:  # a copy of the context that entered, which has the choice yet
            pass
        else:
            return
    choice.ended = True


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
        names = tuple(device_name(device) for device in sorted(entry.device_types))
        rows.append(BackendInfo(entry.name, entry.origin, names, entry.exact, entry.why_not()))
    return rows


# ---- finding -------------------------------------------------------------------------


@cache
def _built_in(name: str) -> _Entry:
    module, attribute = _BUILT_IN[name].split(":")
    backend = getattr(importlib.import_module(module), attribute)
    return _entry(name, "built in", backend)


# By identity, since a backend need not be hashable; an entry keeps its backend alive, so
# that no identity is used again. Looking at an object takes as long as a small call.
_wrapped: dict[int, _Entry] = {}


def _wrap(backend: Backend) -> _Entry:
    """Entry of a backend that was passed as an object."""
    entry = _wrapped.get(id(backend))
    if entry is None:
        origin = f"{type(backend).__module__}.{type(backend).__qualname__}"
        entry = _entry(None, origin, backend)
        if entry.backend is None:
            return _Entry(type(backend).__name__, origin, None, f"it {entry.problem}")
        if len(_wrapped) >= 64:
            _wrapped.clear()
        _wrapped[id(backend)] = entry
    return entry


def _entry(name: str | None, origin: str, backend: Any) -> _Entry:
    """Entry of an object of that name (of its own, if that is None), or with its flaw."""
    try:
        flaw = _flaw(backend)
        if flaw is None:
            own: str = backend.name
            devices, exact = backend.device_types, backend.exact
            if name is None or own == name:
                return _Entry(own, origin, backend, None, devices, exact)
            flaw = f"has name {own!r}: expected the entry point's name, {name!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        flaw = f"raised when it was looked at: {_one_line(error)}"
    return _Entry(name or "", origin, None, flaw)


@cache
def _scan() -> tuple[dict[str, _Entry], tuple[_Entry, ...]]:
    """Load every plugin: those registered, by name, and those whose name is taken.

    The built-in backends have their names, then cropkit's own plugins, then the first that
    loads. A plugin that cannot be loaded has its name only if nobody else has it, so that
    asking for it tells why.
    """
    registered = {name: _built_in(name) for name in _BUILT_IN}
    found, rejected = _entry_points()
    for point, origin in found:
        name = point.name
        taken = registered.get(name)
        if taken is None:
            registered[name] = _load(point, origin)
            continue
        if taken.backend is None and not taken.origin.startswith(f"{_OWN} "):
            entry = _load(point, origin)
            if entry.backend is not None:
                registered[name] = entry
                rejected.append(taken)
                continue
        problem = f"the name {name!r} is already taken: {taken.origin}"
        rejected.append(_Entry(name, origin, None, problem))
    return registered, tuple(rejected)


def _entry_points() -> tuple[list[tuple["EntryPoint", str]], list[_Entry]]:
    """Find the entry points with their origins, cropkit's own first, and what is damaged.

    Not by ``importlib.metadata.entry_points``, for which one damaged file anywhere hides all.
    """
    from importlib.metadata import distributions

    points: list[tuple[str, bool, str, EntryPoint]] = []
    damaged = []
    seen = set()
    for distribution in distributions():
        try:
            name = distribution.metadata["Name"]
            origin = f"{name} {distribution.version}" if name else ""
        except Exception:  # its metadata is missing or damaged
            name = origin = ""
        normalized = re.sub(r"[-_.]+", "-", name or "").lower()
        if normalized in seen:  # as with imports, the first on the path counts
            continue
        if normalized:
            seen.add(normalized)
        try:
            for point in distribution.entry_points:
                if point.group == GROUP:
                    where = origin or point.value
                    points.append((point.name, normalized != _OWN, where, point))
        except Exception as error:
            if _mentions_group(distribution):
                problem = f"its entry_points.txt cannot be read: {_one_line(error)}"
                damaged.append(_Entry(name or "unknown", origin or "unknown", None, problem))
    points.sort(key=lambda row: row[:3])
    return [(point, origin) for _, _, origin, point in points], damaged


def _mentions_group(distribution: "Distribution") -> bool:
    """Whether a damaged file of entry points is about backends of cropkit at all."""
    try:
        return GROUP in (distribution.read_text("entry_points.txt") or "")
    except Exception:
        return False


def _load(point: "EntryPoint", origin: str) -> _Entry:
    try:
        backend = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problem = f"importing {point.value} failed: {_one_line(error)}"
        return _Entry(point.name, origin, None, problem)
    entry = _entry(point.name, origin, backend)
    return entry if entry.backend else replace(entry, problem=f"{point.value} {entry.problem}")


def _flaw(backend: object) -> str | None:
    """Say what keeps an object from being a backend, or None; what it raises is raised."""
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
    try:
        text = " ".join(str(error).split())
    except Exception:  # a plugin's own class may do anything
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
