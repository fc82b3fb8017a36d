"""TIFF files in a tf.data pipeline: TensorFlow reads none, so Pillow does, outside its graph.

Where TensorFlow must be deterministic it then reads one file at a time, of all kinds of files: it
does not trust a call to Python. Of the same 128 photographs in JPEG files with one TIFF file among
them an epoch takes three times as long. Therefore the call is in the graph only where it must be.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .dataset import EncodedExamples
from .decoding import decode
from .folder import TIFF, ImageFiles

# How files begin whose bytes are in little or big order, with offsets of 32 or 64 bits; \C is any
# byte.
SIGNATURES = r"(II[*+]\x00|MM\x00[*+])\C*"


def decode_of(examples: EncodedExamples) -> Callable[..., Any]:
    """Returns the function that decodes the images of a split, with the arguments of `decode`.

    Only where there are TIFF files by name does it call Python for those that begin as one.
    """
    paths = examples.paths if isinstance(examples, ImageFiles) else ()
    return decode_with_tiff if any(path.lower().endswith(TIFF) for path in paths) else decode


def decode_with_tiff(encoded: Any, channels: int = 3, *limits: int) -> Any:
    """Decodes a file as `decode` does, and a TIFF file as `pillow_images.decode` does.

    Args:
        encoded: The file's bytes, a string tensor.
        channels: 3 for RGB, 1 for gray.
        *limits: Further arguments of these two functions.

    Raises:
        tf.errors.OpError: If the bytes are not a complete image that they read.
    """
    is_tiff = tf.strings.regex_full_match(encoded, SIGNATURES)
    how = (channels, *limits)
    return tf.cond(is_tiff, lambda: _by_pillow(encoded, *how), lambda: decode(encoded, *how))


def _by_pillow(encoded: Any, channels: int, *limits: int) -> Any:
    from .pillow_images import decode as decode_in_python

    def read(octets: bytes) -> Any:
        return decode_in_python(octets, channels, *limits)

    image = tf.numpy_function(read, [encoded], tf.uint8, stateful=False)
    return tf.ensure_shape(image, [None, None, channels])
