"""Layers answer for themselves: what their positions read, and what they cost."""

import inspect
import math
import re

import keras
import pytest
from cases import CASES

import low_rank_local_connectivity as lrlc
from benchmarks.undrawn import without_values
from low_rank_local_connectivity import inspection, layers
from low_rank_local_connectivity.inspection import operations
from low_rank_local_connectivity.inspection.operation_rules import RULES
from low_rank_local_connectivity.inspection.window_rules import POINTWISE, SCATTERING
from low_rank_local_connectivity.ops import TransposedWindows, Windows

pytestmark = pytest.mark.once
OURS = lrlc.__name__


def own(kind: type, name: str) -> bool:
    """Whether a class of ours in a layer's line of bases defines a name."""
    return any(name in vars(one) for one in kind.__mro__ if one.__module__.startswith(OURS))


@pytest.mark.parametrize("name", layers.__all__)
def test_every_layer_says_what_it_reads_and_what_it_costs(name):
    missing = [one for one in ("windows", "operations") if not own(getattr(layers, name), one)]
    assert not missing, f"give {name} {' and '.join(missing)}, which CONTRIBUTING.md describes"


@pytest.mark.parametrize("name", layers.__all__)
def test_operations_are_asked_for_by_the_shape_of_the_input(name):
    parameters = inspect.signature(getattr(layers, name).operations).parameters
    assert list(parameters) == ["self", "input_shape"]


def test_tables_are_about_keras_s_classes_only():
    kinds = {*RULES, *POINTWISE, *SCATTERING}
    assert not {kind for kind in kinds if not kind.__module__.startswith("keras.")}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer_answers(case):
    shape = (None, *case.input_shape[1:])
    with without_values():
        layer = case.make()
        layer.build(case.input_shape)
        assert isinstance(layer.windows, Windows | TransposedWindows | None)
        assert all(isinstance(one, Windows | None) for one in getattr(layer, "further_windows", ()))
        count = operations(layer, shape)
        assert count == operations(layer, case.input_shape)
    assert isinstance(count, int)
    assert count > 0 or case.layer.startswith("AddCoordinates")


def built(layer, shape):
    with without_values():
        layer.build(shape)
    return layer


FLAT = (
    (layers.LowRankLocallyConnected1D, layers.LowRankLocallyConnected2D, (1, 3), (1, 13)),
    (layers.LowRankLocallyConnected2D, layers.LowRankLocallyConnected3D, (1, 3, 2), (1, 8, 11)),
)


@pytest.mark.parametrize(("less", "more", "kernel_size", "sizes"), FLAT)
def test_an_axis_of_one_element_costs_nothing(less, more, kernel_size, sizes):
    options = {"spatial_rank": 4, "additive_axes": ()}
    flat = built(less(6, kernel_size[1:], **options), (None, *sizes[1:], 5))
    deep = built(more(6, kernel_size, **options), (None, *sizes, 5))
    one, other = (None, *sizes[1:], 5), (None, *sizes, 5)
    assert flat.operations(one) == deep.operations(other)
    assert flat.combined_operations(one) == deep.combined_operations(other)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_filters_of_the_input_are_counted_by_hand(data_format):
    shape = (None, 8, 11, 4) if data_format == "channels_last" else (None, 4, 8, 11)
    layer = built(layers.DynamicLocalFilter2D((3, 2), data_format=data_format), shape)
    generator = (2 * 6 * 4 + 1) * 6 * 88
    normalization, filtering = 3 * 6 * 88, 2 * 6 * 88 * 4
    assert layer.operations(shape) == generator + normalization + filtering
    filters = (None, 8, 11, 6)
    assert layer.operations([shape, filters]) == normalization + filtering


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_transposed_layer_counts_what_every_input_writes(data_format):
    shape = (None, 4, 5, 7) if data_format == "channels_last" else (None, 7, 4, 5)
    options = {"strides": 2, "padding": "same", "data_format": data_format}
    products, outputs = 4 * 5 * 7 * (3 * 2) * 6, 8 * 10 * 6
    plain = built(keras.layers.Conv2DTranspose(6, (3, 2), **options), shape)
    local = built(layers.LocallyConnected2DTranspose(6, (3, 2), **options), shape)
    assert operations(plain, shape) == local.operations(shape) == 2 * products + outputs
    low_rank = built(layers.LowRankLocallyConnected2DTranspose(6, (3, 2), 5, **options), shape)
    weighing = 5 * 4 * 5 * 7
    assert low_rank.operations(shape) == 5 * 2 * products + weighing + outputs
    assert low_rank.combined_operations(shape) == (2 * products + outputs, 2 * 5 * products)


def test_layers_of_keras_s_applications_are_counted_by_hand():
    shape = (None, 8, 11, 4)
    numbers = 8 * 11 * 4
    separable = built(keras.layers.SeparableConv2D(6, (3, 2), depth_multiplier=5), shape)
    depthwise, pointwise = 2 * 6 * 20 * (6 * 10), (2 * 20 + 1) * 6 * (6 * 10)
    assert operations(separable, shape) == depthwise + pointwise
    norm = built(keras.layers.LayerNormalization(center=False), shape)
    assert operations(norm, shape) == 6 * numbers
    normalization = keras.layers.Normalization(mean=0.5, variance=2.0)
    assert operations(built(normalization, shape), shape) == 2 * numbers
    multiply = built(keras.layers.Multiply(), [shape] * 3)
    assert operations(multiply, [shape] * 3) == 2 * numbers
    assert operations(built(keras.layers.Softmax(), shape), shape) == 3 * numbers


def test_given_routing_weights_save_the_router():
    shape = (None, 8, 11, 4)
    own = built(layers.CondConv2D(6, 3, num_experts=5), shape)
    given = built(layers.CondConv2D(6, 3, num_experts=5, routing=None), shape)
    router = 88 * 4 + 4 + (2 * 4 + 2) * 5
    assert own.operations(shape) - given.operations([shape, (None, 5)]) == router
    convolution = (2 * 36 + 1) * 6 * 6 * 9
    assert given.operations([shape, (None, 5)]) == convolution + 2 * 5 * (36 * 6 + 6)


def test_a_kronecker_convolution_counts_the_strategy_that_it_takes():
    shape, factors = (None, 9, 8, 4), ((2, 1, 2, 3), (3, 3, 2, 2))
    dense, factored = (
        built(layers.KroneckerConv2D(6, (6, 3), factors, 2, strategy=name), shape)
        for name in ("dense", "factored")
    )
    positions = 4 * 6
    assert dense.operations(shape) == (2 * 18 * 4 + 1) * 6 * positions
    # In 7 rows of 6 positions the fine kernel, of each of 2 blocks; then the coarse one.
    products = 2 * (2 * math.prod(factors[1]) * 7 * 6 + 2 * math.prod(factors[0]) * positions)
    assert factored.operations(shape) == 2 * products + 6 * positions


def test_a_background_adds_no_operations_to_an_example():
    shape, layer = (None, 8, 9, 3), keras.layers.Conv2D(5, 3)
    wrapped = built(layers.WithBackground(layer), shape)
    assert wrapped.operations(shape) == operations(layer, shape)


def test_a_layer_of_the_user_s_may_answer_too():
    class Halving(keras.layers.Layer):
        windows = Windows((2, 2), (2, 2), (1, 1), "valid")

        def operations(self, input_shape):
            return input_shape[1] * input_shape[2]

        def call(self, inputs):
            return inputs[:, ::2, ::2] + inputs[:, 1::2, 1::2]

    inputs = keras.Input((8, 10, 3))
    model = keras.Model(inputs, Halving(name="half")(inputs))
    assert inspection.total_cost(model).flops == 80
    assert inspection.receptive_field(model)[-1].strides == (2, 2)


def test_earlier_names_are_the_same_functions():
    from low_rank_local_connectivity import receptive_field
    from low_rank_local_connectivity.models import accounting

    for module in (receptive_field, accounting):
        for name in set(module.__all__) - {"SCATTERED"}:
            assert getattr(module, name) is getattr(inspection, name)


def subclassed():
    class Doubling(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    inputs = keras.Input((8, 9, 3))
    return Doubling(inputs, keras.layers.Conv2D(4, 3)(inputs), name="doubling")


def test_a_step_keeps_what_layers_with_weights_read_each_tensor_once():
    inner = keras.Sequential(
        [keras.Input((6, 7, 5)), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    )
    frozen = keras.layers.Conv2D(9, 1, trainable=False)
    images = keras.Input((8, 9, 4))
    hidden = inner(keras.layers.Conv2D(5, 3, dtype="bfloat16")(images))
    ends = [keras.layers.Dense(2)(hidden), keras.layers.Dense(3)(hidden), frozen(hidden)]
    read = 2 * 8 * 9 * 4 + 4 * 6 * 7 * 5 + 4 * 6 * 7 * 5
    assert inspection.step_bytes(keras.Model(images, ends)) == read


@pytest.mark.parametrize("name", ["layer_costs", "total_cost", "step_bytes", "receptive_field"])
def test_what_a_model_does_with_its_layers_must_be_known(name):
    asked = "layer_costs" if name == "total_cost" else name
    message = (
        f"{asked}() takes functional and Sequential models, whose layers it can see. Received: "
        "Doubling, which says in Python what it does. Make it functional: keras.Model(inputs, "
        "outputs)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(inspection, name)(subclassed())


REFUSED = {
    "no layer": (
        lambda: operations("conv", (None, 8, 9, 3)),
        "`layer` must be a layer or model. Received: layer='conv'.",
    ),
    "not built": (
        lambda: operations(keras.layers.Dense(3, name="dense"), (None, 4)),
        (
            "What operations() is given must be built. Received: 'dense', which is not. Call it on "
            "inputs first, or its build(input_shape)."
        ),
    ),
    "own call": (
        lambda: operations(subclassed(), (None, 8, 9, 3)),
        (
            "Operations are counted for layers with a method `operations` and for Keras's kinds "
            "that have a rule. Received: layer 'doubling' of kind Doubling. Give its class a "
            "method operations(input_shape)."
        ),
    ),
    "unknown size": (
        lambda: operations(
            built(layers.FullConv2D(4, 3), (None, None, None, 3)), (None, None, 9, 3)
        ),
        (
            "`input_shape` must be the shape of a layer's input, with the batch first, or a list "
            "of such shapes; every size behind the batch must be known. Received: "
            "input_shape=(None, None, 9, 3)."
        ),
    ),
    "orientations": (
        lambda: inspection.receptive_field(
            keras.Sequential([keras.Input((8, 9, 4, 5)), layers.GroupConv2D(6, 3, name="turned")])
        ),
        (
            "Layer 'turned' has windows over 2 spatial axes, and the model's input has 3. "
            "Received: windows=Windows(sizes=(3, 3), strides=(1, 1), dilations=(1, 1), "
            "padding='valid'). Start the model at the images."
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_in_a_sentence(name):
    act, message = REFUSED[name]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        act()
