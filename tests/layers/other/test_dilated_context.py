"""The context module: what it starts as, what it sees, and its convolutions one by one."""

import keras
import numpy as np
import pytest
from backends import call, outputs_and_gradients, randomize, to_numpy
from reference import apply_filter, output_shape

from low_rank_local_connectivity import IdentityConv, layers


def built(layer, inputs):
    layer.build(inputs.shape)
    return layer


def loops(inputs, weights, rates, padding):
    """`weights` holds a kernel and a bias for each rate, then for the last convolution."""
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for (kernel, bias), rate in zip(pairs, (*rates, 0), strict=True):
        settings = ((1, 1), (rate or 1,) * 2, padding)
        positions = output_shape(inputs.shape[1:-1], kernel.shape[:2], *settings)
        outputs = np.zeros((len(inputs), *positions, kernel.shape[-1]))
        for place in np.ndindex(*positions):
            outputs[(slice(None), *place)] = apply_filter(inputs, kernel, place, *settings) + bias
        inputs = np.maximum(outputs, 0) if rate else outputs
    return inputs


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_it_is_its_convolutions_one_after_another(padding, data_format, rng):
    layer = layers.DilatedContext2D(
        3, (2, 1), (2, 3), padding, multipliers=(1, 2), data_format=data_format
    )
    inputs = rng.normal(size=(2, 7, 9, 4))
    given = inputs if data_format == "channels_last" else np.moveaxis(inputs, -1, 1)
    layer.build(given.shape)
    randomize(layer, rng)
    weights = [to_numpy(weight).astype("float64") for weight in layer.weights]
    assert [weight.shape[2:] for weight in weights[::2]] == [(4, 3), (3, 6), (6, 3)]
    expected = loops(inputs, weights, (2, 1), padding)
    if data_format == "channels_first":
        expected = np.moveaxis(expected, -1, 1)
    np.testing.assert_allclose(call(layer, given.astype("float32")), expected, atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dilations": (1, 1), "kernel_size": (2, 4)},
        {"dilations": (1, 2, 4, 1), "multipliers": (2, 2, 4, 1)},
        {"dilations": (1, 2), "multipliers": (3, 2)},
    ],
    ids=["default", "even", "wider", "odd"],
)
def test_without_noise_it_begins_as_a_relu(arguments, rng):
    layer = layers.DilatedContext2D(**arguments, kernel_initializer=IdentityConv(stddev=0.0))
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    found = call(built(layer, inputs), inputs)
    np.testing.assert_allclose(found, np.maximum(inputs, 0), atol=1e-6)


def test_with_noise_it_begins_near_a_relu_and_its_convolutions_differ(rng):
    layer = layers.DilatedContext2D()
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    difference = np.abs(call(built(layer, inputs), inputs) - np.maximum(inputs, 0))
    assert 0.01 < difference.mean() < 0.3
    first, second = (to_numpy(weight) for weight in layer.weights[:4:2])
    assert np.abs(first - second).max() > 0.01


def test_by_default_an_output_sees_67_elements_along_each_axis():
    layer = layers.DilatedContext2D(kernel_initializer="ones")
    assert layer.receptive_field == (67, 67)
    inputs = np.ones((1, 71, 73, 1), "float32")
    middle = np.zeros((1, 71, 73, 1), "float32")
    middle[0, 35, 36] = 1
    _, (gradient, *_) = outputs_and_gradients(built(layer, inputs), inputs, middle)
    rows, columns = np.nonzero(gradient[0, ..., 0])
    assert (rows.min(), rows.max()) == (35 - 33, 35 + 33)
    assert (columns.min(), columns.max()) == (36 - 33, 36 + 33)


def test_unpadded_it_needs_what_it_sees_and_any_size_above():
    layer = layers.DilatedContext2D(dilations=(1, 2), kernel_size=(3, 2), padding="valid")
    assert layer.compute_output_shape((None, None, 8, 4)) == (None, None, 5, 4)
    assert layer.compute_output_shape((None, 7, 4, 5)) == (None, 1, 1, 5)
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, layer(inputs))
    assert model.predict(np.ones((1, 9, 8, 4)), verbose=0).shape == (1, 3, 5, 4)


def test_a_kernel_of_unequal_widths_spreads_or_gathers_each_group():
    shape = (3, 2, 4, 6)
    kernel = to_numpy(IdentityConv(stddev=0.0, groups=2)(shape))
    expected = np.zeros(shape)
    for a, b in np.ndindex(4, 6):
        expected[1, 0, a, b] = 2 / 6 if a * 2 // 4 == b * 2 // 6 else 0
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    np.testing.assert_array_equal(kernel, to_numpy(IdentityConv(stddev=0.0)(shape)))


def test_noise_is_a_fraction_of_the_central_values():
    shape = (3, 3, 40, 80)
    kernel = to_numpy(IdentityConv(stddev=0.1, seed=1)(shape))
    exact = to_numpy(IdentityConv(stddev=0.0)(shape))
    np.testing.assert_array_equal(kernel[exact > 0], 0.5)
    noise = kernel[exact == 0]
    assert noise.std() == pytest.approx(0.05, rel=0.01)
    assert abs(noise.mean()) < 0.001


@pytest.mark.once
def test_the_initializer_survives_its_configuration():
    initializer = IdentityConv(stddev=0.2, groups=2, seed=7)
    again = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    assert again.get_config() == {"stddev": 0.2, "groups": 2, "seed": 7}
    shape = (3, 3, 4, 6)
    np.testing.assert_array_equal(to_numpy(again(shape)), to_numpy(initializer(shape)))


ERRORS = {
    "noise": (
        lambda: IdentityConv(stddev=-0.1),
        "`stddev` must be a finite number of at least 0. Received: stddev=-0.1.",
    ),
    "groups": (
        lambda: IdentityConv(groups=0),
        (
            "`groups` must be an integer of at least 1, or None for the greatest common divisor of "
            "the widths. Received: groups=0."
        ),
    ),
    "groups that do not divide": (
        lambda: IdentityConv(groups=3)((3, 3, 6, 4)),
        (
            "The groups of IdentityConv must divide the numbers of input channels and of filters. "
            "Received: groups=3 for a kernel of shape (3, 3, 6, 4). Use groups=None for their "
            "greatest common divisor."
        ),
    ),
    "dilations": (
        lambda: layers.DilatedContext2D(dilations=(1, 0)),
        "`dilations` must be an integer of at least 1. Received: dilations=0.",
    ),
    "multipliers": (
        lambda: layers.DilatedContext2D(dilations=(1, 2), multipliers=(1, 2, 3)),
        (
            "`multipliers` must have one integer for each of `dilations`. Received: "
            "multipliers=(1, 2, 3) with dilations=(1, 2)."
        ),
    ),
    "small input": (
        lambda: layers.DilatedContext2D(padding="valid", name="layer").build((None, 66, 70, 4)),
        (
            "Layer 'layer' sees (67, 67) input elements at once and without padding needs as many. "
            "Received: spatial input size (66, 70) with padding='valid'. Use padding='same', or "
            "fewer or smaller dilations."
        ),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", ERRORS)
def test_an_error_says_what_must_hold_and_what_came(case):
    act, text = ERRORS[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == text
