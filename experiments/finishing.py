"""Finishing a trained run: writing its result, model, pictures and exports."""

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.data.unreadable import skipped_images
from low_rank_local_connectivity.experiments.backend import pipeline_for
from low_rank_local_connectivity.experiments.evaluating import Evaluation, draw_confusions
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.flags import in_flags
from low_rank_local_connectivity.experiments.folder import write_result

# What a run writes besides its result, and what the result says of each until it is written.
LEFT = ("model", "evaluation", "picture", "export")
NOT_YET = "The run ended before."
EVALUATION = "evaluation.json"
# What is imported under another name than it is installed by.
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
# Labels of shape `(examples,)`, and outputs of shape `(examples, classes)`.
Answers = tuple[np.ndarray, np.ndarray]
# Number of validation images on which exports in integers are calibrated.
CALIBRATED_ON = 256
# How many names of ignored files are printed.
SHOWN_NAMES = 10


def leave_behind(
    experiment: Experiment, model, images, result: dict[str, Any], answers: Answers | None = None
) -> dict[str, Any]:
    """Writes the result, the trained model, its evaluation, its pictures and its exports.

    The result is written first, so that no later failure can lose it. Its entry `failed` says what
    is missing and why, until the same command has completed it.

    Args:
        experiment: The run.
        model: The trained model.
        images: A few test images, for which to draw input-dependent weights.
        result: The result so far.
        answers: The labels of the test examples and the model's outputs for them; None if these
            are not to be evaluated.

    Returns:
        The result.
    """
    from low_rank_local_connectivity import training

    folder = Path(experiment.model_dir)
    path = folder / "model.keras"
    skipped = skipped_images(folder / "skipped.txt")
    left = [name for name in LEFT if name != "evaluation" or experiment.evaluation]
    result = {**result, "skipped_images": len(skipped), "failed": dict.fromkeys(left, NOT_YET)}
    write_result(folder, result)
    if skipped:
        print(f"{len(skipped)} training images could not be read and were skipped: ", end="")
        print(first_names(skipped))
    plain = None
    with attempting("model", folder, result):
        training.save(model, path)
        # As on a server, without the strategy that trained it.
        plain = training.load(path, training.file_digest(path))
        result["model_sha256"] = training.file_digest(path)
    return result if plain is None else complete(experiment, plain, images, result, answers)


def complete(
    experiment: Experiment, model, images, result: dict[str, Any], answers: Answers | None = None
) -> dict[str, Any]:
    """Evaluates, draws and exports a trained model where its result says that this is missing.

    Args:
        experiment: The run.
        model: The model, as it was saved.
        images: A few test images.
        result: The result so far.
        answers: The labels of the test examples and the outputs for them, where they are known.

    Returns:
        The result, as written to `result.json`.
    """
    from low_rank_local_connectivity import plots

    folder = Path(experiment.model_dir)
    missing = dict(result["failed"])
    if "evaluation" in missing:
        with attempting("evaluation", folder, result):
            evaluate(experiment, answers or answers_of(experiment, model))
    if "picture" in missing:
        with attempting("picture", folder, result):
            shown = images[: plots.EXAMPLES]
            plots.combining_weight_maps(model, folder / "combining_weights.png", shown)
    if "export" in missing:
        with attempting("export", folder, result):
            export(model, experiment, images)
    return result


def answers_of(experiment: Experiment, model) -> Answers:
    """Returns the labels of a run's test examples and a model's outputs for them."""
    from low_rank_local_connectivity import training

    return training.answers(model, batches_of(experiment, "test", experiment.batch_size))


def evaluate(experiment: Experiment, answers: Answers) -> None:
    """Writes `evaluation.json` and `confusion.png`, as far as what they need is installed.

    Args:
        experiment: The run.
        answers: The labels of its test examples and the model's outputs for them.
    """
    from low_rank_local_connectivity import training

    folder, dataset = Path(experiment.model_dir), experiment.data
    if lacks("sklearn", "evaluation"):
        return
    found = Evaluation(dataset.class_names, *answers)
    told = {"dataset": dataset.name, "split": "test", **found.summary()}
    if not lacks("matplotlib", "confusion.png"):
        draw_confusions(found, folder / "confusion.png")
    # Last, as it says that both are there.
    training.write_json(folder / EVALUATION, told)


def lacks(package: str, what: str) -> bool:
    """Returns whether a package is missing, and says so."""
    if importlib.util.find_spec(package) is not None:
        return False
    name = DISTRIBUTIONS.get(package, package)
    print(f"No {what}: it needs {name}, which is not installed: pip install {name}.", flush=True)
    return True


def lacking_evaluation(
    experiment: Experiment, result: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Returns a result that mentions an evaluation that is missing though it could be made."""
    folder = Path(experiment.model_dir)
    if result is None or not experiment.evaluation or (folder / EVALUATION).exists():
        return result
    trained = (folder / "model.keras").exists() and "model_sha256" in result
    if not trained or importlib.util.find_spec("sklearn") is None:
        return result
    return {**result, "failed": {"evaluation": NOT_YET, **result.get("failed", {})}}


@contextlib.contextmanager
def attempting(name: str, folder: Path, result: dict[str, Any]) -> Iterator[None]:
    """Records in a run's result whether the body succeeds; an error does not propagate."""
    from low_rank_local_connectivity import training

    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the result
        told = training.full_disk(error) or training.refused_file(error) or in_a_sentence(error)
        result["failed"][name] = in_flags(told)
    else:
        del result["failed"][name]
    if not result["failed"]:
        del result["failed"]
    write_result(folder, result)


def in_a_sentence(error: Exception) -> str:
    """Returns an error's message in a line; with its class, unless it is a sentence for users."""
    words = " ".join(str(error).split())
    told = isinstance(error, (ValueError, ImportError)) and words
    return words if told else f"{type(error).__name__}: {words or 'no message'}"


def first_batch(experiment: Experiment, split: str, size: int) -> Any:
    """Returns the first examples of a split: images as inputs, and their labels."""
    return next(iter(batches_of(experiment, split, size)))


def batches_of(experiment: Experiment, split: str, size: int) -> Any:
    """Returns the batches of a split's examples: images as inputs, and their labels."""
    examples = experiment.data.load(experiment.data_dir, experiment.download)[split]
    pipeline = pipeline_for(experiment.data)
    return pipeline.evaluation_batches(experiment.data, examples, size, experiment.seed)


def export(model, experiment: Experiment, images) -> None:
    """Writes the exports that the flags request, if the backend can.

    Args:
        model: The trained model.
        experiment: The run.
        images: A few test images for the verification.
    """
    import keras

    from low_rank_local_connectivity.export import FORMATS, export_model
    from low_rank_local_connectivity.training import check_claims

    folder = Path(experiment.model_dir) / "saved_model"
    formats = writable(experiment.export_formats, keras.backend.backend())
    check_claims(folder)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed here, or went on
    if not formats:
        return
    from low_rank_local_connectivity.data.pipeline import input_from_bytes

    # Not on test images: calibration uses its images, as training does.
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


def writable(asked_for: Sequence[str], backend: str) -> list[str]:
    """Returns the formats that can be written here, and prints why the others cannot."""
    from low_rank_local_connectivity.export import FORMATS

    found = []
    for name in asked_for:
        needed = FORMATS[name].backends.get(backend)
        missing = [one for one in needed or () if importlib.util.find_spec(one) is None]
        if needed is None:
            print(f"No {name}: it cannot be written on {backend}. ", end="")
            print("Load model.keras under TensorFlow.")
        elif missing:
            line = " ".join(FORMATS[name].backends[backend][one] for one in missing)
            print(f"No {name}: it needs {', '.join(missing)}, which is not installed: ", end="")
            print(f"pip install {line}.")
        else:
            found.append(name)
    return found


def first_names(names: list[str]) -> str:
    """Returns the first few names, with dots if there are more."""
    return ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
