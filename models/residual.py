"""The skeleton of every residual network here: a stem, stages of blocks, pooling and logits."""

import abc
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import layers

from .convolutions import Convolution, Settings, Site, convolution
from .network import BLOCKS, RESNET_STAGES
from .normalization import batch_normalization

FIRST_FILTERS = 64
PLAIN = convolution("conv2d", Settings())


@dataclasses.dataclass(frozen=True)
class Block:
    """A residual block.

    Args:
        stage: Name of the stage that it is in.
        number: Its number in the stage, from 1.
        filters: Filters of its 3x3 convolutions.
        strides: By how much it reduces the size.
    """

    stage: str
    number: int
    filters: int
    strides: int = 1

    @property
    def name(self) -> str:
        """What the names of its layers begin with."""
        return f"{self.stage}_block{self.number}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualSkeleton(abc.ABC):
    """Adds the parts of a residual network to a graph of layers.

    A family of networks says how its convolutions are made, what precedes the stages and what is
    in a block, and replaces whatever else differs.

    Args:
        kernel_regularizer: Regularizer of every kernel, that of the logits included.
        synchronized: Whether replicas under a TensorFlow strategy share batch statistics.
        filters: Filters of the first stage; each further stage has twice as many.
    """

    # Of the first block of each stage.
    strides: ClassVar[tuple[int, ...]] = (1, 2, 2, 2)

    kernel_regularizer: Any = None
    synchronized: bool = False
    filters: int = FIRST_FILTERS

    def build(
        self,
        image_shape: tuple[int | None, int | None, int],
        num_classes: int,
        blocks: Sequence[int],
        name: str,
    ) -> keras.Model:
        """Builds the network, with so many blocks in each stage."""
        inputs = keras.Input(image_shape, name="image")
        x = self.add_stem(inputs)
        for stage, of_stage in zip(RESNET_STAGES, self.stages(blocks), strict=True):
            x = self.begin_stage(x, stage)
            for block in of_stage:
                x = self.add_block(x, block)
        return keras.Model(inputs, self.add_logits(self.add_pooling(x), num_classes), name=name)

    def stages(self, blocks: Sequence[int]) -> Iterator[list[Block]]:
        """Yields the blocks of each stage."""
        for index, stage in enumerate(RESNET_STAGES):
            filters = self.stage_filters(index)
            strides = [self.strides[index]] + [1] * (blocks[index] - 1)
            yield [Block(stage, n, filters, step) for n, step in enumerate(strides, start=1)]

    def stage_filters(self, index: int) -> int:
        """Returns the filters of the 3x3 convolutions of a stage."""
        return self.filters * 2**index

    @abc.abstractmethod
    def add_stem(self, images: Any) -> Any:
        """Adds what precedes the stages."""

    @abc.abstractmethod
    def add_convolution(self, x: Any, filters: int, kernel_size: int, name: str, **how: Any) -> Any:
        """Adds a convolution; `how` is the family's, and `strides`, which are 1 otherwise."""

    @abc.abstractmethod
    def add_residual(self, x: Any, block: Block) -> Any:
        """Adds what a block adds to its input."""

    def begin_stage(self, x: Any, stage: str) -> Any:
        """Adds what precedes the blocks of a stage: nothing."""
        del stage
        return x

    def add_block(self, x: Any, block: Block) -> Any:
        """Adds a block: its residual, its shortcut and their sum."""
        residual = self.add_residual(x, block)
        x = self.add_sum(self.add_shortcut(x, residual, block), residual, f"{block.name}_add")
        return self.add_relu(x, f"{block.name}_relu")

    def add_two_convolutions(
        self,
        x: Any,
        block: Block,
        first: Mapping[str, Any] | None = None,
        second: Mapping[str, Any] | None = None,
    ) -> Any:
        """Adds the residual of a basic block: two 3x3 convolutions, each with its own `how`."""
        first, second = {"strides": block.strides, **(first or {})}, second or {}
        x = self.add_normalized(x, block.filters, 3, f"{block.name}_1", **first)
        return self.add_normalized(x, block.filters, 3, f"{block.name}_2", relu=False, **second)

    def add_shortcut(self, x: Any, residual: Any, block: Block) -> Any:
        """Adds a projection of a block's input, where its shape is not that of the residual."""
        filters = _channels(residual)
        if block.strides == 1 and _channels(x) == filters:
            return x
        name = f"{block.name}_shortcut"
        return self.add_normalized(x, filters, 1, name, strides=block.strides, relu=False)

    def add_normalized(
        self, x: Any, filters: int, kernel_size: int, name: str, *, relu: bool = True, **how: Any
    ) -> Any:
        """Adds a convolution, its normalisation and, unless a sum comes before it, ReLU."""
        x = self.add_convolution(x, filters, kernel_size, name, **how)
        x = self.add_normalization(x, f"{name}_norm")
        return self.add_relu(x, f"{name}_relu") if relu else x

    def add_normalization(self, x: Any, name: str) -> Any:
        """Adds batch normalisation."""
        return batch_normalization(name, self.synchronized)(x)

    def add_relu(self, x: Any, name: str) -> Any:
        """Adds ReLU."""
        return layers.ReLU(name=name)(x)

    def add_sum(self, x: Any, residual: Any, name: str) -> Any:
        """Adds a sum."""
        return layers.Add(name=name)([x, residual])

    def add_pooling(self, x: Any) -> Any:
        """Adds the pooling of positions."""
        return layers.GlobalAveragePooling2D(name="pooling")(x)

    def add_logits(self, x: Any, num_classes: int) -> Any:
        """Adds linear logits, in float32 under every policy.

        The layer itself is in float32, so that half precision rounds none of its sums of products.
        """
        return layers.Dense(
            num_classes, kernel_regularizer=self.kernel_regularizer, dtype="float32", name="logits"
        )(x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiteSkeleton(ResidualSkeleton):
    """A skeleton whose convolutions may be of any kind: each is made for the site where it stands.

    Args:
        padding: `"same"` or `"valid"`.
        insert: Function that makes an additional layer, or None.
        replace: Functions that make the 3x3 convolutions of stages, by the names of the stages.
    """

    padding: str = "same"
    insert: Convolution | None = None
    replace: Mapping[str, Convolution] = dataclasses.field(default_factory=dict)

    def site(
        self, input_shape: Sequence[Any], filters: int, kernel_size: int, name: str, **facts: Any
    ) -> Site:
        """Returns the site of a layer for inputs of a shape."""
        return Site(
            filters,
            kernel_size,
            in_channels=input_shape[-1],
            in_size=(input_shape[1], input_shape[2]),
            # Padding alike on both sides, as other implementations have it, gives the same
            # sizes; at stride 2 and an even size its windows sit one element before these. Only
            # weights trained elsewhere could notice, and low-rank layers offer no other padding.
            padding=self.padding,
            kernel_initializer="he_normal",
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            **facts,
        )

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
        """Adds the layer that is made for the site that the facts describe."""
        return make(self.site(x.shape, filters, kernel_size, name, **facts))(x)

    def add_inserted(self, x: Any, readers: int) -> Any:
        """Adds the additional layer, if there is one.

        Args:
            x: Its input.
            readers: Weights behind it that read one of its channels.
        """
        if self.insert is None:
            return x
        after = 2 + readers
        return self.add_normalized(
            x, self.filters, 3, "inserted", make=self.insert, parameters_after_per_channel=after
        )

    def add_bottleneck(self, x: Any, block: Block, kernel_size: int = 3) -> Any:
        """Adds a residual: 1x1 convolutions to fewer and to more channels, a 3x3 one between."""
        x = self.add_normalized(x, block.filters, 1, f"{block.name}_1")
        x = self.add_normalized(
            x,
            block.filters,
            kernel_size,
            f"{block.name}_2",
            make=self.maker(block) if kernel_size > 1 else PLAIN,
            strides=block.strides,
            parameters_after_per_channel=2 + 4 * block.filters,
        )
        return self.add_normalized(x, 4 * block.filters, 1, f"{block.name}_3", relu=False)

    def maker(self, block: Block) -> Convolution:
        """Returns what makes the 3x3 convolutions of a block."""
        return self.replace.get(block.stage, PLAIN)


def _channels(x: Any) -> int:
    """Returns the number of channels of a tensor, or of every level of a pyramid."""
    return keras.tree.flatten(x)[0].shape[-1]


def blocks_of(depth: int, depths: Collection[int] = tuple(BLOCKS)) -> tuple[int, ...]:
    """Returns how many blocks each stage of a ResNet of a depth has.

    Args:
        depth: Number of layers with weights.
        depths: Depths that there are.

    Raises:
        ValueError: If the depth is not among them.

    Example:
        >>> blocks_of(50)
        (3, 4, 6, 3)
    """
    if depth not in depths:
        raise ValueError(
            f"`depth` must be one of {', '.join(map(str, depths))}. Received: depth={depth!r}. "
            "Choose one of these."
        )
    return BLOCKS[depth]


def checked_replacements(
    replace: Mapping[str, Convolution] | None, stages: Sequence[str]
) -> dict[str, Convolution]:
    """Returns the functions that make the 3x3 convolutions of stages.

    Args:
        replace: These functions by the names of the stages; None for none.
        stages: The stages that have 3x3 convolutions.

    Raises:
        ValueError: If a name is not that of such a stage.
    """
    unknown = sorted(set(replace or ()) - set(stages))
    if unknown:
        raise ValueError(
            f"`replace` must map stages with 3x3 convolutions ({', '.join(stages)}) to functions "
            f"that make a layer. Received: replace with {', '.join(map(repr, unknown))}. Name "
            "stages among these."
        )
    return dict(replace or {})
