"""Conversions of whole models: what is converted, and that all else is kept."""

import re

import keras
import numpy as np
import pytest
from backends import assert_same_outputs, call, randomize, to_numpy
from keras import ops

from low_rank_local_connectivity import conversion, layers


def network():
    """A functional model with everything that a conversion has to keep."""
    inputs = keras.Input((12, 11, 3), name="image")
    x = keras.layers.Conv2D(5, 3, name="plain")(inputs)
    x = layers.LowRankLocallyConnected2D(5, 3, spatial_rank=3, padding="same", name="low_rank")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    shared = layers.LowRankLocallyConnected2D(5, 3, spatial_rank=2, padding="same", name="shared")
    x = shared(keras.ops.relu(x)) + shared(x)
    inner_input = keras.Input((10, 9, 5))
    inner = keras.Model(
        inner_input,
        layers.LowRankLocallyConnected2D(4, 3, spatial_rank=1, activation="tanh", name="one")(
            inner_input
        ),
        name="inner",
    )
    x = inner(x)
    x = keras.Sequential(
        [
            keras.Input((8, 7, 4)),
            layers.LowRankLocallyConnected2D(
                3, 3, spatial_rank=4, input_dependent=True, name="ask"
            ),
            keras.layers.Dropout(0.3, seed=1),
        ],
        name="sequence",
    )(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, [keras.layers.Dense(3, name="logits")(x), x], name="whole")


def test_a_whole_model_is_converted_and_otherwise_kept(rng):
    model = network()
    randomize(model, rng, 0.3)
    for layer in (model.get_layer("norm"), model.get_layer("inner").get_layer("one")):
        for weight in layer.weights:
            weight.assign(ops.abs(weight) + 0.5)
    model.get_layer("plain").trainable = False
    model.get_layer("shared").trainable = False
    found = conversion.convert(model)
    images = rng.normal(size=(3, 12, 11, 3)).astype("float32")
    for one, other in zip(model(images), found(images), strict=True):
        scale = np.abs(to_numpy(one)).max()
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), rtol=0, atol=2e-5 * scale)
    kinds = {layer.name: type(layer).__name__ for layer in found.layers}
    assert kinds["low_rank"] == kinds["shared"] == "LocallyConnected2D"
    assert not found.get_layer("shared").trainable
    assert not found.get_layer("plain").trainable
    assert found.name == "whole"
    inner = [type(layer).__name__ for layer in found.get_layer("inner").layers[1:]]
    assert inner == ["Conv2D", "SpatialBias", "Activation"]
    kept = found.get_layer("sequence").get_layer("ask")
    assert kept.input_dependent
    assert len(found.get_layer("shared")._inbound_nodes) == 2
    # The model itself is as it was.
    assert type(model.get_layer("low_rank")) is layers.LowRankLocallyConnected2D


def test_a_converted_model_can_be_saved_and_trained(rng, tmp_path):
    found = conversion.convert(network())
    found.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    images = rng.normal(size=(4, 12, 11, 3)).astype("float32")
    for one, other in zip(found(images), again(images), strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), atol=1e-5)


def u_net(data_format="channels_last"):
    """A U-Net that halves and doubles the image twice, with normalised steps."""
    k, options = keras.layers, {"padding": "same", "data_format": data_format}
    axis = -1 if data_format == "channels_last" else 1

    def step(x, filters, name, **more):
        x = k.Conv2D(filters, 3, use_bias=False, name=name, **options, **more)(x)
        return k.ReLU()(k.BatchNormalization(axis)(x))

    def doubled(x, skip, filters, size, name):
        x = k.Conv2DTranspose(filters, size, 2, name=name, **options)(x)
        x = k.ReLU()(k.BatchNormalization(axis)(x))
        return k.Concatenate(axis)([x, skip])

    image = keras.Input((8, 12, 3) if axis == -1 else (3, 8, 12))
    first = step(image, 4, "down_1")
    second = step(k.MaxPooling2D(data_format=data_format)(first), 5, "down_2")
    lowest = step(k.MaxPooling2D(data_format=data_format)(second), 6, "bottom")
    x = step(doubled(lowest, second, 5, 3, "up_2"), 5, "after_2")
    x = step(doubled(x, first, 4, 2, "up_1"), 4, "after_1")
    return keras.Model(image, k.Conv2D(2, 1, data_format=data_format, name="logits")(x))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_whole_u_net_is_relaxed_factorised_and_folded_exactly(data_format, rng):
    if data_format == "channels_first" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow pools no channels-first images on a CPU")
    model = u_net(data_format)
    randomize(model, rng, 0.3)
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(ops.abs(weight) + 0.5)

    def rule(layer):
        convolution = type(layer) in (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
        return conversion.from_convolution(layer, 3) if convolution else None

    relaxed = conversion.convert(model, rule, report=None)
    kinds = {layer.name: type(layer) for layer in relaxed.layers}
    assert kinds["up_1"] is kinds["up_2"] is layers.LowRankLocallyConnected2DTranspose
    assert kinds["down_1"] is layers.LowRankLocallyConnected2D
    shape = (2, *model.input_shape[1:])
    assert_same_outputs(model, relaxed, shape, rng, 1e-5)
    # Served, and with its normalisations in the filters.
    served = conversion.convert(relaxed, report=None)
    assert type(served.get_layer("up_1")) is layers.LocallyConnected2DTranspose
    folded = conversion.fold_batch_normalization(served, report=None)
    assert not [one for one in folded.layers if isinstance(one, keras.layers.BatchNormalization)]
    assert_same_outputs(relaxed, folded, shape, rng)


def test_what_tensorflow_cannot_compute_as_keras_s_own_is_served_as_it_is(rng):
    reports = []
    for options, kind in (
        ({"strides": 2}, "Conv2DTranspose"),
        ({"dilation_rate": 2}, "LowRankLocallyConnected2DTranspose"),
    ):
        layer = layers.LowRankLocallyConnected2DTranspose(4, 3, 1, name="up", **options)
        model = keras.Sequential([keras.Input((4, 5, 3)), layer])
        randomize(model, rng)
        found = conversion.convert(model, report=reports.append)
        assert type(found.layers[0]).__name__ == kind
        assert_same_outputs(model, found, (2, 4, 5, 3), rng)
    assert reports[1].left == {
        "up": "it is a convolution, and TensorFlow cannot compute Keras's own on a CPU"
    }


@pytest.mark.slow  # of another network of Keras, in test_applications.py
def test_the_last_convolutions_of_a_network_of_keras_can_be_relaxed(rng):
    model = keras.applications.ResNet50V2(weights=None, input_shape=(64, 64, 3), classes=10)

    def rule(layer):
        if type(layer) is keras.layers.Conv2D and layer.name.startswith("conv5"):
            return conversion.from_convolution(layer, 2) if layer.kernel_size == (3, 3) else None
        return None

    found = conversion.convert(model, rule)
    relaxed = [layer for layer in found.layers if hasattr(layer, "spatial_rank")]
    assert len(relaxed) == 3
    assert_same_outputs(model, found, (2, 64, 64, 3), rng, 1e-4)
    assert [layer.name for layer in found.layers] == [layer.name for layer in model.layers]


def by_frames(layer, shape, **options):
    frames = keras.Input((3, *shape))
    return keras.Model(
        frames, keras.layers.TimeDistributed(layer, name="frames", **options)(frames)
    )


def low_rank_sequence():
    return keras.Sequential(
        [
            layers.LowRankLocallyConnected2D(5, 3, spatial_rank=3, name="low_rank"),
            keras.layers.ReLU(name="relu"),
        ],
        name="block",
    )


WRAPPED = {
    "layer": (
        lambda: layers.LowRankLocallyConnected2D(5, 3, spatial_rank=3, name="low_rank"),
        ["LocallyConnected2D"],
        ["frames/low_rank"],
    ),
    "rank 1": (
        lambda: layers.LowRankLocallyConnected2D(5, 3, 1, activation="tanh", name="low_rank"),
        ["Conv2D", "SpatialBias", "Activation"],
        ["frames/low_rank"],
    ),
    "model": (low_rank_sequence, ["Sequential"], ["frames/block/low_rank"]),
    "wrapper": (
        lambda: keras.layers.TimeDistributed(
            layers.LowRankLocallyConnected1D(5, 3, spatial_rank=3, name="low_rank"), name="rows"
        ),
        ["TimeDistributed"],
        ["frames/rows/low_rank"],
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_low_rank_layers_within_time_distributed_are_converted(name, rng):
    make, kinds, paths = WRAPPED[name]
    model, reports = by_frames(make(), (8, 9, 2)), []
    randomize(model, rng)
    model.layers[1].trainable = False
    found = conversion.convert(model, report=reports.append)
    assert [type(layer.layer).__name__ for layer in found.layers[1:]] == kinds
    assert (list(reports[0].replaced), reports[0].left) == (paths, {})
    assert found.layers[1].name == "frames"
    assert not found.trainable_variables
    assert not any(hasattr(layer, "spatial_rank") for layer in found._flatten_layers())
    assert_same_outputs(model, found, (2, 3, 8, 9, 2), rng)


def test_a_layer_that_wrappers_share_stays_shared(rng):
    inner = layers.LowRankLocallyConnected2D(2, 3, spatial_rank=2, padding="same")
    frames = keras.Input((3, 8, 9, 2))
    x = keras.layers.TimeDistributed(inner, name="one")(frames)
    model = keras.Model(frames, keras.layers.TimeDistributed(inner, name="two")(x))
    randomize(model, rng)
    found = conversion.convert(model)
    assert found.get_layer("one").layer is found.get_layer("two").layer
    assert_same_outputs(model, found, (2, 3, 8, 9, 2), rng)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model that says in Python what it does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stages = [layers.LowRankLocallyConnected2D(2, 3, spatial_rank=2, name="hidden")]
        self.norm = keras.layers.BatchNormalization(name="norm")

    def call(self, inputs, training=None):
        """Applies them."""
        return self.norm(self.stages[0](inputs), training=training)


class Counted(keras.layers.Layer):
    """A layer that cannot be copied."""

    def __init__(self, owner, **kwargs):
        super().__init__(**kwargs)
        self.owner = owner

    def call(self, inputs):
        """Gives back the inputs."""
        return inputs


def partly_seen():
    """A model with a part that can be converted and three that cannot."""
    inputs = keras.Input((12, 11, 2))
    x = layers.LowRankLocallyConnected2D(2, 3, spatial_rank=2, name="seen")(inputs)
    x = Subclassed(name="within")(x)
    x = layers.LowRankLocallyConnected2D(2, 3, 2, input_dependent=True, name="asked")(x)
    x = layers.LowRankLocallyConnected2D(3, 3, 2, padding="same", name="last")(x)
    return keras.Model(inputs, x, name="whole")


def test_one_subclassed_model_does_not_keep_the_others_from_being_converted(rng, capsys):
    model, reports = partly_seen(), []
    randomize(model, rng)
    model.get_layer("within").trainable = False
    found = conversion.convert(model, report=reports.append)
    assert_same_outputs(model, found, (2, 12, 11, 2), rng, 1e-5)
    (report,) = reports
    assert list(report.replaced) == ["seen", "last"]
    assert report.left == {
        "within/hidden": "Subclassed applies it in Python, where it cannot be replaced",
        "asked": "its filters depend on the input",
    }
    copy = found.get_layer("within")
    assert copy is not model.get_layer("within")
    assert not copy.trainable
    assert not capsys.readouterr().out


def test_a_report_counts_the_bytes_before_and_after(capsys):
    layer = layers.LowRankLocallyConnected2D(5, 3, spatial_rank=4, name="this")
    model = keras.Sequential([keras.Input((38, 37, 2)), layer], name="small")
    reports = []
    conversion.convert(model, report=reports.append)
    assert isinstance(reports[0], conversion.ConversionReport)
    # Banks, row and column logits, row and column biases, biases; filters and biases per position.
    before = 9 * 2 * 4 * 5 + (36 + 35) * 4 + 36 + 35 + 5
    after = 36 * 35 * (9 * 2 * 5 + 5)
    assert reports[0].parameters == (before, after)
    assert reports[0].bytes == (4 * before, 4 * after)
    assert not capsys.readouterr().out
    conversion.convert(model)
    conversion.convert(model, conversion.for_serving, report=None)
    assert capsys.readouterr().out == (
        "convert() replaced 1 of 1 low-rank layers of 'small'.\n"
        "Its weights took 2.81 KB and take 467.58 KB.\n"
    )


def test_a_report_on_a_rule_of_the_callers_tells_what_was_out_of_its_sight():
    def rule(layer):
        return [] if layer.name == "seen" else None

    reports = []
    inputs = keras.Input((12, 11, 2))
    x = layers.LowRankLocallyConnected2D(2, 3, 2, padding="same", name="seen")(inputs)
    x = keras.layers.LSTM(3)(keras.layers.Reshape((-1, 2))(Subclassed(name="within")(x)))
    found = conversion.convert(keras.Model(inputs, x, name="whole"), rule, reports.append)
    assert "seen" not in [layer.name for layer in found.layers]
    assert str(reports[0]).splitlines()[0] == "convert() replaced 1 layers of 'whole'."
    assert list(reports[0].left) == ["within/hidden", "within/norm"]


def test_a_layer_that_cannot_be_copied_is_shared_with_a_warning(rng):
    inputs = keras.Input((8, 9, 2))
    x = layers.LowRankLocallyConnected2D(3, 3, spatial_rank=2, name="low_rank")(inputs)
    model = keras.Model(inputs, Counted(object(), name="counted")(x))
    sentence = (
        "Layer 'counted' of class Counted cannot be copied, so both models share it. Give the "
        "class a get_config() and a from_config()."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$"):
        found = conversion.convert(model)
    assert found.get_layer("counted") is model.get_layer("counted")
    assert_same_outputs(model, found, (2, 8, 9, 2), rng)


class Tripled(keras.Sequential):
    """A Sequential model with a call of its own."""

    def call(self, inputs, training=None, mask=None):
        """Triples the outputs."""
        return 3 * super().call(inputs, training=training, mask=mask)


def test_a_sequential_model_with_a_call_of_its_own_is_left(rng):
    inner = Tripled(
        [
            keras.Input((8, 9, 2)),
            layers.LowRankLocallyConnected2D(3, 3, spatial_rank=2, name="low_rank"),
        ],
        name="inner",
    )
    inputs = keras.Input((8, 9, 2))
    model, reports = keras.Model(inputs, inner(inputs)), []
    randomize(model, rng)
    found = conversion.convert(model, report=reports.append)
    assert list(reports[0].left) == ["inner/low_rank"]
    assert_same_outputs(model, found, (2, 8, 9, 2), rng)


def test_models_within_a_model_become_plain_too(rng):
    inner = keras.Sequential(
        [keras.Input((8, 9, 2)), layers.GroupLiftConv2D(3, 3), layers.GroupPooling2D()], name="in"
    )
    inputs = keras.Input((8, 9, 2))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inner(inputs)))
    plain = conversion.to_plain_convolutions(model)
    images = rng.normal(size=(2, 8, 9, 2)).astype("float32")
    np.testing.assert_allclose(call(plain, images), call(model, images), atol=1e-5)
    assert type(plain.get_layer("in").layers[0]) is keras.layers.Conv2D


def assert_relaxes_all(model, shape, rng):
    """Checks that a network whose convolutions are all relaxed starts as it was, and can depart."""
    relaxed = conversion.convert(model, conversion.relaxing(spatial_rank=3), report=None)
    inputs = rng.uniform(-1, 1, size=shape).astype("float32")
    expected, found = call(model, inputs), call(relaxed, inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    plain = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    left = [one for one in relaxed.layers if isinstance(one, plain) and max(one.kernel_size) > 1]
    assert not left
    return relaxed


def test_depthwise_separable_and_grouped_convolutions_are_relaxed_together(rng):
    steps = [
        keras.layers.Conv2D(4, 3, strides=2, padding="same"),
        keras.layers.DepthwiseConv2D(3, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(6, 1),
        keras.layers.Conv2D(6, 3, groups=3, padding="same", activation="relu"),
        keras.layers.SeparableConv2D(5, 3),
    ]
    model = keras.Sequential([keras.Input((13, 15, 3)), *steps])
    randomize(model, rng, scale=0.3)
    relaxed = assert_relaxes_all(model, (2, 13, 15, 3), rng)
    kinds = [type(layer).__name__ for layer in relaxed.layers]
    assert kinds == [
        "LowRankLocallyConnected2D",
        "DepthwiseLowRankLocallyConnected2D",
        "BatchNormalization",
        "Conv2D",
        "LowRankLocallyConnected2D",
        "SeparableLowRankLocallyConnected2D",
    ]
    served = conversion.fold_batch_normalization(
        conversion.convert(relaxed, report=None), report=None
    )
    inputs = rng.normal(size=(2, 13, 15, 3)).astype("float32")
    expected = call(relaxed, inputs)
    np.testing.assert_allclose(
        call(served, inputs), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )
    assert "DepthwiseLocallyConnected2D" in [type(layer).__name__ for layer in served.layers]


@pytest.mark.once
def test_a_network_for_images_of_any_width_is_relaxed_along_its_rows(rng):
    steps = [keras.layers.Conv2D(4, 3, padding="same"), keras.layers.DepthwiseConv2D(3)]
    model = keras.Sequential([keras.Input((9, None, 3)), *steps])
    randomize(model, rng)
    with pytest.raises(ValueError, match="leaving it out of `additive_axes`"):
        conversion.convert(model, conversion.relaxing(3), report=None)
    relaxed = conversion.convert(model, conversion.relaxing(3, additive_axes=(0,)), report=None)
    for width in (8, 11):
        images = rng.normal(size=(2, 9, width, 3)).astype("float32")
        expected = call(model, images)
        tolerance = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(call(relaxed, images), expected, rtol=0, atol=tolerance)
    with pytest.raises(ValueError, match=r"Received: additive_axes=\(3,\)"):
        conversion.relaxing(3, additive_axes=(3,))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ResNet50V2", "ConvNeXtTiny"])
def test_a_network_of_keras_applications_is_relaxed_as_a_whole(name, rng):
    make = getattr(keras.applications, name)
    model = make(weights=None, include_top=False, input_shape=(64, 64, 3), pooling="avg")
    assert_relaxes_all(model, (2, 64, 64, 3), rng)
