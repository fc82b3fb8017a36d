"""Images and files that cannot be read: skipped in training, and errors in evaluation.

An element is a dictionary of `"image"`, `"label"`, `"name"` and `"readable"`.

Under `enable_op_determinism` TensorFlow reads one element at a time as soon as a function in the
pipeline has an operation that it does not know to be deterministic, such as a call to Python or
`get_single_element`. Therefore names leave the graph through `tf.print`, and each element is a
dataset made from a range, both of which it allows.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from .dataset import EncodedExamples, Split
from .decoding import decode

# Elements read at a time. TensorFlow would tune the number anew in every epoch.
AT_ONCE = max(os.cpu_count() or 1, 2)
SCORED = "Every image that is scored must be readable. Received: {}. Replace or remove that file."
ALL_SCORED = (
    "Every image that is scored must be readable. Received: {} that are not: {}. Replace or remove "
    "those files."
)
WHOLE = (
    "Every file of a prepared dataset must be whole. Received: {}, which is damaged or truncated. "
    "Put it back, or prepare the dataset again."
)
TRAINED = "At least one training image must be readable. Received: none of {}. Check the files."
# The two sentences in TensorFlow's message: in brackets, with quotes and backslashes escaped.
REFUSAL = re.compile(r"assertion failed: \[((?:Every|At least one) .*)\]$", re.MULTILINE)


class UnreadableError(ValueError):
    """Data that a run needs cannot be read; the message is a sentence for the user."""


def refuse_unreadable(splits: Iterable[Split]) -> None:
    """Decodes every encoded image of some splits, in parallel.

    This is done before training, since evaluation would otherwise stop at each unreadable image,
    after training.

    Raises:
        UnreadableError: If any cannot be read; the error names all of them.
    """
    encoded = (examples for examples in splits if isinstance(examples, EncodedExamples))
    names = [name for examples in encoded for name in unreadable_images(examples)]
    if len(names) == 1:
        raise UnreadableError(SCORED.format(names[0]))
    if names:
        raise UnreadableError(ALL_SCORED.format(len(names), ", ".join(names)))


def unreadable_images(examples: EncodedExamples) -> list[str]:
    """Returns the names of the images that cannot be decoded, in order."""

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


def skipped_images(skipped: str | Path) -> list[str]:
    """Returns the names of images that were skipped, each once and in order.

    Args:
        skipped: The file that `left_out` wrote; it is missing if all images were readable.
    """
    path = Path(skipped)
    if not path.exists():
        return []
    return sorted(set(path.read_text("utf-8", "backslashreplace").split("\n")) - {""})


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


def unreadable_image(error: Exception) -> str | None:
    """Returns what is wrong with the images or their files, in a sentence.

    Args:
        error: What reading batches raised.

    Returns:
        The sentence, with the file's name if it is about one file, or None if the error is about
        something else.

    Example:
        >>> unreadable_image(ValueError("disk full")) is None
        True
    """
    if isinstance(error, UnreadableError):
        return str(error)
    found = REFUSAL.search(str(error))
    return found and re.sub(r"\\(.)", r"\1", found.group(1))


def _assert(condition, sentence) -> Any:
    return tf.debugging.Assert(condition, [sentence])
