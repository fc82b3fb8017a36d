"""What is computed from plain numbers while a program is traced, and is a constant in it.

PyTorch's compiler would trace NumPy and look into the operating system; it is told not to, which
is why this file names PyTorch.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def known_while_traced(function: Callable) -> Callable:
    """Decorates a function of plain numbers to one that PyTorch's compiler calls at once.

    Example:
        >>> known_while_traced(max)(2, 3)
        3
    """
    if keras.backend.backend() != "torch":
        return function
    import torch

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return torch.compiler.assume_constant_result(call)


def plain_number(value: Any) -> Any:
    """Returns a number that PyTorch's older tracer, the one of ONNX, has made a tensor of.

    Example:
        >>> plain_number(3)
        3
    """
    traced = keras.backend.backend() == "torch" and ops.is_tensor(value)
    return value.item() if traced else value


def plain_shape(shape: Any) -> tuple[Any, ...]:
    """Returns a shape that can be compared and put into sets, whichever program is traced.

    Example:
        >>> plain_shape([None, 8, 3])
        (None, 8, 3)
    """
    return tuple(map(plain_number, shape))


def constant(make: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of a data type and plain numbers to a tensor that is a constant.

    Args:
        make: Function of the numbers to an array.

    Example:
        >>> import numpy as np
        >>> ops.convert_to_numpy(constant(np.arange)("float32", 3)).tolist()
        [0.0, 1.0, 2.0]
    """

    def tensor(dtype: str, *arguments: Any) -> Any:
        return ops.convert_to_tensor(make(*map(plain_number, arguments)), dtype=dtype)

    if keras.backend.backend() != "torch":
        return tensor
    import torch

    seen: Any = torch.compiler.allow_in_graph(tensor)
    return seen
