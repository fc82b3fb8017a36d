# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Deformable convolution against its definition, ONNX's operator and PyTorch's sampling."""

import functools
import itertools

import keras
import numpy as np
import pytest
from backends import WITHOUT_XLA, call, compute, outputs_and_gradients, randomize, to_numpy
from keras import ops
from reference import finite_difference

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.export import export_model
from low_rank_local_connectivity.ops import deform_conv, deform_conv2d

SHAPE = (2, 8, 11, 4)
# Kernel size, strides, dilations, pads, offset groups.
GEOMETRIES = {
    "plain": ((3, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), 1),
    "padded": ((3, 2), (1, 1), (1, 1), ((2, 1), (0, 3)), 1),
    "strided": ((2, 3), (2, 3), (1, 1), ((1, 1), (2, 0)), 1),
    "dilated in groups": ((3, 2), (1, 1), (2, 3), ((1, 2), (0, 0)), 2),
    "strided, dilated, in groups": ((2, 3), (3, 1), (1, 2), ((0, 1), (2, 2)), 4),
    "one tap": ((1, 1), (1, 2), (1, 1), ((0, 0), (0, 0)), 2),
}


def output_size(sizes, taps, strides, dilations, pads):
    axes = zip(sizes, taps, strides, dilations, pads, strict=True)
    return [(n + sum(pad) - d * (k - 1) - 1) // s + 1 for n, k, s, d, pad in axes]


def example(rng, geometry, modulated=True, shape=SHAPE, filters=5):
    """Inputs, kernel, offsets and mask, channels last; offsets lead in and out of the image."""
    taps, strides, dilations, pads, groups = geometry
    positions = output_size(shape[1:3], taps, strides, dilations, pads)
    samples = groups * taps[0] * taps[1]
    x, kernel, offset, mask = (
        rng.normal(size=size).astype("float32")
        for size in (
            shape,
            (*taps, shape[-1], filters),
            (shape[0], *positions, 2 * samples),
            (shape[0], *positions, samples),
        )
    )
    return x, kernel, 3 * offset, mask if modulated else None


def options(geometry):
    """The operation's arguments."""
    names = ("strides", "dilation_rate", "padding", "offset_groups")
    return dict(zip(names, geometry[1:], strict=True))


def convolve(geometry, *tensors, **arguments):
    operation = functools.partial(deform_conv2d, **options(geometry), **arguments)
    return compute(operation, *tensors)


def weigh(length, places):
    """Bilinear interpolation's definition: of an axis an element weighs 1 minus its distance."""
    return np.maximum(0, 1 - np.abs(np.arange(length) - places[..., None]))


def by_definition(geometry, x, kernel, offset, mask=None):
    (rows, columns), strides, dilations, pads, groups = geometry
    batch, *positions, _ = offset.shape
    offset = offset.reshape(batch, *positions, groups, rows, columns, 2).astype("float64")
    mask = np.ones(offset.shape[:-1]) if mask is None else mask.reshape(offset.shape[:-1])
    i, j, _, y, u = np.indices(offset.shape[1:-1])
    down = i * strides[0] - pads[0][0] + y * dilations[0] + offset[..., 0]
    right = j * strides[1] - pads[1][0] + u * dilations[1] + offset[..., 1]
    weights = weigh(x.shape[1], down), weigh(x.shape[2], right)
    # Position ij, group g, tap yu; c counts the channels within a group.
    x = x.reshape(*x.shape[:3], groups, -1)
    kernel = kernel.reshape(rows, columns, groups, -1, kernel.shape[-1])
    values = np.einsum("bijgyuh,bijgyuw,bhwgc->bijgyuc", *weights, x, optimize=True)
    return np.einsum("bijgyu,bijgyuc,yugcf->bijf", mask, values, kernel, optimize=True)


@pytest.fixture(params=[100, 2, 1], ids=["at once", "two by two", "tap by tap"])
def taps_at_once(request, monkeypatch):
    """Reads so many taps together, whatever the size."""
    monkeypatch.setattr(deform_conv, "_taps_at_once", lambda *_: request.param)


@pytest.mark.usefixtures("taps_at_once")
@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_convolution_is_its_definition(geometry, modulated, rng):
    given = example(rng, geometry, modulated)
    expected = by_definition(geometry, *given)
    found = convolve(geometry, *given)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_channels_first_is_the_transpose(geometry, rng):
    x, kernel, offset, mask = example(rng, geometry)
    first = [np.moveaxis(tensor, -1, 1) for tensor in (x, offset, mask)]
    found = convolve(geometry, first[0], kernel, *first[1:], data_format="channels_first")
    expected = convolve(geometry, x, kernel, offset, mask, data_format="channels_last")
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1), expected)


def onnx_operator(geometry, x, kernel, offset, mask, group=1):
    """A model of ONNX's `DeformConv` alone, and its inputs."""
    helper = pytest.importorskip("onnx").helper
    taps, strides, dilations, pads, groups = geometry
    inputs = {
        "X": np.moveaxis(x, -1, 1),
        "W": np.transpose(kernel, (3, 2, 0, 1)),
        "offset": np.moveaxis(offset, -1, 1),
    }
    if mask is not None:
        inputs |= {"B": np.zeros(kernel.shape[-1], "float32"), "mask": np.moveaxis(mask, -1, 1)}
    node = helper.make_node(
        "DeformConv",
        list(inputs),
        ["Y"],
        kernel_shape=taps,
        strides=strides,
        dilations=dilations,
        pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
        offset_group=groups,
        group=group,
    )
    kind = 1  # float
    values = [helper.make_tensor_value_info(name, kind, a.shape) for name, a in inputs.items()]
    outputs = [helper.make_tensor_value_info("Y", kind, None)]
    graph = helper.make_graph([node], "deformable", values, outputs)
    opsets = [helper.make_opsetid("", 19)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), inputs


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_onnx_runtime_s_operator_gives_the_same(geometry, modulated, rng):
    runtime = pytest.importorskip("onnxruntime")
    given = example(rng, geometry, modulated)
    model, inputs = onnx_operator(geometry, *given)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = np.moveaxis(session.run(None, inputs)[0], 1, -1)
    found = convolve(geometry, *given)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.usefixtures("taps_at_once")
def test_filters_read_the_channels_of_their_group_as_in_onnx_runtime(rng):
    runtime = pytest.importorskip("onnxruntime")
    geometry, groups = GEOMETRIES["strided, dilated, in groups"], 2
    x, kernel, offset, mask = example(rng, geometry, filters=6)
    kernel = kernel[:, :, ::groups]
    model, inputs = onnx_operator(geometry, x, kernel, offset, mask, groups)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = np.moveaxis(session.run(None, inputs)[0], 1, -1)
    found = convolve(geometry, x, kernel, offset, mask, groups=groups)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def block_diagonal(kernel, groups):
    """The kernel of one group that does what a kernel of several does."""
    *taps, channels, filters = kernel.shape
    dense = np.zeros((*taps, groups, channels, groups, filters // groups), kernel.dtype)
    parts = kernel.reshape(*taps, channels, groups, -1)
    for group in range(groups):
        dense[:, :, group, :, group] = parts[:, :, :, group]
    return dense.reshape(*taps, groups * channels, filters)


@pytest.mark.once
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_onnx_s_reference_operator_gives_the_same(geometry, rng):
    evaluation = pytest.importorskip("onnx.reference")
    given = example(rng, geometry, shape=(1, 5, 7, 4), filters=3)
    model, inputs = onnx_operator(geometry, *given)
    expected = np.moveaxis(evaluation.ReferenceEvaluator(model).run(None, inputs)[0], 1, -1)
    found = convolve(geometry, *given)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.once
def test_pytorch_s_sampling_gives_the_same(rng):
    torch = pytest.importorskip("torch")
    geometry = GEOMETRIES["padded"]
    x, kernel, offset, mask = example(rng, geometry)
    images = torch.tensor(np.moveaxis(x, -1, 1))
    expected = 0.0
    for tap, (y, u) in enumerate(itertools.product(range(3), range(2))):
        rows = np.arange(offset.shape[1])[:, None] - 2 + y + offset[..., 2 * tap]
        columns = np.arange(offset.shape[2]) + u + offset[..., 2 * tap + 1]
        grid = np.stack([2 * columns / 10 - 1, 2 * rows / 7 - 1], -1).astype("float32")
        sampled = torch.nn.functional.grid_sample(
            images, torch.tensor(grid), "bilinear", "zeros", align_corners=True
        )
        sampled = np.moveaxis(sampled.numpy(), 1, -1) * mask[..., tap, None]
        expected = expected + sampled @ kernel[y, u]
    found = convolve(geometry, x, kernel, offset, mask)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kernel_size", [(3, 2), (2, 5), (1, 1)])
@pytest.mark.parametrize(
    ("strides", "dilation_rate"), [(1, 1), ((2, 3), 1), ((3, 2), 1), (1, (2, 3))]
)
def test_without_offsets_it_is_keras_s_convolution(
    strides, dilation_rate, kernel_size, padding, data_format, rng
):
    # Even and odd sizes, for which "same" pads unevenly under strides.
    x = rng.normal(size=(2, 12, 15, 4)).astype("float32")
    kernel = rng.normal(size=(*kernel_size, 4, 5)).astype("float32")
    arguments = {"strides": strides, "padding": padding, "dilation_rate": dilation_rate}
    expected = to_numpy(ops.conv(x, kernel, data_format="channels_last", **arguments))
    offset = np.zeros((*expected.shape[:-1], 2 * kernel_size[0] * kernel_size[1]), "float32")
    if data_format == "channels_first":
        x, offset = np.moveaxis(x, -1, 1), np.moveaxis(offset, -1, 1)
    convolution = functools.partial(deform_conv2d, data_format=data_format, **arguments)
    found = compute(convolution, x, kernel, offset)
    if data_format == "channels_first":
        found = np.moveaxis(found, 1, -1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class Free(keras.Layer):
    """The operation with kernel, offsets and mask as weights, to differentiate it by them."""

    def __init__(self, geometry, groups, kernel, offset, mask):
        super().__init__()
        self.geometry, self.groups = geometry, groups
        given = {"kernel": kernel, "offset": offset, "mask": mask}
        self.values = [self.add_weight(shape=one.shape, name=name) for name, one in given.items()]
        for weight, one in zip(self.values, given.values(), strict=True):
            weight.assign(one)

    def call(self, x):
        """Applies the operation."""
        kernel, offset, mask = (ops.convert_to_tensor(weight) for weight in self.values)
        arguments = {**options(self.geometry), "groups": self.groups}
        return deform_conv2d(x, kernel, offset, mask, **arguments)


@pytest.mark.usefixtures("taps_at_once")
@pytest.mark.parametrize(
    ("name", "groups"), [("padded", 1), ("strided, dilated, in groups", 1), ("padded", 2)]
)
def test_gradients_for_everything_are_finite_differences(name, groups, rng):
    geometry = GEOMETRIES[name]
    given = list(example(rng, geometry, shape=(1, 4, 5, 4), filters=3 * groups))
    given[1] = given[1][:, :, ::groups]
    # A step must not lead across a whole number, where the derivative jumps.
    given[2] = (np.floor(given[2]) + rng.uniform(0.1, 0.9, given[2].shape)).astype("float32")
    layer = Free(geometry, groups, *given[1:])
    layer.build(given[0].shape)

    def defined(x, kernel, *others):
        return by_definition(geometry, x, block_diagonal(kernel, groups), *others)

    expected = defined(*given)
    projection = rng.normal(size=expected.shape).astype("float32")
    outputs, found = outputs_and_gradients(layer, given[0], projection)
    given = [one.astype("float64") for one in given]
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    for index, gradient in enumerate(found):
        values = given[index]

        def projected(values, index=index):
            arguments = [*given[:index], values, *given[index + 1 :]]
            return (defined(*arguments) * projection).sum()

        for place in rng.choice(values.size, 12, replace=False):
            where = np.unravel_index(place, values.shape)
            expected = finite_difference(projected, values, where)
            assert gradient[where] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_first_channel_of_offsets_moves_down_and_a_second_one_to_the_right():
    image = np.arange(12, dtype="float32").reshape(1, 3, 4, 1)
    kernel = np.ones((1, 1, 1, 1), "float32")
    down, right = (np.tile(np.float32(one), (1, 3, 4, 1)) for one in ([1, 0], [0, 1]))
    found = compute(deform_conv2d, image, kernel, down)
    np.testing.assert_array_equal(found[0, :-1, :, 0], image[0, 1:, :, 0])
    found = compute(deform_conv2d, image, kernel, right)
    np.testing.assert_array_equal(found[0, :, :-1, 0], image[0, :, 1:, 0])
    assert (found[0, :, -1] == 0).all()


def test_the_border_falls_off_over_one_pixel_and_far_offsets_read_zero():
    image = np.full((1, 3, 4, 1), 6, "float32")
    offsets = [0.5, -0.5, -1, -2, 1e9, -np.inf, np.inf]
    offset = np.zeros((1, 3, 4, 2 * len(offsets)), "float32")
    offset[..., ::2] = offsets
    kernel = np.eye(len(offsets), dtype="float32").reshape(1, len(offsets), 1, len(offsets))
    padded = functools.partial(deform_conv2d, padding=((0, 0), (0, len(offsets) - 1)))
    found = compute(padded, image, kernel, offset)
    first, last = found[0, 0, 0], found[0, 2, 0]
    # Tap `t` reads column `t` by itself: of 4 columns only the first 4 taps see something.
    np.testing.assert_array_equal(first[:4], [6, 3, 0, 0])
    np.testing.assert_array_equal(last[:4], [3, 6, 6, 6])
    assert (found[..., 4:] == 0).all()


def test_an_offset_that_is_no_number_shows_in_its_output_alone(rng):
    geometry = GEOMETRIES["plain"]
    x, kernel, offset, mask = example(rng, geometry)
    offset[1, 2, 3, 4] = np.nan
    outputs = convolve(geometry, x, kernel, offset, mask)
    assert np.isnan(outputs[1, 2, 3]).all()
    assert np.isnan(outputs).sum() == outputs.shape[-1]


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": "same", "strides": (2, 3)},
        {"dilation_rate": (1, 2), "offset_groups": 2},
        {"padding": "same", "data_format": "channels_first", "activation": "relu"},
    ],
)
def test_the_layer_starts_as_a_convolution(arguments, modulated, rng):
    layer = layers.DeformableConv2D(6, (3, 2), modulated=modulated, **arguments)
    shape = (2, 4, 8, 11) if "data_format" in arguments else SHAPE
    layer.build(shape)
    x = rng.normal(size=shape).astype("float32")
    found = call(layer, x)
    plain = {name: one for name, one in arguments.items() if name != "offset_groups"}
    conv = keras.layers.Conv2D(6, (3, 2), **{**plain, "data_format": "channels_last"})
    conv.build((None, 8, 11, 4))
    conv.set_weights(layer.get_weights()[:2])
    first = "data_format" in arguments
    expected = call(conv, np.moveaxis(x, 1, -1) if first else x)
    expected = np.moveaxis(expected, -1, 1) if first else expected
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_given_offsets_are_taken_instead_of_the_branch_s(data_format, rng):
    arguments = {"strides": (2, 1), "padding": "same", "offset_groups": 2, "groups": 2}
    x, kernel, bias = (rng.normal(size=size) for size in (SHAPE, (3, 2, 2, 6), 6))
    offset, mask = rng.normal(size=(2, 4, 11, 24)), rng.normal(size=(2, 4, 11, 12))
    given = [one.astype("float32") for one in (x, offset, mask)]
    expected = to_numpy(deform_conv2d(given[0], kernel, *given[1:], **arguments)) + bias
    unmodulated = to_numpy(deform_conv2d(given[0], kernel, given[1], **arguments)) + bias
    if data_format == "channels_first":
        given = [np.moveaxis(one, -1, 1) for one in given]
        expected, unmodulated = (np.moveaxis(one, -1, 1) for one in (expected, unmodulated))
    for use_offset_branch in (True, False):
        layer = layers.DeformableConv2D(
            6, (3, 2), data_format=data_format, use_offset_branch=use_offset_branch, **arguments
        )
        inputs = [keras.Input(one.shape[1:]) for one in given]
        outputs = layer(inputs[0], offset=inputs[1], modulation=inputs[2])
        model = keras.Model(inputs, [outputs, layer(inputs[0], offset=inputs[1])])
        weights = [kernel, bias, *(to_numpy(one) for one in layer.weights[2:])]
        assert len(weights) == (4 if use_offset_branch else 2)
        layer.set_weights(weights)
        for found, right in zip(call(model, given), (expected, unmodulated), strict=True):
            np.testing.assert_allclose(found, right, atol=1e-4)


def test_the_reference_s_mask_halves_what_the_layer_starts_as(rng):
    x = rng.normal(size=SHAPE).astype("float32")
    full, half = (layers.DeformableConv2D(6, 3, mask_scale=scale) for scale in (2.0, 1.0))
    full.build(SHAPE)
    half.build(SHAPE)
    expected = call(full, x) / 2
    half.set_weights(full.get_weights())
    np.testing.assert_allclose(call(half, x), expected, atol=1e-5)


@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_offsets_told_are_those_that_the_layer_uses(data_format, modulated, rng):
    arguments = {"strides": (2, 1), "padding": "same", "offset_groups": 2}
    layer = layers.DeformableConv2D(
        6, (3, 2), modulated=modulated, data_format=data_format, **arguments
    )
    shape = SHAPE if data_format == "channels_last" else (2, 4, 8, 11)
    layer.build(shape)
    randomize(layer, rng)
    x = rng.normal(size=shape).astype("float32")
    offsets, mask = compute(layer.offsets_and_mask, x)
    assert (mask is not None) == modulated
    if mask is not None:
        assert 0 < mask.min() < mask.max() < 2
    operation = functools.partial(deform_conv2d, data_format=data_format, **arguments)
    expected = compute(operation, x, to_numpy(layer.kernel), offsets, mask)
    bias = to_numpy(layer.bias)
    expected += bias if data_format == "channels_last" else bias[:, None, None]
    np.testing.assert_allclose(call(layer, x), expected, atol=1e-4)
    # The branch is a convolution of the same inputs.
    conv = keras.layers.Conv2D(layer.offset_bias.shape[0], (3, 2), (2, 1), "same")
    conv.build(SHAPE)
    conv.set_weights(layer.get_weights()[2:])
    branch = call(conv, x if data_format == "channels_last" else np.moveaxis(x, 1, -1))
    if data_format == "channels_first":
        branch = np.moveaxis(branch, -1, 1)
    channels = -1 if data_format == "channels_last" else 1
    expected = np.take(branch, range(24), axis=channels)
    np.testing.assert_allclose(offsets, expected, atol=1e-5)


@pytest.mark.parametrize("multiplier", [0.1, 0.0])
def test_the_multiplier_scales_the_gradients_of_the_offset_branch_and_nothing_else(multiplier, rng):
    x = rng.normal(size=SHAPE).astype("float32")
    weights, found = None, []
    for factor in (1.0, multiplier):
        layer = layers.DeformableConv2D(6, (3, 2), offset_lr_multiplier=factor)
        layer.build(SHAPE)
        if weights is None:
            randomize(layer, rng)
            weights = layer.get_weights()
            projection = rng.normal(size=layer.compute_output_shape(SHAPE)).astype("float32")
        layer.set_weights(weights)
        found.append(outputs_and_gradients(layer, x, projection))
    (outputs, gradients), (same, scaled) = found
    np.testing.assert_allclose(same, outputs, rtol=1e-6, atol=1e-6)
    # Inputs, kernel and bias; then the branch's.
    for index, (one, other) in enumerate(zip(gradients, scaled, strict=True)):
        factor = multiplier if index > 2 else 1
        atol = 1e-4 * np.abs(one).max()
        np.testing.assert_allclose(other, factor * one, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("padding", "strides"),
    [("valid", 2), ("same", (2, 3)), pytest.param("same", 1, marks=pytest.mark.slow)],
)
def test_images_may_have_any_size(padding, strides, rng):
    layer = layers.DeformableConv2D(6, (3, 2), strides=strides, padding=padding)
    model = keras.Sequential([keras.Input((None, None, 4)), layer])
    randomize(layer, rng)
    for size in ((8, 11), (9, 7)):
        x = rng.normal(size=(3, *size, 4)).astype("float32")
        found = model.predict(x, verbose=0)
        fixed = layers.DeformableConv2D(6, (3, 2), strides=strides, padding=padding)
        fixed.build(x.shape)
        fixed.set_weights(layer.get_weights())
        np.testing.assert_allclose(found, call(fixed, x), atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes ONNX")
@pytest.mark.parametrize("tap_by_tap", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "format_name", ["onnx", "tf_saved_model", pytest.param("litert", marks=pytest.mark.slow)]
)
def test_an_export_computes_the_same(format_name, tap_by_tap, rng, tmp_path, monkeypatch):
    if tap_by_tap:
        monkeypatch.setattr(deform_conv, "AT_ONCE", 0)
    for package in {"onnx": ["onnxruntime", "tf2onnx"], "litert": ["ai_edge_litert"]}.get(
        format_name, []
    ):
        pytest.importorskip(package)
    inputs = keras.Input((8, 11, 4), name="image")
    x = layers.DeformableConv2D(6, (3, 2), strides=(2, 1), padding="same", offset_groups=2)(inputs)
    x = layers.DeformableConv2D(5, 3, modulated=False, activation="relu")(x)
    model = keras.Model(inputs, x)
    randomize(model, rng, scale=0.3)
    # Verified on batches of 1 and of 7.
    manifest = export_model(model, tmp_path / "served", [format_name], tolerance=1e-5)
    assert manifest["formats"][format_name]["difference"] <= 1e-5


def test_offsets_learn_how_far_an_image_was_moved():
    rows, columns = np.mgrid[:12, :13].astype("float32")
    waves = [np.sin(0.5 * rows + phase) + np.cos(0.4 * columns - phase) for phase in range(5)]
    images = np.stack(waves)[..., None].astype("float32")
    layer = layers.DeformableConv2D(
        1, 1, modulated=False, use_bias=False, kernel_initializer="ones"
    )
    moved = np.broadcast_to(np.float32([0.7, -1.3]), (5, 12, 13, 2))
    targets = compute(deform_conv2d, images, np.ones((1, 1, 1, 1), "float32"), moved)
    model = keras.Sequential([keras.Input((12, 13, 1)), layer])
    # Only the bias of the branch: an offset that is the same everywhere.
    mask = np.zeros((12, 13, 1), "float32")
    mask[3:-3, 3:-3] = 1
    layer.offset_kernel.trainable = False
    layer.kernel.trainable = False
    weights = np.broadcast_to(mask[..., 0], (5, 12, 13))
    model.compile(keras.optimizers.Adam(0.1), "mse", **WITHOUT_XLA)
    # Steps of one epoch, as each epoch would set up its reading of five images anew.
    images, targets, weights = (np.concatenate([one] * 80) for one in (images, targets, weights))
    model.fit(images, targets, sample_weight=weights, batch_size=5, shuffle=False, verbose=0)
    np.testing.assert_allclose(to_numpy(layer.offset_bias), [0.7, -1.3], atol=0.1)


def op(**changes):
    given = {
        "x": np.zeros((2, 8, 11, 4), "float32"),
        "kernel": np.zeros((3, 2, 4, 5), "float32"),
        "offset": np.zeros((2, 6, 10, 12), "float32"),
    }
    return deform_conv2d(**{**given, **changes})


ERRORS = {
    "mask scale": (
        lambda: layers.DeformableConv2D(4, 3, mask_scale=0),
        "`mask_scale` must be a finite number above 0. Received: mask_scale=0.",
    ),
    "multiplier": (
        lambda: layers.DeformableConv2D(4, 3, offset_lr_multiplier=-0.1),
        "`offset_lr_multiplier` must be a finite number of at least 0. Received: offset_lr_multiplier=-0.1.",
    ),
    "groups": (
        lambda: layers.DeformableConv2D(4, 3, offset_groups=0),
        "`offset_groups` must be an integer of at least 1. Received: offset_groups=0.",
    ),
    "groups of channels": (
        lambda: layers.DeformableConv2D(4, 3, offset_groups=3, name="layer").build((None, 8, 9, 4)),
        (
            "`offset_groups` must divide the number of input channels of layer 'layer'. Received: "
            "offset_groups=3 and input_shape=(None, 8, 9, 4), with 4 channels."
        ),
    ),
    "no offsets": (
        lambda: layers.DeformableConv2D(
            4, 3, use_offset_branch=False, name="layer"
        ).compute_output_spec(keras.KerasTensor((1, 8, 9, 4))),
        (
            "Layer 'layer' has no offset branch, so its offsets must be given. Received: "
            "offset=None with use_offset_branch=False. Call layer(inputs, offset=...), or set "
            "use_offset_branch=True."
        ),
    ),
    "groups of filters": (
        lambda: op(groups=2),
        (
            "`groups` must divide the number of channels and that of filters. Received: groups=2 "
            "for inputs with 4 channels and 5 filters."
        ),
    ),
    "padding": (
        lambda: op(padding="full"),
        (
            "`padding` must be 'valid', 'same' or ((top, bottom), (left, right)). Received: "
            "padding='full'."
        ),
    ),
    "kernel": (
        lambda: op(kernel=np.zeros((3, 2, 3, 5), "float32")),
        (
            "`kernel` must have the shape (rows, columns, channels, filters), with the channels of "
            "the inputs, 4. Received: kernel of shape (3, 2, 3, 5)."
        ),
    ),
    "data format of the operation": (
        lambda: op(data_format="NHWC"),
        (
            "`data_format` must be one of None, 'channels_last', 'channels_first'. Received: "
            "data_format='NHWC'."
        ),
    ),
    "strides of the operation": (
        lambda: op(strides=0),
        (
            "`strides` must be an integer of at least 1, or a tuple of 2 of them. Received: "
            "strides=0."
        ),
    ),
    "dilation of the operation": (
        lambda: op(dilation_rate=(1, 1.5)),
        (
            "`dilation_rate` must be an integer of at least 1, or a tuple of 2 of them. Received: "
            "dilation_rate=(1, 1.5)."
        ),
    ),
    "no groups of the operation": (
        lambda: op(offset_groups=0),
        "`offset_groups` must be an integer of at least 1. Received: offset_groups=0.",
    ),
    "padding of one number": (
        lambda: op(padding=1),
        (
            "`padding` must be 'valid', 'same' or ((top, bottom), (left, right)). Received: "
            "padding=1."
        ),
    ),
    "padding of a fraction": (
        lambda: op(padding=1.5),
        (
            "`padding` must be 'valid', 'same' or ((top, bottom), (left, right)). Received: "
            "padding=1.5."
        ),
    ),
    "padding below 0": (
        lambda: op(padding=((0, -1), (0, 0))),
        (
            "`padding` must be 'valid', 'same' or ((top, bottom), (left, right)). Received: "
            "padding=((0, -1), (0, 0))."
        ),
    ),
    "another batch of offsets": (
        lambda: op(offset=np.zeros((1, 6, 10, 12), "float32")),
        (
            "`offset` must have one example for each of the inputs', 2. Received: offset of 1 "
            "examples."
        ),
    ),
    "another batch of masks": (
        lambda: op(mask=np.zeros((3, 6, 10, 6), "float32")),
        "`mask` must have one example for each of the inputs', 2. Received: mask of 3 examples.",
    ),
    "images without a batch": (
        lambda: op(x=np.zeros((8, 11, 4), "float32")),
        (
            "`x` must be a tensor of real numbers with the axes (b, h, w, c). Received: x of shape "
            "(8, 11, 4) and dtype float32."
        ),
    ),
    "text for images": (
        lambda: op(x="text"),
        ("`x` must be a tensor of real numbers with the axes (b, h, w, c). Received: x='text'."),
    ),
    "groups of the operation": (
        lambda: op(offset_groups=3),
        (
            "`offset_groups` must divide the number of channels. Received: offset_groups=3 for "
            "inputs with 4 channels."
        ),
    ),
    "offset": (
        lambda: op(offset=np.zeros((2, 6, 10, 6), "float32")),
        (
            "`offset` must have a value for each output position and, in its channels, 2 * 1 * 6 = "
            "12: here the shape (batch, 6, 10, 12) with channels last. Received: offset of shape "
            "(2, 6, 10, 6)."
        ),
    ),
    "mask": (
        lambda: op(mask=np.zeros((2, 6, 9, 6), "float32")),
        (
            "`mask` must have a value for each output position and, in its channels, 1 * 6 = 6: "
            "here the shape (batch, 6, 10, 6) with channels last. Received: mask of shape "
            "(2, 6, 9, 6)."
        ),
    ),
    "groups of a scale space": (
        lambda: layers.DeformableScaleConv2D(4, 3, offset_groups=3, name="layer").build(
            (None, 3, 8, 9, 4)
        ),
        (
            "`offset_groups` must divide the number of input channels of layer 'layer'. Received: "
            "offset_groups=3 and input_shape=(None, 3, 8, 9, 4), with 4 channels."
        ),
    ),
    "groups of a pyramid": (
        lambda: layers.DeformableScaleConv2D(4, 3, offset_groups=3, name="layer").build(
            [(None, 8, 9, 4), (None, 4, 5, 4)]
        ),
        (
            "`offset_groups` must divide the number of input channels of layer 'layer'. Received: "
            "offset_groups=3 and input_shape=[(None, 8, 9, 4), (None, 4, 5, 4)], with 4 channels."
        ),
    ),
    "multiplier of a scale space": (
        lambda: layers.DeformableScaleConv2D(4, 3, offset_lr_multiplier=float("nan")),
        "`offset_lr_multiplier` must be a finite number of at least 0. Received: offset_lr_multiplier=nan.",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_says_what_must_hold_and_what_came(case):
    act, text = ERRORS[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == text
