"""Deformable convolution: every tap of every position is read where an offset moves it.

A tensor's name ends in its axes:

    b  example                   h, w  row and column of the inputs
    c  input channel             i, j  row and column of the outputs
    f  filter                    y, x  row and column of a tap
    t  tap, row after row        g     offset group: channels that move together
    d  channel of an offset group
    o  direction of an offset: down, right
    q  group of the convolution: channels that its filters read
    n  output position of any example, one after another; the axes `bij` where sizes are symbols
    k  corner: the four pixels around a point
    r  group of channels of a pixel of the padded inputs, one after another
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    is_symbol,
    one_of_any_case,
    pairs_of_pads,
    per_axis,
    positive_int,
    received,
    tensor,
)
from low_rank_local_connectivity.ops.bilinear_sampling import (
    corner_reads,
    first_pixels,
    padded_pixels,
    weighted_corners,
)
from low_rank_local_connectivity.ops.gradients import with_gradient
from low_rank_local_connectivity.ops.precision import (
    as_floats,
    at_least_float32,
    matmul,
    segment_sum,
)
from low_rank_local_connectivity.ops.windows import Windows, extent, strided_length

# Numbers that taps read together may have: with fewer a graph grows with its taps and takes long to
# trace and to compile, with more the memory of what is read costs more than it saves.
AT_ONCE = 2**22
# What an unknown batch is taken for in deciding so.
USUAL_BATCH = 32

Padding = str | Sequence[Sequence[int]]


def deform_conv2d(
    x: Any,
    kernel: Any,
    offset: Any,
    mask: Any = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation_rate: int | Sequence[int] = 1,
    offset_groups: int = 1,
    groups: int = 1,
    data_format: str | None = None,
):
    """Convolves with taps that are moved, each at every position by an offset of its own.

    `outputs[p] = sum_t mask_t[p] x(s p - pad + d t + offset_t[p]) @ kernel[t]`

    where `x(.)` is bilinear interpolation and 0 outside: the pixels of the border fall off to 0
    over one pixel's length. The convention is that of torchvision and of ONNX's `DeformConv`:
    offsets count input pixels, whatever the dilation; the channels of `offset` are, for every
    offset group and in it for every tap, row after row, first the offset down, then that to the
    right. With offsets of 0 and without a mask this is a convolution.

    Memory: beside `x`, offsets and outputs, what is kept for the gradient are four numbers and
    four indices for every tap, group and position; sampled pixels are made a few taps at a time,
    forward and again backward: `4 * batch * positions * channels` for each, and as many as have
    16 MB in float32, at least one.

    Args:
        x: Inputs `(batch, height, width, channels)`; batch and size may be unknown.
        kernel: Tensor `(rows, columns, channels / groups, filters)` in either data format.
        offset: Tensor `(batch, out height, out width, 2 * offset_groups * taps)`.
        mask: Factor of each sample, `(batch, out height, out width, offset_groups * taps)`; all 1
            if None.
        strides: Step between windows, in input elements.
        padding: `"valid"`, `"same"` (Keras's: what is uneven goes below and right) or
            `((top, bottom), (left, right))`, each at least 0. It only says where windows sit:
            there are zeros all around in any case.
        dilation_rate: Step between taps, in input elements.
        offset_groups: How many groups of channels have offsets of their own; divides `channels`.
        groups: How many groups of channels have filters of their own, as in Keras's convolutions;
            divides `channels` and `filters`.
        data_format: Of `x`, `offset`, `mask` and the outputs: `"channels_last"` or
            `"channels_first"`; Keras's global setting if None.

    Returns:
        Tensor `(batch, out height, out width, filters)`, in the data type of `x`. Offsets are
        added in at least float32.

    Raises:
        ValueError: If an argument is out of range, or shapes or batches do not fit together.

    Example:
        >>> image = ops.reshape(ops.arange(12, dtype="float32"), (1, 3, 4, 1))
        >>> half_a_pixel_right = ops.reshape(ops.array([0.0, 0.5]), (1, 1, 1, 2))
        >>> offset = ops.broadcast_to(half_a_pixel_right, (1, 3, 4, 2))
        >>> moved = deform_conv2d(image, ops.ones((1, 1, 1, 1)), offset)
        >>> ops.convert_to_numpy(moved)[0, 0, :, 0].tolist()
        [0.5, 1.5, 2.5, 1.5]

    Reference:
        Dai et al., "Deformable Convolutional Networks", ICCV 2017; Zhu et al., "Deformable
        ConvNets v2: More Deformable, Better Results", CVPR 2019.
    """
    formats = (None, "channels_last", "channels_first")
    data_format = one_of_any_case("data_format", data_format, formats)
    data_format = data_format or keras.config.image_data_format()
    x_bhwc = _channels_last("x", x, data_format)
    offset = _channels_last("offset", offset, data_format)
    mask = None if mask is None else _channels_last("mask", mask, data_format)
    kernel_yxcf = ops.convert_to_tensor(tensor("kernel", kernel, "yxcf"))
    x_bhwc, kernel_yxcf, mask = as_floats(x_bhwc, kernel_yxcf, mask)
    taps = (kernel_yxcf.shape[0], kernel_yxcf.shape[1])
    strides = per_axis("strides", strides, 2)
    dilation_rate = per_axis("dilation_rate", dilation_rate, 2)
    geometry = Geometry(taps, strides, dilation_rate, padding)
    offset_groups = positive_int("offset_groups", offset_groups)
    groups = positive_int("groups", groups)
    check_kernel(x_bhwc, kernel_yxcf, groups)
    geometry.check(x_bhwc, offset, mask, offset_groups)
    reads_tngk, weights_tngk = _reads(x_bhwc, offset, mask, geometry, offset_groups)
    pixels_rd = padded_pixels(x_bhwc, offset_groups)
    kernel_tqcf = _in_groups(kernel_yxcf, groups)
    at_once = _taps_at_once(offset, taps[0] * taps[1], x_bhwc.shape[-1])
    outputs_nf = _convolve_samples(pixels_rd, reads_tngk, weights_tngk, kernel_tqcf, at_once)
    shape: Any = ops.shape(offset)
    outputs_bijf = ops.reshape(outputs_nf, (-1, shape[1], shape[2], kernel_yxcf.shape[-1]))
    return outputs_bijf if data_format == "channels_last" else ops.moveaxis(outputs_bijf, 3, 1)


class Geometry:
    """Where the windows of a deformable convolution sit.

    Args:
        taps: Rows and columns of the kernel.
        strides: Step between windows per axis.
        dilations: Step between taps per axis.
        padding: `"valid"`, `"same"` or `((top, bottom), (left, right))`.
    """

    def __init__(self, taps, strides, dilations, padding: Padding) -> None:
        self.taps, self.strides, self.dilations = taps, strides, dilations
        padding = padding.lower() if isinstance(padding, str) else padding
        named = isinstance(padding, str) and padding in ("valid", "same")
        self.pads = None if named else pairs_of_pads(padding)
        if not named and self.pads is None:
            raise ValueError(
                "`padding` must be 'valid', 'same' or ((top, bottom), (left, right)). Received: "
                f"{received('padding', padding)}."
            )
        self.windows = Windows(taps, strides, dilations, str(padding) if named else "valid")

    def output_shape(self, sizes) -> tuple[int | None, ...]:
        """Returns the number of windows per axis."""
        if self.pads is not None:
            sizes = [
                None if size is None else size + sum(pair)
                for size, pair in zip(sizes, self.pads, strict=True)
            ]
        return self.windows.output_shape(sizes)

    def before(self, sizes, axis: int):
        """Returns how far before the input the first window starts; a tensor if it must be."""
        if self.pads is not None:
            return self.pads[axis][0]
        size, stride = sizes[axis], self.strides[axis]
        if isinstance(size, int) or stride == 1 or self.windows.padding == "valid":
            known = size if isinstance(size, int) else None
            return self.windows.pad_amounts([known if axis == a else 1 for a in (0, 1)])[axis][0]
        reach = extent(self.taps[axis], self.dilations[axis])
        return ops.maximum((strided_length(size, stride) - 1) * stride + reach - size, 0) // 2

    def check(self, x_bhwc, offset, mask, groups: int) -> None:
        """Refuses tensors that do not fit together.

        Raises:
            ValueError: If they do not.
        """
        channels = x_bhwc.shape[-1]
        if channels % groups:
            raise ValueError(
                "`offset_groups` must divide the number of channels. Received: "
                f"offset_groups={groups} for inputs with {channels} channels."
            )
        count = groups * self.taps[0] * self.taps[1]
        positions = self.output_shape(x_bhwc.shape[1:3])
        _require_shape("offset", offset, positions, 2 * count, f"2 * {groups} * {count // groups}")
        _require_batch("offset", offset, x_bhwc)
        if mask is not None:
            # Those of the offsets are known where the size of the inputs is not.
            positions = tuple(offset.shape[1:3]) if None in positions else positions
            _require_shape("mask", mask, positions, count, f"{groups} * {count // groups}")
            _require_batch("mask", mask, x_bhwc)


def check_kernel(x_bhwc, kernel_yxcf, groups: int) -> None:
    """Refuses a kernel that does not fit the inputs.

    Raises:
        ValueError: If it does not.
    """
    channels = x_bhwc.shape[-1]
    *_, reads, filters = kernel_yxcf.shape
    if channels % groups or filters % groups:
        raise ValueError(
            "`groups` must divide the number of channels and that of filters. Received: "
            f"groups={groups} for inputs with {channels} channels and {filters} filters."
        )
    if reads * groups != channels:
        read = "channels" if groups == 1 else f"channels / {groups}"
        raise ValueError(
            f"`kernel` must have the shape (rows, columns, {read}, filters), with the channels of "
            f"the inputs, {channels}. Received: kernel of shape {tuple(kernel_yxcf.shape)}."
        )


def _in_groups(kernel_yxcf, groups: int):
    """Returns the kernel by tap and group of channels; `tqcf`."""
    _, _, channels, filters = kernel_yxcf.shape
    kernel_tcqf = ops.reshape(kernel_yxcf, (-1, channels, groups, filters // groups))
    return ops.transpose(kernel_tcqf, (0, 2, 1, 3))


def _require_shape(name: str, given, positions, channels: int, spelled: str) -> None:
    expected = (*positions, channels)
    shape = tuple(given.shape)
    known = zip(shape[1:], expected, strict=True)
    if any(a != b for a, b in known if isinstance(a, int) and isinstance(b, int)):
        raise ValueError(
            f"`{name}` must have a value for each output position and, in its channels, "
            f"{spelled} = {channels}: here the shape (batch, {', '.join(map(str, expected))}) "
            f"with channels last. Received: {name} of shape {shape}."
        )


def _require_batch(name: str, given, x_bhwc) -> None:
    found, batch = given.shape[0], x_bhwc.shape[0]
    # An unknown batch is None, or a symbol where JAX exports.
    if isinstance(found, int) and isinstance(batch, int) and found != batch:
        raise ValueError(
            f"`{name}` must have one example for each of the inputs', {batch}. Received: {name} "
            f"of {found} examples."
        )


def _channels_last(name: str, value, data_format: str):
    value = ops.convert_to_tensor(tensor(name, value, "bhwc"))
    return value if data_format == "channels_last" else ops.moveaxis(value, 1, -1)


def _reads(x_bhwc, offset, mask, geometry: Geometry, groups: int):
    """Returns which rows of `padded_pixels` are sampled, and with which weights: axes `tngk`."""
    dtype = at_least_float32(x_bhwc)
    rows, columns = geometry.taps
    batch, height, width, _ = ops.shape(x_bhwc)
    _, out_height, out_width, _ = ops.shape(offset)
    shape = (-1, out_height, out_width, groups, rows * columns)
    offset_bijgto = ops.reshape(ops.cast(offset, dtype), (*shape, 2))
    offset_otbijg = ops.transpose(offset_bijgto, (5, 4, 0, 1, 2, 3))
    sizes = (height, width)
    start_y_ti = _starts(geometry, 0, sizes, out_height, dtype)
    start_x_tj = _starts(geometry, 1, sizes, out_width, dtype)
    # Of all taps: those of a row one after another.
    start_y_ti = ops.repeat(start_y_ti, columns, axis=0)
    start_x_tj = ops.tile(start_x_tj, (rows, 1))
    reads_tbijgk, weights_tbijgk = corner_reads(
        offset_otbijg[0] + start_y_ti[:, None, :, None, None],
        offset_otbijg[1] + start_x_tj[:, None, None, :, None],
        height,
        width,
    )
    reads_tbijgk = reads_tbijgk + first_pixels(batch, height, width)[:, None, None, None, None]
    reads_tbijgk = reads_tbijgk * groups + ops.arange(groups, dtype="int32")[:, None]
    if mask is not None:
        mask_bijgt = ops.reshape(ops.cast(mask, dtype), shape)
        weights_tbijgk = weights_tbijgk * ops.transpose(mask_bijgt, (4, 0, 1, 2, 3))[..., None]
    # JAX lays nothing flat of whose length, a product of symbols, it does not know the sign.
    symbolic = any(map(is_symbol, (out_height, out_width)))
    positions = reads_tbijgk.shape[1:4] if symbolic else (-1,)
    flat = (rows * columns, *positions, groups, 4)
    weights_tngk = ops.cast(ops.reshape(weights_tbijgk, flat), x_bhwc.dtype)
    return ops.reshape(reads_tbijgk, flat), weights_tngk


def _taps_at_once(offset, taps: int, channels: int) -> int:
    """Returns how many taps to sample together: as many as read no more than `AT_ONCE` numbers."""
    batch, *positions, _ = offset.shape
    if not all(isinstance(size, int) for size in positions):
        return 1
    # An unknown batch is None, or a symbol where JAX exports.
    examples = batch if isinstance(batch, int) else USUAL_BATCH
    reads = 4 * examples * math.prod(positions) * channels
    return min(max(AT_ONCE // max(reads, 1), 1), taps)


def _starts(geometry: Geometry, axis: int, sizes, outputs, dtype):
    """Returns where, along an axis, each tap reads at each position if it is not moved."""
    first = ops.arange(outputs, dtype="int32") * geometry.strides[axis]
    taps = ops.arange(geometry.taps[axis], dtype="int32") * geometry.dilations[axis]
    return ops.cast(taps[:, None] + first - geometry.before(sizes, axis), dtype)


def _convolve_samples(pixels_rd, reads_tngk, weights_tngk, kernel_tqcf, at_once: int):
    """Samples and multiplies by the kernel, so many taps at once; `nf`.

    Keeping no samples for the gradient is faster than keeping them, which are as many as taps
    times the inputs: most of the time goes into memory that was not used before.
    """
    taps = kernel_tqcf.shape[0]
    parts = [slice(first, min(first + at_once, taps)) for first in range(0, taps, at_once)]

    def total(samples_tnc: Callable, pixels_rd, weights_tngk, kernel_tqcf, reads_tngk):
        return sum(
            _multiplied(samples_tnc(pixels_rd, reads, weights), kernel)
            for reads, weights, kernel in (
                (reads_tngk[part], weights_tngk[part], kernel_tqcf[part]) for part in parts
            )
        )

    def gradient(upstream_nf, pixels_rd, weights_tngk, kernel_tqcf, reads_tngk):
        found = [
            _gradients(
                pixels_rd, reads_tngk[part], weights_tngk[part], kernel_tqcf[part], upstream_nf
            )
            for part in parts
        ]
        pixel, weight, kernel = zip(*found, strict=True)
        weight, kernel = (ops.concatenate(one, axis=0) for one in (weight, kernel))
        return sum(pixel), weight, kernel

    return with_gradient(
        functools.partial(total, _samples),
        gradient,
        (ops.copy(pixels_rd), ops.copy(weights_tngk), ops.copy(kernel_tqcf)),
        (reads_tngk,),
        derived=functools.partial(total, _samples_of_corners),
    )


def _multiplied(samples_tnc, kernel_tqcf):
    """Returns the sum over taps of what each of them reads times its part of the kernel; `nf`."""
    _, groups, _, filters = kernel_tqcf.shape
    samples_tqnc = _by_group(samples_tnc, groups)
    for _ in samples_tnc.shape[3:]:
        kernel_tqcf = ops.expand_dims(kernel_tqcf, 2)
    outputs_qnf = ops.sum(matmul(samples_tqnc, kernel_tqcf), axis=0)
    if groups == 1:
        return ops.squeeze(outputs_qnf, 0)
    outputs_nqf = ops.moveaxis(outputs_qnf, 0, -2)
    return ops.reshape(outputs_nqf, (*ops.shape(outputs_nqf)[:-2], groups * filters))


def _by_group(values, groups: int):
    """Returns values with their channels divided into groups, the group behind the first axis."""
    if groups == 1:
        return ops.expand_dims(values, 1)
    shape = ops.shape(values)
    return ops.moveaxis(ops.reshape(values, (*shape[:-1], groups, shape[-1] // groups)), -2, 1)


def _samples(pixels_rd, reads_tngk, weights_tngk):
    """Returns what some taps read, corner by corner; `tnc`."""
    taps, *positions, groups, _ = reads_tngk.shape
    samples_tngd = weighted_corners(pixels_rd, reads_tngk, weights_tngk)
    positions = positions if len(positions) > 1 else [-1]
    return ops.reshape(samples_tngd, (taps, *positions, groups * pixels_rd.shape[-1]))


def _samples_of_corners(pixels_rd, reads_tngk, weights_tngk):
    """As `_samples`, from a tensor of all corners: its derivative adds to the pixels but once."""
    corners_tngkd = _corners(pixels_rd, reads_tngk)
    return _weighted(corners_tngkd, weights_tngk)


def _corners(pixels_rd, reads_tngk):
    taps, _, groups, corners = reads_tngk.shape
    found = ops.take(pixels_rd, ops.reshape(reads_tngk, (-1,)), axis=0)
    return ops.reshape(found, (taps, -1, groups, corners, pixels_rd.shape[-1]))


def _weighted(corners_tngkd, weights_tngk):
    taps, _, groups, _, depth = corners_tngkd.shape
    samples_tngd = matmul(weights_tngk[..., None, :], corners_tngkd)
    return ops.reshape(samples_tngd, (taps, -1, groups * depth))


def _gradients(pixels_rd, reads_tngk, weights_tngk, kernel_tqcf, upstream_nf):
    """Returns the gradients of some taps for the pixels, the weights and the kernel."""
    taps, _, offset_groups, _ = reads_tngk.shape
    groups, depth = kernel_tqcf.shape[1], pixels_rd.shape[-1]
    corners_tngkd = _corners(pixels_rd, reads_tngk)
    samples_tqnc = _by_group(_weighted(corners_tngkd, weights_tngk), groups)
    upstream_qnf = ops.squeeze(_by_group(upstream_nf[None], groups), 0)
    kernel_gradient_tqcf = matmul(ops.swapaxes(samples_tqnc, -1, -2), upstream_qnf)
    upstream_tqnc = matmul(upstream_qnf, ops.swapaxes(kernel_tqcf, -1, -2))
    upstream_tnqc = ops.moveaxis(upstream_tqnc, 1, 2)
    upstream_tngd = ops.reshape(upstream_tnqc, (taps, -1, offset_groups, depth))
    weight_gradient_tngk = matmul(corners_tngkd, upstream_tngd[..., None])[..., 0]
    spread_tngkd = upstream_tngd[..., None, :] * weights_tngk[..., None]
    pixel_gradient_rd = segment_sum(
        ops.reshape(spread_tngkd, (-1, depth)),
        ops.reshape(reads_tngk, (-1,)),
        num_segments=ops.shape(pixels_rd)[0],
    )
    return pixel_gradient_rd, weight_gradient_tngk, kernel_gradient_tqcf
