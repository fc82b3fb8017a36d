"""From logits to combining weights.

A tensor's name ends in its axes:

    O  output positions, one axis per spatial dimension (length 1: shared by all)
    o  output positions along one axis          k  filter bank
    b  batch, or no axis at all
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    one_of,
    positive_int,
    require_each,
    sequence,
    spatial_axes,
    tensor,
)
from low_rank_local_connectivity.ops.constants import plain_number
from low_rank_local_connectivity.ops.precision import at_least_float32, maximum, mean

Normalization = Literal["softmax", "norm"] | None

# The release's epsilon; it is below float16's smallest number, hence float32 below.
NORM_EPSILON = 1e-12


def sum_over_axes(parts: Sequence, axes: Sequence[int], dimensions: int):
    """Adds terms that each depend on one spatial axis, by broadcasting.

    `sums[i, j, k] = rows[i, k] + columns[j, k]` (equation 3 of the paper, in 2-D).

    Args:
        parts: One tensor of axes `ok` per entry of `axes`.
        axes: The spatial axis that each part runs along.
        dimensions: Number of spatial dimensions.

    Returns:
        Tensor of axes `Ok`, of length 1 along axes that no part runs along.

    Raises:
        ValueError: If there is no part, not one for each axis, or they differ in their banks.

    Example:
        >>> ops.shape(sum_over_axes([ops.ones((6, 4)), ops.ones((7, 4))], (0, 1), 2))
        (6, 7, 4)
    """
    dimensions = positive_int("dimensions", dimensions)
    axes = sequence("axes", axes, "spatial axes")
    spatial_axes("axes", axes, dimensions)
    parts = [tensor("parts", part, "ok") for part in sequence("parts", parts, "tensors of axes ok")]
    require_each("parts", parts, len(axes), "the axes")
    if len({plain_number(part_ok.shape[1]) for part_ok in parts}) != 1:
        raise ValueError(
            "`parts` must be at least one tensor, all with the same number of banks in the last "
            f"axis. Received: shapes {[tuple(part_ok.shape) for part_ok in parts]}."
        )
    total = None
    for part_ok, axis in zip(parts, axes, strict=True):
        length, rank = part_ok.shape
        shape = [1] * dimensions + [rank]
        shape[axis] = length
        part_Ok = ops.reshape(part_ok, shape)
        total = part_Ok if total is None else total + part_Ok
    return total


def normalize_logits(logits_Ok, normalization: Normalization):
    """Turns logits into combining weights, over the banks of each position.

    * `"softmax"`: `w_k = exp(l_k) / sum_j exp(l_j)` (equation 4 of the paper);
    * `"norm"`: `w_k = l_k / sqrt(max(sum_j l_j ** 2, 1e-12))`;
    * `None`: `w_k = l_k`.

    Args:
        logits_Ok: Logits; any axes may stand before the last.
        normalization: Which of the three.

    Returns:
        Combining weights in at least float32, whatever the data type of the logits, since in
        float16 the epsilon would underflow to 0 and zero logits would give NaN.

    Raises:
        ValueError: If `logits_Ok` is no tensor, or `normalization` none of the three.

    Example:
        >>> weights = normalize_logits(ops.array([[3.0, 4.0]]), "norm")
        >>> ops.convert_to_numpy(weights).round(6).tolist()
        [[0.6000000238418579, 0.800000011920929]]

    Reference:
        Elsayed et al., "Revisiting Spatial Invariance with Low-Rank Local Connectivity",
        ICML 2020, section 3.2.1.
    """
    # Of one axis too, the banks' alone.
    logits_Ok = tensor("logits_Ok", logits_Ok, "K")
    normalization = one_of("normalization", normalization, ("softmax", "norm", None))
    logits_Ok = ops.cast(logits_Ok, at_least_float32(logits_Ok))
    if normalization == "softmax":
        return ops.softmax(logits_Ok, axis=-1)
    if normalization == "norm":
        squares = ops.sum(ops.square(logits_Ok), axis=-1, keepdims=True)
        return logits_Ok * ops.rsqrt(maximum(squares, NORM_EPSILON))
    return logits_Ok


def total_variation(weights_bOk, axes: Iterable[int], power: Literal[1, 2]):
    """Returns how much weights differ between neighbours, along each of some axes, summed.

    `sum_axis mean |w[i + 1] - w[i]| ** power`; an axis of length 1, shared along, adds nothing.

    Args:
        weights_bOk: Weights whose lengths along `axes` are static.
        axes: The axes of `O`.
        power: 1 or 2.

    Returns:
        A scalar in at least float32.

    Example:
        >>> ramp = ops.reshape(ops.arange(5, dtype="float32"), (5, 1, 1))
        >>> float(total_variation(3 * ramp, (0, 1), 2))
        9.0

    Reference:
        Wang, Walters and Yu, "Approximately Equivariant Networks for Imperfectly Symmetric
        Dynamics", ICML 2022.
    """
    weights_bOk = ops.convert_to_tensor(weights_bOk)
    weights_bOk = ops.cast(weights_bOk, at_least_float32(weights_bOk))
    total: Any = ops.zeros((), dtype=weights_bOk.dtype)
    for axis in axes:
        if weights_bOk.shape[axis] == 1:
            continue
        before = (slice(None),) * axis
        steps = weights_bOk[(*before, slice(1, None))] - weights_bOk[(*before, slice(0, -1))]
        total = total + mean(
            ops.abs(steps) if power == 1 else ops.square(steps), axis=tuple(range(len(steps.shape)))
        )
    return total
