"""The layers' definitions in NumPy: obvious, and independent of Keras and of this library.

Everything is channels-last and in float64. A kernel reads `inputs[position * stride - padding +
tap * dilation]`, and where that lies outside 0, or what `numpy.pad` puts there.
"""

import numpy as np

# NumPy's names of what is read from the inputs themselves.
READ = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def output_length(length, size, stride, dilation, padding):
    """Counts the windows along an axis by trying every start."""
    reach = (size - 1) * dilation
    if padding == "valid":
        return len([start for start in range(0, length, stride) if start + reach < length])
    return len(range(0, length, stride))


def zeros_before(length, size, stride, dilation, padding):
    """TensorFlow's documented rule for how far the first window starts before the input."""
    if padding == "valid":
        return 0
    reach = (size - 1) * dilation
    if padding == "causal":
        return reach
    return zeros_in_all(length, size, stride, dilation) // 2


def zeros_in_all(length, size, stride, dilation):
    """The same rule for how many zeros there are before and after an axis."""
    reach = (size - 1) * dilation
    return max(reach + 1 - (length % stride or stride), 0)


def output_shape(shape, sizes, strides, dilations, padding):
    """Counts the windows along each axis."""
    if not isinstance(padding, str):
        shape = [length + sum(pair) for length, pair in zip(shape, padding, strict=True)]
        padding = "valid"
    axes = zip(shape, sizes, strides, dilations, strict=True)
    return tuple(output_length(*axis, padding) for axis in axes)


def bordered(inputs, taps, strides, dilations, padding):
    """Puts a border around the inputs that is read from them, or as many zeros as are asked for.

    Returns them and the padding that is left to do.
    """
    if isinstance(padding, str) and padding not in READ:
        return inputs, padding
    if isinstance(padding, str):
        axes = list(zip(inputs.shape[1:-1], taps, strides, dilations, strict=True))
        totals = [zeros_in_all(*axis) for axis in axes]
        amounts, mode = [(total // 2, total - total // 2) for total in totals], READ[padding]
    else:
        amounts, mode = padding, "constant"
    return np.pad(inputs, [(0, 0), *amounts, (0, 0)], mode=mode), "valid"


def apply_filter(inputs, kernel, position, strides, dilations, padding):
    """Applies one filter bank `(*taps, channels, filters)` at one position of all inputs."""
    taps = kernel.shape[:-2]
    inputs, padding = bordered(inputs, taps, strides, dilations, padding)
    sizes = inputs.shape[1:-1]
    result = np.zeros((len(inputs), kernel.shape[-1]))
    for tap in np.ndindex(*taps):
        element = tuple(
            position[axis] * strides[axis]
            - zeros_before(sizes[axis], taps[axis], strides[axis], dilations[axis], padding)
            + tap[axis] * dilations[axis]
            for axis in range(len(taps))
        )
        inside = all(0 <= index < size for index, size in zip(element, sizes, strict=True))
        if inside:
            result += inputs[(slice(None), *element)] @ kernel[tap]
    return result


def read_windows(inputs, taps, positions, strides, dilations, padding):
    """Returns what apply_filter reads at every position: (batch, *positions, *taps, channels)."""
    dimensions = len(taps)
    inputs, padding = bordered(inputs, taps, strides, dilations, padding)
    read = inputs
    for axis in range(dimensions):
        size, place = inputs.shape[1 + axis], 1 + 2 * axis
        start = -zeros_before(size, taps[axis], strides[axis], dilations[axis], padding)
        starts = start + strides[axis] * np.arange(positions[axis])
        elements = starts[:, None] + dilations[axis] * np.arange(taps[axis])
        inside = (elements >= 0) & (elements < size)
        read = np.take(read, np.where(inside, elements, 0), place)
        read = read * np.expand_dims(inside, (*range(place), *range(place + 2, read.ndim)))
    order = (0, *range(1, 2 * dimensions, 2), *range(2, 2 * dimensions + 1, 2), -1)
    return read.transpose(order)


def local_convolution(inputs, kernel, strides, dilations, padding):
    """Applies `kernel[position]`, of shape `(*taps, channels, filters)`, at every position."""
    dimensions = inputs.ndim - 2
    positions, taps = kernel.shape[:dimensions], kernel.shape[dimensions:-2]
    windows = read_windows(inputs, taps, positions, strides, dilations, padding)
    windows = windows.reshape(len(inputs), *positions, -1)
    kernel = kernel.reshape(*positions, windows.shape[-1], -1)
    return np.einsum("b...r,...rf->b...f", windows, kernel)


def local_convolution_transpose(inputs, kernel, strides, dilations, padding, sizes):
    """Spreads every position over outputs of given sizes by `kernel[position]`.

    `kernel` is `(*positions, *taps, filters, channels)`. The first window starts where that of a
    convolution from the outputs to the inputs would.
    """
    dimensions = inputs.ndim - 2
    taps = kernel.shape[dimensions:-2]
    axes = zip(sizes, taps, strides, dilations, strict=True)
    before = [zeros_before(*axis, padding) for axis in axes]
    outputs = np.zeros((len(inputs), *sizes, kernel.shape[-2]))
    for position in np.ndindex(*inputs.shape[1:-1]):
        for tap in np.ndindex(*taps):
            element = tuple(
                position[axis] * strides[axis] + tap[axis] * dilations[axis] - before[axis]
                for axis in range(dimensions)
            )
            if all(0 <= index < size for index, size in zip(element, sizes, strict=True)):
                values = inputs[(slice(None), *position)] @ kernel[position][tap].T
                outputs[(slice(None), *element)] += values
    return outputs


def low_rank_local_convolution(inputs, banks, weights, strides, dilations, padding):
    """Mixes, at each position of each example, what every bank answers there.

    `banks` is a list of `(*taps, channels, filters)`, `dilations` has one entry per bank, and
    `weights` is `(batch, *positions, rank)`.
    """
    positions = weights.shape[1:-1]
    outputs = np.zeros((*weights.shape[:-1], banks[0].shape[-1]))
    windows = {}  # of banks that read the same
    for k, bank in enumerate(banks):
        taps = bank.shape[:-2]
        reads = taps, tuple(dilations[k])
        if reads not in windows:
            windows[reads] = read_windows(inputs, taps, positions, strides, dilations[k], padding)
        responses = np.tensordot(windows[reads], bank, len(taps) + 1)
        outputs = outputs + weights[..., k : k + 1] * responses
    return outputs


def in_groups(groups, inputs, kernels):
    """Yields each group's channels, and of each kernel its filters, the last axis."""
    channels = np.split(inputs, groups, axis=-1)
    filters = [np.split(kernel, groups, axis=-1) for kernel in kernels]
    for group in range(groups):
        yield channels[group], [parts[group] for parts in filters]


def normalize(logits, how):
    """Normalises over the last axis."""
    if how == "softmax":
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)
    if how == "norm":
        return logits / np.sqrt(np.maximum((logits**2).sum(axis=-1, keepdims=True), 1e-12))
    return logits


def resize_aligned(inputs, sizes):
    """Interpolates linearly along each spatial axis, corner elements onto corner elements."""
    for axis, count in enumerate(sizes, start=1):
        length = inputs.shape[axis]
        slices = []
        for index in range(count):
            place = index * (length - 1) / (count - 1) if count > 1 else 0.0
            low = min(int(place), length - 1)
            high = min(low + 1, length - 1)
            part = place - low
            slices.append(
                (1 - part) * np.take(inputs, low, axis) + part * np.take(inputs, high, axis)
            )
        inputs = np.stack(slices, axis)
    return inputs


def predicted_logits(inputs, weights, output_size, dilation_rates):
    """The network g of the paper; `weights` maps names to arrays, as documented by the layer."""

    def pointwise(values, name):
        return values @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    spatial = inputs.shape[1:-1]
    reduced = pointwise(inputs, "reduction")
    mean = reduced.mean(axis=tuple(range(1, inputs.ndim - 1)), keepdims=True)
    maps = [reduced, np.broadcast_to(mean, (len(inputs), *(1 for _ in spatial), mean.shape[-1]))]
    for rate in dilation_rates:
        if 2 * rate + 1 > min(spatial):
            continue
        kernel = weights[f"depthwise_kernel_{rate}"][..., 0]
        taps, ones = kernel.shape[:-1], (1,) * len(spatial)
        sizes = tuple(size - 2 * rate for size in spatial)
        rates = (rate,) * len(spatial)
        windows = read_windows(reduced, taps, sizes, ones, rates, "valid")
        windows = windows.reshape(len(inputs), *sizes, -1, kernel.shape[-1])
        filtered = np.einsum("...tc,tc->...c", windows, kernel.reshape(-1, kernel.shape[-1]))
        maps.append(filtered + weights[f"depthwise_bias_{rate}"])
    values = np.concatenate([resize_aligned(part, output_size) for part in maps], axis=-1)
    values = np.maximum(pointwise(values, "aggregation_0"), 0)
    values = 1 / (1 + np.exp(-pointwise(values, "aggregation_1")))
    return pointwise(values, "aggregation_2")


def finite_difference(function, values, index, step=1e-4):
    """Central difference of a scalar function of one entry of an array."""
    above, below = values.copy(), values.copy()
    above[index] += step
    below[index] -= step
    return (function(above) - function(below)) / (2 * step)
