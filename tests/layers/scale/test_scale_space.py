# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Scale spaces against SciPy, loops over the definition, and the identities that define them."""

import itertools
import json
import re

import keras
import numpy as np
import pytest
from backends import EAGER, call, outputs_and_gradients, randomize, to_numpy
from keras import ops
from scipy import ndimage, special

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.equivariance import ScaleSpaceAction, curve, error
from low_rank_local_connectivity.ops import discrete_gaussian, level_variances

SHAPE = (2, 4, 13, 17, 3)
OPTIONS = {
    "plain": {},
    "interaction": {"interaction": 3},
    "even kernel": {"kernel_size": (2, 4), "interaction": 2},
    "strides": {"strides": 2, "interaction": 2},
    "a stride that divides no dilation": {"strides": (3, 1)},
    "even kernel and strides": {"kernel_size": (4, 3), "strides": (2, 3)},
    "base 3": {"base": 3, "interaction": 2},
    "activation": {"activation": "tanh", "interaction": 2},
    "no bias": {"use_bias": False},
}


def made(rng, shape=SHAPE, **arguments):
    layer = layers.ScaleConv2D(**{"filters": 5, "kernel_size": 3, **arguments})
    layer.build(shape)
    randomize(layer, rng)
    return layer


def scale_correlation(inputs, kernel, dilations, strides):
    """The definition, one output position after another."""
    _, scales, height, width, _ = inputs.shape
    depth, rows, columns, _, filters = kernel.shape
    sizes = [len(range(0, n, s)) for n, s in zip((height, width), strides, strict=True)]
    outputs = np.zeros((len(inputs), scales, *sizes, filters))
    for k, p, q in itertools.product(range(scales), *map(range, sizes)):
        for level, i, j in itertools.product(range(depth), range(rows), range(columns)):
            row = strides[0] * p + dilations[k] * (i - (rows - 1) // 2)
            column = strides[1] * q + dilations[k] * (j - (columns - 1) // 2)
            if k + level < scales and 0 <= row < height and 0 <= column < width:
                outputs[:, k, p, q] += inputs[:, k + level, row, column] @ kernel[level, i, j]
    return outputs


def smooth_images(rng, count=2, size=(96, 80), channels=1, sigma=2.0):
    noise = rng.normal(size=(count, *size, channels))
    images = ndimage.gaussian_filter(noise, (0, sigma, sigma, 0))
    return (images / images.std()).astype("float32")


# The Gaussian of the integers.


@pytest.mark.once
@pytest.mark.parametrize("variance", [1e-6, 0.1, 0.75, 3.75, 15.75, 300.0, 4095.75])
def test_the_discrete_gaussian_is_scipy_s_bessel_function(variance):
    found = discrete_gaussian(variance)
    reach = 4 * int(np.ceil(np.sqrt(variance)))
    expected = special.ive(np.abs(np.arange(-reach, reach + 1)), variance)
    assert len(found) == 2 * reach + 1
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=0, atol=1e-12)


@pytest.mark.once
def test_without_a_variance_the_kernel_is_one_element():
    assert discrete_gaussian(0.0).tolist() == [1.0]


@pytest.mark.once
@pytest.mark.parametrize("variance", [0.1, 0.75, 3.75])
def test_its_variance_is_the_one_asked_for_even_if_small(variance):
    kernel = discrete_gaussian(variance)
    positions = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel @ positions**2 == pytest.approx(variance, rel=3e-3)


@pytest.mark.once
@pytest.mark.parametrize(("base", "zero_scale"), [(2, 0.5), (3, 0.25), (1.5, 1.0)])
def test_smoothings_add_up_across_a_subsampling(base, zero_scale):
    first, *_ = rest = level_variances(6, base, zero_scale)[1:]
    for finer, coarser in itertools.pairwise(rest):
        assert first + base**2 * finer == pytest.approx(coarser)


@pytest.mark.once
@pytest.mark.parametrize(("one", "other"), [(0.75, 3.0), (1.5, 0.4), (15.75, 48.0)])
def test_smoothing_twice_is_smoothing_once_by_the_sum(one, other):
    twice = np.convolve(discrete_gaussian(one), discrete_gaussian(other))
    once = discrete_gaussian(one + other)
    size = min(len(once), len(twice))
    cut = [kernel[(len(kernel) - size) // 2 :][:size] for kernel in (once, twice)]
    np.testing.assert_allclose(*cut, rtol=0, atol=2e-5)


# The lifting.


@pytest.mark.parametrize("base", [2, 1.5])
def test_levels_are_scipy_s_convolutions_with_the_bessel_kernels(base, rng):
    images = rng.normal(size=(2, 21, 17, 3)).astype("float32")
    found = call(layers.ScaleSpaceLifting2D(4, base, zero_scale=0.7), images)
    np.testing.assert_array_equal(found[:, 0], images)
    for level in range(1, 4):
        variance = 0.49 * (base ** (2 * level) - 1)
        reach = 4 * int(np.ceil(np.sqrt(variance)))
        kernel = special.ive(np.abs(np.arange(-reach, reach + 1)), variance)
        kernel /= kernel.sum()
        expected = images
        for axis in (1, 2):
            expected = ndimage.correlate1d(expected, kernel, axis, mode="constant")
        np.testing.assert_allclose(found[:, level], expected, rtol=0, atol=1e-5)


def test_where_a_sampled_gaussian_is_accurate_both_smooth_alike(rng):
    images = rng.normal(size=(1, 64, 48, 2))
    found = call(layers.ScaleSpaceLifting2D(4, zero_scale=1.0), images.astype("float32"))
    for level, variance in enumerate([3.0, 15.0, 63.0], start=1):
        sigma = np.sqrt(variance)
        expected = ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="constant")
        gap = np.abs(found[:, level] - expected).max() / np.abs(expected).max()
        assert gap < 0.2 / variance


@pytest.mark.parametrize("antialias", [False, True])
def test_bilinear_levels_are_those_of_keras_s_resizing(antialias, rng):
    images = rng.normal(size=(2, 21, 17, 3)).astype("float32")
    arguments = {"method": "bilinear", "antialias": antialias}
    pyramid = layers.ScaleSpaceLifting2D(3, pyramid=True, **arguments)(images)
    full = call(layers.ScaleSpaceLifting2D(3, **arguments), images)
    resize = {"data_format": "channels_last", "interpolation": "bilinear"}
    for level, size in enumerate([(21, 17), (10, 8), (5, 4)]):
        expected = ops.image.resize(images, size, antialias=antialias, **resize)
        found = to_numpy(pyramid[level])
        np.testing.assert_allclose(found, to_numpy(expected), rtol=0, atol=2e-5)
        enlarged = ops.image.resize(expected, (21, 17), antialias=False, **resize)
        np.testing.assert_allclose(full[:, level], to_numpy(enlarged), rtol=0, atol=2e-5)


def test_a_gaussian_pyramid_is_every_so_many_rows_and_columns(rng):
    images = rng.normal(size=(2, 21, 18, 3)).astype("float32")
    full = call(layers.ScaleSpaceLifting2D(3), images)
    pyramid = layers.ScaleSpaceLifting2D(3, pyramid=True)(images)
    for level, step in enumerate((1, 2, 4)):
        expected = full[:, level, ::step, ::step]
        np.testing.assert_allclose(to_numpy(pyramid[level]), expected, rtol=0, atol=1e-6)


LIFTINGS = [
    {"method": method, "pyramid": pyramid, "base": base}
    for method, pyramid, base in itertools.product(
        ["gaussian", "bilinear"], [False, True], [2, 1.5]
    )
    if (method, pyramid, base) != ("gaussian", True, 1.5)
]


@pytest.mark.parametrize("arguments", LIFTINGS, ids=str)
def test_a_lifting_takes_images_of_any_size(arguments, rng):
    layer = layers.ScaleSpaceLifting2D(3, **arguments)
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, layer(inputs))
    for size in ((14, 17), (11, 9)):
        images = rng.normal(size=(1, *size, 2)).astype("float32")
        found = model.predict(images, verbose=0)
        expected = layers.ScaleSpaceLifting2D(3, **arguments)(images)
        shapes = layer.compute_output_shape(images.shape)
        pairs = zip(found, expected, shapes, strict=True)
        for one, other, shape in pairs if arguments["pyramid"] else [(found, expected, shapes)]:
            np.testing.assert_allclose(one, to_numpy(other), rtol=0, atol=1e-5)
            assert one.shape == shape


def test_whole_numbers_are_lifted_as_floats(rng):
    images = rng.integers(0, 255, size=(1, 9, 8, 3))
    found = call(layers.ScaleSpaceLifting2D(2), images)
    expected = call(layers.ScaleSpaceLifting2D(2), images.astype("float32"))
    np.testing.assert_array_equal(found, expected)


# The correlation.


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_scale_convolution_computes_its_definition(options, data_format, rng):
    arguments = OPTIONS[options]
    inputs = rng.normal(size=SHAPE).astype("float32")
    first = data_format == "channels_first"
    given = np.moveaxis(inputs, -1, 1) if first else inputs
    layer = made(rng, given.shape, data_format=data_format, **arguments)
    base = arguments.get("base", 2)
    dilations = [base**level for level in range(SHAPE[1])]
    expected = scale_correlation(inputs, to_numpy(layer.kernel), dilations, layer.strides)
    if layer.bias is not None:
        expected = expected + to_numpy(layer.bias)
    if layer.get_config()["activation"] == "tanh":
        expected = np.tanh(expected)
    found = call(layer, given)
    assert layer.compute_output_shape(given.shape) == found.shape
    found = np.moveaxis(found, 1, -1) if first else found
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.once
@pytest.mark.parametrize("interaction", [1, 2])
def test_it_is_a_sum_of_torch_s_dilated_convolutions(interaction, rng):
    torch = pytest.importorskip("torch")
    inputs = rng.normal(size=SHAPE).astype("float32")
    layer = made(rng, interaction=interaction)
    found = call(layer, inputs)
    kernel = torch.from_numpy(to_numpy(layer.kernel)).permute(0, 4, 3, 1, 2)
    maps = torch.from_numpy(inputs).permute(1, 0, 4, 2, 3)
    for level in range(4):
        rate = 2**level
        reads = [
            torch.nn.functional.conv2d(maps[level + up], kernel[up], dilation=rate, padding=rate)
            for up in range(min(interaction, 4 - level))
        ]
        expected = torch.stack(reads).sum(0).permute(0, 2, 3, 1).numpy() + to_numpy(layer.bias)
        np.testing.assert_allclose(found[:, level], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_it_commutes_exactly_with_a_change_of_scale(options, rng):
    """Subsampled maps, one level on, give the outputs subsampled, one level on."""
    layer = made(rng, **OPTIONS[options])
    step = layer.base
    inputs = rng.normal(size=SHAPE).astype("float32")
    whole = call(layer, inputs)[:, 1:, ::step, ::step]
    smaller = call(layer, np.ascontiguousarray(inputs[:, 1:, ::step, ::step]))
    assert whole.shape == smaller.shape
    np.testing.assert_allclose(smaller, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("strides", [1, 2])
def test_a_gaussian_pyramid_is_convolved_as_the_full_size_is(strides, rng):
    images = rng.normal(size=(2, 21, 18, 3)).astype("float32")
    full = layers.ScaleSpaceLifting2D(3)(images)
    pyramid = layers.ScaleSpaceLifting2D(3, pyramid=True)(images)
    one = made(rng, full.shape, activation="relu", strides=strides)
    other = layers.ScaleConv2D(5, 3, activation="relu", strides=strides)
    other.build([level.shape for level in pyramid])
    other.set_weights(one.get_weights())
    expected, found = to_numpy(one(full)), other(pyramid)
    for level, step in enumerate((1, 2, 4)):
        wanted = expected[:, level, ::step, ::step]
        np.testing.assert_allclose(to_numpy(found[level]), wanted, rtol=0, atol=1e-5)


def test_a_base_that_is_not_whole_warns_and_rounds_down(rng):
    sentence = "With base=1.5 and rounding='floor' the taps of level k are floor(1.5 ** k) apart, so that the layer is equivariant to a change of scale only approximately."
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$"):
        layer = layers.ScaleConv2D(5, 3, base=1.5, rounding="floor")
    assert layer.dilations(4) == [1, 1, 2, 3]
    layer.build(SHAPE)
    randomize(layer, rng)
    inputs = rng.normal(size=SHAPE).astype("float32")
    expected = scale_correlation(inputs, to_numpy(layer.kernel), [1, 1, 2, 3], (1, 1))
    expected += to_numpy(layer.bias)
    np.testing.assert_allclose(call(layer, inputs), expected, rtol=0, atol=1e-4)


def test_kernels_begin_with_the_variance_of_all_they_read():
    layer = layers.ScaleConv2D(48, (3, 5), interaction=4)
    layer.build((None, 6, 9, 10, 16))
    kernel = to_numpy(layer.kernel)
    assert kernel.shape == (4, 3, 5, 16, 48)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (4 * 3 * 5 * 16)), rel=0.02)


def test_gradients_are_those_of_the_definition(rng):
    """The layer is linear in its kernel and in its input: differences are exact up to rounding."""
    layer = made(rng, interaction=2, strides=(2, 1), use_bias=False)
    inputs = rng.normal(size=SHAPE).astype("float32")
    projection = rng.normal(size=layer.compute_output_shape(SHAPE)).astype("float32")
    kernel = to_numpy(layer.kernel)
    _, (of_inputs, of_kernel) = outputs_and_gradients(layer, inputs, projection)
    dilations = [1, 2, 4, 8]
    for values, gradient in ((inputs, of_inputs), (kernel, of_kernel)):
        direction = rng.normal(size=values.shape)
        pair = (direction, kernel) if values is inputs else (inputs, direction)
        expected = (scale_correlation(*pair, dilations, (2, 1)) * projection).sum()
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3)


def test_sizes_and_numbers_of_scales_may_change_after_building(rng):
    layer = made(rng, (None, 4, None, None, 3), interaction=2)
    for scales, size in ((4, (13, 17)), (6, (11, 8))):
        inputs = rng.normal(size=(1, scales, *size, 3)).astype("float32")
        dilations = [2**level for level in range(scales)]
        expected = scale_correlation(inputs, to_numpy(layer.kernel), dilations, (1, 1))
        expected += to_numpy(layer.bias)
        np.testing.assert_allclose(call(layer, inputs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_levels_that_are_only_read_are_not_computed(data_format, rng):
    inputs = rng.normal(size=SHAPE).astype("float32")
    first = data_format == "channels_first"
    given = np.moveaxis(inputs, -1, 1) if first else inputs
    arguments = {"interaction": 3, "strides": (1, 2), "data_format": data_format}
    layer = made(rng, given.shape, output_scales=2, **arguments)
    expected = scale_correlation(inputs, to_numpy(layer.kernel), [1, 2, 4, 8], (1, 2))[:, :2]
    found = call(layer, given)
    assert layer.compute_output_shape(given.shape) == found.shape
    found = np.moveaxis(found, 1, -1) if first else found
    np.testing.assert_allclose(found, expected + to_numpy(layer.bias), rtol=0, atol=1e-4)
    # Both levels read three, where the last two of all four have fewer: 3 + 3 of 3 + 3 + 2 + 1.
    plain = made(rng, given.shape, use_bias=False, output_scales=2, **arguments)
    all_four = made(rng, given.shape, use_bias=False, **arguments)
    assert 9 * plain.operations(given.shape) == 6 * all_four.operations(given.shape)


@pytest.mark.parametrize("kind", [layers.ScaleConv2D, layers.DeformableScaleConv2D])
def test_a_pyramid_s_first_levels_are_those_of_the_whole(kind, rng):
    levels = [
        rng.normal(size=(2, *size, 3)).astype("float32") for size in ((8, 11), (4, 5), (2, 2))
    ]
    shapes = [level.shape for level in levels]
    whole, part = kind(5, 3), kind(5, 3, output_scales=2)
    for layer in (whole, part):
        layer.build(shapes)
    randomize(whole, rng)
    part.set_weights(whole.get_weights())
    found, expected = part(levels), whole(levels)
    assert len(found) == 2
    assert part.compute_output_shape(shapes) == whole.compute_output_shape(shapes)[:2]
    for one, other in zip(found, expected[:2], strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


# Poolings and normalisation.


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_scale_pooling_reduces_the_axis_of_scales(mode, data_format, rng):
    inputs = rng.normal(size=SHAPE).astype("float32")
    expected = getattr(inputs, mode)(axis=1)
    first = data_format == "channels_first"
    given = np.moveaxis(inputs, -1, 1) if first else inputs
    found = call(layers.ScalePooling2D(mode, data_format), given)
    found = np.moveaxis(found, 1, -1) if first else found
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["max", "mean"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("sizes", [[(23, 30), (11, 15), (5, 7)], [(28, 27), (18, 18), (8, 7)]])
def test_a_pyramid_is_pooled_to_its_smallest_level_first(mode, data_format, sizes, rng):
    levels = [rng.normal(size=(2, *size, 3)).astype("float32") for size in sizes]
    rows, columns = sizes[-1]
    pooled = np.zeros((3, 2, rows, columns, 3))
    for k, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        high, wide = size[0] // rows, size[1] // columns
        for p, q in itertools.product(range(rows), range(columns)):
            window = level[:, p * high : (p + 1) * high, q * wide : (q + 1) * wide]
            pooled[k, :, p, q] = window.max(axis=(1, 2))
    first = data_format == "channels_first"
    given = [np.moveaxis(level, -1, 1) if first else level for level in levels]
    layer = layers.ScalePooling2D(mode, data_format)
    found = call(layer, given)
    assert layer.compute_output_shape([level.shape for level in given]) == found.shape
    found = np.moveaxis(found, 1, -1) if first else found
    np.testing.assert_allclose(found, getattr(pooled, mode)(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_keras_s_batch_normalisation_shares_its_statistics_over_the_scales(data_format, rng):
    inputs = rng.normal(2.0, 3.0, size=SHAPE).astype("float32")
    inputs *= np.arange(1, 5).reshape(1, 4, 1, 1, 1)
    expected = (inputs - inputs.mean((0, 1, 2, 3))) / np.sqrt(inputs.var((0, 1, 2, 3)) + 1e-3)
    first = data_format == "channels_first"
    given = np.moveaxis(inputs, -1, 1) if first else inputs
    plain = keras.layers.BatchNormalization(axis=1 if first else -1)
    wrapped = layers.OverLevels(
        keras.layers.BatchNormalization(axis=1 if first else -1), data_format
    )
    for layer in (plain, wrapped):
        found = to_numpy(layer(given, training=True))
        found = np.moveaxis(found, 1, -1) if first else found
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert sum(int(np.prod(weight.shape)) for weight in layer.weights) == 4 * 3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_over_a_pyramid_statistics_are_those_of_all_positions(data_format, rng):
    sizes = [(9, 8), (4, 5), (2, 3)]
    levels = [rng.normal(k, k + 1, size=(2, *size, 3)) for k, size in enumerate(sizes)]
    everything = np.concatenate([level.reshape(-1, 3) for level in levels])
    mean, deviation = everything.mean(0), np.sqrt(everything.var(0) + 1e-3)
    first = data_format == "channels_first"
    given = [np.moveaxis(one, -1, 1) if first else one for one in levels]
    layer = layers.OverLevels(keras.layers.BatchNormalization(axis=1 if first else -1), data_format)
    found = layer([one.astype("float32") for one in given], training=True)
    shapes = layer.compute_output_shape([one.shape for one in given])
    for one, level, shape in zip(found, levels, shapes, strict=True):
        assert tuple(one.shape) == shape
        normalised = np.moveaxis(to_numpy(one), 1, -1) if first else to_numpy(one)
        np.testing.assert_allclose(normalised, (level - mean) / deviation, rtol=0, atol=1e-4)


def test_a_layer_over_levels_may_change_the_channels(rng):
    layer = layers.OverLevels(keras.layers.Dense(5))
    levels = [rng.normal(size=(2, *size, 3)).astype("float32") for size in ((4, 5), (2, 3))]
    found = layer(levels)
    for one, level in zip(found, levels, strict=True):
        kernel, bias = map(to_numpy, layer.layer.weights)
        np.testing.assert_allclose(to_numpy(one), level @ kernel + bias, rtol=0, atol=1e-5)
    assert [tuple(one.shape) for one in found] == layer.compute_output_shape(
        [one.shape for one in levels]
    )


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_network_on_a_pyramid_trains_and_is_saved(data_format, rng, tmp_path):
    first = data_format == "channels_first"
    inputs = keras.Input((3, 12, 13) if first else (12, 13, 3))
    levels = layers.ScaleSpaceLifting2D(
        3, method="bilinear", pyramid=True, data_format=data_format
    )(inputs)
    levels = layers.ScaleConv2D(4, 3, data_format=data_format, use_bias=False)(levels)
    normalize = keras.layers.BatchNormalization(axis=1 if first else -1)
    levels = layers.OverLevels(normalize, data_format)(levels)
    levels = layers.ScaleConv2D(5, 3, data_format=data_format, activation="relu")(levels)
    outputs = layers.ScalePooling2D("mean", data_format)(levels)
    model = keras.Model(inputs, outputs)
    images = rng.normal(size=(4, *inputs.shape[1:])).astype("float32")
    targets = rng.normal(size=(4, *outputs.shape[1:])).astype("float32")
    before = [to_numpy(weight.value) for weight in model.weights]
    model.compile("sgd", "mse", run_eagerly=EAGER)
    model.fit(images, targets, verbose=0)
    for weight, old in zip(model.weights, before, strict=True):
        assert np.abs(to_numpy(weight.value) - old).max() > 0, f"{weight.path} stood still"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, images), call(model, images))
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())


# The equivariance of whole networks.


def network(rng, interaction=1, scales=5):
    convolutions = [
        layers.ScaleConv2D(6, 3, interaction=interaction, activation="relu") for _ in range(3)
    ]
    model = keras.Sequential([layers.ScaleSpaceLifting2D(scales), *convolutions])
    model.build((None, None, None, 1))
    for layer in convolutions:
        shape = layer.kernel.shape
        layer.kernel.assign(rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])))
        layer.bias.assign(0.1 * rng.normal(size=layer.bias.shape))
    return model


def test_three_layers_are_equivariant_up_to_the_lifting(rng):
    model, images = network(rng), smooth_images(rng, size=(160, 144))
    found = [
        error(model, images, ScaleSpaceAction(margin=16, levels=(level,))).mean()
        for level in range(4)
    ]
    assert found[0] < 1e-10  # the image, smoothed, is the next level
    assert max(found) < 1.2e-3, found
    unsmoothed = error(model, images, ScaleSpaceAction(margin=16, zero_scale=None)).mean()
    assert max(found) < unsmoothed < 0.1


def test_interacting_levels_count_where_all_they_read_exists(rng):
    model, images = network(rng, interaction=2), smooth_images(rng)
    inside = error(model, images, ScaleSpaceAction(margin=6, reach=3)).mean()
    assert inside < 1.2e-3
    assert error(model, images, ScaleSpaceAction(margin=6)).mean() > 3 * inside


def test_an_ordinary_convolution_of_every_level_is_not_equivariant(rng):
    keras.utils.set_random_seed(1)
    images = smooth_images(rng)
    convolution = keras.layers.Conv3D(6, (1, 5, 5), padding="same")
    model = keras.Sequential([layers.ScaleSpaceLifting2D(4), convolution])
    ours = keras.Sequential([layers.ScaleSpaceLifting2D(4), layers.ScaleConv2D(6, 5)])
    action = ScaleSpaceAction(margin=6)
    assert error(model, images, action).mean() > 0.02 > 20 * error(ours, images, action).mean()


@pytest.mark.once
def test_the_error_is_the_ratio_of_norms_over_what_counts(rng):
    features = rng.normal(size=(2, 5, 12, 16, 3))
    images = rng.normal(size=(2, 12, 16, 1))
    others = rng.normal(size=(2, 5, 6, 8, 3))

    def model(given):
        return features if given.shape[1] == 12 else others

    action = ScaleSpaceAction(reach=1, margin=2)
    expected = features[:, 1:4, ::2, ::2][:, :, 2:-2, 2:-2]
    gap = np.square(expected - others[:, :3, 2:-2, 2:-2]).sum(axis=(1, 2, 3, 4))
    norms = np.square(expected).sum(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(error(model, images, action), gap / norms)

    def turned(given):
        return np.moveaxis(model(np.moveaxis(given, 1, -1)), -1, 1)

    turned_images = np.moveaxis(images, -1, 1)
    action = ScaleSpaceAction(reach=1, margin=2, data_format="channels_first")
    found = error(turned, turned_images, action, data_format="channels_first")
    np.testing.assert_allclose(found, gap / norms)


@pytest.mark.once
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_images_are_smoothed_as_the_lifting_smooths_them(data_format, rng):
    first = data_format == "channels_first"
    images = rng.normal(size=(2, 3, 21, 18) if first else (2, 21, 18, 3)).astype("float32")
    lifting = layers.ScaleSpaceLifting2D(3, pyramid=True, data_format=data_format)
    for steps in (1, 2):
        found = ScaleSpaceAction(steps=steps, data_format=data_format)(images)
        expected = to_numpy(lifting(images)[steps])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_curve_over_steps_has_the_images_scales(rng):
    model, images = network(rng), smooth_images(rng)
    found = curve(model, images, [ScaleSpaceAction(steps=n, margin=4) for n in (1, 2)])
    assert found.values.tolist() == [0.5, 0.25]
    assert found.per_example.shape == (2, 2)
    assert found.mean.max() < 5e-3


# What is refused.

REFUSED = {
    "num_scales": (
        lambda: layers.ScaleSpaceLifting2D(0),
        "`num_scales` must be an integer of at least 1. Received: num_scales=0.",
    ),
    "base of a lifting": (
        lambda: layers.ScaleSpaceLifting2D(3, base=1),
        "`base` must be a number above 1. Received: base=1.",
    ),
    "zero_scale": (
        lambda: layers.ScaleSpaceLifting2D(3, zero_scale=0),
        "`zero_scale` must be a finite number above 0. Received: zero_scale=0.",
    ),
    "method": (
        lambda: layers.ScaleSpaceLifting2D(3, method="cubic"),
        "`method` must be one of 'gaussian', 'bilinear'. Received: method='cubic'.",
    ),
    "antialias": (
        lambda: layers.ScaleSpaceLifting2D(3, antialias=True),
        "`antialias` belongs to method='bilinear'; a Gaussian scale space is smooth already. Received: antialias=True with method='gaussian'. Leave it out.",
    ),
    "Gaussian pyramid": (
        lambda: layers.ScaleSpaceLifting2D(3, base=1.5, pyramid=True),
        "The levels of a Gaussian pyramid are every `base ** k`th row and column, so `base` must be a whole number. Received: base=1.5 with method='gaussian' and pyramid=True. Use method='bilinear', or pyramid=False.",
    ),
    "small images": (
        lambda: layers.ScaleSpaceLifting2D(4, method="bilinear", name="lift").build((2, 9, 7, 3)),
        "The coarsest level of layer 'lift' is 8 times smaller than the images, which must be that large. Received: spatial input size (9, 7) with num_scales=4 and base=2. Use fewer scales.",
    ),
    "base": (
        lambda: layers.ScaleConv2D(5, 3, base="2"),
        "`base` must be a number above 1. Received: base='2'.",
    ),
    "base that is not whole": (
        lambda: layers.ScaleConv2D(5, 3, base=1.5),
        "`base` must be a whole number, or the taps of coarser levels lie between the positions. Received: base=1.5 with rounding=None. Use an integer, or rounding='floor' for taps `floor(base ** k)` apart, which is not exactly equivariant.",
    ),
    "rounding": (
        lambda: layers.ScaleConv2D(5, 3, rounding="ceil"),
        "`rounding` must be one of None, 'floor'. Received: rounding='ceil'.",
    ),
    "interaction": (
        lambda: layers.ScaleConv2D(5, 3, interaction=0),
        "`interaction` must be an integer of at least 1. Received: interaction=0.",
    ),
    "more interaction than scales": (
        lambda: layers.ScaleConv2D(5, 3, interaction=5).build(SHAPE),
        "`interaction` must be at most the number of scales. Received: interaction=5 with 4 scales in input_shape=(2, 4, 13, 17, 3).",
    ),
    "no output scales": (
        lambda: layers.ScaleConv2D(5, 3, output_scales=0),
        "`output_scales` must be an integer of at least 1. Received: output_scales=0.",
    ),
    "more output scales than scales": (
        lambda: layers.ScaleConv2D(5, 3, output_scales=5, name="conv").build(SHAPE),
        "`output_scales` must be at most the number of scales. Received: output_scales=5 with 4 scales given to layer 'conv'.",
    ),
    "interaction in a pyramid": (
        lambda: layers.ScaleConv2D(5, 3, interaction=2).build([(2, 8, 9, 3), (2, 4, 4, 3)]),
        "The levels of a pyramid have different sizes, so a kernel reads one of them. Received: interaction=2 with a list of 2 levels. Use interaction=1, or a lifting with pyramid=False.",
    ),
    "no scales": (
        lambda: layers.ScaleConv2D(5, 3, name="conv").build((2, 8, 9, 3)),
        "Layer 'conv' takes a scale space: a tensor of 5 axes, (batch, scales, height, width, channels), or a list of levels of 4. Received: input_shape=(2, 8, 9, 3). Put a ScaleSpaceLifting2D before it.",
    ),
    "no scales, channels first": (
        lambda: layers.ScalePooling2D(data_format="channels_first", name="pool").build((2, 8, 9)),
        "Layer 'pool' takes a scale space: a tensor of 5 axes, (batch, channels, scales, height, width), or a list of levels of 4. Received: input_shape=(2, 8, 9). Put a ScaleSpaceLifting2D before it.",
    ),
    "unknown number of scales": (
        lambda: layers.ScaleConv2D(5, 3, name="conv").build((2, None, 8, 9, 3)),
        "Layer 'conv' must know the number of scales. Received: input_shape=(2, None, 8, 9, 3) with data_format='channels_last'.",
    ),
    "unequal channels": (
        lambda: layers.ScaleConv2D(5, 3, name="conv").build([(2, 8, 9, 3), (2, 4, 4, 2)]),
        "The levels of a pyramid given to layer 'conv' must have 4 axes and the same number of channels. Received: input_shape=[(2, 8, 9, 3), (2, 4, 4, 2)].",
    ),
    "mode": (
        lambda: layers.ScalePooling2D("average"),
        "`mode` must be one of 'max', 'mean'. Received: mode='average'.",
    ),
    "levels that grow": (
        lambda: layers.ScalePooling2D(name="pool").build([(2, 4, 9, 3), (2, 8, 4, 3)]),
        "The levels of a pyramid given to layer 'pool' must have known sizes, the smallest last. Received: spatial sizes [(4, 9), (8, 4)].",
    ),
    "action's base": (
        lambda: ScaleSpaceAction(base=1),
        "`base` must be an integer of at least 2. Received: base=1.",
    ),
    "action's steps": (
        lambda: ScaleSpaceAction(steps=0),
        "`steps` must be an integer of at least 1. Received: steps=0.",
    ),
    "action's reach": (
        lambda: ScaleSpaceAction(reach=-1),
        "`reach` must be an integer of at least 0. Received: reach=-1.",
    ),
    "action's zero scale": (
        lambda: ScaleSpaceAction(zero_scale=-0.5),
        "`zero_scale` must be a finite number above 0. Received: zero_scale=-0.5.",
    ),
    "features without scales": (
        lambda: error(lambda x: x, np.ones((1, 8, 8, 1)), ScaleSpaceAction()),
        "A ScaleSpaceAction moves the levels of features of 5 axes. Received: features of shape (1, 8, 8, 1). Name a layer before the scale pooling, or ask for kind='invariance'.",
    ),
    "nothing left": (
        lambda: ScaleSpaceAction(steps=2).on_features(np.ones((1, 2, 8, 9, 3))),
        "No level or position is left to count. Received: features of shape (1, 2, 8, 9, 3) for ScaleSpaceAction(base=2, steps=2, zero_scale=0.5, reach=0, margin=0, levels=None, data_format=None). Use more scales, larger images, fewer steps or a smaller margin.",
    ),
    "two margins": (
        lambda: error(
            lambda x: np.stack([x] * 3, 1), np.ones((1, 8, 8, 1)), ScaleSpaceAction(), margin=1
        ),
        "What acts on the features says itself which of their elements count. Received: margin=1. Give the margin to it: ScaleSpaceAction(margin=...).",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_words(what):
    action, sentence = REFUSED[what]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared
        action()
    assert str(caught.value) == sentence
