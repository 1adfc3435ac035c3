"""Plugins, good and bad, really installed into a folder; and a child that sees them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cropkit import _plugins

from .children import python

EXAMPLE = Path(__file__).parents[1] / "example_plugin"

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
    "absent": (source("absent", unavailable="no driver", device=2), "no driver"),
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
