"""Base, channels, learning rate, interaction and number of scales of two scale-equivariant nets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from low_rank_local_connectivity import DeformableScaleConv2D, ScaleConv2D, plots
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.experiments.studies.scale import (
    LEVELS,
    RATE,
    SCALES,
    scale_space,
    scores,
    shape_of,
)
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    curve,
    main,
    mean,
    percent,
    rows,
)

KINDS = {"DSS": ScaleConv2D, "deformable DSS": DeformableScaleConv2D}
USUAL = {"base": 2, "wider": 1, "rate": RATE, "interaction": 1, "levels": LEVELS}
# One is changed at a time.
CHANGES: dict[str, dict[str, Any]] = {
    "usual": {},
    "base 1.3": {"base": 1.3},
    "base 1.5": {"base": 1.5},
    "half the channels": {"wider": 0.5},
    "twice the channels": {"wider": 2},
    "rate 0.01": {"rate": 0.01},
    "rate 0.001": {"rate": 0.001},
    "interaction 2": {"interaction": 2},
    "2 scales": {"levels": 2},
    "4 scales": {"levels": 4},
}
CONDITIONS = {f"{kind}, {change}": (kind, change) for change in CHANGES for kind in KINDS}


def measure(condition: tuple[str, str], seed: int, options: Options) -> dict[str, Any]:
    """Trains on images of all sizes, and tests at each."""
    kind, change = condition
    settings = {**USUAL, **CHANGES[change]}
    rate = settings.pop("rate")
    inputs = keras.Input(shape_of(options))
    maps, _ = scale_space(KINDS[kind], **settings)(inputs)
    logits = keras.layers.Dense(10)(keras.layers.GlobalMaxPooling2D()(maps))
    return scores(keras.Model(inputs, logits), rate, seed, options)


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, None]:
    """Names the best settings of each network."""
    words = []
    for kind in KINDS:
        of_kind = {change: found[f"{kind}, {change}"] for change in CHANGES}
        best = max(of_kind, key=lambda change: mean(of_kind[change], "mean accuracy"))
        usual = percent(of_kind["usual"], "mean accuracy")
        words.append(
            f"{kind}: {usual} % over all scales as usual; best with {best}, "
            f"{percent(of_kind[best], 'mean accuracy')} %"
        )
    return "; ".join(words) + ".", None


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each setting."""
    lines = []
    for name, runs in found.items():
        shares = [f"{100 * share:.1f}" for _, share, _ in curve(runs, "accuracies", SCALES)]
        parameters = f"{mean(runs, 'parameters'):,.0f}"
        lines.append([name, parameters, percent(runs, "mean accuracy"), *shares])
    header = ["network", "parameters", "mean, %", *(f"s = {scale:g}" for scale in SCALES)]
    usual = ", ".join(f"{name} {value:g}" for name, value in USUAL.items())
    note = (
        f"\n\nUsual: {usual}; one is changed at a time. With a base that is not whole, spacings "
        "are rounded down: 1, 1, 1 for 1.3 and 1, 1, 2 for 1.5."
    )
    return rows(header, lines) + note


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws a bar for each setting of each network."""
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for kind, change in CONDITIONS.values():
        share, error = mean_and_error(
            [run["found"]["mean accuracy"] for run in found[f"{kind}, {change}"]]
        )
        groups.setdefault(change, {})[kind] = (100 * share, 100 * error)
    plots.bars_with_errors(groups, path, "test accuracy over all scales, %")


STUDY = Study(
    name="scale_settings",
    claim="What base, width, learning rate, interaction and number of scales do to a network on a "
    "scale space.",
    criterion="None: a table to choose from.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    images=True,
)

if __name__ == "__main__":
    main(STUDY)
