"""Each row of the table in docs/frameworks/jax.md: right, or refused with its sentence."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit

from .support.children import python
from .support.frameworks import BOXES, GRADS, IMAGE, INDICES, SHAPE, SIZE

pytestmark = pytest.mark.frameworks

PAGE: Final = Path(__file__).parents[1] / "docs" / "frameworks" / "jax.md"
ROWS: Final = dict(re.findall(r"^\| (`.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE))
FORWARD: Final = "can't apply forward-mode autodiff (jvp) to a custom_vjp function"
AGAIN: Final = "the gradients of crop_and_resize cannot be differentiated again"

STACK: Final = np.stack([BOXES, BOXES * np.float32(0.5), BOXES + np.float32(0.125)])
CROPS: Final = cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE)
STACK_CROPS: Final = np.stack([cropkit.crop_and_resize(IMAGE, b, INDICES, SIZE) for b in STACK])


def by_boxes(boxes: NDArray[Any] = BOXES, grads: NDArray[Any] = GRADS) -> NDArray[Any]:
    return cropkit.crop_and_resize_grad_boxes(grads, IMAGE, boxes, INDICES)


def by_image(grads: NDArray[Any] = GRADS) -> NDArray[Any]:
    return cropkit.crop_and_resize_grad_image(grads, BOXES, INDICES, SHAPE)


class Calls:
    """The functions that are transformed."""

    def __init__(self, jax: Any) -> None:
        self.jax = jax
        self.full = importlib.import_module("cropkit.jax").crop_and_resize

    def crop(self, boxes: Any) -> Any:
        return self.full(IMAGE, boxes, INDICES, SIZE)

    def crop_image(self, image: Any) -> Any:
        return self.full(image, BOXES, INDICES, SIZE)

    def loss(self, boxes: Any) -> Any:
        return (self.crop(boxes) * GRADS).sum()

    def loss_image(self, image: Any) -> Any:
        return (self.crop_image(image) * GRADS).sum()


@pytest.fixture
def calls(jax: Any) -> Calls:
    return Calls(jax)


# ---- right ---------------------------------------------------------------------------------


def jacobian(grad: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """Compute one gradient of a plain function for each number of the crops."""
    units = np.eye(CROPS.size, dtype=np.float32).reshape(-1, *CROPS.shape)
    return np.stack([grad(unit) for unit in units]).reshape(*CROPS.shape, -1)


def run_scan(c: Calls) -> Any:
    return c.jax.lax.scan(lambda carry, boxes: (carry, c.crop(boxes)), 0, STACK)[1]


def run_grad_scan(c: Calls) -> Any:
    def total(stack: Any) -> Any:
        return c.jax.lax.scan(lambda sum_, b: (sum_ + c.loss(b), None), 0.0, stack)[0]

    return c.jax.grad(total)(STACK)


def run_fori(c: Calls) -> Any:
    stack = c.jax.numpy.asarray(STACK)
    return c.jax.lax.fori_loop(1, 3, lambda n, _: c.crop(stack[n]), c.jax.numpy.asarray(CROPS))


def run_while(c: Calls) -> Any:
    stack = c.jax.numpy.asarray(STACK)
    start = (0, c.jax.numpy.zeros(CROPS.shape))
    return c.jax.lax.while_loop(
        lambda carry: carry[0] < 3, lambda carry: (carry[0] + 1, c.crop(stack[carry[0]])), start
    )[1]


def run_vmap_of_cond(c: Calls) -> Any:
    def either(first: Any, boxes: Any) -> Any:
        return c.jax.lax.cond(first, c.crop, lambda b: -c.crop(b), boxes)

    return c.jax.vmap(either)(np.array([True, False, True]), STACK)


def run_custom_vmap(c: Calls) -> Any:
    function = c.jax.custom_batching.custom_vmap(c.crop)
    function.def_vmap(lambda _, batched, boxes: (c.jax.vmap(c.crop)(boxes), True))
    return c.jax.vmap(function)(STACK)


def run_static(c: Calls) -> Any:
    function = c.jax.jit(c.full, static_argnames=("crop_size", "method"))
    return function(IMAGE, BOXES, INDICES, crop_size=SIZE, method="bilinear")


SIGNS: Final = np.array([1, -1, 1], np.float32).reshape(3, 1, 1, 1, 1)
RIGHT: Final[dict[str, tuple[str, Callable[[Calls], Any], Callable[[], Any]]]] = {
    "jit": ("`jit`", lambda c: c.jax.jit(c.crop)(BOXES), lambda: CROPS),
    "ahead of time": (
        "`jit`", lambda c: c.jax.jit(c.crop).lower(BOXES).compile()(BOXES), lambda: CROPS,
    ),
    "disable_jit": ("`jit`", lambda c: without_jit(c), lambda: by_boxes()),
    "static": ("`jit` with static", run_static, lambda: CROPS),
    "grad": ("`grad`", lambda c: c.jax.grad(c.loss)(BOXES), lambda: by_boxes()),
    "grad image": ("`grad`", lambda c: c.jax.grad(c.loss_image)(IMAGE), lambda: by_image()),
    "value_and_grad": (
        "`grad`", lambda c: c.jax.value_and_grad(c.loss)(BOXES)[1], lambda: by_boxes(),
    ),
    "vjp": (
        "`grad`", lambda c: c.jax.vjp(c.crop, BOXES)[1](c.jax.numpy.asarray(GRADS))[0],
        lambda: by_boxes(),
    ),
    "jacrev": (
        "`jacrev`", lambda c: c.jax.jacrev(c.crop)(BOXES).reshape(*CROPS.shape, -1),
        lambda: jacobian(lambda grads: by_boxes(grads=grads)),
    ),
    "jacrev image": (
        "`jacrev`", lambda c: c.jax.jacrev(c.crop_image)(IMAGE).reshape(*CROPS.shape, -1),
        lambda: jacobian(by_image),
    ),
    "vmap": (
        "`vmap`", lambda c: c.jax.vmap(c.crop, 2, -1)(STACK.transpose(1, 2, 0)),
        lambda: np.moveaxis(STACK_CROPS, 0, -1),
    ),
    "vmap of none": (
        "`vmap`", lambda c: c.jax.vmap(c.crop)(STACK[:0]), lambda: STACK_CROPS[:0],
    ),
    "vmap of grad": (
        "`vmap`", lambda c: c.jax.vmap(c.jax.grad(c.loss))(STACK),
        lambda: np.stack([by_boxes(boxes) for boxes in STACK]),
    ),
    "grad of vmap": (
        "`vmap`", lambda c: c.jax.grad(lambda stack: c.jax.vmap(c.loss)(stack).sum())(STACK),
        lambda: np.stack([by_boxes(boxes) for boxes in STACK]),
    ),
    "custom_vmap": ("`custom_batching", run_custom_vmap, lambda: STACK_CROPS),
    "sequential_vmap": (
        "`custom_batching",
        lambda c: c.jax.vmap(c.jax.custom_batching.sequential_vmap(c.crop))(STACK),
        lambda: STACK_CROPS,
    ),
    "scan": ("`lax.scan`", run_scan, lambda: STACK_CROPS),
    "grad of scan": (
        "`lax.scan`", run_grad_scan, lambda: np.stack([by_boxes(boxes) for boxes in STACK]),
    ),
    "map": ("`lax.scan`", lambda c: c.jax.lax.map(c.crop, STACK), lambda: STACK_CROPS),
    "map in batches": (
        "`lax.scan`", lambda c: c.jax.lax.map(c.crop, STACK, batch_size=2), lambda: STACK_CROPS,
    ),
    "fori_loop": ("`lax.fori_loop`", run_fori, lambda: STACK_CROPS[2]),
    "while_loop": ("`lax.fori_loop`", run_while, lambda: STACK_CROPS[2]),
    "cond": (
        "`lax.cond`",
        lambda c: c.jax.grad(lambda b: c.jax.lax.cond(b[0, 0] < 1, c.loss, lambda _: 0.0, b))(
            c.jax.numpy.asarray(BOXES)
        ),
        lambda: by_boxes(),
    ),
    "switch": (
        "`lax.cond`", lambda c: c.jax.lax.switch(1, [lambda b: -c.crop(b), c.crop], BOXES),
        lambda: CROPS,
    ),
    "vmap of cond": ("`lax.cond`", run_vmap_of_cond, lambda: STACK_CROPS * SIGNS),
    "checkpoint": (
        "`checkpoint`", lambda c: c.jax.grad(c.jax.checkpoint(c.loss))(BOXES), lambda: by_boxes(),
    ),
    # What is linear has no second derivative.
    "grad of grad image": (
        "`grad` of `grad` by the image",
        lambda c: c.jax.grad(lambda image: c.jax.grad(c.loss_image)(image).sum())(IMAGE),
        lambda: np.zeros_like(IMAGE),
    ),
}  # fmt: skip


def without_jit(c: Calls) -> Any:
    with c.jax.disable_jit():
        return c.jax.grad(c.loss)(BOXES)


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str, calls: Calls, bits_equal: Any) -> None:
    row, run, expected = RIGHT[name]
    assert any(left.startswith(row) and right.startswith("right") for left, right in ROWS.items())
    bits_equal(np.asarray(run(calls)), expected(), name)


def test_nothing_runs_when_a_shape_is_asked_for(
    calls: Calls, jax: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cropkit, "crop_and_resize", None)
    shape = jax.eval_shape(calls.crop, BOXES)
    assert (shape.shape, shape.dtype) == (CROPS.shape, CROPS.dtype)
    assert "callback" in str(jax.make_jaxpr(calls.crop)(BOXES))


def test_integers_have_float0_gradients(calls: Calls, jax: Any, bits_equal: Any) -> None:
    image = (IMAGE * 50).astype(np.uint8)

    def loss(image: Any, boxes: Any, indices: Any) -> Any:
        return (calls.full(image, boxes, indices, SIZE) * GRADS).sum()

    of_image, of_boxes, of_indices = jax.grad(loss, (0, 1, 2), allow_int=True)(
        image, BOXES, INDICES
    )
    assert of_image.dtype == of_indices.dtype == jax.dtypes.float0
    assert (of_image.shape, of_indices.shape) == (SHAPE, INDICES.shape)
    expected = cropkit.crop_and_resize_grad_boxes(GRADS, image, BOXES, INDICES)
    bits_equal(np.asarray(of_boxes), expected)


def test_check_grads(calls: Calls, jax: Any) -> None:
    from jax.test_util import check_grads

    check_grads(calls.loss_image, (IMAGE,), order=1, modes=["rev"], atol=0.1, rtol=0.1)
    with pytest.raises(AssertionError):  # it would see a wrong gradient
        check_grads(
            lambda image: calls.loss_image(image) + calls.loss_image(jax.lax.stop_gradient(image)),
            (IMAGE,), order=1, modes=["rev"], atol=0.1, rtol=0.1,
        )  # fmt: skip


def test_several_devices() -> None:
    """Arrays spread over devices, under jit, pmap and shard_map, in a process with four."""
    code = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, numpy as np, cropkit
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from cropkit.jax import crop_and_resize
from tests.support.frameworks import BOXES, GRADS, IMAGE, INDICES, SIZE
crops = cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE)
gradient = cropkit.crop_and_resize_grad_boxes(GRADS, IMAGE, BOXES, INDICES)
def crop(boxes, indices):
    return crop_and_resize(IMAGE, boxes, indices, SIZE)
def loss(boxes, indices, grads):
    return (crop(boxes, indices) * grads).sum()
mesh = Mesh(np.array(jax.devices()), ("d",))
assert mesh.size == 4
boxes, indices, grads = (
    jax.device_put(a, NamedSharding(mesh, P("d"))) for a in (BOXES, INDICES, GRADS))
def mapped(function):
    return jax.shard_map(function, mesh=mesh, in_specs=P("d"), out_specs=P("d"))
def one(boxes, indices):
    return crop(boxes[None], indices[None])[0]
for run in (crop, jax.jit(crop), jax.jit(mapped(crop)), mapped(jax.jit(crop)), jax.pmap(one)):
    np.testing.assert_array_equal(run(boxes, indices), crops)
for run in (jax.jit(jax.grad(loss)), jax.jit(mapped(jax.grad(loss)))):
    np.testing.assert_array_equal(run(boxes, indices, grads), gradient)
# The image is on all devices: its gradient is a sum over them.
crop_all = jax.shard_map(
    lambda image, boxes, indices: crop_and_resize(image, boxes, indices, SIZE),
    mesh=mesh, in_specs=(P(), P("d"), P("d")), out_specs=P("d"))
def total(image, boxes):
    return (crop_all(image, boxes, indices) * GRADS).sum()
of_image, of_boxes = jax.jit(jax.grad(total, (0, 1)))(IMAGE, boxes)
np.testing.assert_array_equal(of_boxes, gradient)
np.testing.assert_allclose(
    of_image,
    cropkit.crop_and_resize_grad_image(GRADS, BOXES, INDICES, IMAGE.shape), rtol=1e-4, atol=1e-4)
try:
    jax.jit(jax.shard_map(crop, mesh=mesh, in_specs=P("d"), out_specs=P()))(boxes, indices)
except ValueError as error:
    assert "out_specs which require replication" in str(error)
else:
    raise AssertionError("crops that differ were taken for the same")
try:
    mapped(crop)(boxes, indices)
except NotImplementedError as error:
    print(error)
"""
    refused = "custom_vjp symbolic_zeros support with shard_map is not implemented"
    assert refused in python(code).stdout
    assert refused in ROWS["`shard_map` outside of `jit`"]
    assert ROWS["`pmap`; `shard_map` under `jit`; arrays spread over devices"].startswith("right")


# ---- refused -------------------------------------------------------------------------------

REFUSED: Final[dict[str, tuple[str, type[Exception], str, Callable[[Calls], Any]]]] = {
    "jvp": (
        "`jvp`", TypeError, FORWARD,
        lambda c: c.jax.jvp(c.crop_image, (IMAGE,), (IMAGE,)),
    ),
    "linearize": ("`jvp`", TypeError, FORWARD, lambda c: c.jax.linearize(c.crop, BOXES)[1](BOXES)),
    "jacfwd": ("`jvp`", TypeError, FORWARD, lambda c: c.jax.jacfwd(c.crop)(BOXES)),
    "hessian": ("`jvp`", TypeError, FORWARD, lambda c: c.jax.hessian(c.loss)(BOXES)),
    "grad of grad": (
        "`grad` of `grad`, ", TypeError, AGAIN,
        lambda c: c.jax.grad(lambda b: c.jax.grad(c.loss)(b).sum())(BOXES),
    ),
    "grad of grad, mixed": (
        "`grad` of `grad`, ", TypeError, AGAIN,
        lambda c: c.jax.grad(
            lambda b: c.jax.grad(lambda i: (c.full(i, b, INDICES, SIZE) ** 2).sum())(IMAGE).sum()
        )(BOXES),
    ),
    "grad of grad of squares": (
        "`grad` of `grad`, ", TypeError, AGAIN,
        lambda c: c.jax.grad(
            lambda i: c.jax.grad(lambda i: (c.crop_image(i) ** 2).sum())(i).sum()
        )(IMAGE),
    ),
    "jit of vmap of grad of grad": (
        "`grad` of `grad`, ", TypeError, AGAIN,
        lambda c: c.jax.jit(
            c.jax.vmap(c.jax.grad(lambda b: c.jax.jit(c.jax.grad(c.loss))(b).sum()))
        )(STACK),
    ),
    "jacrev of jacrev": (
        "`grad` of `grad`, ", TypeError, AGAIN,
        lambda c: c.jax.jacrev(c.jax.jacrev(c.loss))(BOXES),
    ),
    "linear_transpose": (
        "`linear_transpose`", NotImplementedError,
        "Transpose rule (for reverse-mode differentiation) for 'custom_vjp_call' not implemented",
        lambda c: c.jax.linear_transpose(c.crop_image, IMAGE)(c.jax.numpy.asarray(GRADS)),
    ),
    "export": (
        "`export`", NotImplementedError, "serialization of host_callbacks is not yet implemented",
        lambda c: importlib.import_module("jax.export").export(c.jax.jit(c.crop))(BOXES),
    ),
    "symbolic": (
        "`export` with symbolic", TypeError, "cropkit.jax needs it in numbers",
        lambda c: c.jax.eval_shape(
            c.crop_image,
            c.jax.ShapeDtypeStruct(
                importlib.import_module("jax.export").symbolic_shape("b, 6, 5, 3"), np.float32
            ),
        ),
    ),
    "traced size": (
        "`jit` of", TypeError, "expected two positive integers, (crop_height, crop_width)",
        lambda c: c.jax.jit(c.full)(IMAGE, BOXES, INDICES, SIZE),
    ),
    "traced value": (
        "`jit` of", TypeError, "expected a real number",
        lambda c: c.jax.grad(
            lambda value: c.full(IMAGE, BOXES, INDICES, SIZE, extrapolation_value=value).sum()
        )(0.0),
    ),
    "integers": (
        "`grad` by integers", TypeError, "grad requires real- or complex-valued inputs",
        lambda c: c.jax.grad(c.loss_image)(IMAGE.astype(np.uint8)),
    ),
    "grad of while": (
        "`grad` of `lax.while_loop`", ValueError,
        "Reverse-mode differentiation does not work for lax.while_loop",
        lambda c: c.jax.grad(
            lambda b: c.jax.lax.while_loop(lambda s: s < 1, lambda s: s + 1 + c.loss(b) ** 2, 0.0)
        )(BOXES),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, calls: Calls) -> None:
    row, error, sentence, run = REFUSED[name]
    assert any(left.startswith(row) and sentence in right for left, right in ROWS.items())
    with pytest.raises(error, match=re.escape(sentence)):
        run(calls)


def test_a_gradient_made_constant_may_be_part_of_what_is_differentiated(
    calls: Calls, jax: Any, bits_equal: Any
) -> None:
    def loss(boxes: Any) -> Any:
        step = jax.grad(calls.loss)(jax.lax.stop_gradient(boxes))
        return (step * boxes).sum()

    bits_equal(np.asarray(jax.grad(loss)(BOXES)), by_boxes())
