"""Images without TensorFlow: from the bytes of a file to an array of a given size, by Pillow.

What is drawn at random is drawn from a NumPy generator; the same generator gives the same image.
"""

import io
import math
import warnings

import numpy as np
from PIL import Image, ImageOps

from .augmentations import VIEWS
from .dataset import Bound, Dataset
from .views import AREA_RANGE, ASPECT_RANGE, ATTEMPTS, CENTRAL_FRACTION, Size, sides_of

# Modes of 16 bits or more, and what one of their values is divided by to leave the upper 8 bits.
DEEP = {"I;16": 256, "I;16B": 256, "I;16L": 256, "I;16N": 256, "I": 256}
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode(encoded: bytes, channels: int = 3) -> np.ndarray:
    """Decodes an image file of any format that Pillow reads to RGB or gray of 8 bits.

    Palettes are looked up, CMYK is converted, gray is repeated, 16 bits are reduced to the upper
    8, transparency is dropped, the first frame of an animation or page of a TIFF is used, and the
    image is rotated and mirrored as its EXIF orientation says.

    Args:
        encoded: The file's bytes.
        channels: 3 for RGB, 1 for gray.

    Returns:
        A uint8 array of shape `(height, width, channels)`.

    Raises:
        ValueError: If the bytes are not a complete image, or one of floating-point values.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(encoded)) as image:
            # Of damaged metadata, or of a size that Pillow refuses only if it is doubled.
            warnings.simplefilter("ignore")
            image.load()
            fractions = image.mode == "F"
            flat = _of_8_bits(ImageOps.exif_transpose(image))
            converted = flat.convert("RGB" if channels == 3 else "L")
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise ValueError("It is no complete image of a known format.") from error
    if fractions:
        raise ValueError("Its values have fractions, and it does not say which of them is white.")
    return np.asarray(converted).reshape(converted.height, converted.width, channels)


def _of_8_bits(image: Image.Image) -> Image.Image:
    if image.mode not in DEEP:
        return image
    return Image.fromarray((np.asarray(image) // DEEP[image.mode]).clip(0, 255).astype("uint8"))


def training_view(
    image: np.ndarray,
    size: Size,
    rng: np.random.Generator,
    method: str = "bilinear",
    augment: tuple[str, ...] = VIEWS,
) -> np.ndarray:
    """Cuts out a random part of an image and mirrors half of the images, as asked; resizes it.

    Args:
        image: Array of shape `(height, width, channels)`.
        size: Pixels per side of the result, or its height and width.
        rng: What is random is drawn from it.
        method: `"bilinear"` or `"bicubic"`.
        augment: `"crop"` to cut out a part instead of taking the whole image, `"flip"` to mirror.

    Returns:
        A float32 array of shape `(*size, channels)`, in the image's range (bicubic may leave it).

    Reference:
        Szegedy et al., Going deeper with convolutions, CVPR 2015, section 6.
    """
    part = _random_part(image, rng) if "crop" in augment else image
    view = resize(part, size, method)
    mirrored = "flip" in augment and rng.random() < 0.5
    return np.ascontiguousarray(view[:, ::-1]) if mirrored else view


def evaluation_view(
    image: np.ndarray,
    size: Size,
    method: str = "bilinear",
    crop: float | None = CENTRAL_FRACTION,
) -> np.ndarray:
    """Resizes the central square, or the whole image.

    Args:
        image: Array of shape `(height, width, channels)`.
        size: Pixels per side of the result, or its height and width.
        method: `"bilinear"` or `"bicubic"`.
        crop: Side of the square, as a fraction of the image's shorter side; None for the whole
            image, whose height and width are then resized independently.

    Returns:
        A float32 array of shape `(*size, channels)`.
    """
    if crop is not None:
        side = max(int(min(image.shape[:2]) * crop), 1)
        top, left = ((length - side) // 2 for length in image.shape[:2])
        image = image[top : top + side, left : left + side]
    return resize(image, size, method)


def as_input(dataset: Dataset, encoded: bytes) -> np.ndarray:
    """Returns the bytes of an image file as an input of a dataset, prepared as evaluation does.

    If the images of the dataset have one size, an image of any size is resized to it.

    Raises:
        ValueError: If the bytes are not a complete image.
    """
    image = decode(encoded, dataset.image_shape[-1])
    if dataset.view is not None:
        stored = np.asarray(dataset.view(image), "float32")
    elif dataset.encoded:
        stored = evaluation_view(image, dataset.sides, crop=dataset.eval_crop)
    else:
        low, high = dataset.stored_range
        stored = low + resize(image, dataset.sides) * ((high - low) / 255.0)
    return np.asarray(dataset.prepare(stored), "float32")


def resize(image: np.ndarray, size: Size, method: str = "bilinear") -> np.ndarray:
    """Resizes in float32, with antialiasing, which photographs need when they are reduced."""
    height, width = sides_of(size)
    planes = [
        Image.fromarray(np.ascontiguousarray(plane, "float32")).resize(
            (width, height), RESAMPLING[method]
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack([np.asarray(plane, "float32") for plane in planes], -1)


def _random_part(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cuts out a box of random area, shape and place; the whole image if none fits."""
    height, width = image.shape[:2]
    for _ in range(ATTEMPTS):
        area = rng.uniform(*AREA_RANGE) * height * width
        aspect = rng.uniform(*ASPECT_RANGE)
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= rows <= height and 1 <= columns <= width:
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            return image[top : top + rows, left : left + columns]
    return image


def place_in_noise(
    image: np.ndarray,
    canvas: tuple[int, int],
    value_range: tuple[Bound, Bound],
    rng: np.random.Generator,
) -> np.ndarray:
    """Places an image uniformly at random in a canvas of uniform noise.

    Args:
        image: Array of shape `(height, width, channels)`.
        canvas: Rows and columns, at least the image's.
        value_range: Smallest and largest value of the noise, for all channels or for each.
        rng: What is random is drawn from it.

    Returns:
        Array of shape `(*canvas, channels)`.

    Reference:
        Elsayed et al., ICML 2020, section 4.3: faces of 32x32 pixels in 48x48.
    """
    height, width, channels = image.shape
    top, left = rng.integers(canvas[0] - height + 1), rng.integers(canvas[1] - width + 1)
    placed = rng.uniform(*value_range, (*canvas, channels)).astype("float32")
    placed[top : top + height, left : left + width] = image
    return placed
