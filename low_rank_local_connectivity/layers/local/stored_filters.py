"""Layers with filters of their own at every position: how they draw and store them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from keras import ops

from low_rank_local_connectivity.layers.base_local_conv import BaseLocalConv
from low_rank_local_connectivity.layers.biases import add_bias
from low_rank_local_connectivity.layers.filter_initialization import draw_filters
from low_rank_local_connectivity.plans.machine import require_memory


def draw_stored_filters(
    initializer: Callable, bank: Sequence[int], positions: int, data_format: str, dtype: Any
):
    """Draws the filters of each position as a convolution draws its one bank.

    Args:
        initializer: Keras initializer or callable `(shape, dtype) -> tensor`.
        bank: Shape of a position's filters as a convolution has it, `(*taps, channels, made)`.
        positions: How many positions.
        data_format: Whether the middle axis of the result runs over taps, then channels, or,
            with `"channels_first"`, over channels, then taps.
        dtype: Data type of the values.

    Returns:
        Tensor of shape `(positions, taps * channels, made)`.

    Example:
        >>> from keras import initializers
        >>> bank = (3, 2, 4, 5)
        >>> initializer = initializers.HeNormal()
        >>> ops.shape(draw_stored_filters(initializer, bank, 7, "channels_last", "float32"))
        (7, 24, 5)
    """
    drawn = draw_filters(initializer, bank, positions, dtype)
    *taps, channels, position, made = range(len(bank) + 1)
    reads = (*taps, channels) if data_format == "channels_last" else (channels, *taps)
    return ops.reshape(ops.transpose(drawn, (position, *reads, made)), (positions, -1, bank[-1]))


def taps_first(kernel, taps: int, data_format: str):
    """Returns stored filters with their middle axis over taps, then channels.

    Args:
        kernel: Tensor of shape `(positions, taps * channels, made)`.
        taps: How many taps.
        data_format: That of the layer that stores them.

    Example:
        >>> kernel = ops.reshape(ops.arange(6), (1, 6, 1))
        >>> ops.convert_to_numpy(taps_first(kernel, 3, "channels_first")).ravel().tolist()
        [0, 3, 1, 4, 2, 5]
    """
    if data_format == "channels_last":
        return kernel
    positions, reads, made = kernel.shape
    kernel = ops.reshape(kernel, (positions, reads // taps, taps, made))
    return ops.reshape(ops.transpose(kernel, (0, 2, 1, 3)), (positions, reads, made))


class StoredFilters(BaseLocalConv):
    """A local operation that shares nothing between positions; a subclass computes in `convolve`.

    Its kernel is `(positions, taps * channels, made)` and its bias `(*output sizes, filters)`; with
    `channels_first` the middle axis runs over channels, then taps, and the values of the bias are
    stored in the order `(filters, *output sizes)`.
    """

    # For errors: what has filters of its own, the layer whose positions share theirs, and what
    # else makes there be fewer.
    position: ClassVar[str]
    sharing: ClassVar[str]
    fewer_with: ClassVar[str]

    @property
    def bank(self) -> tuple[int, ...]:
        """Shape of the filters of one position."""
        return (*self.kernel_size, self.kernel_channels, self.kernel_filters)

    @property
    def filter_initializer(self) -> Callable:
        """What draws the kernel."""
        return self._draw_kernel

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        super().build(input_shape)
        if None in self.input_sizes:
            raise ValueError(
                f"Every {self.position} of a {type(self).__name__} layer has filters of its own, "
                "so the spatial size of its input must be known. Received: "
                f"input_shape={tuple(input_shape)}. Give keras.Input a static size."
            )
        *reads, made = self.bank
        shape = (self.positions, math.prod(reads), made)
        require_memory(
            4 * math.prod(shape),
            f"The filters that layer {self.name!r} has at every position",
            f"Use a {self.sharing.format(self.dimensions)}, whose positions share filters, or "
            f"{self.fewer_with}.",
        )
        self.kernel = self.add_weight(
            shape=shape,
            initializer=self.filter_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            # Cast where it is multiplied: a kernel that reads it once need not write a copy.
            autocast=False,
        )
        self.bias = add_bias(self, (*self.output_sizes, self.filters))

    @property
    def positions(self) -> int:
        """How many positions have filters of their own."""
        return math.prod(size for size in self.position_sizes if size is not None)

    def _draw_kernel(self, shape: tuple[int, ...], dtype: Any = None):
        """Draws the filters of each position as a convolution draws its one bank."""
        stored = (self.bank, shape[0], self.data_format, dtype)
        return draw_stored_filters(self.kernel_initializer, *stored)

    def filter_operations(self, input_shape: Any, outputs: int) -> int:
        """Counts every position's own filters once."""
        del input_shape, outputs
        return 2 * math.prod(self.kernel.shape)

    def output_biases(self) -> list:
        """Returns the bias, reordered if it is stored channels-first."""
        if self.bias is None:
            return []
        if self.data_format == "channels_last":
            return [self.bias]
        stored = ops.reshape(self.bias, (self.filters, *self.output_sizes))
        return [ops.moveaxis(stored, 0, -1)]
