"""Transposed convolutions as Keras computes them, on every backend and device.

Keras's own function differs: TensorFlow has no dilated one on a CPU and none whose outputs end
before the last input's window begins, and older versions place `"same"` padding elsewhere on
PyTorch. Which is why this file names both.
"""

from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.convolution import channels_last_convolution
from low_rank_local_connectivity.ops.local_convolution_transpose import cut_outputs
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows


def transposed_convolution(inputs_bSc, kernel_Tfc, windows: TransposedWindows) -> Any:
    """Spreads every input position over the outputs by one kernel for all positions.

    Args:
        inputs_bSc: Inputs; spatial sizes may be unknown.
        kernel_Tfc: Kernel, as that of `Conv2DTranspose`.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`.

    Example:
        >>> windows = TransposedWindows((3, 3), (2, 2), (1, 1), "same")
        >>> images, kernel = ops.ones((2, 4, 5, 7)), ops.ones((3, 3, 6, 7))
        >>> ops.shape(transposed_convolution(images, kernel, windows))
        (2, 8, 10, 6)
    """
    backend = keras.backend.backend()
    if max(windows.dilations) > 1 and backend == "tensorflow":
        return _by_convolution(inputs_bSc, kernel_Tfc, windows)
    if backend == "torch" or (backend == "tensorflow" and not computed_by_keras(windows)):
        return cut_outputs(_everything_written(inputs_bSc, kernel_Tfc, windows), windows)
    return ops.conv_transpose(
        inputs_bSc,
        kernel_Tfc,
        strides=windows.strides,
        padding=windows.padding,
        output_padding=windows.output_padding,
        data_format="channels_last",
        dilation_rate=windows.dilations,
    )


def computed_by_keras(windows: TransposedWindows) -> bool:
    """Whether Keras's own function computes it everywhere, TensorFlow on a CPU included.

    It does not if taps are dilated, or if along some axis of `"same"` padding no output is left of
    the step that the last input begins.

    Example:
        >>> computed_by_keras(TransposedWindows((2,), (2,), (1,), "same", (0,)))
        False
    """
    return max(windows.dilations) == 1 and all(first < end for first, end in windows.kept)


def _everything_written(inputs_bSc, kernel_Tfc, windows: TransposedWindows) -> Any:
    """Returns all that windows write, of which outputs can be cut."""
    pairs = zip(windows.extents, windows.kept, strict=True)
    return ops.conv_transpose(
        inputs_bSc,
        kernel_Tfc,
        strides=windows.strides,
        padding="valid",
        output_padding=tuple(max(end - span, 0) for span, (_, end) in pairs),
        data_format="channels_last",
        dilation_rate=windows.dilations,
    )


def _by_convolution(inputs_bSc, kernel_Tfc, windows: TransposedWindows) -> Any:
    """Returns the transposed convolution of stride 1 as a convolution with the taps reversed."""
    dimensions = len(windows.sizes)
    reversed_Tfc = kernel_Tfc
    for axis in range(dimensions):  # Keras 3.12 takes one axis only
        reversed_Tfc = ops.flip(reversed_Tfc, axis=axis)
    pairs = zip(windows.extents, windows.kept, strict=True)
    around = [(span - 1 - first, end - 1) for span, (first, end) in pairs]
    return channels_last_convolution(
        pad(inputs_bSc, ((0, 0), *around, (0, 0))),
        ops.swapaxes(reversed_Tfc, -1, -2),
        strides=1,
        padding="valid",
        dilation_rate=windows.dilations,
    )
