"""BagNets: residual networks whose features see only small patches of the image."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import layers

from .convolutions import Convolution, kernel_decay
from .keras_settings import independent_of_keras_json
from .network import BAGNET_STAGES, BAGNET_STRIDES, RESNET_STAGES
from .residual import FIRST_FILTERS, Block, SiteSkeleton, blocks_of, checked_replacements


@independent_of_keras_json
def bagnet(
    image_shape: tuple[int, int, int],
    num_classes: int,
    receptive_field: int = 33,
    *,
    insert: Convolution | None = None,
    replace: Mapping[str, Convolution] | None = None,
    weight_decay: float = 0.0,
    synchronized: bool = False,
) -> keras.Model:
    """Builds a bag of local features: the logits are means over the logits of image patches.

    A ResNet-50 with nearly all of its 3x3 convolutions replaced by 1x1 ones: a 1x1 and a 3x3
    convolution at stride 1, then four stages of 3, 4, 6 and 3 bottleneck blocks with strides 2, 2,
    2 and 1. Only the first block of the first two, three or four stages has a 3x3 convolution,
    which gives a receptive field of 9, 17 or 33 pixels. Nothing is padded: as published, a block's
    input is cropped at the bottom and on the right before it is added. Convolutions have no bias
    and are followed by batch normalisation (momentum 0.9, epsilon 1e-5); kernels are initialised
    by `he_normal`. Logits are computed in float32 under every policy.

    Args:
        image_shape: `(height, width, channels)`, at least as large as the receptive field; the
            sizes may be None if no layer is inserted or replaced.
        num_classes: Number of logits.
        receptive_field: 9, 17 or 33.
        insert: Function that makes an additional layer before the stages, 3x3 with 64 filters at
            stride 1, followed by batch normalisation and ReLU, which widens the receptive field
            by 2; None for no such layer.
        replace: Functions that make the 3x3 convolution of a stage, for stages among `"conv2"` to
            `"conv5"` that have one; the others keep plain convolutions.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty
            on them.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: If the receptive field or a stage is unknown, or `weight_decay` is negative.

    Example:
        >>> bagnet((224, 224, 3), 1000).get_layer("pooling").input.shape
        (None, 24, 24, 2048)

    Reference:
        Brendel and Bethge, "Approximating CNNs with Bag-of-local-Features Models Works
        Surprisingly Well on ImageNet", ICLR 2019.
    """
    stages = _stages_with_3x3(receptive_field)
    skeleton = _BagNet(
        kernel_regularizer=kernel_decay(weight_decay),
        synchronized=synchronized,
        padding="valid",
        insert=insert,
        replace=checked_replacements(replace, stages),
        with_3x3=stages,
    )
    return skeleton.build(image_shape, num_classes, blocks_of(50), f"bagnet{receptive_field}")


def _stages_with_3x3(receptive_field: int) -> tuple[str, ...]:
    """Returns the names of the stages that begin with a 3x3 convolution."""
    if receptive_field not in BAGNET_STAGES:
        raise ValueError(
            f"`receptive_field` must be one of {', '.join(map(str, BAGNET_STAGES))}. Received: "
            f"receptive_field={receptive_field!r}. Choose one of these."
        )
    return RESNET_STAGES[: BAGNET_STAGES[receptive_field]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BagNet(SiteSkeleton):
    strides: ClassVar[tuple[int, ...]] = BAGNET_STRIDES

    with_3x3: tuple[str, ...]

    def add_stem(self, images: Any) -> Any:
        """Adds the 1x1 and the 3x3 convolution, and the additional layer."""
        x = self.add_normalized(images, self.filters, 1, "conv1_1", relu=False)
        x = self.add_normalized(x, self.filters, 3, "conv1_2")
        return self.add_inserted(x, FIRST_FILTERS + 4 * FIRST_FILTERS)

    def kernel_size(self, block: Block) -> int:
        """Returns the size of a block's widest kernel."""
        return 3 if block.number == 1 and block.stage in self.with_3x3 else 1

    def add_residual(self, x: Any, block: Block) -> Any:
        """Adds a bottleneck around a 3x3 or a 1x1 convolution."""
        return self.add_bottleneck(x, block, self.kernel_size(block))

    def add_shortcut(self, x: Any, residual: Any, block: Block) -> Any:
        """Adds a block's input without what the unpadded convolution has lost."""
        x = super().add_shortcut(x, residual, block)
        if self.kernel_size(block) == 1:
            return x
        # Three unpadded taps take 2 from an axis, of which a stride of 2 leaves 1.
        lost = (0, 2 // block.strides)
        return layers.Cropping2D((lost, lost), name=f"{block.name}_cropping")(x)
