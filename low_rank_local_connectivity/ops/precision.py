"""Data types: what is computed in which, where Keras would compute in another.

Type promotion in Keras knows no float64 on JAX and PyTorch, and some of its operations compute in
float32 whatever they are given. Those here keep float64, and are Keras's own on any other data
type. Integers and booleans become floating-point numbers before they meet any.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def dtype_of(tensor) -> str:
    """Returns a tensor's data type as Keras names it."""
    return keras.backend.standardize_dtype(tensor.dtype)


def itemsize_of(dtype: str) -> int:
    """Returns the bytes of a number.

    Args:
        dtype: Data type of floating-point numbers as Keras names it.

    Example:
        >>> itemsize_of("bfloat16"), itemsize_of("float64")
        (2, 8)
    """
    return int(dtype.removeprefix("b").removeprefix("float")) // 8


def at_least_float32(*tensors) -> str:
    """Returns the data type that tensors have in common, at least float32.

    Example:
        >>> at_least_float32(ops.ones(2, dtype="float16"), ops.ones(2, dtype="int8"))
        'float32'
    """
    dtypes = [dtype_of(tensor) for tensor in tensors]
    return "float64" if "float64" in dtypes else keras.backend.result_type(*dtypes, "float32")


def is_whole(tensor) -> bool:
    """Whether a tensor's data type is an integer one or bool.

    Example:
        >>> is_whole(ops.ones(2, dtype="uint8")), is_whole(ops.ones(2))
        (True, False)
    """
    return dtype_of(tensor) == "bool" or "int" in dtype_of(tensor)


def as_floats(*tensors) -> tuple[Any, ...]:
    """Returns tensors with integers and booleans turned into floating-point numbers.

    Args:
        *tensors: Tensors or arrays, or None, which stays.

    Returns:
        The tensors; those of integers in the data type of the first that has none, which is
        Keras's `floatx` if all have.

    Example:
        >>> pixels, kernel = as_floats(ops.ones(2, dtype="uint8"), ops.ones(2, dtype="float16"))
        >>> keras.backend.standardize_dtype(pixels.dtype)
        'float16'
    """
    given = [one if one is None else ops.convert_to_tensor(one) for one in tensors]
    floats = [dtype_of(one) for one in given if one is not None and not is_whole(one)]
    dtype = floats[0] if floats else keras.config.floatx()
    return tuple(
        ops.cast(one, dtype) if one is not None and is_whole(one) else one for one in given
    )


def _loses_digits(*tensors) -> bool:
    """Whether Keras would compute in less than the float64 of one of the tensors."""
    return keras.backend.backend() != "tensorflow" and "float64" in map(dtype_of, tensors)


def matmul(first, second) -> Any:
    """Returns the matrix product, as `keras.ops.matmul`.

    Example:
        >>> matmul(ops.ones((2, 3)), ops.ones((3, 4))).shape[1]
        4
    """
    if _loses_digits(first, second):
        return ops.cast(first, "float64") @ ops.cast(second, "float64")
    return ops.matmul(first, second)


def mean(tensor, axis: int | Sequence[int], keepdims: bool = False) -> Any:
    """Returns the mean over some axes, as `keras.ops.mean`.

    Example:
        >>> float(mean(ops.array([1.0, 2.0]), axis=0))
        1.5
    """
    if not _loses_digits(tensor):
        return ops.mean(tensor, axis=axis, keepdims=keepdims)
    count = 1
    for one in (axis,) if isinstance(axis, int) else axis:
        count = count * ops.shape(tensor)[one]
    return ops.sum(tensor, axis=axis, keepdims=keepdims) / count


def maximum(tensor, least: float) -> Any:
    """Returns a tensor whose elements below a number are replaced by it, as `keras.ops.maximum`.

    Example:
        >>> ops.convert_to_numpy(maximum(ops.array([1.0, 3.0]), 2.0)).tolist()
        [2.0, 3.0]
    """
    if _loses_digits(tensor):
        return ops.where(tensor > least, tensor, ops.full_like(tensor, least))
    return ops.maximum(tensor, least)


def floor(tensor) -> Any:
    """Returns the next smaller whole numbers, as `keras.ops.floor`.

    Example:
        >>> ops.convert_to_numpy(floor(ops.array([-0.5, 1.5]))).tolist()
        [-1.0, 1.0]
    """
    return tensor // 1.0 if _loses_digits(tensor) else ops.floor(tensor)


def segment_sum(values, segments, num_segments) -> Any:
    """Returns the sums of the values that go to each segment, as `keras.ops.segment_sum`.

    Args:
        values: Tensor whose first axis is summed.
        segments: The segment of each value, from 0 to `num_segments - 1`.
        num_segments: How many segments there are.

    Example:
        >>> sums = segment_sum(ops.array([1.0, 2.0, 4.0]), ops.array([0, 1, 0]), 2)
        >>> ops.convert_to_numpy(sums).tolist()
        [5.0, 2.0]
    """
    if keras.backend.backend() == "torch" and dtype_of(values) == "float64":
        zeros: Any = ops.zeros((num_segments, *values.shape[1:]), dtype="float64")
        return zeros.index_add(0, segments, values)
    return ops.segment_sum(values, segments, num_segments=num_segments)
