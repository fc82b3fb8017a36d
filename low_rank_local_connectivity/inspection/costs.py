"""What a model costs: trainable parameters and floating-point operations, layer by layer.

Everything is counted from shapes, for one image in inference. A multiplication and an addition
are two operations; a window that reaches into padding counts in full, as is usual in print.
Whatever is computed once for all images, such as the normalisation of fixed combining weights,
is left out, but for `LayerCost.mixing_flops`.
"""

import dataclasses
import math
from typing import Any

import keras

from low_rank_local_connectivity.inspection.graph import calls_between, require_graph, require_model
from low_rank_local_connectivity.inspection.operation_rules import (
    input_shape_of,
    is_input,
    operations,
)
from low_rank_local_connectivity.ops.arguments import whole_number
from low_rank_local_connectivity.ops.operation_counts import example_shape, numbers


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
        ValueError: If the model has no graph, a layer is of a kind that is not counted, or a size
            is unknown.

    Example:
        >>> inputs = keras.Input((8, 9, 4))
        >>> outputs = keras.layers.Conv2D(5, 3, use_bias=False)(inputs)
        >>> _, cost = layer_costs(keras.Model(inputs, outputs))
        >>> cost.parameters, cost.output_size, cost.flops == 2 * 180 * 6 * 7
        (180, (6, 7, 5), True)
    """
    require_graph("layer_costs", model)
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
        >>> from low_rank_local_connectivity.layers import LowRankLocallyConnected2D
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
        example_shape(model.outputs[0].shape),
        parameters=sum(cost.parameters for cost in costs),
        flops=sum(cost.flops for cost in costs),
        combined_flops=sum(cost.combined_flops for cost in costs),
        mixing_flops=sum(cost.mixing_flops for cost in costs),
    )


def weight_bytes(model: keras.Model, moments: int = 2) -> int:
    """Returns the bytes of a model's weights in training, with their gradients and moments.

    Args:
        model: Any model whose weights have shapes; they need no values.
        moments: Moments that the optimizer keeps of each trainable weight, at least 0.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
        >>> weight_bytes(model, moments=2) == 25 * 4 * (1 + 1 + 2)
        True
    """
    require_model("weight_bytes", model)
    moments = whole_number("moments", moments, 0)
    trained = sum(_weight_bytes(weight) for weight in model.trainable_weights)
    others = sum(_weight_bytes(weight) for weight in model.non_trainable_weights)
    return (2 + moments) * trained + others


def step_bytes(model: keras.Model) -> int:
    """Returns the bytes that a step of training keeps of an example, at least.

    What layers with trainable weights read, of which the gradients for the weights are made,
    models among the layers opened. What one layer hands to several counts once. A step takes more:
    copies with padding, and gradients on their way.

    Args:
        model: A functional or sequential model of known sizes.

    Example:
        >>> steps = [keras.Input((8, 9, 4)), keras.layers.Conv2D(5, 3), keras.layers.Dense(2)]
        >>> model = keras.Sequential(steps)
        >>> step_bytes(model) == (8 * 9 * 4 + 6 * 7 * 5) * 4
        True
    """
    require_graph("step_bytes", model)
    total, read = 0, {}
    for call in calls_between(model.inputs, model.outputs):
        layer = call.operation
        if isinstance(layer, keras.Model):
            total += step_bytes(layer)
        elif getattr(layer, "trainable_weights", ()):
            width = _bytes_of(layer.compute_dtype)
            read |= {id(one): width * numbers(one.shape) for one in call.input_tensors}
    return total + sum(read.values())


def _weight_bytes(weight: Any) -> int:
    return math.prod(weight.shape) * _bytes_of(weight.dtype)


def _bytes_of(dtype: str) -> int:
    return 2 if dtype in ("float16", "bfloat16") else 4


def _cost(layer: Any) -> LayerCost:
    flops = combined_flops = mixing_flops = 0
    if not is_input(layer):
        shape = input_shape_of(layer)
        flops = combined_flops = operations(layer, shape)
        if hasattr(layer, "combined_operations"):
            combined_flops, mixing_flops = layer.combined_operations(shape)
    return LayerCost(
        layer.name,
        type(layer).__name__,
        example_shape(_levels(layer.output)[0].shape),
        sum(math.prod(weight.shape) for weight in layer.trainable_weights),
        flops,
        combined_flops,
        mixing_flops,
    )


def _levels(tensors: Any) -> list[Any]:
    """Returns the levels of a pyramid, or a tensor as the only one."""
    return tensors if isinstance(tensors, list) else [tensors]
