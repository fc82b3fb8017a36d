"""Pictures of what a model has learned."""

import itertools
import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.conversion import spatial_spectrum
from low_rank_local_connectivity.conversion.checks import LOCAL
from low_rank_local_connectivity.equivariance import Curve
from low_rank_local_connectivity.graph import require_model
from low_rank_local_connectivity.layers.low_rank_locally_connected import (
    LowRankLocallyConnected2D,
)
from low_rank_local_connectivity.ops.arguments import (
    boolean,
    finite_number,
    instance_of,
    mapping,
    real_number,
    received,
    sequence,
    tensor,
    text,
)

# Panels side by side, and input-dependent examples one below another.
COLUMNS = 8
EXAMPLES = 4
# Singular values below this share of the largest are rounding.
LEAST = 1e-6
# What a line of a picture is made of, for errors.
POINTS = "points (x, y, error of y)"


def _import_pyplot():
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib: pip install 'low-rank-local-connectivity[experiments]'."
        ) from error
    mpl.use("agg")
    from matplotlib import pyplot as plt

    return plt


def combining_weight_maps(model: keras.Model, path: str | Path, images=None) -> list[str]:
    """Draws where in the image each filter bank of a model is used.

    One panel per low-rank locally connected layer over 2 axes and bank: the bank's combining
    weight at every position, on one colour scale per layer. If the weights depend on the input,
    one row per example, behind the example itself.

    Args:
        model: Built functional or sequential model.
        path: The PNG to write.
        images: Examples for input-dependent layers, as the model takes them; the first
            4 are drawn.

    Returns:
        Names of the layers drawn. If no layer has combining weights to draw, the list is empty
        and nothing is written.

    Raises:
        ValueError: If weights depend on the input and no images are given.
        ImportError: If matplotlib is not installed.
    """
    require_model("combining_weight_maps", model)
    _require_plain(path)
    images = None if images is None else tensor("images", images, "bhwc")
    drawn = [
        layer
        for layer in model.layers
        if isinstance(layer, LowRankLocallyConnected2D) and layer.has_logits
    ]
    if not drawn:
        return []
    plt = _import_pyplot()
    rows = [row for layer in drawn for row in _rows_of(model, layer, images)]
    width = max(len(row) for row in rows)
    size = (1.5 * width + 0.8, 1.7 * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), width, figsize=size, squeeze=False, layout="constrained")
    for line, row in zip(axes, rows, strict=True):
        shown = None
        for axis, panel in zip(line, row, strict=False):
            if panel is None:
                axis.axis("off")
                continue
            title, values, limits = panel
            picture = axis.imshow(values, **limits)
            axis.set_title(title, fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
            shown = picture if "vmin" in limits else shown
        for axis in line[len(row) :]:
            axis.axis("off")
        if shown is not None:
            bar = figure.colorbar(shown, ax=list(line), fraction=0.02, pad=0.01)
            bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return [layer.name for layer in drawn]


def spatial_spectra(model: keras.Model, path: str | Path) -> list[str]:
    """Draws how much spatial rank the layers of a model use.

    One line per locally connected layer and low-rank layer with fixed weights: the singular
    values of the filters of all its positions, relative to the largest. Where a line falls is the
    rank at which the layer could be factorised.

    Args:
        model: Built functional or sequential model.
        path: The PNG to write.

    Returns:
        Names of the layers drawn. If the model has no such layer, the list is empty and nothing is
        written.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require_model("spatial_spectra", model)
    _require_plain(path)
    drawn = [
        layer
        for layer in model.layers
        if isinstance(layer, LOCAL) and not getattr(layer, "input_dependent", False)
    ]
    curves = {}
    for layer in drawn:
        values = spatial_spectrum(layer)
        shares = np.maximum(values / values[0], LEAST)
        curves[layer.name] = [(k + 1, share, 0.0) for k, share in enumerate(shares)]
    if curves:
        labels = ("number of the singular value", "share of the largest")
        lines_with_errors(curves, path, *labels, log_y=True)
    return list(curves)


def lines_with_errors(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    path: str | Path,
    x_label: str,
    y_label: str,
    title: str = "",
    levels: Mapping[str, float] | None = None,
    log_y: bool = False,
    log_x: bool = True,
) -> None:
    """Draws values with their errors against a quantity.

    Args:
        curves: For each line's name, points `(x, y, error of y)`; a single point is a marker, and
            a line without any keeps its colour for a second picture of the same lines.
        path: The PNG to write.
        x_label: What `x` is, with its unit.
        y_label: What `y` is, with its unit.
        title: Title of the picture.
        levels: Horizontal lines to compare with, by name.
        log_y: Whether the values are on a logarithmic axis.
        log_x: Whether the quantity is.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> picture = Path(tempfile.mkdtemp()) / "rank.png"
        >>> curves = {"layer 3": [(1, 98.9, 0.1), (2, 99.2, 0.1), (4, 99.4, 0.1)]}
        >>> lines_with_errors(curves, picture, "rank K", "test accuracy, %")
        >>> picture.exists()
        True
    """
    _require_plain(path, x_label=x_label, y_label=y_label, title=title)
    log_y, log_x = boolean("log_y", log_y), boolean("log_x", log_x)
    _require_lines(curves, {} if levels is None else levels)
    plt = _import_pyplot()
    figure, axis = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    colours = [plt.get_cmap(name)(index) for name in ("tab10", "Dark2") for index in range(8)]
    for colour, (name, points) in zip(itertools.cycle(colours), curves.items(), strict=False):
        if not points:
            continue
        x, y, error = zip(*sorted(points), strict=True)
        axis.errorbar(x, y, error, marker="o", markersize=4, capsize=3, label=name, color=colour)
    for name, level in (levels or {}).items():
        axis.axhline(level, color="gray", linestyle="--", linewidth=1, label=name)
    if log_x:
        axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log")
    ticks = sorted({point[0] for points in curves.values() for point in points})
    if len(ticks) <= 8:
        axis.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.set_title(title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def equivariance_curves(
    curves: Mapping[str, Curve],
    path: str | Path,
    x_label: str = "shift, pixels",
    y_label: str = "equivariance error",
    title: str = "",
    log_y: bool = False,
) -> None:
    """Draws quantities against the parameter of a transform, in bands of their standard error.

    Args:
        curves: What `equivariance.curve` or `accuracy_under_shifts` returns, by the line's name.
        path: The PNG to write.
        x_label: What the parameter is, with its unit.
        y_label: What the quantity is, with its unit.
        title: Title of the picture.
        log_y: Whether the quantity is on a logarithmic axis; then zeros are not drawn.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> picture = Path(tempfile.mkdtemp()) / "error.png"
        >>> curve = Curve(np.array([0.0, 1.0]), np.array([[0.0, 0.0], [0.4, 0.6]]))
        >>> equivariance_curves({"padding='same'": curve}, picture)
        >>> picture.exists()
        True
    """
    _require_plain(path, x_label=x_label, y_label=y_label, title=title)
    log_y = boolean("log_y", log_y)
    for curve in mapping("curves", curves, "names to curves").values():
        instance_of("curves", curve, Curve)
    plt = _import_pyplot()
    figure, axis = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for name, curve in curves.items():
        order = np.argsort(curve.values)
        x, y, error = (z[order] for z in (curve.values, curve.mean, curve.standard_error))
        (line,) = axis.plot(x, y, marker="o", markersize=4, label=name)
        axis.fill_between(x, y - error, y + error, alpha=0.2, color=line.get_color(), linewidth=0)
    if log_y:
        axis.set_yscale("log", nonpositive="mask")
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.set_title(title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def bars_with_errors(
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    path: str | Path,
    y_label: str,
    title: str = "",
) -> None:
    """Draws groups of bars with their errors, side by side, from just below the lowest or from 0.

    Args:
        groups: For each group's name, each bar's name, value and error.
        path: The PNG to write.
        y_label: What the values are, with their unit.
        title: Title of the picture.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> picture = Path(tempfile.mkdtemp()) / "bars.png"
        >>> bars = {"fixed": (97.7, 0.1), "input-dependent": (97.5, 0.1)}
        >>> bars_with_errors({"celeba32": bars}, picture, "test accuracy, %")
        >>> picture.exists()
        True
    """
    _require_plain(path, y_label=y_label, title=title)
    for bars in mapping("groups", groups, "names to bars").values():
        for bar in mapping("groups", bars, "names to pairs (value, error)").values():
            _require_numbers("groups", bar, 2)
    plt = _import_pyplot()
    width = 1.5 + 0.45 * sum(len(bars) + 1 for bars in groups.values())
    figure, axis = plt.subplots(figsize=(max(width, 4.5), 4.2), layout="constrained")
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    tab10 = plt.get_cmap("tab10")
    colours = {name: tab10(index % 10) for index, name in enumerate(names)}
    ticks, left, labelled = [], 0.0, set()
    for bars in groups.values():
        for offset, (name, (value, error)) in enumerate(bars.items()):
            label = None if name in labelled else name
            labelled.add(name)
            place = left + offset
            axis.bar(place, value, 0.9, yerr=error, color=colours[name], label=label, capsize=3)
        ticks.append(left + (len(bars) - 1) / 2)
        left += len(bars) + 1
    lowest = min(value - error for bars in groups.values() for value, error in bars.values())
    highest = max(value + error for bars in groups.values() for value, error in bars.values())
    bottom = lowest - 0.25 * (highest - lowest + 1e-6)
    axis.set_ylim(bottom if lowest < 0 else max(bottom, 0), None)
    # A group of two bars is as wide as about 15 letters.
    letters = 7 * max(2, *map(len, groups.values()))
    axis.set_xticks(ticks, labels=[textwrap.fill(group, letters) for group in groups])
    axis.set_ylabel(y_label)
    axis.set_title(title)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _require_plain(path: Any, **texts: Any) -> None:
    """Refuses a path that is none, and texts that are none."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            f"`path` must be the path of the PNG to write. Received: {received('path', path)}."
        )
    for name, value in texts.items():
        text(name, value)


def _require_lines(curves: Any, levels: Any) -> None:
    for points in mapping("curves", curves, f"names to lists of {POINTS}").values():
        for point in sequence("curves", points, POINTS):
            _require_numbers("curves", point, 3)
    for level in mapping("levels", levels, "names to numbers").values():
        finite_number("levels", level)


def _require_numbers(name: str, values: Any, count: int) -> None:
    """Refuses anything but so many numbers; NaN is an error that is not known."""
    found = sequence(name, values, "numbers")
    if len(found) != count:
        raise ValueError(
            f"`{name}` must hold {count} numbers for each point. Received: "
            f"{received(name, values)}."
        )
    for value in found:
        real_number(name, value)


def _rows_of(model: keras.Model, layer: LowRankLocallyConnected2D, images) -> list[list]:
    """Returns rows of panels `(title, values, colour limits)` for one layer."""
    if not layer.input_dependent:
        weights = keras.ops.convert_to_numpy(layer.combining_weights())
        limits = _limits(layer, weights)
        panels = [
            (f"{layer.name}\nbank {k + 1} of {layer.spatial_rank}", weights[..., k], limits)
            for k in range(layer.spatial_rank)
        ]
        return _wrap(panels)
    if images is None:
        raise ValueError(
            f"The combining weights of layer {layer.name!r} depend on the input. Received: "
            "images=None. Give examples to draw them for."
        )
    images = images[:EXAMPLES]
    before = keras.Model(model.inputs[0], layer.input)
    weights = keras.ops.convert_to_numpy(layer.combining_weights(before(images, training=False)))
    limits = _limits(layer, weights)
    rows = []
    for index, image in enumerate(keras.ops.convert_to_numpy(images)):
        panels = [(f"example {index + 1}", _displayable(image), {"cmap": "gray"})]
        panels += [
            (f"{layer.name}\nbank {k + 1} of {layer.spatial_rank}", weights[index, ..., k], limits)
            for k in range(layer.spatial_rank)
        ]
        rows += _wrap(panels)
    return rows


def _wrap(panels: list) -> list[list]:
    lines = math.ceil(len(panels) / COLUMNS)
    return [panels[line * COLUMNS : (line + 1) * COLUMNS] for line in range(lines)]


def _limits(layer: LowRankLocallyConnected2D, weights: np.ndarray) -> dict:
    """Returns colours: from 0 up for weights of a softmax, else alike around 0."""
    if layer.normalize_weights == "softmax":
        return {"cmap": "viridis", "vmin": 0.0, "vmax": float(weights.max())}
    largest = float(np.abs(weights).max())
    return {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}


def _displayable(image: np.ndarray) -> np.ndarray:
    """Returns an image in [0, 1]: in colour if it has three channels, else their mean."""
    low, high = image.min(), image.max()
    scaled = (image - low) / max(high - low, 1e-6)
    return scaled if scaled.shape[-1] == 3 else scaled.mean(axis=-1)
