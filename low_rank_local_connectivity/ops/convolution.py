"""Convolutions of inputs whose channels are last, in a form that can be exported.

Of volumes Keras asks PyTorch for an order of memory that PyTorch's exporter to ONNX does not know,
unless their channels are first, which is why this file names PyTorch.
"""

from typing import Any

import keras
from keras import ops


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
    if keras.backend.backend() != "torch" or len(inputs_bSc.shape) < 5:
        return ops.conv(inputs_bSc, kernel_Tcf, data_format="channels_last", **settings)
    last = len(inputs_bSc.shape) - 1
    inputs_bcS = ops.moveaxis(inputs_bSc, last, 1)
    outputs_bfO = ops.conv(inputs_bcS, kernel_Tcf, data_format="channels_first", **settings)
    return ops.moveaxis(outputs_bfO, 1, last)
