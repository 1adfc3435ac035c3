"""Where backends are found: built in, in the entry points of distributions, or as an object.

Whatever a plugin or its metadata does, the others are found, and it is listed with its reason.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from cropkit._arrays import device_name
from cropkit._protocol import Backend
from cropkit._request import Request

# Imported where plugins are: it would triple the time of `import cropkit`.
if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP: Final = "cropkit.backends"
BUILT_IN: Final = {"cpu": "cropkit._cpu:backend", "reference": "cropkit._reference:backend"}
_OWN: Final = "cropkit"  # the distribution whose entry points go before others' of their names

# How many arguments each method is called with.
_METHODS: Final = {"unavailable": 0, "refuses": 1, "crop_and_resize": 5}
_GRADIENT_METHODS: Final = {"grad_image": 5, "grad_boxes": 6}
_OPTIONAL_METHODS: Final = {"empty": 3, "synchronize": 0}


@dataclass(frozen=True)
class Entry:
    """A backend that was found: loaded, or with what keeps it from being registered."""

    name: str
    origin: str
    backend: Backend | None
    problem: str | None = None
    # What it said when it was loaded: asked again, a plugin might raise.
    device_types: frozenset[int] = frozenset()
    exact: bool | None = None
    features: frozenset[str] = frozenset()
    module: str | None = None  # of a plugin, the one that its entry point names

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
                missing = sorted(request.features - self.features)
                if missing:
                    return f"it does not declare the feature {missing[0]!r}, which the call needs"
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


@cache
def built_in(name: str) -> Entry:
    module, attribute = BUILT_IN[name].split(":")
    backend = getattr(importlib.import_module(module), attribute)
    return _entry_of(name, "built in", backend)


# By identity, since a backend need not be hashable; an entry keeps its backend alive, so
# that no identity is used again. Looking at an object takes as long as a small call.
_wrapped: dict[int, Entry] = {}


def entry_of_object(backend: Backend) -> Entry:
    """Entry of a backend that was passed as an object."""
    entry = _wrapped.get(id(backend))
    if entry is None:
        origin = f"{type(backend).__module__}.{type(backend).__qualname__}"
        entry = _entry_of(None, origin, backend)
        if entry.backend is None:
            return Entry(type(backend).__name__, origin, None, f"it {entry.problem}")
        if len(_wrapped) >= 64:
            _wrapped.clear()
        _wrapped[id(backend)] = entry
    return entry


def _entry_of(name: str | None, origin: str, backend: Any) -> Entry:
    """Entry of an object of that name (of its own, if that is None), or with its flaw."""
    try:
        flaw = _flaw(backend)
        if flaw is None:
            own: str = backend.name
            devices, exact = backend.device_types, backend.exact
            features: Any = getattr(backend, "features", frozenset())
            if name is None or own == name:
                return Entry(own, origin, backend, None, devices, exact, features)
            flaw = f"has name {own!r}: expected the entry point's name, {name!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        flaw = f"raised when it was looked at: {_one_line(error)}"
    return Entry(name or "", origin, None, flaw)


@cache
def scan() -> tuple[dict[str, Entry], tuple[Entry, ...]]:
    """Load every plugin: those registered, by name, and those whose name is taken.

    The built-in backends have their names, then cropkit's own plugins, then the first that
    loads. A plugin that cannot be loaded has its name only if nobody else has it, so that
    asking for it tells why.
    """
    registered = {name: built_in(name) for name in BUILT_IN}
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
        rejected.append(Entry(name, origin, None, problem))
    return registered, tuple(rejected)


def _entry_points() -> tuple[list[tuple["EntryPoint", str]], list[Entry]]:
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
                damaged.append(Entry(name or "unknown", origin or "unknown", None, problem))
    points.sort(key=lambda row: row[:3])
    return [(point, origin) for _, _, origin, point in points], damaged


def _mentions_group(distribution: "Distribution") -> bool:
    """Whether a damaged file of entry points is about backends of cropkit at all."""
    try:
        return GROUP in (distribution.read_text("entry_points.txt") or "")
    except Exception:
        return False


def _load(point: "EntryPoint", origin: str) -> Entry:
    try:
        backend = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problem = f"importing {point.value} failed: {_one_line(error)}"
        return Entry(point.name, origin, None, problem)
    entry = _entry_of(point.name, origin, backend)
    if entry.backend is None:
        return replace(entry, problem=f"{point.value} {entry.problem}")
    return replace(entry, module=point.module)


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
    features: Any = getattr(backend, "features", frozenset())
    if not isinstance(features, frozenset) or not all(isinstance(f, str) for f in features):
        return f"has features {features!r}: expected a frozenset of str"
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
