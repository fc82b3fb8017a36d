"""Networks that straighten each image before they look at it."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from low_rank_local_connectivity import SpatialTransformer2D

from .keras_settings import independent_of_keras_json

# Of the network that looks for the transform.
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

    Two 5x5 convolutions at stride 2 with ReLU, of 16 and 32 filters, and a dense layer of 32 units
    with ReLU look at the image; what they find sets the transform. They have no weight decay and no
    normalisation.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        *choices: What else the network takes by position: its `convolutions`, if it has a choice.
        network: Function that builds what follows.
        weight_decay: As the network has it.
        synchronized: As the network has it.
        **arguments: What else the network takes.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`. The network is a layer of it.

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
