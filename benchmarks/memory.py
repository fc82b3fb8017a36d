"""Peak memory of one layer's step, each in a process of its own.

    KERAS_BACKEND=tensorflow python -m benchmarks.memory --workload=W1 --mode=training

Prints the resident megabytes at the peak, the runtime included, and how many of them the step
added to the built layer. A step is run three times: TensorFlow's allocator keeps what it had.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.contestants import contestants, names
from benchmarks.workloads import RANKS, WORKLOADS, Workload

RUNS = 3


def alone(module: str, what: Any) -> Any:
    """Has a benchmark measure one thing in a new process, by its flag `--one`.

    Args:
        module: Name of the benchmark's module, which prints what it found last, as JSON.
        what: What to measure, as JSON holds it.

    Returns:
        What it found.
    """
    found = subprocess.run(
        [sys.executable, "-m", module, "--one", json.dumps(what)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return json.loads(found.stdout.splitlines()[-1])


def peak_megabytes(workload: Workload, layer: str, training: bool) -> tuple[int, int]:
    """Measures in a new process.

    Returns:
        Megabytes at the peak and before the first step.
    """
    before, peak = alone("benchmarks.memory", [workload.__dict__, layer, training])
    return peak, before


def _measure_here(shapes: str) -> None:
    from benchmarks.steps import inference_step, training_step

    fields, name, training = json.loads(shapes)
    workload = Workload(**{**fields, "spatial": tuple(fields["spatial"])})
    step = (training_step if training else inference_step)(
        contestants(workload, [name])[name], workload.input_shape
    )
    before = status_megabytes("VmRSS")
    for _ in range(RUNS):
        step()
    # Not resource.getrusage's peak, which counts what the parent held when it started this one.
    print(json.dumps([before, status_megabytes("VmHWM")]))


def status_megabytes(name: str, process: int | str = "self") -> int:
    """Returns a figure that Linux keeps about a process, this one if none is named."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) // 1024


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
    print("| layer | peak, MB | x conv | added by the step, MB |")
    print("|---|---|---|---|")
    floor = None
    for name in chosen:
        peak, before = peak_megabytes(workload, name, arguments.mode == "training")
        floor = floor or peak
        print(f"| {name} | {peak} | {peak / floor:.2f} | {peak - before} |", flush=True)


if __name__ == "__main__":
    main()
