"""How many floating-point operations layers need for one example, counted from shapes.

A multiplication and an addition are two operations; a window that reaches into padding counts in
full, as is usual in print.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

# A number between pixels is a sum of four products.
SAMPLE = 7


def example_shape(shape: Any) -> tuple[int, ...]:
    """Returns a shape without the batch; every size must be known.

    Example:
        >>> example_shape((None, 8, 9, 3))
        (8, 9, 3)
    """
    sizes = tuple(shape[1:])
    if None in sizes:
        raise ValueError(
            "Operations are counted for images of known size. Received: a tensor of shape "
            f"{tuple(shape)}. Give keras.Input a static size."
        )
    return sizes


def each_shape(shape: Any) -> list[Any]:
    """Returns the shapes of several tensors, such as a pyramid's levels, or one as the only one.

    Example:
        >>> each_shape((None, 8, 3)), each_shape([(None, 8, 3), (None, 4, 3)])
        ([(None, 8, 3)], [(None, 8, 3), (None, 4, 3)])
    """
    several = shape and (isinstance(shape[0], (list, tuple)) or hasattr(shape[0], "as_list"))
    return list(shape) if several else [shape]


def numbers(shape: Any) -> int:
    """Returns how many numbers one example has, in all tensors if there are several.

    Example:
        >>> numbers((None, 8, 9, 3)), numbers([(None, 8, 3), (None, 4, 3)])
        (216, 36)
    """
    return sum(math.prod(example_shape(one)) for one in each_shape(shape))


def per_output(has_bias: bool, activation: Any) -> int:
    """Returns the operations of a bias and an activation, one each for every output.

    Example:
        >>> per_output(True, keras.activations.relu), per_output(True, keras.activations.linear)
        (2, 1)
    """
    return bool(has_bias) + (activation is not keras.activations.linear)


def convolution(kernel_shape: Sequence[int], outputs: int) -> int:
    """Returns the products and sums of filters that all positions share.

    Args:
        kernel_shape: Shape of the kernel, its filters last.
        outputs: How many numbers it makes.

    Example:
        >>> convolution((3, 3, 4, 5), 6 * 7 * 5) == 2 * 36 * 210
        True
    """
    return 2 * math.prod(kernel_shape[:-1]) * outputs


def linear_resizing(sizes: Sequence[int], positions: Sequence[int], channels: int) -> int:
    """Returns the operations of linear interpolation, a product with a matrix along each axis.

    Example:
        >>> linear_resizing((8, 9), (4, 9), 3) == 2 * 8 * 4 * 9 * 3
        True
    """
    found, current = 0, list(sizes)
    for axis, (size, made) in enumerate(zip(sizes, positions, strict=True)):
        current[axis] = made
        if size not in (1, made):
            found += 2 * size * channels * math.prod(current)
    return found
