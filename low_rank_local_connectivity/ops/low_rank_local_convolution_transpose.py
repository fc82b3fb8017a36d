"""Transposed local convolution whose filters mix `k` shared banks: two ways, the same numbers.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension (length 1: shared by all)
    c  input channel      O  output positions, one axis per dimension
    f  filter             T  kernel taps, one axis per dimension
    k  filter bank        h  `k * c`, bank-major
    p  input positions, flattened in row-major order
    q  taps, then filters, of one slab
"""

import math

from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    instance_of,
    require_dimensions,
    require_same_dtype,
    tensors,
)
from low_rank_local_connectivity.ops.constants import plain_number
from low_rank_local_connectivity.ops.convolution_transpose import transposed_convolution
from low_rank_local_connectivity.ops.local_convolution import positions_of_rows
from low_rank_local_connectivity.ops.local_convolution_transpose import (
    local_convolution_transpose_by_slabs,
    written_rows,
)
from low_rank_local_connectivity.ops.low_rank_local_convolution import combine_slabs
from low_rank_local_connectivity.ops.precision import as_floats
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows


def weigh_then_convolve(inputs_bSc, kernel_Tfh, weights_bSk, windows: TransposedWindows):
    """Weighs the inputs for every bank, then spreads them by one transposed convolution.

    `outputs = sum_k transposed_conv(weights[..., k] * inputs, bank_k)`

    Costs a transposed convolution of `k` times the channels, and is the only way for weights that
    differ between examples.

    Args:
        inputs_bSc: Inputs; spatial sizes may be unknown.
        kernel_Tfh: The banks side by side in the last axis, bank-major.
        weights_bSk: Combining weights; `b` and any of `S` may have length 1.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> windows = TransposedWindows((3, 3), (2, 2), (1, 1), "same")
        >>> images, kernel = ops.ones((2, 4, 5, 7)), ops.ones((3, 3, 6, 3 * 7))
        >>> ops.shape(weigh_then_convolve(images, kernel, ops.ones((1, 4, 5, 3)), windows))
        (2, 8, 10, 6)
    """
    inputs_bSc, kernel_Tfh, weights_bSk = tensors(
        "bS", inputs_bSc=inputs_bSc, kernel_Tfh=kernel_Tfh, weights_bSk=weights_bSk
    )
    require_same_dtype(inputs_bSc=inputs_bSc, kernel_Tfh=kernel_Tfh)
    rank = plain_number(weights_bSk.shape[-1])
    _require_fit(inputs_bSc, kernel_Tfh, rank, windows)
    inputs_bSc, kernel_Tfh, weights_bSk = as_floats(inputs_bSc, kernel_Tfh, weights_bSk)
    if 1 in weights_bSk.shape[1:-1]:
        # Along all positions first: TensorFlow multiplies no two tensors that take turns in
        # having a single element along more than a few axes.
        shape = (ops.shape(weights_bSk)[0], *ops.shape(inputs_bSc)[1:-1], rank)
        weights_bSk = ops.broadcast_to(weights_bSk, shape)
    weighed_bSkc = ops.expand_dims(inputs_bSc, -2) * ops.expand_dims(weights_bSk, -1)
    channels = kernel_Tfh.shape[-1]
    weighed_bSh = ops.reshape(weighed_bSkc, (*ops.shape(inputs_bSc)[:-1], channels))
    return transposed_convolution(weighed_bSh, kernel_Tfh, windows)


def combine_then_spread(inputs_bSc, kernel_Tfh, weights_Sk, windows: TransposedWindows):
    """Mixes the banks into one filter per input position, then spreads each position by its own.

    Equals `weigh_then_convolve`, since both steps are linear, at a cost that hardly depends on the
    number of banks: the banks are mixed once for the whole batch.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernel_Tfh: The banks side by side in the last axis, bank-major.
        weights_Sk: Combining weights of every input position, the same for all examples.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`, in the data type of the inputs.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> windows = TransposedWindows((3, 3), (2, 2), (1, 1), "same")
        >>> images, kernel = ops.ones((2, 4, 5, 7)), ops.ones((3, 3, 6, 3 * 7))
        >>> ops.shape(combine_then_spread(images, kernel, ops.ones((4, 5, 3)), windows))
        (2, 8, 10, 6)
    """
    inputs_bSc, kernel_Tfh, weights_Sk = tensors(
        inputs_bSc=inputs_bSc, kernel_Tfh=kernel_Tfh, weights_Sk=weights_Sk
    )
    *sizes, rank = weights_Sk.shape
    _require_fit(inputs_bSc, kernel_Tfh, rank, windows)
    windows.static_output_shape(sizes)
    inputs_bSc, kernel_Tfh, weights_Sk = as_floats(inputs_bSc, kernel_Tfh, weights_Sk)
    rows = written_rows(windows, sizes, kernel_Tfh.shape[-2])
    kernels_pqc = [
        ops.cast(slab_pqc, inputs_bSc.dtype)
        for slab_pqc in combine_slabs(kernel_Tfh, weights_Sk, positions_of_rows(rows, sizes))
    ]
    return local_convolution_transpose_by_slabs(inputs_bSc, kernels_pqc, rows, windows)


def _require_fit(inputs_bSc, kernel_Tfh, rank: int, windows: TransposedWindows) -> None:
    """Refuses a kernel with other taps than its windows have, or not of as many banks."""
    instance_of("windows", windows, TransposedWindows)
    require_dimensions(len(windows.sizes), "`windows`", inputs_bSc=inputs_bSc)
    taps, stacked = tuple(kernel_Tfh.shape[:-2]), kernel_Tfh.shape[-1]
    if taps != tuple(windows.sizes) or stacked != rank * plain_number(inputs_bSc.shape[-1]):
        raise ValueError(
            "`kernel_Tfh` must have the taps of its windows and hold a bank for each combining "
            f"weight, each with the channels of the inputs. Received: kernel_Tfh of shape "
            f"{tuple(kernel_Tfh.shape)}, {rank} weights, windows of {math.prod(windows.sizes)} "
            f"taps, {tuple(windows.sizes)}, and inputs_bSc of shape {tuple(inputs_bSc.shape)}."
        )
