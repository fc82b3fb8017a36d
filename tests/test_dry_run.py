"""`--dry_run`: what it prints is what a run would do, and nothing is written."""

import importlib
import math
import os

import commands
import keras
import numpy as np
import pytest

import low_rank_local_connectivity as lrlc
from low_rank_local_connectivity.experiments import dry_run
from low_rank_local_connectivity.experiments.dry_run import plans_of, rows_of
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.memory import without_values
from low_rank_local_connectivity.inspection import total_cost
from low_rank_local_connectivity.inspection.graph import opened_layers
from low_rank_local_connectivity.models import MODELS


def dry(folder, *flags, **environment):
    flags = (f"--model_dir={folder / 'run'}", "--dry_run", *flags)
    return commands.python(commands.SCRIPT, *flags, cwd=folder, **environment)


def test_a_dry_run_prints_every_layer_and_writes_nothing(tmp_path):
    done = dry(tmp_path, "--filters=8", "--spatial_ranks=2,3", "--num_seeds=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
    first, *_ = done.stdout.splitlines()
    assert first == (
        "digits: 1,257 train, 180 valid, 360 test. conv2d > conv2d > low_rank_locally_connected2d: "
        f"30 epochs of 19 steps. Files in {first.rpartition(' ')[2]}"
    )
    assert done.stdout.count("LowRankLocallyConnected2D  10x10x8 ") == 2
    assert done.stdout.endswith("Nothing was trained or written. The sweep would have 4 runs.\n")
    for rank in (2, 3):
        with keras.StatelessScope(initialize_variables=False):
            cost = total_cost(Experiment(filters=8, spatial_rank=rank).build())
        told = f"{cost.parameters:,} trainable parameters, {cost.flops:,} operations per example"
        assert told in done.stdout


REFUSED = {
    "--batch_size=2000": "--batch_size must be at most the 1257 training examples. Received: ",
    "--filters=30000 --batch_size=1257": "A network and a step of its training must fit into mem",
    "--dataset=mnist --data_dir=nowhere": "The dataset 'mnist' must be prepared in --data_dir.",
    "--model_dir=file/run": "--model_dir must be a folder that can be written to. Received: ",
    "--model_dir=.": "--model_dir must be a new folder or contain a run of this script. Received",
}


@pytest.mark.once
@pytest.mark.parametrize("flags", REFUSED)
def test_a_dry_run_refuses_what_the_run_would(flags, tmp_path):
    (tmp_path / "file").write_text("words")
    done = dry(tmp_path, *flags.split())
    assert done.returncode == 2
    assert done.stderr.startswith(f"run_experiment.py: {REFUSED[flags]}")
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - its words


@pytest.mark.once
def test_a_dry_run_builds_each_network_once_and_reads_the_examples_once(monkeypatch, capsys):
    counted = []

    def counting(function):
        def call(*arguments):
            counted.append(function.__name__)
            return function(*arguments)

        return call

    monkeypatch.setattr(Experiment, "build", counting(Experiment.build))
    monkeypatch.setattr(dry_run, "splits_of", counting(dry_run.splits_of))
    runs = [
        Experiment(filters=3, spatial_rank=rank, seed=seed) for seed in (1, 2) for rank in (2, 3)
    ]
    assert dry_run.dry_run(runs) == 0
    assert counted == ["splits_of", "build", "build"]
    assert "The sweep would have 4 runs." in capsys.readouterr().out


# One of each family; the others are only deeper or wider.
QUICK = ("simple_network", "resnet18", "group_network", "scale_pyramid_network", "bagnet9")


@pytest.mark.parametrize(
    "network",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODELS],
)
def test_every_layer_of_every_network_is_told(network):
    layer_types = Experiment().layer_types if MODELS[network].num_layers else ()
    small = {"dataset": "synthetic", "image_size": 65, "spatial_rank": 2}
    run = Experiment(network=network, layer_types=layer_types, **small)
    model = without_values(run)
    rows = rows_of(model, run.batch_size)
    assert [row.name for row in rows] == [layer.name for layer in opened_layers(model)]
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert sum(row.parameters for row in rows) == trained
    assert all(len(row.cells) == 6 for row in rows)


LAYERS = {
    "low rank": (
        lambda **options: lrlc.LowRankLocallyConnected2D(5, 3, spatial_rank=2, **options),
        "layers.local.low_rank_locally_connected",
    ),
    "locally connected": (
        lambda **options: lrlc.LocallyConnected2D(5, 3, **options),
        "layers.local.locally_connected",
    ),
    "Kronecker": (
        lambda **options: lrlc.KroneckerConv2D(6, 3, ((3, 3, 2, 2), (1, 1, 2, 3)), **options),
        "layers.other.kronecker_conv",
    ),
    "conditional": (
        lambda **options: lrlc.CondConv2D(5, 3, num_experts=3, **options),
        "layers.other.cond_conv",
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 8, 9, 4), (64, 12, 11, 4)])
@pytest.mark.parametrize("name", LAYERS)
def test_the_plan_that_a_layer_names_is_the_one_that_it_takes(name, shape, training, monkeypatch):
    make, module = LAYERS[name]
    layer = make()
    layer.build((None, *shape[1:]))
    told = layer.chosen_plan(shape, training=training)
    taken = []
    part = importlib.import_module(f"{lrlc.__name__}.{module}")
    choose = part.choose

    def noting(*arguments, **options):
        taken.append(choose(*arguments, **options))
        return taken[-1]

    monkeypatch.setattr(part, "choose", noting)
    layer(np.zeros(shape, "float32"), training=training)
    assert told == taken[-1].name


def test_a_plan_is_named_for_channels_first_and_only_of_a_layer_that_is_built():
    layer = lrlc.LocallyConnected2D(5, 3, data_format="channels_first")
    with pytest.raises(ValueError, match="chosen_plan"):
        layer.chosen_plan((2, 4, 8, 9))
    layer.build((None, 4, 8, 9))
    other = lrlc.LocallyConnected2D(5, 3)
    other.build((None, 8, 9, 4))
    assert layer.chosen_plan((2, 4, 8, 9)) == other.chosen_plan((2, 8, 9, 4))
    with pytest.raises(ValueError, match="`training` must be True or False"):
        layer.chosen_plan((2, 4, 8, 9), training="yes")


def test_two_plans_are_told_apart_in_words():
    class Layer:
        input = keras.KerasTensor((None, 8, 9, 2))

        def chosen_plan(self, shape, training):
            return f"{'one' if training else 'other'} of {shape[0]}"

    assert plans_of(Layer(), 7) == "one of 7; other of 7 in inference"
    assert plans_of(keras.layers.ReLU(), 7) == ""
