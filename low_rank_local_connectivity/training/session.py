"""Training and scoring one model."""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import keras

from low_rank_local_connectivity.training.records import replacing
from low_rank_local_connectivity.training.recovery import Recovery
from low_rank_local_connectivity.training.schedule import warmup_then


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long, how fast and by which rule to train.

    Args:
        epochs: Passes over the training examples.
        steps_per_epoch: Steps in a pass.
        peak_learning_rate: The highest learning rate.
        warmup_epochs: Epochs over which the rate rises to it.
        schedule: How the rate falls afterwards; see `warmup_then`.
        optimizer: `"adam"`, or `"sgd"`: stochastic gradient descent with Nesterov's momentum.
        momentum: Momentum of `"sgd"`, from 0 to below 1.
        label_smoothing: Share of the target probability that is spread evenly over all classes,
            from 0 to below 1.
        validation_every: Epochs from one validation score to the next; the last epoch always
            has one.
    """

    epochs: int
    steps_per_epoch: int
    peak_learning_rate: float
    warmup_epochs: int
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.9
    label_smoothing: float = 0.0
    validation_every: int = 1

    def validated_epochs(self) -> list[int]:
        """Returns the epochs, counted from 1, after which the model is scored."""
        return [
            epoch
            for epoch in range(1, self.epochs + 1)
            if epoch % self.validation_every == 0 or epoch == self.epochs
        ]


def make_deterministic(seed: int) -> None:
    """Seeds everything random and asks for kernels that give the same bits in every run."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        torch = importlib.import_module("torch")  # type checkers need not find it
        torch.use_deterministic_algorithms(True, warn_only=True)


def set_precision(policy: str) -> None:
    """Lets layers made from now on compute in a precision of Keras's dtype policies."""
    keras.config.set_dtype_policy(policy)


def choose_jit_compile() -> bool | str:
    """Returns whether to compile with XLA, by what measures faster on the device.

    On a CPU TensorFlow's own kernels beat XLA's convolutions by a third; elsewhere Keras's own
    choice stands.
    """
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def smoothed_crossentropy(label_smoothing: float) -> Callable:
    """Returns the cross-entropy of logits against integer labels, a mean over the batch.

    The target of a class is `1 - s + s / classes` if it is the label and `s / classes` if not,
    with `s = label_smoothing`. With `s = 0` it is Keras's sparse cross-entropy.

    Args:
        label_smoothing: From 0 to below 1.

    Returns:
        A loss for `compile`.
    """
    if not label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(labels, logits):
        flat = keras.ops.reshape(labels, (-1,))
        targets = keras.ops.one_hot(flat, logits.shape[-1], dtype=logits.dtype)
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=label_smoothing
        )

    return loss


def make_optimizer(plan: Plan) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a plan, with its learning rate over the whole run."""
    total, warmup = (n * plan.steps_per_epoch for n in (plan.epochs, plan.warmup_epochs))
    rate = warmup_then(plan.schedule, plan.peak_learning_rate, total, warmup)
    if plan.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=plan.momentum, nesterov=plan.momentum > 0)
    return keras.optimizers.Adam(rate)


def compile_model(model: keras.Model, plan: Plan) -> None:
    """Prepares a model that gives logits for training."""
    model.compile(
        optimizer=make_optimizer(plan),
        loss=smoothed_crossentropy(plan.label_smoothing),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=choose_jit_compile(),
    )


def train(
    model: keras.Model,
    plan: Plan,
    training_batches: Callable[[int], Iterable],
    validation_batches: Iterable,
    folder: Path,
) -> Recovery:
    """Trains a model to the end of its plan, from where the run in the folder stopped.

    Args:
        model: Model from images to logits.
        plan: How long, how fast and by which rule.
        training_batches: Function of the number of epochs behind to all batches that are left.
        validation_batches: Batches to score after the epochs that the plan names.
        folder: The run's folder; gets `checkpoints/`, `metrics.csv` and `tensorboard/`.

    Returns:
        The run's recovery, which holds each epoch's metrics and the seconds taken.

    Raises:
        ValueError: If the folder holds the state of another model.
        RuntimeError: If the loss stops being a finite number.
    """
    compile_model(model, plan)
    recovery = Recovery(folder)
    start = recovery.restore(model)
    if start == plan.epochs:
        return recovery
    if start:
        print(f"Continuing after epoch {start} of {plan.epochs}.", flush=True)  # noqa: T201
    model.fit(
        training_batches(start),
        epochs=plan.epochs,
        initial_epoch=start,
        steps_per_epoch=plan.steps_per_epoch,
        shuffle=False,  # the batches come shuffled
        validation_data=validation_batches,
        validation_freq=plan.validated_epochs(),
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            recovery,
            keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    if len(recovery.rows) < plan.epochs:
        raise RuntimeError(
            f"The loss must stay finite. Received: NaN in epoch {len(recovery.rows) + 1}. Lower "
            "the peak learning rate and train in another folder."
        )
    return recovery


def score(model: keras.Model, batches: Iterable) -> float:
    """Returns the accuracy over every example of the batches, in [0, 1]."""
    results: Any = model.evaluate(batches, verbose=0, return_dict=True)
    return float(results["accuracy"])


def save(model: keras.Model, path: Path) -> None:
    """Saves a functional model as a `.keras` file, replacing it in one step.

    The optimizer stays behind: what continues a run is its checkpoint, and the model then loads
    wherever the package can be imported.
    """
    bare = keras.Model(model.input, model.output, name=model.name)
    with replacing(path) as temporary:
        bare.save(temporary)
