# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""What layers of scale spaces say of how exactly they commute with a change of scale."""

import numpy as np
import pytest
from backends import assert_refused, built, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.equivariance import ScaleSpaceAction, error


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_scale_convolution_is_exact(data_format, rng):
    shape = (2, 3, 13, 10, 4) if data_format == "channels_last" else (2, 4, 3, 13, 10)
    layer = layers.ScaleConv2D(5, 3, interaction=2, strides=2, data_format=data_format)
    errors = built(layer, shape, rng).check_equivariance(rng.normal(size=shape))
    assert list(errors) == ["subsampling by 2", "subsampling by 4"]
    assert max(errors.values()) < 1e-5


def test_a_convolution_of_a_pyramid_treats_its_levels_alike(rng):
    levels = [rng.normal(size=(2, *size, 4)).astype("float32") for size in ((9, 8), (5, 4), (3, 2))]
    layer = built(layers.ScaleConv2D(5, 3), [level.shape for level in levels], rng)
    assert max(layer.check_equivariance(levels).values()) < 1e-5


@pytest.mark.parametrize("computed", [1, 2])
def test_levels_that_are_not_computed_are_not_compared(computed, rng):
    shape = (2, 3, 13, 10, 4)
    layer = layers.ScaleConv2D(5, 3, interaction=2, output_scales=computed)
    errors = built(layer, shape, rng).check_equivariance(rng.normal(size=shape))
    assert list(errors) == ["subsampling by 2"][: computed - 1]
    pyramid = [
        rng.normal(size=(2, *size, 4)).astype("float32") for size in ((9, 8), (5, 4), (3, 2))
    ]
    layer = layers.DeformableScaleConv2D(5, 3, output_scales=computed)
    errors |= built(layer, [level.shape for level in pyramid], rng).check_equivariance(pyramid)
    assert all(error < 1e-5 for error in errors.values())


@pytest.mark.once
@pytest.mark.parametrize("scale_offsets", [False, True])
def test_a_deformable_one_is_exact_where_whole_offsets_grow_with_the_scale(scale_offsets, rng):
    layer = layers.DeformableScaleConv2D(5, 3, scale_offsets=scale_offsets)
    layer.build((2, 3, 13, 10, 4))
    layer.offset_bias.assign(rng.integers(-1, 2, size=layer.offset_bias.shape))
    errors = layer.check_equivariance(rng.normal(size=(2, 3, 13, 10, 4)))
    assert (max(errors.values()) < 1e-5) == scale_offsets


@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_lifting_is_close_on_smooth_images(pyramid, data_format):
    rows, columns = np.mgrid[:48, :64] / 8
    images = np.sin(rows + np.cos(columns))[None, :, :, None]
    if data_format == "channels_first":
        images = np.moveaxis(images, -1, 1)
    layer = layers.ScaleSpaceLifting2D(3, pyramid=pyramid, data_format=data_format)
    errors = layer.check_equivariance(images)
    assert list(errors) == ["subsampling by 2", "subsampling by 4"]
    assert 1e-5 < errors["subsampling by 2"] < 0.01
    # What is left to compare is the image, smoothed and subsampled alike.
    assert errors["subsampling by 4"] < 1e-5


def test_a_lifting_s_error_is_the_root_of_the_meter_s(rng):
    images = rng.normal(size=(1, 32, 24, 2)).astype("float32")
    layer = layers.ScaleSpaceLifting2D(3)
    # The margin of level 1: three standard deviations of its smoothing, sqrt(3.75), are three of
    # the smaller positions. Level 0, which is exact, has two.
    expected = error(layer, images, ScaleSpaceAction(margin=3, levels=(1,)), strides=(1, 1))
    first = smaller_levels(layer, images)[0][:, 2:-2, 2:-2]
    second = smaller_levels(layer, images)[1][:, 3:-3, 3:-3]
    share = (second**2).sum() / ((first**2).sum() + (second**2).sum())
    found = layer.check_equivariance(images)["subsampling by 2"]
    assert found > 0.01
    assert found**2 == pytest.approx(share * expected[0], rel=1e-3)


def smaller_levels(layer, images):
    """Levels of the images, one level on and subsampled."""
    return np.moveaxis(to_numpy(layer(images)), 1, 0)[1:, :, ::2, ::2]


REFUSED = {
    "base": (
        lambda: layers.ScaleSpaceLifting2D(3, 1.5, name="this").check_equivariance(
            np.ones((1, 9, 8, 2))
        ),
        (
            "check_equivariance() compares with every `base`th row and column, so `base` must be a "
            "whole number. Received: layer 'this' with base=1.5."
        ),
    ),
    "method": (
        lambda: layers.ScaleSpaceLifting2D(3, method="bilinear", name="this").check_equivariance(
            np.ones((1, 9, 8, 2))
        ),
        (
            "check_equivariance() smooths images as method='gaussian' does. Received: layer 'this' "
            "with method='bilinear'."
        ),
    ),
    "size": (
        lambda: layers.ScaleSpaceLifting2D(2).check_equivariance(np.ones((1, 8, 7, 2))),
        (
            "`inputs` must be large enough for a position that the border does not reach. Received: "
            "levels of [(4, 4)] positions after subsampling, of which [2] at each side do not count. "
            "Use larger images or fewer scales."
        ),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_in_a_sentence(case):
    assert_refused(*REFUSED[case])
