"""The same work in the modules for frameworks, the frameworks' operators and the plain functions.

Each function imports its framework, makes the tensors and returns the calls of each case.
"""

from collections.abc import Callable
from typing import Any

from . import workloads

Case = dict[str, Callable[[], Any]]
OURS, PLAIN, THEIRS = "cropkit", "plain", "own operator"


def tensorflow_cases(threads: int) -> dict[str, Case]:
    """One small box, eager and in a graph, and a training step over the maps of a detector."""
    import tensorflow as tf

    import cropkit
    from cropkit.tensorflow import crop_and_resize

    own = tf.image.crop_and_resize
    tiny = workloads.make("tiny")
    image, box, index = tf.constant(tiny.image), tf.constant(tiny.boxes[:1]), tf.constant([0])
    size = tf.constant((24, 24))

    def graph(operator: Callable[..., Any]) -> Callable[[], Any]:
        function = tf.function(lambda image, box: operator(image, box, index, size))
        return lambda: function(image, box)

    maps = workloads.make("features")
    pixels, boxes = tf.constant(maps.image), tf.constant(maps.boxes)
    indices = tf.constant(maps.box_indices)

    def step(operator: Callable[..., Any]) -> Callable[[], Any]:
        @tf.function
        def gradient(pixels: Any, boxes: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(pixels)
                crops = operator(pixels, boxes, indices, maps.crop_size)
                loss = tf.reduce_sum(crops * crops)
            return tape.gradient(loss, pixels)

        return lambda: gradient(pixels, boxes)

    def plain_step() -> Any:
        crops = cropkit.crop_and_resize(pixels, boxes, indices, maps.crop_size)
        return cropkit.crop_and_resize_grad_image(
            crops, boxes, indices, maps.image.shape, num_threads=threads
        )

    small = {PLAIN: lambda: cropkit.crop_and_resize(image, box, index, (24, 24))}
    return {
        "one box of 24x24x3": {
            OURS: lambda: crop_and_resize(image, box, index, size),
            THEIRS: lambda: own(image, box, index, size), **small,
        },
        "one box of 24x24x3, in a tf.function": {
            OURS: graph(crop_and_resize), THEIRS: graph(own), **small,
        },
        "`features`, a step in a tf.function": {
            OURS: step(crop_and_resize), THEIRS: step(own), PLAIN: plain_step,
        },
    }  # fmt: skip


def jax_cases(threads: int) -> dict[str, Case]:
    """One small box, jitted and not, and a jitted step over the maps of a detector."""
    import jax

    import cropkit
    from cropkit.jax import crop_and_resize

    tiny, maps = workloads.make("tiny"), workloads.make("features")
    image, box, index = map(jax.numpy.asarray, (tiny.image, tiny.boxes[:1], tiny.box_indices[:1]))
    pixels, boxes, indices = map(jax.numpy.asarray, (maps.image, maps.boxes, maps.box_indices))
    jitted = jax.jit(lambda image, box: crop_and_resize(image, box, index, (24, 24)))

    def loss(pixels: Any) -> Any:
        crops = crop_and_resize(pixels, boxes, indices, maps.crop_size)
        return (crops * crops).sum()

    step = jax.jit(jax.grad(loss))

    def plain_step() -> Any:
        crops = cropkit.crop_and_resize(pixels, boxes, indices, maps.crop_size)
        return cropkit.crop_and_resize_grad_image(crops, boxes, indices, maps.image.shape)

    small = {PLAIN: lambda: cropkit.crop_and_resize(image, box, index, (24, 24))}
    return {
        "one box of 24x24x3": {
            OURS: lambda: crop_and_resize(image, box, index, (24, 24)).block_until_ready(),
            **small,
        },
        "one box of 24x24x3, jitted": {
            OURS: lambda: jitted(image, box).block_until_ready(), **small,
        },
        "`features`, a step, jitted": {
            OURS: lambda: step(pixels).block_until_ready(), PLAIN: plain_step,
        },
    }  # fmt: skip


def torch_cases(threads: int) -> dict[str, Case]:
    """Few small boxes, with gradients too, and the maps of a detector."""
    import torch

    import cropkit
    from cropkit.torch import crop_and_resize

    torch.set_num_threads(threads)
    tiny, maps = workloads.make("tiny"), workloads.make("features")
    image, boxes = torch.from_numpy(tiny.image), torch.from_numpy(tiny.boxes)
    index = torch.from_numpy(tiny.box_indices)
    pixels, many = torch.from_numpy(maps.image), torch.from_numpy(maps.boxes)
    indices = torch.from_numpy(maps.box_indices)
    grads = torch.ones(len(boxes), 24, 24, 3)
    learned, moved = image.clone().requires_grad_(), boxes.clone().requires_grad_()
    trained = pixels.clone().requires_grad_()
    weights = torch.ones(len(many), *maps.crop_size, pixels.shape[3])

    def plain() -> Any:
        return cropkit.crop_and_resize(image, boxes, index, (24, 24))

    def plain_three() -> Any:
        cropkit.crop_and_resize_grad_image(grads, boxes, index, tuple(image.shape))
        cropkit.crop_and_resize_grad_boxes(grads, image, boxes, index)
        return plain()

    def both() -> Any:
        learned.grad = moved.grad = None
        crop_and_resize(learned, moved, index, (24, 24)).backward(grads)

    def step() -> Any:
        trained.grad = None
        crop_and_resize(trained, many, indices, maps.crop_size).backward(weights)

    def plain_step() -> Any:
        cropkit.crop_and_resize_grad_image(weights, many, indices, tuple(pixels.shape))
        return cropkit.crop_and_resize(pixels, many, indices, maps.crop_size)

    return {
        "5 boxes of 24x24x3": {
            OURS: lambda: crop_and_resize(image, boxes, index, (24, 24)), PLAIN: plain,
        },
        "5 boxes of 24x24x3, forward and backward": {OURS: both, PLAIN: plain_three},
        "`features`, forward and image backward": {OURS: step, PLAIN: plain_step},
    }  # fmt: skip


CASES = {"tensorflow": tensorflow_cases, "jax": jax_cases, "torch": torch_cases}
