"""Convolution with a kernel per example, mixed from experts: two ways, the same numbers.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
    f  filter             p  output positions, flattened in row-major order
    n  expert             T  kernel taps, one axis per dimension
    r  taps, then channels, flattened
"""

import math

from keras import ops

from low_rank_local_connectivity.ops.low_rank_local_convolution import convolve_then_combine
from low_rank_local_connectivity.ops.patches import read_taps
from low_rank_local_connectivity.ops.precision import at_least_float32, matmul
from low_rank_local_connectivity.ops.windows import Windows


def mix_kernels(kernels_nTcf, routing_bn):
    """Mixes the experts' kernels into one for each example.

    `kernels[b] = sum_n routing[b, n] * experts[n]`

    Args:
        kernels_nTcf: The experts' kernels; biases of axes `nf` are mixed just so.
        routing_bn: Weight of each expert for each example.

    Returns:
        Tensor of axes `bTcf`, in at least float32.

    Example:
        >>> ops.shape(mix_kernels(ops.ones((6, 3, 2, 4, 5)), ops.ones((7, 6))))
        (7, 3, 2, 4, 5)
    """
    dtype = at_least_float32(kernels_nTcf, routing_bn)
    experts, *shape = kernels_nTcf.shape
    flat = ops.reshape(ops.cast(kernels_nTcf, dtype), (experts, -1))
    return ops.reshape(matmul(ops.cast(routing_bn, dtype), flat), (-1, *shape))


def convolve_each(inputs_bSc, kernels_bTcf, windows: Windows):
    """Convolves each example with its own kernel.

    `outputs[b, p, f] = sum_r patches[b, p, r] * kernels[b, r, f]`: one matrix product per
    example. The other way, a convolution in as many groups as examples, needs the batch size
    when it is traced on TensorFlow; on two CPU cores and batches of 8 and 32 its gradient works,
    but took 6 to 50 times as long there and on JAX, if half as long on PyTorch.

    Args:
        inputs_bSc: Inputs; batch and spatial sizes may be unknown.
        kernels_bTcf: A kernel for each example.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`.

    Example:
        >>> windows = Windows((3, 2), (1, 1), (1, 1), "valid")
        >>> ops.shape(convolve_each(ops.ones((7, 8, 9, 4)), ops.ones((7, 3, 2, 4, 5)), windows))
        (7, 6, 8, 5)
    """
    taps_bOc = read_taps(inputs_bSc, windows)
    patches_bOr = ops.concatenate(taps_bOc, axis=-1) if len(taps_bOc) > 1 else taps_bOc[0]
    _, *positions, reads = patches_bOr.shape
    dynamic = ops.shape(patches_bOr)
    filters = kernels_bTcf.shape[-1]
    count = -1 if None in positions else math.prod(positions)
    batch = dynamic[0] if count == -1 else -1
    patches_bpr = ops.reshape(patches_bOr, (batch, count, reads))
    kernels_brf = ops.reshape(kernels_bTcf, (-1, reads, filters))
    outputs_bpf = matmul(patches_bpr, kernels_brf)
    return ops.reshape(outputs_bpf, (-1, *dynamic[1:-1], filters))


def convolve_by_mixed_kernels(inputs_bSc, kernels_nTcf, routing_bn, windows: Windows):
    """Mixes the kernels for each example, then convolves with them: one convolution's work.

    Args:
        inputs_bSc: Inputs; batch and spatial sizes may be unknown.
        kernels_nTcf: The experts' kernels.
        routing_bn: Weight of each expert for each example.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`, in the data type of the inputs.

    Example:
        >>> windows = Windows((3, 2), (1, 1), (1, 1), "valid")
        >>> images, experts = ops.ones((7, 8, 9, 4)), ops.ones((6, 3, 2, 4, 5))
        >>> ops.shape(convolve_by_mixed_kernels(images, experts, ops.ones((7, 6)), windows))
        (7, 6, 8, 5)
    """
    kernels_bTcf = ops.cast(mix_kernels(kernels_nTcf, routing_bn), inputs_bSc.dtype)
    return convolve_each(inputs_bSc, kernels_bTcf, windows)


def mix_responses(inputs_bSc, kernels_nTcf, routing_bn, windows: Windows):
    """Convolves with every expert, then mixes what they answer: as many convolutions as experts.

    `outputs[b] = sum_n routing[b, n] * conv(inputs[b], experts[n])`. Equals
    `convolve_by_mixed_kernels`, since a convolution is linear in its kernel.

    Args:
        inputs_bSc: Inputs; batch and spatial sizes may be unknown.
        kernels_nTcf: The experts' kernels.
        routing_bn: Weight of each expert for each example.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`, in the data type of the inputs.

    Example:
        >>> windows = Windows((3, 2), (1, 1), (1, 1), "valid")
        >>> images, experts = ops.ones((7, 8, 9, 4)), ops.ones((6, 3, 2, 4, 5))
        >>> ops.shape(mix_responses(images, experts, ops.ones((7, 6)), windows))
        (7, 6, 8, 5)
    """
    experts, *taps, channels, filters = kernels_nTcf.shape
    kernels_Tcnf = ops.moveaxis(ops.cast(kernels_nTcf, inputs_bSc.dtype), 0, -2)
    kernel_Tcg = ops.reshape(kernels_Tcnf, (*taps, channels, experts * filters))
    weights_bOn = ops.cast(routing_bn, inputs_bSc.dtype)
    for _ in taps:
        weights_bOn = ops.expand_dims(weights_bOn, 1)
    return convolve_then_combine(inputs_bSc, kernel_Tcg, weights_bOn, windows)
