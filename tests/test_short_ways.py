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
        monkeypatch.setattr(module, "_plain_keys", frozenset)
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


# ---- where a short way would be wrong ------------------------------------------------------


def crop_of(torch: Any, boxes: Any) -> Any:
    crop = importlib.import_module("cropkit.torch").crop_and_resize
    return crop(torch.tensor(IMAGE), boxes, torch.tensor(INDICES), SIZE)


def test_pytorch_refuses_a_second_derivative_under_a_transform(torch: Any) -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    gradient = torch.func.grad(lambda b: (crop_of(torch, b) * scale).sum())(torch.tensor(BOXES))
    assert gradient.requires_grad
    with pytest.raises(NotImplementedError, match="second derivatives"):
        (gradient.sum() + scale**2).backward()


def test_a_gradient_of_pytorchs_transform_is_a_value(torch: Any, bits_equal: Any) -> None:
    crops, pull = torch.func.vjp(lambda b: crop_of(torch, b), torch.tensor(BOXES))
    (of_boxes,) = pull(torch.tensor(GRADS))
    bits_equal(crops.numpy(), CROPS)
    bits_equal(of_boxes.numpy(), OF_BOXES)


@pytest.mark.parametrize("pre_dispatch", [True, False])
def test_what_pytorch_traces_depends_on_its_input(
    pre_dispatch: bool, torch: Any, bits_equal: Any
) -> None:
    make_fx = torch.fx.experimental.proxy_tensor.make_fx
    boxes = torch.tensor(BOXES)
    traced = make_fx(lambda b: crop_of(torch, b), pre_dispatch=pre_dispatch)(boxes)
    bits_equal(traced(boxes / 2).numpy(), crop_of(torch, boxes / 2).numpy())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's, of torch.jit
def test_a_trace_of_the_plain_function_is_refused(torch: Any) -> None:
    given = torch.tensor(IMAGE), torch.tensor(BOXES), torch.tensor(INDICES)
    with pytest.raises(TypeError, match=r"is for cropkit\.torch\.crop_and_resize"):
        torch.jit.trace(lambda *tensors: cropkit.crop_and_resize(*tensors, SIZE), given)


def test_the_module_may_be_imported_under_another_device(torch: Any) -> None:
    python(
        """
import torch
with torch.device("meta"):
    from cropkit.torch import crop_and_resize
    crops = crop_and_resize(torch.empty(1, 4, 4, 1), torch.empty(2, 4),
                            torch.empty(2, dtype=torch.int64), (2, 2))
assert crops.is_meta and crops.shape == (2, 2, 2, 1)
assert crop_and_resize(torch.ones(1, 4, 4, 1), torch.zeros(1, 4), None, (2, 2)).sum() == 4
"""
    )


def test_pytorch_memory_that_is_not_there(torch: Any) -> None:
    crop = importlib.import_module("cropkit.torch").crop_and_resize
    boxes, indices = torch.tensor(BOXES), torch.tensor(INDICES)
    with pytest.raises(RuntimeError, match="boxes is a meta tensor"):
        crop(torch.tensor(IMAGE), boxes.to("meta"), indices, SIZE)
    image = torch.tensor(IMAGE)
    image.untyped_storage().resize_(0)
    for function in (crop, cropkit.crop_and_resize):
        with pytest.raises(ValueError, match="memory has been freed"):
            function(image, boxes, indices, SIZE)


def test_jax_tells_zeros_apart(jax: Any) -> None:
    crop = importlib.import_module("cropkit.jax").crop_and_resize
    outside = np.array([[2, 2, 3, 3]], np.float32)
    for value in (0.0, -0.0, 0.0):
        crops = jax.jit(lambda z, value=value: crop(z, outside, None, (1, 1), "bilinear", value))
        assert np.signbit(crops(np.zeros((1, 2, 2, 1), np.float32))).all() == np.signbit(value)


def test_jax_looks_for_nan_where_it_is_told_to(jax: Any) -> None:
    crop = importlib.import_module("cropkit.jax").crop_and_resize
    image = np.full_like(IMAGE, np.nan)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        crop(image, BOXES, INDICES, SIZE).block_until_ready()
    assert np.isnan(crop(image, BOXES, INDICES, SIZE)).any()


def test_what_jax_computes_at_once_is_on_no_device_for_good(jax: Any) -> None:
    crops = importlib.import_module("cropkit.jax").crop_and_resize(IMAGE, BOXES, INDICES, SIZE)
    assert not crops.committed


@pytest.mark.parametrize("indices", ["list", "tensor"])
@pytest.mark.parametrize("graph", ["while", "cond", "map", "inner"])
def test_tensorflows_loops_and_conditions(
    graph: str, indices: str, tensorflow: Any, bits_equal: Any
) -> None:
    tf = tensorflow
    crop = importlib.import_module("cropkit.tensorflow").crop_and_resize
    image = tf.constant(IMAGE)
    which = INDICES.tolist() if indices == "list" else tf.constant(INDICES)

    def crops(boxes: Any) -> Any:
        return crop(image, boxes, which, SIZE)

    @tf.function
    def function(boxes: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(boxes)
            if graph == "while":
                start = 0, tf.zeros(CROPS.shape)
                made = tf.while_loop(
                    lambda k, y: k < 1, lambda k, y: (k + 1, y + crops(boxes)), start
                )[1]
            elif graph == "cond":
                made = tf.cond(boxes[0, 0] < 9, lambda: crops(boxes), lambda: crops(boxes * 0.5))
            elif graph == "map":
                made = tf.map_fn(lambda _: crops(boxes), tf.zeros(1))[0]
            else:
                inner = tf.function(
                    lambda image, boxes, which: tf.cond(
                        boxes[0, 0] < 9,
                        lambda: crop(image, boxes, which, SIZE),
                        lambda: crop(image, boxes * 0.5, which, SIZE),
                    )
                )
                made = inner(image, boxes, tf.constant(INDICES))
            loss = tf.reduce_sum(made * GRADS)
        return made, tape.gradient(loss, boxes)

    made, gradient = function(tf.constant(BOXES))
    bits_equal(made.numpy(), CROPS)
    bits_equal(gradient.numpy(), OF_BOXES)


@pytest.mark.parametrize("watched", [True, False])
def test_tensorflows_variables(watched: bool, tensorflow: Any, bits_equal: Any) -> None:
    tf = tensorflow
    crop = importlib.import_module("cropkit.tensorflow").crop_and_resize
    boxes = tf.constant(BOXES)
    for indices, size in (
        (tf.Variable(INDICES), SIZE),
        (INDICES, tf.Variable(SIZE)),
        (INDICES, tuple(tf.Variable(n) for n in SIZE)),
        (INDICES, [tf.constant(n) for n in SIZE]),
    ):
        with tf.GradientTape() as tape:
            if watched:
                tape.watch(boxes)
            crops = crop(IMAGE, boxes, indices, size)
        bits_equal(crops.numpy(), CROPS)
        if watched:
            bits_equal(tape.gradient(crops, boxes, tf.constant(GRADS)).numpy(), OF_BOXES)


def test_tensorflows_strings_are_no_image(tensorflow: Any) -> None:
    python(
        """
import pytest, tensorflow as tf, cropkit, cropkit.tensorflow
text = tf.constant([[[["a"]]]])
for function in (cropkit.crop_and_resize, cropkit.tensorflow.crop_and_resize):
    with pytest.raises(TypeError, match="image: expected an array: a tensor of dtype string"):
        function(text, tf.zeros((1, 4)), [0], (1, 1))
    with pytest.raises(TypeError, match="boxes: expected an array: a tensor of dtype string"):
        function(tf.zeros((1, 1, 1, 1)), text, [0], (1, 1))
"""
    )
