"""Finishing a trained run: writing its result, model, pictures and exports."""

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.data.unreadable import skipped_images
from low_rank_local_connectivity.experiments.backend import pipeline_for
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.flags import in_flags
from low_rank_local_connectivity.experiments.folder import write_result

# What a run writes besides its result, and what the result says of each until it is written.
LEFT = ("model", "picture", "export")
NOT_YET = "The run ended before."
# Number of validation images on which exports in integers are calibrated.
CALIBRATED_ON = 256
# How many names of ignored files are printed.
SHOWN_NAMES = 10


def leave_behind(experiment: Experiment, model, images, result: dict[str, Any]) -> dict[str, Any]:
    """Writes the result, the trained model, its pictures and its exports.

    The result is written first, so that no later failure can lose it. Its entry `failed` says what
    is missing and why, until the same command has completed it.

    Args:
        experiment: The run.
        model: The trained model.
        images: A few test images, for which to draw input-dependent weights.
        result: The result so far.

    Returns:
        The result.
    """
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
        # As on a server, without the strategy that trained it.
        plain = training.load(path, training.file_digest(path))
        result["model_sha256"] = training.file_digest(path)
    return result if plain is None else complete(experiment, plain, images, result)


def complete(experiment: Experiment, model, images, result: dict[str, Any]) -> dict[str, Any]:
    """Draws and exports a trained model where its result says that this is missing.

    Args:
        experiment: The run.
        model: The model, as it was saved.
        images: A few test images.
        result: The result so far.

    Returns:
        The result, as written to `result.json`.
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
    """Records in a run's result whether the body succeeds; an error does not propagate."""
    from low_rank_local_connectivity import training

    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the result
        result["failed"][name] = in_flags(training.full_disk(error) or in_a_sentence(error))
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
    examples = experiment.data.load(experiment.data_dir, experiment.download)[split]
    batches = pipeline_for(experiment.data)
    return next(iter(batches.evaluation_batches(experiment.data, examples, size, experiment.seed)))


def export(model, experiment: Experiment, images) -> None:
    """Writes the exports that the flags request, if the backend can.

    Args:
        model: The trained model.
        experiment: The run.
        images: A few test images for the verification.
    """
    import keras

    from low_rank_local_connectivity.export import FORMATS, export_model

    folder = Path(experiment.model_dir) / "saved_model"
    formats = writable(experiment.export_formats, keras.backend.backend())
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
