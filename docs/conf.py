"""Configuration of Sphinx: ``make docs``."""

import sys
from pathlib import Path
from typing import Any

from sphinx.ext.autodoc.mock import _MockObject

import cropkit

sys.path.insert(0, str(Path(__file__).parent.parent))  # for what is not installed
from asv_bench import curves, records

project = "cropkit"
author = "The cropkit developers"
copyright = "2026, The cropkit developers"
release = cropkit.__version__
version = ".".join(release.split(".")[:2])  # bug fixes change no page

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "autolink"

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
# The modules for the frameworks are imported for the docstrings alone, and annotate with unions.
autodoc_mock_imports = ["torch", "jax", "tensorflow"]
_MockObject.__or__ = _MockObject.__ror__ = lambda self, other: self
autodoc_typehints = "none"  # the docstrings say more than the signature's types
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
# Functions only: the fields of a tuple or a dataclass are its attributes.
numpydoc_validation_exclude = {r"\.(Gradient)?Backend", r"\.Request", r"\.Sampling"}
numpydoc_validation_checks = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "RT03", "SS05"}

html_theme = "pydata_sphinx_theme"
html_title = f"cropkit {version}"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": f"cropkit {version}"},
    "github_url": "https://github.com/cropkit/cropkit",
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_nav_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "tutorial": [], "exactness": [], "backends": [],
                 "writing_a_backend": [], "changelog": [],
                 "contributing": [], "record": []}  # fmt: skip


def skip_tuple_fields(
    app: Any, what: str, name: str, member: object, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of named tuples: the docstring's Attributes section has them."""
    return True if (member.__doc__ or "").startswith("Alias for field number") else None


def skip_empty_signature(
    app: Any, what: str, name: str, obj: object, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Leave out the signature of a protocol, which nobody calls."""
    return ("", returns) if signature == "(*args, **kwargs)" else None


def draw_record(app: Any) -> None:
    """Draw what record.md includes."""
    drawn = Path(app.srcdir, "_build", "record.html")
    drawn.parent.mkdir(exist_ok=True)
    drawn.write_text(curves.page(records.read_all()))


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("builder-inited", draw_record)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("autodoc-process-signature", skip_empty_signature)
