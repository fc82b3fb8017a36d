"""Through which windows a layer's positions read its input, by the layer's class."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import layers

from low_rank_local_connectivity.layers import (
    AddCoordinates2D,
    CondConv2D,
    CoordConv2D,
    DeformableConv2D,
    DilatedContext2D,
    GroupPooling2D,
    InputDependentCombiningWeights,
    SpatialBias,
    SpatialTransformer2D,
)
from low_rank_local_connectivity.layers.low_rank_locally_connected import LowRankLocallyConnected
from low_rank_local_connectivity.ops.windows import Windows

Rule = Callable[[Any], Windows | None]
# Extent, stride and padding in front, along each axis.
Placement = list[tuple[int, int, int]]

CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    CondConv2D,
)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
POOLINGS = (
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
)
PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
CROPPINGS = (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
# In inference, as everything here.
POINTWISE = (
    layers.InputLayer,
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
    layers.Identity,
    layers.Rescaling,
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.Dropout,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.ActivityRegularization,
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    SpatialBias,
    AddCoordinates2D,
    GroupPooling2D,
)
# Pointwise if the axis they work along is that of the channels.
ALONG_AN_AXIS = (
    layers.Dense,
    layers.Softmax,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
    layers.Concatenate,
)
SCATTERING = (
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    InputDependentCombiningWeights,
    SpatialTransformer2D,
)
# Layers of several convolutions, one after another.
CASCADES: dict[type, Rule] = {
    DilatedContext2D: lambda one: Windows(one.receptive_field, (1, 1), (1, 1), one.padding)
}
# Operations of `keras.ops`, whose classes are not public.
POINTWISE_OPERATIONS = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Negative"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Gelu", "Silu", "Sigmoid", "Softplus", "Tanh", "Exp"),
    *("Log", "Sqrt", "Square", "Absolute", "Power", "Cast"),
)


def windows_through(
    layer: Any,
    sizes: Sequence[int | None],
    data_format: str,
    rules: Mapping[type, Rule],
) -> list[Placement] | None:
    """Returns the windows that a position of a layer's output reads together.

    Args:
        layer: Any layer, or an operation of `keras.ops`.
        sizes: Spatial size of its input.
        data_format: Where its input has its channels.
        rules: For further classes, which come first: see `receptive_field`.

    Returns:
        `(extent, stride, padding in front)` along each axis, once for each bank of a mixed basis;
        None if the layer mixes all positions.

    Raises:
        ValueError: If there is no rule for the layer's class.
    """
    for kind, rule in {**rules, **CASCADES}.items():
        if isinstance(layer, kind):
            windows = rule(layer)
            return None if windows is None else [_placement(windows, sizes)]
    if _scatters(layer, len(sizes) + 2, data_format):
        return None
    if isinstance(layer, (*POINTWISE, *ALONG_AN_AXIS)) or _is_pointwise_operation(layer):
        return [_at(0 for _ in sizes)]
    if isinstance(layer, PADDINGS):
        return [_at(before for before, _ in _pairs(layer.padding))]
    if isinstance(layer, CROPPINGS):
        return [_at(-before for before, _ in _pairs(layer.cropping))]
    return [_placement(windows, sizes) for windows in _windows_of(layer, len(sizes))]


def reads_everything(layer: Any) -> bool:
    """Whether a layer's positions read all others too, and are where its windows are."""
    pooled = isinstance(layer, CondConv2D) and layer.routing is not None
    normalized = isinstance(layer, layers.GroupNormalization)
    # A deformable convolution reads where its offsets say.
    anywhere = pooled or normalized or isinstance(layer, DeformableConv2D)
    return anywhere or getattr(layer, "input_dependent", False)


def _scatters(layer: Any, rank: int, data_format: str) -> bool:
    """Whether a layer mixes all positions."""
    if not isinstance(layer, ALONG_AN_AXIS):
        return isinstance(layer, SCATTERING)
    axes = getattr(layer, "axis", -1)
    axes = axes if isinstance(axes, (list, tuple)) else (axes,)
    channels = rank - 1 if data_format == "channels_last" else 1
    return {axis % rank for axis in axes} != {channels}


def _windows_of(layer: Any, dimensions: int) -> list[Windows]:
    if isinstance(layer, CoordConv2D):
        layer = layer.convolution
    if isinstance(layer, LowRankLocallyConnected):
        return layer.bank_windows
    if isinstance(getattr(layer, "windows", None), Windows):
        # What a filter is made from may be wider than what it is applied to.
        generator = getattr(layer, "generator_kernel_size", None)
        wider = [] if generator is None else [Windows(generator, (1, 1), (1, 1), "same")]
        return [layer.windows, *wider]
    if isinstance(layer, CONVOLUTIONS) and not isinstance(layer, TRANSPOSED):
        return [Windows(layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)]
    if isinstance(layer, POOLINGS):
        return [_pooled(layer, dimensions)]
    raise ValueError(
        f"receptive_field() has no rule for layer {layer.name!r} of class {type(layer).__name__}. "
        "Give one: rules={its class: function of the layer that returns its ops.Windows, or None "
        "if it mixes all positions}."
    )


def _pooled(layer: Any, dimensions: int) -> Windows:
    """Returns the windows of a pooling; of maps with orientations, those over positions."""
    last = layer.data_format == "channels_last"
    kept = slice(dimensions) if last else slice(len(layer.pool_size) - dimensions, None)
    return Windows(layer.pool_size[kept], layer.strides[kept], (1,) * dimensions, layer.padding)


def _placement(windows: Windows, sizes: Sequence[int | None]) -> Placement:
    before = [amounts[0] for amounts in windows.pad_amounts(sizes)]
    return list(zip(windows.extents, windows.strides, before, strict=True))


def _at(before: Iterable[int]) -> Placement:
    """Returns windows of one element, moved."""
    return [(1, 1, amount) for amount in before]


def _pairs(amounts: Any) -> list[tuple[int, int]]:
    """Returns `(before, after)` per axis, which Keras's 1D layers keep as one bare pair."""
    return [amounts] if isinstance(amounts[0], int) else list(amounts)


def _is_pointwise_operation(operation: Any) -> bool:
    is_layer = isinstance(operation, keras.Layer)
    return not is_layer and type(operation).__name__ in POINTWISE_OPERATIONS
