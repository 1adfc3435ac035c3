"""Gradient descent moves boxes until their crops look like given pictures.

    python docs/examples/move_boxes.py [--steps 300] [--output moved.png]

The last step of a spatial transformer, alone: no network says where to look, the four edges of
each box are what is learned. Needs PyTorch and Matplotlib; takes seconds.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from cropkit._demo import load_photograph
from cropkit.torch import crop_and_resize

SIZE = 96
# What is looked for and where the search begins: y1, x1, y2, x2 in pixels of the photograph.
HIDDEN = {
    "glasses": ([150, 165, 235, 365], [110, 120, 250, 300]),
    "eagle": ([15, 215, 80, 305], [40, 180, 120, 330]),
    "ribbons": ([475, 315, 535, 460], [430, 280, 540, 400]),
}


class Search(NamedTuple):
    """What a search has seen: boxes of each step in pixels, losses, and three rows of crops."""

    boxes: np.ndarray[Any, np.dtype[np.float32]]
    losses: np.ndarray[Any, np.dtype[np.float32]]
    crops: dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def search(photograph: torch.Tensor, steps: int) -> Search:
    """Move the boxes for some steps."""
    _, height, width, _ = photograph.shape
    scale = torch.tensor([height - 1, width - 1] * 2)
    hidden, start = (torch.tensor(boxes) / scale for boxes in zip(*HIDDEN.values(), strict=True))

    def crops_of(boxes: torch.Tensor) -> torch.Tensor:
        owners = torch.zeros(len(boxes), dtype=torch.long)
        return crop_and_resize(photograph, boxes, owners, (SIZE, SIZE)).permute(0, 3, 1, 2)

    targets = crops_of(hidden)
    boxes = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([boxes], lr=0.004)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    path, losses = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = mismatch(crops_of(boxes), targets)
        path.append(boxes.detach().clone())
        losses.append(loss.detach())
        loss.sum().backward()
        optimizer.step()
        schedule.step()
    path.append(boxes.detach().clone())
    losses.append(mismatch(crops_of(path[-1]), targets))
    crops = {"wanted": targets, "start": crops_of(start), "found": crops_of(path[-1])}
    return Search(
        (torch.stack(path) * scale).numpy(),
        torch.stack(losses).numpy(),
        {name: row.permute(0, 2, 3, 1).numpy() for name, row in crops.items()},
    )


def mismatch(crops: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compare crops with their targets, and blurred ones, which see farther."""
    return torch.stack(
        [
            (avg_pool2d(crops, k) - avg_pool2d(targets, k)).square().mean((1, 2, 3))
            for k in (1, 4, 12, 24)
        ]
    ).mean(0)


def draw(photograph: torch.Tensor, found: Search, path: Path) -> None:
    """Draw the way of each box, and what it showed at first and in the end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle
    from PIL import Image

    figure = plt.figure(figsize=(9, 4.1), layout="constrained")
    grid = figure.add_gridspec(3, 5, width_ratios=[2.2, 1, 1, 1, 0.02])
    axes = figure.add_subplot(grid[:, 0])
    axes.imshow(photograph[0].numpy())
    for n, (name, colour) in enumerate(zip(HIDDEN, ("#e41a1c", "#ffb000", "#00c8ff"), strict=True)):
        boxes = found.boxes[:, n]
        for (y1, x1, y2, x2), style in ((boxes[0], ":"), (boxes[-1], "-")):
            axes.add_patch(
                Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=1.6)
            )
        for row, column in ((0, 1), (0, 3), (2, 1), (2, 3)):
            axes.plot(boxes[:, column], boxes[:, row], color=colour, lw=0.6)
        for row, (title, crops) in enumerate(found.crops.items()):
            cell = figure.add_subplot(grid[row, n + 1])
            cell.imshow(crops[n].clip(0, 255).astype(np.uint8))
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(name, color=colour, fontsize=10)
            if n == 0:
                cell.set_ylabel(title)
    axes.set(xticks=[], yticks=[], title=f"{len(found.losses) - 1} steps, dotted to solid")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as picture:  # a palette: a third of the bytes
        picture.convert("RGB").quantize(192).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> Search:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("moved.png"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the tensors are small
    photograph = torch.tensor(load_photograph())
    begin = time.perf_counter()
    found = search(photograph, given.steps)
    seconds = time.perf_counter() - begin
    last = found.boxes[-1]
    for n, (name, (hidden, start)) in enumerate(HIDDEN.items()):
        before, after = (np.abs(np.subtract(boxes, hidden)).max() for boxes in (start, last[n]))
        print(f"{name}: edges off by up to {before:.0f} pixels, then by {after:.2f}")
    print(f"{given.steps} steps in {seconds:.1f} s")
    draw(photograph, found, given.output)
    return found


if __name__ == "__main__":
    main()
