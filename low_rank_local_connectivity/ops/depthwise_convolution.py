"""Convolution of each channel by itself, with shared filters or with some of their own everywhere.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
    m  filter of a channel   p  output positions, flattened in row-major order
    f  `c * m`            T  kernel taps, one axis per dimension; t flattened
"""

from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.borders import pad_windows, with_border
from low_rank_local_connectivity.ops.gradients import with_gradient
from low_rank_local_connectivity.ops.patches import read_taps, scatter_taps
from low_rank_local_connectivity.ops.windows import Windows


def depthwise_convolution(inputs_bSc, kernel_Tcm, windows: Windows):
    """Filters each channel with `m` filters of its own, which all positions share.

    `outputs[b, O, c * m] = sum_T kernel[T, c, m] * inputs[b, O * stride + T * dilation, c]`

    TensorFlow and PyTorch have it over one and two axes, TensorFlow for equal strides. Elsewhere it
    is a sum over the taps, and on JAX always: in training that took a tenth of the time that XLA's
    own takes on a CPU, whose gradients know nothing of groups.

    Args:
        inputs_bSc: Inputs; spatial sizes may be unknown.
        kernel_Tcm: The filters of each channel.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`, channel by channel.

    Example:
        >>> windows = Windows((3, 2), (1, 1), (2, 1), "valid")
        >>> images, kernel = ops.ones((2, 9, 8, 4)), ops.ones((3, 2, 4, 5))
        >>> ops.shape(depthwise_convolution(images, kernel, windows))
        (2, 5, 7, 20)
    """
    if _keras_has_it(windows):
        return ops.depthwise_conv(
            pad_windows(inputs_bSc, windows),
            kernel_Tcm,
            strides=windows.strides,
            padding="valid",
            data_format="channels_last",
            dilation_rate=windows.dilations,
        )
    inputs_bSf = ops.repeat(inputs_bSc, kernel_Tcm.shape[-1], axis=-1)
    kernel_tf = ops.reshape(kernel_Tcm, (windows.taps, -1))
    return _sum_of_products(read_taps(inputs_bSf, windows), kernel_tf)


def _keras_has_it(windows: Windows) -> bool:
    """Whether Keras has such a depthwise convolution that is fast."""
    equal = len(set(windows.strides)) == 1
    plain = max(windows.strides) == 1 or max(windows.dilations) == 1
    backend = keras.backend.backend()
    natively = backend == "torch" or (backend == "tensorflow" and equal)
    return len(windows.sizes) < 3 and plain and natively


def local_depthwise_convolution(inputs_bSc, kernel_tpf, windows: Windows):
    """Filters each channel with filters of its own at every position.

    `outputs[b, p, f] = sum_t patches[t, b, p, f // m] * kernel[t, p, f]`

    A filter reads a single channel, so there is no matrix to multiply: this is a sum over the taps
    of products number by number.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernel_tpf: For each tap, the filters of all positions; a multiple of the channels.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`, channel by channel.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> kernel = ops.ones((9, 6 * 7, 4 * 2))
        >>> ops.shape(local_depthwise_convolution(ops.ones((2, 8, 9, 4)), kernel, windows))
        (2, 6, 7, 8)
    """
    inputs_bSc, windows = with_border(inputs_bSc, windows)
    *sizes, channels = inputs_bSc.shape[1:]
    positions = windows.static_output_shape(sizes)
    filters = kernel_tpf.shape[-1]
    kernel_tOf = ops.reshape(kernel_tpf, (windows.taps, *positions, filters))
    multiplier = filters // channels
    inputs_bSf = ops.repeat(inputs_bSc, multiplier, axis=-1) if multiplier > 1 else inputs_bSc

    def apply(inputs_bSf, kernel_tOf):
        return _sum_of_products(read_taps(inputs_bSf, windows), kernel_tOf)

    # Derived, it would keep what every tap reads, and add up as many gradients of whole inputs.
    def gradient(upstream, inputs_bSf, kernel_tOf):
        each_tap = range(windows.taps)
        inputs_gradient = scatter_taps(
            [upstream * kernel_tOf[tap] for tap in each_tap], windows, sizes
        )
        read = read_taps(inputs_bSf, windows)
        kernel_gradient = ops.stack([ops.sum(upstream * read[tap], axis=0) for tap in each_tap])
        return inputs_gradient, kernel_gradient

    return with_gradient(apply, gradient, (ops.copy(inputs_bSf), ops.copy(kernel_tOf)))


def _sum_of_products(taps_bOf, kernel_tOf):
    """Returns the sum over the taps of what they read by their filters."""
    total_bOf: Any = None
    for tap, read_bOf in enumerate(taps_bOf):
        term_bOf = read_bOf * kernel_tOf[tap]
        total_bOf = term_bOf if total_bOf is None else total_bOf + term_bOf
    return total_bOf
