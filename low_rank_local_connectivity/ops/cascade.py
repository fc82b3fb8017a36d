"""Chains of linear convolutions as one."""

import itertools
from collections.abc import Sequence
from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    per_axis,
    require_same_dtype,
    sequence,
    tensor,
)
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.precision import as_floats, dtype_of


def merge_cascade(kernels: Sequence[Any], dilations: Sequence[tuple[int, int]]):
    """Returns the one kernel that does what a chain of dilated convolutions does.

    Two kernels compose to `merged[t] = sum first[i] @ second[j]` over all their taps `i` and `j`
    with `d0 i + d1 j = t`, the product being that of matrices `(in, out)`: the convolution of both
    with zeros between their taps. With one channel and dilations 1, a, a * a, ... of kernels with
    `a` by `a` taps that is the Kronecker product of the kernels, the first of the chain last; with
    more channels it is one over the taps and a matrix product over the channels.

    The chain and its kernel give the same outputs if nothing is padded, or if each convolution is
    padded with zeros on every side by `dilation * (taps - 1)`, so that none of its responses is
    cut off. With `"same"` padding every convolution but the first reads zeros beyond the border
    instead of responses, and the two agree only as far inside as these convolutions' windows
    reach together.

    Args:
        kernels: Tensors of shape `(rows, columns, in, out)` in the order in which they are
            applied, each with as many input channels as the one before has filters.
        dilations: Step between the taps of each, along rows and columns.

    Returns:
        Tensor with `1 + sum(dilation * (taps - 1))` taps along either axis.

    Raises:
        ValueError: If there is no kernel, or not one dilation for each, or the channels of two
            neighbours differ.

    Example:
        >>> import numpy as np
        >>> kernels = np.arange(18.0, dtype="float32").reshape(2, 3, 3, 1, 1)
        >>> merged = ops.convert_to_numpy(merge_cascade(kernels, [(1, 1), (3, 3)]))[:, :, 0, 0]
        >>> bool(np.allclose(merged, np.kron(kernels[1, :, :, 0, 0], kernels[0, :, :, 0, 0])))
        True
    """
    kernels, dilations = _checked(kernels, dilations)
    kernels = as_floats(*kernels)
    # As an image with one example for each input channel. An identity comes first, so that the
    # first kernel's dilation is nothing special.
    channels, dtype = kernels[0].shape[2], dtype_of(kernels[0])
    merged: Any = ops.reshape(ops.eye(channels, dtype=dtype), (channels, 1, 1, channels))
    for kernel, dilation in zip(kernels, dilations, strict=True):
        spans = [rate * (size - 1) for rate, size in zip(dilation, kernel.shape[:2], strict=True)]
        merged = ops.conv(
            pad(merged, ((0, 0), *((span, span) for span in spans), (0, 0))),
            # Keras correlates; this is a convolution.
            ops.flip(ops.flip(kernel, 0), 1),
            padding="valid",
            dilation_rate=dilation,
            data_format="channels_last",
        )
    return ops.transpose(merged, (1, 2, 0, 3))


def _checked(kernels: Any, dilations: Any) -> tuple[list[Any], list[tuple[int, int]]]:
    """Returns the kernels as tensors, and the dilations along both axes."""
    kernels = [
        ops.convert_to_tensor(tensor("kernels", kernel, "yxcf"))
        for kernel in sequence("kernels", kernels, "tensors (rows, columns, in, out)")
    ]
    dilations = sequence("dilations", dilations, "pairs (rows, columns)")
    if len(kernels) < 1 or len(kernels) != len(dilations):
        raise ValueError(
            "merge_cascade() takes at least one kernel, and one dilation for each. Received: "
            f"{len(kernels)} kernels and {len(dilations)} dilations."
        )
    shapes = [tuple(kernel.shape) for kernel in kernels]
    if any(one[-1] != other[-2] for one, other in itertools.pairwise(shapes)):
        raise ValueError(
            "Every kernel of a cascade must have as many input channels as the one before has "
            f"filters. Received: kernels of shapes {shapes}."
        )
    require_same_dtype(**{f"kernels[{index}]": kernel for index, kernel in enumerate(kernels)})
    rates = [per_axis("dilations", rate, 2) for rate in dilations]
    return kernels, [(rows, columns) for rows, columns in rates]
