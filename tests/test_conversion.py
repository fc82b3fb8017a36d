"""Conversions of layers against what they convert, and against NumPy's own algebra."""

from pathlib import Path

import keras
import numpy as np
import pytest
from backends import WITHOUT_XLA, assert_same_outputs, call, compute, randomize, to_numpy
from cases import CASES
from keras import ops

from low_rank_local_connectivity import conversion, layers, plots

LOW_RANK = [case for case in CASES if "LowRankLocallyConnected" in case.layer]
FIXED = [case for case in LOW_RANK if not case.arguments.get("input_dependent")]
LOCAL = [case for case in CASES if "LocallyConnected" in case.layer and "LowRank" not in case.layer]


def built(case, rng):
    layer = case.make()
    layer.build(case.input_shape)
    randomize(layer, rng)
    return layer


@pytest.mark.parametrize("case", FIXED, ids=str)
def test_the_locally_connected_layer_computes_what_the_low_rank_one_does(case, rng):
    layer = built(case, rng)
    if None in layer.input_sizes:
        pytest.skip("built for inputs of unknown size")
    layer.trainable = False
    found = conversion.to_locally_connected(layer)
    assert_same_outputs(layer, found, case.input_shape, rng)
    assert (found.name, found.trainable) == (layer.name, False)
    assert found.dtype_policy.name == layer.dtype_policy.name


@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("size", [(8, 11), (9, 12)], ids=["even", "odd"])
@pytest.mark.parametrize("kernels", [[1, (3, 2), 5], [2, (4, 3), 1]], ids=["odd", "even"])
def test_a_mixed_basis_is_placed_where_it_sits(kernels, size, strides, rng):
    layer = layers.LowRankLocallyConnected2D(
        4, kernels, spatial_rank=3, strides=strides, padding="same"
    )
    layer.build((None, *size, 3))
    randomize(layer, rng)
    found = conversion.to_locally_connected(layer)
    assert_same_outputs(layer, found, (2, *size, 3), rng)


@pytest.mark.parametrize("case", [*FIXED, *LOCAL], ids=str)
def test_full_rank_reproduces_a_layer_with_its_biases(case, rng):
    layer = built(case, rng)
    if None in layer.input_sizes:
        pytest.skip("built for inputs of unknown size")
    positions = int(np.prod(layer.position_sizes))
    found = conversion.to_low_rank(layer, positions)
    assert_same_outputs(layer, found, case.input_shape, rng, 1e-4)
    assert conversion.truncation_error(layer, positions) < 1e-6


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_truncated_layer_is_the_nearest_of_its_rank(data_format, rng):
    layer = layers.LocallyConnected2D(3, (3, 2), data_format=data_format)
    layer.build((None, 7, 9, 4) if data_format == "channels_last" else (None, 4, 7, 9))
    randomize(layer, rng)
    kernel = compute(layer.local_kernel).reshape(40, -1).astype("float64")
    values = np.sqrt(np.linalg.eigvalsh(kernel @ kernel.T)[::-1])
    np.testing.assert_allclose(conversion.spatial_spectrum(layer), values, rtol=1e-6)
    for rank in (1, 4, 30):
        found = conversion.to_low_rank(layer, rank)
        nearest = compute(found.local_kernel).reshape(40, -1)
        assert np.linalg.matrix_rank(nearest, tol=1e-3) == rank
        error = np.linalg.norm(kernel - nearest)
        assert error == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), rel=1e-4)
        assert error == pytest.approx(conversion.truncation_error(layer, rank), rel=1e-4)


def test_a_low_rank_layer_uses_no_more_than_its_rank(rng):
    layer = layers.LowRankLocallyConnected2D(3, 3, spatial_rank=4, normalize_weights=None)
    layer.build((None, 8, 9, 2))
    randomize(layer, rng)
    values = conversion.spatial_spectrum(layer)
    assert (values > 1e-5 * values[0]).sum() == 4
    assert conversion.truncation_error(layer, 4) < 1e-5 * values[0]
    back = conversion.to_low_rank(layer, 4)
    assert_same_outputs(layer, back, (2, 8, 9, 2), rng)


def test_spectra_of_a_model_are_drawn(tmp_path, rng):
    inputs = keras.Input((8, 9, 2))
    x = layers.CondConv2D(2, 1, num_experts=2)(inputs)
    x = layers.LowRankLocallyConnected2D(3, 3, spatial_rank=4, name="low_rank")(x)
    x = layers.LowRankLocallyConnected2D(3, 3, 2, input_dependent=True, name="asked")(x)
    model = keras.Model(inputs, layers.LocallyConnected2D(3, 2, name="local")(x))
    randomize(model, rng)
    assert plots.spatial_spectra(model, tmp_path / "spectra.png") == ["low_rank", "local"]
    assert (tmp_path / "spectra.png").stat().st_size > 1000
    bare = keras.Sequential([inputs, keras.layers.Flatten()])
    assert plots.spatial_spectra(bare, tmp_path / "none.png") == []


RELAXED_CASES = {
    "1d causal": (
        keras.layers.Conv1D,
        {"filters": 6, "padding": "causal", "dilation_rate": 2},
        (2, 13, 4),
    ),
    "2d": (
        keras.layers.Conv2D,
        {"filters": 6, "strides": (2, 1), "activation": "tanh"},
        (2, 8, 11, 4),
    ),
    "2d same": (
        keras.layers.Conv2D,
        {"filters": 6, "padding": "same", "use_bias": False},
        (2, 8, 11, 4),
    ),
    "2d in groups": (keras.layers.Conv2D, {"filters": 6, "groups": 2}, (2, 8, 11, 4)),
    "1d depthwise": (
        keras.layers.DepthwiseConv1D,
        {"depth_multiplier": 3, "dilation_rate": 2},
        (2, 13, 4),
    ),
    "2d depthwise": (
        keras.layers.DepthwiseConv2D,
        {"depth_multiplier": 3, "padding": "same", "depthwise_regularizer": "l2"},
        (2, 8, 11, 4),
    ),
    "1d separable": (keras.layers.SeparableConv1D, {"filters": 6, "strides": 2}, (2, 13, 4)),
    "2d separable": (
        keras.layers.SeparableConv2D,
        {
            "filters": 6,
            "depth_multiplier": 3,
            "activation": "tanh",
            "pointwise_constraint": "max_norm",
        },
        (2, 8, 11, 4),
    ),
    "3d": (keras.layers.Conv3D, {"filters": 6, "dilation_rate": (1, 2, 1)}, (2, 6, 7, 5, 3)),
    "3d in groups of one": (keras.layers.Conv3D, {"filters": 6, "groups": 3}, (2, 6, 7, 5, 3)),
    "1d transposed": (keras.layers.Conv1DTranspose, {"filters": 6, "strides": 4}, (2, 13, 4)),
    "2d transposed": (
        keras.layers.Conv2DTranspose,
        {
            "filters": 6,
            "strides": (2, 3),
            "padding": "same",
            "output_padding": (0, 1),
            "activation": "tanh",
        },
        (2, 4, 5, 7),
    ),
    "3d transposed": (
        keras.layers.Conv3DTranspose,
        {"filters": 6, "use_bias": False},
        (2, 4, 5, 3, 7),
    ),
}


@pytest.mark.parametrize("name", RELAXED_CASES)
@pytest.mark.parametrize("rank", [1, 4])
def test_a_relaxed_convolution_starts_as_the_convolution(name, rank, rng):
    make, arguments, shape = RELAXED_CASES[name]
    layer = make(kernel_size=3, name="this", **arguments)
    layer.build(shape)
    randomize(layer, rng)
    layer.trainable = False
    found = conversion.from_convolution(layer, rank)
    assert_same_outputs(layer, found, shape, rng)
    assert (found.name, found.trainable, found.spatial_rank) == ("this", False, rank)


def test_a_relaxed_convolution_comes_to_use_its_rank_on_data_that_needs_it(rng):
    layer = keras.layers.Conv2D(2, 3, use_bias=False)
    layer.build((None, 8, 9, 1))
    relaxed = conversion.from_convolution(layer, 4)
    before = conversion.spatial_spectrum(relaxed)
    # Each position wants a filter of its own.
    target = layers.LocallyConnected2D(2, 3, use_bias=False)
    target.build((None, 8, 9, 1))
    images = rng.normal(size=(64, 8, 9, 1)).astype("float32")
    model = keras.Sequential([keras.Input((8, 9, 1)), relaxed])
    model.compile(keras.optimizers.Adam(0.03), "mse", **WITHOUT_XLA)
    # Steps of one epoch, as each epoch would set up its reading anew.
    repeated = [np.concatenate([one] * 30) for one in (images, to_numpy(target(images)))]
    model.fit(*repeated, shuffle=False, verbose=0)
    after = conversion.spatial_spectrum(relaxed)
    assert before[1] < 1e-5 * before[0]
    assert after[1] > 0.1 * after[0]


@pytest.mark.parametrize("case", [*LOW_RANK, *LOCAL], ids=str)
def test_a_layer_at_another_size_has_its_positions_interpolated(case, rng):
    layer = built(case, rng)
    first = case.arguments.get("data_format") == "channels_first"
    spatial = range(2, len(case.input_shape)) if first else range(1, len(case.input_shape) - 1)
    shape = list(case.input_shape)
    for axis in spatial:
        shape[axis] -= 1
    found = conversion.resize(layer, shape)
    assert tuple(call(found, np.ones(shape, "float32")).shape) == tuple(
        case.make().compute_output_shape(tuple(shape))
    )
    back = conversion.resize(layer, case.input_shape)
    assert_same_outputs(layer, back, case.input_shape, rng, 1e-6)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_resizing_keeps_what_is_linear_over_positions(data_format):
    layer = layers.LocallyConnected1D(2, 1, data_format=data_format)
    layer.build((None, 5, 1) if data_format == "channels_last" else (None, 1, 5))
    line = np.linspace(0, 1, 5)
    layer.kernel.assign(np.stack([line, 1 - line], -1)[:, None])
    stored = np.stack([line, 2 * line], -1 if data_format == "channels_last" else 0)
    layer.bias.assign(stored.reshape(5, 2))
    found = conversion.resize(
        layer, (None, 9, 1) if data_format == "channels_last" else (None, 1, 9)
    )
    line = np.linspace(0, 1, 9)
    np.testing.assert_allclose(to_numpy(found.kernel)[:, 0, 0], line, atol=1e-6)
    (bias,) = found.output_biases()
    np.testing.assert_allclose(to_numpy(bias), np.stack([line, 2 * line], -1), atol=1e-6)


def test_a_call_at_another_size_names_the_function_that_resizes():
    layer = layers.LocallyConnected1D(2, 3)
    layer.build((None, 8, 4))
    with pytest.raises(ValueError, match=r"conversion\.resize\(layer, input_shape\)"):
        layer(np.ones((1, 9, 4)))


def test_a_wide_and_sparse_mixed_basis_stays_and_says_so():
    layer = layers.LowRankLocallyConnected2D(
        3, 3, spatial_rank=2, padding="same", dilation_rate=[1, 6], name="sparse"
    )
    model = keras.Sequential([keras.Input((16, 15, 2)), layer])
    with pytest.warns(UserWarning, match="'sparse' stays as it is: its banks have 18 taps in all"):
        found = conversion.convert(model)
    assert type(found.get_layer("sparse")) is layers.LowRankLocallyConnected2D


def normalized(kind, data_format):
    axis = -1 if data_format == "channels_last" else 1
    shape = (9, 8, 3) if data_format == "channels_last" else (3, 9, 8)
    return keras.Sequential(
        [
            keras.Input(shape),
            kind(data_format=data_format),
            keras.layers.BatchNormalization(axis=axis, name="norm"),
            keras.layers.Activation("relu"),
        ]
    )


KINDS = {
    "convolution": lambda **k: keras.layers.Conv2D(5, 3, use_bias=False, **k),
    "local": lambda **k: layers.LocallyConnected2D(5, 3, **k),
    "local without bias": lambda **k: layers.LocallyConnected2D(5, 3, use_bias=False, **k),
    "low rank": lambda **k: layers.LowRankLocallyConnected2D(5, 3, spatial_rank=3, **k),
    "rank 1": lambda **k: layers.LowRankLocallyConnected2D(5, 3, spatial_rank=1, **k),
}


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_normalization_is_folded_into_the_layer_before(kind, data_format, functional, rng):
    if data_format == "channels_first" and kind in ("convolution", "rank 1"):
        pytest.skip("TensorFlow's convolutions on a CPU are channels-last")
    model = normalized(KINDS[kind], data_format)
    model = keras.Model(model.inputs[0], model.outputs[0]) if functional else model
    randomize(model, rng)
    norm = model.get_layer("norm")
    norm.moving_variance.assign(ops.abs(norm.moving_variance) + 0.1)
    found = conversion.fold_batch_normalization(conversion.convert(model))
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in found.layers)
    assert_same_outputs(model, found, (2, *model.input_shape[1:]), rng)


def test_batch_normalization_that_cannot_be_folded_stays():
    inputs = keras.Input((9, 8, 3))
    x = keras.layers.Conv2D(5, 3, activation="relu")(inputs)
    one = keras.layers.BatchNormalization(name="after_activation")(x)
    y = keras.layers.Conv2D(5, 3, padding="same")(one)
    two = keras.layers.BatchNormalization(name="of_two_readers")(y)
    three = keras.layers.BatchNormalization(axis=1, name="other_axis")(keras.layers.Conv2D(5, 1)(y))
    model = keras.Model(inputs, [two + y, three])
    found = conversion.fold_batch_normalization(model)
    norms = [x for x in found.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 3
    assert len(found.layers) == len(model.layers)


def low_rank(**changes):
    layer = layers.LowRankLocallyConnected2D(
        **{"filters": 2, "kernel_size": 3, "spatial_rank": 2, "name": "this", **changes}
    )
    layer.build((None, 8, 9, 3))
    return layer


def convolution():
    layer = keras.layers.Conv2D(4, 3, name="this")
    layer.build((None, 8, 9, 3))
    return layer


def broken():
    layer = low_rank()
    layer.bias.assign([float("nan"), 0.0])
    return layer


REFUSED = [
    (
        lambda: conversion.spatial_spectrum(layers.CondConv2D(2, 3)),
        (
            "spatial_spectrum() takes a layer of the kind locally connected or low-rank locally "
            "connected. Received: CondConv2D."
        ),
    ),
    (
        lambda: conversion.to_locally_connected(keras.layers.Dense(2)),
        (
            "to_locally_connected() takes a layer of the kind low-rank locally connected. "
            "Received: Dense."
        ),
    ),
    (
        lambda: conversion.to_locally_connected(
            layers.LowRankLocallyConnected2D(2, 3, 2, name="x")
        ),
        (
            "What to_locally_connected() is given must be built. Received: 'x', which is not. Call "
            "it on inputs first, or its build(input_shape)."
        ),
    ),
    (
        lambda: conversion.to_locally_connected(low_rank(input_dependent=True)),
        (
            "to_locally_connected() needs filters that are the same for all inputs. Received: "
            "layer 'this' with input_dependent=True. Serve it as it is."
        ),
    ),
    (
        lambda: conversion.to_low_rank(broken(), 2),
        (
            "to_low_rank() needs finite weights. Received: layer 'this', whose 'bias' holds NaN or "
            "infinity. Take an earlier checkpoint."
        ),
    ),
    (
        lambda: conversion.to_low_rank(low_rank(), 43),
        (
            "`spatial_rank` must be at most the number of positions of layer 'this', 42. Received: "
            "spatial_rank=43."
        ),
    ),
    (
        lambda: conversion.truncation_error(low_rank(), 0),
        ("`spatial_rank` must be an integer of at least 1. Received: spatial_rank=0."),
    ),
    (
        lambda: conversion.from_convolution(keras.layers.Dense(4), 2),
        (
            "from_convolution() takes a convolution of Keras's: plain, transposed, depthwise or "
            "separable. Received: Dense."
        ),
    ),
    (
        lambda: conversion.from_convolution(
            keras.Sequential([keras.Input((8, 9, 3)), keras.layers.Conv2D(4, 3)]).layers[0],
            2,
            spread=0.0,
        ),
        (
            "`spread` must be a positive number, since equal banks would stay equal. "
            "Received: spread=0.0."
        ),
    ),
    (
        lambda: conversion.from_convolution(convolution(), 1.5),
        "`spatial_rank` must be an integer of at least 1. Received: spatial_rank=1.5.",
    ),
    (
        lambda: conversion.from_convolution(convolution(), 2, (8, 9, 3)),
        (
            "`input_shape` must be the shape of the inputs, (batch, height, width, channels), with "
            "None for a batch of any size. Received: input_shape=(8, 9, 3)."
        ),
    ),
    (
        lambda: conversion.from_convolution(convolution(), 2, (None, 8, 9, 4)),
        (
            "`input_shape` must have the channels of layer 'this', 3. Received: input_shape=(None, "
            "8, 9, 4) with data_format='channels_last'."
        ),
    ),
    (
        lambda: conversion.resize(low_rank(), (9, 9, 3)),
        (
            "`input_shape` must be the shape of the inputs, (batch, height, width, channels), with "
            "None for a batch of any size. Received: input_shape=(9, 9, 3)."
        ),
    ),
    (
        lambda: conversion.convert(keras.Sequential([keras.Input((8, 9, 3)), low_rank()]), repr),
        (
            "`rule` must return a layer, a list of layers, or None to keep the one that it is "
            "given. Received: rule(layer)='<LowRankLocallyConnected2D name=this, built=True>' for "
            "layer 'this'."
        ),
    ),
    (
        lambda: conversion.resize(low_rank(), (None, 9, 9, 4)),
        (
            "Resizing layer 'this' must keep the number of channels. Received: input_shape=(None, "
            "9, 9, 4) with data_format='channels_last'. Change the spatial size only."
        ),
    ),
    (
        lambda: conversion.convert(type("Subclass", (keras.Model,), {})()),
        (
            "convert() takes functional and Sequential models, whose layers it can see. Received: "
            "Subclass, which says in Python what it does. Make it functional: keras.Model(inputs, "
            "outputs)."
        ),
    ),
    (
        lambda: conversion.fold_batch_normalization(keras.Sequential(name="bare")),
        (
            "What fold_batch_normalization() is given must be built. Received: 'bare', which is "
            "not. Call it on inputs first, or its build(input_shape)."
        ),
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_cannot_be_converted_is_refused_in_a_sentence(number):
    convert, sentence = REFUSED[number]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        convert()
    assert str(caught.value) == sentence


def test_every_function_of_the_package_is_tested():
    here = Path(__file__)
    both = (here, here.with_name("test_conversion_of_models.py"))
    text = "".join(path.read_text() for path in both)
    public = [name for name in vars(conversion) if callable(getattr(conversion, name))]
    assert len(public) == 13
    # The second is tested in tests/layers/other/test_kronecker.py.
    elsewhere = {"for_serving", "merge_cascade"}
    assert all(f"conversion.{name}" in text for name in public if name not in elsewhere)
