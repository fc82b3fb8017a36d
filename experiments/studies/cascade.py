"""A cascade of dilated convolutions is one convolution: where that holds, in numbers."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import FullConv2D, conversion
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    main,
    mean,
    rows,
    values,
)

# Dilations that are powers of the kernel's size: the kernels' Kronecker product.
TAPS, LEVELS = 3, 3
DILATIONS = tuple(TAPS**level for level in range(LEVELS))
WIDTH = TAPS**LEVELS
# How far the merged kernel reads to each side.
REACH = WIDTH // 2
SIZE = 2 * WIDTH + 2
CHANNELS = (2, 3, 4, 5)
CONDITIONS = {
    f"{padding}, {channels}": (padding, channels == "several channels")
    for padding in ("valid", "full", "same")
    for channels in ("one channel", "several channels")
}


def cascade(padding: str, several: bool) -> Any:
    """Returns linear convolutions whose dilations are 1, 3 and 9, with random kernels."""
    channels = CHANNELS if several else (1,) * len(CHANNELS)
    parts: list[Any] = [keras.Input((SIZE, SIZE, channels[0]))]
    for filters, dilation in zip(channels[1:], DILATIONS, strict=True):
        if padding == "full":
            parts.append(FullConv2D(filters, TAPS, dilation_rate=dilation))
        else:
            layer = keras.layers.Conv2D(
                filters, TAPS, padding=padding, dilation_rate=dilation, use_bias=False
            )
            parts.append(layer)
    return keras.Sequential(parts)


def merged(kernels: list[np.ndarray]) -> np.ndarray:
    """Returns the kernel of the whole cascade, from its definition.

    Of one channel it is the Kronecker product, the last layer's kernel being the coarsest; over
    channels the product is that of matrices.
    """

    def two(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        product = np.einsum("ijac,klcb->kiljab", fine, coarse)
        rows, inner, columns, _, first, last = product.shape
        return product.reshape(rows * inner, columns * inner, first, last)

    return functools.reduce(two, kernels)


def measure(condition: tuple[str, bool], seed: int, options: Options) -> dict[str, Any]:
    """Compares the cascade with one convolution by the merged kernel."""
    del options
    padding, several = condition
    model = cascade(padding, several)
    kernels = [np.asarray(weight, "float64") for weight in model.get_weights()]
    kernel = merged(kernels)
    if padding == "full":
        one: Any = FullConv2D(kernel.shape[-1], WIDTH)
    else:
        one = keras.layers.Conv2D(kernel.shape[-1], WIDTH, padding=padding, use_bias=False)
    images = np.random.default_rng(seed).normal(size=(2, *model.input_shape[1:])).astype("float32")
    one.build(images.shape)
    one.set_weights([kernel])
    single = keras.Sequential([keras.Input(images.shape[1:]), one])
    expected, found = model.predict(images, verbose=0), single.predict(images, verbose=0)
    apart = np.abs(found - expected).max(axis=(0, 3)) / np.abs(expected).max()
    inside = apart[REACH:-REACH, REACH:-REACH] if padding == "same" else apart
    result = {"everywhere": float(apart.max()), "away from the border": float(inside.max())}
    if padding != "same":
        layer = conversion.merge_cascade(model.layers)
        result["merge_cascade"] = float(
            np.abs(np.asarray(layer.get_weights()[0]) - kernel).max() / np.abs(kernel).max()
        )
    if not several:
        product = functools.reduce(np.kron, [one[:, :, 0, 0] for one in reversed(kernels)])
        result["numpy.kron"] = float(np.abs(product - kernel[:, :, 0, 0]).max())
    return result


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares rounding with what borders change."""
    exact = [runs for name, runs in found.items() if not name.startswith("same")]
    same = [runs for name, runs in found.items() if name.startswith("same")]
    largest = max(max(values(runs, "everywhere")) for runs in exact)
    border = min(min(values(runs, "everywhere")) for runs in same)
    inside = max(max(values(runs, "away from the border")) for runs in same)
    sentence = (
        f"Valid and full: at most {largest:.1e} of the largest output apart; same: at least "
        f"{border:.2g} somewhere, at most {inside:.1e} from {REACH} pixels off the border on."
    )
    return sentence, largest < 1e-5 and inside < 1e-5 and border > 1e-2


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each padding and number of channels."""
    names = ("everywhere", "away from the border", "merge_cascade", "numpy.kron")
    lines = []
    for condition, runs in found.items():
        cells = [f"{mean(runs, name):.1e}" if name in runs[0]["found"] else "" for name in names]
        lines.append([condition, *cells])
    header = ["cascade", "apart", f"from {REACH} pixels on", "conversion's kernel", "Kronecker's"]
    note = (
        f"\n\nThree {TAPS} x {TAPS} kernels with dilations {DILATIONS} against one of {WIDTH} x "
        f"{WIDTH}: {LEVELS * TAPS**2} parameters instead of {WIDTH**2} for one channel. Largest "
        "differences over the largest output, or of kernels, in float32; means over seeds."
    )
    return rows(header, lines) + note


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws where the cascade with same padding differs from its merged kernel."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    del found
    keras.utils.set_random_seed(0)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for axis, padding in zip(axes, ("valid", "full", "same"), strict=True):
        model = cascade(padding, several=False)
        kernel = merged([np.asarray(weight) for weight in model.get_weights()])
        image = np.random.default_rng(0).normal(size=(1, SIZE, SIZE, 1)).astype("float32")
        expected = model.predict(image, verbose=0)
        if padding == "full":
            image = np.pad(image, [(0, 0), (WIDTH - 1,) * 2, (WIDTH - 1,) * 2, (0, 0)])
        one = keras.ops.conv(image, kernel, padding="same" if padding == "same" else "valid")
        apart = np.abs(keras.ops.convert_to_numpy(one) - expected)[0, ..., 0]
        shown = np.log10(apart / np.abs(expected).max() + 1e-9)
        picture = axis.imshow(shown, vmin=-9, vmax=0, cmap="magma")
        axis.set(title=padding, xticks=[], yticks=[])
    figure.colorbar(picture, ax=axes, label="difference, log10 of the largest output")
    figure.savefig(path, dpi=130)
    plt.close(figure)


STUDY = Study(
    name="cascade",
    claim="Linear convolutions whose dilations are powers of their size are one large convolution, "
    "by the Kronecker product of their kernels, with valid and full padding; with same padding "
    "only away from the border.",
    criterion="Valid and full within 1e-5 of the largest output everywhere, same only inside.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
)

if __name__ == "__main__":
    main(STUDY)
