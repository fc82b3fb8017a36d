"""What the command line knows about a network before any framework loads."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from . import builders
from .scales import Scales

# A ResNet's groups of blocks, by the names that its paper gives them.
RESNET_STAGES = ("conv2", "conv3", "conv4", "conv5")
# Blocks of each stage, by the number of layers.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Stages of a BagNet that begin with a 3x3 convolution, by the pixels that its features see.
BAGNET_STAGES = {9: 2, 17: 3, 33: 4}
BAGNET_STRIDES = (2, 2, 2, 1)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network: the function that builds it and the arithmetic of its shapes.

    Args:
        module: Name of its family: of the module of this package that builds it.
        function: Function that builds it, of those in `models.builders`. It takes `image_shape`,
            `num_classes`, `weight_decay`, `synchronized` and its `options`; of a network with
            `num_layers` also `convolutions`, of one with `stages` also `insert` and `replace`.
        num_layers: How many of its layers may each be of any kind; 0 if none, or if it has stages.
        output_sizes: Function from `(image_shape, kernel_size)` to the rows and columns of
            positions of each of these layers.
        stages: Names of the stages whose 3x3 convolutions may be of any kind.
        site_sizes: Function from `image_shape`, and `stem` if that is among the options, to the
            rows and columns of positions of the layers of each stage, and, under `"insert"`, of the
            layer that may be inserted; None if there are no stages.
        arguments: Arguments that the function always receives, by name.
        options: Names of further arguments that are also flags: among `"filters"`,
            `"kernel_size"`, `"coord_conv"`, `"relax"` and `"stem"`.
        dimensions: How many spatial axes its inputs may have.
        turned: Whether it turns its filters, which needs windows that fall on the same pixels of
            a turned image: odd kernels, and sides both even or both odd.

    Example:
        >>> network = residual_network(50)
        >>> network.stages, network.arguments
        (('conv2', 'conv3', 'conv4', 'conv5'), {'depth': 50})
    """

    module: str
    function: Callable[..., Any]
    num_layers: int = 0
    output_sizes: Callable[[tuple[int, ...], int], list[tuple[int, ...]]] | None = None
    stages: tuple[str, ...] = ()
    site_sizes: Callable[[tuple[int, ...]], dict[str, tuple[int, int]]] | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: tuple[str, ...] = ()
    turned: bool = False
    dimensions: tuple[int, ...] = (2,)

    def build(self, *args: Any, **kwargs: Any):
        """Calls the function, whose arguments these are."""
        return self.function(*args, **{**self.arguments, **kwargs})


def unpadded_sizes(num_layers: int) -> Callable:
    """Returns a function to the sizes of consecutive unpadded layers at stride 1."""

    def sizes(image_shape: tuple[int, ...], kernel_size: int) -> list[tuple[int, ...]]:
        lost = [index * (kernel_size - 1) for index in range(1, num_layers + 1)]
        return [tuple(size - pixels for size in image_shape[:-1]) for pixels in lost]

    return sizes


def halved_sizes(
    image_shape: tuple[int, ...], stem: str = "imagenet"
) -> dict[str, tuple[int, int]]:
    """Returns the sizes at a ResNet's sites: half the image's, then a quarter, and so on.

    Odd sizes are rounded up. After `"conv2"`, the first block of a stage reads twice its size.

    Args:
        image_shape: `(height, width, channels)`.
        stem: `"cifar"` leaves the size as it is until the end of `"conv2"`.

    Example:
        >>> halved_sizes((224, 200, 3))["insert"], halved_sizes((224, 200, 3))["conv5"]
        ((112, 100), (7, 7))
        >>> halved_sizes((32, 32, 3), "cifar")["conv2"], halved_sizes((32, 32, 3), "cifar")["conv5"]
        ((32, 32), (4, 4))
    """
    height, width, _ = image_shape
    names = ("insert", *RESNET_STAGES)
    steps = (1, 1, 2, 4, 8) if stem == "cifar" else (2, 4, 8, 16, 32)
    return {
        name: (-(-height // step), -(-width // step))
        for name, step in zip(names, steps, strict=True)
    }


def grown_sizes(depth: int) -> Callable[[tuple[int, ...]], dict[str, tuple[int, int]]]:
    """Returns a function to the size at the first site of each stage of a full ResNet.

    Every 3x3 layer enlarges its input by two: to `floor((n + 1) / s) + 1` at stride `s`.

    Args:
        depth: Layers of the network.

    Example:
        >>> grown_sizes(18)((224, 200, 3))["conv2"], grown_sizes(50)((224, 200, 3))["conv5"]
        ((59, 53), (17, 16))
    """

    def sizes(image_shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
        columns = [_grown_axis(depth, size) for size in image_shape[:2]]
        return {name: (columns[0][name], columns[1][name]) for name in columns[0]}

    return sizes


def _grown_axis(depth: int, size: int) -> dict[str, int]:
    """Returns the lengths along one axis."""
    size = (size + 5) // 2 + 1  # the 7x7 layer
    found = {"insert": size + 2}
    size //= 2  # the pool; a layer inserted before it is not counted
    growing = 2 if depth < 50 else 1
    for index, (stage, blocks) in enumerate(zip(RESNET_STAGES, BLOCKS[depth], strict=True)):
        stride = 1 if index == 0 else 2
        size = (size + 1) // stride + 1
        found[stage] = size
        size += 2 * (growing * blocks - 1)
    return found


def residual_network(depth: int, full: bool = False) -> Network:
    """Returns the residual network of a depth; see `models.resnet`.

    Args:
        depth: Layers of the network.
        full: Whether its convolutions are full.
    """
    return Network(
        "resnet",
        builders.resnet,
        stages=RESNET_STAGES,
        site_sizes=grown_sizes(depth) if full else halved_sizes,
        arguments={"depth": depth, **({"full": True} if full else {})},
        options=() if full else ("stem",),
    )


def bag_network(receptive_field: int) -> Network:
    """Returns the bag of local features of a receptive field; see `models.bagnet`.

    Example:
        >>> bag_network(17).stages
        ('conv2', 'conv3', 'conv4')
        >>> bag_network(33).site_sizes((224, 200, 3))["conv5"]
        (24, 21)
    """
    stages = RESNET_STAGES[: BAGNET_STAGES[receptive_field]]

    def sizes(image_shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
        rows, columns = image_shape[0] - 2, image_shape[1] - 2
        found = {"insert": (rows - 2, columns - 2)}
        for stage, strides in zip(stages, BAGNET_STRIDES, strict=False):
            rows, columns = (rows - 3) // strides + 1, (columns - 3) // strides + 1
            found[stage] = (rows, columns)
        return found

    return Network(
        "bagnet",
        builders.bagnet,
        0,
        unpadded_sizes(0),
        stages=stages,
        site_sizes=sizes,
        arguments={"receptive_field": receptive_field},
    )


def scale_network(
    function: Callable[..., Any], options: tuple[str, ...] = (), **arguments: Any
) -> Network:
    """Returns a network on a scale space, which has layers of its own; see `models.Scales`.

    Args:
        function: Function that builds it, of those in `models.builders`.
        options: The arguments of it that are flags.
        **arguments: Its other arguments.

    Example:
        >>> scale_network(builders.scale_resnet, depth=18).arguments["scales"].number
        4
    """
    arguments = {"scales": Scales(), **arguments}
    return Network("scale_networks", function, options=options, arguments=arguments)


def transformed(network: Network) -> Network:
    """Returns a network behind a spatial transformer; see `models.transformer`.

    Example:
        >>> transformed(residual_network(18)).stages
        ('conv2', 'conv3', 'conv4', 'conv5')
    """
    arguments = {**network.arguments, "network": network.function}
    return dataclasses.replace(
        network,
        module="transformer",
        function=builders.transformer,
        arguments=arguments,
        dimensions=(2,),
    )


def application(name: str) -> Network:
    """Returns a network of keras.applications.

    Args:
        name: A key of `APPLICATIONS`.
    """
    return Network(
        "application", builders.application, arguments={"name": name}, options=("relax",)
    )
