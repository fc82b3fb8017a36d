"""Fresh layers: as wide as a convolution, and no two banks or positions alike."""

import itertools

import keras
import numpy as np
import pytest
from backends import call, compute, to_numpy

from low_rank_local_connectivity import layers

INITIALIZERS = ["he_uniform", "glorot_uniform", "lecun_normal", "he_normal", "random_normal"]
SHAPE = (None, 9, 10, 32)


def convolution_scale(initializer):
    convolution = keras.layers.Conv2D(48, (3, 4), kernel_initializer=initializer)
    convolution.build(SHAPE)
    return to_numpy(convolution.kernel).std()


def assert_all_differ(parts):
    for one, other in itertools.combinations(parts, 2):
        assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("initializer", [*INITIALIZERS, "orthogonal"])
def test_banks_differ_and_are_as_wide_as_a_convolution(initializer):
    layer = layers.LowRankLocallyConnected2D(48, (3, 4), 5, kernel_initializer=initializer)
    layer.build(SHAPE)
    banks = np.split(to_numpy(layer.kernel_bases), 5, axis=-1)
    assert_all_differ(banks)
    for bank in banks:
        assert bank.std() == pytest.approx(convolution_scale(initializer), rel=0.05)


@pytest.mark.parametrize("initializer", [*INITIALIZERS, "orthogonal"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_positions_differ_and_are_as_wide_as_a_convolution(initializer, data_format):
    layer = layers.LocallyConnected2D(
        48, (3, 4), kernel_initializer=initializer, data_format=data_format
    )
    layer.build(SHAPE if data_format == "channels_last" else (None, 32, 9, 10))
    kernel = to_numpy(layer.kernel)
    assert_all_differ(kernel[::5])
    for position in kernel[::5]:
        assert position.std() == pytest.approx(convolution_scale(initializer), rel=0.05)


def test_the_initial_scale_of_keras_2_is_smaller_by_the_root_of_the_positions():
    kernels = []
    for fan in ("position", "kernel"):
        layer = layers.LocallyConnected2D(48, 3, kernel_initializer="he_uniform", fan=fan)
        layer.build(SHAPE)
        kernels.append(to_numpy(layer.kernel).std())
    assert kernels[0] / kernels[1] == pytest.approx(np.sqrt(7 * 8), rel=0.02)


@pytest.mark.parametrize("seeded", [True, False])
def test_banks_of_a_mixed_basis_differ(seeded):
    initializer = keras.initializers.HeUniform(seed=3 if seeded else None)
    layer = layers.LowRankLocallyConnected2D(
        48, [3, 3, 3], 3, padding="same", kernel_initializer=initializer
    )
    layer.build(SHAPE)
    assert_all_differ([to_numpy(bank) for bank in layer.kernel_bases])


def test_row_and_column_logits_of_one_initializer_differ():
    initializer = keras.initializers.RandomNormal(stddev=1.0, seed=3)
    layer = layers.LowRankLocallyConnected2D(6, 3, 5, combining_weights_initializer=initializer)
    layer.build((None, 9, 9, 4))
    assert_all_differ([to_numpy(part) for part in layer.logits])


@pytest.mark.parametrize("rank", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("axes", [None, (0,), (1,), ()])
def test_conv_init_weights_are_one_over_the_rank(rank, axes):
    layer = layers.LowRankLocallyConnected2D(6, 3, rank, additive_axes=axes)
    layer.build((None, 8, 11, 4))
    # Not on every processor to the last bit: its exponential decides.
    np.testing.assert_allclose(compute(layer.combining_weights), 1 / rank, rtol=3e-7)


@pytest.mark.parametrize("rank", [2, 5])
@pytest.mark.parametrize("plan", ["convolve_then_combine", "combine_then_convolve"])
def test_a_fresh_layer_is_the_convolution_with_the_mean_bank(rank, plan, rng):
    layer = layers.LowRankLocallyConnected2D(6, (3, 2), rank, implementation=plan)
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    outputs = call(layer, inputs)
    convolution = keras.layers.Conv2D(6, (3, 2))
    convolution.build(inputs.shape)
    mean = np.mean(np.split(to_numpy(layer.kernel_bases), rank, axis=-1), axis=0)
    convolution.set_weights([mean, np.zeros(6)])
    np.testing.assert_allclose(outputs, call(convolution, inputs), rtol=1e-5, atol=1e-5)


def test_preserve_variance_gives_the_mean_bank_a_convolution_s_scale():
    scales = []
    for preserve in (False, True):
        layer = layers.LowRankLocallyConnected2D(48, (3, 4), 5, preserve_variance=preserve)
        layer.build(SHAPE)
        scales.append(compute(layer.local_kernel)[0, 0].std())
    expected = convolution_scale("he_uniform")
    assert scales[1] == pytest.approx(expected, rel=0.05)
    assert scales[0] == pytest.approx(expected / np.sqrt(5), rel=0.05)


def test_layers_of_one_seed_are_equal_and_of_none_are_not():
    def draw(seed):
        initializer = keras.initializers.HeUniform(seed=seed)
        layer = layers.LowRankLocallyConnected2D(6, 3, 4, kernel_initializer=initializer)
        layer.build((None, 8, 11, 4))
        return to_numpy(layer.kernel_bases)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert np.abs(draw(None) - draw(None)).max() > 0.01
