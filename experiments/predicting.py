"""Predicts the classes of image files with a trained network.

    lrlc-predict --model=runs/photos IMAGE FOLDER 'more/*.jpg'

Writes a row for each image: its path, and its most probable classes with their probabilities.
Images are prepared as in the network's training. What cannot be read is reported and skipped, and
the exit status is then 1.
"""

import csv
import dataclasses
import glob
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.data import Dataset
from low_rank_local_connectivity.data.dataset import MOST_BYTES, MOST_PIXELS
from low_rank_local_connectivity.experiments.backend import check_backend, load_framework
from low_rank_local_connectivity.experiments.fields import AT_LEAST_1, Group, field, one_of
from low_rank_local_connectivity.experiments.side_command import carry_out
from low_rank_local_connectivity.experiments.trained import dataset_of, folder_of, load_network


@dataclasses.dataclass(frozen=True)
class Options:
    """What `lrlc-predict` is asked for."""

    model: str | None = field(
        None, "Folder of a finished run, or the model.keras in it.", Group.INPUT, path=True
    )
    top: int = field(1, "How many classes to name of each image.", Group.OUTPUT, AT_LEAST_1)
    format: str = field("csv", "Form of the rows.", Group.OUTPUT, one_of(("csv", "jsonl")))
    output: str | None = field(
        None, "File for the rows. [standard output]", Group.OUTPUT, path=True
    )
    max_bytes: int | None = field(
        None,
        "Bytes that the model's arrays may take in memory. [256 MiB and 16 times its file's size, "
        "whichever is more]",
        Group.INPUT,
        AT_LEAST_1,
    )
    max_pixels: int = field(
        MOST_PIXELS,
        "Pixels that an image in a file may have; those with more count as unreadable.",
        Group.INPUT,
        AT_LEAST_1,
    )
    batch_size: int = field(32, "Images per step.", Group.INPUT, AT_LEAST_1)


def main() -> None:
    """Carries out the command line of the process."""
    carry_out(Options, predict, __doc__ or "")


def predict(options: Options, words: Sequence[str]) -> int:
    """Writes the predictions of the images that some words name; returns the exit status.

    Raises:
        ValueError: If there is no network or no image, or the network takes no images.
    """
    folder = folder_of(options.model)
    dataset = dataclasses.replace(dataset_of(folder), max_pixels=options.max_pixels)
    _require_images(dataset, folder)
    paths = list(files_of(words))
    if not paths:
        raise ValueError(
            "The images must be named. Received: no file. Give files, folders or patterns."
        )
    check_backend()
    load_framework()
    network = load_network(folder, options.max_bytes)
    unreadable: list[str] = []
    rows = [
        row
        for start in range(0, len(paths), options.batch_size)
        for row in _rows(
            network, dataset, paths[start : start + options.batch_size], options.top, unreadable
        )
    ]
    _write(rows, options)
    for sentence in unreadable:
        print(f"lrlc-predict: {sentence}", file=sys.stderr)
    return 1 if unreadable else 0


def _require_images(dataset: Dataset, folder: Path) -> None:
    if dataset.dimensions != 2 or dataset.image_shape[-1] not in (1, 3) or dataset.canvas:
        raise ValueError(
            "--model must be a network for images of 1 or 3 channels. Received: "
            f"--model={folder}, whose inputs have shape {dataset.input_shape} and are of the "
            f"dataset {dataset.name}."
        )


def files_of(words: Iterable[str]) -> Iterator[Path]:
    """Yields the files that words of a command line name, in order.

    Args:
        words: Files; folders, for the files of a known format in them, at any depth; or patterns
            of either, as in `'*/*.png'`.
    """
    from low_rank_local_connectivity.data.folder import SUFFIXES

    for word in words:
        pattern = [] if Path(word).exists() else glob.glob(word, recursive=True)  # noqa: PTH207
        named = sorted(pattern)
        for path in map(Path, named or [word]):
            inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES)
            yield from inside if path.is_dir() else [path]


def _rows(
    network: Any, dataset: Dataset, paths: Sequence[Path], top: int, unreadable: list[str]
) -> Iterator[dict[str, Any]]:
    """Yields a row for each readable image of a batch, and notes the others."""
    images, found = [], []
    for path in paths:
        try:
            images.append(input_of(dataset, path))
            found.append(path)
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            unreadable.append(f"{path} was skipped: {words}")
    if not images:
        return
    for path, shares in zip(found, probabilities(network, np.stack(images)), strict=True):
        best = np.argsort(-shares, kind="stable")[: min(top, len(shares))]
        yield {
            "path": str(path),
            "classes": [dataset.class_names[index] for index in best],
            "probabilities": [float(shares[index]) for index in best],
        }


def input_of(dataset: Dataset, path: Path) -> np.ndarray:
    """Returns an image file as an input, prepared as evaluation does.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not an image.
    """
    from low_rank_local_connectivity.data.pillow_images import as_input
    from low_rank_local_connectivity.untrusted.sizes import require_regular

    require_regular(path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"It has more than {MOST_BYTES:,} bytes.")
    return as_input(dataset, path.read_bytes())


def probabilities(network: Any, images: np.ndarray) -> np.ndarray:
    """Returns the probability of each class for each image, the softmax of a network's logits."""
    logits = np.asarray(network.predict_on_batch(images), "float64")
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _write(rows: Sequence[dict[str, Any]], options: Options) -> None:
    text = as_lines(rows) if options.format == "jsonl" else as_csv(rows)
    if options.output is None:
        print(text, end="")
        return
    from low_rank_local_connectivity.training.records import replacing

    with replacing(Path(options.output)) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def as_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Returns a line of JSON for each row."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a table of rows: `path, class, probability`, and `class_2, probability_2, ...`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    count = max((len(row["classes"]) for row in rows), default=1)
    endings = ["", *(f"_{place}" for place in range(2, count + 1))]
    names = [f"{name}{ending}" for ending in endings for name in ("class", "probability")]
    writer.writerow(["path", *names])
    for row in rows:
        shares = [f"{share:.6f}" for share in row["probabilities"]]
        pairs = zip(row["classes"], shares, strict=True)
        writer.writerow([row["path"], *itertools.chain(*pairs)])
    return text.getvalue()


if __name__ == "__main__":
    main()
