"""Where training runs: on one device, all devices of a machine, several machines or a TPU.

The engines are `tf.distribute` on TensorFlow and `keras.distribution` on JAX. A strategy is made
once, before any model; batches are global, and each replica gets a part of each.
"""

import contextlib
import dataclasses
import faulthandler
import functools
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.training import replicas
from low_rank_local_connectivity.training.cluster import cluster_here, meet
from low_rank_local_connectivity.training.endings import RunError

# Seconds that a worker waits for the others to start.
PEERS_TIMEOUT = 300


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices that compute a run's steps.

    Args:
        name: One of `STRATEGIES`, or `"data_parallel"` under JAX.
        replicas: Copies of the model that share each batch.
        workers: Processes of the job.
        chief: Whether this process writes the run's files.
        strategy: TensorFlow's strategy; None for one device, and on other backends.
    """

    name: str
    replicas: int = 1
    workers: int = 1
    chief: bool = True
    strategy: Any = None

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """A context in which models are built and compiled."""
        if self.strategy is None:
            yield
            return
        with self.strategy.scope():
            yield

    def model(self, model: keras.Model) -> keras.Model:
        """Returns a model of the same layers that this placement can train; call within `scope`."""
        if self.strategy is None:
            return model
        from low_rank_local_connectivity.training.replicated_model import ReplicatedModel

        return ReplicatedModel(model.input, model.output, name=model.name)

    def batches(self, batches: Any, batch_size: int, count: int) -> Any:
        """Returns evaluation batches that the replicas can share, with every example counted once.

        JAX only splits batches evenly, so there the last one is filled up with examples of weight
        0.

        Args:
            batches: Pairs of images and labels; the last batch may be smaller.
            batch_size: Examples in each of the others.
            count: Total number of examples.
        """
        if self.name != "data_parallel":
            return batches
        return padded(batches, batch_size, count)

    def in_any_worker(self, *here: bool) -> list[bool]:
        """Returns for each statement whether it holds in any worker.

        Collective: every worker must call it.
        """
        if self.workers == 1:
            return list(here)
        return [count > 0 for count in _summing(self.strategy)(here).numpy()]

    @property
    def separate(self) -> bool:
        """Whether the replicas have variables of their own, as under TensorFlow's strategies."""
        return self.strategy is not None and self.replicas > 1

    def own_values(self, variables: Sequence[Any]) -> list[np.ndarray]:
        """Returns each variable's values on all replicas, of shape `(replicas, *shape)`.

        Nothing is returned if there is one replica, or replicas have nothing of their own.
        Collective: every worker must call it.
        """
        return replicas.own_values(variables, self.strategy) if self.separate else []

    def set_own_values(self, variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
        """Gives every replica the values that `own_values` returned."""
        replicas.set_own_values(variables, values, self.strategy)

    def add_own_values(self, variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
        """Adds values to variables: those of `own_values`, or if it returns none, plain ones."""
        if self.separate:
            replicas.add_own_values(variables, values, self.strategy)
            return
        for variable, array in zip(variables, values, strict=True):
            variable.assign(variable + array)

    def check_same(self, step: int, digest: int) -> None:
        """Checks that all workers continue from the same state; collective.

        Args:
            step: The number of steps done.
            digest: A number from 0 to below 2**32 that depends on the whole state.

        Raises:
            RunError: If they do not.
        """
        if self.workers == 1:
            return
        here = np.array([step, digest], "int64")
        everywhere = replicas.from_every_replica(here, self.strategy)
        if (everywhere != here).any():
            steps = ", ".join(str(row[0]) for row in everywhere)
            raise RunError(
                "All workers of a job must read the same checkpoint. Received: states after the "
                f"steps {steps}. Give them a folder that they share."
            )

    def check_batch_size(self, batch_size: int) -> None:
        """Raises a `RunError` if the replicas cannot share batches evenly."""
        if batch_size % self.replicas:
            raise RunError(
                f"`batch_size` must be a multiple of the {self.replicas} replicas. Received: "
                f"batch_size={batch_size}. Choose "
                f"{batch_size - batch_size % self.replicas + self.replicas}, for instance."
            )


@functools.cache
def _summing(strategy: Any) -> Any:
    """Returns a function of a vector of numbers that sums it over all replicas."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)], autograph=False)
    def total(vector):
        def on_each(own):
            return tf.distribute.get_replica_context().all_reduce("sum", tf.identity(own))

        return strategy.experimental_local_results(strategy.run(on_each, args=(vector,)))[0]

    return lambda numbers: total(tf.constant(numbers, tf.float32))


def padded(batches: Any, batch_size: int, count: int) -> Any:
    """Returns batches of images, labels and weights, the last filled up with zeros of weight 0.

    Keras divides a loss by the number of all examples, including those of weight 0; the weights of
    the others compensate for that.

    Args:
        batches: Pairs of images and labels, of tf.data or grain.
        batch_size: Examples in each but the last.
        count: Total number of examples.
    """
    weight = -(-count // batch_size) * batch_size / count
    if hasattr(batches, "element_spec"):
        return batches.map(_filling_tensors(batch_size, weight))

    def fill(pair):
        images, labels = pair
        missing = batch_size - len(labels)
        weights = np.repeat(np.array([weight, 0], "float32"), [len(labels), missing])
        return *(_grown(array, missing) for array in (images, labels)), weights

    return batches.map(fill)


def _grown(array: np.ndarray, missing: int) -> np.ndarray:
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))


def _filling_tensors(batch_size: int, weight: float) -> Callable:
    import tensorflow as tf

    def fill(images, labels):
        given = tf.shape(labels)[0]
        missing = batch_size - given
        weights = tf.concat([tf.fill([given], weight), tf.zeros([missing])], 0)

        def grow(tensor):
            grown = tf.pad(tensor, [[0, missing]] + [[0, 0]] * (len(tensor.shape) - 1))
            return tf.ensure_shape(grown, [batch_size, *tensor.shape[1:]])

        return grow(images), grow(labels), tf.ensure_shape(weights, [batch_size])

    return fill


ONE_DEVICE = Placement("one_device")


def place(
    name: str,
    tpu: str | None = None,
    timeout: float = PEERS_TIMEOUT,
    facts: Mapping[str, Any] | None = None,
) -> Placement:
    """Sets up where training runs.

    Args:
        name: One of `STRATEGIES`, or `"auto"`, which takes the TPU if one is named, all workers if
            `TF_CONFIG` lists some, all GPUs if there are several, and one device otherwise; on JAX
            every available device.
        tpu: Name or address of a TPU, as `TPUClusterResolver` takes it; `"local"` on a TPU's own
            machine.
        timeout: Seconds to wait for the other workers.
        facts: What all workers must have alike, by its name in sentences; values are for JSON.

    Returns:
        The placement.

    Raises:
        RunError: If the backend or the environment lacks what is requested, or a worker is missing,
            is there twice, or has other facts.
    """
    if name not in ("auto", *STRATEGIES):
        raise RunError(
            f"`name` must be one of {', '.join(('auto', *STRATEGIES))}. Received: name={name!r}. "
            "Choose one."
        )
    backend = keras.backend.backend()
    if backend == "jax":
        return _place_jax(name)
    if backend != "tensorflow":
        _require_plain(name, backend)
        return ONE_DEVICE
    name = _choose(tpu) if name == "auto" else name
    return STRATEGIES[name](tpu, timeout, facts or {})


def _require_plain(name: str, backend: str) -> None:
    if name not in ("auto", "one_device"):
        raise RunError(
            f"strategy={name} needs TensorFlow. Received: KERAS_BACKEND={backend}. Take "
            "strategy=auto, or KERAS_BACKEND=tensorflow."
        )


def _choose(tpu: str | None) -> str:
    import tensorflow as tf

    if tpu is not None:
        return "tpu"
    if (cluster := cluster_here()) and len(cluster.addresses) > 1:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"


def _place_jax(name: str) -> Placement:
    import jax

    _require_plain(name, "jax")
    count = len(jax.devices())
    if name == "one_device" or count == 1:
        return ONE_DEVICE
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    return Placement("data_parallel", replicas=count, chief=jax.process_index() == 0)


def _mirrored() -> Placement:
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    return Placement("mirrored", strategy.num_replicas_in_sync, strategy=strategy)


def _multi_worker(timeout: float, facts: Mapping[str, Any]) -> Placement:
    cluster = cluster_here()
    if cluster is None:
        raise RunError(
            "strategy=multi_worker needs the addresses of all workers in TF_CONFIG. Received: "
            "TF_CONFIG without them. See docs/scaling.md for an example."
        )
    count = len(cluster.addresses)
    if count > 1:
        meet(cluster, facts, timeout)
    strategy = _made_by_all(timeout)
    return Placement(
        "multi_worker",
        strategy.num_replicas_in_sync,
        count,
        chief=cluster.index == 0,
        strategy=strategy,
    )


def _made_by_all(timeout: float) -> Any:
    """Returns TensorFlow's strategy, which all workers must make at the same time."""
    import tensorflow as tf

    before = signal.getsignal(signal.SIGTERM)
    try:
        with _ending_after(max(timeout, PEERS_TIMEOUT)):
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise RunError(
            "TensorFlow must be able to connect the workers of a job. Received: "
            f"{(error.message or str(error)).splitlines()[0]} Start all of them again."
        ) from error
    # TensorFlow would take the signal from whoever sends it, and go on.
    signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
    return strategy


def lost_peer(error: BaseException) -> str | None:
    """Returns a sentence if an error is due to the loss of another process of the job."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    if not isinstance(error, gone) or not os.environ.get("TF_CONFIG"):
        return None
    return (
        "All workers of a job must run until it ends. Received: "
        f"{type(error).__name__} from another one. Start all of them again with the same command; "
        "they go on from the last checkpoint."
    )


@contextlib.contextmanager
def _ending_after(seconds: float) -> Iterator[None]:
    """Ends the process if the body takes longer than the time allowed.

    Making the strategy waits indefinitely for a worker that has ended since all of them met, while
    holding the interpreter's lock, so only a thread that does not need the lock can end it: that of
    `faulthandler`, which writes a traceback.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _tpu_of(tpu: str | None) -> Placement:
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="" if tpu is None else tpu)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    strategy = tf.distribute.TPUStrategy(resolver)
    return Placement("tpu", strategy.num_replicas_in_sync, strategy=strategy)


# What makes each, of a TPU's name, the seconds to wait for other workers and what these must have
# alike. The command's field `strategy` lists the names too: it is checked before TensorFlow is
# loaded.
STRATEGIES: dict[str, Callable[[str | None, float, Mapping[str, Any]], Placement]] = {
    "one_device": lambda _tpu, _timeout, _facts: ONE_DEVICE,
    "mirrored": lambda _tpu, _timeout, _facts: _mirrored(),
    "multi_worker": lambda _tpu, timeout, facts: _multi_worker(timeout, facts),
    "tpu": lambda tpu, _timeout, _facts: _tpu_of(tpu),
}
