"""Measure backend ``cuda`` on this machine's GPU; print a Markdown table.

    python -m peers.gpu

Needs PyTorch with CUDA and ``cropkit[cuda]``; torchvision, if it is there, is compared with.
The limit is what the GPU can copy: bytes moved (each input byte read once, each result byte
written once) over the bandwidth of a copy measured in the same run.
"""

import platform
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

import cropkit

REPEATS, CALLS = 15, 5


def main() -> int:
    """Measure and print; say so where there is nothing to measure."""
    reasons = {info.name: info.reason for info in cropkit.list_backends()}
    try:
        import torch
    except ImportError:
        print("no GPU was measured: PyTorch is not installed")
        return 1
    if reasons.get("cuda", "backend 'cuda' is not installed") or not torch.cuda.is_available():
        print(f"no GPU was measured: {reasons.get('cuda') or 'PyTorch finds none'}")
        return 1
    cases: dict[str, dict[str, Callable[[], Any]]] = {
        "features: float32 [1, 200, 336, 256], 1000 boxes to 14x14": features(torch),
        "frames: uint8 [8, 1080, 1920, 3], 1000 boxes to 224x224": frames(torch),
    }
    print(f"{torch.cuda.get_device_name()}, driver's CUDA {torch.version.cuda}")
    packages = ("cropkit", "cuda-core", "nvidia-cuda-nvrtc", "torch", "torchvision")
    print(", ".join(f"{name} {installed(name)}" for name in packages), end=", ")
    print(f"Python {platform.python_version()}\n")
    print("| case | | ms | of a copy's bandwidth |\n|---|---|--:|--:|")
    for case, calls in cases.items():
        moved = int(calls.pop("bytes moved")())
        source = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        calls = {"copy of as many bytes": lambda t=target, s=source: t.copy_(s)} | calls
        times = measure(torch, calls)
        limit = times["copy of as many bytes"]
        for name, time in times.items():
            print(f"| {case} | {name} | {time:.3f} | {limit / time:.0%} |")
    return 0


def features(torch: Any) -> dict[str, Callable[[], Any]]:
    """Regions of a feature map, at a sampling step of about 1."""
    generator = np.random.default_rng(0)
    image = torch.rand((1, 200, 336, 256), device="cuda")
    centres = generator.uniform(0.05, 0.95, (1000, 2))
    half = 0.5 * 13 / np.array([199, 335])  # 14 samples, one pixel apart
    boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
    calls = own(torch, image, boxes, np.zeros(1000, np.int64), (14, 14))
    try:
        from torchvision.ops import roi_align
    except ImportError:
        return calls
    last = np.array([199, 335, 199, 335], np.float32)
    y1, x1, y2, x2 = (boxes * last).T
    rois = torch.tensor(np.stack([0 * y1, x1, y1, x2, y2], axis=1), device="cuda")
    planes = image.permute(0, 3, 1, 2).contiguous()
    calls["torchvision roi_align, NCHW"] = lambda: roi_align(planes, rois, 14, 1.0, 1, True)
    return calls


def frames(torch: Any) -> dict[str, Callable[[], Any]]:
    """Crops of video frames for a classifier."""
    generator = np.random.default_rng(0)
    image = torch.randint(0, 256, (8, 1080, 1920, 3), dtype=torch.uint8, device="cuda")
    side = generator.uniform(0.1, 0.5, (1000, 2))
    start = generator.uniform(0, 1 - side)
    boxes = np.concatenate([start, start + side], axis=1).astype(np.float32)
    indices = generator.integers(0, 8, 1000)
    calls = own(torch, image, boxes, indices, (224, 224))
    plane = image[:1].permute(0, 3, 1, 2).float().contiguous()
    y1, x1, y2, x2 = torch.tensor(2 * boxes[:, :, None] - 1, device="cuda").unbind(1)
    steps = torch.linspace(0, 1, 224, device="cuda")
    y, x = y1 + steps * (y2 - y1), x1 + steps * (x2 - x1)
    shape = (1000, 224, 224)
    grid = torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], -1)
    # All boxes on one image, which is less than is asked of cropkit.
    grid = grid.reshape(1, 1000 * 224, 224, 2)
    sample = torch.nn.functional.grid_sample
    calls["grid_sample of one float32 image, NCHW"] = lambda: sample(
        plane, grid, align_corners=True
    )
    return calls


def own(
    torch: Any, image: Any, boxes: Any, indices: Any, size: tuple[int, int]
) -> dict[str, Callable[[], Any]]:
    """Return the calls of cropkit, and how many bytes a crop moves."""
    out = torch.empty((len(boxes), *size, image.shape[3]), device="cuda")
    crop = cropkit.crop_and_resize

    def call() -> Any:
        return crop(image, boxes, indices, size, out=out)

    grads = torch.rand_like(out)
    shape = tuple(image.shape)
    expected = crop(image.cpu().numpy()[:, :, :, :4], boxes[:9], indices[:9], size)
    assert (call()[:9, :, :, :4].cpu().numpy() == expected).all(), "not the bits of the CPU"
    return {
        "bytes moved": lambda: image.nbytes + out.nbytes,
        "cropkit, crops": call,
        "cropkit, image gradient": lambda: cropkit.crop_and_resize_grad_image(
            grads, boxes, indices, shape
        ),
        "cropkit, box gradient": lambda: cropkit.crop_and_resize_grad_boxes(
            grads, image, boxes, indices
        ),
    }


def measure(torch: Any, calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each call, by events of the GPU: medians of turns, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(REPEATS + 1):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(CALLS):
                call()
            end.record()
            end.synchronize()
            if turn:
                times[name].append(begin.elapsed_time(end) / CALLS)
    return {name: statistics.median(values) for name, values in times.items()}


def installed(package: str) -> str:
    """Version of a package, or that it is missing."""
    try:
        return version(package)
    except ImportError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
