"""Residual networks, with an extra layer or other 3x3 layers of any kind."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import layers

from .convolutions import Convolution, Settings, Site, convolution, kernel_decay
from .keras_settings import independent_of_keras_json
from .network import BLOCKS, RESNET_STAGES
from .normalization import batch_normalization

FIRST_FILTERS = 64
PLAIN = convolution("conv2d", Settings())
FULL = convolution("full_conv2d", Settings())


@independent_of_keras_json
def resnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    depth: Literal[18, 34, 50, 101] = 50,
    *,
    insert: Convolution | None = None,
    replace: Mapping[str, Convolution] | None = None,
    weight_decay: float = 0.0,
    synchronized: bool = False,
    full: bool = False,
) -> keras.Model:
    """Builds a residual network, plain or with the layers under study in it.

    A 7x7 convolution and a 3x3 max-pool, each at stride 2; four stages of residual blocks, at
    64, 128, 256 and 512 filters, of which all but the first halve the size; global average
    pooling and linear logits. Depths 18 and 34 have blocks of two 3x3 convolutions; 50 and 101
    have bottlenecks, `1x1, 3x3, 1x1`, whose last has four times the filters. Where a stage
    halves the size, a 3x3 convolution does (the variant called v1.5). Every convolution lacks a
    bias and is followed by batch normalisation (momentum 0.9, epsilon 1e-5); kernels start as
    `he_normal` has it, the logits' as `glorot_uniform`. Logits are computed in float32 under
    every policy.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        depth: Layers of the plain network that have weights: 18, 34, 50 or 101.
        insert: Way to make an additional layer, 3x3, of 64 filters, at stride 1, with batch
            normalisation and ReLU, before the max-pool; None for no such layer.
        replace: Way to make every 3x3 convolution of a stage, for the stages named `"conv2"` to
            `"conv5"`; the others keep plain ones.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty
            on them; banks of a low-rank layer are kernels. Biases, normalisation and what
            computes combining weights have none.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.
        full: Whether convolutions are full, so that none reads off the border where it is: maps
            grow by two at every 3x3 layer, inputs of blocks get zeros around them so that they
            are added where they were, and the max-pool is 2x2 without padding. Other kinds of
            layer get as many zeros around their input. At 224 pixels three times the operations;
            for small images far more. Normalisation's offsets make the background differ from
            the zeros of the padding, so that invariance is not exact.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`. Its layers are named
        `conv1`, `inserted`, `conv2_block1_1` and so on; normalisation has `_norm` behind that.

    Raises:
        ValueError: If `depth` or a stage is unknown, or `weight_decay` is negative.

    Example:
        >>> resnet((32, 32, 3), 1000, depth=18).count_params()
        11699112

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; inserted and
        replaced layers: Elsayed et al., ICML 2020, section 4.6; full convolutions: Kayhan and
        van Gemert, CVPR 2020.
    """
    replace = dict(replace or {})
    _check_arguments(depth, replace)
    graph = _Graph(kernel_decay(weight_decay), synchronized, full)
    add_block = _add_bottleneck if depth >= 50 else _add_basic_block
    inputs = keras.Input(image_shape, name="image")
    x = graph.convolve(inputs, FIRST_FILTERS, 7, "conv1", strides=2)
    if insert is not None:
        after = 2 + _parameters_reading_a_first_channel(depth)
        x = graph.convolve(
            x, FIRST_FILTERS, 3, "inserted", make=insert, parameters_after_per_channel=after
        )
    pool = {"pool_size": 2} if full else {"pool_size": 3, "padding": "same"}
    x = layers.MaxPooling2D(**pool, strides=2, name="max_pooling")(x)
    for index, (stage, blocks) in enumerate(zip(RESNET_STAGES, BLOCKS[depth], strict=True)):
        make = replace.get(stage, PLAIN)
        for block in range(blocks):
            strides = 2 if index > 0 and block == 0 else 1
            name = f"{stage}_block{block + 1}"
            x = add_block(graph, x, FIRST_FILTERS * 2**index, strides, make, name)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    # Dense itself is in float32, so that half precision rounds none of its sums of products.
    logits = layers.Dense(
        num_classes, kernel_regularizer=graph.kernel_regularizer, dtype="float32", name="logits"
    )
    return keras.Model(inputs, logits(x), name=f"{'full_' if full else ''}resnet{depth}")


def _check_arguments(depth: int, replace: Mapping[str, Convolution]) -> None:
    if depth not in BLOCKS:
        raise ValueError(
            f"`depth` must be one of {', '.join(map(str, BLOCKS))}. Received: depth={depth!r}. "
            "Choose one of these."
        )
    unknown = sorted(set(replace) - set(RESNET_STAGES))
    if unknown:
        raise ValueError(
            f"`replace` must map names among {', '.join(RESNET_STAGES)} to ways to make a layer. "
            f"Received: replace with {', '.join(map(repr, unknown))}. Name stages among these."
        )


def _parameters_reading_a_first_channel(depth: int) -> int:
    """Returns the weights of the first block that read one channel of its input.

    Basic blocks have a projection there only if the channels are not 64, as after a wide layer.
    """
    if depth >= 50:
        return FIRST_FILTERS + 4 * FIRST_FILTERS
    return 9 * FIRST_FILTERS + FIRST_FILTERS


@dataclasses.dataclass(frozen=True)
class _Graph:
    """Adds to a graph of layers, all kernels under one regularizer, all normalisation alike."""

    kernel_regularizer: Any
    synchronized: bool
    full: bool = False

    def convolve(
        self,
        x,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        make: Convolution = PLAIN,
        strides: int = 1,
        relu: bool = True,
        **about_the_site: Any,
    ):
        """Adds a layer, its normalisation and, unless a sum comes before it, ReLU."""
        if self.full and make is PLAIN:
            make = FULL
        elif self.full and kernel_size > 1:
            x = layers.ZeroPadding2D(kernel_size - 1, name=f"{name}_padding")(x)
        site = self.site(x.shape, filters, kernel_size, name, strides=strides, **about_the_site)
        x = make(site)(x)
        x = batch_normalization(f"{name}_norm", self.synchronized)(x)
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    def after_first(self, size: int, strides: int) -> int:
        """Returns what a block's second 3x3 layer reads of an axis of the block's input."""
        if self.full:
            return (size + 1) // strides + 1 + 4
        return -(-size // strides)

    def site(
        self, input_shape: tuple, filters: int, kernel_size: int, name: str, **changes: Any
    ) -> Site:
        """Returns the site of a layer for inputs of a shape."""
        return Site(
            filters,
            kernel_size,
            in_channels=input_shape[-1],
            in_size=tuple(input_shape[1:3]),
            # Padding alike on both sides, as other implementations have it, gives the same
            # sizes; at stride 2 and an even size its windows sit one element before these. Only
            # weights trained elsewhere could notice, and low-rank layers offer no other padding.
            padding="valid" if self.full else "same",
            kernel_initializer="he_normal",
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            **changes,
        )

    def add_shortcut(self, x, residual, strides: int, name: str, around: int):
        """Adds a block's input to its residual: projected where their shapes differ.

        Args:
            x: The block's input.
            residual: What is added to it.
            strides: Steps of the block.
            name: The block's name.
            around: Zeros around the input of a block of full convolutions, so that what is added
                was read around the same pixel.
        """
        channels = residual.shape[-1]
        if self.full:
            x = layers.ZeroPadding2D(around, name=f"{name}_padding")(x)
        if strides > 1 or x.shape[-1] != channels:
            x = self.convolve(x, channels, 1, f"{name}_shortcut", strides=strides, relu=False)
        x = layers.Add(name=f"{name}_add")([x, residual])
        return layers.ReLU(name=f"{name}_relu")(x)


def _add_basic_block(graph: _Graph, x, filters: int, strides: int, make: Convolution, name: str):
    """Adds a block of two 3x3 layers."""
    sizes = x.shape[1:3]
    rows, columns = (None if size is None else graph.after_first(size, strides) for size in sizes)
    # The shortcut fixes the second's width, so a wide first one has the parameters of both.
    second = graph.site((None, rows, columns, filters), filters, 3, f"{name}_2", fixed_width=True)
    residual = graph.convolve(
        x,
        filters,
        3,
        f"{name}_1",
        make=make,
        strides=strides,
        parameters_after_per_channel=2 + 9 * filters,
        makes_up_for=second,
    )
    residual = graph.convolve(
        residual, filters, 3, f"{name}_2", make=make, relu=False, fixed_width=True
    )
    return graph.add_shortcut(x, residual, strides, name, around=2 if strides == 1 else 3)


def _add_bottleneck(graph: _Graph, x, filters: int, strides: int, make: Convolution, name: str):
    """Adds a block of a 3x3 layer between 1x1 convolutions to fewer and to more channels."""
    residual = graph.convolve(x, filters, 1, f"{name}_1")
    residual = graph.convolve(
        residual,
        filters,
        3,
        f"{name}_2",
        make=make,
        strides=strides,
        parameters_after_per_channel=2 + 4 * filters,
    )
    residual = graph.convolve(residual, 4 * filters, 1, f"{name}_3", relu=False)
    return graph.add_shortcut(x, residual, strides, name, around=1)
