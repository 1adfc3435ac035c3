"""The same work through other libraries: what `peers` times and what `report` compares.

A peer is a class: its construction imports the library and makes what a user would have
beforehand (tensors, a session, the sampling grid); calling it does the work and returns the
crops in the library's own layout; `crops` turns them into ``[num_boxes, height, width, depth]``.
"""

import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .workloads import Workload


class CannotRunError(Exception):
    """The peer cannot do this work; the message says why."""


class Peer:
    """One library's way to do one workload by one method.

    Parameters
    ----------
    work : Workload
    method : {"bilinear", "nearest"}
    threads : int
        What the library is told to use.

    Raises
    ------
    ImportError
        The library is not installed.
    CannotRunError
        It cannot do this.
    """

    label: ClassVar[str]
    exact: ClassVar[bool] = False

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        raise NotImplementedError

    def __call__(self) -> Any:
        """Do the work once."""
        raise NotImplementedError

    def crops(self, result: Any) -> NDArray[Any]:
        """Return what a call returned, channels last."""
        return np.asarray(result)

    @staticmethod
    def pixels_off(work: Workload, method: str) -> float:
        """How many pixels away from the operator's position this may read."""
        # Halves round to even here and there, away from zero in the operator.
        return 0.01 if method == "bilinear" else 1.01


class TensorFlow(Peer):
    """`tf.image.crop_and_resize`, tensors made beforehand."""

    label = "TensorFlow"
    exact = True

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        import tensorflow as tf

        if tf.config.threading.get_intra_op_parallelism_threads() != threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        image, boxes, box_indices, crop_size = work.arguments
        tensors = [tf.constant(array) for array in (image, boxes, box_indices)]
        self.call = lambda: tf.image.crop_and_resize(*tensors, crop_size, method)

    def __call__(self) -> Any:
        """Do the work once."""
        return self.call()


class _OpenCV(Peer):
    """Per box, into a result of the image's dtype, which OpenCV cannot change on the way."""

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        import cv2

        depth = work.image.shape[3]
        if depth > 4:
            raise CannotRunError(f"{depth} channels: OpenCV's limit is 4 here")
        cv2.setNumThreads(threads)
        self.cv2, self.work = cv2, work
        self.linear = method == "bilinear"
        self.out: NDArray[Any] | None = None

    def __call__(self) -> Any:
        """Do the work once."""
        out = self.out
        if out is None:
            out = np.empty(self.work.result_shape, self.work.image.dtype)
        self.fill(out)
        return out

    def fill(self, out: NDArray[Any]) -> None:
        """Write every crop."""
        raise NotImplementedError

    def reuse(self) -> None:
        """Write into the same result from now on."""
        self.out = np.zeros(self.work.result_shape, self.work.image.dtype)


class OpenCVResize(_OpenCV):
    """`cv2.resize` of each box's slice: whole pixels, and another convention at the edges."""

    label = "OpenCV resize"

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        super().__init__(work, method, threads)
        size = np.array(work.image.shape[1:3] * 2) - 1
        first, last = np.split(np.rint(work.boxes * size).astype(int), 2, axis=1)
        self.slices = [
            work.image[i, y1 : y2 + 1, x1 : x2 + 1]
            for i, (y1, x1), (y2, x2) in zip(work.box_indices, first, last, strict=True)
        ]

    def fill(self, out: NDArray[Any]) -> None:
        """Write every crop."""
        height, width = self.work.crop_size
        flag = self.cv2.INTER_LINEAR if self.linear else self.cv2.INTER_NEAREST
        for pixels, crop in zip(self.slices, out, strict=True):
            self.cv2.resize(pixels, (width, height), dst=crop, interpolation=flag)

    @staticmethod
    def pixels_off(work: Workload, method: str) -> float:
        """On each axis, half a pixel by the slice and half a pixel and step by the convention."""
        sides = (work.boxes[:, 2:] - work.boxes[:, :2]) * work.image.shape[1:3]
        step = float((sides / work.crop_size).max())
        return (2.0 if method == "bilinear" else 3.0) + step


class OpenCVWarpAffine(_OpenCV):
    """`cv2.warpAffine` with each box's exact mapping; positions are rounded to 1/32 pixel."""

    label = "OpenCV warpAffine"

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        super().__init__(work, method, threads)
        _, height, width, _ = work.image.shape
        y1, x1, y2, x2 = work.boxes.astype(np.float64).T
        crop_height, crop_width = work.crop_size
        self.matrices = np.zeros((len(work.boxes), 2, 3))
        self.matrices[:, 0, 0] = (x2 - x1) * (width - 1) / (crop_width - 1)
        self.matrices[:, 0, 2] = x1 * (width - 1)
        self.matrices[:, 1, 1] = (y2 - y1) * (height - 1) / (crop_height - 1)
        self.matrices[:, 1, 2] = y1 * (height - 1)
        self.images = [work.image[i] for i in work.box_indices]

    def fill(self, out: NDArray[Any]) -> None:
        """Write every crop."""
        height, width = self.work.crop_size
        cv2 = self.cv2
        flags = (cv2.INTER_LINEAR if self.linear else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP
        for image, matrix, crop in zip(self.images, self.matrices, out, strict=True):
            cv2.warpAffine(
                image, matrix, (width, height), dst=crop, flags=flags,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip

    @staticmethod
    def pixels_off(work: Workload, method: str) -> float:
        """Positions are rounded; a uint8 result is too."""
        return 0.25 if method == "bilinear" else 1.01


class OnnxRuntime(Peer):
    """`com.microsoft.CropAndResize`: float32, channels first, both made so beforehand."""

    label = "ONNX Runtime"

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        import onnxruntime
        from onnx import TensorProto, helper

        image = np.ascontiguousarray(work.image.transpose(0, 3, 1, 2), np.float32)
        self.feed = {
            "image": image,
            "boxes": work.boxes,
            "box_indices": work.box_indices,
            "crop_size": np.array(work.crop_size, np.int32),
        }
        kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT32)
        node = helper.make_node(
            "CropAndResize", list(self.feed), ["crops"], domain="com.microsoft", mode=method
        )
        inputs = [
            helper.make_tensor_value_info(name, kind, array.shape)
            for (name, array), kind in zip(self.feed.items(), kinds, strict=True)
        ]
        output = helper.make_tensor_value_info("crops", TensorProto.FLOAT, None)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(
            helper.make_graph([node], "crop_and_resize", inputs, [output]),
            opset_imports=opsets, ir_version=8,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self) -> Any:
        """Do the work once."""
        return self.session.run(None, self.feed)[0]

    def crops(self, result: Any) -> NDArray[Any]:
        """Return what a call returned, channels last."""
        return np.asarray(result).transpose(0, 2, 3, 1)


class Torch(Peer):
    """`grid_sample`, once an image with its boxes stacked; float32, channels first.

    The grid, 8 bytes for each pixel of the crops, is made beforehand.
    """

    label = "torch grid_sample"

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.work, self.method, self.torch = work, method, torch
        crop_height, crop_width = work.crop_size
        ramp_y = np.linspace(0.0, 1.0, crop_height)[:, None]
        ramp_x = np.linspace(0.0, 1.0, crop_width)[None, :]
        self.order = np.argsort(work.box_indices, kind="stable")
        self.parts = []
        for index in np.unique(work.box_indices):
            boxes = work.boxes[work.box_indices == index].astype(np.float64)
            y1, x1, y2, x2 = (edge[:, None, None] for edge in boxes.T)
            y, x = np.broadcast_arrays(y1 + ramp_y * (y2 - y1), x1 + ramp_x * (x2 - x1))
            grid = np.stack([x, y], axis=-1).astype(np.float32) * 2 - 1
            image = work.image[index].transpose(2, 0, 1)[None]
            self.parts.append(
                (
                    torch.from_numpy(np.ascontiguousarray(image, np.float32)),
                    torch.from_numpy(grid.reshape(1, -1, crop_width, 2)),
                )
            )

    def __call__(self) -> Any:
        """Do the work once."""
        sample = self.torch.nn.functional.grid_sample
        with self.torch.inference_mode():
            return [
                sample(image, grid, self.method, padding_mode="border", align_corners=True)
                for image, grid in self.parts
            ]

    def crops(self, result: Any) -> NDArray[Any]:
        """Return what a call returned, channels last."""
        depth = self.work.image.shape[3]
        stacked = [
            part.numpy().reshape(depth, -1, *self.work.crop_size).transpose(1, 2, 3, 0)
            for part in result
        ]
        crops = np.empty(self.work.result_shape, np.float32)
        crops[self.order] = np.concatenate(stacked)
        return crops


class Cropkit(Peer):
    """`cropkit.crop_and_resize`, with a fresh result, or after `reuse` with ``out=``.

    `threads` is an upper limit, as for the others: a small call starts none. OpenMP must not
    have been loaded with another one.
    """

    label = "cropkit"
    exact = True

    def __init__(self, work: Workload, method: str, threads: int) -> None:
        from cropkit import crop_and_resize

        os.environ["OMP_NUM_THREADS"] = str(threads)
        self.work = work
        self.out: NDArray[Any] | None = None
        self.call: Callable[[], Any] = lambda: crop_and_resize(
            *work.arguments, method, out=self.out
        )

    def __call__(self) -> Any:
        """Do the work once."""
        return self.call()

    def reuse(self) -> None:
        """Write into the same result from now on."""
        self.out = np.zeros(self.work.result_shape, np.float32)


def check(peer: Peer, work: Workload, method: str, expected: NDArray[np.float32]) -> None:
    """Raise unless `peer` computes `expected`, the operator's crops of `workloads.smooth`.

    Crop pixels that the operator extrapolates are left out: it does so where rounding pushes
    the last sample just past the image, and the others do not.
    """
    crops = peer.crops(peer()).astype(np.float32)
    if peer.exact:
        if not np.array_equal(crops, expected):
            raise AssertionError(f"{peer.label}, {work.name}, {method}: not TensorFlow's bits")
        return
    pixel = max(float(np.abs(np.diff(work.image.astype(np.float32), axis=a)).max()) for a in (1, 2))
    allowed = pixel * peer.pixels_off(work, method)
    worst = float(np.abs(crops - expected)[expected != 0].max())
    if worst > allowed:
        raise AssertionError(
            f"{peer.label}, {work.name}, {method}: off by {worst:.3f}, more than {allowed:.3f}"
        )


PEERS: dict[str, type[Peer]] = {
    peer.label: peer
    for peer in (TensorFlow, OpenCVResize, OpenCVWarpAffine, OnnxRuntime, Torch, Cropkit)
}
