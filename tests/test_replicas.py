"""What replicas have of their own: saving does not change it, and a continued run has it again."""

import commands
import keras
import numpy as np
import pytest

from low_rank_local_connectivity.training.replicas import together

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's strategies"),
]


def test_one_value_stands_for_all_if_it_is_the_same_and_their_mean_if_not():
    seeds = np.array([[7, 3], [7, 3]])
    np.testing.assert_array_equal(together(seeds, seeds[0]), seeds[0])
    means = np.array([[1.0, 2.0], [4.0, 2.0]], "float32")
    found = together(means, means[0])
    np.testing.assert_array_equal(found, [2.5, 2.0])
    assert found.dtype == np.float32


# Trains on two devices of the CPU: without a save within an epoch, and with one after every step,
# stopped after the second of three and continued by a model of its own.
TRAINING = """
import sys
from pathlib import Path
from low_rank_local_connectivity.experiments.backend import load_framework
load_framework(2)
import keras, numpy as np, tensorflow as tf
from low_rank_local_connectivity.training import endings, recovery, session, strategy

placement = strategy.place("mirrored")
draw = np.random.default_rng(0)
images, labels = draw.normal(size=(24, 5, 4, 2)).astype("float32"), np.arange(24) % 3
batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)

def model():
    keras.utils.set_random_seed(1)
    with placement.scope():
        inputs = keras.Input((5, 4, 2))
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(3, 2)(inputs))
        x = keras.layers.Flatten()(keras.layers.Dropout(0.3, seed=2)(x))
        return placement.model(keras.Model(inputs, keras.layers.Dense(3)(x)))

def trained(name, stop_after=None, **saving):
    keep = recovery.Recovery(Path(sys.argv[1]) / name, 3, placement=placement, **saving)
    keep.signal = None
    end = keep.on_train_batch_end
    def ask(batch, logs=None):
        if keep.step + 1 == stop_after:
            keep.signal = 15
        end(batch, logs)
    keep.on_train_batch_end = ask
    own, recipe = model(), session.Recipe(2, 3, 0.01, 0, validation_every=2)
    stream = lambda start: batches.repeat(2).skip(start)
    try:
        session.train(own, recipe, stream, batches, keep, placement)
    except endings.StoppedError:
        return trained(name, **saving)
    variables = [*own.variables, *own.optimizer.variables]
    return [*placement.own_values(variables), *map(str, keep.rows)]

whole, parts = trained("whole"), trained("parts", 2, every_steps=1)
for one, theirs in zip(whole, parts, strict=True):
    np.testing.assert_array_equal(one, theirs)
count = sum(isinstance(one, np.ndarray) and bool((one[0] != one[1]).any()) for one in whole)
print("averaged" if count == 0 else f"{count} differ", len(whole))
"""


@pytest.mark.slow
def test_saving_on_two_devices_changes_nothing_and_a_continued_run_has_all_again(tmp_path):
    done = commands.python("-c", TRAINING, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("averaged ")
