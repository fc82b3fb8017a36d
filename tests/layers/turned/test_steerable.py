"""Steerable kernels against the rotation of waves that they answer to, and escnn's errors."""

import itertools

import numpy as np
import pytest
from backends import to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.ops import expand_kernel, rotation_matrix
from low_rank_local_connectivity.ops.steerable import steerable_count, steerable_matrix


def smooth(rng, *shape, pixels=3):
    """Noise smoothed by a Gaussian."""
    ndimage = pytest.importorskip("scipy.ndimage")
    widths = (0, pixels, pixels, *(0,) * (len(shape) - 3))
    return ndimage.gaussian_filter(rng.normal(size=shape), widths).astype("float32")


def answer(kernel, frequency, degrees):
    """What a kernel answers to a wave, summed tap by tap."""
    centre, angle = (len(kernel) - 1) / 2, np.deg2rad(degrees)
    found = 0j
    for row, column in itertools.product(range(len(kernel)), repeat=2):
        along = (column - centre) * np.cos(angle) + (centre - row) * np.sin(angle)
        found += kernel[row, column] * np.exp(1j * frequency * along)
    return found


@pytest.mark.once
@pytest.mark.parametrize("size", [2, 3, 5, 6])
def test_turned_kernels_answer_turned_waves(size, rng):
    kernel = rng.normal(size=(size, size)).ravel()
    errors, norms = [], []
    for degrees, direction in ((30.0, 10.0), (45.0, 70.0), (100.0, 200.0)):
        itself, turned = (
            (steerable_matrix(size, angle) @ kernel).reshape(size, size) for angle in (0, degrees)
        )
        for frequency in (0.1, 0.3, 0.6):
            expected = answer(itself, frequency, direction)
            errors.append(answer(turned, frequency, direction + degrees) - expected)
            norms.append(expected)
    assert np.linalg.norm(errors) / np.linalg.norm(norms) < 0.05


@pytest.mark.once
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_turning_twice_is_turning_by_the_sum(size):
    thirty, seventy, both = (steerable_matrix(size, degrees) for degrees in (30, 70, 100))
    np.testing.assert_allclose(thirty @ seventy, both, atol=1e-7)
    projection = steerable_matrix(size, 0.0)
    np.testing.assert_allclose(projection, projection.T, atol=1e-7)
    assert np.trace(projection) == pytest.approx(steerable_count(size))
    assert np.linalg.matrix_rank(projection, tol=1e-6) == steerable_count(size)


@pytest.mark.once
@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_quarter_turns_and_reflections_are_those_of_pixels(size, rng):
    kernel = rng.normal(size=(size, size))
    for turns in range(4):
        by_angle = (steerable_matrix(size, 90.0 * turns) @ kernel.ravel()).reshape(size, size)
        projected = (steerable_matrix(size, 0.0) @ kernel.ravel()).reshape(size, size)
        np.testing.assert_allclose(by_angle, np.rot90(projected, turns), atol=1e-6)
    one = (steerable_matrix(size, 33.0) @ np.fliplr(kernel).ravel()).reshape(size, size)
    other = (steerable_matrix(size, -33.0) @ kernel.ravel()).reshape(size, size)
    np.testing.assert_allclose(np.fliplr(one), other, atol=1e-6)


# The errors of escnn 1.0.11 in this measurement, by `python -m benchmarks.oblique`.
OF_ESCNN = {3: 0.0069, 5: 0.0029, 7: 0.0065}


@pytest.mark.parametrize("size", OF_ESCNN)
def test_eight_orientations_commute_with_45_degrees_better_than_escnn_s(size, rng):
    lift = layers.GroupLiftConv2D(20, size, 8, use_bias=False, basis="steerable")
    errors = lift.check_equivariance(smooth(rng, 2, 41, 41, 1))
    assert errors["rotation by 45 degrees"] < OF_ESCNN[size] / 1.5
    assert errors["rotation by 90 degrees"] < 1e-5


@pytest.mark.once
def test_a_later_layer_and_one_with_reflections_commute_as_well(rng):
    conv = layers.GroupConv2D(10, 5, 8, basis="steerable", reflections=True)
    errors = conv.check_equivariance(smooth(rng, 1, 31, 33, 16, 2))
    assert len(errors) == 15
    assert max(errors.values()) < 0.002
    assert max(errors["reflection"], errors["reflection, then rotation by 90 degrees"]) < 1e-5


@pytest.mark.once
def test_a_kernel_is_projected_and_turned_by_the_matrices(rng):
    kernel = rng.normal(size=(3, 3, 1, 2, 5)).astype("float32")
    plain = to_numpy(expand_kernel(kernel, 5, basis="steerable")).reshape(3, 3, 2, 5, 5)
    for turns in range(5):
        matrix = rotation_matrix(3, 72.0 * turns, "steerable")
        expected = (matrix @ kernel.reshape(9, -1)).reshape(3, 3, 2, 5)
        np.testing.assert_allclose(plain[:, :, :, turns], expected, atol=1e-5)


@pytest.mark.once
def test_steerable_kernels_start_with_the_variance_of_as_many_taps():
    """Outputs of white noise have the variance 2 that He's rule gives, in orientation 0."""
    layer = layers.GroupLiftConv2D(400, 5, 8, basis="steerable")
    layer.build((None, 9, 9, 30))
    first = to_numpy(layer.plain_kernel).reshape(5, 5, 30, 8, 400)[:, :, :, 0]
    assert (first**2).sum() / 400 == pytest.approx(2.0, rel=0.05)
