"""Where backends are found: built in, in the entry points of distributions, or as an object.

A broken plugin, or broken metadata, is listed with the reason, and hides no other backend.
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

# importlib.metadata is imported only to find plugins: it would triple `import cropkit`'s time.
if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP: Final = "cropkit.backends"
BUILT_IN: Final = {"cpu": "cropkit._cpu:backend", "reference": "cropkit._reference:backend"}
_OWN: Final = "cropkit"  # this distribution's entry points go before others of the same name

# How many arguments each method is called with.
_METHODS: Final = {"unavailable": 0, "refuses": 1, "crop_and_resize": 5}
_GRADIENT_METHODS: Final = {"grad_image": 5, "grad_boxes": 6}
_OPTIONAL_METHODS: Final = {"empty": 3, "synchronize": 0}


@dataclass(frozen=True)
class Entry:
    """A backend that was found: the backend itself, or the problem that keeps it out."""

    name: str
    origin: str
    backend: Backend | None
    problem: str | None = None
    # Read once, when the backend is loaded: asked again, a plugin might raise.
    device_types: frozenset[int] = frozenset()
    exact: bool | None = None
    features: frozenset[str] = frozenset()
    module: str | None = None  # the module that a plugin's entry point names

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
        except BaseException as error:  # one plugin's exception must not stop the others
            return f"it raised when asked: {_one_line(error)}"
        if reason is None:
            return None
        if not isinstance(reason, str):
            return f"its reason is a {type(reason).__name__}: expected str or None"
        one_line = " ".join(reason.split())  # as lists of backends need it
        return one_line or "it refuses without a reason: expected a sentence, or None"


@cache
def built_in(name: str) -> Entry:
    module, attribute = BUILT_IN[name].split(":")
    backend = getattr(importlib.import_module(module), attribute)
    return _entry_of(name, "built in", backend)


# Entries by the identity of the backend, which need not be hashable. An entry keeps its backend
# alive, so no identity is used again. To check an object takes as long as a small call.
_wrapped: dict[int, Entry] = {}


def entry_of_object(backend: Backend) -> Entry:
    """Return the entry of a backend that was passed as an object."""
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
    """Return an object's entry under `name`, by default its own name, or one with its flaw."""
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
    """Load every plugin; return the registered ones by name, and those whose name is taken.

    A name belongs to a built-in backend, else to a plugin of cropkit itself, else to the first
    plugin of that name that loads. A plugin that cannot be loaded has its name only if no other
    claims it, so that asking for the name tells why.
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
    """Find entry points with their origins, cropkit's own first, and damaged distributions.

    ``importlib.metadata.entry_points`` is not used: one damaged file anywhere hides all of its
    entry points.
    """
    from importlib.metadata import distributions

    points: list[tuple[str, bool, str, EntryPoint]] = []
    damaged = []
    seen = set()
    for distribution in distributions():
        try:
            name = distribution.metadata["Name"]
            origin = f"{name} {distribution.version}" if name else ""
        except Exception:  # the distribution's metadata is missing or damaged
            name = origin = ""
        normalized = re.sub(r"[-_.]+", "-", name or "").lower()
        if normalized in seen:  # the first one on the path counts, as it does for imports
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
    """Whether a damaged file of entry points mentions backends of cropkit."""
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
    """Say why an object is no backend, or return None; exceptions of the object pass through."""
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
