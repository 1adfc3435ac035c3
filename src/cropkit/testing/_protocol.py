"""Protocol: a backend's attributes and methods, and what its import loads."""

import itertools
import json
import os
import re
import subprocess
import sys
from typing import Any, Final

import numpy as np
import pytest

from cropkit import Request, Sampling
from cropkit.testing._arrays import DTYPES, METHODS, dtype_of
from cropkit.testing._suite import OPERATORS, Suite

# Seconds after which an import counts as hanging; far more than any import takes.
PATIENCE: Final = 120
FRAMEWORKS: Final = (
    "cuda", "cupy", "cv2", "jax", "jaxlib", "mxnet", "numba", "onnxruntime", "paddle", "pycuda",
    "pyopencl", "tensorflow", "torch", "triton",
)  # fmt: skip
DRIVERS: Final = r"/lib(?:cuda|cudart|nvrtc|OpenCL|amdhip64|ze_loader|pocl)\b[^/]*\.so[^/]*"

# Imports the module that the first argument names, after cropkit and NumPy, and prints what
# this import has loaded.
IMPORT: Final = """
import importlib, json, sys, time
import cropkit
def libraries():
    try:
        with open("/proc/self/maps") as maps:
            return {line.split(None, 5)[5].strip() for line in maps if "/" in line}
    except OSError:
        return set()
modules, files = set(sys.modules), libraries()
begin = time.perf_counter()
importlib.import_module(sys.argv[1])
seconds = time.perf_counter() - begin
print(json.dumps([seconds, sorted(set(sys.modules) - modules), sorted(libraries() - files)]))
"""


class ProtocolTests(Suite):
    """Protocol and lazy import."""

    def test_it_is_registered_and_well_formed(self) -> None:
        """The backend is found, and has the right attributes, methods and signatures."""
        info = self.info
        assert info.backend is not None, f"backend {info} is no backend: {info.reason}"

    def test_it_can_be_used_here(self) -> None:
        info = self.info
        assert info.reason is None, f"backend {info} cannot be used here: {info.reason}"

    def test_something_runs(self) -> None:
        """The backend computes at least one dtype and method."""
        reasons = []
        for dtype, method in itertools.product(DTYPES, METHODS):
            try:
                image = np.ones((1, 4, 4, 1), dtype_of(dtype))
                self.crop(image, [[0, 0, 1, 1]], [0], (2, 2), method)
            except pytest.skip.Exception as refusal:
                reasons.append(f"  {dtype} {method}: {refusal}")
            except ImportError:
                reasons.append(f"  {dtype} {method}: ml_dtypes is not installed")
            else:
                return
        pytest.fail("the backend refuses every call:\n" + "\n".join(reasons))

    def test_importing_it_loads_no_framework_and_no_driver(self, record_property: Any) -> None:
        """Import the backend in a fresh process; the time is reported, not judged."""
        module = self.module or self.module_of_backend()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            child = subprocess.run(
                [sys.executable, "-c", IMPORT, module],
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.fail(f"importing {module} takes longer than {PATIENCE} s")
        assert child.returncode == 0, (
            f"importing {module} in a fresh process failed; if the backend's module has "
            f"another name, set the attribute `module` of the test class:\n{child.stderr}"
        )
        seconds, modules, files = json.loads(child.stdout.splitlines()[-1])
        record_property("note", f"{1000 * seconds:.0f} ms")
        loaded = sorted({name for name in FRAMEWORKS if name in modules})
        assert not loaded, f"importing {module} imports {', '.join(loaded)}"
        drivers = sorted({found for file in files for found in re.findall(DRIVERS, file)})
        assert not drivers, f"importing {module} loads {', '.join(drivers)}"

    def module_of_backend(self) -> str:
        """Return the name of the module that has to be imported to find the backend."""
        return self.info.module or type(self.info.backend).__module__

    def test_refuses_looks_at_the_request_alone(self) -> None:
        """`refuses` returns a sentence or None for every request, and the same when asked again."""
        backend = self.info.backend
        assert backend is not None
        operations = [name for name in OPERATORS if hasattr(backend, name)]
        for name, method, dtype, operation in itertools.product(
            DTYPES, METHODS, ("float32", "float64"), operations
        ):
            try:
                image_dtype = dtype_of(name)
            except ImportError:
                continue
            request = Request(
                operation=operation,  # type: ignore[arg-type]
                sampling=Sampling(method=method),  # type: ignore[arg-type]
                image_shape=(2, 2**33, 7, 3),
                image_dtype=image_dtype,
                num_boxes=2**33,
                crop_size=(2**31, 2**31),
                grads_dtype=None if operation == "crop_and_resize" else np.dtype(np.float32),
                compute_dtype=np.dtype(dtype),
                result_dtype=image_dtype if operation == "grad_image" else np.dtype(dtype),
                device_type=min(backend.device_types),
            )
            answers = [backend.refuses(request) for _ in range(2)]
            what = f"refuses({operation} of {name}, {method} in {dtype})"
            assert answers[0] == answers[1], f"{what} is {answers[0]!r} and then {answers[1]!r}"
            assert answers[0] is None or (isinstance(answers[0], str) and answers[0].strip()), (
                f"{what} is {answers[0]!r}: expected a sentence or None"
            )
