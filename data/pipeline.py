"""From the examples of a split to batches.

The order of training examples, and everything random about each, depends only on the seed, the
epoch and the place in the epoch, so an interrupted run can continue with exactly the batches that
it has not seen.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .attempts import (
    attempted,
    left_out,
    refilled,
    refused,
    unreadable_images,  # noqa: F401, a part of every pipeline
)
from .dataset import Dataset, EncodedExamples, Examples, Split, require_batch, steps_per_epoch
from .images import decode, evaluation_view, training_view
from .tiff import decode_of

random: Any = tf.random  # type checkers do not see into it
# Takes the place of the epoch's number in evaluation, so that no key is one of training's.
EVALUATION = -1
# Folded into an example's key for its crop and flip; its place in a canvas uses the key itself.
VIEW = np.int64(1)
# Folded into a step's key for the changes of its batch.
BATCH = np.int64(2)
# No function here branches on a tensor; translating its Python would take longer than tracing it.
untranslated: Any = tf.autograph.experimental.do_not_convert
PARALLEL = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}


@untranslated
def training_batches(
    dataset: Dataset,
    examples: Split,
    batch_size: int,
    epochs: int,
    seed: int,
    start: int = 0,
    skipped: str | Path | None = None,
) -> tf.data.Dataset:
    """Returns shuffled batches of all remaining epochs.

    Every epoch has its own order. Examples that do not fill a last batch are left out of the
    epoch (different ones in each), so that all batches have the same shape. Images are changed
    according to the dataset's `augment`. Encoded images that cannot be read are
    skipped; the epoch then ends with as many of its first examples again, so that its number of
    steps does not change.

    Args:
        dataset: The dataset, which determines how stored values become inputs.
        examples: The training split.
        batch_size: Examples per step.
        epochs: Total number of epochs.
        seed: Seed of the order, of the augmentations, and of the images' places if the dataset
            is translated.
        start: Steps already done; their batches are skipped.
        skipped: File to which the name of an unreadable image is added whenever it is skipped;
            `unreadable.skipped_images` reads it. None for no such file.

    Returns:
        A dataset of pairs of float32 images and integer labels (probabilities, if the dataset
        has `soft_labels`), with
        `epochs * steps_per_epoch(examples, batch_size) - start` elements.

    Raises:
        ValueError: If there are fewer examples than a batch needs.
    """
    require_batch(examples, batch_size)
    if isinstance(examples, EncodedExamples):
        batches_of = _encoded_epochs(dataset, examples, batch_size, seed, skipped)
    else:
        batches_of = _stored_epochs(dataset, examples, batch_size, seed)
    steps = steps_per_epoch(examples, batch_size)
    epoch, inside = divmod(start, steps)
    batches_of = _changed_epochs(dataset, batches_of, seed)
    batches = tf.data.Dataset.range(epoch, epochs).flat_map(batches_of).skip(inside)
    return _deterministic(_counted(batches, max(epochs * steps - start, 0)))


@untranslated
def evaluation_batches(
    dataset: Dataset, examples: Split, batch_size: int, seed: int = 0
) -> tf.data.Dataset:
    """Returns every example exactly once, in order; the last batch may be smaller.

    Encoded images are cropped according to the dataset's `eval_crop`, by default not at all. One
    that cannot be read raises a `tf.errors.InvalidArgumentError`, which
    `unreadable.unreadable_image` turns into a sentence.

    Args:
        dataset: The dataset, which determines how stored values become inputs.
        examples: The split to score.
        batch_size: Examples per step.
        seed: Seed of the images' places if the dataset is translated.

    Returns:
        A dataset of pairs of float32 images and integer labels.
    """
    if isinstance(examples, EncodedExamples):
        elements = _read(dataset, examples, seed, EVALUATION, None)
        batches = refused(elements).map(_pair).batch(batch_size)
        return _deterministic(_counted(batches, -(-len(examples) // batch_size)))

    def prepare(images, labels):
        return dataset.prepare(tf.cast(images, tf.float32)), labels

    stored = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels))
    if dataset.canvas is None:
        return _deterministic(stored.batch(batch_size).map(prepare, **PARALLEL))
    place = _drawn_with(dataset, lambda example: example, seed, EVALUATION)
    return _deterministic(stored.enumerate().map(place, **PARALLEL).batch(batch_size))


def input_from_bytes(dataset: Dataset) -> Any:
    """Returns a function from the bytes of an image file to an input, for a server.

    It reads the formats of `decode` and prepares an image as evaluation does. If the images of
    the dataset have one size, an image of any size is resized to it. Returns None for a translated
    dataset, whose inputs are random, and of examples that no image file holds.
    """
    stored_as_pixels = dataset.stored_range[0] == 0 and dataset.image_shape[-1] in (1, 3)
    if dataset.canvas is not None or dataset.dimensions != 2 or not stored_as_pixels:
        return None
    height, width, channels = dataset.image_shape
    low, high = dataset.stored_range

    @untranslated
    def to_input(encoded):
        image = decode(encoded, channels, dataset.max_pixels)
        if dataset.view is not None:
            stored = dataset.view(image)
        elif dataset.resizable:
            stored = evaluation_view(image, height, crop=dataset.eval_crop)
        else:
            resized = tf.image.resize(image, (height, width), antialias=True)
            stored = low + resized * ((high - low) / 255.0)
        return tf.ensure_shape(dataset.prepare(stored), dataset.image_shape)

    return to_input


def _changed_epochs(dataset: Dataset, batches_of: Any, seed: int):
    """Returns a function from an epoch to its batches, changed as the dataset's `augment` says."""
    if not dataset.batch_changes:
        return batches_of
    from .batch_changes import SEEDS, BatchChanges

    change = BatchChanges(dataset, lambda seed, draws: tf.stack([seed, np.int64(draws)]))

    def changed(epoch):
        def draw(step, batch):
            images, labels = batch
            key = random.experimental.stateless_fold_in(_epoch_key(seed, epoch), step)
            step_seed = random.experimental.stateless_fold_in(key, BATCH)[0] % SEEDS
            if change.soft:
                labels = tf.one_hot(labels, dataset.num_classes)
            return change(images, labels, step_seed)

        return batches_of(epoch).enumerate().map(draw, **PARALLEL)

    return changed


def _stored_epochs(dataset: Dataset, examples: Examples, batch_size: int, seed: int):
    """Returns a function from an epoch to the batches of examples in memory."""
    # Keeps gigabytes of images out of an accelerator's memory.
    with tf.device("CPU"):
        images, labels = tf.constant(examples.images), tf.constant(examples.labels)

    def order_of(epoch):
        indices = tf.range(len(examples), dtype=tf.int64)
        order = random.experimental.stateless_shuffle(indices, seed=[seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order)

    def batches_of(epoch):
        if dataset.canvas is None and not dataset.views:
            return order_of(epoch).batch(batch_size, drop_remainder=True).map(prepare, **PARALLEL)
        drawn = order_of(epoch).enumerate().map(_drawn_with(dataset, take, seed, epoch), **PARALLEL)
        return drawn.batch(batch_size, drop_remainder=True)

    def take(indices):
        return tf.gather(images, indices), tf.gather(labels, indices)

    def prepare(indices):
        chosen, their_labels = take(indices)
        return dataset.prepare(tf.cast(chosen, tf.float32)), their_labels

    return batches_of


def _encoded_epochs(
    dataset: Dataset,
    examples: EncodedExamples,
    batch_size: int,
    seed: int,
    skipped: str | Path | None,
):
    """Returns a function from an epoch to the batches of encoded examples."""
    wanted = steps_per_epoch(examples, batch_size) * batch_size

    def batches_of(epoch):
        elements = _read(dataset, examples, seed, epoch, _epoch_key(seed, epoch))
        elements = left_out(elements, skipped)
        filled = refilled(elements, wanted, len(examples))
        return filled.map(_pair).batch(batch_size, drop_remainder=True)

    return batches_of


def _read(dataset: Dataset, examples: EncodedExamples, seed: int, epoch, order) -> tf.data.Dataset:
    """Returns all examples with their images as inputs, marked as readable or not."""
    channels, decode = dataset.image_shape[2], decode_of(examples)

    def marked(example, image, readable: bool):
        kept = {name: example[name] for name in ("label", "name")}
        return {"image": image, "readable": tf.constant(readable), **kept}

    def decoded(position, example):
        key = random.experimental.stateless_fold_in(_epoch_key(seed, epoch), position)
        image = decode(examples.encoded(example), channels, dataset.max_pixels)
        return marked(example, _input_of(dataset, image, key, epoch), True)

    def give_up(_, example):
        return marked(example, tf.zeros(dataset.input_shape), False)

    return attempted(examples.stream(order).enumerate(), decoded, give_up)


def _pair(element):
    return element["image"], element["label"]


def _epoch_key(seed: int, epoch):
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])


def _drawn_with(dataset: Dataset, take, seed: int, epoch):
    """Returns a function from a place in the epoch and `take`'s argument to an input and label."""

    def draw(position, example):
        image, label = take(example)
        key = random.experimental.stateless_fold_in(_epoch_key(seed, epoch), position)
        return _input_of(dataset, image, key, epoch), label

    return draw


def _input_of(dataset: Dataset, image, key, epoch):
    """Returns an image as an input; whatever is random about it depends only on the key."""
    if epoch is not EVALUATION and dataset.views:
        view_key = random.experimental.stateless_fold_in(key, VIEW)
        image = training_view(image, dataset.sides, view_key, augment=dataset.views)
    elif dataset.encoded:
        crop = dataset.eval_crop if epoch is EVALUATION else None
        image = evaluation_view(image, dataset.sides, crop=crop)
    image = dataset.prepare(tf.cast(image, tf.float32))
    if dataset.canvas is None:
        return image
    return place_in_noise(image, dataset.canvas, dataset.value_range, key)


def place_in_noise(image, canvas, value_range, key):
    """Places an image uniformly at random in a canvas of uniform noise.

    Args:
        image: Tensor of shape `(height, width, channels)`.
        canvas: Rows and columns, at least the image's.
        value_range: Smallest and largest value of the noise, for all channels or for each.
        key: Seed, two integers; the same key gives the same place and noise.

    Returns:
        Tensor of shape `(*canvas, channels)`.

    Reference:
        Elsayed et al., ICML 2020, section 4.3: faces of 32x32 pixels in 48x48.
    """
    place_key, noise_key = tf.unstack(random.experimental.stateless_split(key, 2))
    height, width, channels = image.shape
    room = tf.constant([canvas[0] - height, canvas[1] - width])
    top, left = (
        random.stateless_uniform(
            [], random.experimental.stateless_fold_in(place_key, axis), 0, room[axis] + 1, tf.int32
        )
        for axis in range(2)
    )
    noise = random.stateless_uniform([*canvas, channels], noise_key, *value_range)
    around = [[top, room[0] - top], [left, room[1] - left], [0, 0]]
    inside = tf.pad(tf.ones([height, width, 1], tf.bool), around)
    placed = tf.where(inside, tf.pad(image, around), noise)
    return tf.ensure_shape(placed, [*canvas, channels])


def _counted(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Declares the number of batches; Keras warns at the end of data of unknown length."""
    return batches.apply(tf.data.experimental.assert_cardinality(count))


def _deterministic(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Every worker reads all batches and takes its share of each.
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
