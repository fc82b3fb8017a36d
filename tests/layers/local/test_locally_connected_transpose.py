# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Transposed locally connected layers: adjoints, with filters of their own at input positions."""

import itertools

import keras
import numpy as np
import pytest
import reference
from backends import call, compute, outputs_and_gradients, randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.ops import TransposedWindows, local_convolution_transpose
from low_rank_local_connectivity.ops.local_convolution_transpose import written_rows

BACKEND = keras.backend.backend()
INPUTS = {1: (2, 7, 4), 2: (2, 4, 5, 3), 3: (2, 3, 4, 5, 6)}
FILTERS = {1: 3, 2: 7, 3: 8}
# Kernel sizes, strides, dilation rates, padding and output padding of every kind.
SETTINGS = {
    "valid": (1, {"kernel_size": 3}),
    "taps less than the stride": (1, {"kernel_size": 2, "strides": 3}),
    "valid with output padding": (1, {"kernel_size": 3, "strides": 3, "output_padding": 2}),
    "same": (2, {"kernel_size": (3, 2), "padding": "same"}),
    "strides": (2, {"kernel_size": (3, 4), "strides": (2, 3), "padding": "same"}),
    "strides of even taps": (2, {"kernel_size": 4, "strides": 2, "padding": "same"}),
    "output padding": (
        2,
        {"kernel_size": (3, 5), "strides": (2, 3), "padding": "same", "output_padding": (1, 0)},
    ),
    "dilation": (2, {"kernel_size": (3, 2), "dilation_rate": (1, 3)}),
    "dilation of same": (2, {"kernel_size": (3, 2), "dilation_rate": (2, 1), "padding": "same"}),
    "volumes": (3, {"kernel_size": (2, 1, 3), "strides": (1, 2, 1), "padding": "same"}),
}
every_setting = pytest.mark.parametrize("name", SETTINGS)


def built(setting, rng, **changes):
    """A layer of these settings with random weights, and inputs for it, channels last."""
    dimensions, arguments = SETTINGS[setting]
    kind = getattr(layers, f"LocallyConnected{dimensions}DTranspose")
    layer = kind(FILTERS[dimensions], **arguments, **changes)
    inputs = rng.normal(size=INPUTS[dimensions]).astype("float32")
    first = layer.data_format == "channels_first"
    layer.build(np.moveaxis(inputs, -1, 1).shape if first else inputs.shape)
    randomize(layer, rng)
    return layer, inputs


def keras_layer(name, **changes):
    dimensions, arguments = SETTINGS[name]
    kind = getattr(keras.layers, f"Conv{dimensions}DTranspose")
    return kind(FILTERS[dimensions], **arguments, **changes)


@every_setting
def test_outputs_are_those_of_the_definition(name, rng):
    layer, inputs = built(name, rng)
    sizes = keras_layer(name).compute_output_shape(inputs.shape)[1:-1]
    kernel = to_numpy(layer.local_kernel())
    settings = (layer.strides, layer.dilation_rate, layer.padding)
    expected = reference.local_convolution_transpose(inputs, kernel, *settings, sizes)
    np.testing.assert_allclose(
        call(layer, inputs), expected + to_numpy(layer.bias), rtol=1e-5, atol=1e-5
    )


@every_setting
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_it_is_the_adjoint_of_the_locally_connected_layer_of_the_same_kernel(
    name, data_format, rng
):
    layer, inputs = built(name, rng, use_bias=False, data_format=data_format)
    first = data_format == "channels_first"
    inputs = np.moveaxis(inputs, -1, 1) if first else inputs
    spread = call(layer, inputs)
    adjoint = getattr(layers, f"LocallyConnected{layer.dimensions}D")(
        layer.input_channels,
        layer.kernel_size,
        layer.strides,
        layer.padding,
        data_format,
        use_bias=False,
        dilation_rate=layer.dilation_rate,
    )
    adjoint.build(spread.shape)
    adjoint.set_weights([layer.kernel])
    others = rng.normal(size=spread.shape).astype("float32")
    read = call(adjoint, others)
    assert read.shape == inputs.shape
    scale = float(np.linalg.norm(spread) * np.linalg.norm(others))
    assert (spread * others).sum() == pytest.approx((inputs * read).sum(), abs=1e-6 * scale)


@every_setting
def test_filters_that_positions_share_are_keras_s_transposed_convolution(name, rng):
    layer, inputs = built(name, rng, activation="tanh")
    theirs = keras_layer(name, activation="tanh")
    theirs.build(inputs.shape)
    randomize(theirs, rng)
    flat = to_numpy(theirs.kernel).reshape(1, *layer.kernel.shape[1:])
    bias = np.broadcast_to(to_numpy(theirs.bias), layer.bias.shape)
    layer.set_weights([np.repeat(flat, layer.kernel.shape[0], 0), bias])
    if BACKEND == "tensorflow" and max(theirs.dilation_rate) > 1:
        pytest.skip("TensorFlow cannot compute Keras's dilated transposed convolution on a CPU")
    np.testing.assert_allclose(call(layer, inputs), call(theirs, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.once
def test_output_sizes_are_keras_s():
    for size, stride, dilation, padding in itertools.product(
        range(1, 6), range(1, 4), range(1, 4), ("valid", "same")
    ):
        if stride > 1 and dilation > 1:
            continue
        for extra in (None, *range(stride)):
            settings = ((stride,), padding, None if extra is None else (extra,))
            theirs = keras.layers.Conv1DTranspose(1, size, *settings, "channels_last", (dilation,))
            windows = TransposedWindows((size,), (stride,), (dilation,), *settings[1:])
            for length in (1, 2, 6):
                expected = theirs.compute_output_shape((None, length, 1))[1]
                assert windows.output_shape((length,)) == (expected,)
                # All that windows write has room for as many as there are inputs.
                assert windows.whole.output_shape(windows.whole_shape((length,))) == (length,)


@pytest.mark.parametrize("training", [False, True])
def test_filters_in_slabs_and_whole_give_the_same_numbers_and_gradients(training, rng):
    windows = TransposedWindows((3, 2), (1, 1), (1, 1), "same")
    filters = 70  # 140 numbers through two taps of the other axis
    inputs = rng.normal(size=(2, 4, 5, 3)).astype("float32")
    kernel = rng.normal(size=(20, 6 * filters, 3)).astype("float32")
    assert len(written_rows(windows, (4, 5), filters)) == 3
    found = compute(
        lambda x, k: local_convolution_transpose(x, k, windows, training), inputs, kernel
    )
    settings = (windows.strides, windows.dilations, windows.padding)
    expected = reference.local_convolution_transpose(
        inputs, kernel.reshape(4, 5, 3, 2, filters, 3), *settings, (4, 5)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    layer = layers.LocallyConnected2DTranspose(filters, (3, 2), padding="same", use_bias=False)
    layer.build(inputs.shape)
    layer.set_weights([kernel])
    projection = rng.normal(size=expected.shape).astype("float32")
    _, (for_inputs, for_kernel) = outputs_and_gradients(
        layer, inputs, projection, training=training
    )
    assert np.vdot(for_inputs, inputs) == pytest.approx(np.vdot(projection, expected), rel=1e-3)
    index = (7, 100, 1)
    moved = np.zeros_like(kernel)
    moved[index] = 1
    slope = reference.local_convolution_transpose(
        inputs, moved.reshape(4, 5, 3, 2, filters, 3), *settings, (4, 5)
    )
    assert for_kernel[index] == pytest.approx(np.vdot(slope, projection), rel=1e-3)


def test_positions_differ_and_are_drawn_as_keras_draws_its_kernel():
    keras.utils.set_random_seed(1)
    layer = layers.LocallyConnected2DTranspose(20, 3, data_format="channels_first")
    layer.build((None, 30, 5, 6))
    theirs = keras.layers.Conv2DTranspose(20, 3)
    theirs.build((None, 5, 6, 30))
    kernel = to_numpy(layer.kernel)
    assert kernel.std() == pytest.approx(to_numpy(theirs.kernel).std(), rel=0.05)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1 * kernel.std()


ERRORS = {
    "output padding": (
        lambda: layers.LocallyConnected2DTranspose(4, 3, 2, output_padding=(1, 2)),
        (
            "`output_padding` must be less than the stride along every axis. Received: "
            "output_padding=(1, 2) with strides=(2, 2)."
        ),
    ),
    "negative output padding": (
        lambda: layers.LocallyConnected1DTranspose(4, 3, 2, output_padding=-1),
        (
            "`output_padding` must be an integer of at least 0, or a tuple of 1 of them. Received: "
            "output_padding=-1."
        ),
    ),
    "padding": (
        lambda: layers.LocallyConnected1DTranspose(4, 3, padding="causal"),
        "`padding` must be one of 'valid', 'same'. Received: padding='causal'.",
    ),
    "strides and dilation": (
        lambda: layers.LocallyConnected1DTranspose(4, 3, strides=2, dilation_rate=2),
        (
            "`strides` above 1 cannot be combined with a `dilation_rate` above 1 in a transposed "
            "layer, as in Keras's. Received: strides=(2,) and dilation_rate=(2,). Set one of them "
            "to 1."
        ),
    ),
    "unknown size": (
        lambda: layers.LocallyConnected2DTranspose(4, 3).build((None, 5, None, 3)),
        (
            "Every input position of a LocallyConnected2DTranspose layer has filters of its own, so "
            "the spatial size of its input must be known. Received: input_shape=(None, 5, None, 3). "
            "Give keras.Input a static size."
        ),
    ),
    "no elements": (
        lambda: layers.LocallyConnected1DTranspose(4, 3, name="up").build((None, 0, 3)),
        (
            "The inputs and outputs of layer 'up' must have at least one element along every axis. "
            "Received: spatial input size (0,) with kernel_size=(3,), strides=(1,), padding='valid' "
            "and output_padding=None. Use larger inputs, or leave output_padding out."
        ),
    ),
    "another size": (
        lambda: built("same", np.random.default_rng(0), name="up")[0](np.zeros((2, 4, 6, 3))),
        (
            "Layer 'up' has weights for inputs of spatial size (4, 5), each position having its own. "
            "Received: inputs of shape (2, 4, 6, 3) with data_format='channels_last'. Resize the "
            "inputs, or the layer with conversion.resize(layer, input_shape)."
        ),
    ),
    "kernel without whole filters": (
        lambda: local_convolution_transpose(
            np.zeros((2, 4, 3)),
            np.zeros((4, 5, 3)),
            TransposedWindows((2,), (1,), (1,), "same"),
        ),
        (
            "Axis 'r' of `kernel_prc` must hold as many filters for each of the taps of its windows, "
            "2. Received: kernel_prc of shape (4, 5, 3)."
        ),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_is_refused_in_words(name):
    make, text = ERRORS[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        make()
    assert text in str(caught.value)
