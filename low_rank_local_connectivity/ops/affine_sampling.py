"""Images read on a grid that an affine map has moved.

Axes in names: b example, h and w row and column of the images, c channel, i and j row and column of
the outputs, m and n row and column of an affine map.
"""

from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.arguments import boolean, per_axis, require_length, tensors
from low_rank_local_connectivity.ops.bilinear_sampling import sample_bilinear
from low_rank_local_connectivity.ops.precision import at_least_float32, maximum


def sample_affine(
    images_bhwc,
    maps_bmn,
    output_size: tuple[int, ...] | None = None,
    align_corners: bool = True,
):
    """Reads each image where an affine map sends the positions of the outputs.

    `outputs[b, i, j] = images[b](y, x)` with `(x, y) = maps[b] (x_j, y_i, 1)`, where `(.)` is
    bilinear interpolation with zeros outside and all coordinates go from -1 to 1. The identity
    gives an image of the same size back without any error.

    Args:
        images_bhwc: Images; batch and size may be unknown.
        maps_bmn: Affine maps, `(batch, 2, 3)`, in at least float32.
        output_size: Rows and columns of the outputs; the images' if None.
        align_corners: Whether -1 and 1 are the centres of the outermost pixels or, if not, their
            outer edges.

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
    require_length("maps_bmn", maps_bmn, "m", 2, "of a row for x and one for y")
    require_length("maps_bmn", maps_bmn, "n", 3, "of (x, y, 1)")
    align_corners = boolean("align_corners", align_corners)
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

    def coordinates(row: int, length):
        # In pixels from the centre throughout: ratios of equal sizes are exactly 1.
        reach = _radius(length, align_corners, dtype)
        along_x, along_y, shift = maps[:, row, 0], maps[:, row, 1], maps[:, row, 2]
        moved = along_x * (x_j * (reach / radius_x)) + along_y * (y_i * (reach / radius_y))
        found = moved + shift * reach + (ops.cast(length, dtype) - 1) / 2
        return ops.reshape(found, (-1, out_height * out_width))

    columns_bp, rows_bp = coordinates(0, width), coordinates(1, height)
    outputs_bpc = sample_bilinear(images_bhwc, rows_bp, columns_bp)
    return ops.reshape(outputs_bpc, (-1, out_height, out_width, channels))


def _centred(length, dtype):
    """Returns positions along an axis, counted from its centre."""
    return ops.arange(length, dtype=dtype) - (ops.cast(length, dtype) - 1) / 2


def _radius(length, align_corners: bool, dtype):
    """Returns how many pixels from the centre the coordinate 1 is."""
    pixels = ops.cast(length, dtype)
    return (pixels - 1) / 2 if align_corners else pixels / 2
