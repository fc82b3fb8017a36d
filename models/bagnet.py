"""BagNets: residual networks whose features see only small patches of the image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from .convolutions import Convolution, Settings, Site, convolution, kernel_decay
from .keras_settings import independent_of_keras_json
from .network import BAGNET_STAGES, BAGNET_STRIDES, BLOCKS, RESNET_STAGES
from .normalization import batch_normalization

FIRST_FILTERS = 64
PLAIN = convolution("conv2d", Settings())


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
    """Builds a bag of local features: logits are means of what patches of the image say.

    A ResNet-50 with nearly all of its 3x3 convolutions replaced by 1x1: a 1x1 and a 3x3
    convolution at stride 1, then four stages of 3, 4, 6 and 3 bottleneck blocks with strides 2, 2,
    2 and 1, of which only the first block of the first two, three or four stages has a 3x3
    convolution. That gives a receptive field of 9, 17 or 33 pixels. Nothing is padded: a block's
    input loses its last rows and columns before it is added, as published. Every convolution
    lacks a bias and is followed by batch normalisation (momentum 0.9, epsilon 1e-5); kernels
    start as `he_normal` has it. Logits are computed in float32 under every policy.

    Args:
        image_shape: `(height, width, channels)`, at least as large as the receptive field; sizes
            may be None where no layer is inserted or replaced.
        num_classes: Number of logits.
        receptive_field: 9, 17 or 33.
        insert: Way to make an additional layer, 3x3, of 64 filters, at stride 1, with batch
            normalisation and ReLU, before the stages, which widens the receptive field by 2; None
            for no such layer.
        replace: Way to make the 3x3 convolution of a stage, for stages named `"conv2"` to
            `"conv5"` that have one; the others keep plain ones.
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
    replace = dict(replace or {})
    _check_arguments(receptive_field, replace)
    graph = _Graph(kernel_decay(weight_decay), synchronized)
    inputs = keras.Input(image_shape, name="image")
    x = graph.convolve(inputs, FIRST_FILTERS, 1, "conv1_1", relu=False)
    x = graph.convolve(x, FIRST_FILTERS, 3, "conv1_2")
    if insert is not None:
        after = 2 + FIRST_FILTERS + 4 * FIRST_FILTERS
        x = graph.convolve(
            x, FIRST_FILTERS, 3, "inserted", make=insert, parameters_after_per_channel=after
        )
    for index, (stage, blocks) in enumerate(zip(RESNET_STAGES, BLOCKS[50], strict=True)):
        filters = FIRST_FILTERS * 2**index
        for block in range(blocks):
            first = block == 0
            x = graph.add_block(
                x,
                filters,
                3 if first and index < BAGNET_STAGES[receptive_field] else 1,
                BAGNET_STRIDES[index] if first else 1,
                replace.get(stage, PLAIN),
                f"{stage}_block{block + 1}",
            )
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    logits = layers.Dense(
        num_classes, kernel_regularizer=graph.kernel_regularizer, dtype="float32", name="logits"
    )
    return keras.Model(inputs, logits(x), name=f"bagnet{receptive_field}")


def _check_arguments(receptive_field: int, replace: Mapping[str, Convolution]) -> None:
    if receptive_field not in BAGNET_STAGES:
        raise ValueError(
            f"`receptive_field` must be one of {', '.join(map(str, BAGNET_STAGES))}. Received: "
            f"receptive_field={receptive_field!r}. Choose one of these."
        )
    wide = RESNET_STAGES[: BAGNET_STAGES[receptive_field]]
    unknown = sorted(set(replace) - set(wide))
    if unknown:
        raise ValueError(
            "`replace` must map names of stages with a 3x3 convolution to ways to make a layer, "
            f"here among {', '.join(wide)}. Received: replace with "
            f"{', '.join(map(repr, unknown))}. Name stages among these."
        )


@dataclasses.dataclass(frozen=True)
class _Graph:
    """Adds to a graph of layers, all kernels under one regularizer, all normalisation alike."""

    kernel_regularizer: Any
    synchronized: bool

    def convolve(
        self,
        x: Any,
        filters: int,
        size: int,
        name: str,
        *,
        strides: int = 1,
        make: Convolution = PLAIN,
        relu: bool = True,
        **about_the_site: Any,
    ) -> Any:
        """Adds an unpadded layer, its normalisation and, unless a sum follows, ReLU."""
        site = Site(
            filters,
            size,
            in_channels=x.shape[-1],
            in_size=tuple(x.shape[1:3]),
            strides=strides,
            kernel_initializer="he_normal",
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            **about_the_site,
        )
        x = batch_normalization(f"{name}_norm", self.synchronized)(make(site)(x))
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    def add_block(
        self, x: Any, filters: int, size: int, strides: int, make: Convolution, name: str
    ) -> Any:
        """Adds a bottleneck block around a layer of 3x3 or 1x1."""
        residual = self.convolve(x, filters, 1, f"{name}_1")
        residual = self.convolve(
            residual,
            filters,
            size,
            f"{name}_2",
            strides=strides,
            make=make if size > 1 else PLAIN,
            parameters_after_per_channel=2 + 4 * filters,
        )
        residual = self.convolve(residual, 4 * filters, 1, f"{name}_3", relu=False)
        if x.shape[-1] != 4 * filters:
            x = self.convolve(x, 4 * filters, 1, f"{name}_shortcut", strides=strides, relu=False)
        if size > 1:
            # What three unpadded taps take from an axis: 2, of which a stride of 2 leaves 1.
            lost = (0, 2 // strides)
            x = layers.Cropping2D((lost, lost), name=f"{name}_cropping")(x)
        x = layers.Add(name=f"{name}_add")([x, residual])
        return layers.ReLU(name=f"{name}_relu")(x)
