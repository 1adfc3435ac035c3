"""Which backend runs a call: the argument, a block, the environment, or the device."""

import asyncio
import contextvars
import gc
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import cropkit
from cropkit import BackendError, Request, _backends, _cpu, _plugins
from tests.support.children import python
from tests.support.constant import CUDA, Constant, call_on, value
from tests.support.plugins import ask


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test as if the environment named no backend."""
    monkeypatch.delenv("CROPKIT_BACKEND", raising=False)


def test_the_argument_goes_before_use_backend() -> None:
    assert value() == 0
    with cropkit.use_backend(Constant(3)):
        assert value() == 3
        assert value(Constant(5)) == 5
        assert value("reference") == 0
        with cropkit.use_backend("cpu"):
            assert value() == 0
        assert value() == 3
    assert value() == 0


def test_use_backend_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROPKIT_BACKEND", "nonsense")
    with cropkit.use_backend("reference"):
        assert value() == 0
    assert value("cpu") == 0
    with pytest.raises(BackendError, match="CROPKIT_BACKEND='nonsense': no such backend; found: "):
        value()
    monkeypatch.setenv("CROPKIT_BACKEND", "reference")
    assert _backends.choose(call_on(), None).name == "reference"
    monkeypatch.setenv("CROPKIT_BACKEND", "")
    assert _backends.choose(call_on(), None).name == "cpu"


def test_the_environment_chooses_a_plugin(plugins: Path) -> None:
    code = "call(); json.dump('cropkit_example' in sys.modules, sys.stdout)"
    assert ask(plugins, code, CROPKIT_BACKEND="example") is True


def test_use_backend_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), cropkit.use_backend(Constant(3)):
        raise ZeroDivisionError
    assert value() == 0


def test_a_block_in_a_generator_ends_where_the_generator_does() -> None:
    """Closed in another context, or after another that was entered later."""

    def generator(number: float) -> Iterator[float]:
        with cropkit.use_backend(Constant(number)):
            yield value()

    first, second = generator(1), generator(2)
    assert [next(first), next(second), value()] == [1, 2, 2]
    first.close()
    assert value() == 2
    contextvars.copy_context().run(second.close)
    assert value() == 0


def test_a_break_out_of_an_async_generator_leaks_no_choice() -> None:
    async def generator() -> AsyncIterator[float]:
        with cropkit.use_backend(Constant(4)):
            yield value()
            yield value()

    async def main() -> list[float]:
        seen = []
        async for number in generator():
            seen.append(number)
            break
        gc.collect()
        for _ in range(3):  # the event loop closes the generator in a task of its own
            await asyncio.sleep(0)
        return [*seen, value()]

    assert asyncio.run(main()) == [4, 0]


def test_a_refusal_has_a_reason() -> None:
    with pytest.raises(
        BackendError, match="call: it refuses without a reason: expected a sentence"
    ):
        value(Constant(1, reason=" "))


# Since 3.14 a new thread may inherit the context of the one that starts it.
INHERITS = bool(getattr(sys.flags, "thread_inherit_context", False))


def test_threads_do_not_see_each_others_backend() -> None:
    inside, done, seen = threading.Event(), threading.Event(), {}

    def other() -> None:
        seen["before"] = value()
        with cropkit.use_backend(Constant(2)):
            seen["inside"] = value()
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=other)
    with cropkit.use_backend(Constant(1)):
        thread.start()
        assert inside.wait(60)
        assert value() == 1
    done.set()
    thread.join()
    assert value() == 0
    assert seen == {"before": int(INHERITS), "inside": 2}


@pytest.mark.parametrize("inherits", [False, True] if sys.version_info >= (3, 14) else [False])
def test_a_new_thread_is_in_the_block_where_it_inherits_the_context(inherits: bool) -> None:
    code = """
import json, sys, threading
import cropkit
from tests.support.constant import Constant, value
seen, began, ended = [], threading.Event(), threading.Event()
def other():
    seen.append(value())
    began.set()
    ended.wait(60)
    seen.append(value())
with cropkit.use_backend(Constant(1)):
    inside = threading.Thread(target=other)
    inside.start()
    began.wait(60)
ended.set()
inside.join()
after = threading.Thread(target=other)
after.start()
after.join()
json.dump(seen, sys.stdout)
"""
    child = python("", "-X", f"thread_inherit_context={inherits:d}", "-c", code)
    assert json.loads(child.stdout) == [inherits, inherits, 0, 0]


def test_a_thread_runs_in_the_context_that_it_is_given() -> None:
    seen = []
    with cropkit.use_backend(Constant(1)):
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(lambda: seen.append(value()),))
    thread.start()
    thread.join()
    assert seen == [1]


def test_tasks_do_not_see_each_others_backend() -> None:
    async def task(number: int) -> list[float]:
        seen = []
        with cropkit.use_backend(Constant(number)):
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(value())
        return [*seen, value()]

    async def main() -> list[list[float]]:
        return list(await asyncio.gather(task(1), task(2), task(3)))

    assert asyncio.run(main()) == [[n, n, n, 0] for n in (1, 2, 3)]


@pytest.mark.parametrize("backend", ["tpu", "", "CPU"])
def test_an_unknown_name_lists_the_known(backend: str) -> None:
    expected = rf"backend={backend!r}: no such backend; found: cpu, .*reference"
    with pytest.raises(BackendError, match=expected):
        value(backend)
    with (
        pytest.raises(BackendError, match=f"use_backend: {backend!r}: no such backend"),
        cropkit.use_backend(backend),
    ):
        pass


def test_who_is_named_runs_or_raises(plugins: Path) -> None:
    refusing = Constant(3, reason="not today")
    origin = r"\(tests.support.constant.Constant\)"
    with pytest.raises(BackendError, match=rf"backend 'constant' {origin} cannot .*: not today"):
        value(refusing)
    asked = "asked for by use_backend, cannot run this call: not today"
    with cropkit.use_backend(refusing), pytest.raises(BackendError, match=asked):
        value()
    code = """
import ml_dtypes
try:
    call(image=image.astype(ml_dtypes.bfloat16))
except cropkit.BackendError as error:
    json.dump(str(error), sys.stdout)
"""
    assert ask(plugins, code, CROPKIT_BACKEND="example") == (
        "backend 'example' (cropkit-example 1.0), asked for by CROPKIT_BACKEND, "
        "cannot run this call: bfloat16 images are not supported"
    )


def test_use_backend_of_an_unavailable_one_raises(plugins: Path) -> None:
    code = """
try:
    with cropkit.use_backend("absent"):
        raise SystemExit("entered")
except cropkit.BackendError as error:
    json.dump(str(error), sys.stdout)
"""
    assert ask(plugins, code) == "backend 'absent' (cropkit-absent 2.5) cannot be used: no driver"


def test_objects_are_checked_as_plugins_are() -> None:
    class Lacking:
        name = "lacking"
        device_types = frozenset({1})
        exact = True

    with pytest.raises(BackendError, match="cannot run this call: it has no method unavailable"):
        value(Lacking())
    raising = type("Raising", (Lacking,), {"name": property(lambda self: 1 / 0)})
    with pytest.raises(BackendError, match="it raised when it was looked at: ZeroDivisionError"):
        value(raising())
    with pytest.raises(BackendError, match="it is a class: expected an instance"):
        value(Constant)
    with pytest.raises(BackendError, match=r"\(builtins.int\) .* it has name None: expected a str"):
        value(17)


def test_many_objects_are_not_mixed_up() -> None:
    for number in range(300):
        assert value(Constant(number)) == number


# ---- other devices -------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the registry hold the built-in backends and these."""

    def register(*entries: _plugins.Entry) -> None:
        built_in = {name: _plugins.built_in(name) for name in ("cpu", "reference")}
        found = built_in | {entry.name: entry for entry in entries if entry.name != "taken"}
        rejected = tuple(entry for entry in entries if entry.name == "taken")
        monkeypatch.setattr(_backends, "scan", lambda: (found, rejected))

    return register


def on_cuda(name: str, *, exact: bool = True, reason: str | None = None) -> _plugins.Entry:
    backend = Constant(1, reason, name)
    backend.device_types = frozenset({CUDA})
    backend.exact = exact
    return _plugins._entry_of(name, f"dist-{name} 1", backend)


def test_no_backend_for_a_device_lists_every_reason(registered: Any) -> None:
    registered(
        on_cuda("a", reason="no float64"),
        on_cuda("b", exact=False),
        _plugins.Entry("c", "dist-c 1", None, "importing c failed: OSError"),
        _plugins.Entry("taken", "dist-d 1", None, "the name 'taken' is already taken: dist-a 1"),
    )
    with pytest.raises(BackendError) as caught:
        _backends.choose(call_on(CUDA), None)
    assert str(caught.value).splitlines() == [
        "no backend runs on CUDA arrays:",
        "  'cpu' (built in): it does not run on CUDA arrays",
        "  'reference' (built in): it does not run on CUDA arrays",
        "  'a' (dist-a 1): no float64",
        "  'b' (dist-b 1): it is not exact, so it runs only when it is named",
        "  'c' (dist-c 1): importing c failed: OSError",
        "  'taken' (dist-d 1): the name 'taken' is already taken: dist-a 1",
    ]
    assert _backends.choose(call_on(CUDA), "b").name == "b"
    with pytest.raises(BackendError, match=r"'cpu' \(built in\) .*: it does not run on CUDA"):
        _backends.choose(call_on(CUDA), "cpu")
    with pytest.raises(BackendError, match="it does not run on DLPack device type 99 arrays"):
        _backends.choose(call_on(99), "a")


def test_the_first_exact_backend_for_a_device_is_chosen(registered: Any) -> None:
    registered(
        on_cuda("a", reason="no float64"), on_cuda("b", exact=False), on_cuda("d"), on_cuda("e")
    )
    assert _backends.choose(call_on(CUDA), None).name == "d"
    assert _backends.choose(call_on(), None).name == "cpu"


class Counting:
    """Hands everything on to the backend ``cpu``, and counts the crops."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(_plugins.built_in("cpu").backend, name)

    def crop_and_resize(
        self, request: Request, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        self.calls += 1
        _cpu.backend.crop_and_resize(request, image, boxes, box_indices, out)


def test_what_wraps_the_cpu_is_not_passed_by() -> None:
    """The short way is of ``cpu`` itself, not of whatever has its attributes."""
    counting = Counting()
    assert value(counting) == 0
    with cropkit.use_backend(counting):  # type: ignore[arg-type]
        value()
    assert counting.calls == 2


def test_a_subclass_of_the_cpu_is_not_passed_by() -> None:
    class Sevens(_cpu.CpuBackend):
        def crop_and_resize(
            self, request: Request, image: Any, boxes: Any, box_indices: Any, out: Any
        ) -> None:
            out[...] = 7

    assert value(Sevens()) == 7
