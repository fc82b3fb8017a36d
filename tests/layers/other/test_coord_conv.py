"""Coordinates against NumPy's and Uber's own formulas, and convolutions over them against Keras."""

import json

import keras
import numpy as np
import pytest
from backends import assert_refused, call, randomize, to_numpy

from low_rank_local_connectivity import layers

SHAPES = {1: (2, 13, 4), 2: (2, 8, 11, 4), 3: (2, 5, 7, 6, 3)}


def uber(sizes):
    """What Uber's `AddCoords` puts behind the channels: `x`, along the columns, before `y`.

    Their lines: `xx_channel = matmul(ones(height, 1), range(width)) / (width - 1)`, `yy_channel`
    likewise, and both `* 2 - 1`.
    """
    height, width = sizes
    columns = np.matmul(np.ones((height, 1)), np.arange(width)[None]) / (width - 1)
    rows = np.matmul(np.arange(height)[:, None], np.ones((1, width))) / (height - 1)
    return np.stack([2 * columns - 1, 2 * rows - 1], axis=-1)


def test_the_other_order_is_uber_s(rng):
    images = rng.normal(size=SHAPES[2]).astype("float32")
    found = call(layers.AddCoordinates2D(coordinate_order="column_first"), images)
    np.testing.assert_array_equal(found[..., :4], images)
    expected = np.broadcast_to(uber(images.shape[1:3]), (2, 8, 11, 2))
    np.testing.assert_allclose(found[..., 4:], expected, atol=1e-6)
    ours = call(layers.AddCoordinates2D(), images)
    np.testing.assert_allclose(ours[..., 4:], expected[..., ::-1], atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("order", ["row_first", "column_first"])
def test_coordinates_are_numpy_s_grid_along_any_number_of_axes(dimensions, order, rng):
    inputs = rng.normal(size=SHAPES[dimensions]).astype("float32")
    make = getattr(layers, f"AddCoordinates{dimensions}D")
    first = make(with_radius=True, data_format="channels_first", coordinate_order=order)
    found = np.moveaxis(call(first, np.moveaxis(inputs, -1, 1)), 1, -1)
    axes = [np.linspace(-1, 1, size) for size in inputs.shape[1:-1]]
    grid = np.meshgrid(*axes, indexing="ij")
    radius = np.linalg.norm(grid, axis=0)
    maps = [*(grid if order == "row_first" else grid[::-1]), radius]
    expected = np.broadcast_to(np.stack(maps, -1), (*inputs.shape[:-1], dimensions + 1))
    np.testing.assert_allclose(found[..., inputs.shape[-1] :], expected, atol=1e-6)


LAYERS = {
    "CoordConv1D": (keras.layers.Conv1D, 1, {"strides": 2, "padding": "causal"}),
    "CoordConv2D": (keras.layers.Conv2D, 2, {"dilation_rate": (1, 2), "activation": "tanh"}),
    "CoordConv2DTranspose": (
        keras.layers.Conv2DTranspose,
        2,
        {"strides": (2, 3), "padding": "same", "output_padding": (1, 0)},
    ),
    "CoordConv3D": (keras.layers.Conv3D, 3, {"padding": "same", "use_bias": False}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_keras_s_convolution_of_inputs_with_coordinates(name, rng):
    plain_class, dimensions, arguments = LAYERS[name]
    inputs = rng.normal(size=SHAPES[dimensions]).astype("float32")
    layer = getattr(layers, name)(6, 3, with_radius=True, **arguments)
    layer.build(inputs.shape)
    randomize(layer, rng)
    grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in inputs.shape[1:-1]), indexing="ij")
    maps = np.stack([*grid, np.linalg.norm(grid, axis=0)], -1).astype("float32")
    extended = np.concatenate(
        [inputs, np.broadcast_to(maps, (*inputs.shape[:-1], dimensions + 1))], axis=-1
    )
    plain = plain_class(6, 3, **arguments)
    plain.build(extended.shape)
    plain.set_weights(layer.get_weights())
    expected = call(plain, extended)
    np.testing.assert_allclose(call(layer, inputs), expected, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape(inputs.shape) == expected.shape


@pytest.mark.parametrize("padding", ["reflect", ((1, 2), (0, 3))])
def test_a_border_stands_around_the_coordinates_too(padding, rng):
    inputs = rng.normal(size=SHAPES[2]).astype("float32")
    layer = layers.CoordConv2D(6, (3, 2), padding=padding)
    again = layers.CoordConv2D.from_config(json.loads(json.dumps(layer.get_config())))
    for one in (layer, again):
        one.build(inputs.shape)
    randomize(layer, rng)
    again.set_weights(layer.get_weights())
    maps = np.broadcast_to(uber(inputs.shape[1:3])[..., ::-1], (2, 8, 11, 2))
    extended = np.concatenate([inputs, maps], axis=-1).astype("float32")
    named = isinstance(padding, str)
    amounts = ((1, 1), (0, 1)) if named else padding
    padded = np.pad(extended, ((0, 0), *amounts, (0, 0)), mode=padding if named else "constant")
    expected = to_numpy(layer.convolution(padded))
    np.testing.assert_allclose(call(again, inputs), expected, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape(inputs.shape) == expected.shape


TILED = {
    "AddCoordinates1D": ({"tile_to": 13}, 1),
    "AddCoordinates2D": ({"tile_to": (8, 11), "data_format": "channels_first"}, 2),
    "AddCoordinates3D": ({"tile_to": (5, 7, 6), "coordinate_order": "column_first"}, 3),
    "CoordConv1D": ({"filters": 6, "kernel_size": 3, "tile_to": 13, "padding": "reflect"}, 1),
    "CoordConv2DTranspose": ({"filters": 6, "kernel_size": 3, "tile_to": (8, 11), "strides": 2}, 2),
}


@pytest.mark.parametrize("name", TILED)
def test_a_vector_stands_at_every_position(name, rng):
    arguments, dimensions = TILED[name]
    vectors = rng.normal(size=(2, 4)).astype("float32")
    layer = getattr(layers, name)(**arguments)
    again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    rest = {key: value for key, value in arguments.items() if key != "tile_to"}
    untiled = type(layer)(**rest)
    first = rest.get("data_format") == "channels_first"
    sizes = SHAPES[dimensions][1:-1]
    maps = np.broadcast_to(vectors.reshape(2, *[1] * dimensions, 4), (2, *sizes, 4))
    maps = np.ascontiguousarray(np.moveaxis(maps, -1, 1) if first else maps)
    for one, shape in ((layer, (None, 4)), (again, (None, 4)), (untiled, maps.shape)):
        one.build(shape)
    randomize(untiled, rng)
    again.set_weights(untiled.get_weights())
    expected = call(untiled, maps)
    np.testing.assert_allclose(call(again, vectors), expected, rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape((None, 4)) == (None, *expected.shape[1:])
    model = keras.Sequential([keras.Input((4,)), again])
    np.testing.assert_allclose(model.predict(vectors, verbose=0), expected, rtol=1e-5, atol=1e-5)


REFUSED = {
    "positions where vectors are tiled": (
        lambda: layers.AddCoordinates2D(tile_to=8, name="tiles").compute_output_shape((2, 8, 8, 3)),
        (
            "Layer 'tiles' tiles vectors, (batch, channels), to (8, 8). Received: input_shape="
            "(2, 8, 8, 3). Leave `tile_to` out for inputs that have positions."
        ),
    ),
    "a size to tile to": (
        lambda: layers.CoordConv2D(6, 3, tile_to=(8, 0)),
        (
            "`tile_to` must be an integer of at least 1, or a tuple of 2 of them. Received: "
            "tile_to=(8, 0)."
        ),
    ),
    "an order": (
        lambda: layers.AddCoordinates2D(coordinate_order="uber"),
        (
            "`coordinate_order` must be one of 'row_first', 'column_first'. Received: "
            "coordinate_order='uber'."
        ),
    ),
    "a border of a transposed convolution": (
        lambda: layers.CoordConv2DTranspose(6, 3, padding="circular"),
        "`padding` must be one of 'valid', 'same'. Received: padding='circular'.",
    ),
    "a border wider than the input": (
        lambda: layers.CoordConv1D(6, 7, padding="reflect").build((None, 3, 2)),
        (
            "Windows that reach 3 beyond the input under padding='reflect' need at least 4 "
            "elements along that axis. Received: spatial input size (3,), too small along axis 0. "
            "Use a smaller kernel or dilation, or padding='same'."
        ),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(what):
    assert_refused(*REFUSED[what])
