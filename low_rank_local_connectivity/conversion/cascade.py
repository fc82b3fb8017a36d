"""A chain of linear convolutions as one."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.conversion.checks import not_built
from low_rank_local_connectivity.conversion.weights import to_numpy
from low_rank_local_connectivity.layers.other.full_conv import FullConv2D
from low_rank_local_connectivity.ops.arguments import sequence
from low_rank_local_connectivity.ops.cascade import merge_cascade as merge_kernels


def merge_cascade(layers: Sequence[keras.layers.Layer]) -> keras.layers.Layer:
    """Returns the one convolution that computes what a chain of linear ones does.

    `kernel = ops.merge_cascade(kernels, dilations)`, where a layer's dilation counts in elements
    of the chain's input, so it is multiplied by the strides before it; the strides are multiplied
    too; and for two layers `bias = bias_0 @ sum_taps(kernel_1) + bias_1`. This shows which kernel
    a chain is equivalent to; it seldom saves time, since that kernel has more taps.

    Args:
        layers: Built layers in the order in which they are applied, of one data format, without
            activations but for the last one's: all `Conv2D`, with `groups=1`, or all
            `FullConv2D`. Those of the former with more than one tap must have
            `padding="valid"`: with `"same"` each layer but the first reads zeros beyond the
            border of its input, where one convolution reads responses to the image, so outputs
            near the border would differ. For the same reason only the last `FullConv2D` may have
            a bias.

    Returns:
        Built layer of their kind, with the name, dtype policy, `trainable` flag and activation of
        the last.

    Raises:
        ValueError: If a layer is of another kind or not built, or no single convolution is
            equivalent to the chain.

    Example:
        >>> chain = [keras.layers.Conv2D(1, 3, dilation_rate=rate) for rate in (1, 3, 9)]
        >>> keras.Sequential([keras.Input((30, 31, 1)), *chain]).output_shape
        (None, 4, 5, 1)
        >>> merge_cascade(chain).kernel_size
        (27, 27)
    """
    layers = sequence("layers", layers, "layers")
    _require_cascade(layers)
    kernels = [to_numpy(layer.kernel).astype("float32") for layer in layers]
    strides, dilations = (1, 1), []
    for layer in layers:
        dilations.append(tuple(map(math.prod, zip(strides, layer.dilation_rate, strict=True))))
        strides = tuple(map(math.prod, zip(strides, layer.strides, strict=True)))
    kernel = to_numpy(merge_kernels(kernels, dilations))
    last = layers[-1]
    found = type(last)(
        last.filters,
        kernel.shape[:2],
        strides=strides,
        data_format=last.data_format,
        activation=last.activation,
        use_bias=any(layer.use_bias for layer in layers),
        activity_regularizer=last.activity_regularizer,
        dtype=last.dtype_policy,
        name=last.name,
    )
    channels = kernel.shape[2]
    first = last.data_format == "channels_first"
    found.build((None, channels, None, None) if first else (None, None, None, channels))
    found.set_weights([kernel, *([_merged_bias(layers)] if found.use_bias else [])])
    found.trainable = last.trainable
    return found


def _merged_bias(layers: Sequence[Any]) -> np.ndarray:
    """Returns the chain's response to an input of zeros."""
    bias = np.zeros(layers[0].kernel.shape[2])
    for layer in layers:
        bias = bias @ to_numpy(layer.kernel).sum((0, 1))
        if layer.use_bias:
            bias = bias + to_numpy(layer.bias)
    return bias


def _require_cascade(layers: Sequence[Any]) -> None:
    """Refuses a chain to which no single convolution is equivalent."""
    if not layers:
        raise ValueError("merge_cascade() takes at least one layer. Received: none.")
    for layer in layers:
        _require_mergeable(layer, type(layers[0]), layer is layers[-1])
    for one, other in itertools.pairwise(layers):
        if (one.filters, one.data_format) != (other.kernel.shape[2], other.data_format):
            raise ValueError(
                "In a cascade each layer must take the channels that the one before gives, in the "
                f"same data format. Received: {one.name!r} with {one.filters} filters "
                f"({one.data_format}) before {other.name!r} with {other.kernel.shape[2]} input "
                f"channels ({other.data_format})."
            )


def _require_mergeable(layer: Any, kind: type, last: bool) -> None:
    if type(layer) not in (keras.layers.Conv2D, FullConv2D) or getattr(layer, "groups", 1) != 1:
        groups = f" with groups={layer.groups}" if hasattr(layer, "groups") else ""
        raise ValueError(
            "merge_cascade() takes Conv2D layers with groups=1, or FullConv2D layers. Received: "
            f"{type(layer).__name__}{groups}."
        )
    if type(layer) is not kind:
        raise ValueError(
            "The layers of a cascade must be all Conv2D or all FullConv2D, since one layer pads in "
            f"one way. Received: {kind.__name__} and {type(layer).__name__}."
        )
    if not layer.built:
        raise ValueError(not_built("merge_cascade", layer))
    if kind is FullConv2D:
        _require_zeros_beyond(layer, last)
    elif layer.padding != "valid" and layer.kernel_size != (1, 1):
        raise ValueError(
            "One convolution can stand for a cascade only if its layers have padding='valid': with "
            f"padding={layer.padding!r} a layer reads zeros beyond the border where one "
            "convolution reads responses to the image, so outputs near the border would differ. "
            f"Received: layer {layer.name!r} with padding={layer.padding!r}. Pad the input of the "
            "first layer instead, or use FullConv2D layers."
        )
    if not last and layer.activation is not keras.activations.linear:
        raise ValueError(
            "Every layer of a cascade but the last must be linear: what an activation does no "
            f"convolution can. Received: layer {layer.name!r} with "
            f"activation={keras.activations.serialize(layer.activation)!r}."
        )


def _require_zeros_beyond(layer: Any, last: bool) -> None:
    """Refuses a full convolution whose response to zeros is not what the next one pads with."""
    if layer.padding_value != "zeros" or (layer.use_bias and not last):
        raise ValueError(
            "Full convolutions can be merged only with padding_value='zeros', and with a bias in "
            "the last one only: the next one's padding is not the response to zeros otherwise. "
            f"Received: layer {layer.name!r} with padding_value={layer.padding_value!r}, "
            f"use_bias={layer.use_bias}."
        )
