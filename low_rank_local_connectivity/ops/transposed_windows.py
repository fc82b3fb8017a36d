"""Where windows write: each input position spreads over the outputs in a window of its own."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from low_rank_local_connectivity.ops.arguments import one_of, per_axis, received, sizes_of
from low_rank_local_connectivity.ops.windows import Windows, extent


def kept_span(
    size: int, stride: int, dilation: int, padding: str, output_padding: int | None
) -> tuple[int, int]:
    """Returns which elements of all that windows write are outputs, along one axis.

    Windows of extent `e = dilation * (size - 1) + 1`, a stride apart. The outputs begin at `first`,
    counted from the start of the first window, and end before `end`, counted from the start of the
    last one, as Keras's transposed convolutions have it:

    | padding | output_padding | first | end |
    |---|---|---|---|
    | valid | None | 0 | `max(e, stride)` |
    | valid | `p` | 0 | `e + p` |
    | same | None | `max(e - stride, 0) // 2` | `first + stride` |
    | same | `p` | `max(e - e % 2 - p, 0) // 2` | `first + e % 2 + p` |

    Args:
        size: Kernel size, in taps.
        stride: Step between windows, in output elements.
        dilation: Step between taps, in output elements.
        padding: `"valid"` or `"same"`.
        output_padding: Elements that the outputs have more than without it; None for what makes
            them `stride` times as many as the inputs under `"same"`.

    Returns:
        `(first, end)`; there are `(inputs - 1) * stride + end - first` outputs.

    Example:
        >>> kept_span(3, 2, 1, "valid", None), kept_span(4, 2, 1, "same", None)
        ((0, 3), (1, 3))
    """
    span = extent(size, dilation)
    if padding == "valid":
        return 0, max(span, stride) if output_padding is None else span + output_padding
    length = stride if output_padding is None else span % 2 + output_padding
    first = max(span - length, 0) // 2
    return first, first + length


@dataclasses.dataclass(frozen=True)
class TransposedWindows:
    """The windows of a transposed convolution's kernel over all spatial axes.

    Input position `p` adds to the outputs `p * stride + tap * dilation - first` of each axis, where
    `first` is `kept_span`'s.

    Args:
        sizes: Kernel size per axis, in taps.
        strides: Step between windows per axis, in output elements.
        dilations: Step between taps per axis, in output elements.
        padding: `"valid"` or `"same"`.
        output_padding: Further outputs per axis, less than the stride; None as in Keras.

    Raises:
        ValueError: If a number is out of range, or there is not one for each axis.

    Example:
        >>> windows = TransposedWindows((3, 2), (2, 2), (1, 1), "same")
        >>> windows.output_shape((8, None))
        (16, None)
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str
    output_padding: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        Windows(self.sizes, self.strides, self.dilations, "valid")
        one_of("padding", self.padding, ("valid", "same"))
        if self.output_padding is None:
            return
        extra = per_axis("output_padding", self.output_padding, len(self.sizes), 0)
        if any(more >= stride for more, stride in zip(extra, self.strides, strict=True)):
            raise ValueError(
                "`output_padding` must be less than the stride along every axis. Received: "
                f"output_padding={self.output_padding} with strides={self.strides}."
            )

    @property
    def extents(self) -> tuple[int, ...]:
        """Output elements that one window spans, per axis."""
        return self.whole.extents

    @property
    def taps(self) -> int:
        """How many output elements one window writes."""
        return self.whole.taps

    @property
    def whole(self) -> Windows:
        """The same windows, unpadded, as the adjoint reads them from all that they write."""
        return Windows(self.sizes, self.strides, self.dilations, "valid")

    @property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """The first output and the end of the outputs, per axis, as in `kept_span`."""
        return tuple(self._kept())

    def _kept(self) -> Iterator[tuple[int, int]]:
        extra = self.output_padding or (None,) * len(self.sizes)
        axes = zip(self.sizes, self.strides, self.dilations, extra, strict=True)
        for size, stride, dilation, more in axes:
            yield kept_span(size, stride, dilation, self.padding, more)

    def output_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the number of outputs per axis, None where the input's size is unknown."""
        return tuple(
            None if size is None else (size - 1) * stride + end - first
            for size, stride, (first, end) in self._axes(shape)
        )

    def static_output_shape(self, shape: Sequence[int | None]) -> tuple[int, ...]:
        """Returns the number of outputs per axis, of an input whose size is known."""
        self.whole.static_output_shape(shape)  # refuses one that is not
        return tuple(size for size in self.output_shape(shape) if size is not None)

    def whole_shape(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the size of what holds all windows and all outputs, None where unknown.

        As many of the windows `whole` fit into it as there are inputs.

        Args:
            shape: Spatial size of the input.

        Example:
            >>> windows = TransposedWindows((3,), (2,), (1,), "same")
            >>> windows.whole_shape((8,)), windows.whole.output_shape((17,))
            ((17,), (8,))
        """
        spans = self.extents
        return tuple(
            None if size is None else (size - 1) * stride + max(span, end)
            for (size, stride, (_, end)), span in zip(self._axes(shape), spans, strict=True)
        )

    def cut(self) -> tuple[tuple[int, int], ...]:
        """Returns how much of that stands before and after the outputs, per axis."""
        pairs = zip(self.kept, self.extents, strict=True)
        return tuple((first, max(span - end, 0)) for (first, end), span in pairs)

    def _axes(self, shape: Any) -> Iterator[tuple[int | None, int, tuple[int, int]]]:
        """Returns size, stride and what is kept along each axis."""
        if len(sizes_of(shape) or ()) != len(self.sizes):
            raise ValueError(
                "`shape` must be the size of an input along each spatial axis, an integer or None: "
                f"here {len(self.sizes)} of them. Received: {received('shape', shape)}."
            )
        return zip(shape, self.strides, self.kept, strict=True)
