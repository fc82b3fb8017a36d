# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Filters that are mirrored, too: the law of D_N, NumPy's reflections, escnn."""

import itertools

import keras
import numpy as np
import pytest
from backends import assert_close, assert_refused, built, call, randomize, to_numpy

from low_rank_local_connectivity import conversion, layers
from low_rank_local_connectivity.equivariance import GroupRotation, error
from low_rank_local_connectivity.ops import expand_kernel


def matrices(order):
    """The elements as matrices of (right, up), in the order of the orientations."""
    angles = 2 * np.pi * np.arange(order) / order
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    return [*turns, *(turn @ np.diag([-1.0, 1.0]) for turn in turns)]


def product(order, one, other):
    """The index of `elements[one]^-1 elements[other]`, found by multiplying matrices."""
    elements = matrices(order)
    wanted = elements[one].T @ elements[other]
    return next(index for index, found in enumerate(elements) if np.allclose(found, wanted))


def seen(images, order, element, axes=(1, 2)):
    """Images moved by an element that turns by quarters: mirrored, then turned."""
    mirrored, turns = divmod(element, order)
    images = np.flip(images, axes[1]) if mirrored else images
    return np.rot90(images, 4 * turns // order, axes)


def moved(maps, order, element):
    """Maps with orientations, moved by an element that turns by quarters."""
    from_where = [product(order, element, own) for own in range(2 * order)]
    return seen(maps, order, element)[:, :, :, from_where]


def quarters(order):
    """The elements that only rearrange pixels, but for the identity."""
    return [one for one in range(1, 2 * order) if 4 * (one % order) % order == 0]


@pytest.mark.parametrize("basis", ["taps", "steerable"])
@pytest.mark.parametrize("order", [1, 2, 4, 8])
def test_moved_images_give_moved_maps(order, basis, rng):
    arguments = {"order": order, "reflections": True, "basis": basis, "activation": "relu"}
    lift = built(layers.GroupLiftConv2D(5, 3, **arguments), (None, 7, 9, 3), rng)
    conv = built(layers.GroupConv2D(6, 3, strides=2, **arguments), (2, 7, 9, 2 * order, 3), rng)
    images = rng.normal(size=(2, 7, 9, 3)).astype("float32")
    maps = rng.normal(size=(2, 7, 9, 2 * order, 3)).astype("float32")
    of_images, of_maps = call(lift, images), call(conv, maps)
    assert of_images.shape == (2, 5, 7, 2 * order, 5)
    # The reflection alone, and one with a rotation.
    for element in {order, quarters(order)[-1]}:
        found = call(lift, seen(images, order, element).copy())
        assert_close(found, moved(of_images, order, element))
        found = call(conv, moved(maps, order, element))
        assert_close(found, moved(of_maps, order, element))


@pytest.mark.once
@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_group_kernel_has_filters_moved_and_their_orientations_by_the_group(order, rng):
    kernel = rng.normal(size=(3, 3, 2 * order, 2, 5)).astype("float32")
    plain = to_numpy(expand_kernel(kernel, order, reflections=True))
    plain = plain.reshape(3, 3, 2 * order, 2, 2 * order, 5)
    for s, r in itertools.product(range(2 * order), repeat=2):
        expected = seen(kernel[:, :, product(order, r, s)], order, r, axes=(0, 1))
        np.testing.assert_array_equal(plain[:, :, s, :, r], expected)


@pytest.mark.once
def test_every_element_of_eight_orientations_is_measured(rng):
    layer = built(layers.GroupConv2D(5, 3, reflections=True), (2, 8, 9, 8, 3), rng)
    errors = layer.check_equivariance(rng.normal(size=(2, 8, 9, 8, 3)))
    rotations = [f"rotation by {degrees} degrees" for degrees in (90, 180, 270)]
    expected = [*rotations, "reflection", *(f"reflection, then {one}" for one in rotations)]
    assert list(errors) == expected
    assert max(errors.values()) < 1e-5


@pytest.mark.once
def test_the_meter_s_transform_is_the_one_that_layers_commute_with(rng):
    images = rng.normal(size=(2, 9, 9, 2)).astype("float32")
    model = keras.Sequential(
        [keras.Input((9, 9, 2)), layers.GroupLiftConv2D(5, 3, reflections=True)]
    )
    maps = rng.normal(size=(2, 5, 5, 8, 3))
    for turns in range(4):
        reflection = GroupRotation(90 * turns, reflections=True, mirror=True)
        assert_close(reflection(maps), moved(maps, 4, 4 + turns))
        assert error(model, images, reflection).max() < 1e-10
        assert error(model, images, GroupRotation(90 * turns, reflections=True)).max() < 1e-10
    # What a moved map is read from, so that positions from outside do not count.
    oblique = GroupRotation(45, order=8, reflections=True, mirror=True)
    rows, columns = np.indices((7, 9))[:, None, :, :, None].astype(float)
    found = [oblique(one)[0, 3, 4, 0] for one in (rows, columns)]
    np.testing.assert_allclose(found, [one[3, 4] for one in oblique.source(7, 9)], atol=1e-6)


@pytest.mark.parametrize("kind", ["GroupLiftConv2D", "GroupConv2D"])
def test_the_convolution_it_becomes_computes_the_same(kind, rng):
    shape = (2, 7, 9, 3) if kind == "GroupLiftConv2D" else (2, 7, 9, 6, 3)
    layer = getattr(layers, kind)(5, 3, 3, reflections=True, basis="steerable")
    built(layer, shape, rng)
    inputs = rng.normal(size=shape).astype("float32")
    conv = layer.to_conv2d()
    assert conv.filters == 30
    found = call(conv, inputs.reshape(2, 7, 9, -1))
    assert_close(found, call(layer, inputs).reshape(2, 5, 7, -1))


@pytest.mark.once
def test_a_network_with_reflections_is_invariant_and_becomes_a_plain_one(rng):
    arguments = {"reflections": True, "padding": "same", "activation": "relu"}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.GroupLiftConv2D(5, 3, **arguments),
            layers.GroupBatchNormalization(),
            layers.GroupConv2D(4, 3, **arguments),
            layers.GroupPooling2D(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    randomize(model, rng)
    images = rng.normal(size=(2, 8, 8, 2)).astype("float32")
    found = model.predict(images, verbose=0)
    for element in (1, 4, 7):
        assert_close(model.predict(seen(images, 4, element).copy(), verbose=0), found)
    plain = conversion.to_plain_convolutions(model)
    assert_close(plain.predict(images, verbose=0), found)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore")
def test_expanded_kernels_of_d4_are_those_of_escnn():
    pytest.importorskip("escnn")
    from escnn import gspaces, nn  # pyright: ignore[reportMissingImports]

    space = gspaces.flipRot2dOnR2(4)
    kinds = [
        nn.FieldType(space, 3 * [space.trivial_repr]),
        nn.FieldType(space, 5 * [space.regular_repr]),
        nn.FieldType(space, 6 * [space.regular_repr]),
    ]
    for index, orientations in ((0, 1), (1, 8)):
        conv = nn.R2Conv(kinds[index], kinds[index + 1], 3, bias=False)
        expanded = conv.expand_parameters()[0].detach().numpy()
        filters = 5 + index
        # Their channels are (filter, orientation), ours (orientation, filter).
        spread = expanded.reshape(filters, 8, -1, orientations, 3, 3).transpose(4, 5, 3, 2, 1, 0)
        plain = to_numpy(expand_kernel(spread[..., 0, :], 4, reflections=True))
        np.testing.assert_allclose(plain.reshape(spread.shape), spread, atol=1e-6)


@pytest.mark.once
def test_parameters_do_not_grow_with_a_lifting_s_orientations():
    lift, conv = layers.GroupLiftConv2D(5, 3), layers.GroupConv2D(6, 3, 2, reflections=True)
    mirrored = layers.GroupLiftConv2D(5, 3, reflections=True)
    for layer, shape in ((lift, (9, 11, 2)), (mirrored, (9, 11, 2)), (conv, (9, 11, 4, 5))):
        layer.build((None, *shape))
    assert lift.count_params() == mirrored.count_params() == 9 * 2 * 5 + 5
    assert conv.count_params() == 9 * 4 * 5 * 6 + 6


@pytest.mark.once
def test_a_layer_described_without_reflections_has_none():
    config = layers.GroupConv2D(5, 3).get_config()
    old = {name: value for name, value in config.items() if name not in ("reflections", "basis")}
    found = layers.GroupConv2D.from_config(old)
    assert (found.reflections, found.basis) == (False, "taps")


REFUSED = {
    "orientations": (
        lambda: layers.GroupConv2D(4, 3, reflections=True, name="this").build((None, 9, 9, 4, 3)),
        "Inputs of layer 'this' must have as many orientations as it has, 8 for order=4 with reflections, along axis -2. Received: input_shape=(None, 9, 9, 4, 3), with 4. Give every layer of a network the same `order` and `reflections`.",
    ),
    "basis": (
        lambda: layers.GroupConv2D(4, 3, basis="gaussian"),
        "`basis` must be one of 'taps', 'steerable'. Received: basis='gaussian'.",
    ),
    "kernel": (
        lambda: expand_kernel(np.ones((3, 3, 4, 2, 5)), 4, reflections=True),
        "`kernel_hwscf` must have as many rows as columns, and 1 or 2 * `order` orientations. Received: kernel_hwscf of shape (3, 3, 4, 2, 5) with order=4.",
    ),
    "mirror": (
        lambda: GroupRotation(90, mirror=True),
        "A GroupRotation swaps left and right only if its group has reflections. Received: mirror=True with reflections=False. Use reflections=True.",
    ),
    "maps": (
        lambda: GroupRotation(90, reflections=True)(np.zeros((1, 3, 3, 4, 2))),
        "Maps must have the orientations of the GroupRotation along axis 3. Received: maps of shape (1, 3, 3, 4, 2) with order=4 and reflections.",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(case):
    assert_refused(*REFUSED[case])
