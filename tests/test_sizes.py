"""Inputs of another size: refused where a layer has values per position, and before predicting."""

import keras
import numpy as np
import pytest
from cases import CASES

from low_rank_local_connectivity import layers

# Layers that are built for one size, by the axis along which that is so.
FIXED = {
    "LocallyConnected1D": (layers.LocallyConnected1D(6, 3), (2, 13, 4), 1),
    "LocallyConnected2D": (layers.LocallyConnected2D(6, 3), (2, 8, 11, 4), 2),
    "LocallyConnected2D-channels_first": (
        layers.LocallyConnected2D(6, 3, data_format="channels_first"),
        (2, 4, 8, 11),
        3,
    ),
    "LocallyConnected3D": (layers.LocallyConnected3D(6, 2), (2, 5, 7, 6, 3), 3),
    "LowRankLocallyConnected2D": (layers.LowRankLocallyConnected2D(6, 3, 2), (2, 8, 11, 4), 1),
    "LowRankLocallyConnected2D-columns": (
        layers.LowRankLocallyConnected2D(6, 3, 2, additive_axes=(1,)),
        (2, 8, 11, 4),
        2,
    ),
    "LowRankLocallyConnected2D-input": (
        layers.LowRankLocallyConnected2D(6, 3, 2, input_dependent=True),
        (2, 8, 11, 4),
        1,
    ),
    "InputDependentCombiningWeights": (
        layers.InputDependentCombiningWeights(5),
        (2, 8, 11, 4),
        2,
    ),
    "InputDependentCombiningWeights-branches": (
        layers.InputDependentCombiningWeights(5, output_size=(3, 4)),
        (2, 8, 11, 4),
        1,
    ),
    "SpatialBias": (layers.SpatialBias(), (2, 8, 11, 4), 1),
    "SpatialBias-1x1": (layers.SpatialBias(), (2, 1, 1, 4), 1),
    "SpatialBias-map": (layers.SpatialBias(additive_axes=()), (2, 8, 11, 4), 2),
    "SpatialBias-per_filter": (
        layers.SpatialBias(per_filter=True, data_format="channels_first"),
        (2, 4, 8, 11),
        3,
    ),
    "SpatialTransformer2D": (
        layers.SpatialTransformer2D(keras.layers.Flatten()),
        (2, 8, 11, 4),
        2,
    ),
}


def refusals(layer, shape):
    """Returns what is said by a symbolic call, by the computed shape and by an eager call."""
    messages = []
    for attempt in (
        lambda: layer(keras.Input(shape[1:])),
        lambda: layer.compute_output_shape((None, *shape[1:])),
        lambda: layer(np.zeros(shape, "float32")),
    ):
        with pytest.raises(ValueError, match="Received: ") as caught:
            attempt()
        messages.append(str(caught.value))
    return messages


@pytest.mark.parametrize("name", FIXED)
def test_symbolic_calls_refuse_another_size_as_eager_calls_do(name):
    layer, shape, axis = FIXED[name]
    layer.build(shape)
    other = [*shape]
    other[axis] += 9
    symbolic, computed, eager = refusals(layer, tuple(other))
    assert layer.name in computed
    # Keras adds the arguments of the call to what a layer says.
    assert computed in symbolic
    assert computed.replace("of shape (None", "of shape (2") in eager


def test_the_message_names_both_sizes_and_the_way_out():
    layer = layers.SpatialBias(name="bias")
    layer.build((None, 1, 1, 3))
    with pytest.raises(ValueError, match="biases") as caught:
        layer.compute_output_shape((None, 12, 12, 3))
    assert str(caught.value) == (
        "Layer 'bias' has biases for inputs of spatial size (1, 1), each position having its own. "
        "Received: inputs of shape (None, 12, 12, 3) with data_format='channels_last'. Resize the "
        "inputs, or the layer with conversion.resize(layer, input_shape)."
    )


def test_axes_that_are_shared_take_any_size():
    layer = layers.SpatialBias(additive_axes=(1,))
    layer.build((None, 1, 5, 3))
    assert tuple(layer(np.zeros((2, 7, 5, 3), "float32")).shape) == (2, 7, 5, 3)
    layer = layers.LowRankLocallyConnected2D(6, 3, 2, additive_axes=(1,))
    layer.build((None, None, 11, 4))
    assert layer.compute_output_shape((None, 9, 11, 4)) == (None, 7, 9, 6)


@pytest.mark.parametrize("case", [case for case in CASES if not case.label], ids=str)
def test_an_unknown_size_passes_where_the_layer_is_built(case):
    layer = case.make()
    layer.build(case.input_shape)
    spatial = len(case.input_shape) - 2
    scales = "Scale" in case.layer and spatial == 3
    groups = case.layer.startswith("Group") and spatial == 3
    known = case.input_shape[1:2] if scales else ()
    unknown = (None,) * (spatial - len(known) - groups)
    shape = (*known, *unknown, *case.input_shape[1 + len(known) + len(unknown) :])
    if case.arguments.get("data_format") == "channels_first":
        shape = (case.input_shape[1], *unknown)
    fixed = ("InputDependentCombiningWeights", "SpatialTransformer2D")
    if case.layer not in fixed:
        assert layer(keras.Input(shape)).shape[0] is None


TOO_SMALL = {
    "CondConv2D": (layers.CondConv2D(6, 3, num_experts=5), (2, 8, 11, 4), (2, 2, 11, 4)),
    "DeformableConv2D": (layers.DeformableConv2D(6, 3), (2, 8, 11, 4), (2, 8, 2, 4)),
    "DilatedContext2D": (
        layers.DilatedContext2D(dilations=(2, 1), padding="valid"),
        (2, 8, 11, 4),
        (2, 5, 11, 4),
    ),
    "GroupConv2D": (layers.GroupConv2D(6, 3), (2, 8, 11, 4, 5), (2, 8, 2, 4, 5)),
    "GroupLiftConv2D": (layers.GroupLiftConv2D(6, 3), (2, 8, 11, 4), (2, 2, 11, 4)),
    "KroneckerConv2D": (
        layers.KroneckerConv2D(6, (6, 3), ((2, 1, 2, 3), (3, 3, 2, 2))),
        (2, 8, 11, 4),
        (2, 5, 11, 4),
    ),
    "ScaleSpaceLifting2D": (
        layers.ScaleSpaceLifting2D(4, method="bilinear"),
        (2, 8, 11, 4),
        (2, 8, 7, 4),
    ),
}


@pytest.mark.parametrize("name", TOO_SMALL)
def test_inputs_too_small_for_a_window_are_refused_by_every_call(name):
    layer, built, small = TOO_SMALL[name]
    layer.build(built)
    messages = refusals(layer, small)
    assert all(layer.name in message for message in messages)


def test_a_stride_that_does_not_fit_is_refused_symbolically():
    layer = layers.GroupLiftConv2D(6, 3, strides=2)
    layer.build((None, 9, 13, 4))
    refusals(layer, (2, 10, 13, 4))


def test_second_inputs_that_do_not_fit_are_refused_symbolically():
    images = keras.Input((8, 11, 4))
    layer = layers.CondConv2D(6, 3, num_experts=5, routing=None)
    with pytest.raises(ValueError, match=r"must have shape \(batch, num_experts\)"):
        layer(images, routing_weights=keras.Input((3,)))
    with pytest.raises(ValueError, match="has no router of its own"):
        layer(images)
    layer = layers.DynamicLocalFilter2D(3, use_generator=False)
    with pytest.raises(ValueError, match="must be given for every position"):
        layer(images, filters=keras.Input((8, 10, 9)))
    with pytest.raises(ValueError, match="has no generator"):
        layer(images)
    assert layer(images, filters=keras.Input((8, 11, 9))).shape == (None, 8, 11, 4)
