"""Zeros around tensors.

For every padding Keras's own function makes an operation, an object with a number of its own, and
PyTorch's compiler refuses to call another layer behind one that counts. So PyTorch is asked itself,
which is why this file names it.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def pad(tensor: Any, amounts: Sequence[tuple[Any, Any]]) -> Any:
    """Returns a tensor with zeros around it, as `keras.ops.pad`.

    Args:
        tensor: The tensor.
        amounts: How many zeros come before and after it, for each axis.

    Example:
        >>> ops.convert_to_numpy(pad(ops.ones(2), [(1, 2)])).tolist()
        [0.0, 1.0, 1.0, 0.0, 0.0]
    """
    if keras.backend.backend() != "torch" or isinstance(tensor, keras.KerasTensor):
        return ops.pad(tensor, amounts)
    import torch

    last_axis_first = [amount for pair in reversed(amounts) for amount in pair]
    return torch.nn.functional.pad(ops.convert_to_tensor(tensor), last_axis_first)
