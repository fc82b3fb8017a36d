"""Networks on scale spaces, which respond to a smaller copy of an image as to the image."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

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
from .normalization import batch_normalization
from .residual import Block, ResidualSkeleton, blocks_of
from .scales import Scales

# Makes a layer from the arguments of a ScaleConv2D.
ScaleConvolution = Callable[..., Any]
KINDS: dict[str, ScaleConvolution] = {
    "scale_conv2d": ScaleConv2D,
    "deformable_scale_conv2d": DeformableScaleConv2D,
}
Pooling = Literal["max", "average"]
POOLINGS = {"max": layers.GlobalMaxPooling2D, "average": layers.GlobalAveragePooling2D}


@independent_of_keras_json
def simple_scale_network(
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
    """Builds a small network: a few convolutions on a scale space, at the size of the image.

    Convolutions have no bias and are followed by batch normalisation, whose statistics all levels
    share, and ReLU. Then the levels and the positions are pooled, and linear logits follow.

    Args:
        image_shape: `(height, width, channels)`; unknown sizes are None.
        num_classes: Number of logits.
        filters: Filters of each convolution.
        kernel_size: Taps per axis.
        num_layers: Number of convolutions.
        scales: The scale space; `Scales()` if None.
        convolution: `"scale_conv2d"`, `"deformable_scale_conv2d"`, or a function that makes a
            layer from the arguments of a `ScaleConv2D`.
        scale_pooling: How levels are pooled.
        pooling: How positions are pooled. The largest response hardly changes when what is shown
            is smaller; the mean falls as more of its surroundings are seen.
        weight_decay: Factor of the kernels, the logits' included, in the gradient of a penalty.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: If `weight_decay` is negative, `pooling` is unknown, or a layer refuses a
            setting of `scales`.

    Example:
        >>> model = simple_scale_network((28, 28, 1), 10, scales=Scales(3, interaction=2))
        >>> model.count_params()
        150026

    Reference:
        Worrall and Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019.
    """
    skeleton = _skeleton(
        scales=scales,
        convolution=convolution,
        scale_pooling=scale_pooling,
        pooling=pooling,
        weight_decay=weight_decay,
        synchronized=synchronized,
    )
    inputs = keras.Input(image_shape, name="image")
    x = skeleton.add_lifting(inputs)
    for index in range(num_layers):
        x = skeleton.add_normalized(
            x, filters, kernel_size, f"layer_{index + 1}", make=skeleton.make
        )
    outputs = skeleton.add_logits(skeleton.add_pooling(x), num_classes)
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

    As `models.resnet` of the same depth, except that every convolution is on the scale space, and
    that the first block strides in place of a max-pool, which would not commute with a change of
    scale. Each level takes as many operations as the ordinary network, unless the levels form a
    pyramid.

    Args:
        image_shape: As `simple_scale_network`.
        num_classes: Number of logits.
        depth: Layers: 18 or 34.
        filters: Filters of the first stage; each further one has twice as many.
        scales: As `simple_scale_network`.
        convolution: As `simple_scale_network`; of the 3x3 convolutions.
        scale_pooling: As `simple_scale_network`.
        pooling: How positions are pooled.
        weight_decay: As `simple_scale_network`.
        synchronized: As `simple_scale_network`.

    Returns:
        Model from images to logits of shape `(batch, num_classes)`.

    Raises:
        ValueError: As `simple_scale_network`, or if `depth` is another number.

    Example:
        >>> scale_resnet((32, 32, 3), 1000).count_params()
        11703464

    Reference:
        Worrall and Welling, NeurIPS 2019; He et al., CVPR 2016.
    """
    blocks = blocks_of(depth, (18, 34))
    skeleton = _skeleton(
        filters=filters,
        scales=scales,
        convolution=convolution,
        scale_pooling=scale_pooling,
        pooling=pooling,
        weight_decay=weight_decay,
        synchronized=synchronized,
    )
    return skeleton.build(image_shape, num_classes, blocks, f"scale_resnet{depth}")


def _skeleton(
    scales: Scales | None,
    convolution: ScaleConvolution | str,
    pooling: Pooling,
    weight_decay: float,
    **others: Any,
) -> "_ScaleSkeleton":
    """Returns the skeleton with its arguments checked."""
    if pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of 'max', 'average'. Received: pooling={pooling!r}."
        )
    return _ScaleSkeleton(
        scales=scales or Scales(),
        make=KINDS[convolution] if isinstance(convolution, str) else convolution,
        pooling=pooling,
        kernel_regularizer=kernel_decay(weight_decay),
        **others,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ScaleSkeleton(ResidualSkeleton):
    """A skeleton on one scale space, whose levels are a tensor or, in a pyramid, a list of them."""

    strides: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)

    scales: Scales
    make: ScaleConvolution
    scale_pooling: Literal["max", "mean"]
    pooling: Pooling

    def add_lifting(self, images: Any) -> Any:
        """Adds the lifting of images to the scale space."""
        return ScaleSpaceLifting2D(**self.scales.lifting(), name="lifting")(images)

    def add_stem(self, images: Any) -> Any:
        """Adds the lifting and the 7x7 convolution."""
        return self.add_normalized(self.add_lifting(images), self.filters, 7, "conv1", strides=2)

    def add_convolution(
        self,
        x: Any,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        make: ScaleConvolution = ScaleConv2D,
        strides: int = 1,
    ) -> Any:
        """Adds a convolution of the scale space; a 1x1 one reads one level."""
        arguments = self.scales.convolution()
        if kernel_size == 1:
            arguments["interaction"] = 1
        return make(
            filters,
            kernel_size,
            strides=strides,
            use_bias=False,
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            **arguments,
        )(x)

    def add_residual(self, x: Any, block: Block) -> Any:
        """Adds two 3x3 convolutions of the chosen kind."""
        return self.add_two_convolutions(x, block, {"make": self.make}, {"make": self.make})

    def add_normalization(self, x: Any, name: str) -> Any:
        """Adds batch normalisation, whose statistics all levels share."""
        normalize: Any = batch_normalization(name, self.synchronized)
        if self.scales.pyramid:
            normalize = OverLevels(normalize, name=f"{name}_over_levels")
        return normalize(x)

    def add_relu(self, x: Any, name: str) -> Any:
        """Adds ReLU."""
        if not self.scales.pyramid:
            return super().add_relu(x, name)
        return [layers.ReLU(name=f"{name}_{k}")(level) for k, level in enumerate(x)]

    def add_sum(self, x: Any, residual: Any, name: str) -> Any:
        """Adds a sum."""
        if not self.scales.pyramid:
            return super().add_sum(x, residual, name)
        pairs = enumerate(zip(x, residual, strict=True))
        return [layers.Add(name=f"{name}_{k}")(list(pair)) for k, pair in pairs]

    def add_pooling(self, x: Any) -> Any:
        """Adds the pooling of levels, then that of positions."""
        x = ScalePooling2D(self.scale_pooling, name="scale_pooling")(x)
        return POOLINGS[self.pooling](name="pooling")(x)
