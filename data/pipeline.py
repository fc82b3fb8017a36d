"""From examples in memory to batches.

The order of training examples is a function of the seed, the epoch and the step alone, so that a
run that was stopped can continue with exactly the batches that it has not seen.
"""

from typing import Any

import tensorflow as tf

from .dataset import Dataset, Examples

random: Any = tf.random  # type checkers do not see into it


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
        seed: Seed of the order.
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
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=True)

    def take(indices):
        batch = tf.cast(tf.gather(images, indices), tf.float32)
        return dataset.prepare(batch), tf.gather(labels, indices)

    batches = tf.data.Dataset.range(start, epochs).flat_map(order_of)
    return _deterministic(batches.map(take, num_parallel_calls=tf.data.AUTOTUNE))


def evaluation_batches(dataset: Dataset, examples: Examples, batch_size: int) -> tf.data.Dataset:
    """Returns every example exactly once, in order; the last batch may be smaller.

    Args:
        dataset: Says how stored values become inputs.
        examples: The split to score.
        batch_size: Examples per step.

    Returns:
        A dataset of pairs of float32 images and integer labels.
    """
    batches = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels))
    return _deterministic(
        batches.batch(batch_size).map(
            lambda images, labels: (dataset.prepare(tf.cast(images, tf.float32)), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )


def _deterministic(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
