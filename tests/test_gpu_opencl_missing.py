"""Backend ``opencl`` where it cannot be used: what is said then. No test here needs a device."""

from typing import Any

import pytest

from .support.children import python

pytestmark = pytest.mark.gpu


def reason_in_a_child(code: str, **environment: Any) -> str:
    code += """
from cropkit_gpu.opencl import backend
print(backend.unavailable())
"""
    return python(code, **environment).stdout.strip()


def test_importing_it_touches_no_driver() -> None:
    code = """
import sys
import cropkit_gpu.opencl, cropkit_gpu.cuda
print([name for name in ("pyopencl", "cuda.core", "cuda.bindings") if name in sys.modules])
"""
    assert python(code).stdout.strip() == "[]"


def test_without_pyopencl() -> None:
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pyopencl" else find(name, *rest)
"""
    expected = "PyOpenCL is not installed: pip install 'cropkit[opencl]'"
    assert reason_in_a_child(code) == expected
    code += """
import cropkit
try:
    cropkit.crop_and_resize([[[[0]]]], [[0, 0, 1, 1]], [0], (1, 1), backend="opencl")
except cropkit.BackendError as error:
    print(error, end=" ")
"""
    assert f"cannot run this call: {expected}" in reason_in_a_child(code)


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        ("raise cl.LogicError('PLATFORM_NOT_FOUND_KHR')", "OpenCL finds no platform: install"),
        ("return []", "OpenCL finds no platform: install the driver of a device, or PoCL"),
        ("return [Platform([])]", "no platform of OpenCL has a device: Toy"),
        ("return [Platform([Device(compiler_available=0)])]", "Toy 1 has no compiler"),
        (
            "return [Platform([Device(max_work_group_size=1)])]",
            "Toy 1 has groups of at most 1 work-items: expected at least 64",
        ),
        (
            "return [Platform([Device(single_fp_config=0)])]",
            "Toy 1 has no float32 that rounds to nearest and has infinities",
        ),
        (
            "return [Platform([Device(single_fp_config=6, extensions='')])]",
            "Toy 1 does not round float32 divisions correctly, and has no float64 to do it with",
        ),
    ],
)
def test_without_a_fit_device(fake: str, reason: str) -> None:
    code = f"""
import pyopencl as cl
class Device:
    name, type, available, compiler_available = "Toy 1", 4, True, True
    max_work_group_size, single_fp_config, extensions = 256, 134, "cl_khr_fp64"
    def __init__(self, **lacks):
        vars(self).update(lacks)
class Platform:
    name = "Toy"
    def __init__(self, devices):
        self.get_devices = lambda: devices
def platforms():
    {fake}
cl.get_platforms = platforms
"""
    assert reason_in_a_child(code).startswith(reason)


def test_a_choice_that_cannot_be_had() -> None:
    reason = reason_in_a_child("", PYOPENCL_CTX="no such device")
    assert reason.startswith("PYOPENCL_CTX='no such device' chooses no device: ")
