"""Exports a trained network, or a model of Keras 2 or 3, for servers and devices.

    lrlc-export --model=runs/digits-simple_network-0 --formats=tf_saved_model,onnx
    lrlc-export --model=old.h5 --formats=none --to_keras=new.keras

A run's network is exported with its preprocessing and its classes. Of files, `.h5`, `.keras`,
SavedModels and checkpoints that Keras 2 wrote are read too, without tf_keras.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.experiments.backend import check_backend, load_framework
from low_rank_local_connectivity.experiments.fields import AT_LEAST_1, Group, field, one_of, some_of
from low_rank_local_connectivity.experiments.finishing import writable
from low_rank_local_connectivity.experiments.side_command import carry_out
from low_rank_local_connectivity.experiments.trained import dataset_of, folder_of, load_network
from low_rank_local_connectivity.export import FORMATS

FORMS = {"measure": "measure", "yes": True, "no": False}


@dataclasses.dataclass(frozen=True)
class Options:
    """What `lrlc-export` is asked for."""

    model: str | None = field(
        None, "Folder of a finished run, or a file of a model.", Group.INPUT, path=True
    )
    formats: tuple[str, ...] = field(
        ("tf_saved_model",),
        f"Formats to export: {', '.join(FORMATS)}; or none.",
        Group.EXPORT,
        some_of(FORMATS, "takes {}, or none", nothing="none"),
    )
    convert: str = field(
        "measure",
        "Whether local layers are converted to what is served fastest, or what is measured to be.",
        Group.EXPORT,
        one_of(FORMS),
    )
    serving_batch_size: int | None = field(
        None, "Batch size at which that is measured. [1]", Group.EXPORT, AT_LEAST_1
    )
    max_bytes: int | None = field(
        None,
        "Bytes that the model's arrays may take in memory. [256 MiB and 16 times its file's size, "
        "whichever is more]",
        Group.INPUT,
        AT_LEAST_1,
    )
    to_keras: str | None = field(
        None, "File to which to save the model as Keras 3 does. [none]", Group.OUTPUT, path=True
    )
    out: str | None = field(
        None, "Folder for the exports. [export, beside the model]", Group.OUTPUT, path=True
    )


def main() -> None:
    """Carries out the command line of the process."""
    carry_out(Options, export, __doc__ or "")


def export(options: Options, words: Sequence[str]) -> int:
    """Exports what the options name; returns the exit status.

    Raises:
        ValueError: If there is no model, or it cannot be exported so.
    """
    if words:
        raise ValueError(f"Only flags are taken. Received: {' '.join(words)}.")
    path = Path(options.model or "")
    if options.model is None or not path.exists():
        raise ValueError(
            f"--model must be a run's folder or a model's file. Received: --model={options.model}, "
            "which does not exist."
        )
    _check_new(options.to_keras)
    of_run = (path if path.is_dir() else path.parent) / "config.json"
    check_backend()
    load_framework()
    import keras

    served: dict[str, Any] = {}
    if of_run.is_file():
        folder = folder_of(options.model)
        model, served = load_network(folder, options.max_bytes), _preprocessing(folder)
    else:
        model = _read(path, options.max_bytes)
    if options.to_keras is not None:
        from low_rank_local_connectivity.training.records import replacing

        with replacing(Path(options.to_keras)) as temporary:
            model.save(temporary)
        print(f"Saved to {options.to_keras}.")
    formats = writable(options.formats, keras.backend.backend())
    if formats:
        from low_rank_local_connectivity.export import export_model

        out = Path(options.out) if options.out else of_run.parent / "export"
        served |= {"serving_batch_size": options.serving_batch_size}
        manifest = export_model(model, out, formats, convert=FORMS[options.convert], **served)
        for name, told in manifest["formats"].items():
            print(f"{name}: {out / told['file']}, at most {told['difference']:.1e} from the model.")
    return 0 if len(formats) == len(options.formats) else 1


def _check_new(file: str | None) -> None:
    if file is not None and (Path(file).exists() or Path(file).suffix != ".keras"):
        what = "exists" if Path(file).exists() else "has another ending"
        raise ValueError(
            "--to_keras must be a new file whose name ends in .keras. Received: "
            f"--to_keras={file}, which {what}."
        )


def _preprocessing(folder: Path) -> dict[str, Any]:
    """Returns how a server prepares image files for a run's network, and its classes."""
    from low_rank_local_connectivity.data.pipeline import input_from_bytes

    dataset = dataset_of(folder)
    return {"preprocess": input_from_bytes(dataset), "class_names": dataset.class_names}


def _read(path: Path, max_bytes: int | None) -> Any:
    """Returns the model in a file, of Keras 3 or 2; no code from it is run."""
    from low_rank_local_connectivity import legacy, training

    if path.suffix == ".keras" and path.is_file():
        try:
            return training.load(path, None, max_bytes)
        except training.RunError as error:
            try:
                return legacy.load_model(str(path), max_bytes=max_bytes)
            except ValueError:
                raise error from None
    return legacy.load_model(str(path), max_bytes=max_bytes)


if __name__ == "__main__":
    main()
