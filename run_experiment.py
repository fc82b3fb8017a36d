"""Trains one network on one dataset, and leaves behind its result, a picture and a servable model.

    python run_experiment.py --dataset=digits --spatial_rank=4

Everything is a flag; `--help` lists them. The flags become an `Experiment`, which is checked before
any framework is loaded. Running the same command again continues an unfinished run and prints the
result of a finished one.

    python run_experiment.py --dataset=digits --spatial_ranks=2,4,8 --num_seeds=3

A list of ranks or several seeds make a sweep: a process per run, a record per run in
`<model_dir>/records.jsonl`, and the rank chosen on the validation split at the end. The command
may be started again, and several times at once.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from absl import app, flags, logging

from data import DATASETS, Dataset
from experiments.backend import backend_name, check_backend
from experiments.experiment import EXPORT_FORMATS, PLACES, SAVING, Experiment
from experiments.folder import (
    check_folder,
    check_writable,
    differences,
    read_config,
    refusal_of_other_flags,
    write_result,
)
from experiments.memory import check_memory
from experiments.needs import check_flags_have_effect
from models import CONVOLUTIONS, MODELS

if TYPE_CHECKING:
    from low_rank_local_connectivity.training import Placement

FLAGS = flags.FLAGS

# Names that are printed of files that were left out.
SHOWN_NAMES = 10
# Validation images that exports in integers are calibrated on.
CALIBRATED_ON = 256
# Letters of what is told of a run in the name of its folder.
NAME_LENGTH = 48
# What a run leaves behind beside its result, and what is said of it until it is there.
LEFT = ("model", "picture", "export")
NOT_YET = "The run ended before."
INITIALIZERS = (
    "conv_init",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "random_normal",
    "random_uniform",
    "truncated_normal",
    "zeros",
)


class PathParser(flags.ArgumentParser):
    """Reads a path; a leading `~` is the home folder of its user."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        """Returns the path with its home folder spelled out.

        Raises:
            ValueError: If that cannot be told; absl makes a flag error of it.
        """
        if not argument.startswith("~"):
            return argument
        try:
            return str(Path(argument).expanduser())
        except RuntimeError:
            raise ValueError("there is no such home folder") from None


def define_path(name: str, help_text: str) -> None:
    """Defines a flag that takes a path."""
    flags.DEFINE(PathParser(), name, None, help_text, serializer=flags.ArgumentSerializer())


flags.DEFINE_enum("dataset", "digits", list(DATASETS), "Images to classify.")
define_path("data_dir", "Folder of prepared data. [tensorflow-datasets' own]")
flags.DEFINE_bool("download", False, "Whether data that is not there may be downloaded.")
flags.DEFINE_integer("train_examples", None, "Size of a fixed subset to train on. [all]")
flags.DEFINE_integer(
    "image_size", None, "Pixels per side, of datasets that have any: imagenet2012, folder. [224]"
)
flags.DEFINE_list(
    "augment",
    "none",
    "What training does to each image at random, in every epoch anew: crop takes 8 to 100 % of its "
    "area and resizes that, flip mirrors every second image; crop,flip does both; none leaves "
    "images as they are. Not for classes that depend on where something is, or on left and right.",
)
flags.DEFINE_float(
    "eval_crop",
    None,
    "Side of the central square that evaluation sees of each image of folder or imagenet2012, as a "
    "share of the shorter side; 0.875 is customary with --augment=crop. [the whole image]",
)
flags.DEFINE_bool("translate", False, "Whether images lie anywhere in a canvas of noise.")
flags.DEFINE_integer(
    "canvas_size", None, "Pixels per side of the canvas. [1.5 times the larger side of an image]"
)
flags.DEFINE_enum("network", "simple_network", list(MODELS), "Network to train.")
flags.DEFINE_list(
    "layer_types",
    "conv2d,conv2d,low_rank_locally_connected2d",
    f"Kind of each layer, first to last, conv2d where none is named: {', '.join(CONVOLUTIONS)}.",
)
flags.DEFINE_enum(
    "insert_layer", None, list(CONVOLUTIONS), "Kind of a layer added after a ResNet's first."
)
flags.DEFINE_list(
    "replace", "", "Stages of a ResNet whose 3x3 convolutions are replaced: conv2 to conv5, or all."
)
flags.DEFINE_enum(
    "replace_with",
    "low_rank_locally_connected2d",
    list(CONVOLUTIONS),
    "Kind of the layers that replace them.",
)
flags.DEFINE_integer("spatial_rank", 4, "Filter banks of a low-rank layer, or a width to match.")
flags.DEFINE_integer("kernel_size", 3, "Taps of each layer per axis.")
flags.DEFINE_integer("filters", 64, "Filters of each layer.")
flags.DEFINE_enum(
    "normalize_weights", "softmax", ["softmax", "norm", "none"], "How combining weights normalise."
)
flags.DEFINE_enum(
    "combining_weights_initializer", "conv_init", INITIALIZERS, "Initial combining weights."
)
flags.DEFINE_bool(
    "share_row_combining_weights", None, "Whether each row has logits. [unless input-dependent]"
)
flags.DEFINE_bool(
    "share_col_combining_weights", None, "Whether each column has logits. [unless input-dependent]"
)
flags.DEFINE_bool("input_dependent", False, "Whether combining weights depend on the input.")
flags.DEFINE_bool("use_spatial_bias", True, "Whether low-rank layers have a spatial bias.")
flags.DEFINE_enum(
    "locally_connected_fan",
    "position",
    ["position", "kernel"],
    "Fans of locally connected layers' initial values; the paper's were 'kernel'.",
)
flags.DEFINE_bool("coord_conv", False, "Whether the network's input gets coordinate channels.")
flags.DEFINE_integer("batch_size", 64, "Examples per step, over all devices.")
flags.DEFINE_integer("epochs", 30, "Passes over the training examples.")
flags.DEFINE_enum("optimizer", "adam", ["adam", "sgd"], "Adam, or SGD with Nesterov's momentum.")
flags.DEFINE_float("peak_learning_rate", 0.01, "Highest learning rate.")
flags.DEFINE_integer("warmup_epochs", None, "Epochs of rising learning rate. [a tenth of them]")
flags.DEFINE_enum(
    "schedule",
    "cosine",
    ["cosine", "steps", "constant"],
    "How the rate falls: to 0, to a tenth at 1/3, 2/3 and 8/9 of the way, or not.",
)
flags.DEFINE_float("momentum", 0.9, "Momentum of SGD.")
flags.DEFINE_float("weight_decay", 0.0, "L2 penalty: what of a kernel is added to its gradient.")
flags.DEFINE_float("label_smoothing", 0.0, "Share of the target spread over all classes.")
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "What layers compute in; weights are float32.",
)
flags.DEFINE_integer("validation_every", 1, "Epochs from one validation score to the next.")
flags.DEFINE_integer("seed", 0, "Seed of everything random; of a sweep, the first one.")
flags.DEFINE_integer("num_seeds", 1, "Seeds of a sweep: seed, seed + 1, and so on.")
flags.DEFINE_list("spatial_ranks", "", "Ranks of a sweep. [spatial_rank alone]")
flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "Where to train: auto takes what there is. Under JAX, auto is all devices.",
)
flags.DEFINE_string("tpu", None, "Name or address of a TPU; local on a TPU's own machine.")
flags.DEFINE_bool(
    "synchronized_batch_norm", False, "Whether replicas share batch statistics. [each its own]"
)
flags.DEFINE_float("peers_timeout", 300.0, "Seconds to wait for the other workers at the start.")
flags.DEFINE_integer(
    "virtual_devices", None, "Devices to make of the CPU, to try out a strategy. [one]"
)
flags.DEFINE_integer("checkpoint_steps", None, "Steps between checkpoints. [every epoch's end]")
flags.DEFINE_float("checkpoint_minutes", None, "Minutes between checkpoints. [no limit]")
flags.DEFINE_integer("keep_checkpoints", 2, "How many of the newest to keep, beside the best.")
flags.DEFINE_bool(
    "allow_other_flags", False, "Whether to continue a run that was begun with other flags."
)
define_path(
    "model_dir",
    "Folder of the run's files, or the sweep's. [runs/<dataset>-<network>-<seed or sweep>, and "
    "what of a run differs from the defaults]",
)
flags.DEFINE_bool(
    "every_flag_given",
    False,
    "Whether all flags are given, as a sweep gives them to its runs: then those that have no "
    "effect are let pass.",
)
flags.DEFINE_list(
    "export_formats", "tf_saved_model", f"Formats to export: {', '.join(EXPORT_FORMATS)}; or none."
)
flags.DEFINE_integer(
    "serving_batch_size",
    None,
    "Batch at which to measure whether the converted model is faster to serve. [1]",
)


def experiment_from_flags() -> Experiment:
    """Returns the experiment that the flags describe, defaults that depend on others filled in."""
    values: dict[str, Any] = {
        field.name: FLAGS[field.name].value for field in dataclasses.fields(Experiment)
    }
    network = MODELS[values["network"]]
    if not network.num_layers and FLAGS["layer_types"].using_default_value:
        values["layer_types"] = []
    if values["replace"] == ["all"]:
        values["replace"] = network.stages
    for name in ("layer_types", "replace", "export_formats", "augment"):
        values[name] = tuple(items_of_flag(name, values[name]))
    if values["normalize_weights"] == "none":
        values["normalize_weights"] = None
    last = "sweep" if is_sweep() else values["seed"]
    defaults = {
        "share_row_combining_weights": not values["input_dependent"],
        "share_col_combining_weights": not values["input_dependent"],
        "warmup_epochs": values["epochs"] // 10,
        "model_dir": f"runs/{values['dataset']}-{values['network']}-{last}{what_differs()}",
    }
    missing = {name: value for name, value in defaults.items() if values[name] is None}
    return Experiment(**{**values, **missing})


def items_of_flag(name: str, value: Any) -> Any:
    """Returns the items of a flag that is a list, without `none`; other values as they are.

    Augmentations have no order: each is applied once.
    """
    if not isinstance(value, list):
        return value
    items = [item.strip() for item in value if item.strip() not in ("", "none")]
    return sorted(set(items)) if name == "augment" else items


def what_differs() -> str:
    """Returns what tells a single run from one that has all defaults, to go into a folder's name.

    The flags that come first in words, and a digest of all; nothing if there is none. A sweep's
    runs have names of their own within its folder.
    """
    if is_sweep():
        return ""
    named = ("dataset", "network", "seed", *PLACES, *SAVING)
    fields = [field.name for field in dataclasses.fields(Experiment) if field.name not in named]
    values = {name: items_of_flag(name, FLAGS[name].value) for name in fields}
    usual = {name: items_of_flag(name, FLAGS[name].default) for name in fields}
    different = {name: value for name, value in values.items() if value != usual[name]}
    if DATASETS[FLAGS.dataset].complete is not None:
        different = {"data_dir": Path(FLAGS.data_dir or "").name, **different}
    if backend_name() != "tensorflow":
        different = {"backend": backend_name(), **different}
    if not different:
        return ""
    words = "-".join(f"{name}_{_in_a_name(value)}" for name, value in different.items())
    everything = json.dumps([different, FLAGS.data_dir], sort_keys=True)
    return f"-{words[:NAME_LENGTH]}-{hashlib.sha256(everything.encode()).hexdigest()[:6]}"


def _in_a_name(value: Any) -> str:
    """Returns a flag's value in letters that are safe in the name of a folder."""
    text = ",".join(value) if isinstance(value, list) else str(value)
    return "".join(letter if letter.isalnum() or letter in "._," else "_" for letter in text)


def is_sweep() -> bool:
    """Returns whether the flags ask for runs with records; one is enough, if asked for so."""
    return FLAGS["num_seeds"].present > 0 or bool(FLAGS.spatial_ranks)


def given_flags() -> dict[str, Any]:
    """Returns the values of the flags that somebody gave, on the command line or in a file."""
    names = [field.name for field in dataclasses.fields(Experiment)]
    names += ["spatial_ranks", "allow_other_flags"]
    return {name: FLAGS[name].value for name in names if FLAGS[name].present > 0}


def experiments_of_sweep(experiment: Experiment) -> list[Experiment]:
    """Returns the runs that the flags ask for, all ranks of a seed before the next seed.

    Args:
        experiment: What they have in common; its `model_dir` is the sweep's folder.

    Raises:
        ValueError: If the number of seeds or a rank is out of its range.
    """
    if FLAGS.num_seeds < 1:
        raise ValueError(f"--num_seeds must be at least 1. Received: {FLAGS.num_seeds}.")
    try:
        ranks = [int(rank) for rank in FLAGS.spatial_ranks] or [experiment.spatial_rank]
    except ValueError:
        given = ",".join(FLAGS.spatial_ranks)
        raise ValueError(f"--spatial_ranks takes integers. Received: {given}.") from None
    runs = []
    for seed in range(experiment.seed, experiment.seed + FLAGS.num_seeds):
        for rank in dict.fromkeys(ranks):
            run = dataclasses.replace(experiment, spatial_rank=rank, seed=seed)
            folder = str(Path(experiment.model_dir) / run_name(run))
            runs.append(dataclasses.replace(run, model_dir=folder))
    return runs


def run_name(experiment: Experiment) -> str:
    """Returns a name that no other run has: of the rank, the seed and a digest of the rest."""
    ours = experiment.recorded_config()
    rest = {key: ours[key] for key in ours if key not in ("seed", "spatial_rank")}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]
    return f"{experiment.dataset}-{digest}-rank{experiment.spatial_rank}-seed{experiment.seed}"


def command_line(experiment: Experiment) -> list[str]:
    """Returns the command that runs just this experiment."""
    command = [sys.executable, str(Path(__file__).resolve()), "--every_flag_given"]
    for name, value in dataclasses.asdict(experiment).items():
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no{name}")
        elif isinstance(value, tuple):
            command.append(f"--{name}={','.join(value) or 'none'}")
        elif value is not None:
            command.append(f"--{name}={value}")
        elif name == "normalize_weights":
            command.append(f"--{name}=none")
    return command


def run_sweep(experiment: Experiment) -> int:
    """Trains all runs of a sweep that nobody has trained or is training; returns an exit status."""
    runs = experiments_of_sweep(experiment)
    load_framework()
    from low_rank_local_connectivity.training import STOPPED_STATUS, StoppedError, sweep

    planned = [
        sweep.Run(run_name(run), run.recorded_config(), command_line(run), Path(run.model_dir))
        for run in runs
    ]
    try:
        records, failed, elsewhere = sweep.sweep(planned, Path(experiment.model_dir))
    except StoppedError as stopped:
        print(stopped, flush=True)
        return STOPPED_STATUS
    if records:
        print(f"\n{sweep.summary(records)}\n")
    if elsewhere:
        print(f"{len(elsewhere)} runs are being trained by other processes.")
    if failed:
        print(f"{len(failed)} runs failed: {', '.join(failed)}. The same command tries them again.")
    if len(records) == len(runs) and len({run.spatial_rank for run in runs}) > 1:
        print(f"Chosen on the validation split: rank {sweep.choose_rank(records)}.")
    return 1 if failed else 0


def summary(result: dict[str, Any], folder: str) -> str:
    """Returns a result in one line."""
    return (
        f"Result: test accuracy {result['test_accuracy']:.4f}, valid accuracy "
        f"{result['valid_accuracy']:.4f}, {result['parameters']:,} parameters, "
        f"{result['seconds']:.1f} s, in {folder}"
    )


def load_framework(virtual_devices: int | None = None) -> None:
    """Imports Keras and its backend, which tell of the machine on the way; errors are shown.

    Args:
        virtual_devices: How many devices to make of the CPU; one if None.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if virtual_devices is not None:
        known = os.environ.get("XLA_FLAGS", "")
        count = f"--xla_force_host_platform_device_count={virtual_devices}"
        os.environ["XLA_FLAGS"] = f"{known} {count}".strip()  # JAX reads it when it is imported
    with tempfile.TemporaryFile() as notes:
        standard_error = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            # Keras and its backend first: PyTorch's Triton ends the process if it is loaded after
            # TensorFlow, which the data pipeline needs on every backend.
            importlib.import_module("low_rank_local_connectivity")
            import tensorflow as tf

            if virtual_devices is not None:
                (cpu,) = tf.config.list_physical_devices("CPU")
                parts = [tf.config.LogicalDeviceConfiguration() for _ in range(virtual_devices)]
                tf.config.set_logical_device_configuration(cpu, parts)
            del tf
        except BaseException:
            notes.seek(0)
            os.write(standard_error, notes.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


def run(experiment: Experiment, unfinished: dict[str, Any] | None = None) -> dict[str, Any]:
    """Trains, scores, draws and exports.

    Args:
        experiment: A run whose folder `check_folder` has accepted.
        unfinished: The result of a trained run, of which something after training has failed and
            is tried again; None for another run.

    Returns:
        The result, as it stands in `result.json`.

    Raises:
        RunError: If another process is at it, what it left cannot be used, or the loss or a
            weight stops being finite.
        StoppedError: If a signal asked it to stop.
    """
    load_framework(experiment.virtual_devices)
    from low_rank_local_connectivity import training

    # Before anything else: a strategy over several machines wants to be first.
    placement = training.place(experiment.strategy, experiment.tpu, experiment.peers_timeout)
    placement.check_batch_size(experiment.batch_size)
    # Only what could not even be saved has to come from a checkpoint.
    saved = None if unfinished is None or "model" in unfinished["failed"] else unfinished
    if not placement.chief:
        return saved or run_placed(experiment, placement)
    folder = Path(experiment.model_dir)
    with training.claimed(folder / ".lock") as lock:
        if lock is None:
            raise training.RunError(
                "--model_dir must be trained by one process at a time. Received: "
                f"--model_dir={folder}, which another process is training. Wait for it, or choose "
                "another."
            )
        training.remove_unfinished(folder)
        if saved is None:
            return run_placed(experiment, placement)
        training.set_precision(experiment.precision)
        model = training.load(folder / "model.keras", saved["model_sha256"])
        images, _ = first_batch(experiment, "test", experiment.batch_size)
        return complete(experiment, model, images, saved)


def run_placed(experiment: Experiment, placement: "Placement") -> dict[str, Any]:
    """Trains, scores, draws and exports; only the chief of several processes writes."""
    from data.pipeline import evaluation_batches, steps_per_epoch, training_batches
    from data.unreadable import refuse_unreadable
    from low_rank_local_connectivity import training

    check_memory(experiment)
    training.make_deterministic(experiment.seed, kernels=placement.name != "tpu")
    training.set_precision(experiment.precision)
    dataset = experiment.data
    splits = dataset.load(experiment.data_dir, experiment.download)
    if experiment.train_examples:
        splits["train"] = splits["train"].subset(experiment.train_examples)
    refuse_unreadable((splits["valid"], splits["test"]))
    folder = Path(experiment.model_dir)
    with placement.scope():
        model = placement.model(experiment.build())
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    sizes = ", ".join(f"{len(splits[name]):,} {name}" for name in splits)
    shared = f" {placement.replicas} replicas." if placement.replicas > 1 else ""
    print(f"{dataset.name}: {sizes}. {experiment.layers_in_words}: ", end="")
    print(f"{parameters:,} trainable parameters.{shared} Files in {folder}.", flush=True)

    if placement.chief:
        report_left_out(dataset, experiment.data_dir)
    size, seed, epochs = experiment.batch_size, experiment.seed, experiment.epochs
    train, steps = splits["train"], steps_per_epoch(splits["train"], size)
    valid_batches, test_batches = (
        evaluation_batches(dataset, splits[name], size, seed) for name in ("valid", "test")
    )
    skipped = folder / "skipped.txt" if placement.chief else None

    def batches_left(start: int):
        # Only now is it certain that what lies in the folder can be continued by this run.
        if placement.chief:
            (folder / "result.json").unlink(missing_ok=True)  # of fewer epochs
            training.write_json(folder / "config.json", experiment.config())
        return training_batches(dataset, train, size, epochs, seed, start, skipped)

    recovery = training.Recovery(
        folder,
        steps,
        experiment.checkpoint_steps,
        experiment.checkpoint_minutes,
        experiment.keep_checkpoints,
        placement,
    )
    training.train(
        model,
        experiment.recipe(steps),
        batches_left,
        placement.batches(valid_batches, size, len(splits["valid"])),
        recovery,
        placement,
    )
    if placement.chief:
        check_trained_as_asked(experiment)
    result = {
        "valid_accuracy": recovery.rows[-1]["val_accuracy"],
        "test_accuracy": training.score(
            model, placement.batches(test_batches, size, len(splits["test"]))
        ),
        "train_accuracy": recovery.rows[-1]["accuracy"],
        "parameters": parameters,
        "seconds": round(recovery.seconds, 1),
        "versions": training.versions(),
    }
    if placement.chief:
        images, _ = next(iter(test_batches))
        result = leave_behind(experiment, model, images, result)
    return result


def check_trained_as_asked(experiment: Experiment) -> None:
    """Raises a `RunError` if a run was at its end before these flags could have had an effect."""
    from low_rank_local_connectivity import training

    folder = Path(experiment.model_dir)
    if different := differences(read_config(folder / "config.json"), experiment.config()):
        raise training.RunError(refusal_of_other_flags(folder, different))


def report_left_out(dataset: Dataset, data_dir: str | None) -> None:
    """Prints how many files in a dataset's folder are no examples, and the first of them."""
    names = dataset.left_out(data_dir) if dataset.left_out else []
    if names:
        print(f"Left out of --data_dir, by kind or place: {len(names):,} files: ", end="")
        print(first_names(names), flush=True)


def first_names(names: list[str]) -> str:
    """Returns the first of some names, and dots if there are more."""
    return ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")


def leave_behind(experiment: Experiment, model, images, result: dict[str, Any]) -> dict[str, Any]:
    """Writes the result, the trained model, its pictures and its exports.

    The result comes first, so that nothing that fails after the training costs it. What has not
    been done, and why, stands in it under `failed` until the same command has done it.

    Args:
        experiment: The run.
        model: The trained model.
        images: A few test images, to draw weights for that depend on the input.
        result: What is known of the result.

    Returns:
        The result.
    """
    from data.unreadable import skipped_images
    from low_rank_local_connectivity import training

    folder = Path(experiment.model_dir)
    path = folder / "model.keras"
    skipped = skipped_images(folder / "skipped.txt")
    result = {**result, "skipped_images": len(skipped), "failed": dict.fromkeys(LEFT, NOT_YET)}
    write_result(folder, result)
    if skipped:
        print(f"{len(skipped)} training images could not be read and were skipped: ", end="")
        print(first_names(skipped))
    plain = None
    with attempting("model", folder, result):
        training.save(model, path)
        # As a server will: without the strategy that trained it.
        plain = training.load(path, training.file_digest(path))
        result["model_sha256"] = training.file_digest(path)
    return result if plain is None else complete(experiment, plain, images, result)


def complete(experiment: Experiment, model, images, result: dict[str, Any]) -> dict[str, Any]:
    """Draws and exports a trained model as far as its result says that this is missing.

    Args:
        experiment: The run.
        model: The model, as it was saved.
        images: A few test images.
        result: The result, without what is missing.

    Returns:
        The result, as it stands in `result.json`.
    """
    from low_rank_local_connectivity import plots

    folder = Path(experiment.model_dir)
    missing = dict(result["failed"])
    if "picture" in missing:
        with attempting("picture", folder, result):
            shown = images[: plots.EXAMPLES]
            plots.combining_weight_maps(model, folder / "combining_weights.png", shown)
    if "export" in missing:
        with attempting("export", folder, result):
            export(model, experiment, images)
    return result


@contextlib.contextmanager
def attempting(name: str, folder: Path, result: dict[str, Any]) -> Iterator[None]:
    """Notes in a run's result whether what is within succeeds; an error ends there."""
    from low_rank_local_connectivity import training

    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the result
        result["failed"][name] = training.full_disk(error) or in_a_sentence(error)
    else:
        del result["failed"][name]
    if not result["failed"]:
        del result["failed"]
    write_result(folder, result)


def in_a_sentence(error: Exception) -> str:
    """Returns an error's own words in a line; one that was not meant for readers, with its kind."""
    words = " ".join(str(error).split())
    told = isinstance(error, (ValueError, ImportError)) and words
    return words if told else f"{type(error).__name__}: {words or 'no message'}"


def first_batch(experiment: Experiment, split: str, size: int) -> Any:
    """Returns the first examples of a split: images as inputs, and their labels."""
    from data.pipeline import evaluation_batches

    examples = experiment.data.load(experiment.data_dir, experiment.download)[split]
    return next(iter(evaluation_batches(experiment.data, examples, size, experiment.seed)))


def export(model, experiment: Experiment, images) -> None:
    """Writes the exports that the flags ask for, as far as the backend can.

    Args:
        model: The trained model.
        experiment: The run.
        images: A few test images, to verify on.
    """
    import keras

    from data.pipeline import input_from_bytes
    from low_rank_local_connectivity.export import FORMATS, export_model

    folder = Path(experiment.model_dir) / "saved_model"
    backend = keras.backend.backend()
    formats = [name for name in experiment.export_formats if backend in FORMATS[name].backends]
    for name in sorted(set(experiment.export_formats) - set(formats)):
        print(f"No {name}: it cannot be written on {backend}. Load model.keras under TensorFlow.")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed here, or went on
    if not formats:
        return
    # Not on test images: what integers are calibrated on is seen, as what is trained on is.
    integers = any(FORMATS[name].integers for name in formats)
    seen = first_batch(experiment, "valid", CALIBRATED_ON) if integers else (None, None)
    export_model(
        model,
        folder,
        formats,
        convert="measure",
        representative=seen[0],
        labels=seen[1],
        sample=images,
        serving_batch_size=experiment.serving_batch_size,
        preprocess=input_from_bytes(experiment.data),
        class_names=experiment.data.class_names,
    )


def run_or_refuse(experiment: Experiment, unfinished: dict[str, Any] | None) -> dict[str, Any]:
    """Runs; what its caller can mend, and being asked to stop, ends the program in a sentence."""
    load_framework(experiment.virtual_devices)
    from data.unreadable import unreadable_image
    from low_rank_local_connectivity import training

    try:
        return run(experiment, unfinished)
    except training.StoppedError as stopped:
        print(stopped, flush=True)
        sys.exit(training.STOPPED_STATUS)
    except training.RunError as error:
        refuse(error)
    except Exception as error:
        if gone := training.lost_peer(error):
            print(f"run_experiment.py: {gone}", file=sys.stderr, flush=True)
            os._exit(1)  # the usual way out waits ten more seconds for the one that is gone
        sentence = unreadable_image(error) or training.full_disk(error)
        sentence = sentence or training.out_of_memory(error)
        if sentence is None:
            raise
        refuse(sentence)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with one is said in one sentence."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        refuse(error)


def refuse(error: Exception | str) -> NoReturn:
    """Ends the program over something that its caller can mend."""
    print(f"run_experiment.py: {error}", file=sys.stderr)
    sys.exit(2)


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags describe, or prints its result if it is finished."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow tells through it how it saves
    try:
        experiment, result = checked(argv)
    except (ValueError, FileNotFoundError) as error:
        refuse(error)
    try:
        sys.exit(run_sweep(experiment) if is_sweep() else run_or_tell(experiment, result))
    except KeyboardInterrupt:
        print("Stopped by SIGINT. The same command goes on from what is saved.", flush=True)
        sys.exit(os.EX_TEMPFAIL)


def checked(argv: list[str]) -> tuple[Experiment, dict[str, Any] | None]:
    """Returns the experiment that the flags describe, and its result as far as there is one.

    Raises:
        ValueError: If a flag, the backend or the folder cannot be what it is.
        FileNotFoundError: If the data is not there.
    """
    if argv[1:]:
        raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}.")
    experiment = experiment_from_flags()
    check_flags(experiment)
    result = None if is_sweep() else check_folder(experiment, FLAGS.allow_other_flags)
    if result is None or "failed" in result:
        if not experiment.download:
            DATASETS[experiment.dataset].find(experiment.data_dir)
        check_backend()
        check_writable(Path(experiment.model_dir))
    return experiment, result


def check_flags(experiment: Experiment) -> None:
    """Checks what the flags say beside an experiment: of a sweep, and of others' effect.

    Raises:
        ValueError: If one is out of its range or has no effect.
    """
    runs = experiments_of_sweep(experiment) if is_sweep() else [experiment]
    if not FLAGS.every_flag_given:
        defaults = {name: FLAGS[name].default for name in FLAGS}
        check_flags_have_effect(given_flags(), defaults, runs, is_sweep())


def run_or_tell(experiment: Experiment, result: dict[str, Any] | None) -> int:
    """Runs what is missing of a run, prints its result and returns an exit status."""
    if result is None or "failed" in result:
        result = run_or_refuse(experiment, result)
    print(summary(result, experiment.model_dir))
    failed = result.get("failed", {})
    for name, sentence in failed.items():
        print(f"run_experiment.py: The {name} failed: {sentence}", file=sys.stderr)
    if failed:
        print("The result stands, and the same command tries the rest again.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
