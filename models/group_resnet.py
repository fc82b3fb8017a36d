"""A residual network of turned filters."""

import dataclasses
from typing import Any, ClassVar, Literal

import keras
from keras import layers

from low_rank_local_connectivity import GroupConv2D, GroupLiftConv2D, GroupPooling2D

from .convolutions import kernel_decay
from .group_network import group_filters, halve, normalize
from .keras_settings import independent_of_keras_json
from .network import RESNET_STAGES
from .residual import Block, ResidualSkeleton, blocks_of


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
    """Builds a residual network whose logits do not change when the image is turned.

    It is `models.resnet` with filters in `order` orientations and with windows that fall on the
    same pixels of a turned image. The first layer, at stride 2, has 6x6 taps on images of even
    size (7x7 ones would need an odd size); the others have stride 1, and where a ResNet halves its
    maps, the block is preceded by averages over 2x2 positions, or 3x3 at odd sizes. Layers have
    `1 / sqrt(order)` of a ResNet's filters, hence about as many parameters, at `order` times the
    operations. Orientations are pooled by their maximum, then positions by their mean. With
    `order` 4, turning a square image by 90 degrees leaves the logits unchanged up to rounding.

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
        ValueError: If `depth` is another number, or one of height and width is even and one odd.

    Example:
        >>> group_resnet((32, 32, 3), 1000).count_params()
        11427560

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Cohen and Welling,
        "Group Equivariant Convolutional Networks", ICML 2016.
    """
    blocks = blocks_of(depth, (18, 34))
    _check_image_shape(image_shape)
    skeleton = _GroupResNet(
        kernel_regularizer=kernel_decay(weight_decay), synchronized=synchronized, order=order
    )
    return skeleton.build(image_shape, num_classes, blocks, f"group_resnet{depth}")


def _check_image_shape(image_shape: tuple[int, int, int]) -> None:
    height, width, _ = image_shape
    if (height - width) % 2:
        raise ValueError(
            "Height and width of the images must both be even or both be odd, so that the first "
            "layer's windows fall on the same pixels of turned images. Received: "
            f"image_shape={tuple(image_shape)}. Pad the images to a square."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _GroupResNet(ResidualSkeleton):
    """A skeleton of layers of one order, whose maps are halved by poolings, not by strides."""

    strides: ClassVar[tuple[int, ...]] = (1, 1, 1, 1)

    order: int

    def stage_filters(self, index: int) -> int:
        """Returns the filters of a stage's layers."""
        return group_filters(super().stage_filters(index), self.order)

    def add_stem(self, images: Any) -> Any:
        """Adds the first layer, at stride 2, and the max-pool."""
        taps: dict[str, Any] = {"kernel_size": 7, "padding": "same"}
        if images.shape[1] % 2 == 0:
            images = layers.ZeroPadding2D(2, name="conv1_padding")(images)
            taps = {"kernel_size": 6, "padding": "valid"}
        filters = self.stage_filters(0)
        x = self.add_normalized(
            images, filters, name="conv1", kind=GroupLiftConv2D, strides=2, **taps
        )
        return halve(x, "max_pooling", layers.MaxPooling3D)

    def begin_stage(self, x: Any, stage: str) -> Any:
        """Adds the halving of the maps, except before the first stage."""
        return x if stage == RESNET_STAGES[0] else halve(x, f"{stage}_halving")

    def add_convolution(
        self,
        x: Any,
        filters: int,
        kernel_size: int,
        name: str,
        *,
        kind: Any = GroupConv2D,
        padding: str = "same",
        strides: int = 1,
    ) -> Any:
        """Adds a layer of turned filters."""
        return kind(
            filters,
            kernel_size,
            self.order,
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_regularizer=self.kernel_regularizer,
            name=name,
        )(x)

    def add_normalization(self, x: Any, name: str) -> Any:
        """Adds batch normalisation, whose statistics all orientations share."""
        return normalize(x, name, self.synchronized)

    def add_residual(self, x: Any, block: Block) -> Any:
        """Adds two 3x3 layers."""
        return self.add_two_convolutions(x, block)

    def add_pooling(self, x: Any) -> Any:
        """Adds the pooling of orientations, then that of positions."""
        return super().add_pooling(GroupPooling2D(name="group_pooling")(x))
