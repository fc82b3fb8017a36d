"""From an image in memory to an image of a given size; pure functions of tensors."""

from typing import Any

import tensorflow as tf

from .augmentations import VIEWS
from .decoding import decode  # noqa: F401, where it used to be
from .views import AREA_RANGE, ASPECT_RANGE, ATTEMPTS, CENTRAL_FRACTION, Size, sides_of

random: Any = tf.random  # type checkers do not see into it
image_ops: Any = tf.image


def training_view(
    image, size: Size, key, method: str = "bilinear", augment: tuple[str, ...] = VIEWS
):
    """Cuts out a random part of an image and mirrors half of the images, as asked; resizes it.

    Args:
        image: Tensor of shape `(height, width, channels)`.
        size: Pixels per side of the result, or its height and width.
        key: Two integers; the same key gives the same view.
        method: `"bilinear"` or `"bicubic"`.
        augment: `"crop"` to cut out a part instead of taking the whole image, `"flip"` to mirror.

    Returns:
        A float32 tensor of shape `(*size, channels)`, in the image's range (bicubic may leave it).

    Reference:
        Szegedy et al., Going deeper with convolutions, CVPR 2015, section 6.
    """
    crop_key, flip_key = tf.unstack(random.experimental.stateless_split(key, 2))
    part = _random_part(image, crop_key) if "crop" in augment else image
    view = _resize(part, size, method)
    if "flip" in augment:
        view = image_ops.stateless_random_flip_left_right(view, flip_key)
    return view


def evaluation_view(
    image, size: Size, method: str = "bilinear", crop: float | None = CENTRAL_FRACTION
):
    """Resizes the central square, or the whole image.

    Args:
        image: Tensor of shape `(height, width, channels)`.
        size: Pixels per side of the result, or its height and width.
        method: `"bilinear"` or `"bicubic"`.
        crop: Side of the square, as a fraction of the image's shorter side; None for the whole
            image, whose height and width are then resized independently.

    Returns:
        A float32 tensor of shape `(*size, channels)`.
    """
    return _resize(image if crop is None else _central_square(image, crop), size, method)


def resize_bicubic_tf1(images, size: tuple[int, int]):
    """Resizes as TensorFlow 1's `resize_bicubic` did by default.

    New pixel `i` is read at `i * old / new`, so that the upper left corners coincide; the kernel
    is Keys' with a = -0.75 and is never widened; results may leave the images' range.

    Args:
        images: Tensor of shape `(batch, height, width, channels)`.
        size: New height and width.

    Returns:
        A float32 tensor of shape `(batch, *size, channels)`.

    Reference:
        Keys, Cubic convolution interpolation for digital image processing, 1981.
    """
    return tf.raw_ops.ResizeBicubic(
        images=images, size=size, align_corners=False, half_pixel_centers=False
    )


def _random_part(image, key):
    begin, extent, _ = image_ops.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        seed=key,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RANGE,
        area_range=AREA_RANGE,
        max_attempts=ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.ensure_shape(tf.slice(image, begin, extent), [None, None, image.shape[-1]])


def _central_square(image, share: float):
    shape = tf.shape(image)[:2]
    shorter = tf.cast(tf.reduce_min(shape), tf.float32)
    side = tf.maximum(tf.cast(shorter * share, tf.int32), 1)
    top, left = tf.unstack((shape - side) // 2)
    return image[top : top + side, left : left + side]


def _resize(image, size: Size, method: str):
    """Resizes with antialiasing, which photographs need when they are reduced."""
    height, width = sides_of(size)
    channels = image.shape[-1]
    resized = image_ops.resize(tf.cast(image, tf.float32), [height, width], method, antialias=True)
    return tf.ensure_shape(resized, [height, width, channels])
