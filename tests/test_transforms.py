"""Shifts, scalings and rotations of maps, against SciPy, Keras and polynomials."""

import numpy as np
import pytest
from backends import to_numpy
from keras import ops

from low_rank_local_connectivity.equivariance import Rotation, Scale, Shift


@pytest.mark.once
@pytest.mark.parametrize(
    "transform", [Rotation(33), Rotation(-120, fill=0.4), Rotation(90)], ids=str
)
def test_rotations_are_scipys(transform, rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    maps = rng.normal(size=(2, 8, 11, 3))
    expected = ndimage.rotate(
        maps,
        transform.degrees,
        axes=(2, 1),
        reshape=False,
        order=1,
        mode="grid-constant",
        cval=transform.fill,
    )
    np.testing.assert_allclose(transform(maps), expected, atol=1e-8)


@pytest.mark.once
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_scalings_and_shifts_are_scipys(factor, rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    maps = rng.normal(size=(2, 8, 11, 3))
    matrix = np.array([1, 1 / factor, 1 / factor, 1])
    centre = np.array([0, 3.5, 5, 0])
    expected = ndimage.affine_transform(
        maps, matrix, centre - matrix * centre, order=1, mode="grid-constant", cval=-0.5
    )
    np.testing.assert_allclose(Scale(factor, fill=-0.5)(maps), expected, atol=1e-8)
    expected = ndimage.shift(maps, (0, 3, -2, 0), order=0, cval=0.25)
    np.testing.assert_array_equal(Shift(3, -2, fill=0.25)(maps), expected)
    expected = ndimage.shift(maps, (0, 3, -2, 0), order=0, mode="grid-wrap")
    np.testing.assert_array_equal(Shift(3, -2, wrap=True)(maps), expected)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_quarter_turns_rearrange_what_interpolation_would_read(degrees, rng):
    maps = rng.normal(size=(2, 7, 7, 3))
    rows, columns = Rotation(degrees).source(7, 7)
    np.testing.assert_array_equal(
        Rotation(degrees)(maps), maps[:, rows.astype(int), columns.astype(int)]
    )
    np.testing.assert_allclose(Rotation(degrees)(maps), Rotation(degrees + 1e-7)(maps), atol=1e-6)


def test_interpolation_is_that_of_keras(rng):
    maps = rng.normal(size=(1, 8, 11, 1)).astype("float32")
    rotation = Rotation(20, fill=0.3)
    sources = np.stack(rotation.source(8, 11)).astype("float32")
    expected = ops.image.map_coordinates(maps[0, :, :, 0], sources, 1, "constant", 0.3)
    np.testing.assert_allclose(rotation(maps)[0, :, :, 0], to_numpy(expected), atol=1e-5)


def test_bicubic_interpolation_is_exact_for_squares():
    """Keys's kernel with a = -1/2 reproduces polynomials of degree 2."""

    def polynomial(rows, columns):
        return 2 + rows - 3 * columns + rows * columns + 0.5 * rows**2 - columns**2

    maps = polynomial(*np.indices((12, 13)))[None, :, :, None].astype(float)
    for transform in (Rotation(30, "bicubic"), Scale(1.3, "bicubic"), Scale(0.7, "bicubic")):
        expected = polynomial(*transform.source(12, 13))
        counted = transform.counted(12, 13)
        assert counted.sum() > 10
        np.testing.assert_allclose(transform(maps)[0, counted, 0], expected[counted], atol=1e-5)


def test_a_margin_is_cut_from_what_is_read_too():
    counted = Shift(2, 0).counted(9, 4, margin=1)
    assert np.flatnonzero(counted.any(axis=1)).tolist() == [3, 4, 5, 6, 7]
    assert np.flatnonzero(counted.any(axis=0)).tolist() == [1, 2]
    assert np.flatnonzero(Shift(2, 0, wrap=True).counted(9, 4).any(axis=1)).tolist() == [*range(9)]
    # A bicubic position needs two neighbours at each side, unless it falls on one.
    doubled = Scale(0.5, "bicubic").counted(9, 9)
    assert np.flatnonzero(doubled[4]).tolist() == [2, 3, 4, 5, 6]
    assert Scale(2.0, "bilinear").counted(9, 7).all()
    assert Rotation(90).counted(6, 6).all()
    assert not Rotation(45).counted(7, 7)[0, 0]


def test_amounts_of_transforms():
    amounts = [Shift(-3, 2), Shift(1, -4), Shift(2, 2), Scale(1.5), Rotation(30)]
    assert [one.amount for one in amounts] == [-3, -4, 2, 1.5, 30]
