"""A small network of turned filters, whose answer does not change when the image is turned."""

import math
from typing import Any, Literal

import keras
from keras import layers

from low_rank_local_connectivity import (
    GroupBatchNormalization,
    GroupConv2D,
    GroupLiftConv2D,
    GroupPooling2D,
)

from .convolutions import kernel_decay
from .keras_settings import independent_of_keras_json

# Those of simple_network and the ResNets.
MOMENTUM, EPSILON = 0.9, 1e-5


@independent_of_keras_json
def group_network(
    image_shape: tuple[int, int, int],
    num_classes: int,
    filters: int = 64,
    kernel_size: int = 3,
    order: int = 4,
    weight_decay: float = 0.0,
    synchronized: bool = False,
    *,
    reflections: bool = False,
    basis: Literal["taps", "steerable"] = "taps",
) -> keras.Model:
    """Builds three layers of turned filters, pooling over orientations, and linear logits.

    As `simple_network`, except that layers are padded, and that the maps are halved after the
    first and the second by averages over 2x2 positions, or 3x3 at odd sizes, whose windows fall on
    the same pixels of a turned image. With `order` 4, turning a square image by 90 degrees leaves
    the logits unchanged up to rounding.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        filters: Filters of a `simple_network` with about as many parameters: each layer has
            `filters / sqrt(order)` filters, rounded, in `order` orientations, which makes
            `sqrt(order)` times as many maps; with `reflections`, `2 * order` in place of `order`.
        kernel_size: Taps per axis; odd.
        order: How many rotations.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty on
            them.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.
        reflections: Whether filters are mirrored, too, so that mirrored images get the same logits.
        basis: What filters are made of, as in `GroupLiftConv2D`.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: If `kernel_size` is even, or `weight_decay` negative.

    Example:
        >>> group_network((28, 28, 1), 10).count_params()
        74730

    Reference:
        Cohen and Welling, "Group Equivariant Convolutional Networks", ICML 2016.
    """
    regularizer = kernel_decay(weight_decay)
    inputs = x = keras.Input(image_shape, name="image")
    for index in range(3):
        kind = GroupConv2D if index else GroupLiftConv2D
        x = kind(
            group_filters(filters, order * (2 if reflections else 1)),
            kernel_size,
            order,
            padding="same",
            use_bias=False,
            kernel_regularizer=regularizer,
            reflections=reflections,
            basis=basis,
            name=f"layer_{index + 1}",
        )(x)
        x = normalize(x, f"batch_norm_{index + 1}", synchronized)
        x = layers.ReLU(name=f"relu_{index + 1}")(x)
        if index < 2:
            x = halve(x, f"halving_{index + 1}")
    x = GroupPooling2D(name="group_pooling")(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    outputs = layers.Dense(num_classes, kernel_regularizer=regularizer, name="logits")(x)
    return keras.Model(inputs, outputs, name="group_network")


def group_filters(filters: int, orientations: int) -> int:
    """Returns the number of filters with which layers have the parameters of plain ones.

    `filters / sqrt(orientations)`: a layer reads and makes a map for every filter in every
    orientation, and shares weights only among the maps that it makes.

    Example:
        >>> group_filters(64, 4), group_filters(64, 8)
        (32, 23)
    """
    return max(round(filters / math.sqrt(orientations)), 1)


def normalize(x, name: str, synchronized: bool) -> Any:
    """Adds batch normalisation, whose statistics all orientations share."""
    return GroupBatchNormalization(MOMENTUM, EPSILON, synchronized=synchronized, name=name)(x)


def halve(x, name: str, kind: Any = layers.AveragePooling3D) -> Any:
    """Adds a pooling that halves maps of known size and commutes with turning them.

    Its windows have 2 positions along an axis of even length and 3 along an odd one, where the
    first and the last window reach one position beyond the border. A single position stays as it
    is: PyTorch refuses a window that is larger.

    Args:
        x: Maps `(batch, height, width, order, channels)`.
        name: Name of the layer.
        kind: Pooling over three axes, the orientations being the third.

    Example:
        >>> tuple(halve(keras.ops.ones((1, 8, 7, 4, 5)), "halving").shape)
        (1, 4, 4, 4, 5)
    """
    sizes = (2 if size % 2 == 0 else min(size, 3) for size in x.shape[1:3])
    return kind((*sizes, 1), strides=(2, 2, 1), padding="same", name=name)(x)
