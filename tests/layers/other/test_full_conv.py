"""Full convolutions, and networks of them that cannot tell where anything is."""

import keras
import numpy as np
import pytest
from backends import WITHOUT_XLA, call, randomize, to_numpy
from scipy.signal import correlate

from low_rank_local_connectivity import FullConv1D, FullConv2D, FullConv3D, WithBackground

SHAPES = {1: (2, 13, 4), 2: (2, 8, 11, 4), 3: (2, 5, 7, 6, 3)}
KERNELS = {1: 5, 2: (3, 2), 3: (2, 1, 3)}
LAYERS = {1: FullConv1D, 2: FullConv2D, 3: FullConv3D}


def zero_stuffed(kernel, rates):
    """A kernel with zeros between its taps."""
    shape = [(size - 1) * rate + 1 for size, rate in zip(kernel.shape, rates, strict=False)]
    stuffed = np.zeros((*shape, *kernel.shape[-2:]))
    stuffed[tuple(slice(None, None, rate) for rate in rates)] = kernel
    return stuffed


def by_scipy(inputs, kernel, strides):
    """Full correlation of every channel with every filter, then every s-th value."""
    per_channel = [
        np.stack(
            [
                [correlate(image[..., c], kernel[..., c, f], "full", "direct") for image in inputs]
                for f in range(kernel.shape[-1])
            ],
            axis=-1,
        )
        for c in range(kernel.shape[-2])
    ]
    steps = (slice(None, None, stride) for stride in strides)
    return np.sum(per_channel, axis=0)[(slice(None), *steps)]


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("strides", "dilation_rate"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_equals_the_full_correlation_of_scipy(dimensions, strides, dilation_rate, rng):
    arguments = {"strides": strides, "dilation_rate": dilation_rate, "use_bias": True}
    layer = LAYERS[dimensions](6, KERNELS[dimensions], **arguments)
    inputs = rng.normal(size=SHAPES[dimensions]).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    # correlate(a, v) flips nothing but conjugates; the second argument's taps run as ours do.
    kernel = zero_stuffed(to_numpy(layer.kernel).astype("float64"), layer.dilation_rate)
    expected = by_scipy(inputs.astype("float64"), kernel, layer.strides) + to_numpy(layer.bias)
    outputs = call(layer, inputs)
    assert outputs.shape == layer.compute_output_shape(inputs.shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=2e-6)


def test_channels_first_is_the_transpose(rng):
    inputs = rng.normal(size=SHAPES[2]).astype("float32")
    last, first = FullConv2D(6, (3, 2)), FullConv2D(6, (3, 2), data_format="channels_first")
    last.build(inputs.shape)
    first.build(np.moveaxis(inputs, -1, 1).shape)
    first.set_weights(last.get_weights())
    outputs = np.moveaxis(to_numpy(first(np.moveaxis(inputs, -1, 1))), 1, -1)
    np.testing.assert_allclose(outputs, to_numpy(last(inputs)), rtol=1e-5, atol=1e-5)


def network(layer, **arguments):
    """Three layers, of total stride 2, and global max-pooling."""
    return keras.Sequential(
        [
            layer(6, 3, activation="relu", **arguments),
            layer(5, 3, strides=2, activation="relu", **arguments),
            layer(7, 2, activation="relu", **arguments),
        ]
    )


def pooled_at_every_place(body, rng, step=2, value=0.0):
    """The pooled features of an object at every place of a canvas that `step` reaches."""
    thing = rng.normal(size=(4, 5, 2)).astype("float32") + value
    places = [(row, column) for row in range(0, 9, step) for column in range(0, 11, step)]
    images = np.full((len(places), 13, 16, 2), value, "float32")
    for image, (row, column) in zip(images, places, strict=True):
        image[row : row + 4, column : column + 5] = thing
    features = body(images)
    return to_numpy(keras.ops.max(features, axis=(1, 2)))


def spread(features):
    """How far features of the same object are apart."""
    return float((features.max(axis=0) - features.min(axis=0)).max())


def test_zero_preserving_full_convolutions_pool_to_the_same_wherever_an_object_is(rng):
    body = network(FullConv2D)
    body.build((None, 13, 16, 2))
    randomize(body, rng)
    assert spread(pooled_at_every_place(body, rng)) < 1e-6


def test_same_padding_does_not(rng):
    body = network(keras.layers.Conv2D, padding="same", use_bias=False)
    body.build((None, 13, 16, 2))
    randomize(body, rng)
    assert spread(pooled_at_every_place(body, rng)) > 0.1


def with_biases(padding_value, value=0.0):
    """Full convolutions with biases and batch normalisation between them."""
    arguments = {"use_bias": True, "padding_value": padding_value}
    return WithBackground(
        keras.Sequential(
            [
                FullConv2D(6, 3, activation="sigmoid", **arguments),
                FullConv2D(5, 3, strides=2, **arguments),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                FullConv2D(7, 2, **arguments),
            ]
        ),
        value,
    )


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_background_padding_restores_it_with_biases_and_normalisation(value, rng):
    for padding_value in ("background", "zeros"):
        body = with_biases(padding_value, value)
        body.build((None, 13, 16, 2))
        randomize(body, rng)
        body.layer.layers[2].moving_variance.assign(np.full(5, 0.5))
        found = spread(pooled_at_every_place(body, rng, value=value))
        assert (found < 1e-5) == (padding_value == "background")


def test_background_padding_equals_padding_with_the_background(rng):
    background = rng.normal(size=4).astype("float32")
    plain = FullConv2D(6, 3, use_bias=True)
    body = WithBackground(
        FullConv2D(6, 3, use_bias=True, padding_value="background"), background.tolist()
    )
    inputs = rng.normal(size=SHAPES[2]).astype("float32")
    body.build(inputs.shape)
    randomize(body, rng)
    plain.build(inputs.shape)
    plain.set_weights(body.layer.get_weights())
    padded = np.empty((2, 12, 15, 4), "float32")
    padded[:] = background
    padded[:, 2:-2, 2:-2] = inputs
    expected = call(plain, padded)[:, 2:-2, 2:-2]
    np.testing.assert_allclose(to_numpy(body(inputs)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_a_model_with_a_background_trains_and_is_saved(tmp_path, rng):
    inputs = keras.Input((13, 16, 2))
    x = keras.layers.GlobalMaxPooling2D()(with_biases("background", [0.5, -1.0])(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **WITHOUT_XLA
    )
    images = rng.normal(size=(8, 13, 16, 2)).astype("float32")
    model.fit(images, np.arange(8) % 3, epochs=2, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[1].value == [0.5, -1.0]
    np.testing.assert_allclose(
        again.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-5, atol=1e-6
    )


PADDING = "`padding_value` must be one of 'zeros', 'background'. Received: padding_value='ones'."
FILTERS = "`filters` must be an integer of at least 1. Received: filters=0."
ERRORS = {
    "padding value": ({"padding_value": "ones"}, PADDING),
    "filters": ({"filters": 0}, FILTERS),
}


@pytest.mark.once
@pytest.mark.parametrize("what", ERRORS)
def test_what_cannot_be_is_refused_in_a_sentence(what):
    changes, sentence = ERRORS[what]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        FullConv2D(**{"filters": 4, "kernel_size": 3, **changes})
    assert str(error.value) == sentence
