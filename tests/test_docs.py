"""What the words show works: code blocks, docstrings, links, and the API page."""

import doctest
import importlib
import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import cropkit
from tests.support.children import python
from tests.support.documents import BLOCK, PUBLIC, ROOT, code_blocks

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WITH_CODE = [path for path in DOCUMENTS if "```python\n" in path.read_text()]
# Their programs run where the frameworks are.
OF_FRAMEWORKS = {
    ROOT / "docs" / "frameworks" / f"{name}.md" for name in ("torch", "jax", "tensorflow")
}
LINK = re.compile(
    r"\]\(([^)\s]+)\)|^```\{(?:image|include)\} (\S+)|^\[[^\]]+\]: (\S+)", re.MULTILINE
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# How a text that is read elsewhere names a file of the repository, and a picture.
OWN = re.compile(
    rf"{PROJECT['urls']['Source']}/(?:blob|tree)/main/|"
    rf"{PROJECT['urls']['Source'].replace('github', 'raw.githubusercontent')}/main/"
)
FLAGS = doctest.ELLIPSIS


def run_examples(source: str, names: dict[str, object], title: str, line: int = 1) -> int:
    """Run a text's examples in the namespace `names`; return how many there were."""
    test = doctest.DocTestParser().get_doctest(source, names, title, title, line - 1)
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(
        test, out=report.append, clear_globs=False
    )
    assert not results.failed, "".join(report)
    names.update(test.globs)  # the parser has copied them
    return results.attempted


def anchors(path: Path) -> set[str]:
    """Return the headings of a document as the part of a link after ``#``."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


def links(path: Path) -> list[str]:
    """Return the targets of a document's links."""
    return ["".join(found) for found in LINK.findall(BLOCK.sub("", path.read_text()))]


def test_the_documents_were_found():
    names = {path.relative_to(ROOT).as_posix() for path in WITH_CODE}
    assert {"README.md", "docs/index.md", "docs/tutorial.md"} <= names
    assert len(code_blocks(ROOT / "docs" / "tutorial.md")) > 10


def marked(path):
    marks = [pytest.mark.frameworks] if path in OF_FRAMEWORKS else []
    # Not in a process with TensorFlow, whose LLVM and PoCL's do not go together.
    marks += [pytest.mark.gpu] if path == ROOT / "docs" / "gpu.md" else []
    return pytest.param(path, id=path.relative_to(ROOT).as_posix(), marks=marks)


@pytest.mark.parametrize("path", [marked(path) for path in WITH_CODE])
def test_code_blocks_run(path, tmp_path, monkeypatch, request):
    if path in OF_FRAMEWORKS:
        request.getfixturevalue(path.stem)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for line, source in code_blocks(path):
        if source.startswith(">>>"):
            assert run_examples(source, names, str(path), line)
        else:
            exec(compile("\n" * (line - 1) + source, str(path), "exec"), names)


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_examples_run(name):
    thing = getattr(cropkit, name)
    ran = run_examples(inspect.getdoc(thing), {}, f"cropkit.{name}")
    assert ran or not inspect.isfunction(thing), f"{name} has no example"


def test_package_docstring_examples_run():
    assert run_examples(cropkit.__doc__, {}, "cropkit")


@pytest.mark.frameworks
@pytest.mark.parametrize("name", [path.stem for path in sorted(OF_FRAMEWORKS)])
def test_docstring_examples_for_frameworks_run(name, request):
    request.getfixturevalue(name)
    module = importlib.import_module(f"cropkit.{name}")
    for thing in (module, module.crop_and_resize):
        assert run_examples(inspect.getdoc(thing), {}, f"cropkit.{name}")


@pytest.mark.frameworks
def test_the_example_moves_its_boxes(torch, tmp_path):
    done = python("", str(ROOT / "docs" / "examples" / "move_boxes.py"),
                  "--steps", "100", "--output", str(tmp_path / "moved.png"))  # fmt: skip
    off = re.findall(r"off by up to (\d+) pixels, then by ([\d.]+)$", done.stdout, re.MULTILINE)
    assert len(off) == 3
    assert all(float(before) >= 40 and float(after) < 1 for before, after in off), done.stdout
    assert (tmp_path / "moved.png").stat().st_size > 50_000


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(path):
    for target in links(path):
        own = OWN.match(target)
        if re.match(r"[a-z]+:", target) and not own:
            continue
        file, _, anchor = target[own.end() if own else 0 :].partition("#")
        there = ((ROOT if own else path.parent) / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {target}: no such file"
        if anchor:
            assert anchor in anchors(there), f"{path.name}: {target}: no such heading"


def test_the_readme_stands_on_an_index_page():
    text = (ROOT / "README.md").read_text()
    assert [target for target in links(ROOT / "README.md") if not OWN.match(target)] == []
    defined = {name.lower() for name in re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE)}
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    used = {name.lower() for name in re.findall(r"(?<!!)\[([^\]\n]+)\](?![:(])", prose)}
    assert used == defined


def test_the_version_is_one():
    assert PROJECT["dynamic"] == ["version"]
    assert version("cropkit") == cropkit.__version__
    assert f"[{cropkit.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_urls_of_files_lead_somewhere():
    own = [OWN.sub("", url) for url in PROJECT["urls"].values() if OWN.match(url)]
    assert own
    assert all((ROOT / file).exists() for file in own)


def test_design_records_are_in_the_index():
    index = ROOT / "docs" / "design" / "index.md"
    assert set(links(index)) == {path.name for path in index.parent.glob("*.md")} - {"index.md"}


def test_every_public_name_is_on_the_api_page():
    page = (ROOT / "docs" / "api" / "index.md").read_text()
    listed = set(re.findall(r"^   (\w+)$", page, re.MULTILINE))
    listed |= set(re.findall(r"^\.\. py:data:: (\w+)$", page, re.MULTILINE))
    assert listed == set(cropkit.__all__)
