"""The short ways of the modules for frameworks: taken where they may be, and never needed.

Each rests on something private of its framework. Where that is gone, the long way gives the same.
"""

import importlib
from typing import Any

import numpy as np
import pytest

import cropkit

from .support.children import python
from .support.frameworks import BOXES, GRADS, IMAGE, INDICES, SIZE

pytestmark = pytest.mark.frameworks

CROPS = cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE)
OF_IMAGE = cropkit.crop_and_resize_grad_image(GRADS, BOXES, INDICES, IMAGE.shape)
OF_BOXES = cropkit.crop_and_resize_grad_boxes(GRADS, IMAGE, BOXES, INDICES)


# ---- PyTorch -------------------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False])
def test_pytorch(
    private: bool, torch: Any, monkeypatch: pytest.MonkeyPatch, bits_equal: Any
) -> None:
    module = importlib.import_module("cropkit.torch")
    if not private:
        monkeypatch.setattr(module, "_PLAIN_KEYS", set())
    image, boxes = (torch.tensor(a, requires_grad=True) for a in (IMAGE, BOXES))
    crops = module.crop_and_resize(image, boxes, torch.tensor(INDICES), SIZE)
    crops.backward(torch.tensor(GRADS))
    bits_equal(crops.detach().numpy(), CROPS)
    bits_equal(image.grad.numpy(), OF_IMAGE)
    bits_equal(boxes.grad.numpy(), OF_BOXES)
    with torch.no_grad():
        crops = module.crop_and_resize(image, boxes, torch.tensor(INDICES), SIZE)
    bits_equal(crops.numpy(), CROPS)


def test_pytorchs_dispatcher_is_passed_by_and_its_profiler_is_not(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("cropkit.torch")
    given = torch.tensor(IMAGE), torch.tensor(BOXES), torch.tensor(INDICES), SIZE
    with torch.profiler.profile() as profile:
        module.crop_and_resize(*given)
    assert "cropkit::crop_and_resize" in [event.key for event in profile.key_averages()]

    def refuse(*_: Any) -> Any:
        raise AssertionError("the dispatcher was called")

    monkeypatch.setattr(module, "_crop_and_resize", refuse)
    monkeypatch.setitem(module._KERNELS, refuse, cropkit.crop_and_resize)
    monkeypatch.setattr(module, "_KERNELS", {refuse: lambda *_: "the kernel"})
    assert module.crop_and_resize(*given) == "the kernel"


def test_pytorchs_threads(torch: Any) -> None:
    python(
        """
import torch
from cropkit import _threads
from cropkit.torch import _at_most

many = lambda: 10**9
_threads.default_team_size = lambda: 8
torch.set_num_threads(3)
import cropkit.torch
cropkit.torch._CPUS = 8
assert _at_most(None, many) == 3
assert _at_most(5, many) == 5
assert _at_most(None, lambda: 1000) is None
torch.set_num_threads(8)
assert _at_most(None, many) is None
"""
    )


def test_a_worker_of_a_dataloader_has_one_thread(torch: Any) -> None:
    done = python(
        """
import torch
from cropkit import _threads

class Teams(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        _threads._openmp = lambda: type("", (), {"openmp_max_threads": staticmethod(lambda: 8)})
        return _threads.default_team_size()

print(*(int(size) for size in torch.utils.data.DataLoader(Teams(), num_workers=2)))
"""
    )
    assert done.stdout.split() == ["1"] * 4


# ---- JAX -----------------------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False])
def test_jax(private: bool, jax: Any, monkeypatch: pytest.MonkeyPatch, bits_equal: Any) -> None:
    module = importlib.import_module("cropkit.jax")
    calls: list[Any] = []
    callback = module._callback
    monkeypatch.setattr(module, "_callback", lambda *how: calls.append(how) or callback(*how))
    if not private:
        monkeypatch.setattr(module, "trace_state_clean", lambda: False)
    bits_equal(np.asarray(module.crop_and_resize(IMAGE, BOXES, INDICES, SIZE)), CROPS)
    assert len(calls) == (not private)


def test_jax_compiles_a_callback_once(
    jax: Any, caplog: pytest.LogCaptureFixture, bits_equal: Any
) -> None:
    module = importlib.import_module("cropkit.jax")

    def loss(image: Any) -> Any:
        return (module.crop_and_resize(image, BOXES, INDICES, SIZE) * GRADS).sum()

    def compiled() -> int:
        caplog.clear()
        with jax.log_compiles():
            bits_equal(np.asarray(jax.grad(loss)(image)), OF_IMAGE)
        return sum("Compiling" in record.message for record in caplog.records)

    image = jax.numpy.asarray(IMAGE)
    jax.clear_caches()
    module._callback.cache_clear()
    assert compiled() > 0
    assert compiled() == 0


# ---- TensorFlow ----------------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False])
def test_tensorflow(
    private: bool, tensorflow: Any, monkeypatch: pytest.MonkeyPatch, bits_equal: Any
) -> None:
    tf = tensorflow
    module = importlib.import_module("cropkit.tensorflow")
    offered: list[int] = []
    custom_gradient = tf.custom_gradient

    def counting(function: Any) -> Any:
        offered.append(1)
        return custom_gradient(function)

    monkeypatch.setattr(tf, "custom_gradient", counting)
    if not private:
        monkeypatch.setattr(module, "_gradient_types", lambda _: 1)
    image, boxes = tf.constant(IMAGE), tf.constant(BOXES)
    bits_equal(module.crop_and_resize(image, boxes, INDICES, SIZE).numpy(), CROPS)
    assert len(offered) == (not private)
    with tf.GradientTape() as tape:
        tape.watch(image)
        crops = module.crop_and_resize(image, boxes, INDICES, SIZE)
    bits_equal(tape.gradient(crops, image, tf.constant(GRADS)).numpy(), OF_IMAGE)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([image, boxes])
        crops = module.crop_and_resize(image, boxes, INDICES, SIZE)
    bits_equal(tape.gradient(crops, boxes, tf.constant(GRADS)).numpy(), OF_BOXES)


def test_tensorflow_computes_no_gradient_that_nobody_wants(
    tensorflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = tensorflow
    module = importlib.import_module("cropkit.tensorflow")
    monkeypatch.delattr(module, "_grad_boxes")
    image = tf.constant(IMAGE)
    with tf.GradientTape() as tape:
        tape.watch(image)
        crops = module.crop_and_resize(image, BOXES, INDICES, SIZE)
    assert tape.gradient(crops, image).shape == IMAGE.shape


def test_tensorflows_threads(tensorflow: Any) -> None:
    python(
        """
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(3)
tf.zeros(1)
from cropkit import _threads
from cropkit.tensorflow import _at_most
_threads.default_team_size = lambda: 8
assert _at_most({"num_threads": None}, lambda: 10**9) == {"num_threads": 3}
assert _at_most({"num_threads": 5}, lambda: 10**9) == {"num_threads": 5}
assert _at_most({"num_threads": None}, lambda: 10) == {"num_threads": None}
"""
    )
