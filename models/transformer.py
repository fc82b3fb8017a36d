"""Networks that transform each image before they classify it."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from low_rank_local_connectivity import SpatialTransformer2D

from .keras_settings import independent_of_keras_json

# Of the localization network.
FILTERS, UNITS = (16, 32), 32


@independent_of_keras_json
def transformer(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *choices: Any,
    network: Callable[..., keras.Model],
    weight_decay: float = 0.0,
    synchronized: bool = False,
    **arguments: Any,
) -> keras.Model:
    """Builds a network behind an affine spatial transformer, which starts as the identity.

    The transform is found by two 5x5 convolutions at stride 2, of 16 and 32 filters, and a dense
    layer of 32 units, all with ReLU, without weight decay and without normalisation.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        *choices: Further positional arguments of the network: its `convolutions`, if it has any.
        network: Function that builds the network.
        weight_decay: Passed to the network.
        synchronized: Passed to the network.
        **arguments: Further arguments of the network.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`. The network is its last layer.

    Example:
        >>> from .builders import resnet
        >>> transformer((32, 32, 3), 10, network=resnet, depth=18).layers[1].name
        'spatial_transformer'

    Reference:
        Jaderberg et al., "Spatial Transformer Networks", NIPS 2015.
    """
    inputs = keras.Input(image_shape, name="image")
    look = [
        layers.Conv2D(filters, 5, strides=2, padding="same", activation="relu")
        for filters in FILTERS
    ]
    localization = keras.Sequential(
        [*look, layers.Flatten(), layers.Dense(UNITS, activation="relu")], name="localization"
    )
    x = SpatialTransformer2D(localization, name="spatial_transformer")(inputs)
    arguments |= {"weight_decay": weight_decay, "synchronized": synchronized}
    classify = network(image_shape, num_classes, *choices, **arguments)
    return keras.Model(inputs, classify(x), name=f"transformer_{classify.name}")
