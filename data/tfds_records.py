"""Streams of encoded images from the record files of tensorflow-datasets."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from .attempts import whole
from .dataset import EncodedExamples

random: Any = tf.random  # type checkers do not see into it
# Files read at a time, taking turns.
CYCLE = 16
# Examples in the shuffle buffer; at ImageNet's 110 kB each they take 0.5 GB.
SHUFFLE_BUFFER = 4096
# Folded into an epoch's key for the draws; the order of the files uses the key itself.
DRAWING = np.int64(1)


@dataclasses.dataclass(frozen=True)
class PreparedRecords(EncodedExamples):
    """The examples of one split, in record files.

    Args:
        features: tensorflow-datasets' description of an example, which must have an `"image"`, a
            `"label"` and a `"file_name"`.
        paths: The files.
        first: The first example to read of each file.
        counts: How many to read of each.
    """

    features: Any
    paths: tuple[str, ...]
    first: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, builder: Any, instruction: str) -> "PreparedRecords":
        """Opens a split.

        Args:
            builder: tensorflow-datasets' builder of a prepared dataset.
            instruction: Name of a split, or of a part such as `"train[:100]"`.

        Raises:
            FileNotFoundError: If the split was not prepared.
            ValueError: If the files are not TFRecords, or the split has no examples.
        """
        split = instruction.partition("[")[0]
        if split not in builder.info.splits:
            raise FileNotFoundError(
                f"{builder.name} must have been prepared with its split {split!r}. Received: "
                f"{sorted(builder.info.splits)} in {builder.data_dir}. Prepare it again with the "
                "archive of that split."
            )
        file_format = builder.info.file_format.value
        if file_format != "tfrecord":
            raise ValueError(
                f"{builder.name} must have been prepared as TFRecord files. Received: "
                f"{file_format!r} in {builder.data_dir}. Prepare it with file_format='tfrecord'."
            )
        files = builder.info.splits[instruction].file_instructions
        return cls(
            builder.info.features,
            tuple(str(file.filename) for file in files),
            tuple(file.skip for file in files),
            tuple(file.take for file in files),
        )

    def __len__(self) -> int:
        return sum(self.counts)

    def stream(self, key):
        """Returns all examples once, from several files in turn.

        With a key the order of the files is random, and the examples are drawn from a buffer.
        """
        order = tf.range(len(self.paths), dtype=tf.int64)
        if key is not None:
            order = random.experimental.stateless_shuffle(order, seed=key)
        records = tf.data.Dataset.from_tensor_slices(order).interleave(
            self._read_file, CYCLE, 1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if key is not None:
            records = _shuffled(records, key)
        return records.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def encoded(self, example):
        """Returns the bytes that are part of the example."""
        return example["encoded"]

    def _read_file(self, index):
        paths, first, counts = (
            tf.gather(tf.constant(column), index)
            for column in (self.paths, self.first, self.counts)
        )
        wanted = tf.cast(counts, tf.int64)
        records = tf.data.TFRecordDataset(paths).skip(tf.cast(first, tf.int64)).take(wanted)
        return whole(records, paths, wanted)

    def _parse(self, record):
        import tensorflow_datasets as tfds

        decoders = {"image": tfds.decode.SkipDecoding()}
        example = self.features.deserialize_example(record, decoders=decoders)
        label = tf.cast(example["label"], tf.int64)
        return {"encoded": example["image"], "label": label, "name": example["file_name"]}


def _shuffled(records: tf.data.Dataset, key) -> tf.data.Dataset:
    """Draws from a buffer using only a key; `Dataset.shuffle` would mix in the global seed."""
    # The second is never zero: two zeros would ask for another order every time.
    seed, seed2 = tf.unstack(random.experimental.stateless_fold_in(key, DRAWING))
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=SHUFFLE_BUFFER,
        seed=seed,
        seed2=seed2,
        output_types=[tf.string],
        output_shapes=[[]],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, records.element_spec)
