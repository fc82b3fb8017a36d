"""What the command line must know of a network before any framework loads."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

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
    """A network's name in this package and the arithmetic of its shapes.

    Args:
        module: Module of this package that holds the function that builds it.
        function: Name of that function. It takes `image_shape`, `num_classes`, `weight_decay`,
            `synchronized` and its `options`; of a network with `num_layers` also `convolutions`, of
            one with `stages` also `insert` and `replace`.
        num_layers: How many of its layers may be of any kind, each by itself; 0 if none, or if it
            has stages.
        output_sizes: Function of `(image_shape, kernel_size)` to the number of rows and columns
            of positions of each of them.
        stages: Names of the stages whose 3x3 convolutions may be of any kind.
        site_sizes: Function of `image_shape` to the number of rows and columns of positions of
            the layers of each stage, and of the layer that may be inserted, under `"insert"`;
            None if there are no stages.
        arguments: Arguments that are always given to the function, by name.
        options: Names of further arguments, which are flags too: among `"filters"`,
            `"kernel_size"` and `"coord_conv"`.
        turned: Whether it turns its filters, so that every window must sit alike in a turned
            image: odd kernels, and sides both even or both odd.

    Example:
        >>> network = residual_network(50)
        >>> network.stages, network.arguments
        (('conv2', 'conv3', 'conv4', 'conv5'), {'depth': 50})
    """

    module: str
    function: str
    num_layers: int = 0
    output_sizes: Callable[[tuple[int, int, int], int], list[tuple[int, int]]] | None = None
    stages: tuple[str, ...] = ()
    site_sizes: Callable[[tuple[int, int, int]], dict[str, tuple[int, int]]] | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: tuple[str, ...] = ()
    turned: bool = False

    def build(self, *args: Any, **kwargs: Any):
        """Imports and calls the function; see it for its arguments."""
        module = importlib.import_module(f".{self.module}", __package__)
        return getattr(module, self.function)(*args, **{**self.arguments, **kwargs})


def unpadded_sizes(num_layers: int) -> Callable:
    """Returns the sizes of unpadded layers at stride 1, one after another."""

    def sizes(image_shape: tuple[int, int, int], kernel_size: int) -> list[tuple[int, int]]:
        height, width, _ = image_shape
        lost = [index * (kernel_size - 1) for index in range(1, num_layers + 1)]
        return [(height - pixels, width - pixels) for pixels in lost]

    return sizes


def halved_sizes(image_shape: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
    """Returns the sizes of a ResNet's sites: half the image, then a quarter, and so on.

    Odd sizes are rounded up. The first block of a stage after `"conv2"` reads twice its size.

    Example:
        >>> halved_sizes((224, 200, 3))["insert"], halved_sizes((224, 200, 3))["conv5"]
        ((112, 100), (7, 7))
    """
    height, width, _ = image_shape
    names = ("insert", *RESNET_STAGES)
    steps = [2**halvings for halvings in range(1, len(names) + 1)]
    return {
        name: (-(-height // step), -(-width // step))
        for name, step in zip(names, steps, strict=True)
    }


def grown_sizes(depth: int) -> Callable[[tuple[int, int, int]], dict[str, tuple[int, int]]]:
    """Returns the sizes of the first site of each stage of a ResNet of full convolutions.

    Every 3x3 layer makes its input two larger, `floor((n + 1) / s) + 1` at stride `s`.

    Args:
        depth: Layers of the network.

    Example:
        >>> grown_sizes(18)((224, 200, 3))["conv2"], grown_sizes(50)((224, 200, 3))["conv5"]
        ((59, 53), (17, 16))
    """

    def sizes(image_shape: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
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
        "resnet",
        stages=RESNET_STAGES,
        site_sizes=grown_sizes(depth) if full else halved_sizes,
        arguments={"depth": depth, **({"full": True} if full else {})},
    )


def bag_network(receptive_field: int) -> Network:
    """Returns the bag of local features that see so many pixels; see `models.bagnet`.

    Example:
        >>> bag_network(17).stages
        ('conv2', 'conv3', 'conv4')
        >>> bag_network(33).site_sizes((224, 200, 3))["conv5"]
        (24, 21)
    """
    stages = RESNET_STAGES[: BAGNET_STAGES[receptive_field]]

    def sizes(image_shape: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
        rows, columns = image_shape[0] - 2, image_shape[1] - 2
        found = {"insert": (rows - 2, columns - 2)}
        for stage, strides in zip(stages, BAGNET_STRIDES, strict=False):
            rows, columns = (rows - 3) // strides + 1, (columns - 3) // strides + 1
            found[stage] = (rows, columns)
        return found

    return Network(
        "bagnet",
        "bagnet",
        0,
        unpadded_sizes(0),
        stages=stages,
        site_sizes=sizes,
        arguments={"receptive_field": receptive_field},
    )


def scale_network(function: str, options: tuple[str, ...] = (), **arguments: Any) -> Network:
    """Returns a network on a scale space, whose kinds of layers are its own; see `models.scales`.

    Args:
        function: Name of the function in `models.scale_networks`.
        options: Those of its arguments that the command line sets.
        **arguments: Its other arguments.

    Example:
        >>> scale_network("scale_resnet", depth=18).arguments["scales"].number
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
        network, module="transformer", function="transformer", arguments=arguments
    )
