# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Networks of turned filters: their invariance, their size, and what a server gets."""

import keras
import numpy as np
import pytest
from backends import EAGER, call, randomize, to_numpy

from benchmarks.undrawn import without_values
from low_rank_local_connectivity import conversion, layers
from low_rank_local_connectivity.export import export_model
from low_rank_local_connectivity.inspection import layer_costs, total_cost
from low_rank_local_connectivity.models import MODELS
from low_rank_local_connectivity.models.group_network import group_filters, group_network, halve
from low_rank_local_connectivity.models.group_resnet import group_resnet

NETWORKS = {
    "small": (group_network, (28, 28, 2), {}),
    "small, odd halvings": (group_network, (22, 22, 2), {"filters": 16, "kernel_size": 5}),
    "small, two orientations": (group_network, (13, 18, 2), {"filters": 16, "order": 2}),
    "residual": (group_resnet, (35, 35, 2), {}),
}


def made(name, rng):
    """A network with weights and statistics as training might leave them."""
    build, shape, arguments = NETWORKS[name]
    model = build(shape, 7, **arguments)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            randomize(layer, rng)
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
    return model, rng.normal(size=(3, *shape)).astype("float32")


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_stay_when_the_image_is_turned(name, rng):
    model, images = made(name, rng)
    steps = (0, 1, 2, 3) if images.shape[1] == images.shape[2] else (0, 2)
    # In one batch, since compiling for each takes longer.
    batch = np.concatenate([np.rot90(images, turns, axes=(1, 2)) for turns in steps])
    logits, *others = np.split(call(model, batch), len(steps))
    assert np.abs(logits - logits[::-1]).max() > 1e-3 * np.abs(logits).max()
    for found in others:
        np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5 * np.abs(logits).max())


@pytest.mark.once
def test_with_reflections_logits_stay_when_the_image_is_mirrored(rng):
    arguments = {"filters": 16, "order": 2, "reflections": True, "basis": "steerable"}
    model = group_network((13, 14, 2), 7, **arguments)
    images = rng.normal(size=(3, 13, 14, 2)).astype("float32")
    batch = [images, images[:, :, ::-1], images[:, ::-1]]
    logits, *others = np.split(call(model, np.concatenate(batch)), 3)
    for found in others:
        np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert model.get_layer("layer_1").filters == 8


@pytest.mark.once
def test_parameters_are_about_those_of_plain_networks():
    assert group_network((28, 28, 1), 10).count_params() == (
        9 * 32 + 2 * 9 * 4 * 32 * 32 + 3 * 4 * 32 + 32 * 10 + 10
    )
    with without_values():
        plain, turned = (
            MODELS[f"{kind}resnet18"].build((32, 32, 3), 1000) for kind in ("", "group_")
        )
    assert turned.count_params() == pytest.approx(plain.count_params(), rel=0.03)
    assert {layer.name for layer in turned.layers} > {
        layer.name for layer in plain.layers if layer.name not in ("conv3_block1_shortcut",)
    }
    assert [group_filters(64, order) for order in (1, 4, 16)] == [64, 32, 16]


@pytest.mark.once
@pytest.mark.parametrize("image_shape", [(28, 28, 1), (16, 16, 3), (42, 42, 1), (9, 13, 2)])
def test_every_network_s_maps_are_halved_whatever_the_size(image_shape):
    model = group_network(image_shape, 5, filters=8)
    sizes = [model.get_layer(f"layer_{index}").output.shape[1:3] for index in (1, 2, 3)]
    height, width, _ = image_shape
    assert sizes == [(-(-height // step), -(-width // step)) for step in (1, 2, 4)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plain_network_computes_the_same(name, rng):
    model, images = made(name, rng)
    plain = conversion.to_plain_convolutions(model)
    folded = conversion.fold_batch_normalization(plain)
    logits = call(model, images)
    for found in (plain, folded):
        outputs = call(found, images)
        np.testing.assert_allclose(outputs, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
        for layer in found.layers:
            assert type(layer).__module__.startswith("keras."), layer
    kinds = {type(layer).__name__ for layer in folded.layers}
    assert not kinds & {"BatchNormalization", "MaxPooling3D", "AveragePooling3D"}
    assert plain.count_params() > model.count_params()


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_a_plain_network_keeps_its_data_format(mode, rng):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's convolutions on a CPU are channels-last")
    first = {"data_format": "channels_first"}
    inputs = keras.Input((2, 8, 10))
    x = layers.GroupLiftConv2D(3, 3, activation="relu", **first)(inputs)
    x = layers.GroupBatchNormalization(**first)(x)
    x = keras.layers.MaxPooling3D((1, 2, 2), **first)(x)
    y = layers.GroupConv2D(3, 3, padding="same", **first)(x)
    x = keras.layers.Activation("tanh")(keras.layers.Dropout(0.5)(y)) + x
    model = keras.Model(inputs, layers.GroupPooling2D(mode, **first)(x))
    randomize(model, rng)
    images = rng.normal(size=(2, 2, 8, 10)).astype("float32")
    plain = conversion.to_plain_convolutions(model)
    np.testing.assert_allclose(call(plain, images), call(model, images), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="written on TensorFlow")
def test_a_server_gets_the_plain_network(rng, tmp_path):
    model, images = made("small, odd halvings", rng)
    manifest = export_model(model, tmp_path / "served", sample=images)
    assert manifest["form"] == "converted"
    assert manifest["formats"]["tf_saved_model"]["difference"] < 1e-5
    assert manifest["parameters"]["served"] > manifest["parameters"]["model"]
    assert export_model(model, tmp_path / "as it is", convert=False)["form"] == "unconverted"


@pytest.mark.once
def test_operations_are_those_of_the_plain_network():
    model = group_network((28, 28, 1), 10, filters=8)
    plain = conversion.to_plain_convolutions(model)
    until = keras.Model(plain.inputs, plain.get_layer("relu_3").output)
    costs = {cost.name: cost.flops for cost in layer_costs(model)}
    for cost in layer_costs(until):
        assert costs[cost.name] == cost.flops, cost.name
    assert costs["group_pooling"] == 7 * 7 * 4 * 4
    assert total_cost(model).parameters == sum(
        int(np.prod(weight.shape)) for weight in model.trainable_weights
    )


@pytest.mark.once
def test_every_weight_moves_in_a_step(rng):
    model = group_network((17, 17, 3), 5, weight_decay=1e-3)
    before = [to_numpy(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=EAGER)
    images = rng.normal(size=(4, 17, 17, 3)).astype("float32")
    model.fit(images, rng.normal(size=(4, 5)).astype("float32"), verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(to_numpy(weight) - old).max() > 0, weight.path


def to_plain(*stack, shape=(8, 9, 2)):
    return conversion.to_plain_convolutions(keras.Sequential([keras.Input(shape), *stack]))


def with_operation():
    inputs = keras.Input((8, 9, 2))
    maps = layers.GroupLiftConv2D(3, 3, name="lift")(inputs)
    return conversion.to_plain_convolutions(keras.Model(inputs, keras.ops.max(maps, axis=3)))


UNKNOWN = "to_plain_convolutions() must know what a layer does with maps that have orientations. Received: {} of class {}. Put it after a GroupPooling2D, or serve the model as it is."
REFUSED = {
    "layer": (
        lambda: to_plain(
            layers.GroupLiftConv2D(3, 3),
            keras.layers.Dense(4, name="dense"),
            layers.GroupPooling2D(),
        ),
        UNKNOWN.format("'dense'", "Dense"),
    ),
    "activation": (
        lambda: to_plain(
            layers.GroupLiftConv2D(3, 3),
            keras.layers.Activation("softmax", name="softmax"),
            layers.GroupPooling2D(),
        ),
        UNKNOWN.format("'softmax'", "Activation"),
    ),
    "pooling": (
        lambda: to_plain(
            layers.GroupLiftConv2D(3, 3),
            keras.layers.MaxPooling3D((1, 1, 4), name="pool"),
            keras.layers.Reshape((6, 7, 3)),
        ),
        UNKNOWN.format("'pool'", "MaxPooling3D"),
    ),
    "operation": (with_operation, UNKNOWN.format("'max'", "Max")),
    "outputs": (
        lambda: to_plain(layers.GroupLiftConv2D(3, 3)),
        "to_plain_convolutions() keeps a model's inputs and outputs, which must not have orientations. Received: model 'sequential' with a tensor of shape (None, 6, 7, 4, 3). End it with a GroupPooling2D.",
    ),
    "unknown size": (
        lambda: to_plain(
            layers.GroupLiftConv2D(3, 3), layers.GroupPooling2D(name="pool"), shape=(None, 9, 2)
        ),
        "to_plain_convolutions() reshapes maps where they are pooled over orientations, so their size must be known. Received: layer 'pool', which reads maps of shape (None, None, 7, 4, 3). Give keras.Input a static size.",
    ),
    "depth": (
        lambda: group_resnet((32, 32, 3), 5, depth=50),
        "`depth` must be one of 18, 34. Received: depth=50. Choose one of these.",
    ),
    "sides": (
        lambda: group_resnet((32, 33, 3), 5),
        "Height and width of the images must both be even or both be odd, so that the first layer's windows fall on the same pixels of turned images. Received: image_shape=(32, 33, 3). Pad the images to a square.",
    ),
    "kernel size": (
        lambda: group_network((28, 28, 1), 5, kernel_size=4),
        "padding='same' would put one element more at one side of the image than at the other, and turned images would not give turned maps, unless a filter's extent, dilation_rate * (kernel_size - 1) + 1, is odd. Received: kernel_size=(4, 4) and dilation_rate=(1, 1). Use an odd kernel_size, or padding='valid'.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(case):
    keras.utils.clear_session(free_memory=False)
    act, sentence = REFUSED[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (2, 5)])
def test_maps_of_any_size_are_halved_by_the_means_of_what_their_windows_hold(size, rng):
    maps = rng.normal(size=(2, *size, 4, 3)).astype("float32")
    expected = np.stack(
        [
            np.stack([maps[:, rows][:, :, columns].mean((1, 2)) for columns in windows(size[1])], 1)
            for rows in windows(size[0])
        ],
        1,
    )
    found = to_numpy(halve(keras.ops.convert_to_tensor(maps), "halving"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def windows(size):
    """Pairs of an even number of positions; of an odd one, three around every second."""
    if size % 2 == 0:
        return [slice(at, at + 2) for at in range(0, size, 2)]
    return [slice(max(at - 1, 0), at + 2) for at in range(0, size, 2)]
