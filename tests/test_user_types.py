"""The types that users see: their own files pass mypy and pyright as they are written."""

import doctest
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Final

import pytest

import cropkit
from tests.support.children import python
from tests.support.documents import PUBLIC, ROOT, code_blocks

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

# What each module says of its arguments: a list or an array will do.
NUMPY: Final = """
import array
from fractions import Fraction

import numpy as np
from cropkit import crop_and_resize, crop_and_resize_grad_boxes, crop_and_resize_grad_image

image = np.zeros((1, 4, 4, 1), np.uint8)
boxes = [[0.1, 0.2, 0.5, 0.6]]
crop_and_resize([[[[1.0], [2.0]]]], [[0, 0, 1, 1]], [0], [2, 2])
crop_and_resize(image, ((0.0, 0.0, 1.0, 1.0),), (0,), np.array([2, 2]), "nearest", -1)
crop_and_resize(image, np.zeros((1, 4)), np.zeros(1, np.int32), (np.int64(2), 2), name="crops")
crop_and_resize(image, np.zeros((1, 4), np.float16), None, np.array([2, 2], np.uint8))
crop_and_resize(image, [np.zeros(4)], array.array("i", [0]), (2, 2), dtype="float64")
crop_and_resize(image, boxes, None, (2, 2), extrapolation_value=np.float32(0.5), dtype=np.float32)
crop_and_resize(image, boxes, None, (2, 2), extrapolation_value=Fraction(1, 2))
out = np.empty((1, 2, 2, 1), np.float32)
crops: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = crop_and_resize(
    image, boxes, None, (2, 2), out=out, backend="cpu", num_threads=np.int64(1)
)
crop_and_resize_grad_image(crops, boxes, [0], image.shape, dtype="float64", num_threads=None)
crop_and_resize_grad_image([[[[1.0]]]], boxes, None, np.array([1, 4, 4, 1]), out=None)
crop_and_resize_grad_boxes(crops, image, boxes, [0], dtype=np.dtype("f8"), num_threads=np.int8(1))
"""
# What comes out: arrays of NumPy where such go in, of the dtype that the call shows.
RESULTS: Final = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import DTypeLike, NDArray
from cropkit import crop_and_resize, crop_and_resize_grad_boxes, crop_and_resize_grad_image

image = np.zeros((1, 4, 4, 1), np.uint8)
boxes = [[0.1, 0.2, 0.5, 0.6]]
crops = crop_and_resize(image, boxes, None, (2, 2), "nearest", 1.0, backend="cpu", num_threads=2)
assert_type(crops, NDArray[np.float32])
assert_type(crop_and_resize(image, boxes, None, (2, 2), dtype=None), NDArray[np.float32])
assert_type(crop_and_resize(image, boxes, None, (2, 2), dtype=np.float32), NDArray[np.float32])
assert_type(crop_and_resize(image, boxes, None, (2, 2), dtype=np.float64), NDArray[np.float64])
assert_type(crop_and_resize(image, boxes, None, (2, 2), dtype=np.dtype("f8")), NDArray[np.float64])
assert_type(crop_and_resize(image, boxes, None, (2, 2), dtype="float64"), NDArray[Any])
assert_type(crop_and_resize(image, boxes, None, (2, 2), out=crops), NDArray[Any])

of_image = crop_and_resize_grad_image(crops, boxes, None, image.shape)
assert_type(of_image, NDArray[np.float32])
of_image_16 = crop_and_resize_grad_image(crops, boxes, None, image.shape, dtype=np.float16)
assert_type(of_image_16, NDArray[np.float16])
of_image_named = crop_and_resize_grad_image(crops, boxes, None, image.shape, dtype="bfloat16")
assert_type(of_image_named, NDArray[Any])

of_boxes = crop_and_resize_grad_boxes(crops, image, boxes, None)
assert_type(of_boxes, NDArray[np.float32])
of_boxes_64 = crop_and_resize_grad_boxes(crops, image, boxes, None, dtype=np.float64)
assert_type(of_boxes_64, NDArray[np.float64])
assert_type(crop_and_resize_grad_boxes(crops, image, boxes, None, out=of_boxes), NDArray[Any])


def of_any_dtype(dtype: DTypeLike, out: NDArray[np.float32] | None) -> None:
    crops = crop_and_resize(image, boxes, None, (2, 2), dtype=dtype, out=out)
    assert_type(crops, NDArray[Any])
"""
# What comes out of the package's functions where a library's array goes in is for its user to say.
RESULT_OF_FRAMEWORK: Final = """
from typing import Any, assert_type

import cropkit

crops = cropkit.crop_and_resize(image, boxes, None, (2, 2))
assert_type(cropkit.crop_and_resize(image, boxes, None, (2, 2)), Any)
assert_type(cropkit.crop_and_resize_grad_image(crops, boxes, None, (1, 4, 4, 4)), Any)
assert_type(cropkit.crop_and_resize_grad_boxes(crops, image, boxes, None), Any)
"""
FRAMEWORK: Final = """
import numpy as np
{imports}
from cropkit.{name} import crop_and_resize

image = {image}
boxes = [[0.1, 0.2, 0.5, 0.6]]
crops: {array} = crop_and_resize(image, boxes, [0], (2, 2))
crop_and_resize(image, np.zeros((1, 4), np.float32), np.zeros(1, int), [2, 2], num_threads=None)
crop_and_resize(image, ((0, 0, 1, 1),), (0,), np.array([2, 2]), num_threads=np.int64(1))
crop_and_resize(np.zeros((1, 4, 4, 1), np.float32), boxes, None, (np.int64(2), 2))
crop_and_resize([[[[1.0], [2.0]]]], boxes, None, (2, 2), extrapolation_value=np.float32(1))
crop_and_resize(image, crops[:, 0, 0, :], None, (2, 2), "nearest", -1, backend="cpu")
"""
IN_FRAMEWORKS: Final = {
    "torch": FRAMEWORK.format(
        name="torch", imports="import torch", array="torch.Tensor",
        image="torch.zeros(1, 4, 4, 4)",
    ) + "crop_and_resize(image, boxes, None, image.shape[1:3], dtype=torch.float64)\n",
    "jax": FRAMEWORK.format(
        name="jax", imports="import jax\nimport jax.numpy as jnp", array="jax.Array",
        image="jnp.zeros((1, 4, 4, 4))",
    ) + "crop_and_resize(image, jnp.zeros((1, 4)), None, (2, 2), dtype=jnp.float32)\n",
    "tensorflow": FRAMEWORK.format(
        name="tensorflow", imports="import tensorflow as tf", array="tf.Tensor",
        image="tf.zeros((1, 4, 4, 4))",
    ) + "crop_and_resize(image, boxes, None, tf.constant([2, 2]), dtype=np.float32)\n"
    "crop_and_resize(image, boxes, None, [tf.shape(image)[1], 2])\n",
}  # fmt: skip

# One line each that is no use of the function: a checker that sees nothing would pass all.
WRONG: Final = {
    "boxes": "crop_and_resize(image, None, [0], (2, 2))",
    "crop_size": "crop_and_resize(image, [[0, 0, 1, 1]], [0], 2)",
    "sizes": "crop_and_resize(image, [[0, 0, 1, 1]], [0], (2.5, 2.5))",
    "method": "crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2), method='cubic')",
    "method_grad_image": "crop_and_resize_grad_image(image, [[0, 0, 1, 1]], None, image.shape, '')",
    "method_grad_boxes": "crop_and_resize_grad_boxes(image, image, [[0, 0, 1, 1]], [0], method='')",
    "keyword": "crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2), threads=1)",
    "value": "crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2), extrapolation_value='0')",
    "num_threads": "crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2), num_threads=1.5)",
}
WRONG_IN_FRAMEWORKS: Final = "crop_and_resize(image, boxes, [0], (2, 2), 'cubic')\n"


def docstring_examples() -> dict[str, str]:
    """Return the examples of every public docstring as a program."""
    described = {"cropkit": cropkit} | {name: getattr(cropkit, name) for name in PUBLIC}
    for name in IN_FRAMEWORKS:
        module = importlib.import_module(f"cropkit.{name}")
        described |= {f"{name}_module": module, f"{name}_function": module.crop_and_resize}
    parser = doctest.DocTestParser()
    found = {
        f"docstring_{name}": "".join(e.source for e in parser.get_examples(inspect.getdoc(thing)))
        for name, thing in described.items()
    }
    return {name: source for name, source in found.items() if source}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a user's folder of programs: right ones, and ``wrong_*.py``."""
    folder = tmp_path_factory.mktemp("user")
    programs = docstring_examples() | {"lists_and_arrays": NUMPY, "results": RESULTS}
    for name, source in IN_FRAMEWORKS.items():
        programs[f"lists_and_arrays_{name}"] = source + RESULT_OF_FRAMEWORK
        programs[f"wrong_method_{name}"] = source + WRONG_IN_FRAMEWORKS
    programs["readme"] = "".join(source for _, source in code_blocks(ROOT / "README.md"))
    for name, line in WRONG.items():
        source = "import numpy as np\nfrom cropkit import *\n"
        source += f"image = np.zeros((1, 4, 4, 1))\n{line}\n"
        programs[f"wrong_{name}"] = source
    for name, source in programs.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def test_the_examples_were_found(files):
    names = {path.stem for path in files.glob("docstring_*.py")}
    functions = {name for name in PUBLIC if inspect.isfunction(getattr(cropkit, name))}
    assert names >= {f"docstring_{name}" for name in functions}
    assert {f"docstring_{name}_function" for name in IN_FRAMEWORKS} <= names


def test_mypy_strict(files):
    # Not ours to mend: TensorFlow has no types, and PyTorch's `backward` has none either.
    (files / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nuntyped_calls_exclude = torch\n"
        "[mypy-tensorflow.*]\nignore_missing_imports = True\n"
    )
    wanted = {path.name for path in files.glob("wrong_*.py")}
    done = python("", "-m", "mypy", "--config-file", str(files / "mypy.ini"),
                  "--cache-dir", str(files / "cache"), "--output", "json",
                  str(files), status=1, patience=500)  # fmt: skip
    errors = [json.loads(line) for line in done.stdout.splitlines()]
    refused = {Path(e["file"]).name for e in errors if e["severity"] == "error"}
    assert refused == wanted, done.stdout


def test_pyright(files):
    (files / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    wanted = {path.name for path in files.glob("wrong_*.py")}
    done = python("", "-m", "pyright", "--pythonpath", sys.executable, "--outputjson",
                  "--project", str(files), status=1, patience=500,
                  PYRIGHT_PYTHON_IGNORE_WARNINGS=1)  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [each for each in found if each["severity"] == "error"]
    assert {Path(e["file"]).name for e in errors} == wanted, json.dumps(errors, indent=1)
