"""What a model costs: trainable parameters and floating-point operations, layer by layer.

Everything is counted from shapes, for one image in inference. A multiplication and an addition
are two operations; a window that reaches into padding counts in full, as is usual in print.
Whatever is computed once for all images, such as the normalisation of fixed combining weights,
is left out, but for `LayerCost.mixing_flops`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from low_rank_local_connectivity import (
    AddCoordinates2D,
    CoordConv2D,
    DeformableConv2D,
    DeformableScaleConv2D,
    FullConv2D,
    GroupConv2D,
    GroupLiftConv2D,
    GroupPooling2D,
    LocallyConnected2D,
    LowRankLocallyConnected2D,
    OverLevels,
    ScaleConv2D,
    ScalePooling2D,
    ScaleSpaceLifting2D,
    SpatialBias,
    SpatialTransformer2D,
)


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What one layer costs.

    Args:
        name: Name of the layer.
        kind: Name of its class.
        output_size: Shape of its output, without the batch; of the first of a pyramid's levels.
        parameters: Trainable parameters.
        flops: Operations per image; of a low-rank layer by its first plan, which convolves with
            all `K` banks and then mixes the responses.
        combined_flops: Operations per image once the banks of fixed combining weights are mixed:
            those of one convolution. The same as `flops` for any other layer, so for
            input-dependent weights too.
        mixing_flops: Operations of mixing these banks, however many images follow; once after
            training, or once per call where a layer's plan is to do so.
    """

    name: str
    kind: str
    output_size: tuple[int, ...]
    parameters: int
    flops: int
    combined_flops: int
    mixing_flops: int = 0


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """Returns the cost of each layer of a model.

    Args:
        model: A functional or sequential model of known sizes, whose layers are each called
            once; models among its layers are opened.

    Returns:
        One entry per layer, in the model's order.

    Raises:
        ValueError: If a layer is of a kind that is not counted yet, or a size is unknown.

    Example:
        >>> inputs = keras.Input((8, 9, 4))
        >>> outputs = layers.Conv2D(5, 3, use_bias=False)(inputs)
        >>> _, cost = layer_costs(keras.Model(inputs, outputs))
        >>> cost.parameters, cost.output_size, cost.flops == 2 * 180 * 6 * 7
        (180, (6, 7, 5), True)
    """
    costs = []
    for layer in model.layers:
        costs.extend(layer_costs(layer) if isinstance(layer, keras.Model) else [_cost(layer)])
    return costs


def total_cost(model: keras.Model) -> LayerCost:
    """Returns the sum of a model's layer costs, under the model's own name and output size.

    Args:
        model: As for `layer_costs`.

    Returns:
        The sums.

    Raises:
        ValueError: As for `layer_costs`.

    Example:
        >>> inputs = keras.Input((8, 9, 4))
        >>> outputs = LowRankLocallyConnected2D(5, 3, spatial_rank=6, use_bias=False)(inputs)
        >>> cost = total_cost(keras.Model(inputs, outputs))
        >>> cost.flops // cost.combined_flops
        6
    """
    costs = layer_costs(model)
    return LayerCost(
        model.name,
        type(model).__name__,
        _shape(model.outputs[0]),
        parameters=sum(cost.parameters for cost in costs),
        flops=sum(cost.flops for cost in costs),
        combined_flops=sum(cost.combined_flops for cost in costs),
        mixing_flops=sum(cost.mixing_flops for cost in costs),
    )


def weight_bytes(model: keras.Model, moments: int = 2) -> int:
    """Returns the bytes of a model's weights in training, with their gradients and moments.

    Args:
        model: Any model whose weights have shapes; they need no values.
        moments: Moments that the optimizer keeps of each trainable weight.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
        >>> weight_bytes(model, moments=2) == 25 * 4 * (1 + 1 + 2)
        True
    """
    trained = sum(_bytes(weight.shape, weight.dtype) for weight in model.trainable_weights)
    others = sum(_bytes(weight.shape, weight.dtype) for weight in model.non_trainable_weights)
    return (2 + moments) * trained + others


def step_bytes(model: keras.Model) -> int:
    """Returns the bytes of an example's outputs that a step keeps, at least, for the gradients.

    Those of the layers that have kernels, models among the layers opened.

    Args:
        model: A functional or sequential model of known sizes, whose layers are each called once.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 9, 4)), layers.Conv2D(5, 3), layers.ReLU()])
        >>> step_bytes(model) == 6 * 7 * 5 * 4
        True
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += step_bytes(layer)
        elif any(len(weight.shape) > 1 for weight in layer.trainable_weights):
            total += sum(_bytes(_shape(level), level.dtype) for level in _levels(layer.output))
    return total


def _bytes(shape: Any, dtype: str) -> int:
    return math.prod(shape) * (2 if dtype in ("float16", "bfloat16") else 4)


def _cost(layer: Any) -> LayerCost:
    kind = next((kind for kind in type(layer).__mro__ if kind in COUNTS), None)
    if kind is None:
        raise ValueError(
            "Operations are counted for layers of kinds that are listed only. Received: layer "
            f"{layer.name!r} of kind {type(layer).__name__}. Add a line to `COUNTS` in "
            "models/accounting.py."
        )
    flops = COUNTS[kind](layer)
    combined_flops, mixing_flops = flops, 0
    if isinstance(layer, LowRankLocallyConnected2D) and not layer.input_dependent:
        combined_flops, mixing_flops = _combined(layer)
    return LayerCost(
        layer.name,
        type(layer).__name__,
        _shape(_levels(layer.output)[0]),
        sum(math.prod(weight.shape) for weight in layer.trainable_weights),
        flops,
        combined_flops,
        mixing_flops,
    )


def _shape(tensor: Any) -> tuple[int, ...]:
    """Returns a tensor's shape without the batch."""
    shape = tuple(tensor.shape[1:])
    if None in shape:
        raise ValueError(
            "Operations are counted for images of known size. Received: a tensor of shape "
            f"{tuple(tensor.shape)}. Give keras.Input a static size."
        )
    return shape


def _levels(tensors: Any) -> list[Any]:
    """Returns the levels of a pyramid, or a tensor as the only one."""
    return tensors if isinstance(tensors, list) else [tensors]


def _numbers(tensors: Any) -> int:
    """Returns how many numbers there are for one image."""
    return sum(math.prod(_shape(level)) for level in _levels(tensors))


def _outputs(layer: Any) -> int:
    """Returns how many numbers a layer returns for one image."""
    return _numbers(layer.output)


def _positions(layer: Any) -> int:
    return _outputs(layer) // layer.filters


def _afterwards(outputs: int, has_bias: bool, activation: Any) -> int:
    """Returns the operations of a bias and an activation, one each per output."""
    return outputs * (has_bias + (activation is not keras.activations.linear))


# A number between pixels is a sum of four products.
SAMPLE = 7


def _free(layer: Any) -> int:
    del layer
    return 0


def _one_per_output(layer: Any) -> int:
    return _outputs(layer)


def _two_per_output(layer: Any) -> int:
    return 2 * _outputs(layer)


def _addition(layer: Any) -> int:
    return (len(layer.input) - 1) * _outputs(layer)


def _activation(layer: Any) -> int:
    return 0 if layer.activation is keras.activations.linear else _outputs(layer)


def _dense(layer: Any) -> int:
    outputs = _outputs(layer)
    products = layer.kernel.shape[0] * outputs
    return 2 * products + _afterwards(outputs, layer.use_bias, layer.activation)


def _conv2d(layer: Any) -> int:
    return _convolution(layer, _outputs(layer))


def _coord_conv2d(layer: Any) -> int:
    """Counts the convolution; coordinates are constants."""
    return _convolution(layer.convolution, _outputs(layer))


def _convolution(layer: Any, outputs: int) -> int:
    products = math.prod(layer.kernel.shape) * (outputs // layer.filters)
    return 2 * products + _afterwards(outputs, layer.use_bias, layer.activation)


def _deformable_conv2d(layer: Any) -> int:
    """Counts the convolution, the one that finds offsets and masks, and the sampling."""
    positions, offsets = _positions(layer), layer.offset_kernel.shape
    found = (2 * math.prod(offsets[:3]) + 1) * offsets[-1] * positions
    samples = math.prod(offsets[:3]) * positions
    return _conv2d(layer) + found + (SAMPLE + layer.modulated) * samples


def _scale_space_lifting2d(layer: Any) -> int:
    """Counts, for every level but the image, the products with a matrix along each axis."""
    channels_last = layer.data_format == "channels_last"
    shape = _shape(layer.input)
    (height, width), channels = (shape[:2], shape[2]) if channels_last else (shape[1:], shape[0])
    first = 0 if channels_last else 1
    if layer.pyramid:
        sizes = [_shape(level)[first : first + 2] for level in layer.output[1:]]
    else:
        sizes = [(height, width)] * (layer.num_scales - 1)
    products = sum(rows * width * (height + columns) for rows, columns in sizes)
    return 2 * channels * products


def _scale_conv2d(layer: Any) -> int:
    """Counts, at every level, a convolution of the levels that it reads."""
    products = sum(read * positions for read, positions in _reads(layer))
    products *= math.prod(layer.kernel.shape[1:])
    return 2 * products + _afterwards(_outputs(layer), layer.use_bias, layer.activation)


def _deformable_scale_conv2d(layer: Any) -> int:
    """Counts the convolution, the offsets of every level, their scaling, and the sampling."""
    per_position, offsets = math.prod(layer.offset_kernel.shape[:3]), layer.offset_kernel.shape[-1]
    positions = sum(positions for _, positions in _reads(layer))
    found = (2 * per_position + 1 + layer.scale_offsets) * offsets * positions
    samples = per_position * sum(read * positions for read, positions in _reads(layer))
    return _scale_conv2d(layer) + found + SAMPLE * samples


def _reads(layer: Any) -> list[tuple[int, int]]:
    """Returns how many levels each level of the outputs reads, and its positions."""
    levels = _levels(layer.output)
    positions = [math.prod(_shape(level)) // layer.filters for level in levels]
    if len(levels) == 1:
        scales = _shape(layer.output)[0 if layer.data_format == "channels_last" else 1]
        positions = [positions[0] // scales] * scales
    count = len(positions)
    return [(min(layer.interaction, count - k), one) for k, one in enumerate(positions)]


def _over_levels(layer: Any) -> int:
    """Counts a layer that acts on each number alone."""
    count = COUNTS.get(type(layer.layer))
    if count is None or count not in (_free, _one_per_output, _two_per_output):
        raise ValueError(
            "Operations over levels are counted for layers that act on each number alone. "
            f"Received: layer {layer.name!r} over a layer of kind {type(layer.layer).__name__}. "
            "Add it to `_over_levels` in models/accounting.py."
        )
    return count(layer)


def _spatial_transformer2d(layer: Any) -> int:
    """Counts the localization network, the transform and where it leads, and the sampling."""
    network = layer.localization
    if not isinstance(network, keras.Model):
        inputs = keras.Input(_shape(layer.input))
        network = keras.Model(inputs, network(inputs))
    features, numbers = layer.kernel.shape
    outputs = _outputs(layer)
    channels = _shape(layer.output)[-1 if layer.data_format == "channels_last" else 0]
    moved = 2 * numbers * (outputs // channels)
    return total_cost(network).flops + (2 * features + 1) * numbers + moved + SAMPLE * outputs


def _locally_connected2d(layer: Any) -> int:
    products = math.prod(layer.kernel.shape)
    return 2 * products + _afterwards(_outputs(layer), layer.use_bias, layer.activation)


def _low_rank_locally_connected2d(layer: Any) -> int:
    """Counts `K` convolutions, the mixing of their responses, and what predicts the weights."""
    banks = layer.kernel_bases if layer.mixed else [layer.kernel_bases]
    flops = 2 * _positions(layer) * sum(math.prod(bank.shape) for bank in banks)
    if layer.has_logits:
        flops += 2 * layer.spatial_rank * _outputs(layer)
    if layer.predictor is not None:
        flops += _predictor(layer) + _normalization(layer)
    return flops + _afterwards(_outputs(layer), bool(layer.output_biases()), layer.activation)


def _combined(layer: Any) -> tuple[int, int]:
    """Returns the operations of one convolution, and of mixing the banks for all positions."""
    taps = layer.windows.taps
    if layer.mixed:  # banks of different structure are mixed in the box that holds them all
        taps = math.prod(map(max, zip(*(bank.extents for bank in layer.bank_windows), strict=True)))
    local_filters = taps * layer.input_channels * _outputs(layer)
    mixing = 2 * layer.spatial_rank * local_filters if layer.has_logits else 0
    afterwards = _afterwards(_outputs(layer), bool(layer.output_biases()), layer.activation)
    return 2 * local_filters + afterwards, mixing


def _normalization(layer: Any) -> int:
    """Counts three per logit: exponential or square, sum, division."""
    per_logit = 0 if layer.normalize_weights is None else 3
    return per_logit * layer.spatial_rank * _positions(layer)


def _predictor(layer: Any) -> int:
    """Counts the network that predicts combining weights from the layer's input."""
    network, rank, sizes = layer.predictor, layer.spatial_rank, layer.input_sizes
    pixels = math.prod(sizes)
    flops = (2 * layer.input_channels + 1) * rank * pixels  # reduction
    flops += rank * pixels  # its mean
    flops += _resizing(sizes, network.positions, rank)
    for rate in network.kept_rates:
        filtered = [size - 2 * rate for size in sizes]
        flops += (2 * 9 + 1) * rank * math.prod(filtered)
        flops += _resizing(filtered, network.positions, rank)
    maps = (len(network.kept_rates) + 2) * rank
    widths = [maps, *(dense.units for dense in network.aggregation)]
    products = sum(read * made for read, made in itertools.pairwise(widths))
    # Each of the three has a bias, and each but the last an activation.
    return flops + (2 * products + 2 * sum(widths[1:]) - rank) * math.prod(network.positions)


def _resizing(sizes: Any, positions: Any, channels: int) -> int:
    """Counts linear interpolation, along each axis the matrix product that the layer makes it."""
    flops, current = 0, list(sizes)
    for axis, (size, made) in enumerate(zip(sizes, positions, strict=True)):
        current[axis] = made
        if size not in (1, made):
            flops += 2 * size * channels * math.prod(current)
    return flops


def _pooling(layer: Any) -> int:
    return math.prod(layer.pool_size) * _outputs(layer)


def _one_per_input(layer: Any) -> int:
    return _numbers(layer.input)


def _global_pooling(layer: Any) -> int:
    return _numbers(layer.input) + _outputs(layer)


# Operations per image of each kind of layer, and of kinds derived from it.
COUNTS: dict[type, Callable[[Any], int]] = {
    AddCoordinates2D: _free,
    CoordConv2D: _coord_conv2d,
    DeformableConv2D: _deformable_conv2d,
    DeformableScaleConv2D: _deformable_scale_conv2d,
    FullConv2D: _conv2d,
    # Their outputs include the orientations; turning the filters is done once for all images.
    GroupConv2D: _conv2d,
    GroupLiftConv2D: _conv2d,
    GroupPooling2D: _one_per_input,
    LocallyConnected2D: _locally_connected2d,
    LowRankLocallyConnected2D: _low_rank_locally_connected2d,
    OverLevels: _over_levels,
    ScaleConv2D: _scale_conv2d,
    ScalePooling2D: _one_per_input,
    ScaleSpaceLifting2D: _scale_space_lifting2d,
    SpatialBias: _one_per_output,
    SpatialTransformer2D: _spatial_transformer2d,
    layers.Activation: _activation,
    layers.Add: _addition,
    layers.AveragePooling2D: _pooling,
    layers.AveragePooling3D: _pooling,
    # One product and one sum: with its statistics fixed it is a factor and a constant.
    layers.BatchNormalization: _two_per_output,
    layers.Conv2D: _conv2d,
    layers.Dense: _dense,
    layers.Dropout: _free,
    layers.Flatten: _free,
    layers.GlobalAveragePooling2D: _global_pooling,
    layers.GlobalMaxPooling2D: _one_per_input,
    layers.InputLayer: _free,
    layers.MaxPooling2D: _pooling,
    layers.MaxPooling3D: _pooling,
    layers.ReLU: _one_per_output,
    layers.ZeroPadding2D: _free,
}
