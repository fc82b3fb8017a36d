"""Through which windows a layer's positions read its input: its own, or by a rule for its class.

A layer answers for itself by two attributes:

* `windows`, an `ops.Windows` over its spatial axes; None if it mixes all positions, or if no one
  window says what a position reads; an `ops.TransposedWindows` if it writes to them; or, of a
  wrapper, the layer that reads as it does;
* `further_windows`, if it has it: what a position reads beside its windows, each an `ops.Windows`,
  or None for all positions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import layers

from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows
from low_rank_local_connectivity.ops.windows import Windows

Rule = Callable[[Any], Windows | None]
# Extent, stride and padding in front, along each axis.
Spans = list[tuple[int, int, int]]

CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
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
)
# Operations of `keras.ops`, whose classes are not public.
POINTWISE_OPERATIONS = (
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Negative"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Gelu", "Silu", "Sigmoid", "Softplus", "Tanh", "Exp"),
    *("Log", "Sqrt", "Square", "Absolute", "Power", "Cast"),
)


def reads_as(operation: Any) -> Any:
    """Returns the layer or model that a wrapper reads as, or the operation itself."""
    windows = getattr(operation, "windows", None)
    return reads_as(windows) if isinstance(windows, keras.Layer) else operation


def branches_through(
    layer: Any,
    sizes: Sequence[int | None],
    data_format: str,
    rules: Mapping[type, Rule],
) -> list[Spans | None]:
    """Returns what a position of a layer's output reads together.

    Args:
        layer: Any layer, or an operation of `keras.ops`.
        sizes: Spatial size of its input.
        data_format: Where its input has its channels.
        rules: For further classes, which come first: see `receptive_field`.

    Returns:
        `(extent, stride, padding in front)` along each axis, once for each of the layer's windows;
        None for all positions.

    Raises:
        ValueError: If there is no rule for the layer's class.
    """
    for kind, rule in rules.items():
        if isinstance(layer, kind):
            return [_spans(layer, rule(layer), sizes)]
    windows = _transposed(layer)
    if isinstance(windows, TransposedWindows):
        further = (_spans(layer, one, sizes) for one in getattr(layer, "further_windows", ()))
        return [_written(layer, windows, sizes), *further]
    windows = getattr(layer, "windows", layer)
    if windows is None or isinstance(windows, Windows):
        found = [windows, *getattr(layer, "further_windows", ())]
        return [_spans(layer, one, sizes) for one in found]
    return _of_class(layer, sizes, data_format)


def _transposed(layer: Any) -> Any:
    """Returns a transposed convolution's windows."""
    if not isinstance(layer, TRANSPOSED):
        return getattr(layer, "windows", None)
    return TransposedWindows(
        layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, layer.output_padding
    )


def _written(layer: Any, windows: TransposedWindows, sizes: Sequence[int | None]) -> Spans:
    """Returns what a position reads through windows that inputs write to."""
    if set(windows.strides) != {1}:
        raise ValueError(
            "receptive_field() follows layers whose positions all read equally many inputs. Of a "
            "transposed convolution with strides above 1 some read more than others. Received: "
            f"layer {layer.name!r} with strides={windows.strides}. Name a layer before it as "
            "`output`."
        )
    if len(windows.sizes) != len(sizes):
        raise ValueError(_other_axes(layer, windows, sizes))
    pairs = zip(windows.extents, windows.kept, strict=True)
    return [(span, 1, span - 1 - first) for span, (first, _) in pairs]


def _other_axes(layer: Any, windows: Any, sizes: Sequence[int | None]) -> str:
    return (
        f"Layer {layer.name!r} has windows over {len(windows.sizes)} spatial axes, and the "
        f"model's input has {len(sizes)}. Received: windows={windows}. Start the model at the "
        "images."
    )


def _of_class(layer: Any, sizes: Sequence[int | None], data_format: str) -> list[Spans | None]:
    """Returns what a layer or operation of Keras's reads."""
    if _scatters(layer, len(sizes) + 2, data_format):
        return [None]
    if isinstance(layer, layers.GroupNormalization):
        return [_at(0 for _ in sizes), None]
    if isinstance(layer, (*POINTWISE, *ALONG_AN_AXIS)) or _is_pointwise_operation(layer):
        return [_at(0 for _ in sizes)]
    if isinstance(layer, PADDINGS):
        return [_at(before for before, _ in _pairs(layer.padding))]
    if isinstance(layer, CROPPINGS):
        return [_at(-before for before, _ in _pairs(layer.cropping))]
    return [_spans(layer, _windows_of(layer, len(sizes)), sizes)]


def _scatters(layer: Any, rank: int, data_format: str) -> bool:
    """Whether a layer mixes all positions."""
    if not isinstance(layer, ALONG_AN_AXIS):
        return isinstance(layer, SCATTERING)
    axes = getattr(layer, "axis", -1)
    axes = axes if isinstance(axes, (list, tuple)) else (axes,)
    channels = rank - 1 if data_format == "channels_last" else 1
    return {axis % rank for axis in axes} != {channels}


def _windows_of(layer: Any, dimensions: int) -> Windows:
    if isinstance(layer, CONVOLUTIONS):
        return Windows(layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding)
    if isinstance(layer, POOLINGS):
        return _pooled(layer, dimensions)
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


def _spans(layer: Any, windows: Windows | None, sizes: Sequence[int | None]) -> Spans | None:
    if windows is None:
        return None
    if windows.taps == 1 and set(windows.strides) == {1}:
        # Of any number of axes, since maps with orientations have one more.
        return _at(0 for _ in sizes)
    if len(windows.sizes) != len(sizes):
        raise ValueError(_other_axes(layer, windows, sizes))
    before = [amounts[0] for amounts in windows.pad_amounts(sizes)]
    return list(zip(windows.extents, windows.strides, before, strict=True))


def _at(before: Iterable[int]) -> Spans:
    """Returns windows of one element, moved."""
    return [(1, 1, amount) for amount in before]


def _pairs(amounts: Any) -> list[tuple[int, int]]:
    """Returns `(before, after)` per axis, which Keras's 1D layers keep as one bare pair."""
    return [amounts] if isinstance(amounts[0], int) else list(amounts)


def _is_pointwise_operation(operation: Any) -> bool:
    is_layer = isinstance(operation, keras.Layer)
    return not is_layer and type(operation).__name__ in POINTWISE_OPERATIONS
