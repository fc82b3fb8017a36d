"""Limiting cases of the low-rank layer, each a theorem about it."""

import itertools

import keras
import numpy as np
import pytest
import reference
from backends import call, compute, randomize, to_numpy

from low_rank_local_connectivity import layers

FILTERS = 6
INPUTS = {1: (2, 13, 4), 2: (2, 8, 11, 4), 3: (2, 5, 7, 6, 3)}
KERNELS = {1: 3, 2: (3, 2), 3: (2, 1, 3)}


def low_rank(dimensions, *args, **kwargs):
    return getattr(layers, f"LowRankLocallyConnected{dimensions}D")(*args, **kwargs)


def built(layer, shape, rng):
    layer.build(shape)
    randomize(layer, rng)
    return layer


def assert_close(actual, expected, tolerance=1e-5):
    actual, expected = to_numpy(actual), to_numpy(expected)
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_rank_1_under_softmax_is_a_convolution_and_a_spatial_bias(dimensions, data_format, rng):
    inputs = rng.normal(size=INPUTS[dimensions]).astype("float32")
    if data_format == "channels_first":
        inputs = np.moveaxis(inputs, -1, 1)
    arguments = {"data_format": data_format, "padding": "same"}
    layer = built(
        low_rank(dimensions, FILTERS, KERNELS[dimensions], 1, **arguments), inputs.shape, rng
    )
    bias = layers.SpatialBias(data_format=data_format)
    channels_last_inputs = np.moveaxis(inputs, 1, -1) if "first" in data_format else inputs
    convolution = getattr(keras.layers, f"Conv{dimensions}D")(
        FILTERS, KERNELS[dimensions], padding="same", data_format="channels_last"
    )
    convolution.build(channels_last_inputs.shape)
    convolution.set_weights([layer.kernel_bases, layer.bias])
    expected = call(convolution, channels_last_inputs)
    expected = np.moveaxis(expected, -1, 1) if "first" in data_format else expected
    bias.build(expected.shape)
    bias.set_weights(layer.spatial_bias_terms)
    assert_close(call(layer, inputs), bias(expected))
    assert [weight.name for weight in layer.weights if "combining" in weight.name] == []


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_one_hot_weights_with_as_many_banks_as_positions_are_locally_connected(dimensions, rng):
    shape = (2, *(size // 2 + 1 for size in INPUTS[dimensions][1:-1]), 4)
    local = built(
        getattr(layers, f"LocallyConnected{dimensions}D")(FILTERS, KERNELS[dimensions]), shape, rng
    )
    positions = int(np.prod(local.output_sizes))
    layer = built(
        low_rank(
            dimensions,
            FILTERS,
            KERNELS[dimensions],
            positions,
            additive_axes=(),
            normalize_weights=None,
            use_spatial_bias="per_filter",
            use_bias=False,
        ),
        shape,
        rng,
    )
    banks = np.moveaxis(compute(local.local_kernel).reshape(positions, -1, FILTERS), 0, 1)
    layer.kernel_bases.assign(banks.reshape(layer.kernel_bases.shape))
    layer.logits[0].assign(np.eye(positions).reshape(*local.output_sizes, positions))
    layer.spatial_bias_terms[0].assign(local.bias)
    inputs = rng.normal(size=shape).astype("float32")
    assert_close(call(layer, inputs), call(local, inputs))
    assert_close(layer.local_kernel(), local.local_kernel())


def test_row_plus_column_logits_are_the_full_ones_they_spell(rng):
    shape = INPUTS[2]
    arguments = {"filters": FILTERS, "kernel_size": (3, 2), "spatial_rank": 5}
    layer = built(low_rank(2, **arguments), shape, rng)
    full = built(low_rank(2, **arguments, additive_axes=()), shape, rng)
    row, column = map(to_numpy, layer.logits)
    full.set_weights(
        [
            layer.kernel_bases,
            row[:, None] + column[None],
            to_numpy(layer.spatial_bias_terms[0]) + to_numpy(layer.spatial_bias_terms[1]),
            layer.bias,
        ]
    )
    inputs = rng.normal(size=shape).astype("float32")
    assert_close(call(layer, inputs), call(full, inputs))
    assert_close(layer.combining_weights(), full.combining_weights())


@pytest.mark.parametrize("plan", ["convolve_then_combine", "combine_then_convolve"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("structure", [{}, {"strides": 2}, {"dilation_rate": 2}])
def test_a_local_kernel_in_a_locally_connected_layer_gives_the_same(
    dimensions, structure, plan, rng
):
    shape = INPUTS[dimensions]
    layer = low_rank(
        dimensions,
        FILTERS,
        KERNELS[dimensions],
        5,
        padding="same",
        implementation=plan,
        **structure,
    )
    built(layer, shape, rng)
    check_against_locally_connected(layer, layer.kernel_size, structure, shape, rng)


@pytest.mark.parametrize("sizes", [(8, 11), (9, 12)])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel_size", "dilation_rate"),
    [
        ([1, 3, (5, 2)], 1),
        ([2, 4, (3, 4)], 1),
        (3, [1, 2, (3, 1)]),
        ([(2, 3), 1, 4], [2, 1, 1]),
    ],
)
def test_a_mixed_basis_sits_in_its_box_where_it_really_is(
    sizes, strides, kernel_size, dilation_rate, rng
):
    shape = (2, *sizes, 4)
    layer = low_rank(
        2,
        FILTERS,
        kernel_size,
        3,
        strides=strides,
        padding="same",
        dilation_rate=dilation_rate,
    )
    built(layer, shape, rng)
    box = tuple(layer.local_kernel().shape[2:4])
    check_against_locally_connected(layer, box, {"strides": strides}, shape, rng)


def check_against_locally_connected(layer, kernel_size, structure, shape, rng):
    """Puts a layer's local kernel and biases into a locally connected layer and compares."""
    dimensions = len(shape) - 2
    local = getattr(layers, f"LocallyConnected{dimensions}D")(
        FILTERS, kernel_size, padding="same", **structure
    )
    local.build(shape)
    local.kernel.assign(compute(layer.local_kernel).reshape(local.kernel.shape))
    bias = sum(to_numpy(term) for term in layer.output_biases())
    local.bias.assign(np.broadcast_to(bias, local.bias.shape))
    inputs = rng.normal(size=shape).astype("float32")
    assert_close(call(layer, inputs), call(local, inputs))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_input_dependent_filters_are_the_banks_mixed_for_each_example(dimensions, rng):
    shape = INPUTS[dimensions]
    layer = low_rank(
        dimensions, FILTERS, KERNELS[dimensions], 5, input_dependent=True, use_spatial_bias=False
    )
    built(layer, shape, rng)
    inputs = rng.normal(size=shape).astype("float32")
    weights = compute(layer.combining_weights, inputs)
    banks = to_numpy(layer.kernel_bases)
    banks = banks.reshape(*banks.shape[:-1], 5, FILTERS)
    outputs = call(layer, inputs) - to_numpy(layer.bias)
    assert np.abs(weights[0] - weights[1]).max() > 1e-3, "the weights ignore the example"
    for example in range(len(inputs)):
        kernel = np.tensordot(weights[example], np.moveaxis(banks, -2, 0), 1)
        ones = (1,) * dimensions
        expected = reference.local_convolution(
            inputs[example : example + 1].astype(float), kernel, ones, ones, "valid"
        )
        assert_close(outputs[example : example + 1], expected)


@pytest.mark.parametrize("normalize_weights", ["softmax", "norm", None])
@pytest.mark.parametrize("axes", [None, (0,), (1,), ()])
def test_combining_weights_match_their_definition(normalize_weights, axes, rng):
    layer = low_rank(2, FILTERS, 3, 5, additive_axes=axes, normalize_weights=normalize_weights)
    built(layer, INPUTS[2], rng)
    logits = np.zeros((6, 9, 5))
    for part, axis in itertools.zip_longest(layer.logits, layer.additive_axes):
        values = to_numpy(part)
        logits += {0: lambda v: v[:, None], 1: lambda v: v[None], None: lambda v: v}[axis](values)
    assert_close(layer.combining_weights(), reference.normalize(logits, normalize_weights))


@pytest.mark.parametrize(
    ("flags", "axes"),
    [
        ({}, (0, 1)),
        ({"share_row_combining_weights": True, "share_col_combining_weights": True}, (0, 1)),
        ({"share_col_combining_weights": False}, (0,)),
        ({"share_row_combining_weights": False}, (1,)),
        ({"share_row_combining_weights": False, "share_col_combining_weights": False}, ()),
        ({"share_row_combining_weights": False, "input_dependent": True}, ()),
    ],
)
def test_the_release_s_share_flags_name_the_axes(flags, axes):
    assert low_rank(2, FILTERS, 3, 4, **flags).additive_axes == axes


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_that_is_shared_along_may_have_any_size(axis, rng):
    shape = [None, 8, 11, 4]
    shape[2 - axis] = None
    inputs = keras.Input(shape[1:])
    layer = low_rank(2, FILTERS, 3, 5, additive_axes=(axis,))
    model = keras.Model(inputs, layer(inputs))
    randomize(layer, rng)
    weights = compute(layer.combining_weights)
    assert weights.shape == ((6, 1, 5) if axis == 0 else (1, 9, 5))
    for other in (5, 9):
        sizes = (8, other) if axis == 0 else (other, 11)
        fixed = low_rank(2, FILTERS, 3, 5, additive_axes=(axis,))
        fixed.build((None, *sizes, 4))
        fixed.set_weights(layer.get_weights())
        images = rng.normal(size=(2, *sizes, 4)).astype("float32")
        assert_close(model(images), call(fixed, images))


def test_softmax_over_the_banks_and_not_over_positions(rng):
    layer = built(low_rank(2, FILTERS, 3, 5), INPUTS[2], rng)
    np.testing.assert_allclose(compute(layer.combining_weights).sum(-1), 1, rtol=1e-6)


def test_zero_logits_under_norm_stay_finite_in_float16():
    layer = low_rank(
        2,
        FILTERS,
        3,
        5,
        normalize_weights="norm",
        combining_weights_initializer="zeros",
        dtype="float16",
    )
    outputs = call(layer, np.ones(INPUTS[2], "float16"))
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("sizes", [(4, 3), (1, 9), (7, 10), (13, 1)])
def test_resizing_aligns_the_corners(sizes, rng):
    from low_rank_local_connectivity.ops import resize_aligned

    inputs = rng.normal(size=(2, 7, 5, 3)).astype("float32")
    assert_close(resize_aligned(inputs, sizes), reference.resize_aligned(inputs, sizes))


def test_coordinates_run_from_corner_to_corner_on_any_shape():
    outputs = to_numpy(layers.AddCoordinates2D(with_radius=True)(np.zeros((1, 5, 9, 2), "float32")))
    row, column, radius = np.moveaxis(outputs[0, :, :, 2:], -1, 0)
    np.testing.assert_allclose(row[:, 3], np.linspace(-1, 1, 5), atol=1e-6)
    np.testing.assert_allclose(column[2], np.linspace(-1, 1, 9), atol=1e-6)
    corners = radius[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, np.sqrt(2), rtol=1e-6)
    assert radius[2, 4] == 0


def test_coordinates_work_at_any_size_and_at_length_1():
    layer = layers.AddCoordinates2D()
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layer(inputs))
    outputs = to_numpy(model(np.zeros((2, 1, 4, 3), "float32")))
    np.testing.assert_array_equal(outputs[..., 3], 0)
    np.testing.assert_allclose(outputs[0, 0, :, 4], np.linspace(-1, 1, 4), atol=1e-6)


def test_coord_conv_is_a_convolution_over_inputs_and_coordinates(rng):
    layer = built(layers.CoordConv2D(FILTERS, 3, with_radius=True), INPUTS[2], rng)
    convolution = keras.layers.Conv2D(FILTERS, 3)
    inputs = rng.normal(size=INPUTS[2]).astype("float32")
    rows, columns = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 11), indexing="ij")
    extra = np.stack([rows, columns, np.hypot(rows, columns)], -1).astype("float32")
    extended = np.concatenate([inputs, np.broadcast_to(extra, (2, *extra.shape))], -1)
    convolution.build(extended.shape)
    convolution.set_weights(layer.get_weights())
    assert_close(call(layer, inputs), call(convolution, extended))
