"""Time of the gradients, on one thread and on all."""

import os

import numpy as np

from cropkit import crop_and_resize_grad_boxes, crop_and_resize_grad_image

from . import workloads

ALL_THREADS = os.cpu_count() or 1


class Gradients:
    """`out=` is reused: nobody pays for new pages."""

    params = (("image", "boxes"), workloads.GRADIENT_NAMES, ("float32", "float64"), ("1", "all"))
    param_names = ("gradient", "workload", "dtype", "threads")
    rounds = 2
    repeat = (3, 10, 0.5)
    sample_time = 0.01
    warmup_time = 0.1

    def setup(self, gradient, name, dtype, threads):
        if threads == "all" and ALL_THREADS == 1:
            raise NotImplementedError("this machine has one CPU")
        work = workloads.make_gradient(name)
        grads = workloads.crop_gradients(work)
        self.keywords = {"dtype": dtype, "num_threads": ALL_THREADS if threads == "all" else 1}
        if gradient == "image":
            self.function = crop_and_resize_grad_image
            self.arguments = (grads, work.boxes, work.box_indices, work.image.shape)
            self.keywords["out"] = np.zeros(work.image.shape, dtype)
        else:
            self.function = crop_and_resize_grad_boxes
            self.arguments = (grads, work.image, work.boxes, work.box_indices)
            self.keywords["out"] = np.zeros(work.boxes.shape, dtype)
        self.time_gradient(gradient, name, dtype, threads)

    def time_gradient(self, gradient, name, dtype, threads):
        self.function(*self.arguments, **self.keywords)
