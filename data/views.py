"""Of which size and from where in an image a view is taken: what all pipelines share."""

# Fraction of an image's area in a training crop, and the crop's aspect ratio.
AREA_RANGE = (0.08, 1.0)
ASPECT_RANGE = (3 / 4, 4 / 3)
# Boxes to draw until one fits; if none does, the whole image is used.
ATTEMPTS = 10
# The usual fraction of an image's shorter side in evaluation on ImageNet.
CENTRAL_FRACTION = 0.875
Size = int | tuple[int, int]


def sides_of(size: Size) -> tuple[int, int]:
    """Returns the height and width that a size means.

    Example:
        >>> sides_of(8), sides_of((8, 9))
        ((8, 8), (8, 9))
    """
    return (size, size) if isinstance(size, int) else size
