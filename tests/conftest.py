"""Fixtures of all tests.

Environment
-----------
HYPOTHESIS_PROFILE
    ``quick`` (default), or ``full`` with many more examples; ``ci`` is ``full``.
"""

import importlib
import os
import warnings
from typing import Any

import pytest
from hypothesis import settings

from cropkit import Backend

from .support.backends import BACKENDS, CPU_BACKENDS
from .support.bits import assert_bits_equal
from .support.plugins import plugins as plugins

settings.register_profile("quick", deadline=None, max_examples=60, print_blob=True)
settings.register_profile("full", deadline=None, max_examples=2000, print_blob=True)
settings.register_profile("ci", settings.get_profile("full"))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session", params=BACKENDS.values(), ids=BACKENDS.keys())
def each_backend(request: pytest.FixtureRequest) -> Backend:
    """Return the reference, and the kernels of each instruction set of this build and CPU."""
    backend: Backend = request.param
    return backend


@pytest.fixture(scope="session", params=CPU_BACKENDS.values(), ids=CPU_BACKENDS.keys())
def each_cpu_backend(request: pytest.FixtureRequest) -> Backend:
    """Return the kernels of each instruction set of this build and CPU."""
    backend: Backend = request.param
    return backend


def framework(name: str, requirement: str) -> Any:
    """Import a framework, with the warnings of its own code; its absence is no skip."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            pytest.fail(f"{name} is missing: pip install {requirement}")


@pytest.fixture(scope="session")
def torch() -> Any:
    """Return PyTorch."""
    return framework("torch", "torch==2.13.0")


@pytest.fixture(scope="session")
def jax() -> Any:
    """Return JAX."""
    return framework("jax", "jax")


@pytest.fixture(scope="session")
def tensorflow() -> Any:
    """Return TensorFlow, deterministic: else threads add to one pixel without order."""
    tf = framework("tensorflow", "tensorflow-cpu==2.21.0")
    assert tf.__version__.startswith("2.21."), f"TensorFlow is {tf.__version__}: expected 2.21"
    tf.config.experimental.enable_op_determinism()
    return tf


@pytest.fixture(scope="session")
def bits_equal() -> Any:
    """Return `assert_bits_equal`."""
    return assert_bits_equal
