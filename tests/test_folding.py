"""Batch normalisation folded into its neighbours, against Keras's own batch normalisation."""

import keras
import numpy as np
import pytest
from backends import call, randomize, to_numpy
from keras import layers as k

from low_rank_local_connectivity import conversion, layers

IMAGE, SERIES, VOLUME = (9, 8, 4), (11, 4), (5, 6, 7, 4)
# A layer, and the shape that it reads.
NEIGHBOURS = {
    "Conv1D": (lambda **o: k.Conv1D(6, 3, **o), SERIES),
    "Conv2D": (lambda **o: k.Conv2D(6, (3, 2), strides=2, **o), IMAGE),
    "Conv2D in groups": (lambda **o: k.Conv2D(6, 3, groups=2, **o), IMAGE),
    "Conv3D": (lambda **o: k.Conv3D(6, 2, **o), VOLUME),
    "DepthwiseConv1D": (lambda **o: k.DepthwiseConv1D(3, depth_multiplier=3, **o), SERIES),
    "DepthwiseConv2D": (lambda **o: k.DepthwiseConv2D((3, 2), depth_multiplier=3, **o), IMAGE),
    "SeparableConv1D": (lambda **o: k.SeparableConv1D(6, 3, depth_multiplier=2, **o), SERIES),
    "SeparableConv2D": (lambda **o: k.SeparableConv2D(6, 3, depth_multiplier=2, **o), IMAGE),
    "Dense": (lambda **o: k.Dense(6, **o), IMAGE),
    "LocallyConnected1D": (lambda **o: layers.LocallyConnected1D(6, 3, **o), SERIES),
    "LocallyConnected2D": (lambda **o: layers.LocallyConnected2D(6, (3, 2), **o), IMAGE),
    "LocallyConnected2D in groups": (
        lambda **o: layers.LocallyConnected2D(6, (3, 2), groups=2, **o),
        IMAGE,
    ),
    "LocallyConnected2D in groups, channels first": (
        lambda **o: layers.LocallyConnected2D(
            6, (3, 2), groups=2, data_format="channels_first", **o
        ),
        (4, 9, 8),
    ),
    "LocallyConnected2D, channels first": (
        lambda **o: layers.LocallyConnected2D(6, (3, 2), data_format="channels_first", **o),
        (4, 9, 8),
    ),
    "DepthwiseLocallyConnected1D": (
        lambda **o: layers.DepthwiseLocallyConnected1D(3, depth_multiplier=3, **o),
        SERIES,
    ),
    "DepthwiseLocallyConnected2D": (
        lambda **o: layers.DepthwiseLocallyConnected2D((3, 2), **o),
        IMAGE,
    ),
    "DepthwiseLocallyConnected2D, channels first": (
        lambda **o: layers.DepthwiseLocallyConnected2D(
            (3, 2), depth_multiplier=3, data_format="channels_first", **o
        ),
        (4, 9, 8),
    ),
    "LocallyConnected3D": (lambda **o: layers.LocallyConnected3D(6, 2, **o), VOLUME),
}
# Those that pad by their nature, or look elsewhere: only what follows them can be folded.
FOLLOWED_ONLY = {
    "Conv1DTranspose": (lambda **o: k.Conv1DTranspose(6, 3, strides=2, **o), SERIES),
    "Conv2DTranspose": (lambda **o: k.Conv2DTranspose(6, 3, strides=2, **o), IMAGE),
    "Conv3DTranspose": (lambda **o: k.Conv3DTranspose(6, 2, **o), VOLUME),
    "LocallyConnected1DTranspose": (
        lambda **o: layers.LocallyConnected1DTranspose(6, 3, strides=2, **o),
        SERIES,
    ),
    "LocallyConnected2DTranspose, channels first": (
        lambda **o: layers.LocallyConnected2DTranspose(
            6, (3, 2), padding="same", data_format="channels_first", **o
        ),
        (4, 9, 8),
    ),
    "Conv1D, causal": (lambda **o: k.Conv1D(6, 3, padding="causal", **o), SERIES),
    "Conv2D, same": (lambda **o: k.Conv2D(6, 3, padding="same", **o), IMAGE),
    "FullConv1D": (lambda **o: layers.FullConv1D(6, 3, **o), SERIES),
    "FullConv2D": (
        lambda **o: layers.FullConv2D(6, 3, padding_value="background", **o),
        IMAGE,
    ),
    "DeformableConv2D": (lambda **o: layers.DeformableConv2D(6, 3, **o), IMAGE),
}


def folded(model):
    """Returns a model with its batch normalisations folded, and the report."""
    reports = []
    found = conversion.fold_batch_normalization(model, reports.append)
    return found, reports[0]


def assert_same_predictions(model, found, rng):
    inputs = rng.normal(size=(2, *model.input_shape[1:])).astype("float32")
    expected = call(model, inputs)
    np.testing.assert_allclose(
        call(found, inputs), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def norm_after(shape, name="norm", **options):
    return k.BatchNormalization(axis=1 if shape == (4, 9, 8) else -1, name=name, **options)


@pytest.mark.parametrize("use_bias", [True, pytest.param(False, marks=pytest.mark.once)])
@pytest.mark.parametrize("name", NEIGHBOURS | FOLLOWED_ONLY)
def test_the_layer_before_takes_it_up(name, use_bias, rng):
    make, shape = (NEIGHBOURS | FOLLOWED_ONLY)[name]
    norm = norm_after(shape, scale=use_bias, center=not use_bias)
    model = keras.Sequential([keras.Input(shape), make(use_bias=use_bias), norm, k.ReLU()])
    randomize(model, rng)
    found, report = folded(model)
    assert list(report.replaced) == ["norm"]
    assert len(found.layers) == 2
    assert_same_predictions(model, found, rng)


@pytest.mark.parametrize("use_bias", [True, pytest.param(False, marks=pytest.mark.once)])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_layer_after_takes_it_up(name, use_bias, rng):
    make, shape = NEIGHBOURS[name]
    norm, layer = norm_after(shape), make(use_bias=use_bias, activation="tanh")
    model = keras.Sequential([keras.Input(shape), k.ReLU(), norm, layer])
    randomize(model, rng)
    found, report = folded(model)
    assert list(report.replaced) == ["norm"]
    assert len(found.layers) == 2
    assert_same_predictions(model, found, rng)


def test_a_layer_takes_up_those_on_both_sides(rng):
    norms = [k.BatchNormalization(name=name) for name in ("one", "two")]
    model = keras.Sequential([keras.Input(IMAGE), norms[0], k.SeparableConv2D(6, 3), norms[1]])
    randomize(model, rng)
    found, report = folded(model)
    assert list(report.replaced) == ["one", "two"]
    assert [type(layer) for layer in found.layers] == [k.SeparableConv2D]
    assert_same_predictions(model, found, rng)


def test_a_pointwise_layer_takes_it_up_whatever_its_padding(rng):
    layer = k.Conv2D(6, 1, strides=2, padding="same")
    model = keras.Sequential([keras.Input(IMAGE), k.BatchNormalization(), layer])
    randomize(model, rng)
    found, _ = folded(model)
    assert len(found.layers) == 1
    assert_same_predictions(model, found, rng)


def test_wrapped_layers_take_up_wrapped_and_other_ones(rng):
    frames = keras.Input((3, *IMAGE))
    x = k.TimeDistributed(k.Conv2D(6, 3), name="first")(frames)
    x = k.TimeDistributed(k.BatchNormalization(name="inner"), name="norm")(x)
    x = k.BatchNormalization(name="outer")(k.TimeDistributed(k.Conv2D(5, 1), name="second")(x))
    block = keras.Sequential([k.DepthwiseConv2D(2), k.BatchNormalization(name="deep")], name="m")
    model = keras.Model(frames, k.TimeDistributed(block, name="block")(k.ReLU(name="relu")(x)))
    randomize(model, rng)
    found, report = folded(model)
    assert list(report.replaced) == ["norm/inner", "outer", "block/m/deep"]
    assert not report.left
    assert [layer.name for layer in found.layers[1:]] == ["first", "second", "relu", "block"]
    assert_same_predictions(model, found, rng)


def test_models_within_a_model_are_folded_once_however_often_they_are_called(rng):
    block = keras.Sequential(
        [keras.Input(IMAGE), k.Conv2D(4, 3, padding="same"), k.BatchNormalization(name="norm")],
        name="block",
    )
    image = keras.Input(IMAGE)
    model = keras.Model(image, block(k.ReLU()(block(image))))
    randomize(model, rng)
    found, report = folded(model)
    assert list(report.replaced) == ["block/norm"]
    assert_same_predictions(model, found, rng)


class Block(k.Layer):
    """A layer that applies others in Python."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = k.Conv2D(4, 3)
        self.norm = k.BatchNormalization(name="norm")

    def call(self, inputs):
        """Applies them."""
        return self.norm(self.convolution(inputs))


class Doubled(k.BatchNormalization):
    """A batch normalisation that computes something else."""

    def call(self, inputs, training=None, mask=None):
        """Doubles the result."""
        return 2 * super().call(inputs, training=training, mask=mask)


def of_shared(x):
    shared = k.Conv2D(4, 1, name="shared")
    return k.BatchNormalization(name="norm")(shared(k.ReLU()(shared(x))))


def of_two_readers(x):
    y = k.Conv2D(4, 1, name="conv")(x)
    return k.Add(name="sum")([k.BatchNormalization(name="norm")(y), y])


def of_an_output(x):
    y = k.Conv2D(4, 1, name="conv")(x)
    return [y, k.BatchNormalization(name="norm")(y)]


def to_an_output(x):
    y = k.BatchNormalization(name="norm")(k.ReLU(name="relu")(x))
    return [y, k.Conv2D(4, 1, name="conv")(y)]


def called_twice(x):
    norm = k.BatchNormalization(name="norm")
    return norm(k.Conv2D(4, 1)(norm(k.Conv2D(4, 1)(x))))


def between(before, after=None, **options):
    def make(x):
        x = k.BatchNormalization(name="norm", **options)(before(x))
        return x if after is None else after(x)

    return make


OUTPUT = ", and its result is an output or read by several layers"
READ_BY, CANNOT = "and its result is read by", "which cannot take it up"
READS_RELU = f"it reads 'relu' (ReLU), {CANNOT}, {READ_BY} 'conv' "
LEFT = {
    "activation": (
        between(k.Conv2D(4, 1, activation="relu", name="conv")),
        "it reads 'conv' (Conv2D), which has an activation" + OUTPUT,
    ),
    "pooling": (
        between(k.MaxPooling2D(name="pool")),
        "it reads 'pool' (MaxPooling2D), which cannot take it up" + OUTPUT,
    ),
    "other axis": (
        between(k.Conv2D(4, 1, name="conv"), axis=1),
        "it normalises another axis than that of the channels of 'conv' (Conv2D)" + OUTPUT,
    ),
    "padding": (
        between(k.ReLU(name="relu"), k.Conv2D(4, 3, padding="same", name="conv")),
        READS_RELU + "(Conv2D), which pads it with zeros",
    ),
    "transposed": (
        between(k.ReLU(name="relu"), k.Conv2DTranspose(4, 3, name="conv")),
        READS_RELU + "(Conv2DTranspose), which cannot take it up",
    ),
    "first": (
        k.BatchNormalization(name="norm"),
        "it reads an input of the model" + OUTPUT,
    ),
    "shared": (of_shared, "it is not alone in reading 'shared' (Conv2D)" + OUTPUT),
    "two readers": (
        of_two_readers,
        f"it is not alone in reading 'conv' (Conv2D), {READ_BY} 'sum' (Add), {CANNOT}",
    ),
    "of an output": (of_an_output, "it is not alone in reading 'conv' (Conv2D)" + OUTPUT),
    "to an output": (
        to_an_output,
        "it reads 'relu' (ReLU), which cannot take it up" + OUTPUT,
    ),
    "called twice": (called_twice, "it is called more than once"),
    "in training": (
        lambda x: k.BatchNormalization(name="norm")(k.Conv2D(4, 1)(x), training=True),
        "it is called with training=True, for the statistics of the batch",
    ),
    "model in training": (
        lambda x: keras.Sequential(
            [keras.Input(IMAGE), k.Conv2D(4, 1), k.BatchNormalization(name="norm")], name="in"
        )(x, training=True),
        "it is called with training=True, for the statistics of the batch",
    ),
    "subclass": (
        lambda x: Doubled(name="norm")(k.Conv2D(4, 1)(x)),
        "a Doubled may compute something else",
    ),
    "subclass before": (
        between(type("Mine", (k.Conv2D,), {})(4, 1, name="conv")),
        "it reads 'conv' (Mine), which cannot take it up" + OUTPUT,
    ),
    "out of sight": (
        Block(name="block"),
        "Block applies it in Python, where it cannot be replaced",
    ),
    "time is the axis": (
        lambda x: k.BatchNormalization(axis=1, name="norm")(
            k.TimeDistributed(
                layers.LocallyConnected1D(4, 1, data_format="channels_first", name="local")
            )(x)
        ),
        "it normalises another axis than that of the channels of 'local' (LocallyConnected1D)"
        + OUTPUT,
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_folded_is_left_and_the_report_says_why(name, rng):
    make, reason = LEFT[name]
    image = keras.Input(IMAGE)
    model = keras.Model(image, make(image))
    randomize(model, rng)
    found, report = folded(model)
    assert list(report.left.values()) == [reason]
    assert not report.replaced
    assert_same_predictions(model, found, rng)


@pytest.mark.once
def test_every_batch_normalization_of_a_mobilenet_is_folded(rng):
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=5, classifier_activation=None
    )
    for weight in model.weights:
        if weight.name in ("moving_mean", "moving_variance", "beta", "gamma"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    found, report = folded(model)
    assert (len(report.replaced), len(report.left)) == (52, 0)
    assert_same_predictions(model, found, rng)


def test_a_normalisation_of_all_levels_of_a_pyramid_is_left(rng):
    inputs = keras.Input((16, 13, 1))
    levels = layers.ScaleConv2D(3, 2)(layers.ScaleSpaceLifting2D(2, pyramid=True)(inputs))
    model = keras.Model(inputs, layers.OverLevels(k.BatchNormalization())(levels))
    randomize(model, rng)
    images = rng.normal(size=(2, 16, 13, 1)).astype("float32")
    folded = conversion.fold_batch_normalization(model, report=None)
    for found, expected in zip(folded(images), model(images), strict=True):
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-5, atol=1e-5)
