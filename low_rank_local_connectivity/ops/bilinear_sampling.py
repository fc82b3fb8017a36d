"""Images read at any coordinates, by bilinear interpolation with zeros outside.

Coordinates count pixels: 0 is the centre of the first one. A tensor's name ends in its axes:

    b  example                   h, w  row and column of an image
    c  channel                   p     coordinates of one example, in any number
    k  corner: the four neighbours of a point, upper left, upper right, lower left, lower right
    r  row of pixels laid out one after another: a pixel of the padded images
"""

from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.arguments import tensors
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.precision import as_floats, at_least_float32, floor


def sample_bilinear(images_bhwc, rows_bp, columns_bp):
    """Reads images between their pixels.

    `outputs[b, p, c] = sum_{h, w} max(0, 1 - |rows[b, p] - h|) max(0, 1 - |columns[b, p] - w|)
    images[b, h, w, c]`: outside there are zeros, to which the border pixels fall off over the
    length of one pixel.

    Args:
        images_bhwc: Images; batch and size may be unknown.
        rows_bp: Row coordinates, at least float32: half precision cannot tell pixels apart.
        columns_bp: Column coordinates.

    Returns:
        Tensor of axes `bpc`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> image = ops.reshape(ops.array([[0.0, 1.0], [2.0, 3.0]]), (1, 2, 2, 1))
        >>> rows, columns = ops.array([[0.5, -0.5, 1.0]]), ops.array([[0.5, 1.0, 2.0]])
        >>> ops.convert_to_numpy(sample_bilinear(image, rows, columns))[0, :, 0].tolist()
        [1.5, 0.5, 0.0]
    """
    images_bhwc, rows_bp, columns_bp = tensors(
        images_bhwc=images_bhwc, rows_bp=rows_bp, columns_bp=columns_bp
    )
    (images_bhwc,) = as_floats(images_bhwc)
    rows_bp, columns_bp = (ops.cast(one, at_least_float32(one)) for one in (rows_bp, columns_bp))
    batch, height, width, _ = ops.shape(images_bhwc)
    reads_bpk, weights_bpk = corner_reads(rows_bp, columns_bp, height, width)
    reads_bpk = reads_bpk + first_pixels(batch, height, width)[:, None, None]
    pixels_rc = padded_pixels(images_bhwc)
    weights_bpk = ops.cast(weights_bpk, images_bhwc.dtype)
    return weighted_corners(pixels_rc, reads_bpk, weights_bpk)


def padded_pixels(images_bhwc, groups: int = 1):
    """Lays pixels out one after another, each image with a border of zeros around it.

    Args:
        images_bhwc: Images.
        groups: Into how many groups of channels each pixel is split, one after another.

    Returns:
        Tensor of axes `rc`, with `c` the channels of a group.
    """
    padded = pad(images_bhwc, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels_rc = ops.reshape(padded, (-1, images_bhwc.shape[-1] // groups))
    rows = pixels_rc.shape[0]
    # From no rows at all JAX reads none of the right shape, and PyTorch adds none up.
    return pad(pixels_rc, ((0, 1), (0, 0))) if isinstance(rows, int) and not rows else pixels_rc


def first_pixels(batch, height, width):
    """Returns where each example's padded image starts in `padded_pixels`, without groups."""
    return ops.arange(batch, dtype="int32") * ((height + 2) * (width + 2))


def corner_reads(rows, columns, height, width):
    """Returns which pixels of its padded image a point lies between, and their weights.

    Args:
        rows: Row coordinates, of any shape.
        columns: Column coordinates, of the same shape.
        height: Rows of the images, an integer or a tensor.
        width: Columns of the images.

    Returns:
        Positions in one padded image, row after row, of shape `(*shape, 4)`, and the weights of
        that shape, which alone depend on the coordinates in a way that has a gradient. At a whole
        coordinate, where there are two, it is that towards the next pixel.
    """
    row, below = _cell(rows, height)
    column, right = _cell(columns, width)
    first = row * (width + 2) + column
    reads = ops.stack([first, first + 1, first + width + 2, first + width + 3], axis=-1)
    above, left = 1 - below, 1 - right
    weights = ops.stack([above * left, above * right, below * left, below * right], axis=-1)
    return reads, weights


def _cell(coordinates, length):
    """Returns the padded index of the pixel before each coordinate, and how far it is from it."""
    # From a pixel's length on outside, all is zero, and so are gradients. What is not a number
    # stays so, as a weight.
    beyond: Any = ops.greater_equal(coordinates, ops.cast(length, coordinates.dtype))
    outside = ops.logical_or(coordinates < -1, beyond)
    coordinates = ops.where(outside, -ops.ones_like(coordinates), coordinates)
    before = ops.stop_gradient(floor(coordinates))
    # As an index it must not leave the image.
    index = ops.clip(ops.cast(before, "int32") + 1, 0, length)
    return index, coordinates - before


def weighted_corners(pixels_rc, reads_k, weights_k):
    """Returns the weighted sum of four pixels for every point.

    Args:
        pixels_rc: From `padded_pixels`.
        reads_k: Whole numbers of any axes, the corner last.
        weights_k: Numbers of the same axes.

    Returns:
        Tensor of the same axes with the channels in place of the corners.
    """
    # Corner by corner: a tensor of all four is slower to make and to add up.
    return sum(
        ops.take(pixels_rc, reads_k[..., corner], axis=0) * weights_k[..., corner, None]
        for corner in range(4)
    )
