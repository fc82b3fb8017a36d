"""Where the windows of a local operation sit: integer arithmetic, one axis at a time."""

import dataclasses
import math
from collections.abc import Sequence


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

    Example:
        >>> windows = Windows((3, 2), (1, 1), (1, 1), "valid")
        >>> windows.output_shape((8, 9))
        (6, 8)
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str

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
        axes = zip(shape, self.sizes, self.strides, self.dilations, strict=True)
        return tuple(output_length(*axis, self.padding) for axis in axes)

    def static_output_shape(self, shape: Sequence[int | None]) -> tuple[int, ...]:
        """Returns the number of windows per axis, of an input whose size is known."""
        if None in shape:
            raise ValueError(
                "A filter of its own at every position needs an input of known spatial size. "
                f"Received: {tuple(shape)}. Give the input a static size."
            )
        return tuple(size for size in self.output_shape(shape) if size is not None)

    def pad_amounts(self, shape: Sequence[int | None]) -> tuple[tuple[int, int], ...]:
        """Returns `(before, after)` per axis."""
        axes = zip(shape, self.sizes, self.strides, self.dilations, strict=True)
        return tuple(pad_amounts(*axis, self.padding) for axis in axes)
