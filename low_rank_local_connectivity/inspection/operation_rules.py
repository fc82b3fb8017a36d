"""How many floating-point operations a layer needs: its own answer, or a rule for Keras's classes.

Counted for one example in inference; `ops.operation_counts` says how.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import keras
from keras import layers

from low_rank_local_connectivity.inspection.graph import has_graph, not_built
from low_rank_local_connectivity.ops.arguments import integer, items_of, received, sizes_of
from low_rank_local_connectivity.ops.operation_counts import convolution, numbers, per_output

# Of a layer and the shape of its input, or the list of shapes if it has several.
Rule = Callable[[Any, Any], int]


def operations(layer: Any, input_shape: Any) -> int:
    """Returns the floating-point operations that a layer needs for one example in inference.

    A multiplication and an addition are two. Whatever is computed once for all examples, such as
    the normalisation of fixed combining weights, is left out.

    Args:
        layer: Built layer: one that has a method `operations(input_shape)`, as those of this
            library have, a model with a graph, or one of Keras's that has a rule.
        input_shape: Shape of its input with the batch, or list of shapes if there are several;
            all sizes but the batch known. A model is counted for the inputs that it was built for.

    Raises:
        ValueError: If there is no rule for the layer's class, or a size is unknown.

    Example:
        >>> layer = layers.Conv2D(5, 3, activation="relu")
        >>> layer.build((None, 8, 9, 4))
        >>> operations(layer, (None, 8, 9, 4)) == (2 * 9 * 4 + 2) * 6 * 7 * 5
        True
    """
    _require_built_layer(layer)
    input_shape = _checked_shape(input_shape)
    if has_graph(layer):
        inside = [one for one in layer.layers if not is_input(one)]
        return sum(operations(one, input_shape_of(one)) for one in inside)
    # Of functional models it is Keras's list.
    own: Any = getattr(type(layer), "operations", None)
    rule = cast(Rule, own) if callable(own) else _rule(layer)
    return rule(layer, input_shape)


def _require_built_layer(layer: Any) -> None:
    if isinstance(layer, type) or not isinstance(layer, keras.Layer):
        raise ValueError(f"`layer` must be a layer or model. Received: {received('layer', layer)}.")
    if not layer.built:
        raise ValueError(not_built("operations", layer))


def _checked_shape(input_shape: Any) -> Any:
    """Returns a shape, or list of shapes, as tuples of whole numbers and None."""
    several = items_of(input_shape) or []
    if several and all(items_of(one) is not None for one in several):
        return [_checked_shape(one) for one in several]
    found = [size if size is None else integer(size) for size in sizes_of(input_shape) or []]
    if not found or None in found[1:] or min((size or 0 for size in found[1:]), default=0) < 0:
        raise ValueError(
            "`input_shape` must be the shape of a layer's input, with the batch first, or a list "
            "of such shapes; every size behind the batch must be known. Received: "
            f"{received('input_shape', input_shape)}."
        )
    return tuple(found)


def is_input(layer: Any) -> bool:
    """Whether a layer only stands for a model's input."""
    return isinstance(layer, layers.InputLayer)


def input_shape_of(layer: Any) -> Any:
    """Returns the shape of a layer's input in the graph that it is in, or the list of shapes."""
    given = layer.input
    if isinstance(given, (list, tuple)):
        return [tuple(one.shape) for one in given]
    return tuple(given.shape)


def _rule(layer: Any) -> Rule:
    kind = next((kind for kind in type(layer).__mro__ if kind in RULES), None)
    of_keras = type(layer).__module__.startswith("keras.")
    if kind is None and of_keras and type(layer).__name__ in UNNAMED_RULES:
        return UNNAMED_RULES[type(layer).__name__]
    if kind is None:
        raise ValueError(
            "Operations are counted for layers with a method `operations` and for Keras's kinds "
            f"that have a rule. Received: layer {layer.name!r} of kind {type(layer).__name__}. "
            "Give its class a method operations(input_shape)."
        )
    return RULES[kind]


def _outputs(layer: Any, input_shape: Any) -> int:
    """Returns how many numbers a layer returns for one example."""
    try:
        shape = layer.compute_output_shape(input_shape)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"`input_shape` must be one that layer {layer.name!r} of kind {type(layer).__name__} "
            f"takes. Received: {received('input_shape', input_shape)}."
        ) from error
    return numbers(shape)


def _free(layer: Any, input_shape: Any) -> int:
    del layer, input_shape
    return 0


def _one_per_input(layer: Any, input_shape: Any) -> int:
    del layer
    return numbers(input_shape)


def _two_per_output(layer: Any, input_shape: Any) -> int:
    return 2 * _outputs(layer, input_shape)


def _addition(layer: Any, input_shape: Any) -> int:
    return (len(input_shape) - 1) * _outputs(layer, input_shape)


def _activation(layer: Any, input_shape: Any) -> int:
    return per_output(False, layer.activation) * _outputs(layer, input_shape)


def _dense(layer: Any, input_shape: Any) -> int:
    products = layer.kernel.shape[0]
    after = per_output(layer.use_bias, layer.activation)
    return (2 * products + after) * _outputs(layer, input_shape)


def _convolution(layer: Any, input_shape: Any) -> int:
    outputs = _outputs(layer, input_shape)
    after = per_output(layer.use_bias, layer.activation)
    return convolution(layer.kernel.shape, outputs) + after * outputs


def _transposed_convolution(layer: Any, input_shape: Any) -> int:
    """Counts the products of every input, those that are cut off included."""
    outputs = _outputs(layer, input_shape)
    after = per_output(layer.use_bias, layer.activation)
    writes = math.prod(layer.kernel.shape[:-1])
    return 2 * writes * numbers(input_shape) + after * outputs


def _depthwise_convolution(layer: Any, input_shape: Any) -> int:
    products = math.prod(layer.kernel_size)
    after = per_output(layer.use_bias, layer.activation)
    return (2 * products + after) * _outputs(layer, input_shape)


def _separable_convolution(layer: Any, input_shape: Any) -> int:
    """Counts the depthwise step, and the pointwise one behind it."""
    outputs = _outputs(layer, input_shape)
    after = per_output(layer.use_bias, layer.activation)
    *taps, channels, multiplier = layer.depthwise_kernel.shape
    between = channels * multiplier
    positions = outputs // layer.filters
    return 2 * math.prod(taps) * between * positions + (2 * between + after) * outputs


def _layer_normalization(layer: Any, input_shape: Any) -> int:
    """Counts the sums for mean and variance, a difference, a square, and a factor for each."""
    return (5 + bool(layer.scale) + bool(layer.center)) * _outputs(layer, input_shape)


def _three_per_output(layer: Any, input_shape: Any) -> int:
    return 3 * _outputs(layer, input_shape)


def _pooling(layer: Any, input_shape: Any) -> int:
    return math.prod(layer.pool_size) * _outputs(layer, input_shape)


def _global_pooling(layer: Any, input_shape: Any) -> int:
    return numbers(input_shape) + _outputs(layer, input_shape)


# Keras's own classes, and those derived from them.
RULES: dict[type, Rule] = {
    layers.Activation: _activation,
    layers.Add: _addition,
    layers.AveragePooling1D: _pooling,
    layers.AveragePooling2D: _pooling,
    layers.AveragePooling3D: _pooling,
    # One product and one sum: with its statistics fixed it is a factor and a constant.
    layers.BatchNormalization: _two_per_output,
    layers.Concatenate: _free,
    layers.Conv1D: _convolution,
    layers.Conv1DTranspose: _transposed_convolution,
    layers.Conv2D: _convolution,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.Conv3D: _convolution,
    layers.Conv3DTranspose: _transposed_convolution,
    layers.Cropping1D: _free,
    layers.Cropping2D: _free,
    layers.Cropping3D: _free,
    layers.Dense: _dense,
    layers.DepthwiseConv1D: _depthwise_convolution,
    layers.DepthwiseConv2D: _depthwise_convolution,
    layers.Dropout: _free,
    layers.ELU: _one_per_input,
    layers.Flatten: _free,
    layers.GlobalAveragePooling1D: _global_pooling,
    layers.GlobalAveragePooling2D: _global_pooling,
    layers.GlobalAveragePooling3D: _global_pooling,
    layers.GlobalMaxPooling1D: _one_per_input,
    layers.GlobalMaxPooling2D: _one_per_input,
    layers.GlobalMaxPooling3D: _one_per_input,
    layers.Identity: _free,
    layers.LayerNormalization: _layer_normalization,
    layers.LeakyReLU: _one_per_input,
    layers.MaxPooling1D: _pooling,
    layers.MaxPooling2D: _pooling,
    layers.MaxPooling3D: _pooling,
    layers.Multiply: _addition,
    layers.Normalization: _two_per_output,
    layers.PReLU: _one_per_input,
    layers.ReLU: _one_per_input,
    layers.Rescaling: _two_per_output,
    layers.Reshape: _free,
    layers.SeparableConv1D: _separable_convolution,
    layers.SeparableConv2D: _separable_convolution,
    # Exponential, sum and division.
    layers.Softmax: _three_per_output,
    layers.SpatialDropout1D: _free,
    layers.SpatialDropout2D: _free,
    layers.SpatialDropout3D: _free,
    layers.UpSampling1D: _free,
    layers.ZeroPadding1D: _free,
    layers.ZeroPadding2D: _free,
    layers.ZeroPadding3D: _free,
}

# Classes of `keras.applications` that Keras gives no public name, those of ConvNeXt.
UNNAMED_RULES: dict[str, Rule] = {"LayerScale": _one_per_input, "StochasticDepth": _free}
