"""A Keras model that trains and evaluates under every `tf.distribute` strategy.

Keras 3's own TensorFlow trainer fails under `MultiWorkerMirroredStrategy`, where a batch cannot be
drawn to build the model from (keras-team/keras #20585), and under `MirroredStrategy` when the
last batch is odd (#19246). Three methods mend that; `tests/test_strategy.py` has a test that fails
once Keras needs them no longer.
"""

from typing import Any

import keras
import tensorflow as tf


class ReplicatedModel(keras.Model):
    """As `keras.Model(inputs, outputs)`, for any strategy; compile with `jit_compile=False`.

    A step's logs are this replica's running means; those of an epoch and of `evaluate` are exact
    over all replicas.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds metrics and optimizer from the shapes of a batch, without drawing one."""
        strategy = self.distribute_strategy
        if iterator is not None:
            specs = iterator._distributed_dataset.element_spec
            data_batch = tf.nest.map_structure(_symbolic, specs)
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    def make_train_function(self, force: bool = False) -> Any:
        """Returns a function that takes steps on the batches of an iterator."""
        if self.train_function is None or force:
            self.train_function = self._on_all_replicas(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Returns a function that scores the batches of an iterator."""
        if self.test_function is None or force:
            self.test_function = self._on_all_replicas(self.test_step)
        return self.test_function

    def _on_all_replicas(self, step: Any) -> Any:
        strategy = self.distribute_strategy

        def on_each(batch):
            logs = strategy.run(step, args=(batch,))
            return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], logs)

        compiled = on_each if self.run_eagerly else tf.function(on_each, reduce_retracing=True)

        def function(iterator):
            batches = [
                batch for _, batch in zip(range(self.steps_per_execution), iterator, strict=False)
            ]
            if not batches:
                raise StopIteration
            for batch in batches:
                logs = compiled(batch)
            return logs

        return function


def _symbolic(spec: Any) -> keras.KerasTensor:
    """Returns a symbolic tensor for what the first replica gets."""
    spec = getattr(spec, "_value_specs", (spec,))[0]
    return keras.KerasTensor((1, *spec.shape[1:]), spec.dtype.name)
