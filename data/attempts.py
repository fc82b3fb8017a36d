"""Elements of a tf.data pipeline that cannot be read: skipped in training, errors in evaluation.

An element is a dictionary of `"image"`, `"label"`, `"name"` and `"readable"`.

Under `enable_op_determinism` TensorFlow reads one element at a time as soon as a function in the
pipeline has an operation that it does not know to be deterministic, such as a call to Python or
`get_single_element`. Therefore names leave the graph through `tf.print`, and each element is a
dataset made from a range, both of which it allows.
"""

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from .dataset import EncodedExamples
from .tiff import decode_of
from .unreadable import SCORED, TRAINED, WHOLE

# Elements read at a time. TensorFlow would tune the number anew in every epoch.
AT_ONCE = max(os.cpu_count() or 1, 2)


def unreadable_images(examples: EncodedExamples) -> list[str]:
    """Returns the names of the images that cannot be decoded, in order."""
    decode = decode_of(examples)

    def read(example):
        # The value must be used, or TensorFlow would skip the decoding.
        return example["name"], tf.size(decode(examples.encoded(example))) > 0

    def give_up(example):
        return example["name"], tf.constant(False)

    found = attempted(examples.stream(None), read, give_up).as_numpy_iterator()
    return [name.decode("utf-8", "backslashreplace") for name, readable in found if not readable]


def attempted(elements: tf.data.Dataset, read, otherwise) -> tf.data.Dataset:
    """Returns the results of `read`, or of `otherwise` where `read` fails, in order.

    Within a graph only a dataset can survive an error, so each element becomes a dataset of one.

    Args:
        elements: Elements to read.
        read: Function from an element to tensors, which may raise.
        otherwise: As `read`, to tensors of the same shapes and dtypes, but never raises.
    """

    def attempt(*element):
        one = tf.data.Dataset.range(1)
        done = one.map(lambda _: read(*element)).ignore_errors()
        return done.concatenate(one.map(lambda _: otherwise(*element))).take(1)

    return elements.interleave(attempt, AT_ONCE, 1, num_parallel_calls=AT_ONCE, deterministic=True)


def left_out(elements: tf.data.Dataset, skipped: str | Path | None) -> tf.data.Dataset:
    """Returns the readable elements.

    Args:
        elements: All of them.
        skipped: File to which the names of the others are added, or None.
    """

    def note(name):
        if skipped is not None:
            tf.print(name, output_stream=f"file://{Path(skipped).absolute()}")
        return tf.constant(False)

    def is_readable(element):
        return tf.cond(
            element["readable"], lambda: tf.constant(True), lambda: note(element["name"])
        )

    return elements.filter(is_readable)


def refilled(elements: tf.data.Dataset, wanted: int, available: int) -> tf.data.Dataset:
    """Returns the first `wanted` elements, starting over if there are fewer.

    Args:
        elements: Readable elements.
        wanted: How many to return.
        available: How many there were, including unreadable ones.

    Raises:
        tf.errors.InvalidArgumentError: When read, if there are none.
    """

    def fail(_):
        with tf.control_dependencies([_assert(False, TRAINED.format(available))]):
            return tf.nest.map_structure(
                lambda spec: tf.zeros(spec.shape, spec.dtype), elements.element_spec
            )

    # An endless repetition ends only if there is nothing to repeat.
    none = tf.data.Dataset.range(1).map(fail)
    return elements.repeat().concatenate(none).take(wanted)


def refused(elements: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the elements.

    Raises:
        tf.errors.InvalidArgumentError: When read, at the first unreadable one, which
            `unreadable_image` names.
    """
    before, after = SCORED.split("{}")

    def check(element):
        sentence = tf.strings.join([before, element["name"], after])
        with tf.control_dependencies([_assert(element["readable"], sentence)]):
            return {**element, "image": tf.identity(element["image"])}

    return elements.map(check)


def whole(records: tf.data.Dataset, path, wanted) -> tf.data.Dataset:
    """Returns the records of a file.

    Args:
        records: The records, as far as they can be read.
        path: The file, a string tensor.
        wanted: How many there must be.

    Raises:
        tf.errors.InvalidArgumentError: When read, if there are fewer; `unreadable_image` names
            the file.
    """
    before, after = WHOLE.split("{}")

    def fail(_):
        with tf.control_dependencies([_assert(False, tf.strings.join([before, path, after]))]):
            return tf.constant("")

    missing = tf.data.Dataset.range(1).map(fail)
    return records.ignore_errors().concatenate(missing).take(wanted)


def _assert(condition, sentence) -> Any:
    return tf.debugging.Assert(condition, [sentence])
