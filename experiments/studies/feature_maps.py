"""Draws what valid, same and full convolutions make of an object in a corner and in the middle.

    python -m low_rank_local_connectivity.experiments.studies.feature_maps

Three layers of random 3x3 filters with ReLU; of each padding one channel of the last map, for an
object in the middle, at the border and in the corner, and the largest response, over all of it.
"""

import argparse

import keras
import numpy as np

from low_rank_local_connectivity import FullConv2D
from low_rank_local_connectivity.experiments.studies.study import RESULTS
from low_rank_local_connectivity.training.records import given_path

SIZE, THING = 24, 7
PLACES = {"middle": (8, 9), "border": (8, 0), "corner": (0, 0)}
WIDTHS = (8, 8, 1)


def networks() -> dict[str, keras.Sequential]:
    """Returns the same three layers with every padding."""
    found = {}
    weights = None
    for padding in ("valid", "same", "full"):
        layers = []
        for filters in WIDTHS:
            drawn = keras.initializers.HeNormal(seed=filters + len(layers))
            if padding == "full":
                layer = FullConv2D(filters, 3, kernel_initializer=drawn)
            else:
                layer = keras.layers.Conv2D(
                    filters, 3, padding=padding, use_bias=False, kernel_initializer=drawn
                )
            layers += [layer, keras.layers.ReLU()]
        model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), *layers])
        weights = weights or model.get_weights()
        model.set_weights(weights)
        found[padding] = model
    return found


def main() -> None:
    """Draws the picture."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    parser = argparse.ArgumentParser(description="Draws feature maps of three paddings.")
    parser.add_argument("--output", type=given_path, default=RESULTS)
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    images = np.zeros((len(PLACES), SIZE, SIZE, 1), "float32")
    thing = np.random.default_rng(4).uniform(0.2, 1, (THING, THING, 1))
    for image, (row, column) in zip(images, PLACES.values(), strict=True):
        image[row : row + THING, column : column + THING] = thing
    maps = {name: keras.ops.convert_to_numpy(model(images)) for name, model in networks().items()}
    figure, axes = plt.subplots(len(PLACES), 4, figsize=(9, 7), layout="constrained")
    highest = max(found.max() for found in maps.values())
    for row, place in enumerate(PLACES):
        axes[row, 0].imshow(images[row, ..., 0], cmap="gray", vmin=0, vmax=1)
        axes[row, 0].set_ylabel(f"object in the {place}" if place != "border" else "at the border")
        for column, (name, found) in enumerate(maps.items(), 1):
            axis = axes[row, column]
            axis.imshow(found[row, ..., 0], cmap="viridis", vmin=0, vmax=highest)
            largest, size = found[row].max(), found.shape[1]
            axis.set_xlabel(f"{size} x {size}, largest {largest:.3f}", fontsize=8)
            if row == 0:
                axis.set_title(name)
    axes[0, 0].set_title("image")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(folder / "feature_maps.png", dpi=130)


if __name__ == "__main__":
    main()
