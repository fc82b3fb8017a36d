# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""What layers with turned filters say of how exactly they commute with rotations."""

import functools

import keras
import numpy as np
import pytest
from backends import assert_refused, built, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.ops.plane_group import PlaneElement, PlaneGroup


def smooth(rng, *shape):
    """Noise smoothed by a Gaussian of 3 pixels."""
    ndimage = pytest.importorskip("scipy.ndimage")
    widths = (0, 3, 3, *(0,) * (len(shape) - 3))
    return ndimage.gaussian_filter(rng.normal(size=shape), widths).astype("float32")


QUARTERS = [f"rotation by {degrees} degrees" for degrees in (90, 180, 270)]
EXACT = {
    "lifting": (lambda **at: layers.GroupLiftConv2D(5, 3, strides=2, **at), (2, 9, 13, 3)),
    "group": (lambda **at: layers.GroupConv2D(5, 3, padding="same", **at), (2, 8, 11, 4, 3)),
    "pooling": (layers.GroupPooling2D, (2, 8, 11, 4, 3)),
    "normalization": (layers.GroupBatchNormalization, (2, 8, 11, 4, 3)),
}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", EXACT)
def test_quarter_turns_are_exact_in_both_data_formats(kind, data_format, rng):
    make, shape = EXACT[kind]
    inputs = rng.normal(size=shape).astype("float32")
    if data_format == "channels_first":
        inputs = np.moveaxis(inputs, (1, 2), (-2, -1))
    layer = built(make(data_format=data_format), inputs.shape, rng)
    errors = layer.check_equivariance(inputs)
    assert list(errors) == QUARTERS
    assert max(errors.values()) < 1e-5


def test_the_error_is_the_ratio_of_norms_for_a_layer_that_breaks_the_law(rng):
    uneven = np.array([1, 2, 3, 5], "float32")[:, None]
    times = functools.partial(keras.ops.multiply, uneven)
    layer = built(layers.GroupLiftConv2D(5, 3, activation=times), (2, 8, 9, 3), rng)
    images = rng.normal(size=(2, 8, 9, 3)).astype("float32")
    expected = np.roll(np.rot90(to_numpy(layer(images)), axes=(1, 2)), 1, axis=3)
    distance = np.linalg.norm(to_numpy(layer(np.rot90(images, axes=(1, 2)).copy())) - expected)
    found = layer.check_equivariance(images)["rotation by 90 degrees"]
    assert found > 0.1
    assert found == pytest.approx(distance / np.linalg.norm(expected), rel=1e-4)


def test_other_angles_are_interpolated_within_a_disc(rng):
    """Against SciPy's rotation, which interpolates by splines."""
    ndimage = pytest.importorskip("scipy.ndimage")
    images = smooth(rng, 2, 31, 35, 1)
    layer = built(
        layers.GroupLiftConv2D(6, 5, 8, padding="same", use_bias=False), images.shape, rng
    )
    turn = {"angle": 45, "axes": (2, 1), "reshape": False}
    expected = np.roll(ndimage.rotate(to_numpy(layer(images)), **turn), 1, axis=3)
    distances = (to_numpy(layer(ndimage.rotate(images, **turn))) - expected)[:, 11:-11, 11:-11]
    expected = np.linalg.norm(distances) / np.linalg.norm(expected[:, 11:-11, 11:-11])
    errors = layer.check_equivariance(images)
    assert list(errors)[::2] == [f"rotation by {a} degrees" for a in (45, 135, 225, 315)]
    assert errors["rotation by 45 degrees"] == pytest.approx(expected, rel=0.2)
    assert errors["rotation by 90 degrees"] < 1e-5


@pytest.mark.once
@pytest.mark.parametrize("kind", ["GroupPooling2D", "GroupBatchNormalization"])
def test_what_treats_orientations_alike_commutes_with_reflections_too(kind, rng):
    inputs = rng.normal(size=(2, 8, 11, 8, 3)).astype("float32")
    layer = built(getattr(layers, kind)(), inputs.shape, rng)
    errors = layer.check_equivariance(inputs, reflections=True)
    assert list(errors)[:4] == [*QUARTERS, "reflection"]
    assert len(errors) == 7
    assert max(errors.values()) < 1e-5


@pytest.mark.once
def test_positions_that_count_read_neither_padding_nor_what_comes_in(rng):
    """A constant image stays one as far as it reaches, so that all that counts is equal."""
    layer = built(layers.GroupLiftConv2D(6, 5, 8, padding="same", strides=2), (1, 33, 37, 2), rng)
    errors = layer.check_equivariance(np.ones((1, 33, 37, 2)))
    assert max(errors.values()) < 1e-5


@pytest.mark.once
def test_the_identity_is_left_out_and_whole_numbers_are_taken():
    assert layers.GroupLiftConv2D(4, 3, order=1).check_equivariance(np.ones((1, 5, 5, 2))) == {}
    images = np.random.default_rng(0).integers(0, 255, size=(1, 5, 5, 2), dtype="uint8")
    assert max(layers.GroupLiftConv2D(4, 3).check_equivariance(images).values()) < 1e-5


@pytest.mark.once
@pytest.mark.parametrize("reflections", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_elements_are_a_group_of_permutations(order, reflections):
    """The composition of two movements is that of their product, as matrices multiply."""
    group = PlaneGroup(order, reflections)
    elements = group.elements()
    assert group.size == len(elements) == order * (2 if reflections else 1)
    matrices = [matrix(one, order) for one in elements]
    for one, first in zip(elements, matrices, strict=True):
        for other, second in zip(elements, matrices, strict=True):
            product = [np.allclose(first @ second, found) for found in matrices]
            moved = np.array(group.moved_from(other))[group.moved_from(one)]
            assert product.count(True) == 1
            assert moved.tolist() == group.moved_from(elements[product.index(True)])
    # Orientation 0 goes to the orientation of the element.
    assert [group.moved_from(one).index(0) for one in elements] == list(range(group.size))


def matrix(element: PlaneElement, order: int):
    angle = 2 * np.pi * element.turns / order
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turned @ np.diag([-1.0, 1.0]) if element.mirrored else turned


REFUSED = {
    "axes": (
        lambda: layers.GroupConv2D(4, 3).check_equivariance(np.ones((1, 5, 5, 2))),
        (
            "`inputs` must be a tensor of real numbers with the axes (b, h, w, o, c). Received: "
            "inputs of shape (1, 5, 5, 2) and dtype float64."
        ),
    ),
    "symbol": (
        lambda: layers.GroupPooling2D().check_equivariance(keras.Input((5, 5, 4, 2), name="x")),
        (
            "`inputs` must hold values. Received: inputs of shape (None, 5, 5, 4, 2) and "
            "dtype float32."
        ),
    ),
    "odd": (
        lambda: layers.GroupPooling2D().check_equivariance(np.ones((1, 5, 5, 3, 2)), True),
        "Half of the orientations are mirrored under reflections=True, so their number must be even. Received: 3 orientations.",
    ),
    "size": (
        lambda: layers.GroupLiftConv2D(4, 7, 8).check_equivariance(np.ones((1, 17, 10, 2))),
        (
            "`inputs` must have room for a disc that the filters do not leave as it turns. Received: "
            "inputs of 17 x 10 positions. Use at least 18 x 18."
        ),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_in_a_sentence(case):
    assert_refused(*REFUSED[case])
