"""Dynamic local filtering against loops over examples, positions and taps."""

import keras
import numpy as np
import pytest
from backends import call, outputs_and_gradients, randomize, to_numpy
from reference import normalize, zeros_before

from low_rank_local_connectivity import layers


def filter_by_loops(inputs, filters, taps, dilation):
    """`filters` has axes (batch, row, column, tap, channel)."""
    outputs = np.zeros_like(inputs)
    sizes = inputs.shape[1:3]
    before = [
        zeros_before(length, size, 1, rate, "same")
        for length, size, rate in zip(sizes, taps, dilation, strict=True)
    ]
    for b, i, j, c in np.ndindex(*inputs.shape):
        for tap, (row, column) in enumerate(np.ndindex(*taps)):
            y = i + row * dilation[0] - before[0]
            x = j + column * dilation[1] - before[1]
            if 0 <= y < sizes[0] and 0 <= x < sizes[1]:
                outputs[b, i, j, c] += filters[b, i, j, tap, c] * inputs[b, y, x, c]
    return outputs


@pytest.mark.parametrize("normalization", ["softmax", None])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_given_filters_are_applied_where_they_belong(data_format, per_channel, normalization, rng):
    inputs, width = rng.normal(size=(2, 5, 7, 3)), 3 if per_channel else 1
    filters = rng.normal(size=(2, 5, 7, 8 * width))
    each = filters.reshape(2, 5, 7, 8, width)
    if normalization:
        each = np.moveaxis(normalize(np.moveaxis(each, 3, -1), normalization), -1, 3)
    expected = filter_by_loops(inputs, np.broadcast_to(each, (2, 5, 7, 8, 3)), (4, 2), (1, 2))
    layer = layers.DynamicLocalFilter2D(
        (4, 2),
        normalize=normalization,
        per_channel=per_channel,
        dilation_rate=(1, 2),
        data_format=data_format,
        use_generator=False,
    )
    if data_format == "channels_first":
        inputs, filters, expected = (np.moveaxis(x, -1, 1) for x in (inputs, filters, expected))
    found = layer(inputs.astype("float32"), filters=filters.astype("float32"))
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)
    assert not layer.weights


@pytest.mark.parametrize(
    ("generator", "rate"), [(None, (2, 1)), ((1, 1), (1, 1)), ((2, 5), (1, 1))]
)
def test_the_generator_is_a_convolution_of_the_input(generator, rate, rng):
    layer = layers.DynamicLocalFilter2D(
        (3, 2), dilation_rate=(2, 1), generator_kernel_size=generator
    )
    inputs = rng.normal(size=(2, 6, 7, 4)).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    convolution = keras.layers.Conv2D(6, generator or (3, 2), padding="same", dilation_rate=rate)
    convolution.build(inputs.shape)
    convolution.set_weights([to_numpy(weight) for weight in layer.weights])
    filters = normalize(call(convolution, inputs).astype("float64"), "softmax")
    each = np.broadcast_to(filters[..., None], (*filters.shape, 4))
    expected = filter_by_loops(inputs.astype("float64"), each, (3, 2), (2, 1))
    np.testing.assert_allclose(call(layer, inputs), expected, atol=1e-5)


def test_the_low_rank_layer_with_the_identity_as_its_banks_is_the_same(rng):
    inputs = rng.normal(size=(2, 5, 6, 1)).astype("float32")
    low_rank = layers.LowRankLocallyConnected2D(
        1, (3, 2), spatial_rank=6, padding="same", input_dependent=True, use_spatial_bias=False
    )
    low_rank.build(inputs.shape)
    randomize(low_rank, rng)
    low_rank.kernel_bases.assign(np.eye(6).reshape(3, 2, 1, 6))
    low_rank.bias.assign([0.0])
    weights = to_numpy(low_rank.combining_weights(inputs))
    layer = layers.DynamicLocalFilter2D((3, 2), normalize=None, use_generator=False)
    found = call(layer, inputs, filters=weights)
    np.testing.assert_allclose(found, call(low_rank, inputs), atol=1e-6)


def test_under_softmax_a_constant_image_stays_constant_away_from_the_border(rng):
    layer = layers.DynamicLocalFilter2D(3)
    layer.build((None, 6, 7, 4))
    randomize(layer, rng)
    outputs = call(layer, np.full((2, 6, 7, 4), 3.0, "float32"))
    np.testing.assert_allclose(outputs[:, 1:-1, 1:-1], 3.0, rtol=1e-6)


def test_gradients_reach_the_generator_through_the_filters(rng):
    layer = layers.DynamicLocalFilter2D(3, per_channel=True)
    inputs = rng.normal(size=(2, 6, 7, 4)).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    _, gradients = outputs_and_gradients(layer, inputs, rng.normal(size=(2, 6, 7, 4)))
    assert all(np.abs(gradient).min() > 0 for gradient in gradients)


def test_a_model_with_filters_from_elsewhere_takes_any_size_saves_and_loads(rng, tmp_path):
    images, guide = keras.Input((None, None, 4)), keras.Input((None, None, 2))
    filters = keras.layers.Conv2D(9, 1)(guide)
    layer = layers.DynamicLocalFilter2D(3, use_generator=False)
    model = keras.Model([images, guide], layer(images, filters=filters))
    values = [rng.normal(size=(2, 6, 7, count)).astype("float32") for count in (4, 2)]
    expected = model.predict(values, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(values, verbose=0), expected)


def test_an_error_says_what_is_missing_or_misshapen(rng):
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        layers.DynamicLocalFilter2D(3, normalize="norm")
    assert str(caught.value) == (
        "`normalize` must be one of 'softmax', None. Received: normalize='norm'."
    )
    inputs = rng.normal(size=(2, 6, 7, 4))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layers.DynamicLocalFilter2D(3, use_generator=False, name="layer").call(inputs)
    assert str(caught.value) == (
        "Layer 'layer' has no generator, so its filters must be given. Received: filters=None "
        "with use_generator=False. Call layer(inputs, filters=...), or set use_generator=True."
    )
    for per_channel, shape, text in [
        (True, (2, 6, 7, 9), "9 taps of 4 channels: of shape (batch, 6, 7, 36)"),
        (False, (2, 5, 7, 9), "9 taps: of shape (batch, 6, 7, 9)"),
        (False, (2, 7, 9), "9 taps: of shape (batch, 6, 7, 9)"),
    ]:
        layer = layers.DynamicLocalFilter2D(3, per_channel=per_channel)
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            layer.call(inputs, np.zeros(shape))
        assert str(caught.value) == (
            f"`filters` must be given for every position of the inputs and each of {text}, "
            f"channels last. Received: filters of shape (batch, {str(shape[1:])[1:-1]})."
        )
