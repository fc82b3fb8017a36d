"""A Keras model that trains and evaluates under every `tf.distribute` strategy.

Keras 3's own TensorFlow trainer fails under `MultiWorkerMirroredStrategy`, where a batch cannot be
drawn to build the model from (keras-team/keras #20585), and under `MirroredStrategy` when the
last batch is odd (#19246). Three methods fix that; a test in `tests/test_strategy.py` fails as soon
as Keras no longer needs them.
"""

import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

# Names of glibc's malloc.h. Tensors up to 32 MiB, the most that is allowed, come from the heap.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 32 * 1024 * 1024


class ReplicatedModel(keras.Model):
    """As `keras.Model(inputs, outputs)`, for any strategy; compile with `jit_compile=False`.

    A step's logs are this replica's running means; those of an epoch and of `evaluate` are exact
    over all replicas. If replicas have separate batch statistics, these are averaged before they
    are used or saved, so that the evaluated model is the saved one.
    """

    _average: Any = None

    def average_statistics(self) -> None:
        """Averages the moving statistics of all replicas; collective: every worker must call it."""
        own = [
            variable
            for layer in self._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
            for variable in layer.non_trainable_variables
        ]
        strategy = self.distribute_strategy
        if not own or strategy.num_replicas_in_sync == 1:
            return

        def on_each():
            context = tf.distribute.get_replica_context()
            means = context.all_reduce("mean", [tf.identity(variable.value) for variable in own])
            for variable, mean in zip(own, means, strict=True):
                variable.assign(mean)

        if self._average is None:
            self._average = tf.function(lambda: strategy.run(on_each), autograph=False)
        self._average()

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        """As Keras's, with the mean of the replicas' moving statistics."""
        self.average_statistics()
        return super().evaluate(*arguments, **options)

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
            _keep_freed_memory()
            for batch in batches:
                logs = compiled(batch)
            return logs

        return function


def answers(model: keras.Model, batches: tf.data.Dataset) -> Iterator[tuple[Any, Any]]:
    """Yields the labels of each batch and a model's outputs for it, as arrays.

    Where several replicas share a batch, the order of its examples may change, but labels and
    outputs belong together. Collective: every worker must call it.
    """
    strategy = model.distribute_strategy

    def on_each(batch):
        images, labels = batch
        return labels, model(images, training=False)

    compiled = tf.function(
        lambda batch: strategy.run(on_each, args=(batch,)), autograph=False, reduce_retracing=True
    )
    if hasattr(model, "average_statistics"):
        model.average_statistics()
    for batch in strategy.experimental_distribute_dataset(batches):
        yield tuple(strategy.gather(part, axis=0).numpy() for part in compiled(batch))


def _keep_freed_memory() -> None:
    """Makes the C library keep the memory that a step frees, for the next step.

    On Python 3.11 and newer the iterator of a distributed dataset makes TensorFlow tell glibc to
    request each block above 128 kB from the system (`ApplyPython311MemoryPatch`). A CPU then
    spends as much time on page faults as on the step itself. Only Linux has this call.
    """
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "mallopt"):
            allocator.mallopt(M_MMAP_THRESHOLD, LARGE)
            allocator.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _symbolic(spec: Any) -> keras.KerasTensor:
    """Returns a symbolic tensor like the one that the first replica receives."""
    spec = getattr(spec, "_value_specs", (spec,))[0]
    return keras.KerasTensor((1, *spec.shape[1:]), spec.dtype.name)
