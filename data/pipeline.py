"""From the examples of a split to batches.

The order of training examples, and everything random about one, is a function of the seed, the
epoch and the place in the epoch alone, so that a run that was stopped can continue with exactly
the batches that it has not seen.
"""

from typing import Any

import tensorflow as tf

from .dataset import Dataset, Examples

random: Any = tf.random  # type checkers do not see into it
# In the place of an epoch's number, so that no place in evaluation is one of training's.
EVALUATION = -1
PARALLEL = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}


def steps_per_epoch(examples: Examples, batch_size: int) -> int:
    """Returns the number of whole batches in a pass over the examples."""
    return len(examples) // batch_size


def training_batches(
    dataset: Dataset, examples: Examples, batch_size: int, epochs: int, seed: int, start: int = 0
) -> tf.data.Dataset:
    """Returns shuffled batches of all epochs that are left.

    Every epoch has an order of its own; the examples that do not fill a last batch are left out
    of that epoch (others in every epoch), so that all batches have one shape.

    Args:
        dataset: Says how stored values become inputs.
        examples: The training split.
        batch_size: Examples per step.
        epochs: Epochs in all.
        seed: Seed of the order, and of the images' places if the dataset is translated.
        start: Epochs already behind.

    Returns:
        A dataset of pairs of float32 images and integer labels, with
        `(epochs - start) * steps_per_epoch(examples, batch_size)` elements.

    Raises:
        ValueError: If there are fewer examples than a batch needs.
    """
    if len(examples) < batch_size:
        raise ValueError(
            "A batch must not be larger than the training split. Received: "
            f"batch_size={batch_size} with {len(examples)} training examples."
        )
    images, labels = tf.constant(examples.images), tf.constant(examples.labels)

    def order_of(epoch):
        indices = tf.range(len(examples), dtype=tf.int64)
        order = random.experimental.stateless_shuffle(indices, seed=[seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order)

    def batches_of(epoch):
        if dataset.canvas is None:
            return order_of(epoch).batch(batch_size, drop_remainder=True).map(take, **PARALLEL)
        placed = (
            order_of(epoch).enumerate().map(_place_with(dataset, take, seed, epoch), **PARALLEL)
        )
        return placed.batch(batch_size, drop_remainder=True)

    def take(indices):
        chosen = tf.cast(tf.gather(images, indices), tf.float32)
        return dataset.prepare(chosen), tf.gather(labels, indices)

    return _deterministic(tf.data.Dataset.range(start, epochs).flat_map(batches_of))


def evaluation_batches(
    dataset: Dataset, examples: Examples, batch_size: int, seed: int = 0
) -> tf.data.Dataset:
    """Returns every example exactly once, in order; the last batch may be smaller.

    Args:
        dataset: Says how stored values become inputs.
        examples: The split to score.
        batch_size: Examples per step.
        seed: Seed of the images' places if the dataset is translated.

    Returns:
        A dataset of pairs of float32 images and integer labels.
    """

    def prepare(images, labels):
        return dataset.prepare(tf.cast(images, tf.float32)), labels

    stored = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels))
    if dataset.canvas is None:
        return _deterministic(stored.batch(batch_size).map(prepare, **PARALLEL))
    place = _place_with(dataset, lambda example: prepare(*example), seed, EVALUATION)
    return _deterministic(stored.enumerate().map(place, **PARALLEL).batch(batch_size))


def _place_with(dataset: Dataset, prepare, seed: int, epoch):
    """Returns a function of a place in the epoch and of what `prepare` takes to a placed image."""

    def place(position, example):
        image, label = prepare(example)
        key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
        key = random.experimental.stateless_fold_in(key, position)
        return place_in_noise(image, dataset.canvas, dataset.value_range, key), label

    return place


def place_in_noise(image, canvas, value_range, key):
    """Places an image uniformly at random in a canvas of uniform noise.

    Args:
        image: Tensor of shape `(height, width, channels)`.
        canvas: Rows and columns, at least the image's.
        value_range: Smallest and largest value of the noise.
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


def _deterministic(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
