"""How a crop is sampled: the options that say it, as one value from the call to the kernels."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Method = Literal["bilinear", "nearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the pixels of a crop are made from those of the image.

    Attributes
    ----------
    method : {"bilinear", "nearest"}
        Interpolation between pixels. Both methods have the box gradient of bilinear.
    """

    method: Method = "bilinear"


_SAMPLINGS: Final = {method: Sampling(method=method) for method in get_args(Method)}


def check_sampling(method: object) -> Sampling:
    """Return the sampling that the arguments of a call ask for."""
    sampling = _SAMPLINGS.get(method) if isinstance(method, str) else None
    if sampling is None:
        raise ValueError(f"method={method!r}: expected 'bilinear' or 'nearest'")
    return sampling
