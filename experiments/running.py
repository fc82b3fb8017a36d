"""A single run: makes data, network and strategy from an experiment, then trains and evaluates."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.data import Dataset
from low_rank_local_connectivity.data.dataset import steps_per_epoch
from low_rank_local_connectivity.data.unreadable import refuse_unreadable
from low_rank_local_connectivity.experiments.backend import (
    backend_name,
    load_framework,
    pipeline_for,
)
from low_rank_local_connectivity.experiments.experiment import PLACES, WATCHING, Experiment
from low_rank_local_connectivity.experiments.finishing import (
    complete,
    first_batch,
    first_names,
    lacking_evaluation,
    leave_behind,
)
from low_rank_local_connectivity.experiments.flags import as_flags
from low_rank_local_connectivity.experiments.folder import (
    check_folder,
    differences,
    read_config,
    refusal_of_other_flags,
)
from low_rank_local_connectivity.experiments.memory import check_memory
from low_rank_local_connectivity.experiments.trained import write_inputs
from low_rank_local_connectivity.experiments.warm_start import begin
from low_rank_local_connectivity.experiments.watching import watching

if TYPE_CHECKING:
    from low_rank_local_connectivity.training import Frozen, Placement, Recovery

# Steps after which the statistics' initial values, of which each keeps nine tenths, have a weight
# of 0.5 %. With 180 digits and 16 filters, 20 steps reach 0.55 in training and 0.40 in test, and 50
# reach 0.75 and 0.66.
FEW_STEPS = 50


def run(
    experiment: Experiment,
    unfinished: dict[str, Any] | None = None,
    allow_other_flags: bool = False,
) -> dict[str, Any]:
    """Trains, evaluates, draws and exports.

    Args:
        experiment: A run whose folder `check_folder` has accepted.
        unfinished: The result of a trained run of which something after training failed, to be
            tried again; None otherwise.
        allow_other_flags: Whether the run in the folder may have been started with other flags.

    Returns:
        The result, as written to `result.json`.

    Raises:
        RunError: If another process is using the folder, its saved state cannot be used, or the
            loss or a weight stops being finite.
        StoppedError: If a signal asked it to stop.
    """
    load_framework(experiment.virtual_devices)
    from low_rank_local_connectivity import training

    # Before anything else, as a strategy over several machines must be made first.
    facts = shared_by_workers(experiment, unfinished)
    placement = training.place(experiment.strategy, experiment.tpu, experiment.peers_timeout, facts)
    placement.check_batch_size(experiment.batch_size)
    if placement.strategy is not None and placement.replicas > 1:
        check_replicas(experiment)
    if not placement.chief:
        return saved_of(unfinished) or run_placed(experiment, placement)
    folder = Path(experiment.model_dir)
    with training.claimed(folder / ".lock", not experiment.no_lock) as lock:
        if lock is None:
            raise training.RunError(
                "--model_dir must be trained by one process at a time. Received: "
                f"--model_dir={folder}, which another process is training. Wait for it, or choose "
                "another."
            )
        result = checked_again(experiment, allow_other_flags)
        if result is not None and "failed" not in result:
            return result
        training.remove_unfinished(folder)
        saved = saved_of(result)
        if saved is None:
            return run_placed(experiment, placement)
        training.set_precision(experiment.precision)
        model = training.load(folder / "model.keras", saved["model_sha256"])
        images, _ = first_batch(experiment, "test", experiment.batch_size)
        return complete(experiment, model, images, saved)


def checked_again(experiment: Experiment, allow_other_flags: bool) -> dict[str, Any] | None:
    """Returns the result of a run whose folder is now locked, if there is one.

    Another process may have trained there since the folder was checked.

    Raises:
        RunError: If it belongs to another run now.
    """
    from low_rank_local_connectivity import training

    try:
        return lacking_evaluation(experiment, check_folder(experiment, allow_other_flags))
    except ValueError as error:
        raise training.RunError(str(error)) from None


def saved_of(unfinished: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the result of a trained run whose model is saved, so that no checkpoint is needed."""
    return None if unfinished is None or "model" in unfinished["failed"] else unfinished


def shared_by_workers(experiment: Experiment, unfinished: dict[str, Any] | None) -> dict[str, Any]:
    """Returns what all workers of a job must have alike: flags, versions, and what the folder has.

    Args:
        experiment: The run.
        unfinished: The result of a trained run of which something is missing; None otherwise.
    """
    from low_rank_local_connectivity import training

    flags = {f"--{name}": value for name, value in experiment.config().items()}
    places = {f"--{name}" for name in (*PLACES, *WATCHING, "no_lock")}
    found = {name: value for name, value in flags.items() if name not in places}
    versions = {f"the version of {name}": one for name, one in training.versions().items()}
    checkpoints = Path(experiment.model_dir) / "checkpoints"
    names = sorted(path.name for path in checkpoints.glob("step_*.npz"))
    state = {
        "what --model_dir has": ", ".join(names) or "no checkpoint",
        "what is missing after training": sorted((unfinished or {}).get("failed", ())),
    }
    return {**found, **versions, **state}


def check_replicas(experiment: Experiment) -> None:
    """Raises a `RunError` if the replicas that were found cannot train with these settings."""
    from low_rank_local_connectivity import training

    try:
        experiment.check_replicas()
    except ValueError as error:
        raise training.RunError(str(error)) from None


def run_placed(experiment: Experiment, placement: "Placement") -> dict[str, Any]:
    """Trains, evaluates, draws and exports; only the chief of several processes writes."""
    from low_rank_local_connectivity import training

    batches = pipeline_for(experiment.data)
    check_memory(experiment)
    training.make_deterministic(experiment.seed, kernels=placement.name != "tpu")
    training.set_precision(experiment.precision)
    splits = splits_of(experiment)
    with placement.scope():
        model = placement.model(experiment.build())
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    tell_beginning(experiment, placement, splits, parameters)
    with placement.scope():
        loaded = begin(experiment, model, placement.chief)
    valid_batches, test_batches = (
        batches.evaluation_batches(
            experiment.data, splits[name], experiment.batch_size, experiment.seed
        )
        for name in ("valid", "test")
    )
    speed = training.Speed(experiment.batch_size)
    frozen = training.Frozen(loaded, experiment.freeze_epochs)
    recovery = train(experiment, placement, model, splits, valid_batches, speed, frozen)
    if placement.chief:
        check_trained_as_asked(experiment)
    shared = placement.batches(test_batches, experiment.batch_size, len(splits["test"]))
    answers = training.answers(model, shared) if experiment.evaluation else None
    result = {
        "valid_accuracy": recovery.rows[-1]["val_accuracy"],
        "test_accuracy": training.share_right(*answers)
        if answers
        else training.score(model, shared),
        "train_accuracy": recovery.rows[-1]["accuracy"],
        "parameters": parameters,
        "seconds": round(recovery.seconds, 1),
        "versions": training.versions(),
        **speed.told(),
        "peak_memory_bytes": training.peak_memory_bytes(),
    }
    if placement.chief:
        images, _ = next(iter(test_batches))
        result = leave_behind(experiment, model, images, result, answers)
    return result


def splits_of(experiment: Experiment) -> dict[str, Any]:
    """Returns the examples of each split by its name, after checking those for evaluation."""
    splits = experiment.data.load(experiment.data_dir, experiment.download)
    if experiment.train_examples:
        splits["train"] = splits["train"].subset(experiment.train_examples)
    unreadable_images = pipeline_for(experiment.data).unreadable_images
    refuse_unreadable((splits["valid"], splits["test"]), unreadable_images)
    return splits


def tell_beginning(
    experiment: Experiment, placement: "Placement", splits: dict[str, Any], parameters: int
) -> None:
    """Prints what is about to be trained, on which data and where."""
    dataset = experiment.data
    sizes = ", ".join(f"{len(splits[name]):,} {name}" for name in splits)
    shared = f" {placement.replicas} replicas." if placement.replicas > 1 else ""
    print(f"{dataset.name}: {sizes}. {experiment.layers_in_words}: ", end="")
    print(f"{parameters:,} trainable parameters.{shared} ", end="")
    print(f"Files in {Path(experiment.model_dir)}.", flush=True)
    if placement.chief:
        report_left_out(dataset, experiment.data_dir)
        hint_at_few_steps(experiment, steps_per_epoch(splits["train"], experiment.batch_size))


def hint_at_few_steps(experiment: Experiment, steps: int) -> None:
    """Prints that batch statistics cannot settle in a run of so few steps, unless it loads them."""
    if experiment.weights is None and steps * experiment.epochs < FEW_STEPS:
        epochs = math.ceil(FEW_STEPS / steps)
        print(
            f"This run takes {steps * experiment.epochs} steps, in which the moving statistics of "
            "batch normalisation do not settle: validation and test accuracy may stay below "
            f"training's. --epochs={epochs} takes {steps * epochs} steps; a smaller --batch_size "
            "takes more in each epoch.",
            flush=True,
        )


def train(
    experiment: Experiment,
    placement: "Placement",
    model: Any,
    splits: dict[str, Any],
    valid_batches: Any,
    speed: Any,
    frozen: "Frozen",
) -> "Recovery":
    """Trains a model from the state saved in its folder and returns the result so far.

    Args:
        experiment: The run.
        placement: Where it is trained.
        model: The network, with its initial weights.
        splits: The examples of each split by its name.
        valid_batches: Pairs of images and labels, to evaluate the model between epochs.
        speed: The `Speed` that measures its steps.
        frozen: The layers that do not learn at first.
    """
    from low_rank_local_connectivity import training

    folder, size, seed = Path(experiment.model_dir), experiment.batch_size, experiment.seed
    dataset, examples = experiment.data, splits["train"]
    batches = pipeline_for(dataset)
    steps = steps_per_epoch(examples, size)
    skipped = folder / "skipped.txt" if placement.chief else None

    def batches_left(start: int):
        # Only now is it certain that this run can continue the state in the folder.
        if placement.chief:
            (folder / "result.json").unlink(missing_ok=True)  # of fewer epochs
            training.write_json(folder / "config.json", experiment.config())
            write_inputs(folder, experiment.data)
            write_flags(experiment)
        return batches.training_batches(
            dataset, examples, size, experiment.epochs, seed, start, skipped
        )

    recovery = training.Recovery(
        folder,
        steps,
        experiment.checkpoint_steps,
        experiment.checkpoint_minutes,
        experiment.keep_checkpoints,
        placement,
    )
    shared = placement.batches(valid_batches, size, len(splits["valid"]))
    training.train(
        model,
        experiment.recipe(steps),
        batches_left,
        shared,
        recovery,
        placement,
        before=[speed],
        callbacks=watching(experiment, recovery) if placement.chief else (),
        frozen=frozen,
    )
    return recovery


def write_flags(experiment: Experiment) -> None:
    """Writes the flags that repeat a run with `--flagfile`, its backend as a comment.

    Its folder is left out, so that the repetition can be given its own.
    """
    from low_rank_local_connectivity.training.records import replacing

    flags = [flag for flag in as_flags(experiment) if not flag.startswith("--model_dir=")]
    lines = [f"# KERAS_BACKEND={backend_name()}", "--every_flag_given", *flags]
    with replacing(Path(experiment.model_dir) / "run.flags") as temporary:
        text = "".join(f"{line}\n" for line in lines)
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def check_trained_as_asked(experiment: Experiment) -> None:
    """Raises a `RunError` if a run had ended before these flags could have an effect."""
    from low_rank_local_connectivity import training

    folder = Path(experiment.model_dir)
    if different := differences(read_config(folder / "config.json"), experiment.config()):
        raise training.RunError(refusal_of_other_flags(folder, different))


def report_left_out(dataset: Dataset, data_dir: str | None) -> None:
    """Prints how many files in a dataset's folder are not examples, and the first of them."""
    names = dataset.left_out(data_dir) if dataset.left_out else []
    if names:
        print(f"Ignored in --data_dir, by format or place: {len(names):,} files: ", end="")
        print(first_names(names), flush=True)
