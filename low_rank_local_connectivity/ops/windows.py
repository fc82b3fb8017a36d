"""Where the windows of a local operation sit: integer arithmetic, one axis at a time."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from low_rank_local_connectivity.ops.arguments import (
    items_of,
    one_of,
    positive_int,
    received,
    sizes_of,
)


def extent(size: int, dilation: int) -> int:
    """Returns how many input elements a window spans, its gaps included."""
    return dilation * (size - 1) + 1


def output_length(
    length: int | None, size: int, stride: int, dilation: int, padding: str
) -> int | None:
    """Returns the number of windows along one axis.

    With window extent `e = dilation * (size - 1) + 1`:
    `floor((length - e) / stride) + 1` for `"valid"`, `floor((length + e - 2) / stride) + 1` for
    `"full"` and `ceil(length / stride)` otherwise.

    Args:
        length: Number of input elements along the axis, or None if unknown.
        size: Kernel size, in taps.
        stride: Step between windows, in input elements.
        dilation: Step between taps, in input elements.
        padding: `"valid"`, `"same"`, `"causal"` or `"full"`.

    Returns:
        The number of windows (0 or less if none fits), or None if `length` is None.

    Example:
        >>> output_length(28, 3, 1, 1, "valid"), output_length(28, 3, 2, 1, "same")
        (26, 14)
    """
    if length is None:
        return None
    if padding == "valid":
        return (length - extent(size, dilation)) // stride + 1
    if padding == "full":
        return (length + extent(size, dilation) - 2) // stride + 1
    return -(-length // stride)


def pad_amounts(
    length: int | None, size: int, stride: int, dilation: int, padding: str
) -> tuple[int, int]:
    """Returns how many zeros stand before and after one axis.

    `"same"` pads `max((outputs - 1) * stride + e - length, 0)` in all, the smaller half in
    front, as TensorFlow does on every backend of Keras; `"causal"` pads `e - 1` in front, and
    `"full"` on both sides.

    Args:
        length: As in `output_length`; `"same"` with a stride above 1 depends on it.
        size: Kernel size, in taps.
        stride: Step between windows, in input elements.
        dilation: Step between taps, in input elements.
        padding: `"valid"`, `"same"`, `"causal"` or `"full"`.

    Returns:
        `(before, after)`.

    Raises:
        ValueError: If the amount depends on a length that is unknown.

    Example:
        >>> pad_amounts(8, 3, 2, 1, "same"), pad_amounts(9, 3, 2, 1, "same")
        ((0, 1), (1, 1))
    """
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return extent(size, dilation) - 1, 0
    if padding == "full":
        return extent(size, dilation) - 1, extent(size, dilation) - 1
    if stride == 1:
        total = extent(size, dilation) - 1
    elif length is None:
        raise ValueError(
            "The padding of a strided window under padding='same' depends on the input's size, "
            "so that size must be known. Received: None. Give the input a static size."
        )
    else:
        outputs = -(-length // stride)
        total = max((outputs - 1) * stride + extent(size, dilation) - length, 0)
    return total // 2, total - total // 2


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a kernel over all spatial axes.

    Args:
        sizes: Kernel size per axis, in taps.
        strides: Step between windows per axis, in input elements.
        dilations: Step between taps per axis, in input elements.
        padding: `"valid"`, `"same"`, `"causal"` or `"full"`.

    Raises:
        ValueError: If a number is out of range, or there is not one for each axis.

    Example:
        >>> windows = Windows((3, 2), (1, 1), (1, 1), "valid")
        >>> windows.output_shape((8, 9))
        (6, 8)
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str

    def __post_init__(self) -> None:
        for name in ("sizes", "strides", "dilations"):
            values = items_of(getattr(self, name))
            if not values or len(values) != len(self.sizes):
                raise ValueError(
                    f"`{name}` of Windows must be a tuple of integers, one for each spatial axis. "
                    f"Received: {received(name, getattr(self, name))}."
                )
            for value in values:
                positive_int(name, value)
        one_of("padding", self.padding, ("valid", "same", "causal", "full"))

    @classmethod
    def single(cls, dimensions: int) -> "Windows":
        """Returns the windows of what treats each element alone.

        Example:
            >>> Windows.single(2).output_shape((8, 9))
            (8, 9)
        """
        ones = (1,) * dimensions
        return cls(ones, ones, ones, "valid")

    @property
    def extents(self) -> tuple[int, ...]:
        """Input elements that one window spans, per axis."""
        return tuple(map(extent, self.sizes, self.dilations))

    @property
    def taps(self) -> int:
        """How many input elements one window reads."""
        return math.prod(self.sizes)

    def output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the number of windows per axis, None where the input's size is unknown."""
        return tuple(output_length(*axis, self.padding) for axis in self._axes(shape))

    def static_output_shape(self, shape: Sequence[int | None]) -> tuple[int, ...]:
        """Returns the number of windows per axis, of an input whose size is known."""
        if None in self._checked(shape):
            raise ValueError(
                "A filter of its own at every position needs an input of known spatial size. "
                f"Received: {tuple(shape)}. Give the input a static size."
            )
        return tuple(size for size in self.output_shape(shape) if size is not None)

    def pad_amounts(self, shape: Sequence[int | None]) -> tuple[tuple[int, int], ...]:
        """Returns `(before, after)` per axis."""
        return tuple(pad_amounts(*axis, self.padding) for axis in self._axes(shape))

    def _axes(self, shape: Sequence[int | None]) -> Iterator[tuple[int | None, int, int, int]]:
        """Returns size, taps, stride and dilation along each axis."""
        return zip(self._checked(shape), self.sizes, self.strides, self.dilations, strict=True)

    def _checked(self, shape: Any) -> Sequence[int | None]:
        """Returns the size of an input, if there is one for each axis."""
        if len(sizes_of(shape) or ()) != len(self.sizes):
            raise ValueError(
                "`shape` must be the size of an input along each spatial axis, an integer or None: "
                f"here {len(self.sizes)} of them. Received: {received('shape', shape)}."
            )
        return shape
