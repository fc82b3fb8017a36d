"""The analytic counts against two that know nothing of them: TensorFlow's profiler and XLA's."""

import re

import keras
import numpy as np
import pytest
from cases import CASES

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.inspection import layer_costs, total_cost
from low_rank_local_connectivity.models import Settings, convolution
from low_rank_local_connectivity.models.resnet import resnet
from low_rank_local_connectivity.models.simple_network import simple_network

SHAPE = (16, 19, 24)
LOW_RANK = {"filters": 32, "kernel_size": 3, "spatial_rank": 6}
FIRST_PLAN, SECOND_PLAN = "convolve_then_combine", "combine_then_convolve"


def alone(layer, shape=SHAPE):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def profiled(model, products_only=False):
    """Operations per image that TensorFlow's profiler finds in the model's frozen graph.

    It knows of convolutions, matrix products, batched ones too, sums and products, but not of
    ReLU; everything else that is computed for fixed weights is part of the graph too.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    function = tf.function(lambda images: model(images, training=False))
    signature = tf.TensorSpec((1, *model.input_shape[1:]), "float32")
    concrete = function.get_concrete_function(signature)
    graph = convert_to_constants.convert_variables_to_constants_v2(concrete).graph
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = options.with_empty_output()
    if products_only:
        options = options.with_accounted_types(["Conv2D", "MatMul", "BatchMatMulV2"])
    return profiler.profile(graph, cmd="op", options=options.build()).total_float_ops


def as_compiled(model):
    """Operations per image that XLA finds in the model before it optimises it."""
    import jax

    variables = (
        [v.value for v in model.trainable_variables],
        [v.value for v in model.non_trainable_variables],
    )
    images = np.zeros((1, *model.input_shape[1:]), "float32")
    lowered = jax.jit(lambda *args: model.stateless_call(*args)[0]).lower(*variables, images)
    return lowered.cost_analysis()["flops"]


def counted(model):
    """Operations per image by either count."""
    return as_compiled(model) if keras.backend.backend() == "jax" else profiled(model)


needs_a_count = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch counts operations only while they run"
)

LAYERS = {
    "convolution": (keras.layers.Conv2D, {"filters": 32, "kernel_size": 3}),
    "strided": (
        keras.layers.Conv2D,
        {"filters": 32, "kernel_size": (3, 2), "strides": (2, 1), "use_bias": False},
    ),
    "wide": (keras.layers.Conv2D, {"filters": 111, "kernel_size": 3}),
    "coordinates": (layers.CoordConv2D, {"filters": 32, "kernel_size": 3}),
    "turned": (layers.GroupLiftConv2D, {"filters": 8, "kernel_size": 3}),
    "locally_connected": (layers.LocallyConnected2D, {"filters": 32, "kernel_size": 3}),
    "rank_1": (layers.LowRankLocallyConnected2D, {**LOW_RANK, "spatial_rank": 1}),
    "low_rank": (layers.LowRankLocallyConnected2D, LOW_RANK),
    "low_rank_rows": (layers.LowRankLocallyConnected2D, {**LOW_RANK, "additive_axes": (0,)}),
    "input_dependent": (layers.LowRankLocallyConnected2D, {**LOW_RANK, "input_dependent": True}),
}


def make(label, **changes):
    kind, arguments = LAYERS[label]
    return alone(kind(**arguments, **changes))


@needs_a_count
@pytest.mark.parametrize("label", LAYERS)
def test_operations_of_a_layer_are_those_counted_elsewhere(label):
    changes = {"implementation": FIRST_PLAN} if "low_rank" in label else {}
    model = make(label, **changes)
    assert total_cost(model).flops == pytest.approx(counted(model), rel=0.005)


# What XLA leaves out, padding, and what it counts with an example, such as the normalisation of
# weights that are the same for all, are less than 3 % of these.
COUNTED = (
    "LocallyConnected1D",
    "LocallyConnected1D-causal",
    "LocallyConnected3D",
    "InputDependentCombiningWeights-1D",
    "InputDependentCombiningWeights-2D",
    "InputDependentCombiningWeights-3D",
    "CondConv2D",
    "CondConv2D-full",
    "DilatedContext2D-channels_first",
    "FullConv1D",
    "FullConv3D",
    "GroupConv2D",
    "GroupBatchNormalization",
    "KroneckerConv2D-full",
    "ScalePooling2D-mean",
    "ScaleSpaceLifting2D-bilinear",
)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA is asked through JAX")
@pytest.mark.parametrize("case", [case for case in CASES if str(case) in COUNTED], ids=str)
def test_operations_of_a_layer_of_any_kind_are_those_that_xla_finds(case):
    model = alone(case.make(), case.input_shape[1:])
    assert total_cost(model).flops == pytest.approx(as_compiled(model), rel=0.03)


@pytest.mark.once
@pytest.mark.parametrize("interaction", [1, 2])
def test_the_profiler_finds_the_products_of_a_scale_convolution(interaction):
    model = alone(layers.ScaleConv2D(32, 3, interaction, strides=2), (3, *SHAPE))
    assert total_cost(model).flops == profiled(model)


@pytest.mark.once
def test_layers_of_levels_are_counted_by_hand():
    inputs = keras.Input((8, 12, 3))
    x = layers.ScaleSpaceLifting2D(3, pyramid=True, name="lifting")(inputs)
    x = layers.ScaleConv2D(5, 3, name="plain")(x)
    x = layers.OverLevels(keras.layers.BatchNormalization(), name="norm")(x)
    x = layers.DeformableScaleConv2D(4, 3, name="deformable")(x)
    x = layers.ScalePooling2D(name="levels")(x)
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D(name="pooling")(x))
    costs = {cost.name: cost for cost in layer_costs(model)}
    positions = 8 * 12 + 4 * 6 + 2 * 3
    products = (4 * 8 * 12 + 4 * 12 * 6) + (2 * 8 * 12 + 2 * 12 * 3)
    assert costs["lifting"].flops == 2 * 3 * products
    assert costs["plain"].flops == (2 * 27 + 1) * 5 * positions
    assert costs["plain"].output_size == (8, 12, 5)
    assert costs["norm"].flops == 2 * 5 * positions
    # The convolution, the offsets with bias and factor, and 45 samples for each position.
    deformable = (2 * 45 + 1) * 4 + (2 * 45 + 2) * 18 + 7 * 45
    assert costs["deformable"].flops == deformable * positions
    assert costs["levels"].flops == 4 * positions
    assert costs["pooling"].flops == 4 * 6


@pytest.mark.once
@pytest.mark.parametrize("as_a_model", [True, False])
def test_a_spatial_transformer_is_counted_by_hand(as_a_model):
    network = keras.layers.Dense(4, use_bias=False)
    if as_a_model:
        network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5)])
    cost = total_cost(alone(layers.SpatialTransformer2D(network), (8, 9, 3)))
    features, looking = (5, 2 * 216 * 5 + 5) if as_a_model else (8 * 9 * 4, 2 * 3 * 4 * 72)
    assert cost.flops == looking + (2 * features + 1) * 6 + 12 * 72 + 7 * 216


@pytest.mark.once
def test_a_dense_layer_over_levels_is_counted_at_every_position():
    inputs = keras.Input((8, 12, 3))
    levels = layers.ScaleSpaceLifting2D(2, pyramid=True)(inputs)
    outputs = layers.OverLevels(keras.layers.Dense(2), name="over")(levels)
    *_, cost = layer_costs(keras.Model(inputs, outputs))
    assert cost.flops == (2 * 3 + 1) * 2 * (8 * 12 + 4 * 6)


@needs_a_count
@pytest.mark.parametrize("label", ["low_rank", "low_rank_rows"])
def test_operations_of_the_second_plan_are_those_counted_elsewhere(label):
    model = make(label, implementation=SECOND_PLAN)
    cost = total_cost(model)
    assert cost.combined_flops + cost.mixing_flops == pytest.approx(counted(model), rel=0.005)
    convolution_cost = total_cost(make("convolution"))
    assert cost.combined_flops == convolution_cost.flops


@pytest.mark.once
@pytest.mark.parametrize("label", ["strided", "locally_connected", "low_rank", "rank_1"])
def test_the_profiler_finds_exactly_the_products_of_the_definition(label):
    changes = {"implementation": FIRST_PLAN} if label == "low_rank" else {}
    model = make(label, **changes)
    height, width, filters = model.output_shape[1:]
    taps = 6 if label == "strided" else 9
    rank = 6 if label == "low_rank" else 1
    products = rank * taps * 24 * filters * height * width
    assert profiled(model, products_only=True) == 2 * products


@pytest.mark.once  # XLA leaves padding out, of which small maps read much
@pytest.mark.parametrize(
    "kind",
    # It has many of Keras's convolutions, too.
    ["low_rank_locally_connected2d", pytest.param("conv2d", marks=pytest.mark.slow)],
)
def test_operations_of_a_residual_network_are_those_counted_elsewhere(kind):
    layer = convolution(kind, Settings(spatial_rank=3))
    model = resnet((64, 96, 3), 10, 18, insert=layer, replace={"conv3": layer})
    for low_rank in model.layers:
        if isinstance(low_rank, layers.LowRankLocallyConnected2D):
            low_rank.implementation = FIRST_PLAN
    assert total_cost(model).flops == pytest.approx(counted(model), rel=0.002)


@pytest.mark.once
def test_resnet_50_costs_what_is_known_of_it():
    cost = total_cost(resnet((224, 224, 3), 1000, 50))
    assert cost.parameters == 25_557_032
    # 4.09 billion products in convolutions and logits are what others count; normalisation,
    # ReLU, pooling and additions come on top.
    assert cost.flops == pytest.approx(2 * 4.09e9, rel=0.01)


@pytest.mark.parametrize("label", LAYERS)
def test_parameters_are_those_that_train(label):
    model = make(label)
    expected = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    (_, cost) = layer_costs(model)
    assert cost.parameters == total_cost(model).parameters == expected
    assert cost.output_size == model.output_shape[1:]
    assert cost.kind == LAYERS[label][0].__name__


def test_the_simple_network_is_counted_layer_by_layer():
    makers = [
        convolution(kind, Settings(spatial_rank=5))
        for kind in ("conv2d", "coord_conv2d", "low_rank_locally_connected2d")
    ]
    model = simple_network((12, 15, 3), 10, makers, filters=8, pooling=False)
    costs = {cost.name: cost for cost in layer_costs(model)}
    assert costs["layer_1"].flops == 2 * 27 * 8 * 10 * 13
    assert costs["layer_2"].flops == 2 * 9 * 10 * 8 * 8 * 11
    # Five convolutions, five products and sums to mix them, and the spatial bias.
    assert costs["layer_3"].flops == (5 * 2 * 72 + 5 * 2 + 1) * 8 * 6 * 9
    assert costs["layer_3"].combined_flops == (2 * 72 + 1) * 8 * 6 * 9
    assert costs["layer_3"].mixing_flops == 5 * 2 * 72 * 8 * 6 * 9
    assert costs["batch_norm_3"].flops == 2 * costs["relu_3"].flops == 2 * 8 * 6 * 9
    assert costs["logits"].flops == 2 * 432 * 10 + 10
    total = total_cost(model)
    for field in ("parameters", "flops", "combined_flops", "mixing_flops"):
        assert getattr(total, field) == sum(getattr(cost, field) for cost in costs.values())


def test_models_within_a_model_are_opened():
    inner = alone(keras.layers.Conv2D(5, 3))
    outer = keras.Sequential([keras.Input(SHAPE), inner, keras.layers.ReLU()])
    assert total_cost(outer).flops == total_cost(inner).flops + 14 * 17 * 5


@pytest.mark.once
def test_the_scales_of_a_convnext_are_counted_once_per_number():
    from keras.src.applications.convnext import ConvNeXt

    arguments = {"depths": [1, 1, 1, 1], "projection_dims": [4, 5, 6, 7], "weights": None}
    model = ConvNeXt(**arguments, include_top=False, input_shape=(64, 64, 3), drop_path_rate=0.1)
    scales = [cost for cost in layer_costs(model) if "layer_scale" in cost.name]
    assert [cost.flops for cost in scales] == [16 * 16 * 4, 8 * 8 * 5, 4 * 4 * 6, 2 * 2 * 7]


@pytest.mark.once
def test_kinds_and_sizes_that_are_not_counted_are_refused_in_a_sentence():
    message = (
        "Operations are counted for layers with a method `operations` and for Keras's kinds that "
        "have a rule. Received: layer 'new' of kind UnitNormalization. Give its class a method "
        "operations(input_shape)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer_costs(alone(keras.layers.UnitNormalization(name="new")))
    message = (
        "Operations are counted for images of known size. Received: a tensor of shape "
        "(None, None, 8, 3). Give keras.Input a static size."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        layer_costs(alone(keras.layers.ReLU(), (None, 8, 3)))
