"""Filters turned by the rotations and reflections of a group, and spelled out as a plain kernel.

Axes: `h` and `w` row and column of a tap, `t` both flattened, `s` orientation of the input, `c`
input channel, `f` filter. The group of order `N` has the rotations by `360 r / N` degrees,
counter-clockwise as an image is seen with row 0 at the top; `r` is an orientation of the output.
With reflections there are as many more, mirrored before they are rotated: `PlaneGroup`.
"""

import functools
from typing import Literal, get_args

import numpy as np
from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    boolean,
    finite_number,
    one_of,
    positive_int,
    tensors,
)
from low_rank_local_connectivity.ops.constants import constant
from low_rank_local_connectivity.ops.plane_group import PlaneGroup
from low_rank_local_connectivity.ops.precision import as_floats, dtype_of, matmul
from low_rank_local_connectivity.ops.steerable import steerable_count, steerable_matrix

# What filters are made of: taps, turned by interpolation, or kernels that turn by any angle.
Basis = Literal["taps", "steerable"]
BASES = get_args(Basis)


def is_exact(order: int) -> bool:
    """Whether every rotation of the group only rearranges a kernel's taps.

    Example:
        >>> [order for order in range(1, 9) if is_exact(order)]
        [1, 2, 4]
    """
    return 4 % order == 0


def tap_count(kernel_size: int, order: int, basis: Basis = "taps") -> int:
    """Returns how many independent kernels of a size the rotations of a group can turn.

    With free taps as many as there are taps if the rotations are exact, else those in a disc of
    diameter `kernel_size`: what lies in the corners would leave the kernel on its way.

    Example:
        >>> [(tap_count(size, 4), tap_count(size, 8)) for size in (3, 5, 7)]
        [(9, 9), (25, 21), (49, 37)]
        >>> [tap_count(size, 8, "steerable") for size in (3, 5, 7)]
        [6, 12, 19]
    """
    if basis == "steerable":
        return steerable_count(kernel_size)
    return kernel_size**2 if is_exact(order) else int(_disc(kernel_size).sum())


def rotation_matrix(kernel_size: int, degrees: float, basis: Basis = "taps") -> np.ndarray:
    """Returns the matrix that turns a kernel's taps, both axes flattened row by row.

    With `basis="taps"`, tap `p` of the turned kernel reads the kernel bilinearly at the point that
    the rotation moves to `p`; taps outside of the disc of diameter `kernel_size` are not read. Each
    column is then divided by its sum, so that no weight gets lost: the sum of the taps, a filter's
    answer to a constant image, is the same in all orientations. Without that the error at 45
    degrees is several times larger.

    With `basis="steerable"` the matrix first projects the kernel on those that turn by any angle
    with an error of less than 5 % on smooth images. They are circular harmonics, of which a
    rotation changes the phase.

    Args:
        kernel_size: Taps per axis, `k`.
        degrees: Angle, counter-clockwise. A group needs those from 0 to below 90; the others
            follow by `rot90`.
        basis: `"taps"` or `"steerable"`.

    Returns:
        Array `(k * k, k * k)` in float32.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> matrix = rotation_matrix(5, 45.0)
        >>> int(matrix[2].argmax())  # (0, 2), above the centre, reads most of (1, 3)
        8
        >>> matrix.sum(0).round(5).tolist()[:5]  # without the corners
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    size, angle = positive_int("kernel_size", kernel_size), finite_number("degrees", degrees)
    return _turning_matrix(size, angle, one_of("basis", basis, BASES)).astype("float32")


@functools.cache
def _turning_matrix(kernel_size: int, degrees: float, basis: str) -> np.ndarray:
    """Returns `rotation_matrix` in float64."""
    if basis == "steerable":
        return steerable_matrix(kernel_size, degrees)
    centre = (kernel_size - 1) / 2
    rows, columns = np.indices((kernel_size, kernel_size)) - centre
    angle = np.deg2rad(degrees)
    read_rows = (centre + rows * np.cos(angle) + columns * np.sin(angle)).ravel()
    read_columns = (centre + columns * np.cos(angle) - rows * np.sin(angle)).ravel()
    taps = np.arange(kernel_size)
    by_row = np.clip(1 - np.abs(read_rows[:, None] - taps), 0, None)
    by_column = np.clip(1 - np.abs(read_columns[:, None] - taps), 0, None)
    matrix = (by_row[:, :, None] * by_column[:, None, :]).reshape(kernel_size**2, -1)
    matrix = np.where(_disc(kernel_size).ravel(), matrix, 0)
    sums = matrix.sum(0)
    return np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 1e-6)


def _disc(kernel_size: int) -> np.ndarray:
    """Returns which taps lie in the disc that touches the middle of the kernel's sides."""
    rows, columns = np.indices((kernel_size, kernel_size)) - (kernel_size - 1) / 2
    return np.hypot(rows, columns) <= kernel_size / 2


def expand_kernel(kernel_hwscf, order: int, reflections: bool = False, basis: Basis = "taps"):
    """Returns the plain kernel that applies filters in all orientations.

    `plain[:, :, s, :, r] = turn_r(kernel[:, :, (s - r) % order])`, and with one input orientation,
    `s = 0`, `plain[..., r, :] = turn_r(kernel)`. With reflections `turn_r` mirrors, too, and
    `s - r` is the product `r^-1 s` of the group.

    Args:
        kernel_hwscf: Tensor `(k, k, orientations, channels, filters)`, of 1 orientation or as many
            as the group has elements.
        order: How many rotations the group has.
        reflections: Whether it has as many reflections, too.
        basis: What filters are made of, as in `rotation_matrix`.

    Returns:
        Tensor `(k, k, orientations * channels, elements * filters)`, the orientation the slower
        index of both.

    Raises:
        ValueError: If the kernel has another shape, or an argument is out of range.

    Example:
        >>> ops.shape(expand_kernel(np.ones((3, 3, 4, 5, 6), "float32"), 4))
        (3, 3, 20, 24)
        >>> ops.shape(expand_kernel(np.ones((3, 3, 8, 5, 6), "float32"), 4, reflections=True))
        (3, 3, 40, 48)
    """
    (kernel_hwscf,) = tensors(kernel_hwscf=kernel_hwscf)
    group = PlaneGroup(positive_int("order", order), boolean("reflections", reflections))
    basis = one_of("basis", basis, BASES)
    size, columns, orientations, channels, filters = kernel_hwscf.shape
    if size != columns or orientations not in (1, group.size):
        counted = "`order`" if not reflections else "2 * `order`"
        raise ValueError(
            f"`kernel_hwscf` must have as many rows as columns, and 1 or {counted} orientations. "
            f"Received: kernel_hwscf of shape {tuple(kernel_hwscf.shape)} with order={order}."
        )
    turned = _rotations(kernel_hwscf, group, basis)
    if reflections:
        turned += _rotations(_mirrored(kernel_hwscf, group), group, basis)
    plain = ops.stack(turned, axis=-2)
    return ops.reshape(plain, (size, size, orientations * channels, group.size * filters))


def _rotations(kernel_hwscf, group: PlaneGroup, basis: Basis) -> list:
    """Returns a kernel turned by every rotation, its orientations moved on as far."""
    parts: dict[int, object] = {}
    turned = []
    for turns in range(group.order):
        quarters, part = divmod(4 * turns, group.order)
        if part not in parts:
            parts[part] = _turn_by_part(kernel_hwscf, part, group.order, basis)
        turned.append(_moved_on(_quarter_turns(parts[part], quarters), turns, group))
    return turned


def _moved_on(kernel_hwscf, turns: int, group: PlaneGroup):
    """Moves the orientations of a kernel on as a rotation does: `s` to where `s - turns` was."""
    size, _, orientations, channels, filters = kernel_hwscf.shape
    if orientations == 1:
        return kernel_hwscf
    if not group.reflections:
        return ops.roll(kernel_hwscf, turns, axis=2)
    # Mirrored orientations are moved on among themselves.
    apart = ops.reshape(kernel_hwscf, (size, size, 2, group.order, channels * filters))
    return ops.reshape(ops.roll(apart, turns, axis=3), kernel_hwscf.shape)


def _mirrored(kernel_hwscf, group: PlaneGroup):
    """Swaps left and right of a kernel and moves its orientations as that does.

    Orientation `r` is where the mirrored `-r` was, and the other way round.
    """
    size, _, orientations, channels, filters = kernel_hwscf.shape
    mirrored = ops.flip(kernel_hwscf, axis=1)
    if orientations == 1:
        return mirrored
    apart = ops.reshape(mirrored, (size, size, 2, group.order, channels * filters))
    opposite = ops.roll(ops.flip(apart, axis=3), 1, axis=3)
    return ops.reshape(ops.flip(opposite, axis=2), kernel_hwscf.shape)


def _quarter_turns(kernel_hwscf, quarters: int):
    """As `ops.rot90` over the first two axes, which has no counterpart in ONNX."""
    if quarters == 2:
        # One after the other: Keras 3.12 takes no two axes on TensorFlow.
        return ops.flip(ops.flip(kernel_hwscf, axis=0), axis=1)
    if quarters == 0:
        return kernel_hwscf
    turned = ops.transpose(kernel_hwscf, (1, 0, 2, 3, 4))
    return ops.flip(turned, axis=0 if quarters == 1 else 1)


def _turn_by_part(kernel_hwscf, part: int, order: int, basis: Basis):
    """Turns a kernel by `part / order` of 90 degrees."""
    if is_exact(order) and basis == "taps":
        return kernel_hwscf
    (kernel_hwscf,) = as_floats(kernel_hwscf)
    size = kernel_hwscf.shape[0]
    flat = ops.reshape(kernel_hwscf, (size * size, -1))
    matrix = _TURNING_MATRIX(dtype_of(flat), size, 90 * part / order, basis)
    return ops.reshape(matmul(matrix, flat), kernel_hwscf.shape)


_TURNING_MATRIX = constant(_turning_matrix)
