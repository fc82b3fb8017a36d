"""Errors under rotations by 45 degrees of layers with eight orientations, beside escnn's.

    pip install escnn==1.0.11      # with PyTorch; without it its column stays empty
    KERAS_BACKEND=torch python -m benchmarks.oblique

Prints, for each kernel size, the relative error of a first layer with initial weights, as
`check_equivariance` measures it on noise smoothed by a Gaussian: the mean over layers drawn with
different seeds. escnn's layer is one of ours with escnn's kernel, expanded.
"""

import argparse
from typing import Any

import keras
import numpy as np
from scipy import ndimage

from low_rank_local_connectivity.layers import GroupLiftConv2D

FILTERS, SIZE = 20, 41


class ExpandedLiftConv2D(GroupLiftConv2D):
    """A layer whose kernel is given in all orientations."""

    plain_kernel: Any = None


def expanded(kernel_size: int) -> np.ndarray:
    """Returns an initial kernel of escnn's, `(k, k, 1, 8 * filters)`, as `plain_kernel` has it."""
    from escnn import gspaces, nn  # pyright: ignore[reportMissingImports]

    space = gspaces.rot2dOnR2(8)
    images = nn.FieldType(space, [space.trivial_repr])
    maps = nn.FieldType(space, FILTERS * [space.regular_repr])
    found = nn.R2Conv(images, maps, kernel_size, bias=False).expand_parameters()[0].detach().numpy()
    by_filter = found.reshape(FILTERS, 8, 1, kernel_size, kernel_size)
    return by_filter.transpose(3, 4, 2, 1, 0).reshape(kernel_size, kernel_size, 1, -1)


def layer_of(name: str, kernel_size: int) -> GroupLiftConv2D:
    """Makes a layer by the name of its column."""
    bases: dict[str, Any] = {"taps": "taps", "steerable": "steerable"}
    if name in bases:
        return GroupLiftConv2D(FILTERS, kernel_size, 8, use_bias=False, basis=bases[name])
    layer = ExpandedLiftConv2D(FILTERS, kernel_size, 8, use_bias=False)
    layer.plain_kernel = expanded(kernel_size)
    return layer


def has_escnn() -> bool:
    """Whether escnn can be imported."""
    try:
        import escnn  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return True


def mean_error(name: str, kernel_size: int, smoothness: float, draws: int) -> float:
    """Measures layers drawn with different seeds."""
    errors = []
    for seed in range(draws):
        keras.utils.set_random_seed(seed)
        noise = np.random.default_rng(seed).normal(size=(4, SIZE, SIZE, 1))
        images = ndimage.gaussian_filter(noise, (0, smoothness, smoothness, 0))
        found = layer_of(name, kernel_size).check_equivariance(images)
        errors.append(found["rotation by 45 degrees"])
    return float(np.mean(errors))


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kernel_sizes", default="3,5,7")
    parser.add_argument("--smoothness", default="1.5,2,3", help="Standard deviations, in pixels.")
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    names = ["taps", "steerable", *(["escnn"] if has_escnn() else [])]
    print(f"| smoothness | kernel | {' | '.join(names)} |")
    print("|---" * (2 + len(names)) + "|", flush=True)
    for smoothness in map(float, arguments.smoothness.split(",")):
        for size in map(int, arguments.kernel_sizes.split(",")):
            errors = [mean_error(name, size, smoothness, arguments.draws) for name in names]
            cells = " | ".join(f"{error:.4f}" for error in errors)
            print(f"| {smoothness:g} | {size} x {size} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
