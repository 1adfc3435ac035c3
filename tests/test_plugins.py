"""How backends are found: plugins, good and bad, really installed."""

import re
from pathlib import Path

import pytest

from cropkit import _plugins
from tests.support.children import python
from tests.support.documents import ROOT
from tests.support.plugins import BAD, ask, install, source


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test as if the environment named no backend."""
    monkeypatch.delenv("CROPKIT_BACKEND", raising=False)


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
