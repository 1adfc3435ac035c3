"""The project's documents and the programs in them."""

import re
from pathlib import Path
from typing import Final

import cropkit

ROOT: Final = Path(__file__).parents[2]
PUBLIC: Final = [name for name in cropkit.__all__ if name != "__version__"]
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(path: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of a document, each with the number of its first line."""
    text = path.read_text()
    return [(text[: m.start()].count("\n") + 2, m[1]) for m in BLOCK.finditer(text)]
