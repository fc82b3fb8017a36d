"""Convolutions of inputs whose channels are last, over any windows and in a form to be exported.

Of volumes Keras asks PyTorch for an order of memory that PyTorch's exporter to ONNX does not know,
unless their channels are first; and TensorFlow does not convolve with strides and dilation at once.
So this file names both.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions         c  input channel
    f  filter             O  output positions        T  kernel taps
"""

import functools
import itertools
import math
import operator
from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.arguments import per_axis
from low_rank_local_connectivity.ops.borders import pad_windows
from low_rank_local_connectivity.ops.depthwise_convolution import depthwise_convolution
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.windows import Windows, strided_length


def windowed_convolution(inputs_bSc, kernel_Tcf, windows: Windows, groups: int = 1):
    """Convolves with one kernel for all positions, at any padding, strides and dilations.

    Args:
        inputs_bSc: Inputs; the spatial size may be unknown, but for strides above 1 where the
            border is read from the inputs.
        kernel_Tcf: Kernel, with the taps of the windows.
        windows: Where the windows sit.
        groups: Into how many groups channels and filters are divided; `c` of the kernel runs over
            the channels of a group, `f` over the filters of the first group, then of the next.

    Returns:
        Tensor of axes `bOf`.

    Example:
        >>> windows = Windows((3, 2), (2, 1), (1, 2), "circular")
        >>> ops.shape(windowed_convolution(ops.ones((1, 8, 9, 4)), ops.ones((3, 2, 4, 5)), windows))
        (1, 4, 9, 5)
    """
    if windows.padding not in ("valid", "same"):
        inputs_bSc, windows = pad_windows(inputs_bSc, windows), windows.inside
    if groups > 1 and kernel_Tcf.shape[-2] == 1:
        kernel_Tcm = ops.reshape(kernel_Tcf, (*windows.sizes, groups, -1))
        padded_bSc = _padded_as_same(inputs_bSc, windows)
        return depthwise_convolution(padded_bSc, kernel_Tcm, windows.inside)
    if groups > 1 and keras.backend.backend() != "torch":
        return _convolution_by_groups(inputs_bSc, kernel_Tcf, windows, groups)
    if keras.backend.backend() == "tensorflow" and windows.strided_and_dilated:
        return _convolution_by_phases(inputs_bSc, kernel_Tcf, windows)
    return channels_last_convolution(
        inputs_bSc,
        kernel_Tcf,
        strides=windows.strides,
        padding=windows.padding,
        dilation_rate=windows.dilations,
    )


def _convolution_by_groups(inputs_bSc, kernel_Tcf, windows: Windows, groups: int):
    """Convolves group by group.

    On a CPU TensorFlow and JAX hand a convolution of groups to XLA, whose gradients multiply by the
    zeros between them: of 128 channels in 4 and in 32 groups a training step took 12 and 50 times
    as long with TensorFlow, 23 and 85 times with JAX.
    """
    pairs = zip(
        ops.split(inputs_bSc, groups, axis=-1),
        ops.split(kernel_Tcf, groups, axis=-1),
        strict=True,
    )
    return ops.concatenate([windowed_convolution(*pair, windows) for pair in pairs], axis=-1)


def _convolution_by_phases(inputs_bSc, kernel_Tcf, windows: Windows):
    """Convolves with strides or dilation, never both, in as many operations as with both.

    Along an axis of stride `s` and dilation `d`, tap `t` of position `p` reads element `s p + d t`.
    All of these are multiples of `gcd(s, d)`, and the other elements are dropped. With what remains
    of `s` and `d`, and `t = s q + r`, the element is `s (p + d q) + d r`: taps of one phase `r` are
    a convolution, with dilation `d` alone, of every `s`-th element from `d r` on.
    """
    inputs_bSc, windows = _without_common_steps(_padded_as_same(inputs_bSc, windows), windows)
    if not windows.strided_and_dilated:
        return channels_last_convolution(
            inputs_bSc, kernel_Tcf, strides=windows.strides, dilation_rate=windows.dilations
        )
    lengths = windows.output_shape(ops.shape(inputs_bSc)[1:-1])
    counts = map(min, windows.strides, windows.sizes)
    parts = [
        _convolution_of_phase(inputs_bSc, kernel_Tcf, windows, lengths, phase)
        for phase in itertools.product(*map(range, counts))
    ]
    return functools.reduce(operator.add, parts)


def _without_common_steps(inputs_bSc, windows: Windows) -> tuple[Any, Windows]:
    """Returns the elements that windows without padding read, and the windows over these."""
    axes = zip(windows.sizes, windows.dilations, strict=True)
    rates = [1 if taps == 1 else rate for taps, rate in axes]  # one tap has no dilation
    common = list(map(math.gcd, windows.strides, rates))
    kept_bSc = inputs_bSc[(slice(None), *(slice(None, None, step) for step in common))]
    strides = tuple(map(operator.floordiv, windows.strides, common))
    return kept_bSc, Windows(
        windows.sizes, strides, tuple(map(operator.floordiv, rates, common)), "valid"
    )


def _convolution_of_phase(inputs_bSc, kernel_Tcf, windows: Windows, lengths, phase):
    """Convolves with the taps of one phase, at as many positions as `lengths` says."""
    steps = [
        slice(first, None, stride) for first, stride in zip(phase, windows.strides, strict=True)
    ]
    part_Tcf = kernel_Tcf[tuple(steps)]
    axes = zip(steps, windows.dilations, part_Tcf.shape[:-2], lengths, strict=True)
    read = [
        slice(
            rate * step.start,
            rate * step.start + step.step * (length - 1 + rate * (taps - 1)) + 1,
            step.step,
        )
        for step, rate, taps, length in axes
    ]
    return channels_last_convolution(
        inputs_bSc[(slice(None), *read)], part_Tcf, dilation_rate=windows.dilations
    )


def _padded_as_same(inputs_bSc, windows: Windows):
    """Returns inputs padded for `"valid"` windows, of an unknown size too."""
    if windows.padding == "valid" or None not in inputs_bSc.shape[1:-1]:
        return pad_windows(inputs_bSc, windows)
    # The amounts are tensors, so zeros that suffice for any size are cut to them.
    most = [extent - 1 for extent in windows.extents]
    padded_bSc = pad(inputs_bSc, ((0, 0), *((size, size) for size in most), (0, 0)))
    sizes = ops.shape(inputs_bSc)[1:-1]
    inside = []
    for size, stride, reach in zip(sizes, windows.strides, most, strict=True):
        total = ops.maximum((strided_length(size, stride) - 1) * stride + reach + 1 - size, 0)
        start = reach - total // 2
        inside.append(slice(start, start + size + total))
    return padded_bSc[(slice(None), *inside)]


def channels_last_convolution(inputs_bSc, kernel_Tcf, **settings: Any) -> Any:
    """Returns `keras.ops.conv` of inputs whose channels are last.

    Args:
        inputs_bSc: Inputs over any number of spatial axes.
        kernel_Tcf: Kernel.
        **settings: `strides`, `padding` and `dilation_rate`, as Keras has them.

    Example:
        >>> volumes, kernel = ops.ones((2, 5, 6, 7, 3)), ops.ones((2, 1, 3, 3, 4))
        >>> ops.shape(channels_last_convolution(volumes, kernel))
        (2, 4, 6, 5, 4)
    """
    if keras.backend.backend() == "torch" and math.prod(kernel_Tcf.shape[:-2]) == 1:
        inputs_bSc, settings = _read_by_one_tap(inputs_bSc, settings)
    if keras.backend.backend() != "torch" or len(inputs_bSc.shape) < 5:
        return ops.conv(inputs_bSc, kernel_Tcf, data_format="channels_last", **settings)
    last = len(inputs_bSc.shape) - 1
    inputs_bcS = ops.moveaxis(inputs_bSc, last, 1)
    outputs_bfO = ops.conv(inputs_bcS, kernel_Tcf, data_format="channels_first", **settings)
    return ops.moveaxis(outputs_bfO, 1, last)


def _read_by_one_tap(inputs_bSc, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Returns the positions that a single tap reads, and settings that read them all.

    On PyTorch 2.13 a single tap with unequal strides, applied to channels-last inputs on a CPU,
    gets a wrong gradient for its kernel.
    """
    dimensions = len(inputs_bSc.shape) - 2
    strides = per_axis("strides", settings.get("strides", 1), dimensions)
    read = tuple(slice(None, None, stride) for stride in strides)
    return inputs_bSc[(slice(None), *read)], {**settings, "strides": 1}
