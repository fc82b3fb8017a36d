"""Seconds of a Kronecker convolution's two strategies against an ordinary convolution.

    KERAS_BACKEND=tensorflow python -m benchmarks.kronecker --workloads=K1,K4

Prints one row per workload: how many times fewer multiply-adds the two steps need
(`plans.multiply_adds`), what `strategy="auto"` takes, and for inference and for a training step
(forward and backward) milliseconds of the convolution and how many convolutions either strategy
is. All three run in turn in one process; on a shared machine only the ratios mean anything.
"""

import argparse
import dataclasses
import math

import keras

from benchmarks.steps import alternate, inference_step, training_step
from low_rank_local_connectivity.layers import KroneckerConv2D
from low_rank_local_connectivity.plans import multiply_adds

CONVOLUTION = "convolution"
STRATEGIES = ("factored", "dense")


@dataclasses.dataclass(frozen=True)
class Workload:
    """One layer's shapes.

    Args:
        batch: Examples.
        size: Rows of an image, as many as columns.
        factors: Shapes of a term's coarse and fine kernel.
        rank: Number of terms.
        strides: Step between windows.
        padding: `"valid"` or `"same"`.
    """

    batch: int
    size: int
    factors: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
    rank: int = 1
    strides: int = 1
    padding: str = "same"

    @property
    def kernel(self) -> tuple[int, ...]:
        """Shape of the whole kernel."""
        return tuple(map(math.prod, zip(*self.factors, strict=True)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the inputs, channels last."""
        return (self.batch, self.size, self.size, self.kernel[2])

    @property
    def arguments(self) -> dict:
        """Arguments that both kinds of layer take."""
        return {
            "filters": self.kernel[3],
            "kernel_size": self.kernel[:2],
            "strides": self.strides,
            "padding": self.padding,
            "data_format": "channels_last",
        }

    def contestants(self) -> dict[str, keras.Layer]:
        """Makes the convolution and the Kronecker convolution in both strategies."""
        made: dict[str, keras.Layer] = {CONVOLUTION: keras.layers.Conv2D(**self.arguments)}
        for strategy in STRATEGIES:
            made[strategy] = self.kronecker(strategy)
        return made

    def kronecker(self, strategy: str) -> KroneckerConv2D:
        """Makes the Kronecker convolution of these shapes."""
        arguments = {"factors": self.factors, "rank": self.rank, "strategy": strategy}
        return KroneckerConv2D(**self.arguments, **arguments)

    def saving(self) -> float:
        """Returns how many times fewer multiply-adds the two steps need."""
        layer = self.kronecker("auto")
        outputs = layer.compute_output_shape(self.input_shape)[1:3]
        costs = multiply_adds(self.factors, self.rank, layer.strides, outputs)
        return costs["dense"] / costs["factored"]

    def __str__(self) -> str:
        rows, columns, channels, filters = self.kernel
        parts = " x ".join(f"({', '.join(map(str, one))})" for one in self.factors)
        terms = f", {self.rank} terms" if self.rank > 1 else ""
        stride = f", stride {self.strides}" if self.strides > 1 else ""
        image = f"{self.batch} of {self.size} x {self.size} x {channels}"
        return f"{rows} x {columns}, {channels} to {filters}, {parts}{terms}{stride}; {image}"


WORKLOADS = {
    # Large kernels.
    "K1": Workload(16, 64, ((9, 9, 1, 1), (3, 3, 8, 8))),
    "K2": Workload(32, 32, ((3, 3, 1, 1), (3, 3, 32, 32))),
    "K3": Workload(32, 32, ((7, 1, 1, 1), (1, 7, 32, 32))),
    # Blocks of channels.
    "K4": Workload(32, 28, ((3, 3, 8, 8), (1, 1, 8, 8))),
    "K5": Workload(32, 28, ((1, 1, 8, 8), (3, 3, 8, 8))),
    "K6": Workload(32, 28, ((1, 1, 16, 16), (1, 1, 16, 16))),
    "K7": Workload(32, 14, ((3, 3, 2, 2), (1, 1, 128, 128))),
    # Several terms.
    "K8": Workload(32, 28, ((3, 3, 8, 8), (1, 1, 8, 8)), rank=3),
    "K9": Workload(32, 28, ((3, 3, 8, 8), (1, 1, 8, 8)), rank=6),
    # Strides that the first step takes, and that it cannot.
    "K10": Workload(32, 32, ((3, 3, 1, 1), (2, 2, 32, 32)), strides=2),
    "K11": Workload(32, 32, ((3, 3, 1, 1), (3, 3, 32, 32)), strides=2),
    # Outputs smaller than what lies between the steps.
    "K12": Workload(32, 32, ((9, 9, 1, 1), (3, 3, 8, 8)), padding="valid"),
}


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"Keras {keras.__version__} on {keras.backend.backend()}\n")
    kinds = [f"{kind}, ms | factored | dense" for kind in ("inference", "training")]
    print(f"| kernel and images | multiply-adds saved | auto | {' | '.join(kinds)} |")
    print("|---" * 9 + "|", flush=True)
    for name in arguments.workloads.split(","):
        workload = WORKLOADS[name]
        made = workload.contestants()
        chosen = workload.kronecker("auto").chosen_strategy(workload.input_shape[1:3])
        cells = [f"{name}: {workload}", f"{workload.saving():.1f} x", chosen]
        for make_step in (inference_step, training_step):
            steps = {key: make_step(layer, workload.input_shape) for key, layer in made.items()}
            seconds = alternate(steps, arguments.rounds, warm_up=2)
            cells.append(f"{1000 * seconds[CONVOLUTION]:.1f}")
            cells += [f"{seconds[key] / seconds[CONVOLUTION]:.2f}" for key in STRATEGIES]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
