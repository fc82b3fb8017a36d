"""Initial values for several filters at once, each as a convolution would draw its own."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from keras import initializers, ops

from low_rank_local_connectivity.ops.kronecker import Factors

# Their values do not depend on the shape, so one call for all filters is as good as one each.
_SHAPE_FREE = (
    initializers.Constant,
    initializers.Ones,
    initializers.RandomNormal,
    initializers.RandomUniform,
    initializers.TruncatedNormal,
    initializers.Zeros,
)


def draw_filters(initializer: Callable, shape: Sequence[int], count: int, dtype: Any):
    """Draws `count` independent filter banks.

    A single call on a shape with the count inside has the wrong fans, and two calls of one
    initializer give equal values: equal banks get equal gradients and never part. Here one call
    draws them side by side, and the result is scaled to the fans of one bank (by exactly 1 for
    initializers that use `fan_in`). Initializers whose values depend on the shape in another
    way, `Orthogonal` for one, are called once a bank, each time with a seed of its own.

    Args:
        initializer: Keras initializer or callable `(shape, dtype) -> tensor`.
        shape: `(*kernel_size, input_channels, filters)` of one bank.
        count: How many banks.
        dtype: Data type of the values.

    Returns:
        Tensor of shape `(*kernel_size, input_channels, count, filters)`.

    Example:
        >>> banks = draw_filters(initializers.HeUniform(seed=1), (3, 3, 4, 5), 6, "float32")
        >>> ops.shape(banks)
        (3, 3, 4, 6, 5)
    """
    *reads, filters = shape
    if isinstance(initializer, _SHAPE_FREE) or _has_usual_fans(initializer):
        joint_shape = (*reads, count * filters)
        values = initializer(joint_shape, dtype=dtype)
        if isinstance(initializer, initializers.VarianceScaling):
            ratio = _fan(joint_shape, initializer.mode) / _fan(shape, initializer.mode)
            if ratio != 1:
                values = values * math.sqrt(ratio)
        return ops.reshape(values, (*reads, count, filters))
    banks = [separate_clone(initializer, index)(shape, dtype=dtype) for index in range(count)]
    return ops.stack(banks, axis=-2)


def draw_turned_filters(
    initializer: Callable, shape: Sequence[int], taps: int, order: int, dtype: Any
):
    """Draws filters that a layer applies in several orientations.

    Values have the variance that the plain kernel with all orientations would get: of `taps` taps,
    all orientations of the input among its channels and `order` times as many filters.

    Args:
        initializer: Keras initializer or callable `(shape, dtype) -> tensor`.
        shape: `(k, k, channels, filters)` or `(k, k, orientations, channels, filters)`.
        taps: How many of the `k * k` taps are used.
        order: In how many orientations.
        dtype: Data type of the values.

    Returns:
        Tensor of that shape.

    Example:
        >>> shape = (3, 3, 4, 5, 6)
        >>> ops.shape(draw_turned_filters(initializers.HeNormal(), shape, 9, 4, "float32"))
        (3, 3, 4, 5, 6)
    """
    values = initializer(shape, dtype=dtype)
    if not _has_usual_fans(initializer):
        return values
    plain = (taps, math.prod(shape[2:-1]), order * shape[-1])
    return values * math.sqrt(_fan(shape, initializer.mode) / _fan(plain, initializer.mode))


def draw_factor(initializer: Callable, factors: Factors, rank: int, index: int, dtype: Any):
    """Draws the coarse (index 0) or fine (index 1) kernels of a sum of Kronecker products.

    A sum of `R` products of independent numbers of mean 0 and variances `s` and `t` has the
    variance `R s t`. So either factor gets `sqrt(v / R)`, where `v` is the variance that the
    initializer gives the kernel of an ordinary convolution; with the fans of its own shape it
    would get more. The numbers are those of the initializer, scaled to that mean square.

    Args:
        initializer: Keras initializer or callable `(shape, dtype) -> tensor`.
        factors: Shapes of a term's coarse and fine kernel.
        rank: Number of terms.
        index: Which of both to draw.
        dtype: Data type of the values.

    Returns:
        Tensor of shape `(rank, *factors[index])`.

    Example:
        >>> factors = ((3, 3, 1, 2), (1, 1, 4, 5))
        >>> ops.shape(draw_factor(initializers.HeUniform(seed=1), factors, 6, 0, "float32"))
        (6, 3, 3, 1, 2)
    """
    whole = tuple(one * other for one, other in zip(*factors, strict=True))
    if _has_usual_fans(initializer):
        variance = initializer.scale / _fan(whole, initializer.mode)
    else:
        variance = _mean_square(initializer(whole, dtype="float32"))
    draw = separate_clone(initializer, index)
    values: Any = draw((rank, *factors[index]), dtype="float32")
    wanted: Any = ops.sqrt(variance / rank)
    return ops.cast(values * ops.sqrt(wanted / _mean_square(values)), dtype)


def _mean_square(values: Any) -> Any:
    return ops.mean(ops.square(values))


def separate_clone(initializer: Callable, index: int) -> Callable:
    """Returns the initializer itself for index 0, else a clone that draws other values."""
    if index == 0 or not isinstance(initializer, initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += index
    return type(initializer).from_config(config)


def _has_usual_fans(initializer: Callable) -> bool:
    """Whether values scale with the fans of a convolution kernel; newer Keras can choose others."""
    return isinstance(initializer, initializers.VarianceScaling) and all(
        getattr(initializer, name, None) is None for name in ("input_axes", "output_axes")
    )


def _fan(shape: Sequence[int], mode: str) -> float:
    """Returns the fan of a convolution kernel of this shape that `mode` names."""
    *taps, channels, filters = shape
    fan_in, fan_out = math.prod(taps) * channels, math.prod(taps) * filters
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
