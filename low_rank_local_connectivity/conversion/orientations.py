"""Conversion of networks of turned filters to plain convolutional networks."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers

from low_rank_local_connectivity.conversion.models import convert
from low_rank_local_connectivity.inspection.graph import has_graph, require_graph
from low_rank_local_connectivity.inspection.window_rules import POINTWISE_OPERATIONS
from low_rank_local_connectivity.layers.turned.base_group_conv import BaseGroupConv2D
from low_rank_local_connectivity.layers.turned.group_maps import plain_shape, works_by_value
from low_rank_local_connectivity.layers.turned.group_pooling import GroupPooling2D

# Layers and operations that act on every value alike, however maps are arranged.
BY_VALUE = (
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Identity,
    layers.Dropout,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
)
POOLINGS = {
    layers.AveragePooling3D: layers.AveragePooling2D,
    layers.MaxPooling3D: layers.MaxPooling2D,
}


def has_orientations(model: keras.Model) -> bool:
    """Whether a model, or one within it, has layers that turn their filters."""
    return any(isinstance(layer, BaseGroupConv2D) for layer in model._flatten_layers())


def to_plain_convolutions(model: keras.Model) -> keras.Model:
    """Returns a copy of a model in which turned filters are plain convolutions, for serving.

    Maps `(batch, height, width, order, channels)` become plain maps with `order * channels`
    channels throughout. `GroupLiftConv2D` and `GroupConv2D` become the `Conv2D` of their
    `to_conv2d`; batch normalisation of such maps becomes one with repeated values, which
    `fold_batch_normalization` can fold; poolings over positions become those over two axes, and
    `GroupPooling2D` a pooling between reshapes. All are Keras's own layers.

    Args:
        model: Functional or `Sequential` model, built. Between these layers it may have layers
            and operations that act on every value alike, before the first and after
            `GroupPooling2D` any layers.

    Returns:
        Model of the same inputs and outputs.

    Raises:
        ValueError: As `convert`; or if another layer or operation reads maps with orientations,
            the inputs or outputs of the model or of a model within it have orientations, or the
            maps that `GroupPooling2D` reads are of unknown size.

    Example:
        >>> from low_rank_local_connectivity import GroupLiftConv2D
        >>> model = keras.Sequential([
        ...     keras.Input((8, 9, 2)), GroupLiftConv2D(5, 3), layers.ReLU(), GroupPooling2D(),
        ... ])
        >>> plain = to_plain_convolutions(model)
        >>> [type(layer).__name__ for layer in plain.layers]
        ['Conv2D', 'ReLU', 'Reshape', 'MaxPooling2D', 'Reshape']
        >>> plain.output_shape
        (None, 6, 7, 5)
    """
    require_graph("to_plain_convolutions", model)
    _require_plain_ends(model)
    return convert(model, _rule, report=None)


def _rule(layer: Any) -> Any:
    """Returns the plain layers that a layer becomes, None to keep it."""
    if isinstance(layer, keras.Model):
        if has_graph(layer):
            _require_plain_ends(layer)
        return None
    if isinstance(layer, BaseGroupConv2D):
        return layer.to_conv2d()
    shape = _shape_read(layer)
    if len(shape) != 5 or _is_by_value(layer):
        return None
    found = _replacement(layer, shape)
    if found is None:
        raise ValueError(_unknown(layer))
    return found


def _is_by_value(layer: Any) -> bool:
    """Whether a layer acts on every value alike, so that it may stay as it is."""
    if isinstance(layer, layers.Activation):
        return works_by_value(layer.activation)
    return isinstance(layer, BY_VALUE)


def _replacement(layer: Any, shape: tuple) -> Any:
    """Returns the conversion of a layer that reads maps with orientations; None if unknown."""
    if isinstance(layer, GroupPooling2D):
        return _plain_group_pooling(layer, shape)
    if isinstance(layer, layers.BatchNormalization) and layer.axis in (-1, 4, 2):
        return _plain_normalization(layer, shape)
    if isinstance(layer, tuple(POOLINGS)):
        return _plain_pooling(layer)
    return None


def _unknown(layer: Any) -> str:
    return (
        "to_plain_convolutions() must know what a layer does with maps that have orientations. "
        f"Received: {layer.name!r} of class {type(layer).__name__}. Put it after a GroupPooling2D, "
        "or serve the model as it is."
    )


def _shape_read(layer: Any) -> tuple:
    """Returns the shape of what a layer reads in its first call."""
    nodes = layer._inbound_nodes
    tensors = nodes[0].input_tensors if nodes else []
    return tuple(tensors[0].shape) if tensors else ()


def _require_plain_ends(model: Any) -> None:
    """Refuses a model whose inputs or outputs have orientations, and operations that read them."""
    for tensor in (*model.inputs, *model.outputs):
        if len(tensor.shape) == 5:
            raise ValueError(
                "to_plain_convolutions() keeps a model's inputs and outputs, which must not have "
                f"orientations. Received: model {model.name!r} with a tensor of shape "
                f"{tuple(tensor.shape)}. End it with a GroupPooling2D."
            )
    for operation in getattr(model, "operations", []):
        known = isinstance(operation, keras.Layer)
        known = known or type(operation).__name__ in POINTWISE_OPERATIONS
        if not known and len(_shape_read(operation)) == 5:
            raise ValueError(_unknown(operation))


def _plain_normalization(layer: Any, shape: tuple) -> keras.Layer:
    """Returns the normalisation of plain maps, with the same values for all orientations."""
    order, channels = shape[3:] if layer.axis != 2 else shape[1:3]
    found = layers.BatchNormalization(
        axis=1 if layer.axis == 2 else -1,
        momentum=layer.momentum,
        epsilon=layer.epsilon,
        center=layer.center,
        scale=layer.scale,
        dtype=layer.dtype_policy,
        name=layer.name,
    )
    total = order * channels
    found.build((None, total, None, None) if layer.axis == 2 else (None, None, None, total))
    found.set_weights([np.tile(weight, order) for weight in layer.get_weights()])
    return found


def _plain_pooling(layer: Any) -> keras.Layer | None:
    """Returns a pooling over positions of plain maps; None if it pools over something else."""
    last = layer.data_format == "channels_last"
    positions, other = (slice(2), 2) if last else (slice(1, 3), 0)
    if layer.pool_size[other] != 1 or layer.strides[other] != 1:
        return None
    kind = next(two for three, two in POOLINGS.items() if isinstance(layer, three))
    return kind(
        layer.pool_size[positions],
        strides=layer.strides[positions],
        padding=layer.padding,
        data_format=layer.data_format,
        dtype=layer.dtype_policy,
        name=layer.name,
    )


def _plain_group_pooling(layer: GroupPooling2D, shape: tuple) -> list[keras.Layer]:
    """Returns a pooling over an axis of the orientations, between reshapes."""
    if None in shape[1:]:
        raise ValueError(
            "to_plain_convolutions() reshapes maps where they are pooled over orientations, so "
            f"their size must be known. Received: layer {layer.name!r}, which reads maps of shape "
            f"{shape}. Give keras.Input a static size."
        )
    largest = layer.mode == "max"
    common: dict[str, Any] = {"data_format": "channels_last", "dtype": layer.dtype_policy}
    if layer.data_format == "channels_last":
        _, height, width, order, channels = shape
        before = (height * width, order, channels)
        pooling = layers.MaxPooling2D if largest else layers.AveragePooling2D
        pool: Any = pooling((1, order), name=layer.name, **common)
    else:
        _, order, *others = shape
        before = (order, math.prod(others))
        pooling = layers.MaxPooling1D if largest else layers.AveragePooling1D
        pool = pooling(order, name=layer.name, **common)
    after, _ = plain_shape(shape, layer.data_format)
    reshapes = [
        layers.Reshape(target, dtype=layer.dtype_policy, name=f"{layer.name}_{place}")
        for place, target in (("apart", before), ("together", after[1:]))
    ]
    return [reshapes[0], pool, reshapes[1]]
