"""Data types beyond those of images in float32: integers anywhere, and every digit of float64."""

import re

import keras
import numpy as np
import pytest
import reference
from backends import all_digits, call, outputs_and_gradients, randomize, to_numpy
from cases import CASES
from keras import ops

from low_rank_local_connectivity import layers
from low_rank_local_connectivity import ops as our_ops
from low_rank_local_connectivity.ops.windows import Windows

WHOLE = ("bool", "int8", "int32", "int64", "uint8")
IMAGES = (2, 5, 7, 4)


def whole_numbers(rng, shape, dtype="uint8"):
    return rng.integers(0, 2 if dtype == "bool" else 100, size=shape).astype(dtype)


def assert_same(found, expected):
    found, expected = to_numpy(found), to_numpy(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", WHOLE)
def test_conv2d_gives_the_same_for_integers_as_rank_1(dtype, rng):
    conv = keras.layers.Conv2D(6, 3)
    layer = layers.LowRankLocallyConnected2D(6, 3, spatial_rank=1, use_spatial_bias=False)
    images = whole_numbers(rng, IMAGES, dtype)
    layer.build(IMAGES)
    conv.build(IMAGES)
    conv.set_weights(layer.get_weights())
    expected = to_numpy(conv(images.astype("float32")))
    np.testing.assert_allclose(to_numpy(layer(images)), expected, rtol=1e-5, atol=1e-5)


def test_coordinates_and_biases_are_added_to_integers_as_to_floats():
    images = np.full((1, 3, 5, 1), 7, "int32")
    with_coordinates = to_numpy(layers.AddCoordinates2D()(images))
    np.testing.assert_allclose(with_coordinates[0, 0, 1], [7.0, -1.0, -0.5])
    bias = layers.SpatialBias(bias_initializer=keras.initializers.Constant(-0.6))
    np.testing.assert_allclose(to_numpy(bias(images)), np.full(images.shape, 5.8), rtol=1e-6)


def test_integers_reach_a_layer_inside_time_distributed_as_floats(rng):
    frames = whole_numbers(rng, (2, 3, 5, 7, 4))
    for inner in (
        layers.LowRankLocallyConnected2D(6, 3, spatial_rank=2),
        layers.AddCoordinates2D(),
    ):
        layer = keras.layers.TimeDistributed(inner)
        layer.build(frames.shape)
        np.testing.assert_array_equal(call(layer, frames), call(layer, frames.astype("float32")))


def test_a_stateless_call_takes_integers(rng):
    layer = layers.SpatialBias(bias_initializer="random_normal")
    images = whole_numbers(rng, IMAGES)
    layer.build(IMAGES)
    found, _ = layer.stateless_call(layer.trainable_variables, [], ops.convert_to_tensor(images))
    assert_same(found, layer(images.astype("float32")))


def test_the_second_input_may_be_of_integers(rng):
    images = whole_numbers(rng, IMAGES)
    routing = whole_numbers(rng, (2, 5))
    layer = layers.CondConv2D(6, 3, num_experts=5, routing=None)
    expected = layer(images.astype("float32"), routing_weights=routing.astype("float32"))
    assert_same(layer(images, routing_weights=routing), expected)
    filters = whole_numbers(rng, (*IMAGES[:3], 6), "int16")
    layer = layers.DynamicLocalFilter2D((3, 2), use_generator=False)
    expected = layer(images.astype("float32"), filters=filters.astype("float32"))
    assert_same(layer(images, filters=filters), expected)


def test_wrappers_take_integers(rng):
    levels = [whole_numbers(rng, IMAGES), whole_numbers(rng, (2, 2, 3, 4))]
    layer = layers.OverLevels(keras.layers.BatchNormalization())
    expected = layer([level.astype("float32") for level in levels], training=True)
    for one, other in zip(layer(levels, training=True), expected, strict=True):
        assert_same(one, other)
    layer = layers.WithBackground(layers.FullConv2D(6, 3, padding_value="background"), value=0.3)
    images = whole_numbers(rng, IMAGES)
    assert_same(layer(images), layer(images.astype("float32")))


def test_methods_that_read_inputs_take_integers(rng):
    images = whole_numbers(rng, IMAGES)
    for layer, method in (
        (layers.LowRankLocallyConnected2D(6, 3, 2, input_dependent=True), "combining_weights"),
        (layers.CondConv2D(6, 3, num_experts=5), "routing_weights"),
        (layers.DeformableConv2D(6, 3, modulated=False), "offsets_and_mask"),
        (layers.SpatialTransformer2D(keras.layers.Flatten()), "transformations"),
    ):
        layer.build(IMAGES)
        randomize(layer, rng, scale=0.01)
        read = getattr(layer, method)
        found, expected = read(images), read(images.astype("float32"))
        pair = (found[0], expected[0]) if isinstance(found, tuple) else (found, expected)
        assert_same(*pair)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_integers_are_computed_in_the_short_type_of_a_mixed_policy(policy, rng):
    images = whole_numbers(rng, IMAGES)
    for layer in (
        layers.LowRankLocallyConnected2D(6, 3, spatial_rank=2, dtype=policy),
        layers.LocallyConnected2D(6, 3, dtype=policy),
    ):
        found = layer(images)
        assert keras.backend.standardize_dtype(found.dtype) == layer.compute_dtype
        expected = layer(images.astype("float32"))
        assert_same(ops.cast(found, "float32"), ops.cast(expected, "float32"))


FIRST = list({case.layer: case for case in reversed(CASES)}.values())
FIRST = [case for case in FIRST if case.layer != "SpatialTransformer2D"]


@pytest.mark.parametrize("case", FIRST, ids=str)
@pytest.mark.parametrize("dtype", ["string", "complex64"])
def test_a_layer_refuses_what_are_no_real_numbers(case, dtype):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras itself refuses them here, for Conv2D too")
    import tensorflow as tf

    layer = case.make()
    layer.build(case.input_shape)
    message = (
        f"`inputs` of layer {layer.name!r} must be tensors of real numbers. Received: inputs of "
        f"shape {case.input_shape} and dtype {dtype}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(tf.zeros(case.input_shape, dtype))


def test_floats_stay_as_they_are_without_autocast(rng):
    images = rng.normal(size=IMAGES).astype("float16")
    layer = layers.GroupPooling2D(autocast=False)
    outputs = layer(ops.convert_to_tensor(images[..., None]))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"


WINDOWS = Windows((3, 2), (1, 1), (1, 1), "valid")
PUBLIC_OPS = {
    "sample_affine": lambda x, f: our_ops.sample_affine(x, f((2, 2, 3)) / 100),
    "sample_bilinear": lambda x, f: our_ops.sample_bilinear(x, f((2, 6)) / 9, f((2, 6)) / 9),
    "local_convolution": lambda x, f: our_ops.local_convolution(x, f((18, 24, 5)), WINDOWS),
    "combine_then_convolve": lambda x, f: our_ops.combine_then_convolve(
        x, f((3, 2, 4, 10)), f((3, 6, 2)), WINDOWS
    ),
    "convolve_then_combine": lambda x, f: our_ops.convolve_then_combine(
        x, f((3, 2, 4, 10)), f((1, 3, 6, 2)), WINDOWS
    ),
    "convolve_then_combine_mixed": lambda x, f: our_ops.convolve_then_combine_mixed(
        x, [f((3, 2, 4, 5))] * 2, f((1, 3, 6, 2)), [WINDOWS] * 2
    ),
    "deform_conv2d": lambda x, f: our_ops.deform_conv2d(
        x, f((3, 2, 4, 5)), f((2, 3, 6, 12)) / 99, f((2, 3, 6, 6)), data_format="channels_last"
    ),
    "deformable_scale_correlation": lambda x, f: our_ops.deformable_scale_correlation(
        [x], f((1, 3, 3, 4, 5)), [f((2, 5, 7, 18)) / 99], [1]
    )[0],
    "kronecker_convolution": lambda x, f: our_ops.kronecker_convolution(
        x, f((1, 3, 1, 2, 5)), f((1, 1, 2, 2, 3))
    ),
    "resize_aligned": lambda x, _: our_ops.resize_aligned(x, (9, 4)),
    "scale_correlation": lambda x, f: our_ops.scale_correlation([x], f((1, 3, 2, 4, 5)), [1])[0],
    "expand_kernel": lambda x, _: our_ops.expand_kernel(
        ops.reshape(x[0, :, :5], (5, 5, 1, 4, 1)), 8
    ),
    "merge_cascade": lambda x, _: our_ops.merge_cascade(
        [x, ops.transpose(x, (0, 1, 3, 2))], [(1, 1), (2, 2)]
    ),
    "normalize_logits": lambda x, _: our_ops.normalize_logits(x, "norm"),
}


@pytest.mark.parametrize("name", PUBLIC_OPS)
def test_operations_compute_integers_as_floats(name, rng):
    images = whole_numbers(rng, IMAGES)

    def floats(shape):
        return ops.convert_to_tensor(
            np.random.default_rng(1).integers(0, 100, size=shape).astype("float32")
        )

    found, expected = (
        PUBLIC_OPS[name](ops.convert_to_tensor(values), floats)
        for values in (images, images.astype("float32"))
    )
    assert_same(found, expected)


# What follows compares float64 with definitions in NumPy, to more digits than float32 has.
TINY = {"rtol": 1e-12, "atol": 1e-12}


def in_float64(layer, rng, inputs, **arguments):
    """Returns a layer's outputs and its weights by path, all of them random."""
    with all_digits():
        layer.build(inputs.shape)
        randomize(layer, rng)
        outputs = to_numpy(layer(inputs, **arguments))
        paths = {w.path.split("/", 1)[-1]: to_numpy(w.value) for w in layer.weights}
    assert outputs.dtype == "float64"
    return outputs, paths


def test_local_filters_have_every_digit(rng):
    inputs = rng.normal(size=IMAGES)
    layer = layers.LocallyConnected2D(6, (3, 2), dtype="float64")
    outputs, weights = in_float64(layer, rng, inputs)
    kernel = weights["kernel"].reshape(3, 6, 3, 2, 4, 6)
    expected = reference.local_convolution(inputs, kernel, (1, 1), (1, 1), "valid")
    np.testing.assert_allclose(outputs, expected + weights["bias"], **TINY)


@pytest.mark.parametrize("plan", ["combine_then_convolve", "convolve_then_combine"])
@pytest.mark.parametrize("how", ["softmax", "norm"])
def test_low_rank_filters_have_every_digit(plan, how, rng):
    inputs = rng.normal(size=IMAGES)
    layer = layers.LowRankLocallyConnected2D(
        6,
        (3, 2),
        spatial_rank=5,
        use_spatial_bias=False,
        normalize_weights=how,
        implementation=plan,
        dtype="float64",
    )
    outputs, weights = in_float64(layer, rng, inputs)
    rows, columns = weights["combining_weights_row"], weights["combining_weights_col"]
    mix = reference.normalize(rows[:, None] + columns, how)
    banks = np.split(weights["kernel_bases"], 5, axis=-1)
    mix = np.broadcast_to(mix, (2, *mix.shape))
    expected = reference.low_rank_local_convolution(
        inputs, banks, mix, (1, 1), [(1, 1)] * 5, "valid"
    )
    np.testing.assert_allclose(outputs, expected + weights["bias"], **TINY)


def test_predicted_logits_have_every_digit(rng):
    inputs = rng.normal(size=(2, 8, 11, 4))
    layer = layers.InputDependentCombiningWeights(5, (3, 13), dtype="float64")
    outputs, weights = in_float64(layer, rng, inputs)
    expected = reference.predicted_logits(inputs, weights, (3, 13), (1, 2, 4, 8))
    np.testing.assert_allclose(outputs, expected, **TINY)


def test_coordinates_have_every_digit():
    with all_digits():
        layer = layers.AddCoordinates2D(with_radius=True, dtype="float64")
        found = to_numpy(layer(np.zeros((1, 4, 8, 1))))[0, ..., 1:]
    rows, columns = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 8), indexing="ij")
    expected = np.stack([rows, columns, np.hypot(rows, columns)], axis=-1)
    np.testing.assert_allclose(found, expected, **TINY)


def test_scale_spaces_have_every_digit(rng):
    inputs = rng.normal(size=(1, 9, 7, 2))
    with all_digits():
        gaussian = layers.ScaleSpaceLifting2D(2, dtype="float64")(inputs)
        bilinear = layers.ScaleSpaceLifting2D(2, 3, method="bilinear", pyramid=True)
        bilinear.dtype_policy = "float64"
        smoothed, reduced = to_numpy(gaussian)[0, 1], to_numpy(bilinear(inputs)[1])
    kernel = our_ops.discrete_gaussian(our_ops.level_variances(2, 2, 0.5)[1])
    expected = inputs[0]
    for axis in (0, 1):
        expected = np.apply_along_axis(np.convolve, axis, expected, kernel)
        reach = len(kernel) // 2
        expected = expected.take(range(reach, expected.shape[axis] - reach), axis)
    np.testing.assert_allclose(smoothed, expected, **TINY)
    # A third of 9 rows are the middle ones of each three; of 7 columns, two are interpolated.
    rows = inputs[:, 1::3]
    places = [(i + 0.5) * 7 / 2 - 0.5 for i in range(2)]
    columns = [rows[:, :, int(p)] * (1 - p % 1) + rows[:, :, int(p) + 1] * (p % 1) for p in places]
    np.testing.assert_allclose(reduced, np.stack(columns, axis=2), **TINY)


def test_filters_of_experts_have_every_digit(rng):
    inputs = rng.normal(size=IMAGES)
    outputs, weights = in_float64(
        layers.CondConv2D(6, (3, 2), num_experts=5, dtype="float64"), rng, inputs
    )
    logits = inputs.mean(axis=(1, 2)) @ weights["router/kernel"] + weights["router/bias"]
    routing = 1 / (1 + np.exp(-logits))
    mix = np.broadcast_to(routing[:, None, None], (2, 3, 6, 5))
    expected = reference.low_rank_local_convolution(
        inputs, list(weights["kernel"]), mix, (1, 1), [(1, 1)] * 5, "valid"
    )
    biases = (routing @ weights["bias"])[:, None, None]
    np.testing.assert_allclose(outputs, expected + biases, **TINY)


def test_turned_filters_have_every_digit(rng):
    inputs = rng.normal(size=(2, 6, 7, 2))
    layer = layers.GroupLiftConv2D(4, 3, order=8, use_bias=False, dtype="float64")
    outputs, weights = in_float64(layer, rng, inputs)
    # By 45 degrees: of 3 x 3 taps all in the disc but the corners read the ring's neighbours.
    turn = np.zeros((3, 3, 3, 3))
    centre, cosine = 1.0, np.sqrt(0.5)
    for row, column in np.ndindex(3, 3):
        y, x = row - centre, column - centre
        if np.hypot(y, x) > 1.5:
            continue
        read_y, read_x = centre + cosine * (y + x), centre + cosine * (x - y)
        for i, j in np.ndindex(3, 3):
            if np.hypot(i - centre, j - centre) <= 1.5:
                weight = max(0, 1 - abs(read_y - i)) * max(0, 1 - abs(read_x - j))
                turn[row, column, i, j] = weight
    turn /= np.maximum(turn.sum((0, 1)), 1e-300)
    kernel = np.einsum("yxij,ijcf->yxcf", turn, weights["kernel"])
    kernel = np.broadcast_to(kernel, (4, 5, *kernel.shape))
    expected = reference.local_convolution(inputs, kernel, (1, 1), (1, 1), "valid")
    np.testing.assert_allclose(outputs[..., 1, :], expected, **TINY)


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalisation_of_maps_with_orientations_has_every_digit(training, rng):
    inputs = rng.normal(size=(2, 3, 5, 4, 7))
    layer = layers.GroupBatchNormalization(momentum=0.7, dtype="float64")
    with all_digits():
        layer.build(inputs.shape)
        randomize(layer, rng)
        gamma, beta, mean, variance = (to_numpy(w.value) for w in layer.weights)
        outputs = to_numpy(layer(inputs, training=training))
        moved = [to_numpy(w.value) for w in layer.non_trainable_weights]
    if training:
        new = inputs.mean(axis=(0, 1, 2, 3)), inputs.var(axis=(0, 1, 2, 3))
        old = mean, variance
        mean, variance = new
        for found, before, after in zip(moved, old, new, strict=True):
            np.testing.assert_allclose(found, 0.7 * before + 0.3 * after, **TINY)
    expected = (inputs - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(outputs, expected, **TINY)


def test_moved_taps_and_their_gradient_have_every_digit(rng):
    images, kernel = rng.normal(size=(1, 3, 4, 1)), rng.normal(size=(1, 1, 1, 1))
    offset = rng.uniform(-0.9, 0.9, size=(1, 3, 4, 2))

    class Moved(keras.Layer):
        def call(self, inputs):
            fixed = [ops.convert_to_tensor(one, dtype="float64") for one in (kernel, offset)]
            return our_ops.deform_conv2d(inputs, *fixed, data_format="channels_last")

    # The layer is linear in the image: reading[p] are the weights of what position p reads.
    reading = np.zeros((3, 4, 3, 4))
    for row, column, i, j in np.ndindex(3, 4, 3, 4):
        y, x = (row, column) + offset[0, row, column]
        reading[row, column, i, j] = max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
    reading *= kernel.item()
    upstream = rng.normal(size=(1, 3, 4, 1))
    with all_digits():
        layer = Moved(dtype="float64")
        layer.build(images.shape)
        outputs, (gradient,) = outputs_and_gradients(layer, images, upstream)
    expected = np.einsum("pqij,ij->pq", reading, images[0, ..., 0])
    np.testing.assert_allclose(outputs[0, ..., 0], expected, **TINY)
    expected = np.einsum("pqij,pq->ij", reading, upstream[0, ..., 0])
    np.testing.assert_allclose(gradient[0, ..., 0], expected, **TINY)
