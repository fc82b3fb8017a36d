"""What a GPU's kernels are told of a local convolution: integers only, no framework."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from low_rank_local_connectivity.ops.windows import Windows

# What the filters are: given for every position, or mixed from banks for each example.
Kind = Literal["given", "per_example"]
# Names of the arrays, in the order in which operators take them; any of them can be wanted.
ARRAYS: dict[Kind, tuple[str, ...]] = {
    "given": ("inputs", "outputs", "filters"),
    "per_example": ("inputs", "outputs", "banks", "weights"),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a local convolution over two axes, rows first; a signal is an image of one row.

    Args:
        batch: Examples.
        sizes: Rows and columns of the inputs.
        outputs: Rows and columns of positions.
        taps: Rows and columns of a filter.
        strides: Steps between windows.
        dilations: Steps between taps.
        pads: Rows and columns of zeros before the inputs.
        channels: Input channels.
        filters: Filters at each position.
        rank: Banks; 1 where filters are given.
    """

    batch: int
    sizes: tuple[int, int]
    outputs: tuple[int, int]
    taps: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    channels: int
    filters: int
    rank: int

    @property
    def positions(self) -> int:
        """Number of positions."""
        return math.prod(self.outputs)

    @property
    def reads(self) -> int:
        """Numbers that one filter reads: taps, then channels."""
        return math.prod(self.taps) * self.channels

    def array(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array by its name.

        Example:
            >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
            >>> shape_of((2, 8, 9, 4), windows, filters=5, rank=1).array("filters")
            (42, 36, 5)
        """
        return {
            "inputs": (self.batch, *self.sizes, self.channels),
            "outputs": (self.batch, self.positions, self.filters),
            "filters": (self.positions, self.reads, self.filters),
            "banks": (self.reads, self.rank * self.filters),
            "weights": (self.batch, self.positions, self.rank),
        }[name]

    def numbers(self) -> list[int]:
        """Returns all sizes in a row, as operators take them."""
        pairs = (getattr(self, name) for name in PAIRS)
        flat = (size for pair in pairs for size in pair)
        return [self.batch, *flat, self.channels, self.filters, self.rank]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> "Shape":
        """Returns the shape of which these are the `numbers`.

        Example:
            >>> windows = Windows((3,), (2,), (1,), "same")
            >>> shape = shape_of((2, 9, 4), windows, filters=5, rank=3)
            >>> Shape.from_numbers(shape.numbers()) == shape
            True
        """
        batch, *flat, channels, filters, rank = numbers
        pairs = zip(PAIRS, zip(flat[::2], flat[1::2], strict=True), strict=True)
        return cls(batch=batch, channels=channels, filters=filters, rank=rank, **dict(pairs))


PAIRS = ("sizes", "outputs", "taps", "strides", "dilations", "pads")


def shape_of(inputs: tuple[Any, ...], windows: Windows, filters: int, rank: int) -> Shape:
    """Returns the sizes of a local convolution.

    Args:
        inputs: Shape of the inputs, channels last.
        windows: Where the windows sit, over one or two axes.
        filters: Filters at each position.
        rank: Number of banks, 1 where filters are given.
    """
    batch, *sizes, channels = inputs
    axes: dict[str, Any] = {
        "sizes": tuple(sizes),
        "outputs": windows.static_output_shape(sizes),
        "taps": windows.sizes,
        "strides": windows.strides,
        "dilations": windows.dilations,
        "pads": tuple(before for before, _ in windows.pad_amounts(sizes)),
    }
    if len(sizes) == 1:
        axes = {name: (0 if name == "pads" else 1, *axis) for name, axis in axes.items()}
    return Shape(batch=batch, channels=channels, filters=filters, rank=rank, **axes)
