"""What the command line must know of a network before any framework loads."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's name in this package and the arithmetic of its shapes.

    Args:
        module: Module of this package that holds the function that builds it.
        function: Name of that function, which takes `image_shape`, `num_classes`,
            `convolutions`, `filters`, `kernel_size` and `coord_conv`.
        num_layers: How many of its layers may be of any kind.
        output_sizes: Function of `(image_shape, kernel_size)` to the number of rows and columns
            of positions of each of them.
    """

    module: str
    function: str
    num_layers: int
    output_sizes: Callable[[tuple[int, int, int], int], list[tuple[int, int]]]

    def build(self, *args: Any, **kwargs: Any):
        """Imports and calls the function; see it for its arguments."""
        module = importlib.import_module(f".{self.module}", __package__)
        return getattr(module, self.function)(*args, **kwargs)


def unpadded_sizes(num_layers: int) -> Callable:
    """Returns the sizes of unpadded layers at stride 1, one after another."""

    def sizes(image_shape: tuple[int, int, int], kernel_size: int) -> list[tuple[int, int]]:
        height, width, _ = image_shape
        lost = [index * (kernel_size - 1) for index in range(1, num_layers + 1)]
        return [(height - pixels, width - pixels) for pixels in lost]

    return sizes
