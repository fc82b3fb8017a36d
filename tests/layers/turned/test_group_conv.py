# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Convolutions with turned filters: the law of equivariance, NumPy's rotations, e2cnn."""

import itertools

import keras
import numpy as np
import pytest
from backends import (
    assert_close,
    assert_refused,
    built,
    call,
    outputs_and_gradients,
    randomize,
    to_numpy,
)

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.equivariance import GroupRotation, Rotation, error
from low_rank_local_connectivity.inspection import receptive_field
from low_rank_local_connectivity.ops import expand_kernel, rotation_matrix


def turned(images, turns):
    """Images turned counter-clockwise by quarters."""
    return np.rot90(images, turns, axes=(1, 2))


def moved(maps, turns, order=4):
    """Maps with orientations, turned by quarters as the group turns them."""
    return np.roll(turned(maps, turns), turns * order // 4, axis=3)


# Kernel size, strides, padding, dilation rate and image size that fit together.
GEOMETRIES = {
    "valid": (3, 1, "valid", 1, (8, 11)),
    "same": (5, 1, "same", 1, (8, 11)),
    "even kernel": (4, 1, "valid", 1, (8, 11)),
    "one tap": (1, 1, "valid", 1, (8, 11)),
    "dilated": (3, 1, "same", 2, (8, 11)),
    "valid, stride 2": (3, 2, "valid", 1, (9, 13)),
    "same, stride 2": (3, 2, "same", 1, (9, 13)),
    "even kernel, stride 2": (4, 2, "valid", 1, (8, 12)),
    "same, stride 3": (5, 3, "same", 1, (7, 13)),
    "reflect, dilated, stride 2": (3, 2, "reflect", 3, (9, 13)),
    "amounts": (4, 1, ((2, 2), (2, 2)), 1, (8, 11)),
    "a number, stride 2": (4, 2, 1, 1, (8, 12)),
    "same, even kernel, stride 2": (4, 2, "same", 1, (8, 12)),
    "same, stride 3, nothing padded": (3, 3, "same", 1, (9, 12)),
}


@pytest.mark.parametrize("order", [4, 8, 2])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_turned_images_give_turned_maps_with_orientations_moved_on(geometry, order, rng):
    size, strides, padding, dilation, image = GEOMETRIES[geometry]
    arguments = {"strides": strides, "padding": padding, "dilation_rate": dilation}
    arguments |= {"order": order, "activation": "relu"}
    lift = built(layers.GroupLiftConv2D(5, size, **arguments), (None, *image, 3), rng)
    conv = built(layers.GroupConv2D(6, size, **arguments), (None, *image, order, 3), rng)
    images = rng.normal(size=(2, *image, 3)).astype("float32")
    maps = rng.normal(size=(2, *image, order, 3)).astype("float32")
    steps = (1, 2, 3) if order > 2 else (2,)
    found = [(call(lift, images), call(conv, maps))] * len(steps)
    for turns, (of_images, of_maps) in zip(steps, found, strict=True):
        assert_close(call(lift, turned(images, turns)), moved(of_images, turns, order))
        assert_close(call(conv, moved(maps, turns, order)), moved(of_maps, turns, order))


@pytest.mark.once
@pytest.mark.parametrize("padding", ["valid", "same", 1, "reflect"])
def test_strides_are_refused_where_they_break_the_law_and_nowhere_else(padding, rng):
    for taps, strides, size in itertools.product((2, 3), (2, 3), range(5, 11)):
        layer = layers.GroupLiftConv2D(4, taps, strides=strides, padding=padding)
        images = rng.normal(size=(1, size, size, 2)).astype("float32")
        try:
            layer.build(images.shape)
        except ValueError:
            # As a convolution without the rule.
            layer._check_windows = lambda *_, **__: None
            layer.build(images.shape)
            breaks = True
        else:
            breaks = False
        found, expected = call(layer, turned(images, 1)), moved(call(layer, images), 1)
        assert (np.abs(found - expected).max() > 1e-4) == breaks, (taps, strides, size)


@pytest.mark.once
def test_a_number_is_that_many_zeros_at_every_side(rng):
    layer = built(layers.GroupLiftConv2D(5, 3, padding=np.int64(2)), (2, 5, 6, 3), rng)
    assert layer.get_config()["padding"] == ((2, 2), (2, 2))
    wide = built(layers.GroupLiftConv2D(5, 3), (2, 9, 10, 3), rng)
    wide.set_weights(layer.get_weights())
    images = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    assert_close(call(layer, images), call(wide, padded))


@pytest.mark.once
def test_without_the_stride_rule_the_law_would_be_broken(rng):
    layer = built(layers.GroupLiftConv2D(5, 3, strides=2, padding="same"), (None, 11, 11, 3), rng)
    layer._check_windows = lambda *_, **__: None
    for size, holds in ((11, True), (12, False)):
        images = rng.normal(size=(1, size, size, 3)).astype("float32")
        found, expected = call(layer, turned(images, 1)), moved(call(layer, images), 1)
        assert (np.abs(found - expected).max() < 1e-4) == holds


def test_the_lifted_kernel_has_every_filter_turned(rng):
    layer = built(layers.GroupLiftConv2D(5, 3), (None, 8, 11, 2), rng)
    kernel = to_numpy(layer.kernel)
    plain = to_numpy(layer.plain_kernel)
    assert plain.shape == (3, 3, 2, 20)
    for r, channel, filters in itertools.product(range(4), range(2), range(5)):
        np.testing.assert_array_equal(
            plain[:, :, channel, 5 * r + filters], np.rot90(kernel[:, :, channel, filters], r)
        )


def test_the_group_kernel_has_filters_turned_and_their_orientations_rolled(rng):
    layer = built(layers.GroupConv2D(5, 3), (None, 8, 11, 4, 2), rng)
    kernel = to_numpy(layer.kernel)
    plain = to_numpy(layer.plain_kernel).reshape(3, 3, 4, 2, 4, 5)
    for r, channel, filters in itertools.product(range(4), range(2), range(5)):
        rolled = np.roll(kernel[:, :, :, channel, filters], r, axis=2)
        np.testing.assert_array_equal(plain[:, :, :, channel, r, filters], np.rot90(rolled, r))


@pytest.mark.once
@pytest.mark.parametrize("size", [3, 4, 5, 7])
def test_every_column_of_a_rotation_keeps_its_weight_or_is_outside_of_the_disc(size):
    inside = [
        np.hypot(row - (size - 1) / 2, column - (size - 1) / 2) <= size / 2
        for row, column in itertools.product(range(size), repeat=2)
    ]
    for degrees in (0.0, 30.0, 45.0, 80.0):
        sums = rotation_matrix(size, degrees).sum(0)
        np.testing.assert_allclose(sums, inside, atol=1e-6)


@pytest.mark.once
def test_a_kernel_turned_by_interpolation_reads_where_the_rotation_says():
    """Against SciPy's own rotation, up to the division that keeps every tap's weight."""
    ndimage = pytest.importorskip("scipy.ndimage")
    for size, order, turns in ((7, 8, 1), (5, 12, 2), (6, 5, 1)):
        identity = np.eye(size**2, dtype="float32").reshape(size, size, 1, 1, size**2)
        plain = to_numpy(expand_kernel(identity, order)).reshape(size, size, order, -1)[:, :, turns]
        angle, axes = 360 * turns / order, {"axes": (1, 0), "reshape": False}
        read = ndimage.rotate(identity[:, :, 0, 0], angle, order=1, mode="grid-constant", **axes)
        sums = read.sum((0, 1))
        found = plain.sum((0, 1)) > 0
        assert_close(plain[..., found], (read / np.where(sums > 0, sums, 1))[..., found])


@pytest.mark.parametrize(("size", "most"), [(3, 0.035), (5, 0.007), (7, 0.0025)])
def test_eight_orientations_commute_with_45_degrees_on_smooth_images(size, most, rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    noise = rng.normal(size=(4, 41, 41, 1))
    images = ndimage.gaussian_filter(noise, (0, 2, 2, 0)).astype("float32")
    lift = layers.GroupLiftConv2D(6, size, 8, use_bias=False)
    conv = layers.GroupConv2D(5, size, 8, use_bias=False, name="second")
    model = keras.Sequential([keras.Input((41, 41, 1)), lift, conv])
    randomize(model, rng)
    rotation = GroupRotation(45, "bicubic", order=8)
    assert 1e-5 < error(model, images, rotation, layer=lift.name, margin=8).mean() < most
    assert error(model, images, rotation, margin=10).mean() < 2.5 * most
    # Without its orientations moved on the map is another one.
    assert error(model, images, Rotation(45, "bicubic"), margin=10).mean() > 4 * most


def test_the_meter_finds_quarter_turns_exact_in_both_data_formats(rng):
    images = rng.normal(size=(3, 9, 9, 2)).astype("float32")
    for data_format in ("channels_last", "channels_first"):
        first = data_format == "channels_first"
        of_format = np.moveaxis(images, -1, 1) if first else images
        model = keras.Sequential(
            [
                keras.Input(of_format.shape[1:]),
                layers.GroupLiftConv2D(5, 3, data_format=data_format, name="lift"),
                layers.GroupConv2D(6, 3, data_format=data_format, name="group"),
                layers.GroupPooling2D("mean", data_format=data_format),
            ]
        )
        for name, kind in (("lift", GroupRotation), ("group", GroupRotation), (None, Rotation)):
            for degrees in (90, -180, 270):
                found = error(model, of_format, kind(degrees), layer=name, data_format=data_format)
                assert found.max() < 1e-10


@pytest.mark.parametrize("kind", ["lift", "group"])
def test_channels_first_is_channels_last_transposed(kind, rng):
    name, inner = {"lift": ("GroupLiftConv2D", ()), "group": ("GroupConv2D", (4,))}[kind]
    last = built(getattr(layers, name)(6, 3, padding="same"), (None, 8, 11, *inner, 5), rng)
    first = getattr(layers, name)(6, 3, padding="same", data_format="channels_first")
    first.build((None, *inner, 5, 8, 11))
    first.set_weights(last.get_weights())
    maps = rng.normal(size=(2, 8, 11, *inner, 5)).astype("float32")
    found = call(first, np.moveaxis(maps, (1, 2), (-2, -1)))
    assert_close(np.moveaxis(found, (-2, -1), (1, 2)), call(last, maps))


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_pooling_over_orientations_leaves_maps_that_only_turn(mode, rng):
    maps = rng.normal(size=(2, 8, 11, 4, 5)).astype("float32")
    layer = layers.GroupPooling2D(mode)
    found = call(layer, maps)
    assert_close(found, getattr(np, mode)(maps, axis=3))
    assert_close(call(layer, moved(maps, 1)), turned(found, 1))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_batch_normalization_is_shared_by_the_orientations(data_format, rng):
    maps = rng.normal(2.0, 3.0, size=(3, 8, 11, 4, 5)).astype("float32")
    first = data_format == "channels_first"
    layer = layers.GroupBatchNormalization(0.0, 1e-4, data_format)
    given = np.moveaxis(maps, (1, 2), (-2, -1)) if first else maps
    found = to_numpy(layer(given, training=True))
    found = np.moveaxis(found, (-2, -1), (1, 2)) if first else found
    axes = (0, 1, 2, 3)
    expected = (maps - maps.mean(axes)) / np.sqrt(maps.var(axes) + 1e-4)
    assert_close(found, expected, 1e-4)
    assert [tuple(weight.shape) for weight in layer.weights] == [(5,)] * 4
    np.testing.assert_allclose(to_numpy(layer.moving_mean), maps.mean(axes), rtol=1e-4)


@pytest.mark.parametrize("kind", ["lift", "group"])
@pytest.mark.parametrize("order", [1, 4, 6])
def test_the_convolution_it_becomes_computes_the_same(kind, order, rng):
    arguments = {"order": order, "strides": 2, "padding": "same", "activation": "tanh"}
    shape = (2, 9, 13, 3) if kind == "lift" else (2, 9, 13, order, 3)
    name = {"lift": "GroupLiftConv2D", "group": "GroupConv2D"}[kind]
    layer = built(getattr(layers, name)(5, 3, name="this", **arguments), shape, rng)
    layer.trainable = False
    conv = layer.to_conv2d()
    inputs = rng.normal(size=shape).astype("float32")
    found = call(conv, inputs.reshape(2, 9, 13, -1))
    expected = call(layer, inputs)
    assert_close(found, expected.reshape(2, 5, 7, -1))
    assert (type(conv), conv.name, conv.trainable) == (keras.layers.Conv2D, "this", False)
    assert conv.filters == 5 * order


def test_with_one_orientation_it_is_a_convolution(rng):
    layer = built(layers.GroupLiftConv2D(5, 3, order=1), (None, 8, 11, 2), rng)
    conv = keras.layers.Conv2D(5, 3)
    conv.build((None, 8, 11, 2))
    conv.set_weights(layer.get_weights())
    images = rng.normal(size=(2, 8, 11, 2)).astype("float32")
    assert_close(call(layer, images)[:, :, :, 0], call(conv, images))


@pytest.mark.parametrize("initializer", ["he_normal", "glorot_uniform", "lecun_normal"])
@pytest.mark.parametrize(("order", "taps"), [(4, 25), (8, 21)])
def test_kernels_start_with_the_fans_of_the_plain_convolution(initializer, order, taps):
    lift = layers.GroupLiftConv2D(40, 5, order, kernel_initializer=initializer)
    lift.build((None, 8, 11, 30))
    conv = layers.GroupConv2D(40, 5, order, kernel_initializer=initializer)
    conv.build((None, 8, 11, order, 15))
    for layer, channels in ((lift, 30), (conv, 15 * order)):
        fan_in, fan_out = taps * channels, taps * order * 40
        expected = {
            "he_normal": 2 / fan_in,
            "glorot_uniform": 2 / (fan_in + fan_out),
            "lecun_normal": 1 / fan_in,
        }[initializer]
        assert to_numpy(layer.kernel).var() == pytest.approx(expected, rel=0.05)


@pytest.mark.once
def test_parameters_are_those_of_the_filters_in_one_orientation():
    lift, conv = layers.GroupLiftConv2D(5, 3, 8), layers.GroupConv2D(6, 3, 8)
    lift.build((None, 8, 11, 2))
    conv.build((None, 8, 11, 8, 5))
    assert lift.count_params() == 9 * 2 * 5 + 5
    assert conv.count_params() == 9 * 8 * 5 * 6 + 6
    assert conv.to_conv2d().count_params() == 9 * 8 * 5 * 8 * 6 + 8 * 6


@pytest.mark.parametrize("order", [4, 6])
def test_gradients_are_those_of_finite_differences(order, rng):
    layer = built(layers.GroupConv2D(3, 3, order), (None, 5, 6, order, 2), rng)
    maps = rng.normal(size=(2, 5, 6, order, 2)).astype("float32")
    projection = rng.normal(size=(2, 3, 4, order, 3)).astype("float32")
    _, (_, found, _) = outputs_and_gradients(layer, maps, projection)
    kernel = to_numpy(layer.kernel)
    # The layer is linear in its kernel, so that a difference of any length is exact.
    direction = rng.normal(size=kernel.shape).astype("float32")
    values = []
    for sign in (1, -1):
        layer.kernel.assign(kernel + sign * direction)
        values.append((call(layer, maps) * projection).sum())
    assert (found * direction).sum() == pytest.approx((values[0] - values[1]) / 2, rel=1e-3)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_images_may_have_any_size(padding, rng):
    model = keras.Sequential(
        [
            keras.Input((None, None, 2)),
            layers.GroupLiftConv2D(3, 3, padding=padding),
            layers.GroupConv2D(5, 3, padding=padding),
            layers.GroupPooling2D(),
        ]
    )
    assert model.output_shape == (None, None, None, 5)
    images = rng.normal(size=(2, 8, 11, 2)).astype("float32")
    found = model.predict(images, verbose=0)
    assert_close(model.predict(turned(images, 1), verbose=0), turned(found, 1))


@pytest.mark.once
def test_receptive_fields_go_through_orientations():
    model = keras.Sequential(
        [
            keras.Input((17, 21, 2)),
            layers.GroupLiftConv2D(3, 5, padding="same", name="lift"),
            layers.GroupBatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.AveragePooling3D((3, 3, 1), (2, 2, 1), padding="same"),
            layers.GroupConv2D(3, 3, strides=2),
            layers.GroupPooling2D(name="last"),
        ]
    )
    rows = receptive_field(model)
    assert (rows[0].sizes, rows[0].strides, rows[0].starts) == ((5, 5), (1, 1), (-2, -2))
    assert (rows[-1].sizes, rows[-1].strides, rows[-1].starts) == ((11, 11), (4, 4), (-3, -3))


@pytest.mark.once
@pytest.mark.filterwarnings("ignore")
def test_kernels_and_maps_are_those_of_e2cnn(rng):
    pytest.importorskip("e2cnn")
    import torch
    from e2cnn import gspaces, nn  # pyright: ignore[reportMissingImports]

    space = gspaces.Rot2dOnR2(N=4)
    kinds = [
        nn.FieldType(space, 3 * [space.trivial_repr]),
        nn.FieldType(space, 5 * [space.regular_repr]),
        nn.FieldType(space, 6 * [space.regular_repr]),
    ]
    theirs = [nn.R2Conv(kinds[i], kinds[i + 1], 3, bias=False) for i in range(2)]
    lift = layers.GroupLiftConv2D(5, 3, use_bias=False)
    conv = layers.GroupConv2D(6, 3, use_bias=False)
    maps = images = rng.normal(size=(2, 9, 11, 3)).astype("float32")
    field = nn.GeometricTensor(torch.from_numpy(np.moveaxis(images, -1, 1).copy()), kinds[0])
    for one, other, inner in ((lift, theirs[0], ()), (conv, theirs[1], (4,))):
        expanded = other.expand_parameters()[0].detach().numpy()
        filters, orientations = one.filters, len(inner) and 4
        # Their channels are (filter, orientation), ours (orientation, filter).
        spread = expanded.reshape(filters, 4, -1, orientations or 1, 3, 3).transpose(
            4, 5, 3, 2, 1, 0
        )
        one.build((None, 9, 11, *inner, spread.shape[3]))
        ours = spread[..., 0, :]  # its filters as they are in orientation 0
        one.kernel.assign(ours if inner else ours[:, :, 0])
        plain = to_numpy(one.plain_kernel).reshape(spread.shape)
        np.testing.assert_allclose(plain, spread, atol=1e-6)
        maps, field = call(one, maps), other(field)
        found = field.tensor.detach().numpy().reshape(2, filters, 4, *maps.shape[1:3])
        assert_close(maps, found.transpose(0, 3, 4, 2, 1))
    pooled = nn.GroupPooling(kinds[2])(field).tensor.detach().numpy()
    assert_close(call(layers.GroupPooling2D(), maps), np.moveaxis(pooled, 1, -1))


def this(**changes):
    return layers.GroupLiftConv2D(**{"filters": 4, "kernel_size": 3, "name": "this", **changes})


REFUSED = {
    "order": (
        lambda: this(order=0),
        "`order` must be an integer of at least 1. Received: order=0.",
    ),
    "kernel size": (
        lambda: this(kernel_size=(3, 2)),
        "`kernel_size` must be the same along both axes, since filters are turned. Received: kernel_size=(3, 2).",
    ),
    "strides": (
        lambda: this(strides=(1, 2)),
        "`strides` must be the same along both axes, since filters are turned. Received: strides=(1, 2).",
    ),
    "even kernel": (
        lambda: this(kernel_size=4, padding="same"),
        "padding='same' would put one element more at one side of the image than at the other, and turned images would not give turned maps, unless a filter's extent, dilation_rate * (kernel_size - 1) + 1, is odd. Received: kernel_size=(4, 4) and dilation_rate=(1, 1). Use an odd kernel_size, or padding='valid'.",
    ),
    "negative padding": (
        lambda: this(padding=-1),
        "`padding` must be an integer of at least 0. Received: padding=-1.",
    ),
    "strides and unknown size": (
        lambda: this(strides=2).build((None, None, 9, 3)),
        "Whether turned images give turned maps under strides above 1 depends on the image's size, so it must be known. Received: spatial input size (None, 9) with strides=(2, 2) at layer 'this'. Give keras.Input a static size, or use strides=1.",
    ),
    "strides and size": (
        lambda: this(strides=2, padding="same").build((None, 11, 12, 3)),
        "Turned images give turned maps only if the windows lie alike seen from either side of the image. Received: spatial input size (11, 12) with kernel_size=(3, 3), strides=(2, 2), dilation_rate=(1, 1) and padding='same' at layer 'this'; of sizes near 12, 11 and 13 would do. Use images of such a size, or strides=1 and, on even sizes, average pooling over 2x2 positions.",
    ),
    "orientations": (
        lambda: layers.GroupConv2D(4, 3, order=8, name="this").build((None, 9, 11, 4, 3)),
        "Inputs of layer 'this' must have as many orientations as it has, order=8, along axis -2. Received: input_shape=(None, 9, 11, 4, 3), with 4. Give every layer of a network the same `order`.",
    ),
    "small image": (
        lambda: this().build((None, 2, 9, 3)),
        "The kernel must fit into the input of layer 'this': its windows span (3, 3) elements. Received: spatial input size (2, 9) with padding='valid'. Use a smaller kernel, or padding='same'.",
    ),
    "not built": (
        lambda: this().to_conv2d(),
        "Layer 'this' must be built before to_conv2d() is called: call it on inputs, or call build(input_shape).",
    ),
    "activation": (
        lambda: built(
            this(activation="softmax"), (1, 9, 9, 2), np.random.default_rng(0)
        ).to_conv2d(),
        "to_conv2d() needs an activation that works value by value: a plain convolution has the orientations among its channels. Received: layer 'this' with activation='softmax'. Make the activation a layer of its own.",
    ),
    "mode": (
        lambda: layers.GroupPooling2D("sum"),
        "`mode` must be one of 'max', 'mean'. Received: mode='sum'.",
    ),
    "normalization of plain maps": (
        lambda: layers.GroupBatchNormalization(name="this").build((None, 9, 11, 3)),
        "Layer 'this' needs maps with orientations, (batch, height, width, order, channels) or (batch, order, channels, height, width). Received: input_shape=(None, 9, 11, 3). Use keras.layers.BatchNormalization for others.",
    ),
    "rotation": (
        lambda: GroupRotation(45),
        "`degrees` of a GroupRotation must be a multiple of 360 / order, here 90. Received: degrees=45 with order=4.",
    ),
    "maps of a rotation": (
        lambda: GroupRotation(45, order=8)(np.zeros((1, 3, 3, 4, 2))),
        "Maps must have the orientations of the GroupRotation along axis 3. Received: maps of shape (1, 3, 3, 4, 2) with order=8.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(case):
    assert_refused(*REFUSED[case])


def test_an_image_of_another_size_is_checked_when_the_layer_is_called(rng):
    layer = built(this(strides=2), (None, 11, 13, 3), rng)
    assert layer(np.zeros((1, 9, 9, 3), "float32")).shape == (1, 4, 4, 4, 4)
    with pytest.raises(ValueError, match=r"Received: spatial input size \(12, 9\) with"):
        layer(np.zeros((1, 12, 9, 3), "float32"))
