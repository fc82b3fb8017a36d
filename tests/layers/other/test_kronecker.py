# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Kronecker convolutions and merged cascades against NumPy's Kronecker product and SciPy."""

import itertools
import math

import keras
import numpy as np
import pytest
from backends import WITHOUT_XLA, call, outputs_and_gradients, randomize, to_numpy
from keras import ops
from scipy import signal

from low_rank_local_connectivity import conversion, layers
from low_rank_local_connectivity.ops import (
    Windows,
    kronecker_kernel,
    merge_cascade,
    rearrange_kernel,
)
from low_rank_local_connectivity.plans import (
    KRONECKER,
    KroneckerRequest,
    choose,
    multiply_adds,
    names_of,
)

# The second step's stride and dilation along the rows, then the columns.
GEOMETRIES = {
    "no stride": (((2, 3, 2, 1), (3, 2, 3, 4)), (1, 1)),
    "a stride that divides the dilation": (((2, 1, 3, 2), (4, 3, 2, 2)), (2, 3)),
    "a stride without dilation": (((3, 2, 1, 4), (1, 1, 6, 1)), (2, 3)),
    "a stride prime to the dilation": (((2, 3, 2, 2), (2, 1, 3, 2)), (3, 1)),
    "a stride with a common divisor": (((2, 2, 6, 1), (4, 3, 1, 4)), (6, 2)),
    "rows by columns": (((5, 1, 1, 1), (1, 4, 6, 4)), (2, 1)),
    "channels only": (((1, 1, 2, 4), (1, 1, 3, 1)), (2, 1)),
}
SHAPE = (2, 14, 17, 6)


def make(factors, **arguments):
    (h1, w1, _, o1), (h2, w2, _, o2) = factors
    return layers.KroneckerConv2D(o1 * o2, (h1 * h2, w1 * w2), factors, **arguments)


def built(rng, factors, shape=SHAPE, **arguments):
    layer = make(factors, **arguments)
    layer.build(shape)
    randomize(layer, rng)
    return layer


def kronecker_sum(layer):
    """The layer's kernel by NumPy's Kronecker product, which takes arrays of any dimension."""
    pairs = zip(to_numpy(layer.coarse_kernel), to_numpy(layer.fine_kernel), strict=True)
    return sum(np.kron(coarse, fine) for coarse, fine in pairs)


def correlate(images, kernel, strides, padding):
    """SciPy's correlation of every image with every filter, padded as TensorFlow does."""
    if padding == "same":
        pads = []
        for size, taps, stride in zip(images.shape[1:3], kernel.shape, strides, strict=False):
            total = max((math.ceil(size / stride) - 1) * stride + taps - size, 0)
            pads.append((total // 2, total - total // 2))
        images = np.pad(images, ((0, 0), *pads, (0, 0)))
    outputs = [
        [signal.correlate(image, taps, "valid")[:, :, 0] for taps in np.moveaxis(kernel, -1, 0)]
        for image in images
    ]
    return np.moveaxis(outputs, 1, -1)[:, :: strides[0], :: strides[1]]


@pytest.mark.parametrize("rank", [1, 3])
def test_the_kernel_is_the_sum_of_numpy_s_kronecker_products(rank, rng):
    layer = built(rng, ((2, 3, 3, 5), (4, 1, 2, 1)), rank=rank)
    np.testing.assert_allclose(to_numpy(layer.kernel), kronecker_sum(layer), atol=1e-5)


@pytest.mark.parametrize("strategy", names_of(KRONECKER))
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_both_strategies_compute_the_correlation_with_that_kernel(geometry, padding, strategy, rng):
    factors, strides = GEOMETRIES[geometry]
    arguments = {"strides": strides, "padding": padding, "strategy": strategy}
    layer = built(rng, factors, rank=3, **arguments)
    images = rng.normal(size=SHAPE).astype("float32")
    expected = correlate(images, kronecker_sum(layer), strides, padding) + to_numpy(layer.bias)
    found = call(layer, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert layer.compute_output_shape(SHAPE) == expected.shape


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_both_strategies_have_the_same_gradients(geometry, rng):
    factors, strides = GEOMETRIES[geometry]
    images = rng.normal(size=SHAPE).astype("float32")
    found = []
    for strategy in names_of(KRONECKER):
        layer = built(np.random.default_rng(1), factors, strides=strides, rank=2, strategy=strategy)
        projection = np.random.default_rng(2).normal(size=layer.compute_output_shape(SHAPE))
        found.append(outputs_and_gradients(layer, images, projection.astype("float32"))[1])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("strategy", ["auto", "factored"])
@pytest.mark.parametrize(("padding", "strides"), [("valid", 2), ("same", 1), ("same", 2)])
def test_images_may_have_any_size(strategy, padding, strides, rng):
    if (strategy, padding, strides) == ("factored", "same", 2):
        pytest.skip("a strided window's padding depends on the size: refused, see below")
    layer = make(((3, 3, 1, 1), (2, 2, 6, 4)), padding=padding, strides=strides, strategy=strategy)
    model = keras.Sequential([keras.Input((None, None, 6)), layer])
    randomize(layer, rng)
    for size in ((14, 17), (11, 9)):
        images = rng.normal(size=(1, *size, 6)).astype("float32")
        expected = correlate(images, kronecker_sum(layer), (strides, strides), padding)
        found = model.predict(images, verbose=0) - to_numpy(layer.bias)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# Of the kernel of a convolution of 512 channels by 384 filters of 3 x 4 taps.
FAN_IN, FAN_OUT = 12 * 512, 12 * 384
WIDTHS = {
    "he_uniform": math.sqrt(2 / FAN_IN),
    "he_normal": math.sqrt(2 / FAN_IN),
    "glorot_uniform": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "lecun_normal": math.sqrt(1 / FAN_IN),
    "random_normal": 0.05,
    # Orthonormal columns, one for each filter.
    "orthogonal": math.sqrt(1 / FAN_IN),
}


@pytest.mark.parametrize("initializer", WIDTHS)
@pytest.mark.parametrize("rank", [1, 5])
def test_the_kernel_starts_as_wide_as_a_convolution_s(initializer, rank):
    factors = ((3, 1, 32, 24), (1, 4, 16, 16))
    layer = make(factors, rank=rank, kernel_initializer=initializer)
    layer.build((None, 9, 10, 512))
    expected = WIDTHS[initializer]
    assert to_numpy(layer.kernel).std() == pytest.approx(expected, rel=0.05)
    widths = [to_numpy(weight).std() for weight in (layer.coarse_kernel, layer.fine_kernel)]
    assert widths == pytest.approx([math.sqrt(expected / math.sqrt(rank))] * 2, rel=0.05)


@pytest.mark.once
def test_the_default_initial_variance_is_two_over_the_whole_kernel_s_fan_in():
    layer = make(((3, 1, 32, 24), (1, 4, 16, 16)), rank=2)
    layer.build((None, 9, 10, 512))
    assert to_numpy(layer.kernel).var() == pytest.approx(2 / (3 * 4 * 512), rel=0.1)


@pytest.mark.once
def test_factors_and_terms_start_apart_even_with_a_seed():
    factors = ((3, 2, 1, 4), (3, 2, 1, 4))
    layer = make(factors, rank=2, kernel_initializer=keras.initializers.HeUniform(seed=3))
    layer.build((None, 9, 10, 1))
    parts = [*to_numpy(layer.coarse_kernel), *to_numpy(layer.fine_kernel)]
    for one, other in itertools.combinations(parts, 2):
        assert np.abs(one - other).max() > 0.01


@pytest.mark.once
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_cost_model_counts_what_is_computed(geometry, rng, monkeypatch):
    factors, strides = GEOMETRIES[geometry]
    counted = []
    convolve = ops.conv

    def spy(inputs, kernel, **arguments):
        outputs = convolve(inputs, kernel, **arguments)
        counted.append(math.prod(outputs.shape[:-1]) * math.prod(kernel.shape))
        return outputs

    monkeypatch.setattr(ops, "conv", spy)
    sizes = (4, 5)
    for strategy in names_of(KRONECKER):
        counted.clear()
        layer = built(rng, factors, rank=2, strides=strides, strategy=strategy)
        # What the last windows end at: pixels beyond would be computed and not counted.
        axes = zip(sizes, strides, layer.kernel_size, strict=True)
        shape = (1, *(stride * (size - 1) + taps for size, stride, taps in axes), 6)
        assert layer.compute_output_shape(shape)[1:3] == sizes
        layer(rng.normal(size=shape).astype("float32"))
        costs = multiply_adds(factors, 2, strides, sizes)
        assert sum(counted) == pytest.approx(costs[strategy] * math.prod(sizes))
        endless = multiply_adds(factors, 2, strides)
        many = multiply_adds(factors, 2, strides, (10**6, 10**6))
        assert many[strategy] == pytest.approx(endless[strategy], rel=1e-4)


@pytest.mark.once
def test_small_images_and_many_terms_are_convolved_with_the_whole_kernel():
    factors = ((9, 9, 1, 1), (3, 3, 4, 4))
    windows = Windows((27, 27), (1, 1), (1, 1), "valid")

    def chosen(backend, sizes=(None, None), rank=1):
        shape = (8, *sizes, 4)
        asked = KroneckerRequest(windows, shape, 4, rank, backend=backend, factors=factors)
        return choose(KRONECKER, asked).name

    for backend in ("tensorflow", "torch"):
        assert chosen(backend) == "factored"
        assert chosen(backend, (27, 28)) == "dense"
        assert chosen(backend, rank=99) == "dense"
    assert chosen("jax") == "dense"
    layer = make(factors)
    if keras.backend.backend() != "jax":
        assert layer.chosen_strategy((64, 65)) == "factored"
    assert layer.chosen_strategy((27, 28)) == "dense"


CONV2D_CASES = {
    "valid": {"strides": (3, 2), "activation": "tanh"},
    "same": {"padding": "same", "strides": (1, 2)},
    "without bias": {"padding": "same", "use_bias": False},
}
FACTORS = ((2, 3, 1, 4), (2, 1, 6, 1))


@pytest.mark.parametrize("strategy", names_of(KRONECKER))
@pytest.mark.parametrize("name", CONV2D_CASES)
def test_the_convolution_it_becomes_computes_the_same(name, strategy, rng):
    layer = built(rng, FACTORS, rank=2, name="this", strategy=strategy, **CONV2D_CASES[name])
    layer.trainable = False
    conv = layer.to_conv2d()
    images = rng.normal(size=SHAPE).astype("float32")
    np.testing.assert_allclose(call(layer, images), call(conv, images), atol=3e-5)
    assert (type(conv), conv.name, conv.trainable) == (keras.layers.Conv2D, "this", False)
    assert conv.dtype_policy.name == layer.dtype_policy.name


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", CONV2D_CASES)
def test_with_all_terms_it_is_the_convolution_it_comes_from(name, data_format, rng):
    if data_format == "channels_first" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's convolutions on a CPU are channels-last")
    shape = SHAPE if data_format == "channels_last" else (2, 6, 14, 17)
    conv = keras.layers.Conv2D(4, (4, 3), data_format=data_format, **CONV2D_CASES[name])
    conv.build(shape)
    randomize(conv, rng)
    conv.trainable = False
    layer = layers.KroneckerConv2D.from_conv2d(conv, FACTORS, rank=12)
    images = rng.normal(size=shape).astype("float32")
    np.testing.assert_allclose(call(layer, images), call(conv, images), atol=1e-4)
    assert (layer.name, layer.trainable) == (conv.name, False)
    back = layer.to_conv2d()
    np.testing.assert_allclose(call(back, images), call(conv, images), atol=1e-4)


@pytest.mark.once
@pytest.mark.parametrize("rank", [1, 5, 11])
def test_the_nearest_kernel_misses_by_the_singular_values_that_are_left_out(rank, rng):
    conv = keras.layers.Conv2D(4, (4, 3))
    conv.build(SHAPE)
    randomize(conv, rng)
    kernel = to_numpy(conv.kernel).astype("float64")
    (h2, w2, c2, o2) = FACTORS[1]
    blocks = [
        kernel[i * h2 :, j * w2 :, c * c2 :, e * o2 :][:h2, :w2, :c2, :o2].ravel()
        for i, j, c, e in itertools.product(*map(range, FACTORS[0]))
    ]
    squares = np.linalg.eigvalsh(np.transpose(blocks) @ np.array(blocks))[::-1]
    error = layers.KroneckerConv2D.approximation_error(conv, FACTORS, rank)
    assert error == pytest.approx(math.sqrt(squares[rank:].sum()), rel=1e-6)
    layer = layers.KroneckerConv2D.from_conv2d(conv, FACTORS, rank)
    assert np.linalg.norm(kernel - kronecker_sum(layer)) == pytest.approx(error, rel=1e-5)


@pytest.mark.once
def test_a_kernel_of_two_terms_is_found_with_two(rng):
    truth = built(rng, FACTORS, rank=2)
    conv = truth.to_conv2d()
    found = layers.KroneckerConv2D.from_conv2d(conv, FACTORS, rank=2)
    np.testing.assert_allclose(to_numpy(found.kernel), to_numpy(truth.kernel), atol=1e-5)
    assert layers.KroneckerConv2D.approximation_error(conv, FACTORS, 2) < 1e-5
    assert layers.KroneckerConv2D.approximation_error(conv, FACTORS, 1) > 0.1


@pytest.mark.once
def test_a_bfloat16_convolution_can_be_factorized():
    conv = keras.layers.Conv2D(4, (4, 3), dtype="bfloat16")
    conv.build(SHAPE)
    layer = layers.KroneckerConv2D.from_conv2d(conv, FACTORS, rank=12)
    assert layer.dtype_policy.name == "bfloat16"
    np.testing.assert_allclose(
        to_numpy(layer.kernel).astype("float32"),
        to_numpy(conv.kernel).astype("float32"),
        atol=0.02,
    )


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "dense" else [])
        for name in names_of(KRONECKER)
    ],
)
def test_it_learns_a_kernel_of_its_rank(strategy, rng):
    truth = built(rng, ((3, 3, 1, 1), (2, 2, 2, 3)), (None, 12, 13, 2), use_bias=False)
    images = rng.normal(size=(64, 12, 13, 2)).astype("float32")
    targets = call(truth, images)
    layer = make(
        ((3, 3, 1, 1), (2, 2, 2, 3)),
        strategy=strategy,
        kernel_initializer=keras.initializers.HeUniform(seed=1),
    )
    model = keras.Sequential([keras.Input((12, 13, 2)), layer])
    model.compile(keras.optimizers.Adam(0.05), "mse", **WITHOUT_XLA)
    losses = model.fit(images, targets, epochs=25, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.01 * losses[0]


def cascade(images, kernels, dilations, padding):
    """Applies one convolution after another on the backend that runs."""
    for kernel, dilation in zip(kernels, dilations, strict=True):
        if padding == "full":
            spans = [rate * (taps - 1) for rate, taps in zip(dilation, kernel.shape, strict=False)]
            images = ops.pad(images, ((0, 0), *((span, span) for span in spans), (0, 0)))
        images = ops.conv(
            images,
            kernel,
            padding="same" if padding == "same" else "valid",
            dilation_rate=dilation,
            data_format="channels_last",
        )
    return to_numpy(images)


def drawn_cascade(rng, sizes, channels):
    return [
        rng.normal(size=(*size, *pair)).astype("float32") / math.sqrt(math.prod(size) * pair[0])
        for size, pair in zip(sizes, itertools.pairwise(channels), strict=True)
    ]


def test_a_cascade_with_dilations_1_a_a2_is_a_kronecker_product_fine_kernel_last(rng):
    kernels = drawn_cascade(rng, [(3, 2)] * 3, (1, 1, 1, 1))
    flat = [kernel[:, :, 0, 0] for kernel in kernels]
    merged = to_numpy(merge_cascade(kernels, [(1, 1), (3, 2), (9, 4)]))
    expected = np.kron(np.kron(flat[2], flat[1]), flat[0])
    np.testing.assert_allclose(merged[:, :, 0, 0], expected, atol=1e-6)
    reverse = np.kron(np.kron(flat[0], flat[1]), flat[2])
    assert np.abs(expected - reverse).max() > 0.01
    coarse = np.kron(flat[2], flat[1])[None, :, :, None, None]
    spelled = kronecker_kernel(coarse, flat[0][None, :, :, None, None])
    np.testing.assert_allclose(to_numpy(spelled)[:, :, 0, 0], expected, atol=1e-6)


CASCADES = {
    "one channel": ([(3, 3)] * 3, (1, 1, 1, 1), [(1, 1), (3, 3), (9, 9)]),
    "more channels": ([(3, 3)] * 2, (2, 5, 3), [(1, 1), (3, 3)]),
    "other dilations": ([(3, 2), (1, 4), (2, 3)], (2, 3, 4, 5), [(2, 1), (1, 3), (2, 5)]),
}


@pytest.mark.parametrize("padding", ["valid", "full"])
@pytest.mark.parametrize("name", CASCADES)
def test_a_cascade_without_clipped_responses_is_its_merged_kernel(name, padding, rng):
    sizes, channels, dilations = CASCADES[name]
    kernels = drawn_cascade(rng, sizes, channels)
    images = rng.normal(size=(2, 29, 31, channels[0])).astype("float32")
    expected = cascade(images, kernels, dilations, padding)
    merged = merge_cascade(kernels, dilations)
    found = cascade(images, [merged], [(1, 1)], padding)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    mode = {"valid": "valid", "full": "full"}[padding]
    taps = to_numpy(merged)[:, :, 0, 0]
    if channels == (1, 1, 1, 1):
        alone = signal.correlate2d(images[0, :, :, 0], taps, mode)
        np.testing.assert_allclose(found[0, :, :, 0], alone, rtol=0, atol=1e-5)


def test_multi_channel_cascades_multiply_matrices_over_the_channels(rng):
    first, second = drawn_cascade(rng, [(3, 3)] * 2, (2, 5, 4))
    merged = to_numpy(merge_cascade([first, second], [(1, 1), (3, 3)]))
    for i, j, k, m in itertools.product(range(3), repeat=4):
        expected = first[k, m] @ second[i, j]
        np.testing.assert_allclose(merged[3 * i + k, 3 * j + m], expected, atol=1e-6)


def test_with_same_padding_a_cascade_is_its_merged_kernel_only_away_from_the_border(rng):
    sizes, channels, dilations = CASCADES["one channel"]
    kernels = drawn_cascade(rng, sizes, channels)
    images = rng.normal(size=(1, 41, 43, 1)).astype("float32")
    chain = cascade(images, kernels, dilations, "same")
    one = cascade(images, [merge_cascade(kernels, dilations)], [(1, 1)], "same")
    difference = np.abs(chain - one)
    # 3 + 9: what the windows of the second and the third convolution reach.
    assert difference[:, 12:-12, 12:-12].max() < 1e-5
    assert difference[:, 11:-11, 11:-11].max() > 1e-3


def chain_of(rng, *arguments, shape=(None, 29, 31, 2), **shared):
    made = []
    for values in arguments:
        layer = keras.layers.Conv2D(**{**shared, **values})
        layer.build(shape)
        randomize(layer, rng)
        shape = layer.compute_output_shape(shape)
        made.append(layer)
    return made


CHAINS = {
    "dilated": [
        {"filters": 3, "kernel_size": (3, 2)},
        {"filters": 5, "kernel_size": 3, "dilation_rate": (2, 3), "use_bias": False},
        {"filters": 4, "kernel_size": (2, 3), "dilation_rate": 4, "activation": "tanh"},
    ],
    "strided": [
        {"filters": 3, "kernel_size": 3, "strides": (2, 1)},
        {"filters": 5, "kernel_size": 1, "padding": "same"},
        {"filters": 4, "kernel_size": (2, 3), "strides": (1, 3)},
        {"filters": 3, "kernel_size": (3, 2), "strides": 2},
    ],
    "without biases": [
        {"filters": 3, "kernel_size": 3, "use_bias": False},
        {"filters": 4, "kernel_size": 2, "use_bias": False},
    ],
    "one": [{"filters": 3, "kernel_size": 3, "dilation_rate": 2}],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_of_linear_convolutions_becomes_one(name, rng):
    chain = chain_of(rng, *CHAINS[name])
    images = rng.normal(size=(2, 29, 31, 2)).astype("float32")
    expected = images
    for layer in chain:
        expected = call(layer, expected)
    found = conversion.merge_cascade(chain)
    np.testing.assert_allclose(
        call(found, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    assert (type(found), found.name) == (keras.layers.Conv2D, chain[-1].name)
    assert found.use_bias == any(layer.use_bias for layer in chain)


@pytest.mark.parametrize("strides", [(1, 1, 1), ((2, 1), 1, (1, 3)), (2, 1, 3)])
def test_a_chain_of_full_convolutions_becomes_one(strides, rng):
    shape, chain = (None, 9, 11, 2), []
    for step, filters, size, dilation in zip(
        strides, (3, 5, 4), ((3, 2), 2, (2, 3)), (1, (2, 3), 1), strict=True
    ):
        layer = layers.FullConv2D(
            filters, size, strides=step, dilation_rate=dilation, use_bias=filters == 4
        )
        layer.build(shape)
        randomize(layer, rng)
        shape = layer.compute_output_shape(shape)
        chain.append(layer)
    expected = images = rng.normal(size=(2, 9, 11, 2)).astype("float32")
    for layer in chain:
        expected = call(layer, expected)
    found = conversion.merge_cascade(chain)
    assert type(found) is layers.FullConv2D
    np.testing.assert_allclose(
        call(found, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def test_a_chain_with_its_channels_first_becomes_one(rng):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's convolutions on a CPU are channels-last")
    chain = chain_of(rng, *CHAINS["dilated"], shape=(None, 2, 29, 31), data_format="channels_first")
    images = rng.normal(size=(2, 2, 29, 31)).astype("float32")
    expected = call(chain[2], call(chain[1], call(chain[0], images)))
    found = call(conversion.merge_cascade(chain), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.once
def test_pictures_of_kernels_are_drawn(tmp_path, rng):
    pytest.importorskip("matplotlib")
    from low_rank_local_connectivity.experiments.studies import kronecker_pictures as pictures

    pictures.draw(tmp_path / "kernels.png")
    assert (tmp_path / "kernels.png").stat().st_size > 1000
    for family in pictures.FAMILIES:
        assert family.draw(rng).shape == (27, 27)
    factors = ((9, 9, 1, 1), (3, 3, 1, 1))
    matrix = rearrange_kernel(pictures.three_factors(rng)[:, :, None, None], factors)
    assert np.linalg.matrix_rank(matrix) == 1


def convolution(build=True, **changes):
    layer = keras.layers.Conv2D(**{"filters": 4, "kernel_size": (4, 3), "name": "this", **changes})
    if build:
        layer.build((None, 9, 10, 6))
    return layer


def broken():
    layer = convolution()
    layer.kernel.assign(np.full(layer.kernel.shape, np.nan))
    return layer


def from_conv2d(conv, factors=FACTORS, rank=1):
    return layers.KroneckerConv2D.from_conv2d(conv, factors, rank)


def full_convolution(**arguments):
    layer = layers.FullConv2D(6, 3, name="this", **arguments)
    layer.build((None, 9, 9, 6))
    return layer


REFUSED = {
    "factors of another form": (
        lambda: layers.KroneckerConv2D(4, 3, ((3, 3, 1), (1, 1, 2, 4))),
        "`factors` must be a pair of shapes (rows, columns, input channels, filters), each a tuple of 4 integers of at least 1. Received: factors=((3, 3, 1), (1, 1, 2, 4)).",
    ),
    "one factor": (
        lambda: layers.KroneckerConv2D(4, 3, 3),
        "`factors` must be a pair of shapes (rows, columns, input channels, filters), each a tuple of 4 integers of at least 1. Received: factors=3.",
    ),
    "a factor of 0": (
        lambda: layers.KroneckerConv2D(4, 3, ((3, 3, 1, 0), (1, 1, 2, 4))),
        "`factors` must be a pair of shapes (rows, columns, input channels, filters), each a tuple of 4 integers of at least 1. Received: factors=((3, 3, 1, 0), (1, 1, 2, 4)).",
    ),
    "another product": (
        lambda: layers.KroneckerConv2D(6, (4, 5), ((2, 5, 1, 2), (2, 2, 3, 3))),
        "The rows, columns and filters of `factors` must multiply to those of the kernel. Received: factors=((2, 5, 1, 2), (2, 2, 3, 3)), which multiply to kernel_size=(4, 10) and filters=6, with kernel_size=(4, 5) and filters=6.",
    ),
    "rank of 0": (
        lambda: make(FACTORS, rank=0),
        "`rank` must be an integer of at least 1. Received: rank=0.",
    ),
    "rank too high": (
        lambda: make(FACTORS, rank=13),
        "`rank` must be at most the number of parameters in a term's smaller kernel, with which every kernel can be written: 12 for factors=((2, 3, 1, 4), (2, 1, 6, 1)). Received: rank=13.",
    ),
    "padding": (
        lambda: make(FACTORS, padding="causal"),
        "`padding` must be one of 'valid', 'same', 'circular', 'reflect', 'replicate', or a tuple with a pair (before, after) of integers of at least 0 for each spatial axis, here 2. Received: padding='causal'.",
    ),
    "strategy": (
        lambda: make(FACTORS, strategy="fast"),
        "`strategy` must be one of 'auto', 'dense', 'factored'. Received: strategy='fast'.",
    ),
    "zeros": (
        lambda: make(FACTORS, kernel_initializer="zeros"),
        "`kernel_initializer` must not be zeros: if both factors of a product are 0, so are both gradients, and it never changes. Received: kernel_initializer='zeros'.",
    ),
    "channels": (
        lambda: make(FACTORS, name="layer").build((None, 9, 10, 5)),
        "The channels of `factors` must multiply to those of the input of layer 'layer'. Received: factors=((2, 3, 1, 4), (2, 1, 6, 1)), with 1 * 6 channels, and input_shape=(None, 9, 10, 5), with 5.",
    ),
    "unknown channels": (
        lambda: make(FACTORS).build((None, 9, 10, None)),
        "The number of channels of the input must be known when a layer is built. Received: input_shape=(None, 9, 10, None) with data_format='channels_last'.",
    ),
    "small input": (
        lambda: make(FACTORS, name="layer").build((None, 3, 10, 6)),
        "The kernel must fit into the input of layer 'layer': its windows span (4, 3) elements. Received: spatial input size (3, 10) with padding='valid'. Use a smaller kernel, or padding='same'.",
    ),
    "unknown size": (
        lambda: make(FACTORS, padding="same", strides=2, strategy="factored").build(
            (None, None, 10, 6)
        ),
        "The padding of a strided window under padding='same' depends on the input's size, so that size must be known. Received: None. Give the input a static size.",
    ),
    "not built": (
        lambda: make(FACTORS, name="layer").to_conv2d(),
        "Layer 'layer' must be built before to_conv2d() is called: call it on inputs, or call build(input_shape).",
    ),
    "from another kind": (
        lambda: from_conv2d(keras.layers.Dense(3)),
        "from_conv2d() takes a Conv2D with groups=1 and dilation_rate=1. Received: Dense.",
    ),
    "from dilation": (
        lambda: from_conv2d(convolution(dilation_rate=(1, 2))),
        "from_conv2d() takes a Conv2D with groups=1 and dilation_rate=1. Received: Conv2D with groups=1 and dilation_rate=(1, 2).",
    ),
    "error of groups": (
        lambda: layers.KroneckerConv2D.approximation_error(convolution(groups=2), FACTORS),
        "approximation_error() takes a Conv2D with groups=1 and dilation_rate=1. Received: Conv2D with groups=2 and dilation_rate=(1, 1).",
    ),
    "from what is not built": (
        lambda: from_conv2d(convolution(build=False)),
        "What from_conv2d() is given must be built. Received: 'this', which is not. Call it on inputs first, or its build(input_shape).",
    ),
    "from NaN": (
        lambda: from_conv2d(broken()),
        "from_conv2d() needs finite weights. Received: layer 'this', whose kernel holds NaN or infinity. Take an earlier checkpoint.",
    ),
    "from another shape": (
        lambda: from_conv2d(convolution(), ((2, 3, 1, 4), (2, 1, 2, 1))),
        "`factors` must multiply to the kernel of layer 'this', axis by axis. Received: factors=((2, 3, 1, 4), (2, 1, 2, 1)), which multiply to (4, 3, 2, 4), for a kernel of shape (4, 3, 6, 4).",
    ),
    "error of a rank too high": (
        lambda: layers.KroneckerConv2D.approximation_error(convolution(), FACTORS, 13),
        "`rank` must be at most the number of parameters in a term's smaller kernel, with which every kernel can be written: 12 for factors=((2, 3, 1, 4), (2, 1, 6, 1)). Received: rank=13.",
    ),
    "no kernels": (
        lambda: merge_cascade([], []),
        "merge_cascade() takes at least one kernel, and one dilation for each. Received: 0 kernels and 0 dilations.",
    ),
    "kernels that do not follow": (
        lambda: merge_cascade([np.ones((3, 3, 1, 2)), np.ones((3, 2, 3, 1))], [(1, 1), (3, 3)]),
        "Every kernel of a cascade must have as many input channels as the one before has filters. Received: kernels of shapes [(3, 3, 1, 2), (3, 2, 3, 1)].",
    ),
    "no layers": (
        lambda: conversion.merge_cascade([]),
        "merge_cascade() takes at least one layer. Received: none.",
    ),
    "another layer": (
        lambda: conversion.merge_cascade([convolution(), keras.layers.ReLU()]),
        "merge_cascade() takes Conv2D layers with groups=1, or FullConv2D layers. Received: ReLU.",
    ),
    "groups": (
        lambda: conversion.merge_cascade([convolution(groups=2)]),
        "merge_cascade() takes Conv2D layers with groups=1, or FullConv2D layers. Received: Conv2D with groups=2.",
    ),
    "a layer that is not built": (
        lambda: conversion.merge_cascade([convolution(build=False)]),
        "What merge_cascade() is given must be built. Received: 'this', which is not. Call it on inputs first, or its build(input_shape).",
    ),
    "same padding": (
        lambda: conversion.merge_cascade([convolution(padding="same")]),
        "One convolution can stand for a cascade only if its layers have padding='valid': with padding='same' a layer reads zeros beyond the border where one convolution reads responses to the image, so outputs near the border would differ. Received: layer 'this' with padding='same'. Pad the input of the first layer instead, or use FullConv2D layers.",
    ),
    "an activation between": (
        lambda: conversion.merge_cascade([convolution(activation="relu"), convolution()]),
        "Every layer of a cascade but the last must be linear: what an activation does no convolution can. Received: layer 'this' with activation='relu'.",
    ),
    "layers of two kinds": (
        lambda: conversion.merge_cascade([convolution(), full_convolution()]),
        "The layers of a cascade must be all Conv2D or all FullConv2D, since one layer pads in one way. Received: Conv2D and FullConv2D.",
    ),
    "a bias between full convolutions": (
        lambda: conversion.merge_cascade([full_convolution(use_bias=True), full_convolution()]),
        "Full convolutions can be merged only with padding_value='zeros', and with a bias in the last one only: the next one's padding is not the response to zeros otherwise. Received: layer 'this' with padding_value='zeros', use_bias=True.",
    ),
    "full convolutions behind a background": (
        lambda: conversion.merge_cascade([full_convolution(padding_value="background")]),
        "Full convolutions can be merged only with padding_value='zeros', and with a bias in the last one only: the next one's padding is not the response to zeros otherwise. Received: layer 'this' with padding_value='background', use_bias=False.",
    ),
    "layers that do not follow": (
        lambda: conversion.merge_cascade([convolution(name="first"), convolution()]),
        "In a cascade each layer must take the channels that the one before gives, in the same data format. Received: 'first' with 4 filters (channels_last) before 'this' with 6 input channels (channels_last).",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(case):
    act, sentence = REFUSED[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == sentence
