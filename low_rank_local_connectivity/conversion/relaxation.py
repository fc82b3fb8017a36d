"""Between convolutions and low-rank layers."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.conversion.checks import LowRank, not_built, require_channels
from low_rank_local_connectivity.conversion.weights import shared_arguments, to_numpy
from low_rank_local_connectivity.layers.base_local_conv_transpose import BaseLocalConvTranspose
from low_rank_local_connectivity.layers.local.spatial_bias import SpatialBias
from low_rank_local_connectivity.ops.arguments import (
    is_real,
    positive_int,
    received,
    whole_number,
)

RELAXED: dict[type, Any] = {
    keras.layers.Conv1D: layers.LowRankLocallyConnected1D,
    keras.layers.Conv2D: layers.LowRankLocallyConnected2D,
    keras.layers.Conv3D: layers.LowRankLocallyConnected3D,
}
RELAXED_TRANSPOSED: dict[type, Any] = {
    keras.layers.Conv1DTranspose: layers.LowRankLocallyConnected1DTranspose,
    keras.layers.Conv2DTranspose: layers.LowRankLocallyConnected2DTranspose,
    keras.layers.Conv3DTranspose: layers.LowRankLocallyConnected3DTranspose,
}
# Arguments that a relaxed convolution keeps, besides those that all local layers share.
KEPT = (
    "kernel_size",
    "dilation_rate",
    "use_bias",
    "kernel_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
)
PLAIN: dict[int, Any] = {
    1: keras.layers.Conv1D,
    2: keras.layers.Conv2D,
    3: keras.layers.Conv3D,
}
PLAIN_TRANSPOSED: dict[int, Any] = {
    1: keras.layers.Conv1DTranspose,
    2: keras.layers.Conv2DTranspose,
    3: keras.layers.Conv3DTranspose,
}


def from_convolution(
    layer: Any,
    spatial_rank: int,
    input_shape: Sequence[int | None] | None = None,
    spread: float = 0.1,
    *,
    additive_axes: tuple[int, ...] | None = None,
    seed: int | None = 0,
) -> LowRank:
    """Returns a low-rank layer that starts as a trained convolution, from which it can depart.

    `bank[k] = kernel + spread * std(kernel) * (noise[k] - mean(noise))`, with combining weights of
    `1 / K`: the perturbations sum to zero, so the mix is the kernel. They are needed because equal
    banks would always get equal gradients.

    Args:
        layer: Built `Conv1D`, `Conv2D` or `Conv3D` with `groups=1`, or transposed one of these.
        spatial_rank: Number of banks.
        input_shape: Shape of the inputs with the batch; that of the layer's own inputs if None.
        spread: Size of the perturbations in standard deviations of the kernel; above 0.
        additive_axes: As in the low-rank layers.
        seed: Seed of the perturbations; if None, they differ every time.

    Returns:
        Built layer of the same name, activation, padding, strides and dilation; its spatial bias
        starts at 0.

    Raises:
        ValueError: If the layer is of another kind, grouped or not built, `spread` is not
            positive, or another argument is out of its range.

    Example:
        >>> from keras import ops
        >>> convolution = keras.layers.Conv2D(5, 3)
        >>> images = np.ones((1, 8, 9, 2))
        >>> expected = convolution(images)
        >>> relaxed = from_convolution(convolution, spatial_rank=4)
        >>> bool(ops.all(ops.isclose(relaxed(images), expected, atol=1e-5)))
        True
    """
    # A subclass may compute something else.
    kinds = {**RELAXED, **RELAXED_TRANSPOSED}
    if type(layer) not in kinds or getattr(layer, "groups", 1) != 1:
        groups = f" with groups={layer.groups}" if hasattr(layer, "groups") else ""
        raise ValueError(
            "from_convolution() takes a Conv1D, Conv2D or Conv3D with groups=1, or a "
            f"Conv1DTranspose, Conv2DTranspose or Conv3DTranspose. Received: "
            f"{type(layer).__name__}{groups}."
        )
    if not layer.built:
        raise ValueError(not_built("from_convolution", layer))
    spatial_rank = positive_int("spatial_rank", spatial_rank)
    seed = None if seed is None else whole_number("seed", seed, 0)
    if not (is_real(spread) and math.isfinite(spread) and spread > 0):
        raise ValueError(
            "`spread` must be a positive number, since equal banks would stay equal. "
            f"Received: {received('spread', spread)}."
        )
    shape = layer.get_build_config()["input_shape"] if input_shape is None else input_shape
    transposed = type(layer) in RELAXED_TRANSPOSED
    require_channels(layer, shape, layer.kernel.shape[-1 if transposed else -2])
    kernel = to_numpy(layer.kernel)
    noise = np.random.default_rng(seed).normal(size=(spatial_rank, *kernel.shape))
    noise -= noise.mean(0)
    banks = kernel + spread * kernel.std() * noise
    found = kinds[type(layer)](
        **shared_arguments(layer, KEPT), spatial_rank=spatial_rank, additive_axes=additive_axes
    )
    found.build(tuple(shape))
    found.kernel_bases.assign(np.moveaxis(banks, 0, -2).reshape(*kernel.shape[:-1], -1))
    if layer.use_bias:
        found.bias.assign(layer.bias)
    found.trainable = layer.trainable
    return found


def to_convolution(layer: LowRank) -> list[keras.Layer]:
    """Returns a layer of rank 1 as a convolution, a spatial bias and an activation."""
    linear = layer.activation is keras.activations.linear or not layer.spatial_bias_terms
    transposed = isinstance(layer, BaseLocalConvTranspose)
    convolution = (PLAIN_TRANSPOSED if transposed else PLAIN)[layer.dimensions](
        **shared_arguments(layer, ("kernel_size", "dilation_rate"), activation=linear),
        use_bias=layer.use_bias,
    )
    channels = (layer.input_channels,)
    shape = (*layer.input_sizes, *channels)
    if layer.data_format == "channels_first":
        shape = (*channels, *layer.input_sizes)
    convolution.build((None, *shape))
    convolution.set_weights(
        [to_numpy(layer.kernel_bases)] + ([to_numpy(layer.bias)] if layer.use_bias else [])
    )
    chain: list[keras.Layer] = [convolution]
    if layer.spatial_bias_terms:
        per_filter = layer.use_spatial_bias == "per_filter"
        bias = SpatialBias(
            None if per_filter else layer.additive_axes,
            per_filter,
            layer.data_format,
            dtype=layer.dtype_policy,
            name=f"{layer.name}_spatial_bias",
        )
        bias.build(layer.compute_output_shape((None, *shape)))
        bias.set_weights([to_numpy(term) for term in layer.spatial_bias_terms])
        chain.append(bias)
    if not linear:
        chain.append(
            keras.layers.Activation(
                layer.activation, dtype=layer.dtype_policy, name=f"{layer.name}_activation"
            )
        )
    return chain
