"""How layers with filters of their own at every position draw and store them."""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from low_rank_local_connectivity.layers.filter_initialization import draw_filters


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


def channels_last_bias(layer: Any) -> list:
    """Returns the bias of every position and filter, which may be stored channels first.

    Args:
        layer: A layer with `bias`, `filters`, `output_sizes` and `data_format`.

    Returns:
        The bias `(*output sizes, filters)`, if there is one.
    """
    if layer.bias is None:
        return []
    if layer.data_format == "channels_last":
        return [layer.bias]
    stored = ops.reshape(layer.bias, (layer.filters, *layer.output_sizes))
    return [ops.moveaxis(stored, 0, -1)]
