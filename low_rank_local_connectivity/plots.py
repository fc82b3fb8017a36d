"""Pictures of what a model has learned."""

import itertools
import math
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.conversion import spatial_spectrum
from low_rank_local_connectivity.conversion.checks import LOCAL, LOW_RANK, LowRank
from low_rank_local_connectivity.equivariance import Curve
from low_rank_local_connectivity.inspection.graph import calls_between, has_graph, require_model
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
# Pixels; matplotlib draws fewer than 2 ** 16.
HIGHEST = 60_000
# Letters in a line of a legend, and lines in a column.
LETTERS = 44
LINES = 24
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

    One panel per low-rank locally connected layer and bank: the bank's combining weight at every
    position, on one colour scale per layer. A layer over 1 axis gives strips; one over 3 axes its
    slices along the first, side by side. If the weights depend on the input, one row per example,
    behind the example itself.

    Args:
        model: Built model. Layers within other models and layers are drawn too.
        path: The PNG to write.
        images: Examples for input-dependent layers, as the model takes them, in a list or a
            dictionary if it has several inputs, of which the first is shown; the first 4 are drawn.

    Returns:
        Names of the layers drawn, `"outer/inner"` for one within another. If no layer has combining
        weights to draw, the list is empty and nothing is written. A warning names layers that
        depend on inputs out of sight, in Python or a wrapper, which are not drawn.

    Raises:
        ValueError: If weights depend on the input and no images are given, or not one tensor for
            each input.
        ImportError: If matplotlib is not installed.
    """
    require_model("combining_weight_maps", model)
    _require_plain(path)
    given = None if images is None else _one_per_input(model, images)
    drawn = {}
    for name, layer in _layers_of_kind(model, LOW_RANK):
        rows = _rows_of(model, name, layer, given) if layer.has_logits else []
        if rows:
            drawn[name] = rows
    if not drawn:
        return []
    plt = _import_pyplot()
    width = max(len(row) for rows in drawn.values() for row in rows)
    size = (max(1.2 * width + 0.8, 4.5), sum(1.4 * len(rows) + 0.4 for rows in drawn.values()))
    figure = plt.figure(figsize=size, layout="constrained")
    heights = [1.4 * len(rows) + 0.4 for rows in drawn.values()]
    parts = figure.subfigures(len(drawn), 1, squeeze=False, height_ratios=heights)
    for part, (name, rows) in zip(parts.ravel(), drawn.items(), strict=True):
        # About 14 letters to an inch.
        part.suptitle(textwrap.fill(name, int(14 * size[0])), fontsize=8, x=0.01, ha="left")
        _draw_panels(part, rows, width)
    figure.savefig(path, dpi=min(150, HIGHEST / size[1]))
    plt.close(figure)
    return list(drawn)


def _one_per_input(model: Any, images: Any) -> list[Any]:
    """Returns examples as a list with a tensor for each input of a model."""
    count = len(getattr(model, "inputs", None) or [None])
    given = [images] if count == 1 else keras.tree.flatten(images)
    if len(given) != count:
        raise ValueError(
            f"`images` must hold a tensor for each of the model's {count} inputs. "
            f"Received: {received('images', images)}."
        )
    return [tensor("images", one, "bSc") for one in given]


def _draw_panels(figure, rows: list[list], width: int) -> None:
    """Draws the rows of panels of one layer with a colour bar."""
    axes = figure.subplots(len(rows), width, squeeze=False)
    shown = None
    for line, row in zip(axes, rows, strict=True):
        for axis in line:
            axis.axis("off")
        for axis, (title, values, options) in zip(line, row, strict=False):
            axis.axis("on")
            axis.set_anchor("W")
            picture = axis.imshow(values, **options)
            axis.set_title(title, fontsize=7, pad=2)
            axis.set_xticks([])
            axis.set_yticks([])
            shown = picture if "vmin" in options else shown
    bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.01, aspect=15)
    bar.set_label("combining weight", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def _layers_of_kind(model: keras.Model, kind) -> list[tuple[str, Any]]:
    """Returns the layers of a kind at any depth, each once, with their paths."""
    found: dict[int, tuple[str, Any]] = {}

    def look_into(layer: Any, path: str) -> None:
        for one in layer._flatten_layers(include_self=False, recursive=False):
            name = f"{path}{one.name}"
            if isinstance(one, kind):
                found.setdefault(id(one), (name, one))
            else:
                look_into(one, f"{name}/")

    look_into(model, "")
    return list(found.values())


def spatial_spectra(model: keras.Model, path: str | Path) -> list[str]:
    """Draws how much spatial rank the layers of a model use.

    One line per locally connected layer and low-rank layer with fixed weights: the singular
    values of the filters of all its positions, relative to the largest. Where a line falls is the
    rank at which the layer could be factorised. Values below a millionth of the largest are
    rounding and not drawn, so the line of a low-rank layer ends at its rank.

    Args:
        model: Built model. Layers within other models and layers are drawn too.
        path: The PNG to write.

    Returns:
        Names of the layers drawn, `"outer/inner"` for one within another. If the model has no such
        layer whose filters are not all zero, the list is empty and nothing is written.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require_model("spatial_spectra", model)
    _require_plain(path)
    curves = {}
    for name, layer in _layers_of_kind(model, LOCAL):
        if getattr(layer, "input_dependent", False) and layer.has_logits:
            continue
        values = spatial_spectrum(layer)
        last = int((values > LEAST * values[0]).sum())
        if last:
            curves[name] = [(k + 1, values[k] / values[0], math.nan) for k in range(last)]
    if curves:
        labels = ("number of the singular value", f"share of the largest, above {LEAST:g}")
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
        curves: For each line's name, points `(x, y, error of y)`, the error `nan` if it is unknown;
            a single point is a marker, and a line without any keeps its colour for a second picture
            of the same lines.
        path: The PNG to write.
        x_label: What `x` is, with its unit.
        y_label: What `y` is, with its unit.
        title: Title of the picture.
        levels: Horizontal lines to compare with, by name.
        log_y: Whether the values are on a logarithmic axis; then zeros are not drawn.
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
    figure, axis = plt.subplots(layout="constrained")
    for (colour, dashes), (name, points) in zip(_styles(plt), curves.items(), strict=False):
        if not points:
            continue
        x, y, error = zip(*sorted(points), strict=True)
        style = {"marker": "o", "markersize": 4, "color": colour, "linestyle": dashes}
        axis.errorbar(x, y, error, capsize=3, label=name, **style)
    for name, level in (levels or {}).items():
        axis.axhline(level, color="gray", linestyle="--", linewidth=1, label=name)
    if log_x:
        axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log", nonpositive="mask")
    ticks = sorted({point[0] for points in curves.values() for point in points})
    if len(ticks) <= 8:
        axis.set_xticks(ticks, labels=[f"{tick:,.10g}" for tick in ticks])
        axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
    _finish(plt, figure, path, (x_label, y_label), title)


def _styles(plt) -> Iterator[tuple[Any, str]]:
    """Yields a colour and a line style for each line, no two alike in the first 64."""
    colours = [plt.get_cmap(name)(index) for name in ("tab10", "Dark2") for index in range(8)]
    for dashes in itertools.cycle(("-", "--", ":", "-.")):
        for colour in colours:
            yield colour, dashes


def _finish(
    plt, figure, path: str | Path, labels: tuple[str, str], title: str, legend_title: str = ""
) -> None:
    """Labels the axes, puts a legend beside them, which makes the picture wider, and saves it."""
    (axis,) = figure.axes
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    axis.set_title(title, wrap=True)
    handles, names = axis.get_legend_handles_labels()
    names = [textwrap.fill(name, LETTERS) for name in names]
    columns = math.ceil(sum(1 + name.count("\n") for name in names) / LINES)
    # In inches: a letter of the legend, and its samples of the lines.
    wide = columns * (
        0.065 * max((len(part) for n in names for part in n.split("\n")), default=0) + 0.6
    )
    if names:
        axis.legend(
            handles,
            names,
            fontsize=7,
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            ncols=columns,
            title=legend_title or None,
            title_fontsize=7,
        )
    figure.set_size_inches(figure.get_figwidth() + wide, figure.get_figheight())
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
    figure, axis = plt.subplots(layout="constrained")
    for name, curve in curves.items():
        order = np.argsort(curve.values)
        x, y, error = (z[order] for z in (curve.values, curve.mean, curve.standard_error))
        (line,) = axis.plot(x, y, marker="o", markersize=4, label=name)
        axis.fill_between(x, y - error, y + error, alpha=0.2, color=line.get_color(), linewidth=0)
    if log_y:
        axis.set_yscale("log", nonpositive="mask")
    axis.grid(alpha=0.3)
    _finish(plt, figure, path, (x_label, y_label), title, "mean; band: standard error")


def bars_with_errors(
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    path: str | Path,
    y_label: str,
    title: str = "",
) -> None:
    """Draws groups of bars with their errors, side by side, from just below the lowest or from 0.

    Args:
        groups: For each group's name, each bar's name, value and error, `nan` if it is unknown.
        path: The PNG to write.
        y_label: What the values are, with their unit.
        title: Title of the picture.

    Raises:
        ValueError: If there are no bars.
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
    bars_of_all = [bar for bars in groups.values() for bar in bars.values()]
    if not bars_of_all:
        raise ValueError(
            f"bars_with_errors() draws at least one bar. Received: groups={dict(groups)}."
        )
    plt = _import_pyplot()
    width = 1 + 0.45 * sum(len(bars) + 1 for bars in groups.values())
    figure, axis = plt.subplots(figsize=(max(width, 3.5), 4.2), layout="constrained")
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    tab10 = plt.get_cmap("tab10")
    colours = {name: tab10(index % 10) for index, name in enumerate(names)}
    ticks, left, labelled = [], 0.0, set()
    for bars in groups.values():
        for offset, (name, (value, error)) in enumerate(bars.items()):
            label = None if name in labelled else name
            labelled.add(name)
            place = left + offset
            known = None if math.isnan(error) else error
            axis.bar(place, value, 0.9, yerr=known, color=colours[name], label=label, capsize=3)
        ticks.append(left + (len(bars) - 1) / 2)
        left += len(bars) + 1
    ends = [(v - e, v + e) for v, e in ((v, np.nan_to_num(e)) for v, e in bars_of_all)]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    bottom = lowest - 0.25 * (highest - lowest + 1e-6)
    axis.set_ylim(bottom if lowest < 0 else max(bottom, 0), None)
    # A group of two bars is as wide as about 15 letters.
    letters = 7 * max(2, *map(len, groups.values()))
    axis.set_xticks(ticks, labels=[textwrap.fill(group, letters) for group in groups])
    _finish(plt, figure, path, ("", y_label), title)


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


def _rows_of(model: Any, name: str, layer: LowRank, images: list[Any] | None) -> list[list]:
    """Returns rows of panels `(title, values, options of imshow)` for one layer."""
    ranks = range(layer.spatial_rank)
    titles = [f"bank {k + 1} of {layer.spatial_rank}" for k in ranks]
    if not layer.input_dependent:
        weights = keras.ops.convert_to_numpy(layer.combining_weights())
        options = _options(layer, weights)
        return _wrap([(titles[k], _flat(weights[..., k]), options) for k in ranks])
    if images is None:
        raise ValueError(
            f"The combining weights of layer {name!r} depend on the input. Received: "
            "images=None. Give examples to draw them for."
        )
    read = _reader(model, layer, name)
    if read is None:
        return []
    given = [keras.ops.convert_to_numpy(one)[:EXAMPLES] for one in images]
    weights = keras.ops.convert_to_numpy(layer.combining_weights(read(given)))
    options = _options(layer, weights)
    rows = []
    for index, image in enumerate(given[0]):  # of several inputs the first is shown
        panels = [(f"example {index + 1}", *_displayable(image, layer.data_format))]
        panels += [(titles[k], _flat(weights[index, ..., k]), options) for k in ranks]
        rows += _wrap(panels)
    return rows


def _wrap(panels: list) -> list[list]:
    lines = math.ceil(len(panels) / COLUMNS)
    return [panels[line * COLUMNS : (line + 1) * COLUMNS] for line in range(lines)]


def _reader(model: Any, layer: Any, path: str) -> Callable[[Any], Any] | None:
    """Returns a function from a list of a model's inputs to what a layer's first call reads."""
    name, _, rest = path.partition("/")
    calls = calls_between(model.inputs, model.outputs) if has_graph(model) else []
    call = next((one for one in calls if one.operation.name == name), None)
    if call is None or not (call.operation is layer or isinstance(call.operation, keras.Model)):
        warnings.warn(
            f"The combining weights of layer {layer.name!r} depend on inputs out of sight, so they "
            "are not drawn.",
            stacklevel=2,
        )
        return None
    before: Any = keras.Model(list(model.inputs), list(call.input_tensors))
    inner = _reader(call.operation, layer, rest) if rest else lambda tensors: tensors[0]
    # Keras gives the only one of several outputs by itself.
    return inner and (lambda tensors: inner(keras.tree.flatten(before(tensors, training=False))))


def _flat(weights: np.ndarray) -> np.ndarray:
    """Returns weights over 1 to 3 axes as a picture."""
    if weights.ndim == 3:
        # A gap between the slices along the first axis.
        gap = np.full((weights.shape[1], 1), np.nan)
        return np.concatenate([part for one in weights for part in (one, gap)][:-1], axis=1)
    return np.atleast_2d(weights)


def _options(layer: LowRank, weights: np.ndarray) -> dict:
    """Returns colours: from 0 up for weights of a softmax, else alike around 0."""
    aspect = {"aspect": "auto"} if layer.dimensions != 2 else {}
    return {**aspect, **_limits(layer, weights)}


def _limits(layer: LowRank, weights: np.ndarray) -> dict:
    if layer.normalize_weights == "softmax":
        return {"cmap": "viridis", "vmin": 0.0, "vmax": float(weights.max())}
    largest = float(np.abs(weights).max())
    return {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}


def _displayable(image: np.ndarray, data_format: str) -> tuple[np.ndarray, dict]:
    """Returns an example in [0, 1] as a picture: in colour if it has three channels."""
    low, high = image.min(), image.max()
    scaled = (image - low) / max(high - low, 1e-6)
    if scaled.ndim > 1 and data_format == "channels_first":
        scaled = np.moveaxis(scaled, 0, -1)
    if scaled.ndim == 3 and scaled.shape[-1] == 3:
        return scaled, {}
    aspect = {} if scaled.ndim == 3 else {"aspect": "auto"}
    return _flat(scaled.mean(axis=-1) if scaled.ndim > 1 else scaled), {"cmap": "gray", **aspect}
