"""The largest or the mean element along an axis, of batches without examples too."""

from typing import Any, Literal

from keras import ops

from low_rank_local_connectivity.ops.precision import mean


def reduce_axis(tensor, mode: Literal["max", "mean"], axis: int) -> Any:
    """Returns the largest elements along an axis, or their mean.

    Example:
        >>> float(reduce_axis(ops.array([1.0, 3.0]), "max", axis=0))
        3.0
    """
    if mode == "mean":
        return mean(tensor, axis=axis)
    if 0 in tuple(tensor.shape):
        # Without elements there is nothing to choose, but Keras refuses to on PyTorch.
        return ops.sum(tensor, axis=axis)
    return ops.amax(tensor, axis=axis)
