"""How many pixels the bytes of an image file say that it has; pure functions of tensors.

A decoder allocates as many before it reads the first.
"""

import tensorflow as tf

from .orientation import MARGIN, number_at

JPEG, PNG = b"\xff\xd8", b"\x89PNG"
# Where a PNG's width and height are, of four bytes each.
PNG_SIDES, SIDES_BYTES = 16, 8
BMP_SIDES = 18
# Where sides are in the three kinds of WebP, and by how many bits they are stored.
WEBP_KIND, WEBP_FRAME, WEBP_LOSSLESS, WEBP_CANVAS, SIDE_BITS = 12, 26, 21, 24, 14
# In a GIF: the blocks of images and of extensions, their headers, and the bit that tells of a
# palette, whose lowest bits tell its length.
GIF_SCREEN, GIF_FIRST, GIF_IMAGE, GIF_EXTENSION = 6, 13, 0x2C, 0x21
GIF_PALETTE, GIF_PALETTE_SIZE = 0x80, 0x07
# Frames of a GIF take a byte a pixel, and all are kept; an image takes three.
GIF_FRAMES = 4


def declared_pixels(encoded):
    """Returns the pixels of a JPEG or PNG file; 0 for others.

    Args:
        encoded: The file's bytes, a string tensor.

    Raises:
        tf.errors.InvalidArgumentError: If the file ends before it says.
    """

    def begins(signature: bytes):
        return tf.strings.substr(encoded, 0, len(signature)) == signature

    def jpeg():
        shape = tf.io.extract_jpeg_shape(encoded, tf.int32)
        return tf.cast(shape[0], tf.int64) * tf.cast(shape[1], tf.int64)

    def png():
        sides = tf.strings.substr(encoded, PNG_SIDES, SIDES_BYTES)
        return _product(tf.io.decode_raw(sides, tf.int32, little_endian=False))

    def none():
        return tf.constant(0, tf.int64)

    return tf.cond(begins(PNG), png, lambda: tf.cond(begins(JPEG), jpeg, none))


def _product(sides):
    return tf.reduce_prod(tf.abs(tf.cast(sides, tf.int64)))


def bmp_pixels(encoded):
    """Returns the pixels of a BMP file, whose height is negative if it begins at the top."""
    sides = tf.strings.substr(encoded, BMP_SIDES, SIDES_BYTES)
    return _product(tf.io.decode_raw(sides, tf.int32))


def webp_pixels(encoded):
    """Returns the pixels of a WebP file."""
    octets = _padded(encoded)
    kind = tf.strings.substr(encoded, WEBP_KIND, 4)

    def number(at: int, count: int):
        return number_at(octets, at, count, little=True)

    def extended():
        return (1 + number(WEBP_CANVAS, 3)) * (1 + number(WEBP_CANVAS + 3, 3))

    def lossless():
        both, most = number(WEBP_LOSSLESS, 4), 1 << SIDE_BITS
        return (1 + both % most) * (1 + both // most % most)

    def lossy():
        most = 1 << SIDE_BITS
        return (number(WEBP_FRAME, 2) % most) * (number(WEBP_FRAME + 2, 2) % most)

    return tf.cond(kind == b"VP8X", extended, lambda: tf.cond(kind == b"VP8L", lossless, lossy))


def gif_pixels(encoded):
    """Returns the pixels of a GIF's screen, or a quarter of those of all frames if that is more."""
    octets = _padded(encoded)
    screen = _area(octets, GIF_SCREEN)
    end = tf.size(octets, tf.int64) - MARGIN

    def goes_on(at, within, _):
        known = (_byte(octets, at) == GIF_IMAGE) | (_byte(octets, at) == GIF_EXTENSION)
        return (at < end) & (within | known)

    def step(at, within, pixels):
        return tf.cond(within, lambda: _past_part(octets, at, pixels), lambda: begin(at, pixels))

    def begin(at, pixels):
        is_image = _byte(octets, at) == GIF_IMAGE
        start = tf.where(is_image, at + 11 + _palette(octets, at + 9), at + 2)
        area = tf.where(is_image, _area(octets, at + 5), tf.constant(0, tf.int64))
        return start, tf.constant(True), pixels + area

    first = GIF_FIRST + _palette(octets, GIF_FIRST - 3)
    start = first, tf.constant(False), tf.constant(0, tf.int64)
    _, _, pixels = tf.while_loop(goes_on, step, start)
    return tf.maximum(screen, pixels // GIF_FRAMES)


def _past_part(octets, at, pixels):
    """Skips one of the parts, of up to 255 bytes, that a block's data is cut into."""
    length = _byte(octets, at)
    return at + 1 + length, length > 0, pixels


def _padded(encoded):
    return tf.pad(tf.io.decode_raw(encoded, tf.uint8), [[0, MARGIN]])


def _byte(octets, at):
    return number_at(octets, at, 1)


def _area(octets, at):
    return number_at(octets, at, 2, little=True) * number_at(octets, at + 2, 2, little=True)


def _palette(octets, at):
    """Returns the bytes of the palette that flags tell of."""
    flags = _byte(octets, at)
    length = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % (GIF_PALETTE_SIZE + 1))
    return tf.where(flags >= GIF_PALETTE, length, 0)
