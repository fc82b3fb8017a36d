"""Tables and pictures from records, checked against numbers worked out by hand."""

import itertools

import pytest

from low_rank_local_connectivity.training import report
from low_rank_local_connectivity.training.published import PUBLISHED

pytestmark = pytest.mark.once
BASE = {
    "dataset": "mnist",
    "translate": False,
    "canvas_size": None,
    "network": "simple_network",
    "layer_types": ["conv2d"],
    "insert_layer": None,
    "replace": [],
    "replace_with": "low_rank_locally_connected2d",
    "spatial_rank": 4,
    "normalize_weights": "softmax",
    "combining_weights_initializer": "conv_init",
    "share_row_combining_weights": True,
    "share_col_combining_weights": True,
    "input_dependent": False,
    "use_spatial_bias": True,
    "locally_connected_fan": "position",
    "coord_conv": False,
    "epochs": 2,
    "seed": 0,
    "strategy": "auto",
    "export_formats": [],
}
LRLC = ["conv2d", "conv2d", "low_rank_locally_connected2d"]
LOCAL = ["conv2d", "conv2d", "locally_connected2d"]
FULL = {"share_row_combining_weights": False, "share_col_combining_weights": False}
RESNET = {"network": "resnet50", "layer_types": []}
NAMES = [
    ({}, "convolution"),
    ({"coord_conv": True}, "CoordConv"),
    ({"layer_types": LRLC}, "LRLC, layer 3"),
    ({"layer_types": LRLC, "spatial_rank": 1}, "convolution + spatial bias, layer 3"),
    ({"layer_types": LRLC[2:] * 3}, "LRLC, all layers"),
    ({"layer_types": LRLC, "input_dependent": True, **FULL}, "input-dependent LRLC, layer 3"),
    ({"layer_types": LRLC, **FULL}, "LRLC, layer 3, full weights"),
    (
        {"layer_types": LRLC, "combining_weights_initializer": "zeros"},
        "LRLC, layer 3, initialised by zeros",
    ),
    ({"layer_types": LRLC, "normalize_weights": None}, "LRLC, layer 3, normalisation none"),
    ({"layer_types": LRLC, "use_spatial_bias": False}, "LRLC, layer 3, no spatial bias"),
    ({"layer_types": LOCAL}, "locally connected, layer 3"),
    (
        {"layer_types": LOCAL, "locally_connected_fan": "kernel"},
        "locally connected, layer 3, the release's initial values",
    ),
    ({"layer_types": ["wide_conv2d", "wide_conv2d"]}, "wide convolution, layers 1+2"),
    (RESNET, "convolution"),
    ({**RESNET, "insert_layer": "coord_conv2d"}, "CoordConv, inserted"),
    ({**RESNET, "replace": ["conv5"]}, "LRLC, conv5"),
]


def record(changes, valid, test, train=0.99, parameters=1000):
    config = {**BASE, **changes}
    name = "-".join(f"{key}{value}" for key, value in sorted(config.items()))
    result = {
        "valid_accuracy": valid,
        "test_accuracy": test,
        "train_accuracy": train,
        "parameters": parameters,
    }
    return {"name": name, "config": config, "result": result}


@pytest.mark.parametrize(("changes", "name"), NAMES)
def test_a_method_has_the_papers_name(changes, name):
    assert report.method_name({**BASE, **changes}) == name


def test_every_published_row_can_be_reached():
    reachable = {name.removesuffix(", the release's initial values") for _, name in NAMES}
    for layers, kind in itertools.product((1, 2, 3), ("locally_connected2d", LRLC[2])):
        types = ["conv2d"] * (layers - 1) + [kind]
        for rank in (1, 4):
            reachable.add(report.method_name({**BASE, "layer_types": types, "spatial_rank": rank}))
    wide = ["conv2d", "conv2d", "wide_conv2d"]
    reachable.add(report.method_name({**BASE, "layer_types": wide}))
    everywhere = {"layer_types": LRLC[2:] * 3, "spatial_rank": 1}
    reachable.add(report.method_name({**BASE, **everywhere}))
    for kind, dependent in (("conv2d", 0), ("coord_conv2d", 0), (LRLC[2], 0), (LRLC[2], 1)):
        for place in ({"insert_layer": kind}, {"replace": ["conv5"], "replace_with": kind}):
            config = {**BASE, **RESNET, **place, "input_dependent": bool(dependent)}
            reachable.add(report.method_name(config))
    for place in ({"insert_layer": wide[2]}, {"replace": ["conv5"], "replace_with": wide[2]}):
        reachable.add(report.method_name({**BASE, **RESNET, **place}))
    for rows in PUBLISHED.values():
        assert set(rows) <= reachable


@pytest.fixture
def records():
    found = []
    for seed, (conv, two, four) in enumerate([(0.90, 0.92, 0.93), (0.91, 0.94, 0.92)]):
        found.append(record({"seed": seed}, conv, conv))
        # Rank 2 is best on validation, rank 4 on test.
        for rank, valid, test in ((2, 0.95, two), (4, 0.94, four + 0.03)):
            changes = {"seed": seed, "layer_types": LRLC, "spatial_rank": rank}
            found.append(record(changes, valid, test, parameters=1000 * rank))
        found.append(record({"seed": seed, "translate": True}, conv, conv - 0.2 - seed / 100))
    return found


def test_the_table_has_the_rank_of_the_validation_split_and_the_published_numbers(records):
    plain, translated = report.group(records)
    assert (plain.title, translated.title) == ("mnist", "mnist, translated")
    lines = report.table(plain).splitlines()
    assert lines[2] == (
        "| convolution |  | 2 | 1,000 | 99.00 ± 0.00 | 90.50 ± 0.50 | 90.50 ± 0.50 | 98.84 ± 0.01 |"
    )
    assert lines[3] == (
        "| LRLC, layer 3 | 2 of 2, 4 | 2 | 2,000 | 99.00 ± 0.00 | 95.00 ± 0.00 | 93.00 ± 1.00 "
        "| 99.51 ± 0.01 |"
    )
    assert "98.84" not in report.table(translated)


def test_methods_are_compared_over_the_seeds_that_both_have(records):
    plain, _ = report.group(records)
    mean, error, p, seeds = report.paired(plain.methods[1], plain.methods[0])
    # Differences of 0.02 and 0.03: t = 5 at one degree of freedom.
    assert (mean, error, seeds) == (pytest.approx(0.025), pytest.approx(0.005), 2)
    assert p == pytest.approx(0.1257, abs=1e-4)
    line = report.comparisons(plain).splitlines()[2]
    assert line == (
        "| LRLC, layer 3 | convolution | +0.67 | +2.50 ± 0.50 | 2 | 0.126 | same, within noise |"
    )


def test_what_translation_costs_is_told_per_method(records):
    plain, translated = report.group(records)
    assert report.drops(plain, translated).splitlines()[2] == (
        "| convolution | 90.50 ± 0.50 | 70.00 ± 0.00 | 20.50 ± 0.50 |"
    )


def test_budgets_are_not_mixed(records):
    groups = report.group([*records, record({"epochs": 150}, 0.99, 0.99)])
    assert len(groups) == 3


def test_a_record_from_before_a_flag_existed_is_of_the_same_budget(records):
    later = record({"seed": 2, "synchronized_batch_norm": False, "image_size": None}, 0.9, 0.9)
    plain, _ = report.group([*records, later])
    assert sorted(plain.methods[0].results()) == [0, 1, 2]


def test_the_report_is_written_with_its_pictures(records, tmp_path):
    path = report.write(records, tmp_path / "report")
    text = path.read_text()
    pictures = {file.name for file in path.parent.glob("*.png")}
    assert pictures == {"rank_mnist.png", "parameters_mnist.png", "translated_mnist.png"}
    for picture in pictures:
        assert f"]({picture})" in text
    assert "20.50 ± 0.50" in text
