"""Deformable convolution of scale spaces against its definition, and under changes of scale."""

import keras
import numpy as np
import pytest
from backends import call, compute, outputs_and_gradients, randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.ops import deformable_scale_correlation

SHAPE = (2, 4, 9, 12, 6)


def read(image, row, column):
    """Bilinear interpolation by its definition: a pixel weighs 1 minus its distance, per axis."""
    rows = np.maximum(0, 1 - np.abs(np.arange(image.shape[0]) - row))
    columns = np.maximum(0, 1 - np.abs(np.arange(image.shape[1]) - column))
    return np.einsum("h,w,hwc->c", rows, columns, image)


def by_definition(maps, kernel, offsets, dilations, strides=(1, 1), groups=1):
    """`offsets[k]` is `(batch, height, width, groups * taps * 2)`, in pixels."""
    depth, rows, columns, channels, filters = kernel.shape
    width = channels // groups
    found = []
    for k, dilation in enumerate(dilations):
        batch, *positions, _ = offsets[k].shape
        moves = offsets[k].reshape(batch, *positions, groups, rows, columns, 2)
        outputs = np.zeros((batch, *positions, filters))
        for b, i, j, g, y, u in np.ndindex(*moves.shape[:-1]):
            part = slice(g * width, (g + 1) * width)
            down, right = moves[b, i, j, g, y, u]
            row = i * strides[0] + dilation * (y - (rows - 1) // 2) + down
            column = j * strides[1] + dilation * (u - (columns - 1) // 2) + right
            for one in range(min(depth, maps.shape[1] - k)):
                values = read(maps[b, k + one, :, :, part], row, column)
                outputs[b, i, j] += values @ kernel[one, y, u, part]
        found.append(outputs)
    return found


@pytest.mark.parametrize(
    ("kernel_size", "interaction", "strides", "groups"),
    [((3, 1), 2, (1, 1), 1), ((2, 3), 3, (2, 1), 2), ((3, 3), 1, (1, 1), 3)],
)
def test_the_correlation_is_its_definition(kernel_size, interaction, strides, groups, rng):
    maps = rng.normal(size=(1, 3, 5, 7, 6))
    kernel = rng.normal(size=(interaction, *kernel_size, 6, 4))
    positions = [-(-size // stride) for size, stride in zip((5, 7), strides, strict=True)]
    channels = 2 * groups * kernel_size[0] * kernel_size[1]
    offsets = [2 * rng.normal(size=(1, *positions, channels)) for _ in range(3)]
    expected = by_definition(maps, kernel, offsets, [1, 2, 4], strides, groups)
    levels = [maps[:, k].astype("float32") for k in range(3)]
    given = [offset.astype("float32") for offset in offsets]

    def correlate(levels, kernel, offsets):
        kernel = keras.ops.convert_to_tensor(kernel)
        return deformable_scale_correlation(levels, kernel, offsets, [1, 2, 4], strides, groups)

    found = compute(correlate, levels, kernel.astype("float32"), given)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("interaction", [1, 3])
def test_the_layer_starts_as_a_scale_convolution(interaction, data_format, rng):
    layer = layers.DeformableScaleConv2D(5, 3, interaction, use_bias=False, data_format=data_format)
    maps = rng.normal(size=SHAPE).astype("float32")
    first = data_format == "channels_first"
    given = np.moveaxis(maps, -1, 1) if first else maps
    layer.build(given.shape)
    found = call(layer, given)
    found = np.moveaxis(found, 1, -1) if first else found
    # The sum over levels and taps, with zeros outside.
    kernel = to_numpy(layer.kernel)
    expected = np.zeros_like(found)
    for k, d in enumerate([1, 2, 4, 8]):
        for one in range(min(interaction, 4 - k)):
            padded = np.pad(maps[:, k + one], ((0, 0), (d, d), (d, d), (0, 0)))
            for y, u in np.ndindex(3, 3):
                window = padded[:, y * d : y * d + 9, u * d : u * d + 12]
                expected[:, k] += window @ kernel[one, y, u]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("scale_offsets", [True, False])
def test_offsets_grow_with_the_scale_unless_told_not_to(scale_offsets, rng):
    layer = layers.DeformableScaleConv2D(5, 3, 2, base=3, scale_offsets=scale_offsets)
    layer.build((None, 3, 9, 12, 6))
    layer.offset_bias.assign(rng.normal(size=18))
    maps = rng.normal(size=(1, 3, 9, 12, 6)).astype("float32")
    found = compute(layer.offsets, maps)
    for k, factor in enumerate([1, 3, 9] if scale_offsets else [1, 1, 1]):
        expected = np.broadcast_to(factor * to_numpy(layer.offset_bias), found[:, k].shape)
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-5)
    expected = by_definition(maps, to_numpy(layer.kernel), np.moveaxis(found, 1, 0), [1, 3, 9])
    np.testing.assert_allclose(call(layer, maps), np.stack(expected, 1), atol=1e-4)


@pytest.mark.parametrize("scale_offsets", [True, False])
def test_whole_offsets_commute_with_a_change_of_scale_if_they_grow_with_it(scale_offsets, rng):
    layer = layers.DeformableScaleConv2D(5, 3, 2, scale_offsets=scale_offsets)
    maps = rng.normal(size=(2, 4, 16, 20, 6)).astype("float32")
    layer.build(maps.shape)
    layer.offset_bias.assign(rng.integers(-2, 3, size=18))
    before = call(layer, maps)[:, 1:, ::2, ::2]
    after = call(layer, maps[:, 1:, ::2, ::2])
    difference = np.abs(before - after).max() / np.abs(before).max()
    assert difference < 1e-5 if scale_offsets else difference > 0.1


def test_offsets_of_half_an_image_are_those_of_one_level_on(rng):
    layer = layers.DeformableScaleConv2D(5, (3, 1))
    maps = rng.normal(size=(2, 4, 16, 20, 6)).astype("float32")
    layer.build(maps.shape)
    randomize(layer, rng)
    before = compute(layer.offsets, maps)[:, 1:, ::2, ::2]
    after = compute(layer.offsets, maps[:, 1:, ::2, ::2])
    np.testing.assert_allclose(before, 2 * after, rtol=0, atol=1e-4)


def test_the_first_levels_of_the_outputs_are_those_of_all(rng):
    maps = rng.normal(size=SHAPE).astype("float32")
    whole, part = (
        layers.DeformableScaleConv2D(5, 3, 2, **more) for more in ({}, {"output_scales": 3})
    )
    for layer in (whole, part):
        layer.build(SHAPE)
    randomize(whole, rng)
    part.set_weights(whole.get_weights())
    np.testing.assert_allclose(call(part, maps), call(whole, maps)[:, :3], atol=1e-5)
    assert compute(part.offsets, maps).shape == (*SHAPE[:1], 3, *SHAPE[2:4], 18)


def test_a_pyramid_s_levels_are_deformable_convolutions(rng):
    levels = [rng.normal(size=(2, *size, 6)).astype("float32") for size in ((8, 11), (4, 5))]
    layer = layers.DeformableScaleConv2D(5, 3)
    layer.build([level.shape for level in levels])
    randomize(layer, rng)
    plain = layers.DeformableConv2D(5, 3, padding="same", modulated=False)
    plain.build(levels[0].shape)
    kernel, *others = layer.get_weights()
    plain.set_weights([kernel[0], *others])
    for found, level in zip(layer(levels), levels, strict=True):
        np.testing.assert_allclose(to_numpy(found), call(plain, level), atol=1e-4)


def test_the_multiplier_scales_the_gradients_of_the_offset_branch(rng):
    maps = rng.normal(size=SHAPE).astype("float32")
    projection = rng.normal(size=(*SHAPE[:-1], 5)).astype("float32")
    found = []
    for multiplier in (1.0, 0.1):
        layer = layers.DeformableScaleConv2D(5, 3, 2, offset_lr_multiplier=multiplier)
        layer.build(SHAPE)
        randomize(layer, np.random.default_rng(3), scale=0.2)
        found.append(outputs_and_gradients(layer, maps, projection)[1])
    for index, (one, other) in enumerate(zip(*found, strict=True)):
        factor = 0.1 if index > 2 else 1
        np.testing.assert_allclose(other, factor * one, rtol=0, atol=1e-4 * np.abs(one).max())


def test_a_base_between_whole_numbers_is_rounded_only_if_told_so():
    with pytest.raises(ValueError, match="`base` must be a whole number"):
        layers.DeformableScaleConv2D(5, 3, base=1.5)
    with pytest.warns(UserWarning, match="equivariant to a change of scale only approximately"):
        layer = layers.DeformableScaleConv2D(5, 3, base=1.5, rounding="floor")
    assert layer.dilations(4) == [1, 1, 2, 3]
