"""How the time grows with the boxes, the crop, the image and the threads."""

import os

import numpy as np

from cropkit import crop_and_resize

from . import workloads


class _Scaling:
    """One workload, `rgb_u8` unless said, with one size changed."""

    rounds = 2
    repeat = (3, 10, 0.5)
    sample_time = 0.01
    threads = os.cpu_count() or 1

    def prepare(self, name="rgb_u8", **changes):
        work = workloads.make(name, **changes)
        self.arguments = work.arguments
        self.out = np.zeros(work.result_shape, np.float32)
        self.run()

    def run(self):
        crop_and_resize(*self.arguments, out=self.out, num_threads=self.threads)


class Boxes(_Scaling):
    """1 to 1024 boxes: the first shows how one box is shared out."""

    params = ((1, 4, 16, 64, 256, 1024),)
    param_names = ("num_boxes",)

    def setup(self, num_boxes):
        self.prepare(num_boxes=num_boxes)

    def time_boxes(self, num_boxes):
        self.run()


class CropSize(_Scaling):
    """From where the tables and the boxes cost to where the pixels do."""

    params = ((7, 14, 28, 56, 112, 224, 448),)
    param_names = ("crop_size",)

    def setup(self, crop_size):
        self.prepare(crop_size=(crop_size, crop_size), num_boxes=64)

    def time_crop_size(self, crop_size):
        self.run()


class ImageSize(_Scaling):
    """From images that stay in the caches to those that do not; steps of 0.2 to 10."""

    params = ((128, 256, 512, 1024, 2048, 4096),)
    param_names = ("image_size",)

    def setup(self, image_size):
        self.prepare(image=(1, image_size, image_size, 3), num_boxes=64)

    def time_image_size(self, image_size):
        self.run()


class Threads(_Scaling):
    """One large call of a workload on 1 to 16 threads."""

    params = (("rgb_u8", "rgb_f32", "gray_u8", "features"), (1, 2, 4, 8, 16))
    param_names = ("workload", "threads")

    def setup(self, name, threads):
        if threads > (os.cpu_count() or 1):
            raise NotImplementedError(f"this machine has fewer than {threads} CPUs")
        self.threads = threads
        self.prepare(name)

    def time_threads(self, name, threads):
        self.run()
