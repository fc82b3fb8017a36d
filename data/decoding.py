"""From the bytes of an image file to an image; pure functions of tensors."""

import tensorflow as tf

from .dataset import MOST_PIXELS
from .declared_pixels import bmp_pixels, declared_pixels, gif_pixels, webp_pixels
from .orientation import upright

# In a BMP file: where its numbers are, and how many bytes each has.
BMP_HEADER_BYTES, BMP_BITS, BMP_COMPRESSION, BMP_COLOURS = (14, 4), (28, 2), (30, 4), (46, 4)
BMP_MASKS, PLAIN_MASKS = 54, bytes.fromhex("0000ff0000ff0000ff000000")
NOT_COMPRESSED, MASKED = 0, 3
# In a WebP file: where its kind is stored, and where that kind stores whether it has transparency.
WEBP_KIND, WEBP_EXTENDED_FLAGS, WEBP_LOSSLESS_FLAGS = 12, 20, 24
TRANSPARENCY, ANIMATION = 0x10, 0x02
# How files other than JPEG and PNG begin, or what those contain if they have an orientation; \C
# is any byte.
RARE = r"(RIFF|BM|GIF)\C*|\C*(Exif\x00\x00|eXIf)\C*"


def decode(encoded, channels: int = 3, max_pixels: int = MOST_PIXELS):
    """Decodes a JPEG, PNG, GIF, BMP or WebP file of any format to RGB or gray of 8 bits.

    Palettes are looked up, CMYK is converted, gray is repeated, 16 bits are reduced to the upper
    8, transparency is dropped (in a GIF it becomes black), the first frame of an animated GIF or
    PNG is used, and the image is rotated and mirrored as its EXIF orientation says.

    Args:
        encoded: The file's bytes, a string tensor.
        channels: 3 for RGB, 1 for gray.
        max_pixels: The most pixels that it may have; nothing of a larger one is decoded.

    Returns:
        A uint8 tensor of shape `(height, width, channels)`.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not a complete image, one of more
            pixels than it may have, or one of another kind, such as an animated WebP, a
            compressed BMP or a TIFF.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)

    def usual():
        with tf.control_dependencies([_few_enough(declared_pixels(encoded), max_pixels)]):
            return tf.io.decode_image(encoded, channels, expand_animations=False)

    rare = tf.strings.regex_full_match(encoded, RARE)
    image = tf.cond(rare, lambda: _rare(encoded, channels, max_pixels), usual)
    return tf.ensure_shape(image, [None, None, channels])


# One operation in the graph: its parts would cost more than a small JPEG, even if not run.
@tf.function(autograph=False, experimental_attributes={"_noinline": True})
def _rare(encoded, channels: int, max_pixels: int):
    """Decodes a file that is not a JPEG or PNG, or that has an orientation."""

    def is_a(signature: bytes):
        return tf.strings.substr(encoded, 0, len(signature)) == signature

    def usual():
        with tf.control_dependencies([_few_enough(declared_pixels(encoded), max_pixels)]):
            return tf.io.decode_image(encoded, channels, expand_animations=False)

    def other(read, pixels):
        def checked():
            with tf.control_dependencies([_few_enough(pixels(encoded), max_pixels)]):
                return _in(channels, tf.ensure_shape(read(encoded), [None, None, 3]))

        return checked

    image = tf.cond(
        is_a(b"RIFF"),
        other(_webp, webp_pixels),
        lambda: tf.cond(
            is_a(b"BM"),
            other(_bmp, bmp_pixels),
            lambda: tf.cond(is_a(b"GIF"), other(_gif, gif_pixels), usual),
        ),
    )
    return upright(tf.ensure_shape(image, [None, None, channels]), encoded)


def require_few_pixels(encoded):
    """Returns an operation that fails if a JPEG or PNG file has more pixels than usual ones."""
    return _few_enough(declared_pixels(encoded), MOST_PIXELS)


def _few_enough(pixels, max_pixels: int):
    return tf.debugging.Assert(pixels <= max_pixels, ["An image of too many pixels:", pixels])


def _in(channels: int, rgb):
    """Returns an RGB image with this number of channels."""
    return rgb if channels == 3 else tf.image.rgb_to_grayscale(rgb)


def _gif(encoded):
    return tf.io.decode_image(encoded, 3, expand_animations=False)


def _webp(encoded):
    """Decodes a WebP file; TensorFlow must be told whether it has transparency.

    An animation is refused, since TensorFlow (2.21) would write past the end of its buffer.
    """
    octets = tf.io.decode_raw(encoded, tf.uint8)
    kind = tf.strings.substr(encoded, WEBP_KIND, 4)

    def is_set(flag: int, at: int):
        return tf.bitwise.bitwise_and(octets[at], flag) > 0

    def opaque():
        return tf.io.decode_image(encoded, 3, expand_animations=False)

    def transparent():
        return tf.io.decode_image(encoded, 4, expand_animations=False)[..., :3]

    def extended():
        still = tf.logical_not(is_set(ANIMATION, WEBP_EXTENDED_FLAGS))
        with tf.control_dependencies([tf.debugging.Assert(still, ["An animated WebP file."])]):
            has_transparency = tf.identity(is_set(TRANSPARENCY, WEBP_EXTENDED_FLAGS))
        return tf.cond(has_transparency, transparent, opaque)

    def lossless():
        return tf.cond(is_set(TRANSPARENCY, WEBP_LOSSLESS_FLAGS), transparent, opaque)

    return tf.cond(kind == b"VP8X", extended, lambda: tf.cond(kind == b"VP8L", lossless, opaque))


def _bmp(encoded):
    """Decodes a BMP file; for one with a palette TensorFlow returns indices instead of colours."""
    octets = tf.io.decode_raw(encoded, tf.uint8)

    def number(place: tuple[int, int]):
        begin, count = place
        digits = tf.cast(octets[begin : begin + count], tf.int32)
        return tf.reduce_sum(digits * [256**power for power in range(count)])

    masks = octets[BMP_MASKS : BMP_MASKS + len(PLAIN_MASKS)]
    plain = tf.reduce_all(masks == tf.constant(list(PLAIN_MASKS), tf.uint8))
    compression = number(BMP_COMPRESSION)
    read = (compression == NOT_COMPRESSED) | ((compression == MASKED) & plain)
    known = tf.debugging.Assert(read, ["A BMP file must not be compressed."])
    with tf.control_dependencies([known]):
        image = tf.io.decode_bmp(encoded)

    def looked_up():
        noted = number(BMP_COLOURS)
        begin, count = 14 + number(BMP_HEADER_BYTES), tf.where(noted == 0, 256, noted)
        colours = tf.reshape(octets[begin : begin + 4 * count], [-1, 4])
        return tf.gather(colours[:, 2::-1], tf.cast(image[..., 0], tf.int32))

    return tf.cond(number(BMP_BITS) == 8, looked_up, lambda: image[..., :3])
