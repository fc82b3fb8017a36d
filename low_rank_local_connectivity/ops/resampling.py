"""Resizing by linear interpolation with aligned corners, in any number of dimensions."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    positive_int,
    require_each,
    sequence,
    tensor,
)
from low_rank_local_connectivity.ops.constants import constant
from low_rank_local_connectivity.ops.precision import as_floats, matmul


def resize_aligned(inputs, output_shape: Sequence[int]):
    """Resizes the spatial axes linearly, corner elements staying corner elements.

    Along each axis output `i` of `o` reads position `i * (n - 1) / (o - 1)` of the `n` inputs
    (position 0 if `o == 1`), as TensorFlow 1's `resize_bilinear(align_corners=True)` did.

    Args:
        inputs: Tensor of shape `(batch, *spatial, channels)` of static spatial size.
        output_shape: The new length of each spatial axis, each at least 1.

    Returns:
        Tensor of shape `(batch, *output_shape, channels)`.

    Raises:
        ValueError: If `inputs` are of another kind or unknown size, or not one length is given for
            each spatial axis.

    Example:
        >>> x = ops.reshape(ops.array([0.0, 1.0]), (1, 2, 1))
        >>> ops.convert_to_numpy(resize_aligned(x, (5,)))[0, :, 0].tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    inputs = tensor("inputs", inputs, "bSc")
    lengths = [
        positive_int("output_shape", length)
        for length in sequence("output_shape", output_shape, "integers of at least 1")
    ]
    require_each("output_shape", lengths, len(inputs.shape) - 2, "the spatial axes of `inputs`")
    if None in inputs.shape[1:-1]:
        raise ValueError(
            "Only `inputs` of static spatial size can be resized. Received: inputs of shape "
            f"{tuple(inputs.shape)}."
        )
    (inputs,) = as_floats(inputs)
    for axis, outputs in enumerate(lengths, start=1):
        inputs = _resize_axis(inputs, axis, outputs)
    return inputs


def _resize_axis(inputs, axis: int, outputs: int):
    length = inputs.shape[axis]
    if outputs == length:
        return inputs
    if length == 1:
        return ops.repeat(inputs, outputs, axis=axis)
    # A small matrix product: faster than two gathers, whose gradients scatter.
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    weights = _INTERPOLATION(dtype, length, outputs)
    before, after = ops.shape(inputs)[:axis], ops.shape(inputs)[axis + 1 :]
    flat = ops.reshape(inputs, (-1, length, math.prod(inputs.shape[axis + 1 :])))
    return ops.reshape(matmul(weights, flat), (*before, outputs, *after))


def _interpolation(length: int, outputs: int) -> np.ndarray:
    """Returns the matrix whose row `i` holds what each input adds to output `i`."""
    positions = np.arange(outputs) * ((length - 1) / max(outputs - 1, 1))
    lower = np.minimum(np.floor(positions).astype("int32"), length - 2)
    fractions = positions - lower
    weights = np.zeros((outputs, length))
    weights[np.arange(outputs), lower] = 1 - fractions
    weights[np.arange(outputs), lower + 1] = fractions
    return weights


_INTERPOLATION = constant(_interpolation)
