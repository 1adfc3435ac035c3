"""Backends that are wrong in one way each: the reference with a line of it changed.

``python -m cropkit.testing tests.support.wrong_backends:fused_lerp`` prints what the suite says of
one; ``test_testing.py`` asserts which test catches which.
"""

from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from cropkit import Backend, _reference

SOURCE: Final = Path(_reference.__file__).read_text()

# Passages of _reference.py: where each method begins, with its arguments checked.
FORWARD: Final = '        with np.errstate(all="ignore"):\n            out[...] = real.type'
UNAVAILABLE = "    def unavailable(self) -> str | None:\n"
REFUSES = "    def refuses(self, request: Request) -> str | None:\n"
GRAD_IMAGE: Final = "            sums = np.zeros(request.image_shape, real)\n"
POSITIONS: Final = "v = flush(flush(a * limit) + flush(np.arange(count).astype(real) * scale))"
SCALE: Final = "scale = flush(flush(flush(b - a) * limit) / real(count - 1))"
MIDDLE: Final = "np.array([0.5 * np.float64(flush(a + b)) * np.float64(n - 1)]).astype(real)"
LERP: Final = "flush(a + flush(flush(b - a) * weight))"
BOXES: Final = "for grad, (y1, x1, y2, x2), index in zip(grads, boxes, box_indices, strict=True):"
ADD: Final = (
    "for part, i, j in zip(parts, row, column, strict=True):\n"
    "                sums[i, j] = flush(sums[i, j] + part[y, x])"
)


class Change(NamedTuple):
    """A passage of ``_reference.py``, which must be there once, and what it becomes."""

    passage: str
    becomes: str


def before(passage: str, *lines: str) -> Change:
    """Put lines in front of a passage, indented as its first line is."""
    margin = passage[: len(passage) - len(passage.lstrip())]
    return Change(passage, "".join(f"{margin}{line}\n" for line in lines) + passage)


CHANGES: Final = {
    # ---- where samples lie
    "reciprocal_division": Change(
        SCALE, "scale = flush(flush(flush(b - a) * limit) * (real(1) / real(count - 1)))"
    ),
    "ratio_taken_first": Change(SCALE, "scale = flush((b - a) * (limit / real(count - 1)))"),
    "fused_position": Change(
        POSITIONS, "v = (np.float64(a * limit) + np.arange(count) * np.float64(scale)).astype(real)"
    ),
    "double_positions": Change(
        POSITIONS,
        "limit = np.float64(n - 1); v = a * limit + np.arange(count) * "
        "((np.float64(b) - a) * limit / (count - 1))",
    ),
    "last_row_outside": Change("(v >= 0) & (v <= limit)", "(v >= 0) & (v < limit)"),
    "last_sample_pinned": Change(
        "(where,) = np.nonzero(",
        "v = np.where((v > limit) & (v < limit * real(1.000001)), limit, v)\n"
        "    (where,) = np.nonzero(",
    ),
    "middle_in_float32": Change(
        MIDDLE, "np.array([flush(flush(real(0.5) * flush(a + b)) * limit)])"
    ),
    "nearest_to_even": Change(
        "index = np.minimum(floor + (v - floor.astype(real) >= real(0.5)), n - 1)",
        "index = np.rint(v).astype(np.intp)",
    ),
    # ---- what is read there
    "fused_lerp": Change(
        LERP, "flush((a.astype(float) + (b - a).astype(float) * weight).astype(a.dtype))"
    ),
    "weights_for_both_taps": Change(LERP, "flush(a * (1 - weight) + b * weight)"),
    "rows_first": Change(
        "    return lerp(top, bottom, wy)",
        "    left = lerp(taps(rows.lo, columns.lo), taps(rows.hi, columns.lo), wy)\n"
        "    right = lerp(taps(rows.lo, columns.hi), taps(rows.hi, columns.hi), wy)\n"
        "    return lerp(left, right, wx)",
    ),
    "right_tap_always_beside": Change(
        "ceil = np.ceil(v).astype(np.intp)", "ceil = floor + 1"
    ),
    "subnormals_kept": Change("if x.dtype != np.float32:", "if True:"),
    "float64_flushed": Change("if x.dtype != np.float32:", "if False:"),
    "rounded_twice": Change(
        "flush(image[np.ix_(y, x)].astype(dtype))",
        "flush(image[np.ix_(y, x)].astype(np.float64).astype(dtype))",
    ),
    "first_image_for_all": Change("bilinear(image[index],", "bilinear(image[0],"),
    # ---- memory
    "past_the_inside_run": Change(
        "inside = crop[rows.inside, columns.inside]\n",
        "inside = crop[rows.inside, columns.inside]\n"
        "                crop[rows.inside, columns.inside.stop :][:, :3] = 0\n",
    ),
    "past_the_end_of_out": before(
        FORWARD,
        "if out.base is not None and out.base.ndim == 1 and out.flags.c_contiguous:",
        "    end = (out.ctypes.data - out.base.ctypes.data) // out.base.itemsize + out.size",
        "    out.base[end : end + 3] = 0",
    ),
    "image_strides_ignored": before(
        FORWARD, 'image = image.ravel(order="K").reshape(image.shape)'
    ),
    "out_strides_ignored": before(FORWARD, 'out = out.ravel(order="K").reshape(out.shape)'),
    "byte_order_ignored": before(FORWARD, 'image = image.view(image.dtype.newbyteorder("="))'),
    "out_copied": before(FORWARD, "out = out.copy()"),
    "image_cached": before(
        FORWARD, "image = self.__dict__.setdefault(str(id(image)), image.copy())"
    ),
    "image_written_to": Change(
        "                    inside[...] = bilinear(image[index], rows, columns, real)",
        "                    inside[...] = bilinear(image[index], rows, columns, real)\n"
        "            image[:, :1, :1] = 0",
    ),
    "image_shared_by_threads": before(
        FORWARD, "self.image = image", '__import__("time").sleep(0.002)', "image = self.image"
    ),
    # ---- gradients
    "float16_sums": Change(
        GRAD_IMAGE,
        '            real = out.dtype if out.dtype.kind == "f" else real\n'
        "            sums = np.zeros(request.image_shape, real)\n",
    ),
    "subnormal_sums_kept": Change(ADD, ADD.replace("flush(", "(")),
    "updates_lost": Change(
        ADD, ADD.replace("strict=True):\n", "strict=True):\n" + 16 * " " +
                         "if np.random.random() < 0.01: continue\n"),
    ),
    "boxes_in_any_order": Change(
        BOXES, BOXES.replace("zip(", "sorted(zip(").replace("True)", "True), key=lambda _: "
                                                            "np.random.random())"),
    ),
    "order_by_threads": Change(
        BOXES, BOXES.replace("zip(", "list(zip(").replace(
            "True)", "True))[:: -1 if (request.num_threads or 1) > 1 else 1]"),
    ),
    "added_to_out": Change("out[...] = cast_sums(", "out[...] += cast_sums("),
    "integers_wrap": Change('if dtype.kind not in "iu":', "if True:"),
    "box_sums_in_float32": Change(
        "along_y, along_x = slopes_of(image[index], rows, columns)",
        "along_y, along_x = slopes_of(image[index], rows, columns)\n"
        "                grad, along_y, along_x = map(np.float32, (grad, along_y, along_x))",
    ),
    "box_edges_swapped": Change("return np.stack([limit - second, second])",
                                "return np.stack([second, limit - second])"),
    "no_box_gradient_of_nearest": before(
        16 * " " + 'rows = sample_axis(y1, y2, height, crop_height, "bilinear")',
        'if request.sampling.method == "nearest":', "    out[n] = 0", "    continue",
    ),
    "grads_strides_ignored": Change(
        GRAD_IMAGE, '            grads = grads.ravel(order="K").reshape(grads.shape)\n' + GRAD_IMAGE
    ),
    # ---- manners
    "unavailable": Change(UNAVAILABLE, f'{UNAVAILABLE}        return "no driver"\n'),
    "all_refused": Change(REFUSES, f'{REFUSES}        return "not today"\n'),
    "refuses_without_a_sentence": Change(
        REFUSES,
        f'{REFUSES}        return True if request.image_dtype.name == "uint64" else None\n',
    ),
    "one_gradient": Change("def grad_boxes(", "def gradient_of_boxes("),
}  # fmt: skip


def wrong(name: str) -> Backend:
    """Return the reference with the change of that name."""
    passage, becomes = CHANGES[name]
    assert SOURCE.count(passage) == 1, f"{name}: _reference.py has not this once: {passage}"
    module = ModuleType("cropkit._reference")
    exec(compile(SOURCE.replace(passage, becomes), f"<{name}>", "exec"), module.__dict__)
    backend: Backend = module.__dict__["backend"]
    return backend


def __getattr__(name: str) -> Backend:
    if name in CHANGES:
        return wrong(name)
    raise AttributeError(name)
