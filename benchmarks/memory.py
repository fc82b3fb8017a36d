"""Peak memory of one layer's step, each in a process of its own.

    KERAS_BACKEND=tensorflow python -m benchmarks.memory --workload=W1 --mode=training

Prints the resident megabytes at the peak, the runtime included; how many of them layer, inputs and
step take, the runtime left out; and how many the step added to the built layer. A step is run three
times: TensorFlow's allocator keeps what it had.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contestants import contestants, names
from benchmarks.workloads import RANKS, WORKLOADS, Workload

RUNS = 3


def alone(module: str, what: Any, environment: dict[str, str] | None = None) -> Any:
    """Has a benchmark measure one thing in a new process, by its flag `--one`.

    Args:
        module: Name of the benchmark's module, which prints what it found last, as JSON.
        what: What to measure, as JSON holds it.
        environment: Variables that the process has beside this one's.

    Returns:
        What it found.

    Raises:
        subprocess.CalledProcessError: If the process fails, or memory ends it.
    """
    found = subprocess.run(
        [sys.executable, "-m", module, "--one", json.dumps(what)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **(environment or {})},
    )
    return json.loads(found.stdout.splitlines()[-1])


class Megabytes(NamedTuple):
    """Resident memory of a process: with the backend imported, before the first step, at most."""

    runtime: int
    before: int
    peak: int

    @property
    def taken(self) -> int:
        """What layer, inputs and step take at most, the runtime left out."""
        return self.peak - self.runtime

    @property
    def added(self) -> int:
        """What the step adds at most to layer and inputs."""
        return self.peak - self.before


def megabytes(workload: Workload, layer: str, training: bool) -> Megabytes:
    """Measures in a new process."""
    return Megabytes(*alone("benchmarks.memory", [workload.__dict__, layer, training]))


def _measure_here(shapes: str) -> None:
    from benchmarks.steps import inference_step, training_step

    runtime = status_megabytes("VmRSS")
    fields, name, training = json.loads(shapes)
    workload = Workload(**{**fields, "spatial": tuple(fields["spatial"])})
    step = (training_step if training else inference_step)(
        contestants(workload, [name])[name], workload.input_shape
    )
    before = status_megabytes("VmRSS")
    for _ in range(RUNS):
        step()
    # Not resource.getrusage's peak, which counts what the parent held when it started this one.
    print(json.dumps([runtime, before, status_megabytes("VmHWM")]))


def status_megabytes(name: str, process: int | str = "self") -> int:
    """Returns a figure that Linux keeps about a process, this one if none is named."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) // 1024


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", default="W1")
    parser.add_argument("--mode", choices=("inference", "training"), default="training")
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)))
    parser.add_argument("--layers", help="names as printed, separated by ';'")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _measure_here(arguments.one)
        return
    workload = WORKLOADS[arguments.workload]
    ranks = [int(rank) for rank in arguments.ranks.split(",")]
    chosen = arguments.layers.split(";") if arguments.layers else names(workload, ranks)
    print(f"{arguments.workload}, {arguments.mode}\n")
    print("| layer | peak, MB | x conv | without the runtime, MB | added by the step, MB |")
    print("|---|---|---|---|---|")
    floor = None
    for name in chosen:
        found = megabytes(workload, name, arguments.mode == "training")
        floor = floor or found.peak
        cells = [name, found.peak, f"{found.peak / floor:.2f}", found.taken, found.added]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
