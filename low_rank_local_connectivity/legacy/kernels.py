"""The filters of Keras 2's three implementations of locally connected layers.

Implementation 1 stores the filters of every position, as this package does. Implementation 2 stores
a dense matrix from every input to every output, used where a window connects the two.
Implementation 3 stores the connected entries of that matrix, by output, then by input, both counted
in their data format.
"""

import math
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.layers.local.locally_connected import LocallyConnected


def kernel_by_position(stored: np.ndarray, layer: LocallyConnected) -> np.ndarray:
    """Returns a stored kernel of any implementation as `(positions, taps * channels, filters)`.

    A filter's taps that read padding are 0.

    Args:
        stored: Kernel of implementation 1, `(positions, taps * channels, filters)`, of 2,
            `(*input axes, *output axes)` without the batch, or of 3, `(entries,)`; its shape is
            among `stored_shapes(layer)`.
        layer: Built layer that will hold it.
    """
    if stored.ndim == 3:
        return stored
    inputs, outputs, connected = _connections(layer)
    if stored.ndim == 1:
        # The index of an entry among the connected ones, by output, then by input.
        pairs = outputs[:, None, :] * (inputs.max() + 2) + inputs[:, :, None]
        keep = np.broadcast_to(connected[:, :, None], pairs.shape)
        kernel = np.zeros(pairs.shape, stored.dtype)
        where = np.flatnonzero(keep)
        kernel.reshape(-1)[where[np.argsort(pairs[keep], kind="stable")]] = stored
        return kernel
    dense = stored.reshape(math.prod(stored.shape[: stored.ndim // 2]), -1)
    values = dense[inputs[:, :, None], outputs[:, None, :]]
    return np.where(connected[:, :, None], values, 0).astype(stored.dtype)


def stored_shapes(layer: LocallyConnected) -> set[tuple[int, ...]]:
    """Returns the shapes that the three implementations store a layer's kernel in."""
    entries = int(_connections(layer)[2].sum()) * layer.filters
    return {tuple(layer.kernel.shape), _dense_shape(layer), (entries,)}


def _sizes(layer: LocallyConnected) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the spatial sizes of a layer's inputs and outputs, which are always known."""
    sizes = tuple(size for size in layer.input_sizes if size is not None)
    return sizes, layer.windows.static_output_shape(sizes)


def _dense_shape(layer: LocallyConnected) -> tuple[int, ...]:
    """Returns the shape of implementation 2's kernel."""
    sizes, positions = _sizes(layer)
    if layer.data_format == "channels_first":
        return (layer.input_channels, *sizes, layer.filters, *positions)
    return (*sizes, layer.input_channels, *positions, layer.filters)


def _connections(layer: LocallyConnected) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers inputs and outputs as implementations 2 and 3 do.

    Returns:
        `(positions, taps * channels)`: the input that each tap reads; `(positions, filters)`: the
        output of each filter; and whether the tap reads an input, or padding.
    """
    sizes, positions = _sizes(layer)
    cin = layer.input_channels
    where, inside = np.zeros((), int), np.ones((), bool)
    axes = zip(sizes, positions, layer.kernel_size, layer.strides, strict=True)
    for axis, (size, count, taps, stride) in enumerate(axes):
        before = taps // 2 if layer.padding == "same" else 0
        read = np.arange(count)[:, None] * stride - before + np.arange(taps)
        # Axes: positions of every axis, then taps of every axis.
        shape = [1] * (2 * len(sizes))
        shape[axis], shape[axis + len(sizes)] = read.shape
        read = read.reshape(shape)
        where, inside = where * size + read.clip(0, size - 1), inside & (read >= 0) & (read < size)
    spots, channels, filters = map(np.arange, (math.prod(positions), cin, layer.filters))
    where, inside = (one.reshape(len(spots), -1) for one in (where, inside))
    if layer.data_format == "channels_first":
        inputs = channels[:, None] * math.prod(sizes) + where[:, None, :]
        connected = np.broadcast_to(inside[:, None, :], inputs.shape)
        outputs = filters * len(spots) + spots[:, None]
    else:
        inputs = where[:, :, None] * cin + channels
        connected = np.broadcast_to(inside[:, :, None], inputs.shape)
        outputs = spots[:, None] * layer.filters + filters
    inputs, connected = (one.reshape(len(spots), -1) for one in (inputs, connected))
    return inputs, outputs, connected


def _amounts(layer: LocallyConnected) -> list[tuple[int, int]]:
    """Returns the zeros that Keras 2's windows read before and after each axis."""
    amounts = []
    axes = zip(*_sizes(layer), layer.kernel_size, layer.strides, strict=True)
    for size, count, taps, stride in axes:
        before = taps // 2
        amounts.append((before, max((count - 1) * stride + taps - size - before, 0)))
    return amounts


def windows_differ(layer: Any) -> bool:
    """Whether Keras 2 placed a layer's windows differently.

    Under `"same"` Keras 2 put half a kernel before every window; a convolution, and the layer of
    this package, divides the necessary padding and puts the smaller half in front.
    """
    if not isinstance(layer, LocallyConnected) or layer.padding != "same":
        return False
    ours = [before for before, _ in layer.windows.pad_amounts(layer.input_sizes)]
    return ours != [before for before, _ in _amounts(layer)]


def same_padding(layer: LocallyConnected) -> list[Any]:
    """Returns a zero padding and an unpadded layer, which read what Keras 2's windows read.

    Args:
        layer: Layer for which `windows_differ`, with its weights.
    """
    amounts = _amounts(layer)
    inner = type(layer).from_config({**layer.get_config(), "padding": "valid"})
    padding: Any = keras.layers.ZeroPadding1D if len(amounts) == 1 else keras.layers.ZeroPadding2D
    amount = amounts[0] if len(amounts) == 1 else tuple(amounts)
    zeros = padding(amount, data_format=layer.data_format)
    sizes = zip(_sizes(layer)[0], amounts, strict=True)
    lengths = [size + before + after for size, (before, after) in sizes]
    first = layer.data_format == "channels_first"
    channels = layer.input_channels
    inner.build((None, channels, *lengths) if first else (None, *lengths, channels))
    inner.set_weights(layer.get_weights())
    return [zeros, inner]
