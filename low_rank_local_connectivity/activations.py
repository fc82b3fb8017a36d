"""Activations that Keras does not have."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
def keras2_hard_sigmoid(x: Any) -> Any:
    """Keras 2's `hard_sigmoid`, from which Keras 3's of the same name differs by up to 0.083.

    `clip(0.2 x + 0.5, 0, 1)`

    where Keras 3's is `clip(x / 6 + 0.5, 0, 1)`. `legacy.load_model` puts it wherever a file of
    Keras 2 has `hard_sigmoid`; give it as `activation` or `recurrent_activation` when rebuilding
    such a model by hand.

    Args:
        x: Tensor of floats.

    Returns:
        Tensor of the same shape and dtype.

    Example:
        >>> round(float(keras2_hard_sigmoid(ops.array(1.5))), 3)
        0.8
        >>> round(float(keras.activations.hard_sigmoid(ops.array(1.5))), 3)
        0.75

    Reference:
        Keras 2.15, `keras/activations.py`.
    """
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)
