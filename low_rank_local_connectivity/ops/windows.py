"""Where the windows of a local operation sit: integer arithmetic, one axis at a time."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from low_rank_local_connectivity.ops.arguments import (
    items_of,
    pairs_of_pads,
    positive_int,
    received,
    sizes_of,
)

Padding = str | Sequence[Sequence[int]]

# Around the input stands what is read from it: wrapped around, mirrored, the border repeated.
READ_BORDERS = ("circular", "reflect", "replicate")
# What is added follows from the windows, or there is as much as they ask for.
PADDINGS = ("valid", "same", "causal", "full", *READ_BORDERS)


def checked_padding(padding: Any, choices: Sequence[str], dimensions: int) -> Any:
    """Returns a padding's name in small letters, or its pairs as tuples.

    Args:
        padding: One of `choices`, in any case, or a pair `(before, after)` for each axis.
        choices: Names.
        dimensions: Number of spatial axes.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> checked_padding("Same", ("valid", "same"), 2), checked_padding([[1, 2]], (), 1)
        ('same', ((1, 2),))
    """
    if isinstance(padding, str) and padding.lower() in choices:
        return padding.lower()
    pairs = pairs_of_pads(padding, dimensions)
    if pairs is not None:
        return tuple(pairs)
    raise ValueError(
        f"`padding` must be one of {', '.join(map(repr, choices))}, or a tuple with a pair "
        "(before, after) of integers of at least 0 for each spatial axis, here "
        f"{dimensions}. Received: {received('padding', padding)}."
    )


def extent(size: int, dilation: int) -> int:
    """Returns how many input elements a window spans, its gaps included."""
    return dilation * (size - 1) + 1


def strided_length(length: Any, stride: int) -> Any:
    """Returns `ceil(length / stride)`, of whole numbers, tensors and symbols.

    Of no number below 0, whose quotient ONNX rounds up, as PyTorch's older tracer does not know.

    Example:
        >>> strided_length(11, 2)
        6
    """
    return (length + stride - 1) // stride


def output_length(
    length: int | None, size: int, stride: int, dilation: int, padding: str | tuple[int, int]
) -> int | None:
    """Returns the number of windows along one axis.

    With window extent `e = dilation * (size - 1) + 1`:
    `floor((length - e) / stride) + 1` for `"valid"`, `floor((length + e - 2) / stride) + 1` for
    `"full"`, `floor((length + before + after - e) / stride) + 1` for amounts and
    `ceil(length / stride)` otherwise.

    Args:
        length: Number of input elements along the axis, or None if unknown.
        size: Kernel size, in taps.
        stride: Step between windows, in input elements.
        dilation: Step between taps, in input elements.
        padding: One of `PADDINGS`, or `(before, after)`.

    Returns:
        The number of windows (0 or less if none fits), or None if `length` is None.

    Example:
        >>> output_length(28, 3, 1, 1, "valid"), output_length(28, 3, 2, 1, "same")
        (26, 14)
    """
    if length is None:
        return None
    if not isinstance(padding, str):
        length, padding = length + sum(padding), "valid"
    if padding == "valid":
        return (length - extent(size, dilation)) // stride + 1
    if padding == "full":
        return (length + extent(size, dilation) - 2) // stride + 1
    return strided_length(length, stride)


def pad_amounts(
    length: int | None, size: int, stride: int, dilation: int, padding: str | tuple[int, int]
) -> tuple[int, int]:
    """Returns how many elements stand before and after one axis.

    `"same"` pads `max((outputs - 1) * stride + e - length, 0)` in all, the smaller half in
    front, as TensorFlow does on every backend of Keras, and so do the paddings that read the
    input; `"causal"` pads `e - 1` in front, and `"full"` on both sides.

    Args:
        length: As in `output_length`; under most paddings a stride above 1 depends on it.
        size: Kernel size, in taps.
        stride: Step between windows, in input elements.
        dilation: Step between taps, in input elements.
        padding: One of `PADDINGS`, or `(before, after)`.

    Returns:
        `(before, after)`.

    Raises:
        ValueError: If the amount depends on a length that is unknown.

    Example:
        >>> pad_amounts(8, 3, 2, 1, "same"), pad_amounts(9, 3, 2, 1, "same")
        ((0, 1), (1, 1))
    """
    if not isinstance(padding, str):
        return padding
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
            f"The padding of a strided window under padding={padding!r} depends on the input's "
            "size, so that size must be known. Received: None. Give the input a static size."
        )
    else:
        outputs = strided_length(length, stride)
        total = max((outputs - 1) * stride + extent(size, dilation) - length, 0)
    return total // 2, total - total // 2


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a kernel over all spatial axes.

    Args:
        sizes: Kernel size per axis, in taps.
        strides: Step between windows per axis, in input elements.
        dilations: Step between taps per axis, in input elements.
        padding: What stands around the input. Nothing under `"valid"`. Zeros under `"same"`,
            `"causal"`, `"full"` and where there are pairs `(before, after)`, one for each axis.
            Elements of the input itself, as many as `"same"` has zeros, under `"circular"`,
            which wraps around, `"reflect"`, which mirrors without repeating the border, and
            `"replicate"`, which repeats it.

    Raises:
        ValueError: If a number is out of range, or there is not one for each axis.

    Example:
        >>> windows = Windows((3, 2), (1, 1), (1, 1), "valid")
        >>> windows.output_shape((8, 9))
        (6, 8)
        >>> dataclasses.replace(windows, padding=((0, 1), (2, 0))).output_shape((8, 9))
        (7, 10)
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: Any

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
        padding = checked_padding(self.padding, PADDINGS, len(self.sizes))
        object.__setattr__(self, "padding", padding)

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

    @property
    def reads_border(self) -> bool:
        """Whether what stands around the input is read from it."""
        return self.padding in READ_BORDERS

    @property
    def strided_and_dilated(self) -> bool:
        """Whether there are both strides and dilations above 1, on whichever axes."""
        return max(self.strides) > 1 and max(self.dilations) > 1

    @property
    def inside(self) -> "Windows":
        """The same windows over the input with all that stands around it."""
        return dataclasses.replace(self, padding="valid")

    def output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the number of windows per axis, None where the input's size is unknown."""
        return tuple(output_length(*axis) for axis in self._axes(shape))

    def static_output_shape(self, shape: Sequence[int | None]) -> tuple[int, ...]:
        """Returns the number of windows per axis, of an input whose size is known."""
        if None in self._checked(shape):
            raise ValueError(
                "A filter of its own at every position needs an input of known spatial size. "
                f"Received: {tuple(shape)}. Give the input a static size."
            )
        return tuple(size for size in self.output_shape(shape) if size is not None)

    def pad_amounts(self, shape: Sequence[int | None]) -> tuple[tuple[int, int], ...]:
        """Returns `(before, after)` per axis.

        Raises:
            ValueError: If they depend on a size that is unknown, or the input is too small to be
                read for them.
        """
        found = tuple(pad_amounts(*axis) for axis in self._axes(shape))
        if self.reads_border:
            self._require_enough(shape, found)
        return found

    def _require_enough(self, shape: Sequence[Any], amounts: Sequence[tuple[int, int]]) -> None:
        """Refuses an input that would have to be read more than once for what stands around it."""
        for axis, (size, pair) in enumerate(zip(shape, amounts, strict=True)):
            beyond = max(pair)
            least = {"circular": beyond, "reflect": beyond + 1, "replicate": 1}[self.padding]
            if isinstance(size, int) and beyond > 0 and size < least:
                raise ValueError(
                    f"Windows that reach {beyond} beyond the input under padding={self.padding!r} "
                    f"need at least {least} elements along that axis. Received: spatial input "
                    f"size {tuple(shape)}, too small along axis {axis}. Use a smaller kernel or "
                    "dilation, or padding='same'."
                )

    def _axes(self, shape: Sequence[int | None]) -> Iterator[tuple[Any, int, int, int, Any]]:
        """Returns size, taps, stride, dilation and padding along each axis."""
        named = isinstance(self.padding, str)
        paddings = [self.padding] * len(self.sizes) if named else self.padding
        sizes = self._checked(shape)
        return zip(sizes, self.sizes, self.strides, self.dilations, paddings, strict=True)

    def _checked(self, shape: Any) -> Sequence[int | None]:
        """Returns the size of an input, if there is one for each axis."""
        if len(sizes_of(shape) or ()) != len(self.sizes):
            raise ValueError(
                "`shape` must be the size of an input along each spatial axis, an integer or None: "
                f"here {len(self.sizes)} of them. Received: {received('shape', shape)}."
            )
        return shape
