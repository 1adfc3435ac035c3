"""PyTorch: tensors in the plain functions, and `cropkit.torch` (``make test-full``)."""

import importlib
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cropkit

from .support.cases import DTYPES, METHODS, dtype_of, pixels
from .support.children import python
from .support.frameworks import BOXES, GRADS, IMAGE, INDICES, SHAPE, SIZE, record_gradients
from .support.recording import Recording

pytestmark = pytest.mark.frameworks


@pytest.fixture(scope="module")
def module(torch: Any) -> Any:
    return importlib.import_module("cropkit.torch")


@pytest.fixture(scope="module")
def crop(module: Any) -> Any:
    """Return `cropkit.torch.crop_and_resize`."""
    return module.crop_and_resize


def tensor(torch: Any, array: NDArray[Any]) -> Any:
    """Copy an array of any image dtype into a tensor."""
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


# ---- the plain functions -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_go_in_and_come_out_without_copies(dtype: str, torch: Any, bits_equal: Any) -> None:
    image = pixels(SHAPE, dtype)
    given = tensor(torch, image)
    recording = Recording()
    result = cropkit.crop_and_resize(
        given, torch.tensor(BOXES), torch.tensor(INDICES), SIZE, backend=recording
    )
    assert type(result) is torch.Tensor
    assert recording.addresses["image"] == given.data_ptr()
    assert recording.addresses["out"] == result.data_ptr()
    assert recording.request.image_dtype == dtype_of(dtype)
    bits_equal(result.numpy(), cropkit.crop_and_resize(image, BOXES, INDICES, SIZE))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_an_image_of_each_dtype(dtype: str, torch: Any, bits_equal: Any) -> None:
    recording = Recording()
    result = cropkit.crop_and_resize_grad_image(
        torch.tensor(GRADS), BOXES, INDICES, SHAPE, dtype=getattr(torch, dtype), backend=recording
    )
    assert result.dtype == getattr(torch, dtype)
    assert recording.addresses["out"] == result.data_ptr()
    expected = cropkit.crop_and_resize_grad_image(
        GRADS, BOXES, INDICES, SHAPE, dtype=dtype_of(dtype)
    )
    bits_equal(result.float().numpy(), expected.astype(np.float32))


def test_the_gradient_of_boxes(torch: Any, bits_equal: Any) -> None:
    result = cropkit.crop_and_resize_grad_boxes(
        torch.tensor(GRADS), torch.tensor(IMAGE), BOXES, INDICES, dtype=torch.float64
    )
    expected = cropkit.crop_and_resize_grad_boxes(GRADS, IMAGE, BOXES, INDICES, dtype="float64")
    bits_equal(result.numpy(), expected)


def test_layouts_of_tensors(torch: Any, bits_equal: Any) -> None:
    planes = torch.tensor(IMAGE).permute(0, 3, 1, 2).contiguous()
    out = torch.zeros(4, 3, *SIZE)
    for image in (planes.permute(0, 2, 3, 1), planes.bfloat16().permute(0, 2, 3, 1)):
        result = cropkit.crop_and_resize(image, BOXES, INDICES, SIZE, out=out.permute(0, 2, 3, 1))
        same = cropkit.crop_and_resize(image.float().contiguous(), BOXES, INDICES, SIZE)
        bits_equal(out.permute(0, 2, 3, 1).numpy(), same.numpy())
        assert result.data_ptr() == out.data_ptr()
    one = torch.tensor(IMAGE[:1, :1, :1]).expand(SHAPE)
    bits_equal(
        cropkit.crop_and_resize(one, BOXES, INDICES, SIZE).numpy(),
        cropkit.crop_and_resize(one.contiguous().numpy(), BOXES, INDICES, SIZE),
    )
    assert cropkit.crop_and_resize(planes, torch.zeros(0, 4), [], (5, 5)).shape == (0, 5, 5, 5)


def test_out_of_bfloat16(torch: Any) -> None:
    out = torch.ones(SHAPE, dtype=torch.bfloat16)
    result = cropkit.crop_and_resize_grad_image(
        torch.tensor(GRADS), BOXES, INDICES, SHAPE, dtype=torch.bfloat16, out=out
    )
    assert result is out
    fresh = cropkit.crop_and_resize_grad_image(
        torch.tensor(GRADS), BOXES, INDICES, SHAPE, dtype=torch.bfloat16
    )
    assert torch.equal(out, fresh)
    with pytest.raises(ValueError, match="out has dtype bfloat16: expected float32"):
        cropkit.crop_and_resize_grad_image(GRADS, BOXES, INDICES, SHAPE, out=out)


def test_tensors_that_require_grad_are_told_where_to_go(torch: Any) -> None:
    def fails(name: str, *arguments: Any, function: Any = cropkit.crop_and_resize) -> None:
        text = (
            f"^{name}: expected an array: a tensor that requires grad is for "
            r"cropkit\.torch\.crop_and_resize, which differentiates; detach\(\) gives its values "
        )
        with pytest.raises(TypeError, match=text):
            function(*arguments)

    image, boxes = torch.tensor(IMAGE, requires_grad=True), torch.tensor(BOXES, requires_grad=True)
    grads = torch.tensor(GRADS, requires_grad=True)
    fails("image", image, BOXES, INDICES, SIZE)
    fails("image", torch.nn.Parameter(image.detach()), BOXES, INDICES, SIZE)
    fails("boxes", IMAGE, boxes, INDICES, SIZE)
    fails("grads", grads, BOXES, INDICES, SHAPE, function=cropkit.crop_and_resize_grad_image)
    fails("image", GRADS, image, BOXES, INDICES, function=cropkit.crop_and_resize_grad_boxes)
    out = torch.zeros(4, *SIZE, 3, requires_grad=True)
    with pytest.raises(TypeError, match=r"^out: expected an array: a tensor that requires"):
        cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE, out=out)


def test_tensors_whose_memory_is_not_what_it_seems(torch: Any) -> None:
    for image, text in (
        (torch._neg_view(torch.tensor(IMAGE)), "negative bit set"),
        (torch.tensor(IMAGE).to_sparse(), "to_dense"),
        (torch.zeros(SHAPE, device="meta"), "Unknown device type meta"),
        (torch.zeros(SHAPE).to(torch.float8_e4m3fn), "[Ff]loat8_e4m3fn"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^image: expected an array: .*{text}"):
            cropkit.crop_and_resize(image, BOXES, INDICES, SIZE)


# ---- cropkit.torch: the result ---------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_are_those_of_the_plain_function(
    dtype: str, method: str, torch: Any, crop: Any, bits_equal: Any
) -> None:
    image = pixels(SHAPE, dtype)
    result = crop(tensor(torch, image), torch.tensor(BOXES), torch.tensor(INDICES), SIZE, method,
                  -3.5, dtype=torch.float32)  # fmt: skip
    bits_equal(result.numpy(), cropkit.crop_and_resize(image, BOXES, INDICES, SIZE, method, -3.5))


@pytest.mark.parametrize(
    ("image", "boxes", "dtype", "expected"),
    [
        ("uint8", "float32", None, "float32"),
        ("float16", "float32", None, "float32"),
        ("bfloat16", "float16", None, "float32"),
        ("float32", "float32", None, "float32"),
        ("float64", "float32", None, "float64"),
        ("uint8", "float64", None, "float64"),
        ("float64", "float64", "float32", "float32"),
        ("float32", "float32", "float64", "float64"),
    ],
)
def test_dtype_of_the_result(
    image: str, boxes: str, dtype: str | None, expected: str, torch: Any, crop: Any
) -> None:
    result = crop(
        torch.zeros(SHAPE, dtype=getattr(torch, image)),
        torch.tensor(BOXES, dtype=getattr(torch, boxes)), INDICES, SIZE,
        dtype=dtype and getattr(torch, dtype),
    )  # fmt: skip
    assert result.dtype == getattr(torch, expected)


def test_lists_and_arrays_will_do(torch: Any, crop: Any, bits_equal: Any) -> None:
    expected = cropkit.crop_and_resize(IMAGE, BOXES, INDICES, SIZE)
    bits_equal(crop(IMAGE, BOXES, INDICES.tolist(), list(SIZE)).numpy(), expected)
    bits_equal(crop(torch.tensor(IMAGE), BOXES.tolist(), INDICES, SIZE).numpy(), expected)
    assert crop(torch.tensor(IMAGE), torch.zeros(0, 4), [], SIZE).shape == (0, *SIZE, 3)
    assert crop(torch.tensor(IMAGE[:1]), BOXES, None, SIZE).shape == (4, *SIZE, 3)


def test_bad_arguments_read_as_those_of_the_plain_function(torch: Any, crop: Any) -> None:
    def fails(error: type[Exception], text: str, **changed: Any) -> None:
        arguments: dict[str, Any] = {
            "image": torch.tensor(IMAGE), "boxes": torch.tensor(BOXES), "box_indices": INDICES,
            "crop_size": SIZE,
        }  # fmt: skip
        with pytest.raises(error, match=text):
            crop(**(arguments | changed))

    fails(ValueError, r"image has shape \(6, 5, 3\): expected 4 axes", image=torch.tensor(IMAGE[0]))
    fails(ValueError, r"boxes\[0\] = \[nan", boxes=torch.tensor(BOXES) * torch.nan)
    fails(IndexError, r"box_indices\[0\] = 2: ", box_indices=INDICES + 1)
    fails(ValueError, r"crop_size=\(0, 3\): both must be at least 1", crop_size=(0, 3))
    fails(TypeError, r"crop_size=\(2.5, 3\): expected two positive", crop_size=(2.5, 3))
    fails(ValueError, "method='cubic': expected 'bilinear' or 'nearest'", method="cubic")
    fails(TypeError, "extrapolation_value=None: expected a real", extrapolation_value=None)
    fails(TypeError, "num_threads='2': expected a positive integer", num_threads="2")
    fails(TypeError, "dtype=torch.float16: expected torch.float32 or torch.float64",
          dtype=torch.float16)  # fmt: skip
    fails(cropkit.BackendError, "backend='nobody': no such backend", backend="nobody")


# ---- cropkit.torch: gradients ----------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(method: str, torch: Any, crop: Any) -> None:
    """Finite differences, no two runs of which differ at all."""
    torch.manual_seed(0)
    image = torch.rand(SHAPE, dtype=torch.float64, requires_grad=True)
    # Off the pixels, where the slope changes; and nearest is a step function of its boxes.
    boxes = torch.rand(4, 4, dtype=torch.float64) * 1.4 - 0.2
    boxes.requires_grad_(method == "bilinear")
    indices = torch.tensor(INDICES)
    assert torch.autograd.gradcheck(
        lambda image, boxes: crop(image, boxes, indices, SIZE, method, 0.5),
        (image, boxes), nondet_tol=0,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_plain_functions(
    dtype: str, method: str, torch: Any, crop: Any
) -> None:
    image = tensor(torch, pixels(SHAPE, dtype)).requires_grad_()
    boxes = torch.tensor(BOXES, requires_grad=True)
    crops = crop(image, boxes, INDICES, SIZE, method)
    crops.backward(torch.tensor(GRADS, dtype=crops.dtype))
    of_image = cropkit.crop_and_resize_grad_image(
        torch.tensor(GRADS), BOXES, INDICES, SHAPE, method, dtype=image.dtype
    )
    of_boxes = cropkit.crop_and_resize_grad_boxes(
        torch.tensor(GRADS), image.detach(), BOXES, INDICES, dtype=crops.dtype
    )
    assert image.grad.dtype == image.dtype
    assert torch.equal(image.grad, of_image)
    assert torch.equal(boxes.grad, of_boxes.float())


def test_the_gradient_of_a_float32_image_with_float64_boxes_is_float64_inside(
    torch: Any, crop: Any
) -> None:
    image = torch.tensor(IMAGE, requires_grad=True)
    boxes = torch.tensor(BOXES).double() / 3
    crop(image, boxes, INDICES, SIZE).backward(torch.tensor(GRADS).double())
    expected = cropkit.crop_and_resize_grad_image(
        GRADS, boxes.numpy(), INDICES, SHAPE, dtype="float64"
    )
    assert image.grad.dtype == torch.float32
    np.testing.assert_array_equal(image.grad.numpy(), expected.astype(np.float32))


def test_only_the_gradients_asked_for_are_computed(
    torch: Any, crop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = record_gradients(monkeypatch)
    for of_image, of_boxes in ((True, False), (False, True), (True, True)):
        image = torch.tensor(IMAGE, requires_grad=of_image)
        boxes = torch.tensor(BOXES, requires_grad=of_boxes)
        crop(image, boxes, INDICES, SIZE).sum().backward()
    assert computed == ["image", "boxes", "image", "boxes"]


def test_gradients_of_empty_crops_are_zero(torch: Any, crop: Any) -> None:
    image = torch.tensor(IMAGE, requires_grad=True)
    crop(image, torch.zeros(0, 4), [], SIZE).sum().backward()
    assert torch.equal(image.grad, torch.zeros(SHAPE))


def test_a_second_derivative_is_refused(torch: Any, crop: Any) -> None:
    boxes = torch.tensor(BOXES, requires_grad=True)
    loss = crop(torch.tensor(IMAGE), boxes, INDICES, SIZE).square().sum()
    (grad,) = torch.autograd.grad(loss, boxes, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives of crop_and_resize are not"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_autocast(dtype: str, torch: Any, crop: Any) -> None:
    """Between layers that autocast runs in 16 bits, without a cast around it."""
    torch.manual_seed(0)
    before, after = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 2)
    boxes = torch.tensor(BOXES, requires_grad=True)
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        features = before(torch.tensor(IMAGE).permute(0, 3, 1, 2) / 128)
        features.retain_grad()
        assert features.dtype == getattr(torch, dtype)
        crops = crop(features.permute(0, 2, 3, 1), boxes, INDICES, SIZE)
        assert crops.dtype == torch.float32
        loss = after(crops).square().mean()
    loss.backward()
    exact = crop(features.detach().float().permute(0, 2, 3, 1), boxes, INDICES, SIZE)
    assert torch.equal(crops, exact)
    assert features.grad.dtype == getattr(torch, dtype)
    assert all(p.grad.abs().sum() > 0 for p in (before.weight, after.weight, boxes))


# ---- the operators as torch.library and the compiler see them ---------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_opcheck(dtype: str, torch: Any, module: Any) -> None:
    real = getattr(torch, dtype)
    image = torch.tensor(IMAGE, dtype=real, requires_grad=True)
    boxes = torch.tensor(BOXES, dtype=real, requires_grad=True)
    indices, grads = torch.tensor(INDICES), torch.tensor(GRADS, dtype=real)
    operators = torch.ops.cropkit
    opcheck = torch.library.opcheck
    opcheck(
        operators.crop_and_resize,
        (image, boxes, indices, SIZE, "bilinear", 0.5, real, None, None),
    )
    one = image.detach()[:1].requires_grad_()
    opcheck(operators.crop_and_resize, (one, boxes, None, SIZE, "nearest", 0.0, real, 1, "cpu"))
    image, boxes = image.detach(), boxes.detach()
    opcheck(
        operators.crop_and_resize_grad_image,
        (grads, boxes, indices, SHAPE, "bilinear", real, None, None),
    )
    opcheck(
        operators.crop_and_resize_grad_boxes,
        (grads, image, boxes, indices, "bilinear", real, None, "reference"),
    )


# Inductor's own code, not ours.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compile_without_a_graph_break(dynamic: bool, torch: Any, crop: Any) -> None:
    def loss(image: Any, boxes: Any, indices: Any) -> Any:
        crops = crop(image.sin(), boxes * 0.75, indices, (image.shape[1] - 2, 7), num_threads=1)
        return (crops * 0.5).sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic)
    for shape in ((2, 6, 5, 3), (3, 9, 8, 2)):
        gradients = []
        for function in (compiled, loss):
            image = torch.tensor(pixels(shape, "float32"), requires_grad=True)
            boxes = torch.tensor(BOXES, requires_grad=True)
            value = function(image, boxes, torch.tensor(INDICES))
            value.backward()
            gradients.append((value, image.grad, boxes.grad))
        for ours, eager in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, eager)


def test_sizes_are_known_without_data(torch: Any, crop: Any) -> None:
    image, boxes = torch.zeros(SHAPE, device="meta"), torch.zeros(4, 4, device="meta")
    result = crop(image, boxes, None, SIZE, dtype=torch.float64)
    assert (result.shape, result.dtype) == ((4, *SIZE, 3), torch.float64)


# ---- processes ------------------------------------------------------------------------------


def test_workers_of_a_data_loader_that_forks(torch: Any) -> None:
    """After calls with threads of ours and of PyTorch's own OpenMP in the parent."""
    code = """
import json, sys, warnings
import numpy as np, torch
import cropkit
from cropkit.torch import crop_and_resize

class Crops(torch.utils.data.Dataset):
    def __len__(self): return 12
    def __getitem__(self, n):
        image = torch.full((1, 300, 300, 3), float(n))
        boxes = torch.tensor([[0.0, 0, 1, 1]] * 4)
        tensor = crop_and_resize(image, boxes, None, (128, 128), num_threads=2)
        array = cropkit.crop_and_resize(image.numpy(), boxes.numpy(), None, (128, 128))
        assert np.array_equal(tensor.numpy(), array)
        return tensor[0, 64, 64, 0] + tensor.sum() * 0

if __name__ == "__main__":
    torch.set_num_threads(2)
    assert torch.rand(2000, 2000).sum() > 0
    Crops()[0]
    # Python 3.12 and later say of every fork that there are threads.
    warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
    loader = torch.utils.data.DataLoader(
        Crops(), batch_size=3, num_workers=2, multiprocessing_context="fork")
    batches = [batch.tolist() for batch in loader]
    json.dump([batches, float(Crops()[5])], sys.stdout)
"""
    batches, after = json.loads(python(code).stdout)
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert after == 5
