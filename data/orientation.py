"""The orientation of a photograph, as its camera recorded it (EXIF); pure functions of tensors.

A file is read segment by segment, since bytes that look like EXIF data may be a part of the
picture, or of a thumbnail of it.
"""

from typing import Any

import tensorflow as tf

# Zeros after the file's bytes, so that a number can be read even where the file is truncated.
MARGIN = 16
TAG = 0x0112
EXIF = b"Exif\0\0"
JPEG, PNG, RIFF = b"\xff\xd8", b"\x89P", b"RI"
START_OF_SCAN, END_OF_IMAGE, APPLICATION_1 = 0xDA, 0xD9, 0xE1


def upright(image, encoded):
    """Returns an image rotated and mirrored as the orientation in its file says.

    Args:
        image: Tensor of shape `(height, width, channels)`, as decoded.
        encoded: The file's bytes, a string tensor.
    """
    noted = orientation(encoded)
    image = tf.cond(noted >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    return _reversed(_reversed(image, 1, noted, (2, 3, 6, 7)), 0, noted, (3, 4, 7, 8))


def orientation(encoded):
    """Returns the orientation in a JPEG, PNG or WebP file, from 1 to 8; 1 if it has none.

    Only that in EXIF is read: some editors write one into XMP too, and a few there alone.

    Args:
        encoded: The file's bytes, a string tensor.

    Reference:
        CIPA DC-008, Exchangeable image file format for digital still cameras, section 4.6.4.
    """
    octets = tf.pad(tf.io.decode_raw(encoded, tf.uint8), [[0, MARGIN]])

    def walk(signature, first, step, otherwise):
        begins = _equal(octets, tf.constant(0, tf.int64), signature)
        return tf.cond(begins, lambda: _walk(octets, first, step), otherwise)

    def none():
        return tf.constant(0, tf.int64)

    note = walk(
        JPEG,
        2,
        _jpeg_segment,
        lambda: walk(PNG, 8, _png_chunk, lambda: walk(RIFF, 12, _webp_chunk, none)),
    )
    return tf.cond(note > 0, lambda: _noted(octets, note), lambda: tf.constant(1, tf.int64))


def _walk(octets, first: int, step):
    """Returns where the EXIF data begins, or 0 if there is none.

    Args:
        octets: The file's bytes and the margin.
        first: Where the first segment begins.
        step: Function from the bytes and the beginning of a segment to the beginning of the EXIF
            data in it, or 0, and of the next segment, past the end if there is none.
    """
    end = tf.size(octets, tf.int64) - MARGIN

    def body(at, _):
        note, following = step(octets, at)
        return following, note

    start = tf.constant(first, tf.int64), tf.constant(0, tf.int64)
    return tf.while_loop(lambda at, note: (at < end) & (note == 0), body, start)[1]


def _jpeg_segment(octets, at):
    marker = number_at(octets, at + 1, 1)
    is_note = (marker == APPLICATION_1) & _equal(octets, at + 4, EXIF)
    over = (number_at(octets, at, 1) != 0xFF) | (marker == START_OF_SCAN) | (marker == END_OF_IMAGE)
    # Any number of 0xFF may come before a marker.
    length = tf.where(marker == 0xFF, tf.constant(1, tf.int64), 2 + number_at(octets, at + 2, 2))
    return tf.where(is_note, at + 10, 0), tf.where(over, tf.size(octets, tf.int64), at + length)


def _png_chunk(octets, at):
    note = tf.where(_equal(octets, at + 4, b"eXIf"), at + 8, 0)
    return note, at + 12 + number_at(octets, at, 4)


def _webp_chunk(octets, at):
    is_note = _equal(octets, at, b"EXIF")
    # Some programs repeat the word that precedes EXIF data in JPEG files.
    begin = tf.where(_equal(octets, at + 8, EXIF), at + 8 + len(EXIF), at + 8)
    length = number_at(octets, at + 4, 4, little=True)
    return tf.where(is_note, begin, 0), at + 8 + length + tf.math.floormod(length, 2)


def _noted(octets, begin):
    """Returns the orientation in EXIF data, which is a TIFF file without an image."""
    little = _equal(octets, begin, b"II")
    low, high = tf.cond(little, lambda: (1, 256), lambda: (256, 1))
    there = begin + tf.where(
        little, number_at(octets, begin + 4, 4, little=True), number_at(octets, begin + 4, 4)
    )
    there = tf.minimum(there, tf.size(octets, tf.int64) - MARGIN)
    count = tf.where(little, number_at(octets, there, 2, little=True), number_at(octets, there, 2))
    count = tf.minimum(count, (tf.size(octets, tf.int64) - there - 2) // 12)
    entries = tf.reshape(octets[there + 2 : there + 2 + 12 * count], [-1, 12])
    entries = tf.cast(entries, tf.int32)
    tags, values = (low * entries[:, i] + high * entries[:, i + 1] for i in (0, 8))
    found = tf.reduce_max(tf.concat([[0], tf.where(tags == TAG, values, 0)], 0))
    return tf.cast(tf.where(found > 8, 1, found), tf.int64)


def number_at(octets, at, count: int, little: bool = False) -> Any:
    """Returns the number that a few bytes encode; 0 past the end."""
    at = tf.minimum(tf.cast(at, tf.int64), tf.size(octets, tf.int64) - MARGIN)
    digits = tf.cast(octets[at : at + count], tf.int64)
    places = [256**place for place in range(count)]
    return tf.reduce_sum(digits * (places if little else places[::-1]))


def _equal(octets, at, expected: bytes):
    """Returns whether these bytes are at this place."""
    at = tf.minimum(at, tf.size(octets, tf.int64) - MARGIN)
    return tf.reduce_all(octets[at : at + len(expected)] == tf.constant(list(expected), tf.uint8))


def _reversed(image, axis: int, noted, where: tuple[int, ...]):
    asked = tf.reduce_any(noted == tf.constant(where, tf.int64))
    return tf.cond(asked, lambda: tf.reverse(image, [axis]), lambda: image)
