"""Averages over windows that reach into the padding, which differ in Keras 3 on PyTorch."""

from collections.abc import Sequence
from typing import Any

import keras

AVERAGES = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
)


def require_same_numbers(model: Any, path: str) -> None:
    """Refuses average poolings that Keras 3 computes differently from TensorFlow.

    On PyTorch, where the padding before and after an axis differs, Keras 3 includes the zeros in
    the average.

    Args:
        model: Built model.
        path: Where it comes from, for the error.

    Raises:
        ValueError: If the model has such a layer.
    """
    if keras.backend.backend() != "torch":
        return
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, AVERAGES) and layer.padding == "same" and _is_padded_unevenly(layer):
            raise ValueError(
                f"The layer {layer.name!r}, an {type(layer).__name__}, in {path!r} cannot be "
                "loaded: where padding='same' pads unevenly, Keras 3 does not compute on torch "
                "what it does on tensorflow. Load it there."
            )


def _is_padded_unevenly(layer: Any) -> bool:
    """Whether an axis is padded unevenly, or could be."""
    axes = zip(_sizes(layer), layer.pool_size, layer.strides, strict=True)
    return any(
        (stride > 1 or taps % 2 == 0)
        if size is None
        else max((-(-size // stride) - 1) * stride + taps - size, 0) % 2 == 1
        for size, taps, stride in axes
    )


def _sizes(layer: Any) -> Sequence[int | None]:
    try:
        shape = layer.input.shape
    except (AttributeError, ValueError):  # Within a wrapper, or called more than once.
        return [None] * len(layer.pool_size)
    return shape[2:] if layer.data_format == "channels_first" else shape[1:-1]
