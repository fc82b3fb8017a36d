"""The biases of layers: their weights, and their sum with outputs."""

from typing import Any

import numpy as np
from keras import ops


def add_bias(layer: Any, shape: tuple[Any, ...] | None = None, **arguments: Any) -> Any:
    """Adds to a layer the weight of its bias, if it has one.

    Args:
        layer: A layer with `filters`, `use_bias`, and initializer, regularizer and constraint of
            the bias.
        shape: Shape of the weight; `(filters,)` if None.
        **arguments: Arguments of `add_weight` in which the bias differs from those of others.

    Returns:
        The weight, or None.
    """
    if not layer.use_bias:
        return None
    usual = {
        "initializer": layer.bias_initializer,
        "regularizer": layer.bias_regularizer,
        "constraint": layer.bias_constraint,
        "name": "bias",
    }
    return layer.add_weight(shape=shape or (layer.filters,), **{**usual, **arguments})


def with_biases(outputs: Any, *biases: Any) -> Any:
    """Returns channels-last outputs with biases added, of which None is none.

    Summed first, since an addition to the outputs costs a tenth of a convolution; to one shape,
    since Keras may add what has a single long axis along another axis of that length.

    Example:
        >>> outputs = with_biases(ops.zeros((1, 2, 3)), ops.ones((3,)), None, ops.ones((2, 1)))
        >>> tuple(outputs.shape)
        (1, 2, 3)
    """
    given = [bias for bias in biases if bias is not None]
    if not given:
        return outputs
    shape = np.broadcast_shapes(*(tuple(bias.shape) for bias in given))
    first, *rest = (ops.broadcast_to(bias, shape) for bias in given)
    return outputs + ops.cast(sum(rest, start=first), outputs.dtype)
