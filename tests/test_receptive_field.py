"""What layers read of the input, against the gradient of one of their positions."""

from typing import Any

import keras
import numpy as np
import pytest
from backends import outputs_and_gradients, randomize, to_numpy
from keras import layers, ops

import low_rank_local_connectivity as ours
from low_rank_local_connectivity.inspection import ReceptiveField, receptive_field
from low_rank_local_connectivity.ops import Windows

SIZE = (29, 34)


def functional(build, shape=(*SIZE, 2)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, build(inputs), name="net")


def measured(model, position, rng):
    """Returns first and last element along each axis that an output position depends on."""
    inputs = rng.uniform(1, 2, size=(1, *model.inputs[0].shape[1:])).astype("float32")
    projection = np.zeros((1, *model.outputs[0].shape[1:]), "float32")
    projection[(0, *position)] = 1  # of all filters
    _, (gradient, *_) = outputs_and_gradients(model, inputs, projection)
    depends = np.abs(gradient[0]).max(axis=-1) > 0
    axes = range(depends.ndim)
    hit = [np.flatnonzero(depends.any(axis=tuple(set(axes) - {axis}))) for axis in axes]
    return [(one[0], one[-1]) for one in hit]


def bottleneck(x, strides=1):
    y = layers.Conv2D(3, 1, strides=strides)(x)
    y = layers.Conv2D(3, 3, padding="same")(layers.BatchNormalization()(y))
    return layers.Add()([y, layers.Conv2D(3, 1, strides=strides)(x)])


def inception(x):
    wide = layers.Conv2D(2, 5, padding="same")(x)
    flat = layers.DepthwiseConv2D((1, 7), padding="same")(x)
    return layers.Concatenate()([layers.Conv2D(2, 1)(x), wide, flat])


def nested(x):
    block = keras.Sequential(
        [keras.Input(x.shape[1:]), layers.Conv2D(3, 3, name="first"), layers.ReLU()], name="block"
    )
    return layers.AveragePooling2D((2, 3))(block(x))


NETWORKS = {
    "valid": layers.Conv2D(3, (3, 4)),
    "dilated": layers.Conv2D(3, 3, dilation_rate=(2, 3)),
    "same, strided, even": lambda x: layers.Conv2D(
        3, 3, 2, padding="same"
    )(layers.Conv2D(3, 2, (2, 3), padding="same")(x)),
    "pooling": lambda x: layers.AveragePooling2D(3, 2, padding="same")(layers.Conv2D(2, 3)(x)),
    "maximum": lambda x: layers.Conv2D(2, 3)(layers.MaxPooling2D(1, 2)(x)),
    "padded and cropped": lambda x: layers.Cropping2D(((0, 2), (3, 1)))(
        layers.Conv2D(2, 3)(layers.ZeroPadding2D(((2, 1), (0, 3)))(x))
    ),
    "apart": lambda x: layers.Add()(
        [layers.Cropping2D(((0, 4), (0, 4)))(x), layers.Cropping2D(((4, 0), (3, 1)))(x)]
    ),
    "bottleneck": lambda x: bottleneck(bottleneck(x), 2),
    "operations": lambda x: ops.relu(layers.Conv2D(2, (3, 1), padding="same")(x) + x) * 2,
    "inception": inception,
    "separable": layers.SeparableConv2D(3, 3, dilation_rate=2),
    "nested": nested,
    "coordinates": ours.CoordConv2D(3, 5, padding="same"),
    "local": ours.LocallyConnected2D(3, (3, 2), strides=(2, 1)),
    "mixed basis": lambda x: ours.LowRankLocallyConnected2D(
        3, [(3, 1), (1, 6)], spatial_rank=2, padding="same"
    )(layers.Conv2D(2, 3, 2)(x)),
    "full": lambda x: ours.FullConv2D(3, (3, 2), strides=(2, 1))(ours.FullConv2D(2, 3)(x)),
    "Kronecker": ours.KroneckerConv2D(3, (4, 3), ((2, 1, 1, 3), (2, 3, 2, 1)), padding="same"),
    "context": ours.DilatedContext2D(dilations=(1, 2)),
    "filters of the input": ours.DynamicLocalFilter2D(3, generator_kernel_size=5),
    "background": ours.WithBackground(
        keras.Sequential([layers.Conv2D(2, (3, 2), 2), ours.FullConv2D(3, 3, use_bias=True)])
    ),
    "transposed": lambda x: ours.LocallyConnected2DTranspose(2, (4, 3), padding="same")(
        layers.Conv2D(2, 3, 2)(layers.Conv2DTranspose(3, (2, 5))(x))
    ),
    "transposed, dilated": ours.LowRankLocallyConnected2DTranspose(
        3, (2, 3), 2, dilation_rate=(3, 1), padding="same"
    ),
    "bias": lambda x: ours.SpatialBias()(ours.LowRankLocallyConnected2D(3, 3, 4)(x)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_field_is_where_the_gradient_is_not_zero(name, rng):
    model = functional(NETWORKS[name])
    randomize(model, rng)
    for weight in model.weights:
        weight.assign(np.abs(to_numpy(weight)))  # so that nothing cancels, and nothing is rectified
    row: Any = receptive_field(model)[-1]
    last_row, last_column = (length - 1 for length in model.outputs[0].shape[1:3])
    for position in ((last_row // 2, last_column // 2), (0, last_column)):
        for axis, (first, last) in enumerate(measured(model, position, rng)):
            begin = row.starts[axis] + row.strides[axis] * position[axis]
            end = begin + row.sizes[axis] - 1
            if position[0] == 0:  # near the border a padded layer reads less
                assert max(begin, 0) <= first <= last <= min(end, SIZE[axis] - 1)
            else:
                assert (first, last) == (begin, end)


def test_one_and_three_axes_and_channels_in_front(rng):
    causal = keras.Sequential(
        [
            keras.Input((23, 2)),
            layers.ZeroPadding1D((1, 2)),
            layers.Conv1D(3, 3, padding="causal", dilation_rate=2),
            ours.LocallyConnected1D(2, 4, strides=2),
        ]
    )
    randomize(causal, rng)
    row = receptive_field(causal)[-1]
    assert (row.sizes, row.strides, row.starts) == ((8,), (2,), (-5,))
    assert measured(causal, (6,), rng) == [(7, 14)]
    volume = keras.Sequential([keras.Input((9, 8, 7, 1)), layers.Conv3D(2, (3, 2, 1))])
    assert receptive_field(volume)[-1].sizes == (3, 2, 1)
    front = keras.Sequential(
        [
            keras.Input((2, 29, 34)),
            layers.Conv2D(3, (3, 5), (2, 1), padding="same", data_format="channels_first"),
            layers.Softmax(axis=1),
        ]
    )
    row = receptive_field(front)[-1]
    assert (row.sizes, row.strides, row.starts) == ((3, 5), (2, 1), (-1, -2))


def test_a_vgg_s_rows_are_those_computed_by_hand():
    """By hand: 3x3 adds 2 steps, 2x2 pooling one and doubles the step."""
    model = keras.Sequential([keras.Input((32, 32, 3))], name="vgg")
    for block in (1, 2):
        for index in (1, 2):
            model.add(layers.Conv2D(4, 3, padding="same", name=f"conv{block}_{index}"))
        model.add(layers.MaxPooling2D(2, name=f"pool{block}"))
    found = [
        (row.layer, row.sizes[0], row.strides[0], row.starts[0]) for row in receptive_field(model)
    ]
    assert found == [
        ("conv1_1", 3, 1, -1),
        ("conv1_2", 5, 1, -2),
        ("pool1", 6, 2, -2),
        ("conv2_1", 10, 2, -4),
        ("conv2_2", 14, 2, -6),
        ("pool2", 16, 4, -6),
    ]  # fmt: skip
    assert [row.layer for row in receptive_field(model, "pool1")][-1] == "pool1"


EVERYTHING = (None, None)


def test_what_mixes_all_positions_reads_everything():
    def squeeze_and_excite(x):
        x = layers.Conv2D(4, 3, 2, name="conv")(x)
        pooled = layers.GlobalAveragePooling2D(keepdims=True, name="pooled")(x)
        x = layers.Multiply(name="scaled")([x, layers.Dense(4, name="gate")(pooled)])
        x = layers.Conv2D(4, 3, strides=3, name="next")(x)
        return layers.Dense(3, name="dense")(layers.Flatten(name="flat")(x))

    rows = {row.layer: row for row in receptive_field(functional(squeeze_and_excite))}
    assert rows["conv"] == ReceptiveField("conv", (3, 3), (2, 2), (0, 0))
    assert rows["pooled"] == ReceptiveField("pooled", EVERYTHING, EVERYTHING, EVERYTHING)
    assert rows["scaled"] == ReceptiveField("scaled", EVERYTHING, (2, 2), EVERYTHING)
    assert rows["next"] == ReceptiveField("next", EVERYTHING, (6, 6), EVERYTHING)
    assert rows["flat"].strides == rows["dense"].sizes == EVERYTHING


def test_input_dependent_weights_read_everything_from_where_their_windows_are():
    def build(x):
        return ours.LowRankLocallyConnected2D(3, 3, 2, input_dependent=True, strides=2)(x)

    row = receptive_field(functional(build))[-1]
    assert (row.sizes, row.strides, row.starts) == (EVERYTHING, (2, 2), EVERYTHING)
    grouped = functional(layers.GroupNormalization(2))
    assert receptive_field(grouped)[-1].sizes == EVERYTHING


def test_behind_what_mixes_all_positions_maps_may_become_larger():
    def build(x):
        pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
        return layers.Conv2DTranspose(3, 4, 2)(pooled)

    assert receptive_field(functional(build))[-1].strides == EVERYTHING
    asked = ours.LowRankLocallyConnected2DTranspose(3, 3, 2, input_dependent=True)
    row = receptive_field(functional(asked))[-1]
    assert (row.sizes, row.strides, row.starts) == (EVERYTHING, (1, 1), EVERYTHING)


def test_what_chooses_where_it_reads_may_read_everything():
    def build(x):
        return ours.DeformableConv2D(3, 3, strides=2)(x)

    row = receptive_field(functional(build))[-1]
    assert (row.sizes, row.strides, row.starts) == (EVERYTHING, (2, 2), EVERYTHING)
    straightened = functional(ours.SpatialTransformer2D(layers.GlobalAveragePooling2D()))
    assert receptive_field(straightened)[-1].strides == EVERYTHING


def test_an_axis_that_is_not_the_channels_scatters_positions():
    for layer in (
        layers.Softmax(axis=1),
        layers.LayerNormalization(axis=[1, 2, 3]),
        layers.UnitNormalization(axis=-2),
    ):
        assert receptive_field(functional(layer))[-1].strides == EVERYTHING
    beside = functional(lambda x: layers.Concatenate(axis=1)([x, x]))
    assert receptive_field(beside)[-1].strides == EVERYTHING
    for layer in (layers.Dense(3), layers.LayerNormalization(), layers.Softmax()):
        assert receptive_field(functional(layer))[-1].sizes == (1, 1)


def test_a_position_that_is_stretched_over_a_map_reads_everything():
    def build(x):
        return layers.Add()([x, layers.Conv2D(2, (29, 34))(x)])

    assert receptive_field(functional(build))[-1].sizes == EVERYTHING


def test_layers_of_nested_models_are_named_by_their_path():
    model = functional(nested)
    assert receptive_field(model)[0].layer == "block/first"
    rows = receptive_field(model, "block/first")
    assert [row.layer for row in rows] == ["block/first"]
    assert receptive_field(model, "block")[-1] == ReceptiveField("block", (3, 3), (1, 1), (0, 0))


def test_a_layer_called_twice_has_two_rows():
    shared = layers.Conv2D(2, 3, name="shared")
    rows = receptive_field(functional(lambda x: shared(shared(x))))
    assert [(row.layer, row.sizes) for row in rows] == [("shared", (3, 3)), ("shared", (5, 5))]


def test_further_classes_get_rules_of_their_own():
    class Blur(layers.Layer):
        def call(self, inputs):
            return inputs

    model = functional(lambda x: layers.Conv2D(2, 3)(Blur(name="blur")(x)))
    rules = {Blur: lambda layer: Windows((5, 5), (2, 2), (1, 1), "valid")}  # noqa: ARG005
    assert receptive_field(model, rules=rules)[-1].sizes == (9, 9)
    rules = {Blur: lambda layer: None}  # noqa: ARG005
    assert receptive_field(model, rules=rules)[-1].sizes == EVERYTHING


def test_a_layer_may_say_where_its_windows_are():
    class Windowed(layers.Layer):
        windows = Windows((2, 3), (2, 1), (1, 1), "valid")

        def call(self, inputs):
            return inputs[:, 1::2, 2:] + inputs[:, :-1:2, :-2]

    model = functional(lambda x: layers.Conv2D(2, 3, name="end")(Windowed()(x)))
    assert receptive_field(model)[-1] == ReceptiveField("end", (6, 5), (2, 1), (0, 0))


def up(x):
    return layers.UpSampling2D(name="up")(x)


def uneven(x):
    return layers.Add(name="sum")([layers.Conv2D(2, 1, 2)(x), layers.Conv2D(2, (15, 17))(x)])


def shared_twice():
    shared = layers.Conv2D(2, 3, name="shared")
    return functional(lambda x: shared(shared(x)))


class Subclassed(keras.Model):
    """Applies its layers in Python."""

    def call(self, inputs):
        """Returns what it gets."""
        return inputs


def two_inputs():
    inputs = [keras.Input((8, 9, 2)), keras.Input((8, 9, 2))]
    return keras.Model(inputs, layers.Add()(inputs), name="two")


ERRORS = {
    "unknown": (
        lambda: receptive_field(functional(up)),
        (
            "receptive_field() has no rule for layer 'up' of class UpSampling2D. Give one: "
            "rules={its class: function of the layer that returns its ops.Windows, or None if it "
            "mixes all positions}."
        ),
    ),
    "uneven": (
        lambda: receptive_field(functional(uneven, (29, 32, 2))),
        (
            "Layer 'sum' joins branches whose positions are not equally far apart. Received: "
            "strides [1, 2] along spatial axis 0."
        ),
    ),
    "unknown size": (
        lambda: receptive_field(
            functional(layers.Conv2D(2, 3, 2, padding="same"), (None, None, 2))
        ),
        (
            "The padding of a strided window under padding='same' depends on the input's size, so "
            "that size must be known. Received: None. Give the input a static size."
        ),
    ),
    "subclassed": (
        lambda: receptive_field(Subclassed()),
        (
            "receptive_field() takes functional and Sequential models, whose layers it can see. "
            "Received: Subclassed, which says in Python what it does. Make it functional: "
            "keras.Model(inputs, outputs)."
        ),
    ),
    "not built": (
        lambda: receptive_field(keras.Sequential([layers.ReLU()], name="fresh")),
        (
            "What receptive_field() is given must be built. Received: 'fresh', which is not. Call "
            "it on inputs first, or its build(input_shape)."
        ),
    ),
    "two inputs": (
        lambda: receptive_field(two_inputs()),
        (
            "receptive_field() follows one input to one output. Received: model 'two' with 2 "
            "inputs and 1 outputs. Name a layer as `output`, or take a model of one input."
        ),
    ),
    "no positions": (
        lambda: receptive_field(functional(layers.Dense(2), (5,))),
        (
            "receptive_field() needs a model whose input has 1 to 3 spatial axes. Received: model "
            "'net' with an input of shape (None, 5)."
        ),
    ),
    "larger": (
        lambda: receptive_field(
            functional(ours.LocallyConnected2DTranspose(2, 3, 2, name="up"), (5, 4, 2))
        ),
        (
            "receptive_field() follows layers whose positions all read equally many inputs. Of a "
            "transposed convolution with strides above 1 some read more than others. Received: "
            "layer 'up' with strides=(2, 2). Name a layer before it as `output`."
        ),
    ),
    "no such layer": (
        lambda: receptive_field(functional(up), "down"),
        (
            "receptive_field() finds no layer 'down' between the inputs and outputs of model "
            "'net'. Received: a model with the layers 'up'. A layer of a model within it is named "
            "'model/layer'."
        ),
    ),
    "called twice": (
        lambda: receptive_field(shared_twice(), "shared"),
        (
            "Layer 'shared' has one output for each of its calls, so receptive_field() cannot "
            "tell which is meant. Received: model 'net', which calls it 2 times."
        ),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_followed_is_refused_in_words(case):
    act, text = ERRORS[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == text
