"""What PyTorch's transformations make of `cropkit.torch`: the right values, or a refusal."""

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cropkit

from .support.cases import dtype_of
from .support.frameworks import BOXES, IMAGE, INDICES, SIZE

pytestmark = [
    pytest.mark.frameworks,
    # PyTorch's own, as it begins with forward mode.
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
]

FORWARD = (
    "^forward-mode derivatives of crop_and_resize are not offered: use reverse mode, such as "
    r"backward\(\), torch.autograd.grad, torch.func.vjp or torch.func.jacrev$"
)
SECOND = "^second derivatives of crop_and_resize are not offered: its gradients cannot be "


@pytest.fixture(scope="module")
def crop(torch: Any) -> Any:
    """Return `cropkit.torch.crop_and_resize`."""
    return importlib.import_module("cropkit.torch").crop_and_resize


class Problem:
    """Crops of one image batch and boxes, with the derivatives that backward() gives."""

    def __init__(self, torch: Any, crop: Any) -> None:
        self.torch, self.crop = torch, crop
        self.image = torch.tensor(IMAGE, dtype=torch.float64)
        # Off the pixels, where the slope changes.
        self.boxes = torch.tensor(BOXES, dtype=torch.float64) * 0.83 + 0.017
        self.indices = torch.tensor(INDICES)

    def crops(self, image: Any, boxes: Any) -> Any:
        return self.crop(image, boxes, self.indices, SIZE)

    def of_boxes(self, boxes: Any) -> Any:
        return self.crops(self.image, boxes)

    def loss(self, image: Any, boxes: Any) -> Any:
        return self.crops(image, boxes).square().sum()

    def loss_of_boxes(self, boxes: Any) -> Any:
        return self.loss(self.image, boxes)

    def gradients(self) -> tuple[Any, Any]:
        """Return the loss's gradients by the plain functions."""
        grads = 2 * self.crops(self.image, self.boxes)
        return (
            cropkit.crop_and_resize_grad_image(
                grads, self.boxes, self.indices, self.image.shape, dtype=self.torch.float64
            ),
            cropkit.crop_and_resize_grad_boxes(
                grads, self.image, self.boxes, self.indices, dtype=self.torch.float64
            ),
        )

    def jacobian(self) -> Any:
        """Return the derivatives of the crops in the boxes, by a loop of the plain function."""
        rows = []
        shape = (len(BOXES), *SIZE, IMAGE.shape[3])
        for n in range(math.prod(shape)):
            grads = np.zeros(shape)
            grads.flat[n] = 1
            rows.append(
                cropkit.crop_and_resize_grad_boxes(
                    grads, self.image.numpy(), self.boxes.numpy(), INDICES, dtype="float64"
                )
            )
        return self.torch.tensor(np.array(rows)).reshape(*shape, *BOXES.shape)

    def leaves(self) -> tuple[Any, Any]:
        return self.image.clone().requires_grad_(), self.boxes.clone().requires_grad_()


@pytest.fixture(scope="module")
def problem(torch: Any, crop: Any) -> Problem:
    return Problem(torch, crop)


# ---- right ---------------------------------------------------------------------------------


def _func_grad(p: Problem) -> Any:
    return p.torch.func.grad(p.loss, (0, 1))(p.image, p.boxes)


def _func_vjp(p: Problem) -> Any:
    crops, vjp = p.torch.func.vjp(p.crops, p.image, p.boxes)
    return vjp(2 * crops)


def _compiled_grad(p: Problem) -> Any:
    p.torch.compiler.reset()
    grad = p.torch.func.grad(p.loss, (0, 1))
    return p.torch.compile(grad, backend="aot_eager", fullgraph=True)(p.image, p.boxes)


def _make_fx_grad(p: Problem) -> Any:
    make_fx = importlib.import_module("torch.fx.experimental.proxy_tensor").make_fx
    grad = p.torch.func.grad(p.loss, (0, 1))
    return make_fx(lambda image, boxes: grad(image, boxes))(p.image * 0, p.boxes * 0)(
        p.image, p.boxes
    )


def _checkpoint(use_reentrant: bool) -> Callable[[Problem], Any]:
    def gradients(p: Problem) -> Any:
        checkpoint = importlib.import_module("torch.utils.checkpoint").checkpoint
        image, boxes = p.leaves()
        checkpoint(p.loss, image, boxes, use_reentrant=use_reentrant).backward()
        return image.grad, boxes.grad

    return gradients


@pytest.mark.parametrize(
    "transformed",
    [
        pytest.param(_func_grad, id="func.grad"),
        pytest.param(_func_vjp, id="func.vjp"),
        pytest.param(_compiled_grad, id="compile"),
        pytest.param(_make_fx_grad, id="make_fx"),
        pytest.param(_checkpoint(True), id="checkpoint-reentrant"),
        pytest.param(_checkpoint(False), id="checkpoint"),
    ],
)
def test_gradients(transformed: Callable[[Problem], Any], problem: Problem) -> None:
    for ours, expected in zip(transformed(problem), problem.gradients(), strict=True):
        problem.torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def _batched(p: Problem) -> Any:
    _, boxes = p.leaves()
    crops = p.of_boxes(boxes)
    every = p.torch.eye(crops.numel(), dtype=crops.dtype).reshape(-1, *crops.shape)
    (rows,) = p.torch.autograd.grad(crops, boxes, every, is_grads_batched=True)
    return rows.reshape(*crops.shape, *boxes.shape)


# PyTorch loops over what it maps, and says so.
@pytest.mark.filterwarnings("ignore:.*batching rule for cropkit:UserWarning")
@pytest.mark.parametrize(
    "transformed",
    [
        pytest.param(lambda p: p.torch.func.jacrev(p.of_boxes)(p.boxes), id="func.jacrev"),
        pytest.param(
            lambda p: p.torch.autograd.functional.jacobian(p.of_boxes, p.boxes), id="functional"
        ),
        pytest.param(
            lambda p: p.torch.autograd.functional.jacobian(p.of_boxes, p.boxes, vectorize=True),
            id="functional-vectorize",
        ),
        pytest.param(_batched, id="is_grads_batched"),
    ],
)
def test_jacobians(transformed: Callable[[Problem], Any], problem: Problem) -> None:
    problem.torch.testing.assert_close(transformed(problem), problem.jacobian(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*batching rule for cropkit:UserWarning")
def test_vmap(problem: Problem) -> None:
    torch = problem.torch
    images = torch.stack([problem.image, problem.image.flip(1)])
    boxes = torch.stack([problem.boxes, problem.boxes / 2])
    pairs = list(zip(images, boxes, strict=True))
    crops = torch.func.vmap(problem.crops)(images, boxes)
    assert torch.equal(crops, torch.stack([problem.crops(*pair) for pair in pairs]))
    grad = torch.func.grad(problem.loss, 1)
    grads = torch.func.vmap(grad)(images, boxes)
    assert torch.equal(grads, torch.stack([grad(*pair) for pair in pairs]))


def _module(p: Problem) -> Any:
    class Crops(p.torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, image: Any, boxes: Any) -> Any:
            return p.crop(image, boxes, p.indices, SIZE) * 2

    return Crops()


def _jit_trace(p: Problem) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return p.torch.jit.trace(_module(p), (p.image * 0, p.boxes * 0))


def _make_fx(p: Problem) -> Any:
    make_fx = importlib.import_module("torch.fx.experimental.proxy_tensor").make_fx
    return make_fx(_module(p))(p.image * 0, p.boxes * 0)


@pytest.mark.parametrize(
    "traced",
    [
        pytest.param(lambda p: p.torch.fx.symbolic_trace(_module(p)), id="fx"),
        pytest.param(
            lambda p: p.torch.export.export(_module(p), (p.image * 0, p.boxes * 0)).module(),
            id="export",
        ),
        pytest.param(_jit_trace, id="jit.trace"),
        pytest.param(_make_fx, id="make_fx"),
        pytest.param(lambda p: p.torch.func.functionalize(_module(p)), id="functionalize"),
        pytest.param(lambda p: p.torch.inference_mode()(_module(p)), id="inference_mode"),
    ],
)
# Of torch.fx itself, where a graph holds a constant.
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr:UserWarning")
def test_crops_of_what_was_traced(traced: Callable[[Problem], Any], problem: Problem) -> None:
    crops = traced(problem)(problem.image, problem.boxes)
    expected = cropkit.crop_and_resize(
        problem.image, problem.boxes, problem.indices, SIZE, dtype=problem.torch.float64
    )
    assert problem.torch.equal(crops, expected * 2)


def test_fx_keeps_one_call_with_its_arguments(problem: Problem) -> None:
    def crops(image: Any, boxes: Any) -> Any:
        return problem.crop(
            image, boxes, None, (image.shape[1], 2), "nearest", -1.5, dtype=problem.torch.float64
        )

    traced = problem.torch.fx.symbolic_trace(crops)
    assert [node.target for node in traced.graph.nodes].count(problem.crop) == 1
    given = problem.image[:1].float(), problem.boxes
    assert problem.torch.equal(traced(*given), crops(*given))


def test_subclasses_of_tensors_come_out(problem: Problem) -> None:
    class Named(problem.torch.Tensor):  # type: ignore[misc, name-defined]
        pass

    crops = problem.crops(problem.image.as_subclass(Named), problem.boxes)
    assert type(crops) is Named
    plain = problem.crops(problem.image, problem.boxes)
    assert problem.torch.equal(crops.as_subclass(problem.torch.Tensor), plain)


# ---- refused -------------------------------------------------------------------------------


def _jvp(p: Problem, function: Any) -> Any:
    return p.torch.func.jvp(function, (p.boxes,), (p.torch.ones_like(p.boxes),))


def _dual(p: Problem, boxes: Any) -> Any:
    forward_ad = p.torch.autograd.forward_ad
    with forward_ad.dual_level():
        return p.of_boxes(forward_ad.make_dual(boxes, p.torch.ones_like(boxes)))


def _dual_grads(p: Problem) -> Any:
    """Forward over reverse, with tangents in the gradients of the crops alone."""
    forward_ad = p.torch.autograd.forward_ad
    _, boxes = p.leaves()
    with forward_ad.dual_level():
        crops = p.of_boxes(boxes)
        grads = forward_ad.make_dual(p.torch.ones_like(crops), p.torch.ones_like(crops))
        return p.torch.autograd.grad(crops, boxes, grads)


def _functional(name: str, *more: Any, **options: Any) -> Callable[[Problem], Any]:
    def call(p: Problem) -> Any:
        function = p.of_boxes if name == "jacobian" else p.loss_of_boxes
        return getattr(p.torch.autograd.functional, name)(function, p.boxes, *more, **options)

    return call


@pytest.mark.parametrize(
    "transformed",
    [
        pytest.param(lambda p: _jvp(p, p.of_boxes), id="func.jvp"),
        pytest.param(lambda p: _jvp(p, p.torch.func.grad(p.loss_of_boxes)), id="jvp-of-grad"),
        pytest.param(
            lambda p: p.torch.func.grad(lambda _: _jvp(p, p.loss_of_boxes)[1])(p.boxes),
            id="grad-of-jvp",
        ),
        pytest.param(
            lambda p: _jvp(p, p.torch.compile(p.of_boxes, backend="aot_eager")), id="jvp-of-compile"
        ),
        pytest.param(lambda p: p.torch.func.jacfwd(p.of_boxes)(p.boxes), id="func.jacfwd"),
        pytest.param(lambda p: p.torch.func.hessian(p.loss_of_boxes)(p.boxes), id="func.hessian"),
        pytest.param(lambda p: p.torch.func.linearize(p.of_boxes, p.boxes), id="func.linearize"),
        pytest.param(lambda p: _dual(p, p.boxes), id="forward_ad"),
        pytest.param(lambda p: _dual(p, p.leaves()[1]), id="forward_ad-leaf"),
        pytest.param(_dual_grads, id="forward_ad-grads"),
        pytest.param(lambda p: p.torch.no_grad()(_dual)(p, p.boxes), id="no_grad"),
        pytest.param(
            _functional("jacobian", vectorize=True, strategy="forward-mode"), id="functional"
        ),
    ],
)
def test_forward_mode_is_refused(transformed: Callable[[Problem], Any], problem: Problem) -> None:
    with pytest.raises(NotImplementedError, match=FORWARD):
        transformed(problem)


def test_forward_mode_is_refused_by_a_whole_compiled_graph(problem: Problem) -> None:
    problem.torch.compiler.reset()
    compiled = problem.torch.compile(
        lambda: _jvp(problem, problem.of_boxes), backend="aot_eager", fullgraph=True
    )
    with pytest.raises(Exception, match="forward-mode derivatives of crop_and_resize are not"):
        compiled()


def test_dual_tensors_are_refused_by_the_plain_function(problem: Problem) -> None:
    forward_ad = problem.torch.autograd.forward_ad
    with forward_ad.dual_level():
        boxes = forward_ad.make_dual(problem.boxes, problem.boxes)
        with pytest.raises(TypeError, match=r"^boxes: expected an array: forward-mode"):
            cropkit.crop_and_resize(problem.image, boxes, problem.indices, SIZE)


def _double_backward(which: int) -> Callable[[Problem], Any]:
    def call(p: Problem) -> Any:
        leaf = p.leaves()[which]
        given = [p.image, p.boxes]
        given[which] = leaf
        (grad,) = p.torch.autograd.grad(p.loss(*given), leaf, create_graph=True)
        return p.torch.autograd.grad(grad.sum(), leaf)

    return call


def _grad_of_grad(p: Problem) -> Any:
    grad = p.torch.func.grad
    return grad(lambda boxes: grad(p.loss_of_boxes)(boxes).sum())(p.boxes)


@pytest.mark.filterwarnings("ignore:.*batching rule for cropkit:UserWarning")
@pytest.mark.parametrize(
    "transformed",
    [
        pytest.param(_double_backward(0), id="backward-image"),
        pytest.param(_double_backward(1), id="backward-boxes"),
        pytest.param(_grad_of_grad, id="func.grad"),
        pytest.param(
            lambda p: p.torch.func.jacrev(p.torch.func.jacrev(p.loss_of_boxes))(p.boxes),
            id="func.jacrev",
        ),
        pytest.param(_functional("hessian"), id="functional.hessian"),
        pytest.param(_functional("hessian", vectorize=True), id="functional.hessian-vectorize"),
        pytest.param(
            lambda p: p.torch.autograd.functional.jvp(p.loss_of_boxes, p.boxes, p.boxes),
            id="functional.jvp",
        ),
        pytest.param(
            lambda p: p.torch.autograd.gradgradcheck(p.of_boxes, p.leaves()[1]), id="gradgradcheck"
        ),
    ],
)
def test_second_derivatives_are_refused(
    transformed: Callable[[Problem], Any], problem: Problem
) -> None:
    with pytest.raises(NotImplementedError, match=SECOND):
        transformed(problem)


def test_jit_script_is_refused(problem: Problem) -> None:
    with pytest.raises(Exception, match="keyword-only arguments with defaults"):
        problem.torch.jit.script(problem.crop)


# ---- what is no tensor ---------------------------------------------------------------------


@pytest.mark.parametrize("image", ["float32", "float64"])
@pytest.mark.parametrize("boxes", ["array", "list"])
def test_only_tensors_decide_the_dtype(image: str, boxes: str, torch: Any, crop: Any) -> None:
    doubles = BOXES.astype(np.float64)
    given = doubles if boxes == "array" else doubles.tolist()
    assert crop(torch.tensor(IMAGE), given, INDICES, SIZE).dtype == torch.float32
    assert crop(IMAGE.astype(image), given, INDICES, SIZE).dtype == torch.float32
    assert crop(torch.tensor(IMAGE).double(), given, INDICES, SIZE).dtype == torch.float64
    assert crop(IMAGE.astype(image), torch.tensor(doubles), INDICES, SIZE).dtype == torch.float64


def test_wrong_kinds_get_the_sentences_of_the_plain_function(torch: Any, crop: Any) -> None:
    def same(*given: Any) -> None:
        with pytest.raises((TypeError, ValueError, IndexError)) as plain:
            cropkit.crop_and_resize(*given, SIZE)
        with pytest.raises(plain.type) as ours:
            crop(*given, SIZE)
        assert str(ours.value) == str(plain.value)

    for wrong in ("image", None, [["a"]], object(), IMAGE.astype(complex), IMAGE[0]):
        same(wrong, BOXES, INDICES)
    for wrong in ("boxes", None, [[0, 0, 1]], BOXES.astype(complex), BOXES * np.nan):
        same(IMAGE, wrong, INDICES)
    for wrong in ("indices", [0.5] * 4, [0, 1], INDICES + 1):
        same(IMAGE, BOXES, wrong)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
def test_a_read_only_memory_map(
    dtype: str, torch: Any, crop: Any, tmp_path: Any, bits_equal: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is neither warned of nor copied."""
    raw = "uint16" if dtype == "bfloat16" else dtype
    IMAGE.astype(dtype_of(dtype)).view(raw).tofile(tmp_path / "image")
    image = np.memmap(tmp_path / "image", raw, "r", shape=IMAGE.shape).view(dtype_of(dtype))
    addresses = []
    function = cropkit.crop_and_resize

    def recorded(image: Any, *given: Any, **options: Any) -> Any:
        addresses.append(image.data_ptr())
        return function(image, *given, **options)

    monkeypatch.setattr(cropkit, "crop_and_resize", recorded)
    bits_equal(crop(image, BOXES, INDICES, SIZE).numpy(), function(image, BOXES, INDICES, SIZE))
    assert addresses == [image.ctypes.data]
    assert not image.flags.writeable


def test_arrays_laid_out_as_no_tensor_is(torch: Any, crop: Any, bits_equal: Any) -> None:
    for image in (IMAGE[:, ::-1], IMAGE.astype(">f4"), np.broadcast_to(IMAGE[:1], IMAGE.shape)):
        expected = cropkit.crop_and_resize(image, BOXES, INDICES, SIZE)
        bits_equal(crop(image, BOXES, INDICES, SIZE).numpy(), expected)
