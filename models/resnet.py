"""Residual networks, with an extra layer or other 3x3 layers of any kind."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import layers

from .convolutions import Convolution, Settings, convolution, kernel_decay
from .keras_settings import independent_of_keras_json
from .network import RESNET_STAGES
from .residual import FIRST_FILTERS, PLAIN, Block, SiteSkeleton, blocks_of, checked_replacements

STEMS = ("imagenet", "cifar")
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
    stem: Literal["imagenet", "cifar"] = "imagenet",
) -> keras.Model:
    """Builds a residual network, plain or with other layers inserted or in place of its own.

    A 7x7 convolution and a 3x3 max-pool, each at stride 2; four stages of residual blocks, at
    64, 128, 256 and 512 filters, of which all but the first halve the size; global average
    pooling and linear logits. Depths 18 and 34 have blocks of two 3x3 convolutions; 50 and 101
    have bottlenecks, `1x1, 3x3, 1x1`, of which the last has four times the filters. Where a stage
    halves the size, its first 3x3 convolution does so (the variant called v1.5). Convolutions
    have no bias and are followed by batch normalisation (momentum 0.9, epsilon 1e-5); kernels are
    initialised by `he_normal`, that of the logits by `glorot_uniform`. Logits are computed in
    float32 under every policy.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        depth: Layers of the plain network that have weights: 18, 34, 50 or 101.
        insert: Function that makes an additional layer before the max-pool, 3x3 with 64 filters
            at stride 1, followed by batch normalisation and ReLU; None for no such layer.
        replace: Functions that make every 3x3 convolution of a stage, for stages among `"conv2"`
            to `"conv5"`; the others keep plain convolutions.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty
            on them; the banks of a low-rank layer are kernels. Biases, normalisation and
            combining weights are not penalised.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.
        full: Whether convolutions are full, so that none can tell from the border where it is:
            maps grow by two at every 3x3 layer, the inputs of blocks are padded with zeros so that
            they are added in place, and the max-pool is 2x2 without padding. The inputs of other
            kinds of layers are padded just as much. This takes three times the operations at 224
            pixels, and far more for small images. The offsets of batch normalisation make the
            background differ from the zeros of the padding, so the invariance is not exact.
        stem: `"imagenet"`, as above, or `"cifar"`: a 3x3 convolution at stride 1 and no max-pool,
            so that images of 32 pixels still have 4x4 positions in the last stage.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`. Its layers are named
        `conv1`, `inserted`, `conv2_block1_1` and so on, and their normalisation `conv1_norm`.

    Raises:
        ValueError: If `depth`, a stage or `stem` is unknown, `weight_decay` is negative, or the
            stem of a full network is not the usual one.

    Example:
        >>> resnet((32, 32, 3), 1000, depth=18).count_params()
        11699112

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; inserted and
        replaced layers: Elsayed et al., ICML 2020, section 4.6; full convolutions: Kayhan and
        van Gemert, CVPR 2020.
    """
    if stem not in STEMS or (full and stem != "imagenet"):
        raise ValueError(
            "`stem` must be 'imagenet', or 'cifar' in a network that is not full. Received: "
            f"stem={stem!r} with full={full}."
        )
    blocks = blocks_of(depth)
    skeleton = _ResNet(
        kernel_regularizer=kernel_decay(weight_decay),
        synchronized=synchronized,
        padding="valid" if full else "same",
        insert=insert,
        replace=checked_replacements(replace, RESNET_STAGES),
        depth=depth,
        full=full,
        stem=stem,
    )
    name = f"{'full_' if full else ''}resnet{depth}"
    return skeleton.build(image_shape, num_classes, blocks, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ResNet(SiteSkeleton):
    depth: int
    full: bool = False
    stem: str = "imagenet"

    @property
    def has_bottlenecks(self) -> bool:
        return self.depth >= 50

    def add_stem(self, images: Any) -> Any:
        """Adds the 7x7 convolution, the additional layer and the max-pool; or a 3x3 for CIFAR."""
        if self.stem == "cifar":
            x = self.add_normalized(images, self.filters, 3, "conv1")
            return self.add_inserted(x, self.weights_reading_a_first_channel())
        x = self.add_normalized(images, self.filters, 7, "conv1", strides=2)
        x = self.add_inserted(x, self.weights_reading_a_first_channel())
        pool: dict[str, Any] = {"pool_size": 3, "padding": "same"}
        if self.full:
            pool = {"pool_size": 2}
        return layers.MaxPooling2D(**pool, strides=2, name="max_pooling")(x)

    def weights_reading_a_first_channel(self) -> int:
        """Returns the weights of the first block that read one channel of its input.

        Basic blocks have a projection there only if the channels are not 64, as after a wide layer.
        """
        if self.has_bottlenecks:
            return FIRST_FILTERS + 4 * FIRST_FILTERS
        return 9 * FIRST_FILTERS + FIRST_FILTERS

    def add_convolution(
        self,
        x: Any,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        make: Convolution = PLAIN,
        **facts: Any,
    ) -> Any:
        """Adds a layer; in a full network a full convolution, or another kind on more zeros."""
        if self.full and make is PLAIN:
            make = FULL
        elif self.full and kernel_size > 1:
            x = layers.ZeroPadding2D(kernel_size - 1, name=f"{name}_padding")(x)
        return super().add_convolution(x, filters, kernel_size, name, make=make, **facts)

    def add_residual(self, x: Any, block: Block) -> Any:
        """Adds the layers of a bottleneck, or two 3x3 ones."""
        if self.has_bottlenecks:
            return self.add_bottleneck(x, block)
        make, filters = self.maker(block), block.filters
        # The shortcut fixes the second's width, so a wide first one has the parameters of both.
        second = self.site(
            self.after_first(x, block), filters, 3, f"{block.name}_2", fixed_width=True
        )
        first = {"parameters_after_per_channel": 2 + 9 * filters, "makes_up_for": second}
        return self.add_two_convolutions(
            x, block, {"make": make, **first}, {"make": make, "fixed_width": True}
        )

    def after_first(self, x: Any, block: Block) -> tuple[int | None, ...]:
        """Returns the shape of what a basic block's second layer reads."""
        rows, columns = (
            None if size is None else self.length_after_first(size, block.strides)
            for size in x.shape[1:3]
        )
        return None, rows, columns, block.filters

    def length_after_first(self, length: int, strides: int) -> int:
        """Returns what a block's second 3x3 layer reads of an axis of the block's input."""
        if self.full:
            return (length + 1) // strides + 1 + 4
        return -(-length // strides)

    def add_shortcut(self, x: Any, residual: Any, block: Block) -> Any:
        """Adds a block's input, in a full network where the residual read around the same pixel."""
        if self.full:
            zeros = 1 if self.has_bottlenecks else 1 + block.strides
            x = layers.ZeroPadding2D(zeros, name=f"{block.name}_padding")(x)
        return super().add_shortcut(x, residual, block)
