"""The files of experiments/: what they claim, and that each of them runs."""

import contextlib
import dataclasses
import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.undrawn import without_values
from low_rank_local_connectivity import training
from low_rank_local_connectivity.data import DATASETS, Examples
from low_rank_local_connectivity.experiments.command import runs_asked_for
from low_rank_local_connectivity.experiments.flags import FLAGS, experiment_from_flags
from low_rank_local_connectivity.experiments.paper.published import PUBLISHED
from low_rank_local_connectivity.experiments.paper.report import method_name
from low_rank_local_connectivity.experiments.running import run

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments" / "paper").glob("*.flags"))
# Files that others include, or that stand behind another on the command line.
PARTS = ("paper_small", "paper_imagenet", "cpu_budget")
ROWS = [path for path in FILES if path.stem not in PARTS]
EXAMPLES = 2
LEAVING = "low_rank_local_connectivity.experiments.running.leave_behind"
# Between them they have every value of every flag that any file has. Of ResNets, whose building
# takes long, one: the others differ in the kind of layer.
QUICK = (
    "celeba32_convolution",
    "celeba32_coord_conv",
    "celeba32_locally_connected_layer2",
    "celeba32_locally_connected_layer3",
    "celeba32_lrlc_layer1",
    "celeba32_lrlc_layer2",
    "celeba32_wide_layer3",
    "cifar10_locally_connected_layer1",
    "digits_low_rank",
    "figS1_cifar10_glorot_uniform",
    "figS1_cifar10_he_uniform",
    "figS1_cifar10_random_normal",
    "figS1_cifar10_zeros",
    "figS6_celeba32_translated_convolution",
    "imagenet_insert_input_dependent",
    "mnist_spatial_bias_all_layers",
)
# What is no part of how a file trains.
OF_A_FILE = ("data_dir", "model_dir", "seed", "spatial_rank")


def steps():
    """Each file with what a step of it costs less by; other mixtures of values are for `slow`."""
    for path in ROWS:
        marks = () if path.stem in QUICK else (pytest.mark.slow,)
        if path.stem.startswith("imagenet"):
            smaller = {"image_size": 64, "network": "resnet18"}
            yield pytest.param(path, smaller, id=path.stem, marks=marks)
            whole = f"{path.stem}-resnet50"
            yield pytest.param(path, {"image_size": 64}, id=whole, marks=pytest.mark.slow)
        else:
            yield pytest.param(path, {"filters": 4}, id=path.stem, marks=marks)


@functools.cache
def experiments(path):
    """All runs that a file describes."""
    for name in FLAGS:
        FLAGS[name].unparse()
    with contextlib.chdir(ROOT):
        FLAGS(["run_experiment.py", f"--flagfile={path}"])
        return runs_asked_for(experiment_from_flags())


def few_examples(dataset):
    """A few random examples in place of a dataset that is not there."""
    rng = np.random.default_rng(0)
    low, high = dataset.stored_range
    images = rng.uniform(low, high, (EXAMPLES, *dataset.image_shape)).astype("float32")
    labels = rng.integers(dataset.num_classes, size=EXAMPLES)
    return {name: Examples(images, labels) for name in ("train", "valid", "test")}


def trained_run(runs):
    """The run of a file that is trained here: the smallest rank that is more than a convolution."""
    return next((run for run in runs if run.spatial_rank > 1), runs[0])


def values(run):
    """The values of a run's flags."""
    config = {name: repr(value) for name, value in run.config().items() if name not in OF_A_FILE}
    return frozenset({**config, "low_rank": run.spatial_rank > 1}.items())


def test_every_value_of_a_flag_is_trained_for_a_step():
    trained = {path.stem: trained_run(experiments(path)) for path in ROWS}
    quick = frozenset().union(*(values(trained[name]) for name in QUICK))
    missing = {
        name: values(run) - quick
        for name, run in trained.items()
        if run.network == "simple_network" and values(run) - quick
    }
    assert not missing, f"add files with these values to QUICK: {missing}"


@pytest.mark.parametrize("path", ROWS, ids=[path.stem for path in ROWS])
def test_a_file_says_what_it_claims_and_its_network_fits_its_images(path):
    header = path.read_text().splitlines()[:5]
    command = f"--flagfile=experiments/paper/{path.name}"
    for line, start in zip(header, ("Claim", "Published", "Command", "Cost"), strict=False):
        assert line.startswith(f"# {start}")
    assert command in header[2]
    run = trained_run(experiments(path))
    with without_values():
        model = run.build()
    assert model.input_shape[1:] == run.data.input_shape
    assert model.output_shape == (None, run.data.num_classes)


@pytest.fixture
def eager():
    """Graphs, whose making would take most of the time here, are tested elsewhere."""
    tf = pytest.importorskip("tensorflow")
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly")
@pytest.mark.parametrize(("path", "cheaper"), list(steps()))
def test_a_file_runs_for_a_step(path, cheaper, monkeypatch, tmp_path):
    chosen = trained_run(experiments(path))
    monkeypatch.setattr(type(chosen.data), "load", lambda self, *_: few_examples(self))
    changes = {"epochs": 1, "warmup_epochs": 0, "batch_size": EXAMPLES, **cheaper}
    changes |= {"model_dir": str(tmp_path / "run"), "evaluation": False}
    # It would hold for all later tests of the process, and XLA refuses to compile some.
    monkeypatch.setattr(training, "make_deterministic", lambda *_, **__: None)
    # What a run leaves behind is tested elsewhere; a file's runs differ in what they train.
    monkeypatch.setattr(LEAVING, lambda *arguments: arguments[3])
    result = run(dataclasses.replace(chosen, **changes))
    assert 0 <= result["test_accuracy"] <= 1
    assert list((tmp_path / "run" / "checkpoints").glob("step_000000001.npz"))


def test_every_published_row_has_a_file():
    described = {}
    for path in ROWS:
        config = experiments(path)[-1].config()
        if not config["translate"]:
            described.setdefault((config["dataset"], method_name(config)), path)
    for dataset, rows in PUBLISHED.items():
        for row, (mean, error) in rows.items():
            names = (row, f"{row}, the release's initial values")
            found = [described[dataset, name] for name in names if (dataset, name) in described]
            assert found, f"{dataset}, {row}: add experiments/paper/{dataset}_<row>.flags"
            texts = [path.read_text() for path in found]
            if not any(path.stem.startswith("fig") for path in found):
                assert any(f"{mean:.2f} +- {error:.2f}" in text for text in texts), found


def test_the_commands_of_the_script_name_files_that_exist():
    script = (ROOT / "experiments" / "paper" / "cpu.sh").read_text()
    found = re.findall(r'row "?([\w${}]+)"?', script)
    assert len(found) > 10
    choices = itertools.product(("mnist", "cifar10"), ("fixed", "input_dependent"))
    for name, (dataset, kind) in itertools.product(found, choices):
        file = name.replace("${name}", dataset).replace("$kind", kind)
        assert (ROOT / "experiments" / "paper" / f"{file}.flags").exists(), file


def test_datasets_of_the_files_are_known():
    for path in ROWS:
        assert experiments(path)[0].dataset in DATASETS
