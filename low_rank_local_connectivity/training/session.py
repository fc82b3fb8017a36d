"""Training and scoring one model."""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras

from low_rank_local_connectivity.training.records import replacing
from low_rank_local_connectivity.training.recovery import Recovery
from low_rank_local_connectivity.training.schedule import warmup_cosine


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Args:
        epochs: Passes over the training examples.
        steps_per_epoch: Steps in a pass.
        peak_learning_rate: The highest learning rate of Adam.
        warmup_epochs: Epochs over which the rate rises to it.
    """

    epochs: int
    steps_per_epoch: int
    peak_learning_rate: float
    warmup_epochs: int


def make_deterministic(seed: int) -> None:
    """Seeds everything random and asks for kernels that give the same bits in every run."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        torch = importlib.import_module("torch")  # type checkers need not find it
        torch.use_deterministic_algorithms(True, warn_only=True)


def choose_jit_compile() -> bool | str:
    """Returns whether to compile with XLA, by what measures faster on the device.

    On a CPU TensorFlow's own kernels beat XLA's convolutions by a third; elsewhere Keras's own
    choice stands.
    """
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def compile_model(model: keras.Model, plan: Plan) -> None:
    """Prepares a model that gives logits for training with Adam."""
    total, warmup = (n * plan.steps_per_epoch for n in (plan.epochs, plan.warmup_epochs))
    model.compile(
        optimizer=keras.optimizers.Adam(warmup_cosine(plan.peak_learning_rate, total, warmup)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
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
        plan: How long and how fast.
        training_batches: Function of the number of epochs behind to all batches that are left.
        validation_batches: Batches to score after every epoch.
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
    """Saves a model as a `.keras` file, replacing it in one step."""
    with replacing(path) as temporary:
        model.save(temporary)
