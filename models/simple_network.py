"""The three-layer network of the paper's experiments on small images."""

from collections.abc import Sequence

import keras
from keras import layers

from low_rank_local_connectivity import AddCoordinates2D

from .convolutions import Convolution, Site, kernel_decay
from .keras_settings import independent_of_keras_json
from .normalization import batch_normalization


@independent_of_keras_json
def simple_network(
    image_shape: tuple[int, ...],
    num_classes: int,
    convolutions: Sequence[Convolution],
    filters: int = 64,
    kernel_size: int = 3,
    batch_norm: bool = True,
    coord_conv: bool = False,
    pooling: bool = True,
    weight_decay: float = 0.0,
    synchronized: bool = False,
) -> keras.Model:
    """Builds the network: local layers, unpadded, at stride 1, then linear logits.

    Each layer is followed by batch normalisation (momentum 0.9, epsilon 1e-5) and ReLU; global
    average pooling or flattening leads to the logits.

    Args:
        image_shape: `(height, width, channels)`; `(length, channels)` for signals and
            `(depth, height, width, channels)` for volumes.
        num_classes: Number of logits.
        convolutions: For each layer, the function that makes it.
        filters: Filters of each layer.
        kernel_size: Taps per axis.
        batch_norm: Whether batch normalisation follows each layer.
        coord_conv: Whether two channels of coordinates are added to the image: the paper's
            CoordConv baseline, in which only the first layer sees them.
        pooling: Whether to average over positions before the logits, instead of flattening.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty
            on them; the banks of a low-rank layer count as kernels, biases and normalisation do
            not.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: If `weight_decay` is negative, or coordinates are asked for other inputs than
            images.

    Example:
        >>> from .convolutions import Settings, convolution
        >>> makers = [convolution("conv2d", Settings())] * 3
        >>> simple_network((28, 28, 1), 10, makers).count_params()
        75722

    Reference:
        Elsayed et al., "Revisiting Spatial Invariance with Low-Rank Local Connectivity",
        ICML 2020, section 4.
    """
    regularizer = kernel_decay(weight_decay)
    inputs = keras.Input(image_shape, name="image")
    x = inputs
    if coord_conv:
        if len(image_shape) != 3:
            raise ValueError(
                "`coord_conv` needs images. Received: coord_conv=True with "
                f"image_shape={image_shape}. Leave it out."
            )
        x = AddCoordinates2D(name="coordinates")(x)
    for index, make in enumerate(convolutions):
        site = Site(
            filters,
            kernel_size,
            in_channels=x.shape[-1],
            last=index == len(convolutions) - 1,
            normalized=batch_norm,
            kernel_regularizer=regularizer,
            in_size=tuple(x.shape[1:-1]),
            name=f"layer_{index + 1}",
        )
        x = make(site)(x)
        if batch_norm:
            x = batch_normalization(f"batch_norm_{index + 1}", synchronized)(x)
        x = layers.ReLU(name=f"relu_{index + 1}")(x)
    average = getattr(layers, f"GlobalAveragePooling{len(image_shape) - 1}D")
    x = average(name="pooling")(x) if pooling else layers.Flatten()(x)
    outputs = layers.Dense(num_classes, kernel_regularizer=regularizer, name="logits")(x)
    return keras.Model(inputs, outputs, name="simple_network")
