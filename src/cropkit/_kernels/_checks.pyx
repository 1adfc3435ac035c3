"""Checks of every entry of an argument, in one pass and without temporaries."""

from libc.math cimport isfinite

ctypedef fused real:
    float
    double


cdef Py_ssize_t _first_bad_box(const real[:, ::1] boxes) noexcept nogil:
    cdef Py_ssize_t i, j
    for i in range(boxes.shape[0]):
        for j in range(4):
            if not isfinite(boxes[i, j]):
                return i
    return -1


def first_bad_box_float32(const float[:, ::1] boxes):
    """Row of the first box that is not finite, or -1."""
    return _first_bad_box(boxes)


def first_bad_box_float64(const double[:, ::1] boxes):
    """Row of the first box that is not finite, or -1."""
    return _first_bad_box(boxes)


def first_bad_index(const Py_ssize_t[::1] indices, Py_ssize_t batch):
    """Position of the first index outside ``[0, batch)``, or -1."""
    cdef Py_ssize_t i
    for i in range(indices.shape[0]):
        if indices[i] < 0 or indices[i] >= batch:
            return i
    return -1
