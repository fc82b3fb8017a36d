"""Seconds of every layer against an ordinary convolution of the same shapes.

    KERAS_BACKEND=tensorflow python -m benchmarks.layers --workloads=W1,W3 --ranks=4,30

Prints one row per layer and rank: median milliseconds, and how many convolutions that is, for
inference and for a training step (forward and backward). All layers of a workload run in turn in
one process; on a shared machine only the ratios mean anything.
"""

import argparse

import keras

from benchmarks.peers import ReleaseFormula, local_peers
from benchmarks.steps import alternate, inference_step, training_step
from benchmarks.workloads import RANKS, WORKLOADS, Workload


def contestants(workload: Workload, ranks: list[int], only_ours: bool) -> dict[str, keras.Layer]:
    """Returns the layers to time, by name."""
    made = {"convolution": workload.convolution()}
    for rank in ranks:
        made[f"low rank, K={rank}"] = workload.low_rank(rank)
    for rank in ranks:
        made[f"input-dependent, K={rank}"] = workload.low_rank(rank, input_dependent=True)
    made["locally connected"] = workload.locally_connected()
    if not only_ours:
        for rank in ranks:
            made[f"release's formula, K={rank}"] = ReleaseFormula(workload, rank)
        made |= local_peers(workload)
    return made


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only_ours", action="store_true", help="leave the peers out")
    arguments = parser.parse_args()
    ranks = [int(rank) for rank in arguments.ranks.split(",")]
    print(f"Keras {keras.__version__} on {keras.backend.backend()}")
    for name in arguments.workloads.split(","):
        workload = WORKLOADS[name]
        made = contestants(workload, ranks, arguments.only_ours)
        print(f"\n{name}: {workload}\n")
        print("| layer | inference, ms | x conv | training step, ms | x conv |")
        print("|---|---|---|---|---|")
        columns = []
        for make_step in (inference_step, training_step):
            steps = {key: make_step(layer, workload.input_shape) for key, layer in made.items()}
            columns.append(alternate(steps, arguments.rounds))
        for key in made:
            cells = []
            for column in columns:
                ratio = column[key] / column["convolution"]
                cells.append(f"{1000 * column[key]:.1f} | {ratio:.2f}")
            print(f"| {key} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
