"""Pictures of large kernels that have few parameters.

    python -m low_rank_local_connectivity.experiments.studies.kronecker_pictures --output=pictures

Writes `kronecker_kernels.png`: kernels of 27 x 27 taps, drawn at random in families that a layer
can learn: Kronecker products of three 3 x 3 kernels (27 parameters), of one such kernel three
times (9), sums of two products (54), and outer products of two vectors (54) or of one vector with
itself (27). About as many parameters give a fractal texture in one family and stripes in the other.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

SIZE = 27
EXAMPLES = 5


def kronecker(factors: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the Kronecker product of several kernels, the coarsest first."""
    return functools.reduce(np.kron, factors)


def three_factors(generator: np.random.Generator) -> np.ndarray:
    """Draws a product of three kernels."""
    return kronecker(generator.normal(size=(3, 3, 3)))


def self_similar(generator: np.random.Generator) -> np.ndarray:
    """Draws a product of one kernel three times."""
    return kronecker([generator.normal(size=(3, 3))] * 3)


def two_terms(generator: np.random.Generator) -> np.ndarray:
    """Draws a sum of two products of three kernels."""
    return three_factors(generator) + three_factors(generator)


def outer_product(generator: np.random.Generator) -> np.ndarray:
    """Draws a kernel of rank 1: a column of taps times a row of them."""
    return np.outer(*generator.normal(size=(2, SIZE)))


def outer_square(generator: np.random.Generator) -> np.ndarray:
    """Draws a symmetric kernel of rank 1: a vector times itself."""
    vector = generator.normal(size=SIZE)
    return np.outer(vector, vector)


@dataclasses.dataclass(frozen=True)
class Family:
    """Kernels of one form.

    Args:
        title: What they are.
        parameters: How many numbers make one.
        draw: Draws one.
    """

    title: str
    parameters: int
    draw: Callable[[np.random.Generator], np.ndarray]


FAMILIES = (
    Family("Kronecker product\nof three 3 x 3 kernels", 27, three_factors),
    Family("Self-similar: one 3 x 3\nkernel, three times", 9, self_similar),
    Family("Sum of two\nKronecker products", 54, two_terms),
    Family("Rank 1: outer product\nof two vectors of 27", 54, outer_product),
    Family("Rank 1: one vector of 27\nwith itself", 27, outer_square),
)


def shade(kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel as tones from -1 to 1, small values kept visible beside large ones.

    Products of many random numbers have a few very large values; the cube root, one for each
    factor of a Kronecker product, evens them out and keeps signs and zeros.
    """
    tones = np.cbrt(kernel)
    return tones / np.abs(tones).max()


def draw(path: Path, seed: int = 0) -> None:
    """Draws examples of every family.

    Args:
        path: The PNG to write.
        seed: Seed of the kernels.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    generator = np.random.default_rng(seed)
    figure, axes = plt.subplots(
        len(FAMILIES), EXAMPLES, figsize=(1.75 * EXAMPLES + 2.4, 1.8 * len(FAMILIES) + 0.8)
    )
    # Margins by hand: the families' names stand beside the rows, outside the axes.
    figure.subplots_adjust(left=0.23, right=0.985, bottom=0.085, top=0.94, wspace=0.06, hspace=0.08)
    for family, line in zip(FAMILIES, axes, strict=True):
        for axis in line:
            picture = axis.imshow(shade(family.draw(generator)), cmap="RdBu_r", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color("0.6")
        title = f"{family.title}\n{family.parameters} parameters"
        line[0].text(
            -0.08, 0.5, title, transform=line[0].transAxes, ha="right", va="center", fontsize=9
        )
    figure.suptitle(
        f"Kernels of {SIZE} x {SIZE} = {SIZE**2} taps, drawn at random", fontsize=12, y=0.98
    )
    bar = figure.colorbar(
        picture, cax=figure.add_axes((0.44, 0.05, 0.33, 0.013)), orientation="horizontal"
    )
    bar.set_ticks([-1, 0, 1], labels=["negative", "0", "positive"], fontsize=8)
    bar.set_label("cube root of the weight, over the largest of its kernel", fontsize=8)
    bar.outline.set_edgecolor("0.6")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Draws into the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Draws large kernels of few parameters.")
    parser.add_argument(
        "--output",
        type=lambda text: Path(text).expanduser(),
        required=True,
        help="folder of the PNG",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(arguments.output / "kronecker_kernels.png", arguments.seed)


if __name__ == "__main__":
    main()
