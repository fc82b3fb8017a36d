"""What the layers were asked to cost, and what they cost, on the backend that Keras runs on.

    KERAS_BACKEND=tensorflow python -m benchmarks.targets

The training script's speed and the import's are measured by `benchmarks.training_loop` and
`benchmarks.import_time`. On TensorFlow a step of tf_keras's layer takes 2 GB or 24, as its products
happen to be run: a process that memory ends counts as infinitely large, and the times are then
measured with TensorFlow's operations one after another, which needs 2.
"""

import argparse
import json
import math
import signal
import statistics
import subprocess
from collections.abc import Callable, Mapping

import keras

from benchmarks.contestants import (
    CONVOLUTION,
    INPUT_DEPENDENT,
    LOCALLY_CONNECTED,
    LOW_RANK,
    RELEASE,
    contestants,
)
from benchmarks.memory import alone, megabytes
from benchmarks.peers import local_peer_names
from benchmarks.steps import first_and_median_seconds, inference_step, training_step
from benchmarks.workloads import WORKLOADS

RANKS, FEW_RANKS = (4, 10, 30), (4, 10)
# Of each layer whose memory is measured.
PROCESSES = 5
TABLE = """
| float32, training step, {backend} | must, on TensorFlow | aim | measured |
|---|---|---|---|
| fixed low rank on W1, K = 4, 10, 30, against `Conv2D` | <= 2.5x | 1.5x | {low_rank} |
| fixed low rank on W1, K = 30 against K = 4 | <= 1.2x | 1.05x | {most_against_few:.2f}x |
| fixed low rank on W1, K = 30, against the release's | >= 12x faster | 20x | {release:.1f}x |
| `LocallyConnected2D` on W1 against `Conv2D` | <= 2.5x | 1.5x | {local:.2f}x |
| `LocallyConnected2D` on W1 against {peer} | >= 6x faster | 10x | {local_peer:.1f}x |
| `LocallyConnected2D` on W1, build + traces, against {peer} | >= 10x faster | | {traces:.1f}x |
| `LocallyConnected2D` on W1, peak memory, against {peer} | <= 0.6x | | {memory} |
| input-dependent on W1, K = 4, 10, against `Conv2D` | <= 1.15 K | 0.8 K | {dependent} |
| input-dependent on W1, inference, peak memory of K = 10 against K = 1 | <= 1.3x | | {inference} |
| fixed low rank on W2, K = 4, against `Conv2D` | <= 1.8x | 1.3x | {small_maps:.2f}x |"""
Ratio = Callable[[str, str], float]


Times = list[dict[str, float]]
ONE_AFTER_ANOTHER = {"TF_NUM_INTEROP_THREADS": "1"}


def measure(workload: str, names: list[str], rounds: int) -> tuple[Ratio, Ratio]:
    """Times the layers of these names in turn, in a process of their own.

    Returns:
        Functions of two names: the ratio of their training steps, and of their seconds to build
        and to trace a step of inference and one of training.
    """
    wanted = [workload, names, rounds]
    try:
        traces, steps = alone("benchmarks.targets", wanted)
    except subprocess.CalledProcessError as error:
        _expect_lack_of_memory(error)
        print(f"{workload}: {ONE_AFTER_ANOTHER}, since the processes took too much memory")
        traces, steps = alone("benchmarks.targets", wanted, ONE_AFTER_ANOTHER)
    return _ratio(steps), _ratio(traces)


def _ratio(seconds: Mapping[str, float]) -> Ratio:
    return lambda one, other: seconds[one] / seconds[other]


def _expect_lack_of_memory(error: subprocess.CalledProcessError) -> None:
    if error.returncode != -signal.SIGKILL:
        print(error.stderr)
        raise error


def _measure_here(workload: str, names: list[str], rounds: int) -> Times:
    made = contestants(WORKLOADS[workload], names)
    shape = WORKLOADS[workload].input_shape
    # The first step builds the layer, too.
    inference, _ = first_and_median_seconds(made, shape, inference_step, rounds=1)
    training, seconds = first_and_median_seconds(made, shape, training_step, rounds)
    return [{name: inference[name] + training[name] for name in names}, dict(seconds)]


def figures(rounds: int) -> dict[str, str | float]:
    """Returns what the table's last column says."""
    (peer,) = local_peer_names(WORKLOADS["W1"])
    low_rank = [f"{LOW_RANK}{rank}" for rank in RANKS]
    dependent = {rank: f"{INPUT_DEPENDENT}{rank}" for rank in FEW_RANKS}
    release = f"{RELEASE}{RANKS[-1]}"
    few, *_, most = low_rank
    names = [CONVOLUTION, *low_rank, *dependent.values(), release, LOCALLY_CONNECTED, peer]
    memory = _memory(LOCALLY_CONNECTED, peer, training=True)
    ratio, traces = measure("W1", names, rounds)
    small_maps, _ = measure("W2", [CONVOLUTION, few], rounds)
    return {
        "backend": keras.backend.backend(),
        "peer": peer,
        "low_rank": ", ".join(f"{ratio(name, CONVOLUTION):.2f}x" for name in low_rank),
        "most_against_few": ratio(most, few),
        "release": ratio(release, most),
        "local": ratio(LOCALLY_CONNECTED, CONVOLUTION),
        "local_peer": ratio(peer, LOCALLY_CONNECTED),
        "traces": traces(peer, LOCALLY_CONNECTED),
        "memory": memory,
        "dependent": ", ".join(
            f"{ratio(name, CONVOLUTION) / rank:.2f} K" for rank, name in dependent.items()
        ),
        "inference": _memory(dependent[10], f"{INPUT_DEPENDENT}1", training=False),
        "small_maps": small_maps(few, CONVOLUTION),
    }


def _memory(one: str, other: str, training: bool) -> str:
    """Compares peaks of whole processes, which for many parallel products differ widely."""
    first, second = (
        statistics.median(_peak(name, training) for _ in range(PROCESSES)) for name in (one, other)
    )
    return f"{first / second:.2f}x ({first:,} of {second:,} MB)"


def _peak(name: str, training: bool) -> float:
    """Returns the megabytes that a layer's step takes, infinitely many if there are too few."""
    try:
        return megabytes(WORKLOADS["W1"], name, training).peak
    except subprocess.CalledProcessError as error:
        _expect_lack_of_memory(error)
        return math.inf


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_measure_here(*json.loads(arguments.one))))
        return
    print(TABLE.format(**figures(arguments.rounds)))


if __name__ == "__main__":
    main()
