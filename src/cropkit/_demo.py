"""``python -m cropkit demo``: crops of a photograph on one sheet, and how long they took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cropkit import __version__, crop_and_resize
from cropkit._backends import choose
from cropkit._cpu import CpuBackend
from cropkit._request import check_forward
from cropkit._sampling import Method
from cropkit._threads import team_size

METHODS: Final[tuple[Method, ...]] = ("bilinear", "nearest")
OUTSIDE: Final = 225.0
"""The extrapolation value, a light grey."""


class Region(NamedTuple):
    """A region of the photograph: its box, the place of its crops on the sheet, its colour."""

    label: str
    caption: str
    box: tuple[int, int, int, int]  # y1, x1, y2, x2, in pixels of the photograph
    crop_size: tuple[int, int]
    cell: tuple[int, int]  # row and column of the pair of crops
    colour: str  # of Okabe and Ito's palette, told apart by colour-blind readers too


REGIONS: Final = (
    Region("A", "shrunk", (20, 108, 330, 418), (220, 220), (0, 0), "#56b4e9"),
    Region("B", "partly outside", (-34, -38, 98, 94), (220, 220), (0, 1), "#e69f00"),
    Region("C", "magnified", (20, 214, 95, 314), (165, 220), (1, 0), "#f0e442"),
    Region("D", "a few pixels", (500, 374, 515, 394), (165, 220), (1, 1), "#00d09c"),
    Region("E", "flipped", (478, 170, 523, 80), (110, 220), (2, 0), "#ff7f3f"),
    Region("F", "stretched", (158, 172, 230, 362), (110, 220), (2, 1), "#f09bcb"),
)


def run(output: Path) -> None:
    """Write the contact sheet to `output` and print how long the crops took.

    Raises
    ------
    SystemExit
        Matplotlib or Pillow is not installed, and the message says what to install; or
        `output` cannot be written.
    """
    if not output.parent.is_dir():
        raise SystemExit(f"--output {output}: there is no folder {output.parent}")
    photograph = load_photograph()
    crops = {
        (region.label, method): crop(photograph, region, method)
        for region in REGIONS
        for method in METHODS
    }
    try:
        draw(photograph, crops, output)
    except OSError as error:
        raise SystemExit(f"--output {output}: {error.strerror or error}") from None

    boxes = many_boxes()
    call = check_forward(photograph, boxes, None, (224, 224), "bilinear", 0, None, None, None)
    backend = choose(call, None)
    print(f"cropkit {__version__}")
    print(f"backend: {backend.name}")
    if isinstance(backend, CpuBackend):
        print(f"instruction set: {backend.isa}")
        print(f"threads: {team_size(None, call.out.size)}")
    report(
        f"the sheet's {len(crops)} crops",
        sum(picture.shape[0] * picture.shape[1] for picture in crops.values()),
        lambda: [crop(photograph, region, method) for region in REGIONS for method in METHODS],
    )
    for method in METHODS:
        report(
            f"{len(boxes)} crops of 224x224, {method}",
            len(boxes) * 224 * 224,
            partial(crop_and_resize, photograph, boxes, None, (224, 224), method, out=call.out),
        )
    print(f"wrote {output}")


@contextmanager
def needs_matplotlib() -> Iterator[None]:
    """Turn a failed import inside the block into an error of one sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "Matplotlib").partition(".")[0]
        raise SystemExit(
            f"the demo draws with {missing}, which is not installed: pip install matplotlib"
        ) from None


def load_photograph() -> NDArray[np.uint8]:
    """Return Matplotlib's sample photograph, shape (1, 600, 512, 3)."""
    with needs_matplotlib():
        from matplotlib.cbook import get_sample_data
        from PIL import Image
    path: Any = get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))[None]


def crop(photograph: NDArray[np.uint8], region: Region, method: Method) -> NDArray[np.float32]:
    """Crop one region."""
    _, height, width, _ = photograph.shape
    box = np.array(region.box) / ([height - 1, width - 1] * 2)
    crops = crop_and_resize(photograph, [box], None, region.crop_size, method, OUTSIDE)
    only: NDArray[np.float32] = crops[0]
    return only


def many_boxes() -> NDArray[np.float32]:
    """Return 256 boxes: sides of 0.1 to 0.5 of the photograph, anywhere inside it."""
    rng = np.random.default_rng(0)
    centres, sides = rng.uniform(0, 1, (256, 2)), rng.uniform(0.1, 0.5, (256, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    np.clip(boxes, 0, 1, out=boxes)
    return boxes.astype(np.float32)


def report(what: str, pixels: int, work: Callable[[], object]) -> None:
    """Time `work`, whose result has `pixels` pixels, and print a line."""
    seconds = warm_time(work)
    print(
        f"{what}: {pixels / 1e6:.2f} megapixels in {seconds * 1e3:.2f} ms, "
        f"{pixels / 1e6 / seconds:.0f} megapixels/s"
    )


def warm_time(work: Callable[[], object]) -> float:
    """Run `work` for half a second, after 0.1 s to warm up; return the median time in seconds."""
    times: list[float] = []
    warm = time.perf_counter() + 0.1
    end = warm + 0.5
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if start >= warm:
            times.append(time.perf_counter() - start)
    return median(times)


# ---- the sheet -----------------------------------------------------------------------

# In pixels; a crop is drawn one to one.
_WIDTH, _HEIGHT = 1560, 690
_EDGE = 24
_BORDER = 44, 42  # around the photograph, for the box that reaches outside
_PAIR_GAP, _CELL_GAP = 32, 6
_ROW_TOPS = (76, 344, 556)
# The sheet is dithered to a palette: 0.4 MB instead of 1, and without the steps of colour that
# the magnified crops would show in a palette alone.
_COLOURS = 160
_INK = "#222222"


def draw(
    photograph: NDArray[np.uint8],
    crops: dict[tuple[str, Method], NDArray[np.float32]],
    output: Path,
) -> None:
    """Draw the photograph with its boxes and the crops beside it, as a PNG."""
    with needs_matplotlib():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image
    figure = Figure((_WIDTH / 100, _HEIGHT / 100), dpi=100, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)
    left = _draw_photograph(figure, photograph[0]) + 36
    for region in REGIONS:
        _draw_pair(figure, region, [crops[region.label, method] for method in METHODS], left)
    canvas.draw()
    sheet = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    palette = sheet.quantize(_COLOURS, kmeans=2)
    colours = np.array(palette.getpalette(), np.uint8)
    colours.reshape(-1, 3)[(colours.reshape(-1, 3) > 240).all(axis=1)] = 255  # a clean background
    palette.putpalette(colours.tolist())
    sheet.quantize(palette=palette).save(output, "PNG", optimize=True)


def _axes(figure: Any, x: float, y: float, width: float, height: float) -> Any:
    """Add axes without ticks at a place given in pixels from the upper left."""
    axes = figure.add_axes(
        (x / _WIDTH, 1 - (y + height) / _HEIGHT, width / _WIDTH, height / _HEIGHT)
    )
    axes.set_axis_off()
    return axes


def _tag(axes: Any, x: float, y: float, region: Region, anchor: str) -> None:
    """Write a region's letter on its colour."""
    axes.text(
        x, y, region.label, fontsize=15, fontweight="bold", color="black", ha="left", va=anchor,
        bbox={"facecolor": region.colour, "edgecolor": "none", "pad": 3}, zorder=3,
    )  # fmt: skip


def _draw_photograph(figure: Any, photograph: NDArray[np.uint8]) -> int:
    """Draw the photograph and its boxes; return the x of the right edge, in pixels."""
    height, width = len(photograph), len(photograph[0])
    border_x, border_y = _BORDER
    axes = _axes(figure, _EDGE, _EDGE, width + border_x, height + border_y)
    axes.imshow(photograph, interpolation="nearest", aspect="auto")
    axes.set(xlim=(-border_x - 0.5, width - 0.5), ylim=(height - 0.5, -border_y - 0.5))
    for region in REGIONS:
        y1, x1, y2, x2 = region.box
        xs, ys = (x1, x2, x2, x1, x1), (y1, y1, y2, y2, y1)
        axes.plot(xs, ys, color="black", linewidth=4.2, solid_joinstyle="miter", clip_on=False)
        axes.plot(xs, ys, color=region.colour, linewidth=2.4, solid_joinstyle="miter",
                  clip_on=False)  # fmt: skip
        _tag(axes, min(x1, x2), min(y1, y2), region, "bottom")
    return _EDGE + border_x + width


def _draw_pair(figure: Any, region: Region, crops: list[NDArray[Any]], left: int) -> None:
    """Draw a region's bilinear and nearest crops, under their caption."""
    height, width = region.crop_size
    row, column = region.cell
    x = left + column * (2 * width + _CELL_GAP + _PAIR_GAP)
    y1, x1, y2, x2 = region.box
    y = _ROW_TOPS[row]
    heading = _axes(figure, x, y - 34, 2 * width, 34)
    heading.set(xlim=(0, 2 * width), ylim=(34, 0))
    _tag(heading, 5, 22, region, "baseline")
    sizes = f"{y2 - y1}\u00d7{abs(x2 - x1)} to {height}\u00d7{width}"
    heading.text(34, 22, f"{sizes}, {region.caption}", fontsize=15, color=_INK, va="baseline")
    for crop_, method in zip(crops, METHODS, strict=True):
        axes = _axes(figure, x, y, width, height)
        axes.imshow(np.rint(crop_).astype(np.uint8), interpolation="nearest", aspect="auto")
        axes.add_patch(_frame(region))
        if row == 0:
            axes.text(0.5, 1 + 44 / height, method, transform=axes.transAxes, fontsize=15,
                      color="#666666", ha="center", va="baseline")  # fmt: skip
        x += width + _CELL_GAP


def _frame(region: Region) -> Any:
    from matplotlib.patches import Rectangle

    height, width = region.crop_size
    return Rectangle((-0.5, -0.5), width, height, fill=False, linewidth=4.3, color=region.colour)
