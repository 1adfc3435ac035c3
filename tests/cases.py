"""Cases that several tests share; those that the conformance suite has, too, come from it."""

from typing import Final

from cropkit.testing._arrays import (
    DEPTHS,
    GEOMETRIES,
    GEOMETRY_IDS,
    LAYOUTS,
    METHODS,
    OUT_LAYOUTS,
    SPECIAL,
    Geometry,
    dtype_of,
    empty_out,
    indices_of,
    memory_of,
    pixels,
)

__all__ = [
    "DEPTHS",
    "DTYPES",
    "GEOMETRIES",
    "GEOMETRY_IDS",
    "LAYOUTS",
    "METHODS",
    "OTHER_DTYPES",
    "OUT_LAYOUTS",
    "SPECIAL",
    "TENSORFLOW_DTYPES",
    "Geometry",
    "dtype_of",
    "empty_out",
    "indices_of",
    "memory_of",
    "pixels",
]

TENSORFLOW_DTYPES: Final = (
    "uint8", "uint16", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
)  # fmt: skip
OTHER_DTYPES: Final = ("bool", "uint32", "uint64", "bfloat16")
DTYPES: Final = TENSORFLOW_DTYPES + OTHER_DTYPES
