"""Tables and pictures from records, checked against numbers worked out by hand."""

import csv
import itertools
import json
import math
from pathlib import Path

import commands
import pytest

from low_rank_local_connectivity import plots
from low_rank_local_connectivity.experiments.folder import write_result
from low_rank_local_connectivity.experiments.paper import report, sources
from low_rank_local_connectivity.experiments.paper.published import PUBLISHED

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
PNG = ("png",)
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
        "seconds": 0.5,
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
    path = report.write(records, tmp_path / "report", PNG)
    text = path.read_text()
    pictures = {file.name for file in path.parent.glob("*.png")}
    assert pictures == {"rank_mnist.png", "parameters_mnist.png", "translated_mnist.png"}
    for picture in pictures:
        assert f"]({picture})" in text
    assert "20.50 ± 0.50" in text


def write_records(path, records, ending="\n"):
    path.write_text("\n".join(json.dumps(record) for record in records) + ending)
    return path


def reported(capsys, out, *paths):
    """Returns the report's text, and what was said beside it."""
    report.main([*map(str, paths), f"--out={out}", "--pictures=png"])
    said = capsys.readouterr()
    assert said.out == f"{out / 'report.md'}\n"
    return (out / "report.md").read_text(), said.err


def test_one_seed_has_no_error_and_says_nothing_about_the_order(records, tmp_path, monkeypatch):
    drawn = []
    for kind in ("lines_with_errors", "bars_with_errors"):
        monkeypatch.setattr(plots, kind, lambda values, *_, **__: drawn.append(values))
    one = [record for record in records if record["config"]["seed"] == 0]
    text = report.write(one, tmp_path, PNG).read_text()
    assert "| convolution |  | 1 | 1,000 | 99.00 | 90.00 | 90.00 | 98.84 ± 0.01 |" in text
    row = "| LRLC, layer 3 | convolution | +0.67 | +2.00 | 1 | - | cannot be told from one seed |"
    assert row in text
    assert "| convolution | 90.00 | 70.00 | 20.00 |" in text
    assert "nan" not in text
    errors = [point[-1] for one in drawn for group in one.values() for point in _points(group)]
    assert errors
    assert all(math.isnan(error) for error in errors)


def _points(group):
    return group.values() if isinstance(group, dict) else group


def test_methods_without_a_seed_in_common_are_not_compared(records):
    lrlc = {"seed": 5, "layer_types": LRLC, "spatial_rank": 2}
    apart = [records[0], record(lrlc, 0.95, 0.92)]
    (plain,) = report.group(apart)
    assert report.comparisons(plain).splitlines()[2] == (
        "| LRLC, layer 3 | convolution | +0.67 | - | 0 | - | "
        "cannot be told from no seed in common |"
    )


@pytest.mark.parametrize(
    ("by", "p", "verdict"), [(0.0, 1.0, "neither, within noise"), (0.25, 0.0, "same")]
)
def test_differences_without_variance_have_no_t(by, p, verdict):
    found = [record({"seed": seed}, 0.5, 0.5) for seed in (0, 1)]
    change = {"layer_types": LRLC, "spatial_rank": 2}
    found += [record({"seed": seed, **change}, 0.5, 0.5 + by) for seed in (0, 1)]
    (plain,) = report.group(found)
    row = report.comparisons(plain).splitlines()[2]
    assert row.endswith(f"| {100 * by:+.2f} ± 0.00 | 2 | {p:.3f} | {verdict} |")


def test_plain_and_translated_runs_of_different_methods_are_reported_apart(tmp_path):
    found = [record({}, 0.9, 0.9), record({"translate": True, "coord_conv": True}, 0.8, 0.8)]
    text = report.write(found, tmp_path, PNG).read_text()
    assert "| convolution |" in text
    assert "| CoordConv |" in text
    assert "lost" not in text
    assert not list(tmp_path.glob("translated*"))


def test_two_budgets_have_pictures_of_their_own(records, tmp_path):
    longer = [{**one, "config": {**one["config"], "epochs": 9}} for one in records]
    text = report.write([*records, *longer], tmp_path, PNG).read_text()
    for number in ("", "_2"):
        assert f"](translated_mnist{number}.png)" in text
        assert (tmp_path / f"translated_mnist{number}.png").exists()


def test_a_layer_without_a_name_in_the_paper_is_named_after_its_class():
    types = ["conv2d", "conv2d", "deformable_conv2d"]
    assert report.method_name({**BASE, "layer_types": types}) == "deformable conv2d, layer 3"


def test_a_run_in_two_files_counts_once(records, tmp_path, capsys):
    one = write_records(tmp_path / "one.jsonl", records)
    other = write_records(tmp_path / "other.jsonl", records[:2])
    text, said = reported(capsys, tmp_path / "out", one, other)
    assert text == report.write(records, tmp_path / "expected", PNG).read_text()
    assert not said


def test_lines_that_are_no_records_are_left_out_and_named(records, tmp_path, capsys):
    cut = {**records[0], "name": "cut", "result": {"valid_accuracy": 0.5}}
    bare = {"name": "bare", "config": {"dataset": "mnist"}, "result": {}}
    nan = {
        **records[0],
        "name": "nan",
        "result": {**records[0]["result"], "test_accuracy": math.nan},
    }
    path = write_records(tmp_path / "r", [*records, cut, bare, nan], '\n{"name": "brok')
    text, said = reported(capsys, tmp_path / "out", path)
    assert text == report.write(records, tmp_path / "expected", PNG).read_text()
    assert said.splitlines() == [
        f"Line 12 of {path} is not a record and is left out.",
        f"The record 'cut' of {path} has no 'test_accuracy' in its result and is left out.",
        f"The record 'bare' of {path} has no 'network' in its config and is left out.",
        (
            f"The record 'nan' of {path} has no number as 'test_accuracy' in its result and is "
            "left out."
        ),
    ]


NO_RECORD = (
    "A file of records has a line of JSON for each run, with its name, config and result. "
    "Received: '{path}', which has none. Give the records.jsonl of a sweep, or a run's folder."
)
UNREADABLE = (
    "Records must be files that can be read. Received: '{path}' (%s). Give the records.jsonl of a "
    "sweep, or a run's folder."
)
REFUSED = {
    "result.json": (lambda path: path.write_text('{\n  "test_accuracy": 0.5\n}\n'), NO_RECORD),
    "result.jsonl": (lambda path: path.write_text('{"test_accuracy": 0.5}\n'), NO_RECORD),
    "empty": (lambda path: path.write_text(""), NO_RECORD),
    "binary": (lambda path: path.write_bytes(b"\x89PNG\r\n\x00\xff"), NO_RECORD),
    "folder": (
        lambda path: (path / "empty").mkdir(parents=True),
        (
            "A folder must be that of a run or of a sweep, or hold such folders. Received: "
            "'{path}', which has neither config.json nor records.jsonl. Give another."
        ),
    ),
    "missing": (lambda _: None, UNREADABLE % "No such file or directory"),
    "conflict": (
        lambda path: write_records(path, [record({}, 0.9, 0.9), record({}, 0.9, 0.8)]),
        (
            "A run may be recorded once, or twice with the same result. Received: {name!r} in "
            "'{path}', which has the settings of {name!r} and another result. Report on them apart."
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_records_is_refused_in_a_sentence(name, tmp_path, capsys):
    make, sentence = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(SystemExit) as ended:
        report.main([str(tmp_path / name), f"--out={tmp_path / 'out'}"])
    expected = sentence.format(path=tmp_path / name, name=record({}, 0, 0)["name"])
    assert (ended.value.code, capsys.readouterr().err) == (2, f"report: {expected}\n")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_in_a_sentence(records, tmp_path, capsys):
    path = write_records(tmp_path / "records.jsonl", records)
    with pytest.raises(SystemExit) as ended:
        report.main([str(path), f"--out={path}"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"report: --out must be a folder that can be written. Received: --out={path} (File "
        "exists). Choose another.\n"
    )


def test_no_records_make_no_report(tmp_path):
    with pytest.raises(ValueError, match=r"^A report needs at least one record. Received: none.$"):
        report.write([], tmp_path / "out")


def test_the_report_s_old_name_forwards_to_it(tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text(json.dumps(record({}, 0.9, 0.8)) + "\n")
    arguments = ["-m", "low_rank_local_connectivity.training.report", records]
    done = commands.python(*arguments, f"--out={tmp_path / 'out'}", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| convolution |" in (tmp_path / "out" / "report.md").read_text()


def test_every_rank_has_its_row_and_the_chosen_one_is_told(records):
    plain, _ = report.group(records)
    assert report.ranks_table(plain).splitlines()[2:] == [
        "| LRLC, layer 3 | 2, chosen | 2 | 2,000 | 99.00 ± 0.00 | 95.00 ± 0.00 | 93.00 ± 1.00 |",
        "| LRLC, layer 3 | 4 | 2 | 4,000 | 99.00 ± 0.00 | 94.00 ± 0.00 | 95.50 ± 0.50 |",
    ]


def test_the_table_of_numbers_has_every_method_and_rank(records):
    one = [*records, record({"epochs": 150}, 0.9, 0.8)]
    text = report.in_csv(report.group(one))
    rows = list(csv.DictReader(text.splitlines()))
    told = [(row["dataset"], row["method"], row["rank"], row["chosen"]) for row in rows]
    assert sorted(told) == [
        ("mnist", "LRLC, layer 3", "2", "1"),
        ("mnist", "LRLC, layer 3", "4", "0"),
        ("mnist", "convolution", "4", "1"),
        ("mnist", "convolution", "4", "1"),
        ("mnist, translated", "convolution", "4", "1"),
    ]
    (single,) = [row for row in rows if "--epochs=150" in row["budget"]]
    assert (single["test_accuracy"], single["test_error"], single["seeds"]) == ("0.8", "", "1")
    lrlc = next(row for row in rows if row["rank"] == "2")
    assert float(lrlc["test_accuracy"]) == pytest.approx(0.93)
    assert float(lrlc["test_error"]) == pytest.approx(0.01)


def write_run(folder, found, rows="epoch,loss,val_accuracy\n1,2.5,0.25\n2,1.5,\n3,0.5,0.75\n"):
    """The folder that a run leaves, without its model."""
    folder.mkdir(parents=True)
    config = {**found["config"], "backend": "tensorflow", "augment": [], "data_dir": "DATA"}
    (folder / "config.json").write_text(json.dumps(config))
    write_result(folder, found["result"])
    (folder / "metrics.csv").write_text(rows)


def test_folders_of_runs_are_reported_as_their_records_are(records, tmp_path, capsys):
    path = write_records(tmp_path / "records.jsonl", records)
    expected, _ = reported(capsys, tmp_path / "expected", path)
    for number, one in enumerate(records):
        write_run(tmp_path / "runs" / str(number % 2) / f"run{number}", one, rows="")
    unfinished = tmp_path / "runs" / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text("{}")
    text, said = reported(capsys, tmp_path / "out", tmp_path / "runs", path)
    assert text == expected
    assert said == f"The run in {unfinished} is not finished and is left out.\n"


def test_learning_curves_are_means_over_the_runs_at_the_chosen_rank(tmp_path, capsys, monkeypatch):
    folder, found = tmp_path / "sweep", []
    for seed in (0, 1):
        found.append({**record({"seed": seed}, 0.9, 0.8), "name": f"run{seed}"})
        lines = f"1,2.5,0.{seed + 1}\n2,1.5,\n3,0.5,0.75\n"
        write_run(folder / f"run{seed}", found[-1], "epoch,loss,val_accuracy\n" + lines)
    write_records(folder / "records.jsonl", found)
    drawn = {}
    draw = plots.lines_with_errors

    def noting(values, path, *labels, **options):
        drawn[labels[1].split()[1]] = values
        draw(values, path, *labels, **options)

    monkeypatch.setattr(plots, "lines_with_errors", noting)
    report.main([str(folder), f"--out={tmp_path / 'out'}"])
    assert "](curves_accuracy_mnist.png)" in (tmp_path / "out" / "report.md").read_text()
    begins = {"png": b"\x89PNG", "pdf": b"%PDF"}
    for what, ending in itertools.product(("accuracy", "loss"), begins):
        picture = tmp_path / "out" / f"curves_{what}_mnist.{ending}"
        assert picture.read_bytes().startswith(begins[ending])
    (first, last) = drawn["accuracy,"]["convolution"]
    assert first == pytest.approx((1, 15, 5))
    assert last == pytest.approx((3, 75, 0))
    assert [point[:2] for point in drawn["loss"]["convolution"]] == [(1, 2.5), (2, 1.5), (3, 0.5)]
    assert capsys.readouterr().err == ""


def test_metrics_that_are_no_numbers_are_left_out(tmp_path):
    found = record({}, 0.9, 0.8)
    write_run(tmp_path / "run", found, "epoch,loss\n1,many\n")
    (one,), _ = sources.read([tmp_path / "run"])
    assert "metrics" not in one
    assert one["config"] == found["config"]


def test_pictures_are_of_known_formats(tmp_path, capsys):
    with pytest.raises(SystemExit):
        report.main([str(tmp_path), "--pictures=png,doc"])
    assert "takes png, pdf and svg, not 'png,doc'" in capsys.readouterr().err
