"""A residual network of turned filters."""

from typing import Any, Literal

import keras
from keras import layers

from low_rank_local_connectivity import GroupConv2D, GroupLiftConv2D, GroupPooling2D

from .convolutions import kernel_decay
from .group_network import group_filters, halve, normalize
from .keras_settings import independent_of_keras_json
from .network import BLOCKS, RESNET_STAGES

FIRST_FILTERS = 64


@independent_of_keras_json
def group_resnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: Literal[18, 34] = 18,
    order: int = 4,
    *,
    weight_decay: float = 0.0,
    synchronized: bool = False,
) -> keras.Model:
    """Builds a residual network whose logits stay when the image is turned.

    As `models.resnet`, with filters in `order` orientations, and with every window where it sits
    alike in a turned image. The first layer, at stride 2, has 6x6 taps on images of even size (7x7
    ones would need an odd size); the others are at stride 1, and where a ResNet halves its maps,
    2x2 averages come before the block, 3x3 ones at odd sizes. Layers have `1 / sqrt(order)` of a
    ResNet's filters and so about its parameters, at `order` times the operations. Orientations are
    pooled by their maximum, then positions by their mean. With `order` 4 the logits of a square
    image turned by 90 degrees are those of the image, up to rounding.

    Args:
        image_shape: `(height, width, channels)`, height and width both even or both odd.
        num_classes: Number of logits.
        depth: Layers of the network that have weights: 18 or 34.
        order: How many rotations.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty on
            them.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`, its layers named as those of
        `models.resnet`.

    Raises:
        ValueError: If `depth` is another one, or of height and width one is even and one odd.

    Example:
        >>> group_resnet((32, 32, 3), 1000).count_params()
        11427560

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Cohen and Welling,
        "Group Equivariant Convolutional Networks", ICML 2016.
    """
    _check_arguments(image_shape, depth)
    graph = _Graph(order, weight_decay, synchronized)
    inputs = keras.Input(image_shape, name="image")
    x = graph.lift(inputs, group_filters(FIRST_FILTERS, order))
    x = halve(x, "max_pooling", layers.MaxPooling3D)
    for index, (stage, blocks) in enumerate(zip(RESNET_STAGES, BLOCKS[depth], strict=True)):
        filters = group_filters(FIRST_FILTERS * 2**index, order)
        if index > 0:
            x = halve(x, f"{stage}_halving")
        for block in range(blocks):
            x = graph.add_block(x, filters, f"{stage}_block{block + 1}")
    x = GroupPooling2D(name="group_pooling")(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    # Dense itself is in float32, so that half precision rounds none of its sums of products.
    logits = layers.Dense(
        num_classes, kernel_regularizer=graph.regularizer, dtype="float32", name="logits"
    )
    return keras.Model(inputs, logits(x), name=f"group_resnet{depth}")


def _check_arguments(image_shape: tuple[int, int, int], depth: int) -> None:
    if depth not in (18, 34):
        raise ValueError(
            f"`depth` must be 18 or 34, of which the blocks are made here. Received: depth={depth}."
        )
    height, width, _ = image_shape
    if (height - width) % 2:
        raise ValueError(
            "Height and width of the images must both be even or both be odd, so that the first "
            "layer's windows sit alike in turned images. Received: "
            f"image_shape={tuple(image_shape)}. Pad the images to a square."
        )


class _Graph:
    """Adds to a graph of layers, all of one order, under one regularizer."""

    def __init__(self, order: int, weight_decay: float, synchronized: bool) -> None:
        self.order = order
        self.regularizer = kernel_decay(weight_decay)
        self.synchronized = synchronized

    def lift(self, images, filters: int) -> Any:
        """Adds the first layer, at stride 2."""
        if images.shape[1] % 2:
            arguments: dict[str, Any] = {"kernel_size": 7, "padding": "same"}
        else:
            images = layers.ZeroPadding2D(2, name="conv1_padding")(images)
            arguments = {"kernel_size": 6, "padding": "valid"}
        return self.convolve(images, filters, "conv1", kind=GroupLiftConv2D, strides=2, **arguments)

    def convolve(
        self,
        x,
        filters: int,
        name: str,
        *,
        kind: Any = GroupConv2D,
        relu: bool = True,
        kernel_size: int = 3,
        padding: str = "same",
        strides: int = 1,
    ) -> Any:
        """Adds a layer, its normalisation and, unless a sum comes before it, ReLU."""
        x = kind(
            filters,
            kernel_size,
            self.order,
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_regularizer=self.regularizer,
            name=name,
        )(x)
        x = normalize(x, f"{name}_norm", self.synchronized)
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    def add_block(self, x, filters: int, name: str) -> Any:
        """Adds two 3x3 layers and the block's input, projected if it has other channels."""
        residual = self.convolve(x, filters, f"{name}_1")
        residual = self.convolve(residual, filters, f"{name}_2", relu=False)
        if x.shape[-1] != filters:
            x = self.convolve(x, filters, f"{name}_shortcut", kernel_size=1, relu=False)
        x = layers.Add(name=f"{name}_add")([x, residual])
        return layers.ReLU(name=f"{name}_relu")(x)
