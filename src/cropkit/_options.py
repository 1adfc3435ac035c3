"""The options of a call besides arrays and sizes, as the modules for frameworks pass them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from cropkit._arguments import check_dtype, check_extrapolation_value, check_num_threads
from cropkit._sampling import Method, check_sampling


class Options(NamedTuple):
    """Checked options of a call; hashable, so that they can be part of a traced graph."""

    method: Method
    extrapolation_value: float
    dtype: np.dtype[Any]
    num_threads: int | None
    backend: str | None

    @property
    def of_gradients(self) -> dict[str, Any]:
        """The keyword arguments of both gradient functions, except `dtype`."""
        return {
            "method": self.method, "num_threads": self.num_threads, "backend": self.backend,
        }  # fmt: skip

    @property
    def of_crops(self) -> dict[str, Any]:
        """The keyword arguments of `cropkit.crop_and_resize`, except `dtype`."""
        return {**self.of_gradients, "extrapolation_value": self.extrapolation_value}


def check_options(
    method: object,
    extrapolation_value: object,
    dtype: DTypeLike,
    num_threads: object,
    backend: str | None,
) -> Options:
    """Check the options of a call as `cropkit.crop_and_resize` does."""
    return Options(
        check_sampling(method).method,
        check_extrapolation_value(extrapolation_value),
        check_dtype(dtype),
        check_num_threads(num_threads),
        backend,
    )
