"""Scale spaces: images at several scales, and the correlations that commute with rescaling.

Axes in names: b batch, h and w rows and columns, c channels, f filters, l levels that a kernel
reads, i and j its taps. A pyramid's levels have sizes of their own.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    is_symbol,
    number_above,
    per_axis,
    positive_int,
    require_length,
    require_same_dtype,
    sequence,
    tensor,
    tensors,
)
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.precision import as_floats, matmul

# A float that is a hair below a whole number stands for it.
ROUNDING = 1e-9


def level_factor(base: float, level: int) -> float:
    """Returns how many times coarser a level is than the image, a whole number if `base` is.

    Example:
        >>> level_factor(2, 3), level_factor(1.5, 2)
        (8, 2.25)
    """
    return base**level


def level_dilations(num_levels: int, base: float) -> list[int]:
    """Returns `floor(base ** k)` for each level `k`.

    Example:
        >>> level_dilations(4, 2), level_dilations(4, 1.5)
        ([1, 2, 4, 8], [1, 1, 2, 3])
    """
    return [math.floor(level_factor(base, level) + ROUNDING) for level in range(num_levels)]


def level_variances(num_levels: int, base: float, zero_scale: float) -> list[float]:
    """Returns how much each level of a Gaussian scale space is smoothed beyond the image.

    `t[k] = zero_scale^2 (base^(2 k) - 1)`: level `k`, subsampled by `base^k`, then is as smooth as
    the image, whose standard deviation is `zero_scale`. Smoothings add up across a subsampling:
    `t[1] + base^2 t[k] = t[k + 1]`.

    Args:
        num_levels: How many levels, the image included.
        base: Factor from one level to the next, above 0.
        zero_scale: Standard deviation of the image's own smoothness, at least 0.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> level_variances(4, 2, 0.5)
        [0.0, 0.75, 3.75, 15.75]
    """
    number_above("base", base, 0)
    number_above("zero_scale", zero_scale, 0, or_equal=True)
    factors = [level_factor(base, level) for level in range(positive_int("num_levels", num_levels))]
    return [zero_scale**2 * (factor**2 - 1) for factor in factors]


def discrete_gaussian(variance: float) -> np.ndarray:
    """Returns the Gaussian kernel of the integers.

    `G[x] = exp(-t) I_x(t)` with the modified Bessel functions `I`, at most `4 ceil(sqrt(t))` from
    0, divided by its sum. It has the variance `t` also where that is small, and
    `G_s * G_t = G_(s + t)`; a sampled Gaussian has neither.

    Args:
        variance: `t`, at least 0.

    Returns:
        Array of odd length in float64, not to be written to.

    Raises:
        ValueError: If `variance` is out of range.

    Example:
        >>> discrete_gaussian(0.75).round(3).tolist()
        [0.0, 0.004, 0.035, 0.19, 0.541, 0.19, 0.035, 0.004, 0.0]

    Reference:
        Lindeberg, "Scale-Space for Discrete Signals", 1990; Bessel functions by Miller's
        recurrence: Abramowitz and Stegun, 9.12.
    """
    return _discrete_gaussian(number_above("variance", variance, 0, or_equal=True))


@functools.lru_cache(maxsize=64)
def _discrete_gaussian(variance: float) -> np.ndarray:
    reach = 4 * math.ceil(math.sqrt(variance))
    half = _scaled_bessel(reach, variance) if reach else np.ones(1)
    kernel = np.concatenate([half[:0:-1], half])
    kernel /= kernel.sum()
    kernel.flags.writeable = False
    return kernel


def _scaled_bessel(last: int, t: float) -> np.ndarray:
    """Returns `exp(-t) I_n(t)` for `n` from 0 to `last`.

    `I_(n - 1) = I_(n + 1) + (2 n / t) I_n`, downwards from far behind `last`, where errors die
    away; the scale follows from `exp(-t) (I_0 + 2 I_1 + 2 I_2 + ...) = 1`.
    """
    start = last + 12 * math.ceil(math.sqrt(t)) + 40
    values = np.zeros(start + 2)
    values[start] = 1.0
    for n in range(start, 0, -1):
        values[n - 1] = values[n + 1] + 2 * n / t * values[n]
        if values[n - 1] > 1e200:
            values[n - 1 :] /= values[n - 1]
    return values[: last + 1] / (values[0] + 2 * values[1:].sum())


def gaussian_matrix(length: Any, variance: float, step: int, dtype: str = "float32") -> Any:
    """Returns the matrix that smooths an axis, zeros around it, and keeps every `step`th element.

    Args:
        length: Number of elements, an integer or, in a TensorFlow graph, a scalar tensor.
        variance: As in `discrete_gaussian`.
        step: Distance of the elements that are kept.
        dtype: Data type of the matrix.

    Returns:
        Array or tensor of shape `(ceil(length / step), length)`.
    """
    if isinstance(length, int):
        return _static_gaussian_matrix(variance, step, length, dtype)
    return _gaussian_matrix(variance, step, length, dtype, ops)


@functools.lru_cache(maxsize=32)
def _static_gaussian_matrix(variance: float, step: int, length: int, dtype: str) -> np.ndarray:
    return _gaussian_matrix(variance, step, length, dtype, np)


def _gaussian_matrix(variance: float, step: int, length: Any, dtype: str, numpy: Any) -> Any:
    kernel = discrete_gaussian(variance)
    reach = len(kernel) // 2
    table = np.append(kernel[reach:], 0).astype(dtype)
    rows = step * numpy.arange((length + step - 1) // step, dtype="int32")
    distances = numpy.abs(rows[:, None] - numpy.arange(length, dtype="int32"))
    return numpy.take(table, numpy.minimum(distances, reach + 1))


def reduced_length(length: Any, factor: float) -> Any:
    """Returns `floor(length / factor)`, of an integer, None or a scalar tensor.

    Example:
        >>> reduced_length(29, 4), reduced_length(29, 2.25), reduced_length(None, 4)
        (7, 12, None)
    """
    if length is None:
        return None
    if isinstance(length, int):
        return math.floor(length / factor + ROUNDING)
    if is_symbol(length):
        return _reduced_symbol(length, factor)
    return ops.cast(ops.floor(ops.cast(length, "float32") / factor + 1e-6), "int32")


def _reduced_symbol(length: Any, factor: float) -> Any:
    if factor != int(factor):
        raise ValueError(
            "An image whose size is a symbol can be reduced by whole numbers only, of which JAX "
            f"knows the sizes. Received: a factor of {factor}. Choose a `base` that is whole, or "
            "export for one size."
        )
    return length // int(factor)


def bilinear_matrix(
    length: Any, factor: float, antialias: bool, enlarge: bool = False, dtype: str = "float32"
) -> Any:
    """Returns the matrix that reduces an axis by linear interpolation.

    Output `i` of `o` reads position `(i + 1/2) length / o - 1/2`, between two elements; with
    `antialias` all elements nearer than `length / o`, weighted by a triangle.

    Args:
        length: Number of elements, an integer or, in a TensorFlow graph, a scalar tensor.
        factor: How many times shorter the axis becomes, rounded down.
        antialias: Whether to smooth before.
        enlarge: Whether to interpolate back to `length` elements afterwards.
        dtype: Data type of the matrix.

    Returns:
        Array or tensor of shape `(floor(length / factor), length)`, or `(length, length)`.
    """
    if isinstance(length, int):
        return _static_bilinear_matrix(factor, antialias, length, enlarge, dtype)
    return _bilinear_matrix(factor, antialias, length, enlarge, dtype, ops)


@functools.lru_cache(maxsize=32)
def _static_bilinear_matrix(
    factor: float, antialias: bool, length: int, enlarge: bool, dtype: str
) -> np.ndarray:
    return _bilinear_matrix(factor, antialias, length, enlarge, dtype, np)


def _bilinear_matrix(
    factor: float, antialias: bool, length: Any, enlarge: bool, dtype: str, numpy: Any
) -> Any:
    reduced = reduced_length(length, factor)
    down = _interpolation(reduced, length, antialias, dtype, numpy)
    if not enlarge:
        return down
    return numpy.matmul(_interpolation(length, reduced, False, dtype, numpy), down)


def _interpolation(outputs: Any, inputs: Any, antialias: bool, dtype: str, numpy: Any) -> Any:
    positions = numpy.arange(inputs, dtype=dtype)
    # The cast is there for lengths that are tensors.
    length = _as_float(inputs, dtype, numpy)
    ratio = length / _as_float(outputs, dtype, numpy)
    centres = (numpy.arange(outputs, dtype=dtype) + 0.5) * ratio - 0.5
    width = 1.0
    if antialias:
        width = numpy.maximum(ratio, 1.0)
    else:
        centres = numpy.clip(centres, 0.0, length - 1.0)
    weights = numpy.maximum(1.0 - numpy.abs(centres[:, None] - positions) / width, 0.0)
    return weights / numpy.sum(weights, axis=1, keepdims=True)


def _as_float(length: Any, dtype: str, numpy: Any) -> Any:
    return np.dtype(dtype).type(length) if numpy is np else ops.cast(length, dtype)


def apply_to_rows_and_columns(inputs_bhwc, rows, columns):
    """Multiplies the axis of rows by one matrix and that of columns by another.

    Products with whole matrices, most of whose elements may be 0, take a fraction of the time
    that convolutions of one channel take, up to sizes of several hundred elements.

    Args:
        inputs_bhwc: Tensor.
        rows: Matrix of shape `(new height, height)`.
        columns: Matrix of shape `(new width, width)`.

    Returns:
        Tensor of shape `(batch, new height, new width, channels)`.
    """
    (inputs_bhwc,) = as_floats(inputs_bhwc)
    dtype = inputs_bhwc.dtype
    rows, columns = (ops.cast(ops.convert_to_tensor(one), dtype) for one in (rows, columns))
    _, height, width, channels = ops.shape(inputs_bhwc)
    flat = ops.reshape(inputs_bhwc, (-1, height, width * channels))
    moved = ops.reshape(matmul(rows, flat), (-1, ops.shape(rows)[0], width, channels))
    return ops.einsum("bhwc,vw->bhvc", moved, columns)


def scale_correlation(
    levels_bhwc: Sequence[Any],
    kernel_lijcf,
    dilations: Sequence[int],
    strides: tuple[int, ...] = (1, 1),
) -> list[Any]:
    """Correlates every level of a scale space with a kernel as large as the level is coarse.

    `out[k][z] = sum_l sum_y kernel[l, y] * levels[k + l][dilations[k] y + z]`, with zeros outside
    of an image and no levels beyond the last. Taps `y` count from the middle one; of an even
    number, from the one before the middle. With strides, every `strides`th output is computed.

    Args:
        levels_bhwc: The levels, finest first.
        kernel_lijcf: One kernel for all of them; all levels that it reads together, one size.
        dilations: Distance of taps at each level that is computed: at all, or at the first ones,
            which read the others.
        strides: Distance of outputs along rows and columns.

    Returns:
        One tensor `(batch, ceil(height / stride), ceil(width / stride), filters)` per dilation.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.
    """
    levels_bhwc, kernel_lijcf, dilations, strides = checked_levels(
        levels_bhwc, kernel_lijcf, dilations, strides
    )
    kernel_lijcf, *levels_bhwc = as_floats(kernel_lijcf, *levels_bhwc)
    depth, rows, columns, channels, filters = kernel_lijcf.shape
    # A level is convolved once, with all that it reads side by side in the channels.
    kernel_ijlcf = ops.transpose(kernel_lijcf, (1, 2, 0, 3, 4))
    outputs = []
    for level, dilation in enumerate(dilations):
        read = levels_bhwc[level : level + depth]
        joined = read[0] if len(read) == 1 else ops.concatenate(read, axis=-1)
        part = kernel_ijlcf[:, :, : len(read)]
        part = ops.reshape(part, (rows, columns, len(read) * channels, filters))
        outputs.append(_centred_correlation(joined, part, dilation, strides))
    return outputs


def checked_levels(levels: Any, kernel: Any, dilations: Any, strides: Any) -> tuple:
    """Returns the levels and the kernel as tensors, the dilations and the strides.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.
    """
    (kernel_lijcf,) = tensors(kernel_lijcf=kernel)
    levels_bhwc = [
        tensor("levels_bhwc", level, "bhwc")
        for level in sequence("levels_bhwc", levels, "tensors (batch, height, width, channels)")
    ]
    for level in levels_bhwc:
        require_length("levels_bhwc", level, "c", kernel_lijcf.shape[3], "of the kernel's channels")
        require_same_dtype(levels_bhwc=level, kernel_lijcf=kernel_lijcf)
    dilations = sequence("dilations", dilations, "integers")
    if not 0 < len(dilations) <= len(levels_bhwc):
        raise ValueError(
            "`dilations` must have one item for each level that is computed, at least 1 and at "
            f"most {len(levels_bhwc)}, the number of levels. Received: {len(dilations)} items."
        )
    shapes = {tuple(level.shape[1:3]) for level in levels_bhwc}
    sizes = {size for size in shapes if all(isinstance(length, int) for length in size)}
    if kernel_lijcf.shape[0] > 1 and len(sizes) > 1:
        raise ValueError(
            "Levels that a kernel reads together must have one size. Received: a kernel_lijcf that "
            f"reads {kernel_lijcf.shape[0]} levels, and levels_bhwc of sizes {sorted(sizes)}."
        )
    rates = [positive_int("dilations", rate) for rate in dilations]
    return levels_bhwc, kernel_lijcf, rates, per_axis("strides", strides, 2)


def _centred_correlation(inputs_bhwc, kernel_ijcf, dilation: int, strides: tuple[int, ...]):
    """Correlates with dilation and strides, which backends do not offer together.

    Where a stride divides the dilation, all that is read lies on the positions that are kept, and
    the rest is dropped before; otherwise after, if it must be.
    """
    kept = tuple(stride if dilation % stride == 0 else 1 for stride in strides)
    if max(kept) > 1:
        inputs_bhwc = inputs_bhwc[:, :: kept[0], :: kept[1]]
    rates = tuple(dilation // step for step in kept)
    left = tuple(stride // step for stride, step in zip(strides, kept, strict=True))
    # JAX must find the same symbol for all levels, however they come by their strides.
    symbolic = any(map(is_symbol, inputs_bhwc.shape[1:3]))
    together = max(left) > 1 and (max(rates) > 1 or symbolic)
    sizes = kernel_ijcf.shape[:2]
    padding = "same"
    if max(left) > 1 or any(size % 2 == 0 for size in sizes):
        # Keras's own padding would move the taps, by an amount that changes with the level.
        spans = zip(sizes, rates, strict=True)
        before = [((size - 1) // 2 * rate, size // 2 * rate) for size, rate in spans]
        inputs_bhwc = pad(inputs_bhwc, ((0, 0), *before, (0, 0)))
        padding = "valid"
    outputs = ops.conv(
        inputs_bhwc,
        kernel_ijcf,
        strides=1 if together else left,
        padding=padding,
        dilation_rate=rates,
        data_format="channels_last",
    )
    return outputs[:, :: left[0], :: left[1]] if together else outputs
