"""Networks on scale spaces: what they compute of an image they compute of a smaller one too."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import layers

from low_rank_local_connectivity import (
    DeformableScaleConv2D,
    OverLevels,
    ScaleConv2D,
    ScalePooling2D,
    ScaleSpaceLifting2D,
)

from .convolutions import kernel_decay
from .keras_settings import independent_of_keras_json
from .network import BLOCKS, RESNET_STAGES
from .normalization import batch_normalization
from .scales import Scales

# Makes a layer from the arguments of a ScaleConv2D.
ScaleConvolution = Callable[..., Any]
KINDS: dict[str, ScaleConvolution] = {
    "scale_conv2d": ScaleConv2D,
    "deformable_scale_conv2d": DeformableScaleConv2D,
}
Pooling = Literal["max", "average"]


@independent_of_keras_json
def scale_network(
    image_shape: tuple[int | None, int | None, int],
    num_classes: int,
    filters: int = 64,
    kernel_size: int = 3,
    num_layers: int = 3,
    *,
    scales: Scales | None = None,
    convolution: ScaleConvolution | str = "scale_conv2d",
    scale_pooling: Literal["max", "mean"] = "max",
    pooling: Pooling = "max",
    weight_decay: float = 0.0,
    synchronized: bool = False,
) -> keras.Model:
    """Builds a small network: a few convolutions of a scale space, each with the image's size.

    Each is without bias and followed by batch normalisation, whose statistics all levels share,
    and ReLU. Then the levels are pooled, and the positions, before linear logits.

    Args:
        image_shape: `(height, width, channels)`; unknown sizes are None.
        num_classes: Number of logits.
        filters: Filters of each convolution.
        kernel_size: Taps per axis.
        num_layers: Number of convolutions.
        scales: The scale space; `Scales()` if None.
        convolution: `"scale_conv2d"`, `"deformable_scale_conv2d"`, or what makes a layer from the
            arguments of a `ScaleConv2D`.
        scale_pooling: How levels are pooled.
        pooling: How positions are pooled. The largest response of a smaller image is about the
            same; the mean falls with the size of what is around it.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: If `weight_decay` is negative, `pooling` is unknown, or a layer refuses what
            `scales` has.

    Example:
        >>> model = scale_network((28, 28, 1), 10, scales=Scales(3, interaction=2))
        >>> model.count_params()
        150026

    Reference:
        Worrall and Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019.
    """
    make = KINDS[convolution] if isinstance(convolution, str) else convolution
    graph = _Graph(scales or Scales(), make, kernel_decay(weight_decay), synchronized)
    inputs = keras.Input(image_shape, name="image")
    x = graph.lift(inputs)
    for index in range(num_layers):
        x = graph.convolve(x, filters, kernel_size, f"layer_{index + 1}")
    outputs = graph.classify(x, num_classes, scale_pooling, pooling)
    return keras.Model(inputs, outputs, name="scale_network")


@independent_of_keras_json
def scale_resnet(
    image_shape: tuple[int | None, int | None, int],
    num_classes: int,
    depth: Literal[18, 34] = 18,
    filters: int = 64,
    *,
    scales: Scales | None = None,
    convolution: ScaleConvolution | str = "scale_conv2d",
    scale_pooling: Literal["max", "mean"] = "max",
    pooling: Pooling = "average",
    weight_decay: float = 0.0,
    synchronized: bool = False,
) -> keras.Model:
    """Builds a residual network on a scale space.

    As `models.resnet` of that depth, except that every convolution is one of the scale space, and
    that the first block's stride halves the size where the other has a max-pool, which would not
    commute with a change of scale. Every level has the work of the ordinary network, unless they
    form a pyramid.

    Args:
        image_shape: As `scale_network`.
        num_classes: Number of logits.
        depth: Layers: 18 or 34.
        filters: Filters of the first stage; each further one has twice as many.
        scales: As `scale_network`.
        convolution: As `scale_network`; of the 3x3 convolutions.
        scale_pooling: As `scale_network`.
        pooling: How positions are pooled.
        weight_decay: As `scale_network`.
        synchronized: As `scale_network`.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: As `scale_network`, or if `depth` is another.

    Example:
        >>> scale_resnet((32, 32, 3), 1000).count_params()
        11703464

    Reference:
        Worrall and Welling, NeurIPS 2019; He et al., CVPR 2016.
    """
    if depth not in (18, 34):
        raise ValueError(f"`depth` must be 18 or 34. Received: depth={depth!r}.")
    make = KINDS[convolution] if isinstance(convolution, str) else convolution
    graph = _Graph(scales or Scales(), make, kernel_decay(weight_decay), synchronized)
    inputs = keras.Input(image_shape, name="image")
    x = graph.convolve(graph.lift(inputs), filters, 7, "conv1", strides=2, make=ScaleConv2D)
    for index, (stage, blocks) in enumerate(zip(RESNET_STAGES, BLOCKS[depth], strict=True)):
        for block in range(blocks):
            strides = 2 if block == 0 else 1
            x = graph.add_block(x, filters * 2**index, strides, f"{stage}_block{block + 1}")
    outputs = graph.classify(x, num_classes, scale_pooling, pooling)
    return keras.Model(inputs, outputs, name=f"scale_resnet{depth}")


@dataclasses.dataclass(frozen=True)
class _Graph:
    """Adds to a graph of layers on one scale space, a tensor or a list of levels."""

    scales: Scales
    convolution: ScaleConvolution
    kernel_regularizer: Any
    synchronized: bool

    def lift(self, images):
        """Adds the lifting."""
        return ScaleSpaceLifting2D(**self.scales.lifting(), name="lifting")(images)

    def convolve(
        self,
        x,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        strides: int = 1,
        relu: bool = True,
        make: ScaleConvolution | None = None,
    ):
        """Adds a convolution, its normalisation and, unless a sum comes before it, ReLU."""
        arguments = self.scales.convolution()
        if kernel_size == 1:
            arguments["interaction"] = 1
        x = (make or self.convolution)(
            filters,
            kernel_size,
            strides=strides,
            use_bias=False,
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            **arguments,
        )(x)
        normalize: Any = batch_normalization(f"{name}_norm", self.synchronized)
        if self.scales.pyramid:
            normalize = OverLevels(normalize, name=f"{name}_norm_over_levels")
        x = normalize(x)
        return self.relu(x, f"{name}_relu") if relu else x

    def relu(self, x, name: str):
        """Adds ReLU."""
        if not self.scales.pyramid:
            return layers.ReLU(name=name)(x)
        return [layers.ReLU(name=f"{name}_{k}")(level) for k, level in enumerate(x)]

    def add(self, x, residual, name: str):
        """Adds a sum."""
        if not self.scales.pyramid:
            return layers.Add(name=name)([x, residual])
        pairs = enumerate(zip(x, residual, strict=True))
        return [layers.Add(name=f"{name}_{k}")(list(pair)) for k, pair in pairs]

    def add_block(self, x, filters: int, strides: int, name: str):
        """Adds a block of two 3x3 convolutions and its shortcut, projected where it strides."""
        residual = self.convolve(x, filters, 3, f"{name}_1", strides=strides)
        residual = self.convolve(residual, filters, 3, f"{name}_2", relu=False)
        if strides > 1:
            shortcut = f"{name}_shortcut"
            x = self.convolve(
                x, filters, 1, shortcut, strides=strides, relu=False, make=ScaleConv2D
            )
        return self.relu(self.add(x, residual, f"{name}_add"), f"{name}_relu")

    def classify(self, x, num_classes: int, scale_pooling: Any, pooling: Pooling):
        """Adds the poolings and the logits."""
        if pooling not in ("max", "average"):
            raise ValueError(
                f"`pooling` must be one of 'max', 'average'. Received: pooling={pooling!r}."
            )
        x = ScalePooling2D(scale_pooling, name="scale_pooling")(x)
        kinds = {"max": layers.GlobalMaxPooling2D, "average": layers.GlobalAveragePooling2D}
        x = kinds[pooling](name="pooling")(x)
        # Dense itself is in float32, so that half precision rounds none of its sums of products.
        logits = layers.Dense(
            num_classes, kernel_regularizer=self.kernel_regularizer, dtype="float32", name="logits"
        )
        return logits(x)
