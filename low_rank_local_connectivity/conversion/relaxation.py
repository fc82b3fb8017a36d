"""Between convolutions and low-rank layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.conversion.checks import LowRank, not_built, require_channels
from low_rank_local_connectivity.conversion.families import (
    DEPTHWISE,
    PLAIN,
    RELAXED,
    SEPARABLE,
    TRANSPOSED,
    channels_read,
    family_of,
)
from low_rank_local_connectivity.conversion.weights import shared_arguments, to_numpy
from low_rank_local_connectivity.layers.data_format import split_shape
from low_rank_local_connectivity.layers.local.separable_low_rank import (
    SeparableLowRankLocallyConnected,
)
from low_rank_local_connectivity.layers.local.spatial_bias import SpatialBias
from low_rank_local_connectivity.ops.arguments import (
    is_real,
    positive_int,
    received,
    spatial_axes,
    whole_number,
)


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
        layer: Built convolution: `Conv1D` to `Conv3D`, in groups too, or transposed one of these;
            `DepthwiseConv1D` or `2D`; `SeparableConv1D` or `2D`, of which the depthwise step gets
            banks.
        spatial_rank: Number of banks.
        input_shape: Shape of the inputs with the batch; that of the layer's own inputs if None.
        spread: Size of the perturbations in standard deviations of the kernel; above 0.
        additive_axes: As in the low-rank layers.
        seed: Seed of the perturbations; if None, they differ every time.

    Returns:
        Built layer of the same name, activation, padding, strides and dilation; its spatial bias
        starts at 0.

    Raises:
        ValueError: If the layer is of another kind or not built, `spread` is not positive, or
            another argument is out of its range.

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
    if type(layer) not in RELAXED:
        raise ValueError(
            "from_convolution() takes a convolution of Keras's: plain, transposed, depthwise or "
            f"separable. Received: {type(layer).__name__}."
        )
    if not layer.built:
        raise ValueError(not_built("from_convolution", layer))
    spatial_rank, spread, seed = _checked(spatial_rank, spread, seed)
    shape = layer.get_build_config()["input_shape"] if input_shape is None else input_shape
    family = family_of(layer)
    kernel = to_numpy(layer.depthwise_kernel if family is SEPARABLE else layer.kernel)
    require_channels(layer, shape, channels_read(layer))
    noise = np.random.default_rng(seed).normal(size=(spatial_rank, *kernel.shape))
    noise -= noise.mean(0)
    banks = kernel + spread * kernel.std() * noise
    also = ("kernel_size", "dilation_rate", "use_bias", *family.filters, *family.weight_arguments)
    found = RELAXED[type(layer)](
        **shared_arguments(layer, also), spatial_rank=spatial_rank, additive_axes=additive_axes
    )
    found.build(tuple(shape))
    found.kernel_bases.assign(np.moveaxis(banks, 0, -2).reshape(*kernel.shape[:-1], -1))
    if family is SEPARABLE:
        found.pointwise_kernel.assign(layer.pointwise_kernel)
    if layer.use_bias:
        found.bias.assign(layer.bias)
    found.trainable = layer.trainable
    return found


def _checked(spatial_rank: Any, spread: Any, seed: Any) -> tuple[int, float, int | None]:
    """Returns a rank, the size of perturbations and their seed, if they can be taken."""
    spatial_rank = positive_int("spatial_rank", spatial_rank)
    seed = None if seed is None else whole_number("seed", seed, 0)
    if not (is_real(spread) and math.isfinite(spread) and spread > 0):
        raise ValueError(
            "`spread` must be a positive number, since equal banks would stay equal. "
            f"Received: {received('spread', spread)}."
        )
    return spatial_rank, spread, seed


def relaxing(
    spatial_rank: int,
    spread: float = 0.1,
    *,
    additive_axes: tuple[int, ...] | None = None,
    seed: int | None = 0,
) -> Callable[[Any], LowRank | None]:
    """Returns a rule for `convert` that relaxes every convolution larger than 1x1.

    Args:
        spatial_rank: Number of banks, or of positions where a layer has fewer.
        spread: As in `from_convolution`.
        additive_axes: Likewise; `(0,)` in a network for images of any width.
        seed: Likewise.

    Raises:
        ValueError: If an argument is out of its range; `convert` raises it if a layer that is
            relaxed does not know the size of its inputs along an axis that has weights.

    Example:
        >>> from low_rank_local_connectivity.conversion import convert
        >>> steps = [keras.layers.DepthwiseConv2D(3), keras.layers.Conv2D(5, 1)]
        >>> model = keras.Sequential([keras.Input((8, 9, 2)), *steps])
        >>> relaxed = convert(model, relaxing(spatial_rank=4), report=None)
        >>> [type(layer).__name__ for layer in relaxed.layers]
        ['DepthwiseLowRankLocallyConnected2D', 'Conv2D']
    """
    spatial_rank, spread, seed = _checked(spatial_rank, spread, seed)
    if additive_axes is not None:
        additive_axes = spatial_axes("additive_axes", additive_axes, max(PLAIN.convolutions))

    def rule(layer: Any) -> LowRank | None:
        if type(layer) not in RELAXED or max(layer.kernel_size) == 1:
            return None
        rank = _rank_for(layer, spatial_rank)
        return from_convolution(layer, rank, None, spread, additive_axes=additive_axes, seed=seed)

    return rule


def _rank_for(layer: Any, spatial_rank: int) -> int:
    """Returns a rank that is no higher than the number of a layer's positions, if it is known."""
    if not layer.built:
        return spatial_rank  # of a layer that is refused
    shape = layer.get_build_config()["input_shape"]
    if family_of(layer) is not TRANSPOSED:  # whose filters belong to positions of the inputs
        shape = layer.compute_output_shape(shape)
    sizes, _ = split_shape(shape, layer.data_format)
    return spatial_rank if None in sizes else min(spatial_rank, math.prod(sizes))


def to_convolution(layer: LowRank) -> list[keras.Layer]:
    """Returns a layer of rank 1 as a convolution, a spatial bias and an activation."""
    family = family_of(layer)
    convolution = family.convolutions[layer.dimensions](
        **shared_arguments(
            layer,
            ("kernel_size", "dilation_rate", "use_bias", *family.filters),
            activation=_activates_itself(layer),
        ),
    )
    convolution.build(layer.get_build_config()["input_shape"])
    kernels = [layer.kernel_bases] + ([layer.pointwise_kernel] if family is SEPARABLE else [])
    convolution.set_weights(
        [to_numpy(one) for one in (*kernels, *([layer.bias] if layer.use_bias else []))]
    )
    return [convolution, *_afterwards(layer)]


def to_steps(layer: SeparableLowRankLocallyConnected) -> list[Any]:
    """Returns a separable layer as a depthwise one, a pointwise convolution and what follows."""
    names = ("kernel_size", "dilation_rate", "spatial_rank", "additive_axes", "normalize_weights")
    shared = shared_arguments(
        layer, (*names, *DEPTHWISE.filters, "input_dependent"), activation=False
    )
    shared["activity_regularizer"] = None
    first = DEPTHWISE.low_rank[layer.dimensions](
        **{**shared, "name": f"{layer.name}_depthwise"}, use_spatial_bias=False, use_bias=False
    )
    shape = layer.get_build_config()["input_shape"]
    first.build(shape)
    first.set_weights([to_numpy(one) for one in (*_listed(layer.kernel_bases), *layer.logits)])
    pointwise = PLAIN.convolutions[layer.dimensions](
        layer.filters,
        1,
        data_format=layer.data_format,
        activation=layer.activation if _activates_itself(layer) else None,
        use_bias=layer.use_bias,
        activity_regularizer=layer.activity_regularizer,
        dtype=layer.dtype_policy,
        name=layer.name,
    )
    pointwise.build(first.compute_output_shape(shape))
    pointwise.set_weights(
        [to_numpy(layer.pointwise_kernel)] + ([to_numpy(layer.bias)] if layer.use_bias else [])
    )
    return [first, pointwise, *_afterwards(layer)]


def _listed(banks: Any) -> list[Any]:
    return banks if isinstance(banks, list) else [banks]


def _activates_itself(layer: Any) -> bool:
    """Whether nothing comes between a layer's filters and its activation."""
    return layer.activation is keras.activations.linear or not layer.spatial_bias_terms


def _afterwards(layer: Any) -> list[keras.Layer]:
    """Returns the layers of what a low-rank layer does behind its filters and their bias."""
    chain: list[keras.Layer] = []
    if layer.spatial_bias_terms:
        per_filter = layer.use_spatial_bias == "per_filter"
        bias = SpatialBias(
            None if per_filter else layer.additive_axes,
            per_filter,
            layer.data_format,
            dtype=layer.dtype_policy,
            name=f"{layer.name}_spatial_bias",
        )
        bias.build(layer.compute_output_shape(layer.get_build_config()["input_shape"]))
        bias.set_weights([to_numpy(term) for term in layer.spatial_bias_terms])
        chain.append(bias)
    if not _activates_itself(layer):
        chain.append(
            keras.layers.Activation(
                layer.activation, dtype=layer.dtype_policy, name=f"{layer.name}_activation"
            )
        )
    return chain
