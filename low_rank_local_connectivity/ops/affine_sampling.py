"""Images read on a grid that an affine or a projective map has moved.

Axes in names: b example, h and w row and column of the images, c channel, i and j row and column of
the outputs, m and n row and column of a map.
"""

from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    boolean,
    one_of_any_case,
    per_axis,
    received,
    require_length,
    tensors,
)
from low_rank_local_connectivity.ops.bilinear_sampling import sample_bilinear
from low_rank_local_connectivity.ops.precision import at_least_float32, floor, maximum

# What is read outside of the images, by PyTorch's names.
OUTSIDE = ("zeros", "border", "reflection")
# What divides at the least: nearer to it than this, points are read from infinity.
NEAREST = 1e-6


def sample_affine(
    images_bhwc,
    maps_bmn,
    output_size: tuple[int, ...] | None = None,
    align_corners: bool = True,
    padding: str = "zeros",
):
    """Reads each image where an affine or a projective map sends the positions of the outputs.

    `outputs[b, i, j] = images[b](y, x)` with `(x, y) = maps[b] (x_j, y_i, 1)`, or with
    `(z x, z y, z) = maps[b] (x_j, y_i, 1)` by a homography, where `(.)` is bilinear interpolation
    and all coordinates go from -1 to 1. The identity gives an image of the same size back without
    any error.

    Args:
        images_bhwc: Images; batch and size may be unknown.
        maps_bmn: Affine maps, `(batch, 2, 3)`, or homographies, `(batch, 3, 3)`, in at least
            float32. A homography is to keep `z` above 0: where it is less than 1e-6, that is taken.
        output_size: Rows and columns of the outputs; the images' if None.
        align_corners: Whether -1 and 1 are the centres of the outermost pixels or, if not, their
            outer edges.
        padding: What is read outside of an image: `"zeros"`, the pixel at the `"border"` that is
            next, or its `"reflection"` in -1 and 1.

    Returns:
        Tensor of axes `bijc`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> images = ops.reshape(ops.arange(6, dtype="float32"), (1, 2, 3, 1))
        >>> half_a_turn = ops.array([[[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]])
        >>> ops.convert_to_numpy(sample_affine(images, half_a_turn))[0, ..., 0].tolist()
        [[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]
    """
    images_bhwc, maps_bmn = tensors(images_bhwc=images_bhwc, maps_bmn=maps_bmn)
    if maps_bmn.shape[1] not in (2, 3):
        raise ValueError(
            "`maps_bmn` must have 2 rows, one for x and one for y, or 3 with one for z. Received: "
            f"{received('maps_bmn', maps_bmn)}."
        )
    require_length("maps_bmn", maps_bmn, "n", 3, "of (x, y, 1)")
    align_corners = boolean("align_corners", align_corners)
    padding = one_of_any_case("padding", padding, OUTSIDE)
    _, height, width, channels = ops.shape(images_bhwc)
    out_height, out_width = height, width
    if output_size is not None:
        out_height, out_width = per_axis("output_size", output_size, 2)
    dtype = at_least_float32(maps_bmn)
    maps: Any = ops.cast(maps_bmn, dtype)[..., None, None]
    y_i, x_j = _centred(out_height, dtype)[:, None], _centred(out_width, dtype)
    # A single position is its own centre: any distance that is not 0 does.
    radius_y, radius_x = (
        maximum(_radius(length, align_corners, dtype), 0.5) for length in (out_height, out_width)
    )

    def mapped(row: int, reach):
        # In pixels from the centre throughout: ratios of equal sizes are exactly 1.
        along_x, along_y, shift = maps[:, row, 0], maps[:, row, 1], maps[:, row, 2]
        moved = along_x * (x_j * (reach / radius_x)) + along_y * (y_i * (reach / radius_y))
        return moved + shift * reach

    depth = None if maps_bmn.shape[1] == 2 else maximum(mapped(2, 1.0), NEAREST)

    def coordinates(row: int, length):
        found = mapped(row, _radius(length, align_corners, dtype))
        found = found if depth is None else found / depth
        found = found + (ops.cast(length, dtype) - 1) / 2
        found = _within(found, length, align_corners, padding)
        return ops.reshape(found, (-1, out_height * out_width))

    columns_bp, rows_bp = coordinates(0, width), coordinates(1, height)
    outputs_bpc = sample_bilinear(images_bhwc, rows_bp, columns_bp)
    return ops.reshape(outputs_bpc, (-1, out_height, out_width, channels))


def _within(coordinates, length, align_corners: bool, padding: str):
    """Returns coordinates in pixels, those outside of the image moved into it unless for zeros."""
    if padding == "zeros":
        return coordinates
    last = ops.cast(length, coordinates.dtype) - 1
    if padding == "reflection":
        edge = 0.0 if align_corners else 0.5
        # A single pixel whose centre reflects has no length.
        span = maximum(last + 2 * edge, NEAREST)
        beyond = ops.abs(coordinates + edge)
        turns = ops.stop_gradient(floor(beyond / span))
        rest = beyond - turns * span
        back = ops.equal(turns - 2 * floor(turns / 2), 1)
        coordinates = ops.where(back, span - rest, rest) - edge
    return ops.clip(coordinates, 0, last)


def _centred(length, dtype):
    """Returns positions along an axis, counted from its centre."""
    return ops.arange(length, dtype=dtype) - (ops.cast(length, dtype) - 1) / 2


def _radius(length, align_corners: bool, dtype):
    """Returns how many pixels from the centre the coordinate 1 is."""
    pixels = ops.cast(length, dtype)
    return (pixels - 1) / 2 if align_corners else pixels / 2
