"""How backends are found and chosen: plugins, good and bad, really installed."""

import asyncio
import contextvars
import gc
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cropkit
from cropkit import BackendError, Request, _backends, _plugins
from cropkit._request import check_forward
from tests.support.children import python

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "tests" / "example_plugin"
CUDA = 2

# Each: distribution, entry point's name, module source, and how the reason reads.
GOOD = """
class Backend:
    name = {name!r}
    device_types = frozenset({{{device}}})
    exact = {exact}
    def unavailable(self): return {unavailable!r}
    def refuses(self, request): return {refuses!r}
    def crop_and_resize(self, request, image, boxes, box_indices, out): out[...] = {value}
backend = Backend()
"""


def source(name: str, **changes: Any) -> str:
    """Return a well-mannered backend's module, which writes `value` everywhere."""
    well_mannered = {
        "device": 1, "exact": True, "unavailable": None, "refuses": None, "value": 7,
    }  # fmt: skip
    return GOOD.format(name=name, **(well_mannered | changes))


BAD = {
    "gone": ("import nothing_of_this_name", "importing plugin_gone:backend failed: "
             "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    "exits": ("raise SystemExit('no driver')", "importing plugin_exits:backend failed: "
              "SystemExit: no driver"),
    "empty": ("", "importing plugin_empty:backend failed: AttributeError: "),
    "star": (source("star").replace("self, request, image, boxes, box_indices, out", "self, *args")
             .replace("out[...] = 7", "pass"),
             "has a method crop_and_resize(*args): expected 5 parameters, each with its name"),
    "fewer": (source("fewer").replace("box_indices, ", ""),
              "has a method crop_and_resize(request, image, boxes, out): expected 5 parameters"),
    "keyword": (source("keyword").replace("self, request):", "self, request, *, key):"),
                "has a method refuses(request, *, key): expected 1 parameters"),
    "lacks": (source("lacks").replace("unavailable(", "available("), "has no method unavailable"),
    "alias": (source("other"), "has name 'other': expected the entry point's name, 'alias'"),
    "nameless": (source("nameless").replace("name = 'nameless'", "name = 3"),
                 "has name 3: expected a str"),
    "devices": (source("devices").replace("frozenset({1})", "(1,)"),
                "has device_types (1,): expected a frozenset of int"),
    "exactly": (source("exactly", exact="'yes'"), "has exact 'yes': expected True or False"),
    "class": (source("class").replace("Backend()", "Backend"),
              "is a class: expected an instance"),
    "property": (source("property").replace("name = 'property'", "name = property(lambda s: 1/0)"),
                 "raised when it was looked at: ZeroDivisionError: division by zero"),
    # Registered, but unusable.
    "raises": (source("raises").replace("return None", "raise OSError('libcuda is broken')", 1),
               "it raised when asked: OSError: libcuda is broken"),
    "number": (source("number", unavailable=3), "its reason is a int: expected str or None"),
    "absent": (source("absent", unavailable="no driver", device=CUDA), "no driver"),
    "wordy": (source("wordy", unavailable="no device;\n  1 was looked at"),
              "no device; 1 was looked at"),
}  # fmt: skip


def install(folder: Path, distribution: str, name: str, module: str) -> None:
    """Leave in `folder` what an installer leaves of a distribution of one module."""
    stem = f"plugin_{distribution.removeprefix('cropkit-').replace('-', '_')}"
    (folder / f"{stem}.py").write_text(module)
    metadata = folder / f"{distribution.replace('-', '_')}-2.5.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n"
    )
    (metadata / "entry_points.txt").write_text(f"[{_plugins.GROUP}]\n{name} = {stem}:backend\n")


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test as if the environment named no backend."""
    monkeypatch.delenv("CROPKIT_BACKEND", raising=False)


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for PYTHONPATH: the example, installed by pip, among all bad plugins."""
    folder = tmp_path_factory.mktemp("plugins")
    copied = tmp_path_factory.mktemp("source") / "example_plugin"
    shutil.copytree(EXAMPLE, copied)  # building leaves files next to the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
           "--no-index", "--no-deps", "--no-build-isolation", "--target"]  # fmt: skip
    built = subprocess.run(
        [*pip, str(folder), str(copied)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    for name, (module, _) in BAD.items():
        install(folder, f"cropkit-{name}", name, module)
    install(folder, "cropkit-usurper", "cpu", source("cpu"))
    install(folder, "cropkit-zz-copy", "example", source("example"))
    return folder


CALL = """
import json, sys
import numpy as np
import cropkit
image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
def call(backend=None, image=image):
    return cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2), backend=backend)
"""


def ask(plugins: Path, code: str, **environment: Any) -> Any:
    """Run `code` after `CALL` in a child that sees the plugins; what it dumps as JSON."""
    return json.loads(python(CALL + code, PYTHONPATH=plugins, **environment).stdout)


# ---- finding -------------------------------------------------------------------------


def test_the_example_passes_the_conformance_suite_beside_bad_plugins(plugins: Path) -> None:
    """And the report is that of the documentation, which leaves lines out."""
    report = python("", "-m", "cropkit.testing", "example", PYTHONPATH=plugins).stdout
    assert re.search(r"\n\d{3} passed, 0 failed\n$", report)
    page = (ROOT / "docs" / "writing_a_backend.md").read_text()
    _, _, rest = page.partition("```text\ncropkit ")
    shown = ("cropkit " + rest.partition("```")[0]).splitlines()
    printed = iter(re.sub(r"\(\d+ ms\)", "(1 ms)", report).splitlines())
    for line in shown:
        if line.strip() not in ("", "..."):
            assert line in printed, f"the page has a line that is not printed there: {line}"


def test_list_backends_gives_each_distribution_and_reason(plugins: Path) -> None:
    code = """
rows = [(i.name, i.origin, i.device_types, i.exact, i.reason) for i in cropkit.list_backends()]
json.dump(rows, sys.stdout)
"""
    rows = ask(plugins, code)
    assert rows[:2] == [
        ["cpu", "built in", ["CPU"], True, None],
        ["reference", "built in", ["CPU"], True, None],
    ]
    assert ["example", "cropkit-example 1.0", ["CPU"], True, None] in rows
    for name, (_, reason) in BAD.items():
        (row,) = (row for row in rows if row[0] == name)
        assert row[1] == f"cropkit-{name} 2.5"
        assert reason in row[4], name
    taken = [row for row in rows if "is already taken" in (row[4] or "")]
    assert [(row[0], row[1], row[4]) for row in taken] == [
        ("cpu", "cropkit-usurper 2.5", "the name 'cpu' is already taken: built in"),
        ("example", "cropkit-zz-copy 2.5",
         "the name 'example' is already taken: cropkit-example 1.0"),
    ]  # fmt: skip
    own = [row[0] for row in rows if row[1].startswith("cropkit ")]
    assert own == ["cuda", "opencl"]
    assert len(rows) == 2 + len(own) + 1 + len(BAD) + 2


@pytest.mark.parametrize("name", BAD)
def test_naming_a_bad_plugin_raises_its_reason(plugins: Path, name: str) -> None:
    code = f"""
try:
    call({name!r})
except cropkit.BackendError as error:
    json.dump(str(error), sys.stdout)
"""
    message = ask(plugins, code)
    assert message.startswith(f"backend '{name}' (cropkit-{name} 2.5) cannot run this call: ")
    assert BAD[name][1] in message


def test_a_taken_name_runs_the_first(plugins: Path) -> None:
    code = "json.dump([call('cpu').max().item(), call('example').max().item()], sys.stdout)"
    assert ask(plugins, code) == [47.0, 47.0]


def test_import_and_a_default_call_load_no_plugin(plugins: Path) -> None:
    code = """
call()
with cropkit.use_backend("reference"):
    call()
call("cpu")
loaded = [m for m in sys.modules if m.startswith(("plugin_", "cropkit_"))]
json.dump([loaded, "importlib.metadata" in sys.modules], sys.stdout)
"""
    assert ask(plugins, code) == [[], False]
    # The same check fails where something is looked for.
    assert ask(plugins, "cropkit.list_backends()" + code)[1] is True


def test_show_runtime_prints_each_reason(plugins: Path) -> None:
    text = python("", "-m", "cropkit", "info", PYTHONPATH=plugins).stdout
    assert "  example (cropkit-example 1.0) on CPU, exact: usable\n" in text
    assert "  absent (cropkit-absent 2.5) on CUDA, exact: not usable: no driver\n" in text
    assert "  cpu (cropkit-usurper 2.5): not usable: the name 'cpu' is already taken" in text
    for name, (_, reason) in BAD.items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"  {name} ("))
        assert f"  {name} (cropkit-{name} 2.5)" in line
        assert ": not usable: " in line
        assert reason in line


def test_missing_metadata_is_no_reason_to_fail(tmp_path: Path) -> None:
    install(tmp_path, "cropkit-bare", "bare", source("bare"))
    (tmp_path / "cropkit_bare-2.5.dist-info" / "METADATA").unlink()
    code = "json.dump([[i.name, i.origin, i.reason] for i in cropkit.list_backends()], sys.stdout)"
    assert ["bare", "plugin_bare:backend", None] in ask(tmp_path, code)


DAMAGED = f"""
[{_plugins.GROUP}]
good = plugin_good:backend
a line without its sign
"""


def test_one_damaged_package_keeps_no_other_from_working(tmp_path: Path) -> None:
    """A damaged file, a plugin that raises what is no Exception, and both under taken names."""
    for number, text in enumerate((DAMAGED, "[console_scripts]\nnothing\n")):
        install(tmp_path, f"aa-damaged{number}", f"d{number}", source(f"d{number}"))
        folder = tmp_path / f"aa_damaged{number}-2.5.dist-info"
        (folder / "entry_points.txt").write_text(text)
    broken = "class Halt(BaseException): pass\nraise Halt('stop')\n"
    install(tmp_path, "aa-halts", "halts", broken)
    install(tmp_path, "aa-first", "good", broken)
    install(tmp_path, "bb-good", "good", source("good", value=3))
    install(tmp_path, "aa-opencl", "opencl", broken)
    code = """
json.dump([call("good").max().item(), {i.origin + " " + i.name: i.reason
          for i in cropkit.list_backends()}], sys.stdout)
"""
    result, reasons = ask(tmp_path, code)
    assert result == 3.0
    assert reasons["bb-good 2.5 good"] is None
    assert reasons["aa-first 2.5 good"] == "importing plugin_aa_first:backend failed: Halt: stop"
    assert reasons["aa-halts 2.5 halts"] == "importing plugin_aa_halts:backend failed: Halt: stop"
    assert "is already taken: cropkit " in reasons["aa-opencl 2.5 opencl"]
    damaged = [reason for name, reason in reasons.items() if "damaged" in name]
    assert len(damaged) == 1  # the other one has nothing to do with cropkit
    assert damaged[0].startswith("its entry_points.txt cannot be read: ")
    assert "usable" in python("", "-m", "cropkit", "info", PYTHONPATH=tmp_path).stdout
    # The conformance suite looks for its backend where the registry has found it. Hypothesis, which
    # it needs, has the fault itself unless it is told to leave other packages alone.
    suite = python(
        "", "-m", "cropkit.testing", "good", "-k", "importing",
        PYTHONPATH=tmp_path, HYPOTHESIS_NO_PLUGINS=1,
    )  # fmt: skip
    assert "1 passed, 0 failed" in suite.stdout


# ---- choosing ------------------------------------------------------------------------


class Constant:
    """A backend that writes one value, and may refuse."""

    device_types = frozenset({1})
    exact = True

    def __init__(self, value: float, reason: str | None = None, name: str = "constant") -> None:
        self.value = value
        self.reason = reason
        self.name = name

    __hash__ = None  # type: ignore[assignment]

    def unavailable(self) -> str | None:
        return None

    def refuses(self, request: Request) -> str | None:
        return self.reason

    def crop_and_resize(
        self, request: Request, image: Any, boxes: Any, box_indices: Any, out: Any
    ) -> None:
        out[...] = self.value


IMAGE = np.zeros((1, 2, 2, 1), np.float32)


def value(backend: Any = None) -> float:
    """Return what a call gives: 0 from the built-in backends, else a `Constant`'s value."""
    return float(
        cropkit.crop_and_resize(IMAGE, [[0, 0, 1, 1]], [0], (1, 1), backend=backend).item()
    )


def request_of(device_type: int = 1, dtype: str = "float32") -> Request:
    """Return a request as the checks make it, on any device."""
    image = IMAGE.astype(dtype)
    call = check_forward(image, [[0, 0, 1, 1]], [0], (1, 1), "bilinear", 0.0, None, None, None)
    return call.request._replace(device_type=device_type)


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
    assert _backends.choose(request_of(), None).name == "reference"
    monkeypatch.setenv("CROPKIT_BACKEND", "")
    assert _backends.choose(request_of(), None).name == "cpu"


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
    assert seen == {"before": 0, "inside": 2}


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
    origin = r"\(tests.test_registry.Constant\)"
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
        _backends.choose(request_of(CUDA), None)
    assert str(caught.value).splitlines() == [
        "no backend runs on CUDA arrays:",
        "  'cpu' (built in): it does not run on CUDA arrays",
        "  'reference' (built in): it does not run on CUDA arrays",
        "  'a' (dist-a 1): no float64",
        "  'b' (dist-b 1): it is not exact, so it runs only when it is named",
        "  'c' (dist-c 1): importing c failed: OSError",
        "  'taken' (dist-d 1): the name 'taken' is already taken: dist-a 1",
    ]
    assert _backends.choose(request_of(CUDA), "b").name == "b"
    with pytest.raises(BackendError, match=r"'cpu' \(built in\) .*: it does not run on CUDA"):
        _backends.choose(request_of(CUDA), "cpu")
    with pytest.raises(BackendError, match="it does not run on DLPack device type 99 arrays"):
        _backends.choose(request_of(99), "a")


def test_the_first_exact_backend_for_a_device_is_chosen(registered: Any) -> None:
    registered(
        on_cuda("a", reason="no float64"), on_cuda("b", exact=False), on_cuda("d"), on_cuda("e")
    )
    assert _backends.choose(request_of(CUDA), None).name == "d"
    assert _backends.choose(request_of(), None).name == "cpu"
