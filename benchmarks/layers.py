"""Seconds of every layer against an ordinary convolution of the same shapes.

    KERAS_BACKEND=tensorflow python -m benchmarks.layers --workloads=W1,W3 --ranks=4,30

Prints one row per layer and rank: seconds to build it and for its first inference and training
step, which trace it; then median milliseconds, and how many convolutions that is, for inference
and for a training step (forward and backward). All layers of a workload run in turn in one
process; on a shared machine only the ratios mean anything.
"""

import argparse

import keras

from benchmarks.contestants import CONVOLUTION, contestants, names
from benchmarks.steps import first_and_median_seconds, inference_step, training_step
from benchmarks.workloads import RANKS, WORKLOADS


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", help="of the layers: a Keras dtype policy")
    parser.add_argument("--only_ours", action="store_true", help="leave the peers out")
    arguments = parser.parse_args()
    ranks = [int(rank) for rank in arguments.ranks.split(",")]
    keras.config.set_dtype_policy(arguments.dtype)
    print(f"Keras {keras.__version__} on {keras.backend.backend()}")
    for name in arguments.workloads.split(","):
        workload = WORKLOADS[name]
        made = contestants(workload, names(workload, ranks, arguments.only_ours))
        print(f"\n{name}: {workload}\n")
        print("| layer | build + traces, s | inference, ms | x conv | training, ms | x conv |")
        print("|---|---|---|---|---|---|", flush=True)
        first = dict.fromkeys(made, 0.0)
        columns = []
        for make_step in (inference_step, training_step):
            started, seconds = first_and_median_seconds(
                made, workload.input_shape, make_step, arguments.rounds
            )
            first = {key: first[key] + started[key] for key in made}
            columns.append(seconds)
        for key in made:
            cells = [f"{first[key]:.2f}"]
            for column in columns:
                ratio = column[key] / column[CONVOLUTION]
                cells.append(f"{1000 * column[key]:.1f} | {ratio:.2f}")
            print(f"| {key} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
