"""Training and evaluating one model."""

import contextlib
import dataclasses
import hashlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from low_rank_local_connectivity.keras_settings import DEFAULTS, change_settings
from low_rank_local_connectivity.training.endings import RunError
from low_rank_local_connectivity.training.event_log import EventLog
from low_rank_local_connectivity.training.freezing import NOTHING, Frozen
from low_rank_local_connectivity.training.records import replacing
from low_rank_local_connectivity.training.recovery import Recovery, heeding_signals
from low_rank_local_connectivity.training.schedule import warmup_then
from low_rank_local_connectivity.training.strategy import ONE_DEVICE, Placement

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "lion": keras.optimizers.Lion,
}
# Optimizers that decay weights themselves, and the weights that they decay: the same that a
# network's penalty is of.
DECOUPLED = ("adamw", "lion")
KERNELS = ("kernel", "kernel_bases")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train: for how long, at which learning rate and with which optimizer.

    Args:
        epochs: Passes over the training examples.
        steps_per_epoch: Steps in a pass.
        peak_learning_rate: The highest learning rate.
        warmup_epochs: Epochs over which the rate rises to it.
        schedule: How the rate falls afterwards; see `warmup_then`.
        optimizer: `"adam"`; `"adamw"` or `"lion"`, whose weight decay is decoupled from the
            gradients; or `"sgd"`: stochastic gradient descent with Nesterov's momentum.
        momentum: Momentum of `"sgd"`, from 0 to below 1.
        label_smoothing: Fraction of the target probability that is spread evenly over all
            classes, from 0 to below 1.
        validation_every: Epochs from one validation to the next; the last epoch always has one.
        weight_decay: Of `"adamw"` and `"lion"` alone: a step makes kernels smaller by the learning
            rate times this fraction. Other optimizers follow the model's own penalties.
        clipnorm: Largest Euclidean norm of each weight's gradient, or None.
        global_clipnorm: Largest norm of all gradients together, or None.
        clipvalue: Largest absolute value of a gradient's entries, or None. At most one of these
            three may be given.
        gradient_accumulation_steps: Steps whose gradients are averaged before weights change.
        use_ema: Whether the model is evaluated, and left at the end, with an exponential moving
            average of its trainable weights; training goes on from the weights themselves.
        ema_momentum: The share of the average that a step keeps, from 0 to below 1.
        soft_labels: Whether training labels are probabilities, one for each class, as mixed
            images have; those of validation remain integers.
    """

    epochs: int
    steps_per_epoch: int
    peak_learning_rate: float
    warmup_epochs: int
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    optimizer: Literal["adam", "adamw", "lion", "sgd"] = "adam"
    momentum: float = 0.9
    label_smoothing: float = 0.0
    validation_every: int = 1
    weight_decay: float = 0.0
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None
    gradient_accumulation_steps: int = 1
    use_ema: bool = False
    ema_momentum: float = 0.99
    soft_labels: bool = False

    def validated_epochs(self) -> list[int]:
        """Returns the epochs, counted from 1, after which the model is validated."""
        return [
            epoch
            for epoch in range(1, self.epochs + 1)
            if epoch % self.validation_every == 0 or epoch == self.epochs
        ]


def make_deterministic(seed: int, kernels: bool = True) -> None:
    """Seeds everything random and requests kernels that give the same bits in every run.

    Args:
        seed: The seed.
        kernels: Whether to request such kernels. A TPU has no others, and XLA would refuse max
            pooling, for which it has no deterministic gradient on GPUs.
    """
    keras.utils.set_random_seed(seed)
    if not kernels:
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        torch = importlib.import_module("torch")  # type checkers need not find it
        torch.use_deterministic_algorithms(True, warn_only=True)


def set_precision(policy: str) -> None:
    """Makes layers that are created from now on compute in a precision of Keras's dtype policies.

    Losses and metrics are in float32, and images channels-last, whatever `keras.json` says.
    """
    ignore_keras_json()
    keras.config.set_dtype_policy(policy)


def ignore_keras_json() -> None:
    """Restores Keras's own defaults of settings that a user's `keras.json` may have changed."""
    change_settings(DEFAULTS)


def choose_jit_compile(model: keras.Model, placement: Placement = ONE_DEVICE) -> bool | str:
    """Returns whether to compile a model with XLA, depending on what is faster on the device.

    On a CPU, TensorFlow's own kernels are a third faster than XLA's convolutions, and under a
    strategy a compiled step cannot reach the variables of other devices; a TPU compiles anyway.
    XLA refuses the gradient of max pooling where kernels must be deterministic.
    """
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    pooling = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D)
    if placement.strategy is not None or any(isinstance(x, pooling) for x in model.layers):
        return False
    return bool(tf.config.list_physical_devices("GPU"))


def smoothed_crossentropy(label_smoothing: float, soft_labels: bool = False) -> Callable:
    """Returns the cross-entropy of logits against labels, a mean over the batch.

    The target of a class is `p * (1 - s) + s / classes`, where `p` is its probability: 1 if it is
    an integer label and 0 if not; and `s = label_smoothing`. With `s = 0` and integer labels it is
    Keras's sparse cross-entropy.

    Args:
        label_smoothing: From 0 to below 1.
        soft_labels: Whether labels may also be probabilities, of shape `(batch, classes)`.

    Returns:
        A loss for `compile`.
    """
    if not label_smoothing and not soft_labels:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(labels, logits):
        return keras.losses.categorical_crossentropy(
            probabilities(labels, logits), logits, from_logits=True, label_smoothing=label_smoothing
        )

    return loss


def probabilities(labels: Any, logits: Any) -> Any:
    """Returns the probability of each class; labels are integers, or probabilities already."""
    if len(labels.shape) == 2 and labels.shape[-1] == logits.shape[-1]:
        return keras.ops.cast(labels, logits.dtype)
    # Keras hands labels to a loss as floats.
    flat = keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
    return keras.ops.one_hot(flat, logits.shape[-1], dtype=logits.dtype)


def accuracy(soft_labels: bool) -> keras.metrics.Metric:
    """Returns the share of examples whose label, or most probable class, has the highest logit."""
    if not soft_labels:
        return keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def right(labels, logits):
        return keras.metrics.categorical_accuracy(probabilities(labels, logits), logits)

    return keras.metrics.MeanMetricWrapper(right, name="accuracy")


def make_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a recipe, with its learning rate over the whole run."""
    total, warmup = (n * recipe.steps_per_epoch for n in (recipe.epochs, recipe.warmup_epochs))
    rate = warmup_then(recipe.schedule, recipe.peak_learning_rate, total, warmup)
    of_all: Any = {
        "clipnorm": recipe.clipnorm,
        "global_clipnorm": recipe.global_clipnorm,
        "clipvalue": recipe.clipvalue,
        "use_ema": recipe.use_ema,
        "ema_momentum": recipe.ema_momentum,
    }
    if recipe.gradient_accumulation_steps > 1:
        of_all["gradient_accumulation_steps"] = recipe.gradient_accumulation_steps
    if recipe.optimizer == "sgd":
        momentum = recipe.momentum
        return keras.optimizers.SGD(rate, momentum=momentum, nesterov=momentum > 0, **of_all)
    if recipe.optimizer in DECOUPLED:
        of_all["weight_decay"] = recipe.weight_decay
    return OPTIMIZERS[recipe.optimizer](rate, **of_all)


def not_decayed(model: keras.Model) -> list[Any]:
    """Returns the trainable weights that are not decayed: all but the kernels."""
    return [weight for weight in model.trainable_variables if weight.name not in KERNELS]


def compile_model(model: keras.Model, recipe: Recipe, placement: Placement = ONE_DEVICE) -> None:
    """Compiles a model that returns logits; to be called within the placement's scope."""
    optimizer = make_optimizer(recipe)
    if recipe.optimizer in DECOUPLED:
        optimizer.exclude_from_weight_decay(not_decayed(model))
    model.compile(
        optimizer=optimizer,
        loss=smoothed_crossentropy(recipe.label_smoothing, recipe.soft_labels),
        # Examples that only fill up a batch have weight 0.
        weighted_metrics=[accuracy(recipe.soft_labels)],
        jit_compile=choose_jit_compile(model, placement),
    )


def train(
    model: keras.Model,
    recipe: Recipe,
    training_batches: Callable[[int], Iterable],
    validation_batches: Iterable,
    recovery: Recovery,
    placement: Placement = ONE_DEVICE,
    before: Sequence[keras.callbacks.Callback] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    frozen: Frozen = NOTHING,
) -> Recovery:
    """Trains a model to the end of its recipe, continuing from the state saved in the folder.

    Args:
        model: Model from images to logits, built in the placement's scope by its `model`.
        recipe: How to train.
        training_batches: Function from the number of steps done to all remaining batches.
        validation_batches: Batches to evaluate after the epochs that the recipe names.
        recovery: Saves and restores the run, writing `checkpoints/`, `metrics.csv` and
            `tensorboard/` into its folder.
        placement: Where to train.
        before: What is called before metrics are recorded, such as `Speed`, which adds to them.
        callbacks: What is called after the run's state is saved.
        frozen: The layers that do not learn in the first epochs.

    Returns:
        `recovery`, with each epoch's metrics and the time taken in seconds.

    Raises:
        ValueError: If the saved state cannot be used.
        StoppedError: If a signal asked the run to stop; its state is saved.
        LostError: If the loss or a weight stops being a finite number.
    """
    with placement.scope():
        compile_model(model, recipe, placement)
        start = recovery.restore(model)
    steps, total = recipe.steps_per_epoch, recipe.epochs * recipe.steps_per_epoch
    if 0 < start < total:
        done, inside = divmod(start, steps)
        where = f"step {inside} of epoch {done + 1}" if inside else f"epoch {done}"
        print(f"Continuing after {where} of {recipe.epochs}.", flush=True)  # noqa: T201
    if start >= total:
        recovery.write_metrics()  # of which a kill after the last checkpoint leaves the end out
    # Before the others, so that they see the score of the averages beside the weights themselves.
    averages: list[keras.callbacks.Callback] = [Averages()] if recipe.use_ema else []
    own: list[keras.callbacks.Callback] = [*averages, *before, recovery]
    if placement.chief:
        own.append(event_log(recovery.metrics_path.parent / "tensorboard"))
    with heeding_signals(recovery), of_unknown_length():
        while start < total:
            # What is left of an epoch that was begun is an epoch of fewer steps.
            done, inside = divmod(start, steps)
            epochs = frozen.last_of_phase(done, done + 1 if inside else recipe.epochs)
            with frozen.during(model, done):
                model.fit(
                    training_batches(start),
                    epochs=epochs,
                    initial_epoch=done,
                    steps_per_epoch=steps - inside,
                    shuffle=False,  # the batches come shuffled
                    validation_data=validation_batches,
                    validation_freq=recipe.validated_epochs(),
                    callbacks=[*own, *callbacks],
                    verbose=0 if not placement.chief else 1 if sys.stdout.isatty() else 2,
                )
            start = epochs * steps
            if recipe.use_ema and start < total:
                recovery.restore(model)  # as the end of `fit` puts the averages in the model
    if recipe.use_ema:
        use_averages(model)
    return recovery


def use_averages(model: keras.Model) -> None:
    """Gives a model's trainable weights the values of their averages."""
    weights = model.trainable_variables
    model.optimizer.finalize_variable_values(weights)
    for weight in weights:
        # JAX's steps free the arrays that they are given, which must not be those of the averages.
        weight.assign(np.array(keras.ops.convert_to_numpy(weight)))


class Averages(keras.callbacks.Callback):
    """Has a model evaluated with the averages of its weights, between epochs of `fit`.

    As `keras.callbacks.SwapEMAWeights`, which on TensorFlow swaps by adding and subtracting, and
    so leaves other weights than it found: a run would depend on how often it is evaluated.
    """

    _own: list[np.ndarray]

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Puts the averages in the place of the weights."""
        del logs
        weights = self.model.trainable_variables
        self._own = [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]
        use_averages(self.model)

    def on_test_end(self, logs: dict | None = None) -> None:
        """Puts the weights back."""
        del logs
        for weight, own in zip(self.model.trainable_variables, self._own, strict=True):
            weight.assign(own)


@contextlib.contextmanager
def of_unknown_length() -> Iterator[None]:
    """Keeps Keras from taking the end of grain's data, whose length it does not ask for, as early.

    Such data is what JAX and PyTorch are trained on; TensorFlow's says how long it is.
    """
    with warnings.catch_warnings():
        if keras.backend.backend() != "tensorflow":
            warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        yield


def event_log(folder: Path) -> keras.callbacks.Callback:
    """Returns what writes learning curves for TensorBoard into a folder."""
    if keras.backend.backend() == "tensorflow":
        return keras.callbacks.TensorBoard(folder, write_graph=False)
    return EventLog(folder)


def score(model: keras.Model, batches: Iterable) -> float:
    """Returns the accuracy over every example of the batches, in [0, 1]."""
    with of_unknown_length():
        results: Any = model.evaluate(batches, verbose=0, return_dict=True)
    return float(results["accuracy"])


def answers(model: keras.Model, batches: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Returns the label of every example of the batches, and a model's output for it.

    Labels have shape `(examples,)` and outputs `(examples, classes)`, in the same order, which
    under a strategy need not be that of the batches. Examples of weight 0 are left out.
    Collective: every worker must call it.
    """
    if keras.backend.backend() == "tensorflow":
        from low_rank_local_connectivity.training import replicated_model

        given: Any = batches  # tf.data's
        pairs = [*replicated_model.answers(model, given)]
    else:
        pairs = [_answered(model, *batch) for batch in batches]
    labels, outputs = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return labels, outputs.astype("float32")


def _answered(
    model: keras.Model, images: Any, labels: Any, weights: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    labels, outputs = np.asarray(labels), np.asarray(model.predict_on_batch(images))
    counted = slice(None) if weights is None else np.asarray(weights) > 0
    return labels[counted], outputs[counted]


def share_right(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Returns the accuracy of outputs for labels, in [0, 1], in the precision of Keras's metric."""
    right = np.count_nonzero(outputs.argmax(-1) == labels)
    return float(np.float32(right) / np.float32(len(labels)))


def save(model: keras.Model, path: Path) -> None:
    """Saves a functional model as a `.keras` file, replacing it in one step.

    The optimizer is not saved: a run is continued from its checkpoint, and without the optimizer
    the model loads wherever the package can be imported.
    """
    bare = keras.Model(model.input, model.output, name=model.name)
    with replacing(path) as temporary:
        bare.save(temporary)


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: Path, digest: str) -> keras.Model:
    """Loads a `.keras` file after checking its digest; no code from it is run.

    Args:
        path: The file.
        digest: Its SHA-256, which `result.json` has under `model_sha256`.

    Returns:
        The model, not compiled.

    Raises:
        RunError: If it is another file, or would run code of its own.
    """
    found = file_digest(path)
    if found != digest:
        raise RunError(
            f"A model must be the file that was written. Received: {path} with SHA-256 "
            f"{found[:12]}... for {digest[:12]}..., so it is damaged or another. Train it again in "
            "another folder."
        )
    try:
        model: Any = keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError) as error:
        raise RunError(
            f"A model must be loadable without running code of its own. Received: {path}: "
            f"{str(error).splitlines()[0]} Replace such layers by registered ones."
        ) from error
    return model
