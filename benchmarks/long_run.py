"""Memory over a long run: resident megabytes after each of a thousand epochs, as a picture.

    python -m benchmarks.long_run --out=benchmarks/long-run

Runs run_experiment.py on the digits, with every epoch's validation, checkpoint and records, and
reads from Linux what its process holds.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.memory import status_megabytes

ROOT = Path(__file__).parents[1]


def measure(epochs: int, folder: Path) -> list[tuple[int, int]]:
    """Trains, and returns pairs of epochs behind and megabytes."""
    command = [sys.executable, "-u", str(ROOT / "run_experiment.py"), f"--model_dir={folder}"]
    command += [f"--epochs={epochs}", "--filters=4", "--batch_size=512", "--export_formats=none"]
    found: list[tuple[int, int]] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout or ():
            if line.startswith("Epoch "):
                epoch = int(line.split()[1].partition("/")[0]) - 1
                found.append((epoch, status_megabytes("VmRSS", process.pid)))
    return found


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("long-run"))
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.epochs, Path(folder) / "run")
    with arguments.out.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", "megabytes"), *found])
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axis = figure.subplots()
    axis.plot(*zip(*found, strict=True))
    axis.set_ylim(0, 1.2 * max(megabytes for _, megabytes in found))
    axis.set_xlabel("epochs behind")
    axis.set_ylabel("resident memory, MB")
    axis.grid(alpha=0.3)
    figure.savefig(arguments.out.with_suffix(".png"), dpi=110)
    tenth = max(len(found) // 10, 1)
    early, late = found[tenth][1], found[-1][1]
    print(f"{arguments.epochs} epochs, {time.monotonic() - started:.0f} s")
    print(f"after a tenth: {early} MB; at the end: {late} MB")


if __name__ == "__main__":
    main()
