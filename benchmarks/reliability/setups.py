"""What is killed: runs, jobs of two workers, sweeps and reports, and what they leave in the end."""

import dataclasses
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.outcomes import outcome_of_report, outcome_of_run, outcome_of_sweep
from benchmarks.reliability.processes import SCRIPT

REPORT = "low_rank_local_connectivity.experiments.paper.report"


@dataclasses.dataclass(frozen=True)
class Setup:
    """A way to train.

    Args:
        flags: The flags beside `SMALL`; `{data}` stands for a folder of images.
        environment: Variables of its processes.
        workers: Its processes.
        outcome: Function of a folder that returns what must be the same in the end.
        fresh: Whether its processes are no forks.
        is_sweep: Whether it starts processes of its own.
    """

    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    workers: int = 1
    outcome: Callable[[Path], dict[str, Any]] = outcome_of_run
    fresh: bool = False
    is_sweep: bool = False

    def commands(self, folder: Path, data: Path) -> list[tuple[list[str], dict[str, str]]]:
        """Returns the words and the variables of each of its processes."""
        flags = [flag.format(data=data) for flag in self.flags]
        filters = [] if any(flag.startswith("--network=") for flag in flags) else ["--filters=4"]
        words = [SCRIPT, f"--model_dir={folder}", *SMALL, *filters, *flags]
        if self.outcome is outcome_of_report:
            words = ["-m", REPORT, str(data / "records"), f"--out={folder}", "--pictures=png"]
        if self.workers == 1:
            return [(words, dict(self.environment))]
        addresses = [f"localhost:{port}" for port in free_ports(self.workers)]
        tasks = [
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            for index in range(self.workers)
        ]
        return [(words, {**self.environment, "TF_CONFIG": json.dumps(task)}) for task in tasks]


SMALL = ("--train_examples=192", "--batch_size=64", "--epochs=3")
SMALL += ("--spatial_rank=2", "--checkpoint_steps=1", "--every_flag_given")
NONE = ("--export_formats=none",)
EVERYTHING = ("--use_ema", "--ema_momentum=0.7", "--optimizer=lion", "--weight_decay=0.1")
EVERYTHING += ("--global_clipnorm=0.1", "--gradient_accumulation_steps=5")
SETUPS: dict[str, Setup] = {
    "one device": Setup(NONE),
    "one device, often": Setup(NONE),
    "mirrored": Setup((*NONE, "--strategy=mirrored", "--virtual_devices=2")),
    "mirrored, averages": Setup(
        (*NONE, "--strategy=mirrored", "--virtual_devices=2", "--use_ema", "--ema_momentum=0.7")
    ),
    "two workers": Setup((*NONE, "--strategy=multi_worker", "--peers_timeout=60"), workers=2),
    "sweep": Setup(
        (*NONE, "--spatial_ranks=1,2", "--epochs=2"), outcome=outcome_of_sweep, is_sweep=True
    ),
    "broken images": Setup(
        (
            *NONE,
            "--dataset=folder",
            "--data_dir={data}/images",
            "--image_size=12",
            "--batch_size=8",
            "--train_examples=48",
        )
    ),
    "translated": Setup((*NONE, "--translate", "--canvas_size=20")),
    "input-dependent": Setup((*NONE, "--input_dependent")),
    "averages and sums": Setup((*NONE, *EVERYTHING)),
    "ResNet": Setup(
        (
            *NONE,
            "--network=resnet18",
            "--layer_types=none",
            "--epochs=1",
            "--train_examples=64",
            "--batch_size=32",
        )
    ),
    "mixed_float16": Setup((*NONE, "--precision=mixed_float16")),
    "mixed_bfloat16": Setup((*NONE, "--precision=mixed_bfloat16")),
    "measured SavedModel": Setup(("--epochs=1",)),
    "ONNX": Setup(("--epochs=1", "--export_formats=onnx")),
    "JAX": Setup(NONE, {"KERAS_BACKEND": "jax"}, fresh=True),
    "JAX, two devices": Setup((*NONE, "--virtual_devices=2"), {"KERAS_BACKEND": "jax"}, fresh=True),
    "PyTorch": Setup(NONE, {"KERAS_BACKEND": "torch"}, fresh=True),
    "report": Setup(outcome=outcome_of_report),
}


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nothing uses now."""
    opened = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


def make_data(folder: Path) -> None:
    """Writes images of two classes, of which two cannot be read, and records of some runs."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for label, name in enumerate(("cats", "dogs")):
        for part, count in (("train", 24), ("valid", 8), ("test", 8)):
            place = folder / "images" / part / name
            place.mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(90 * label, 90 * label + 120, (13, 14, 3), "uint8")
                Image.fromarray(pixels).save(place / f"{index}.png")
        (folder / "images" / "train" / name / "0.png").write_bytes(b"no image")
    known = Path(__file__).parents[2] / "experiments" / "paper" / "cpu" / "records.jsonl"
    (folder / "records").mkdir()
    lines = known.read_text().splitlines()[:24]
    (folder / "records" / "records.jsonl").write_text("\n".join(lines) + "\n")
