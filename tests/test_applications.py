"""Networks of keras.applications: their inputs, weights and low-rank layers, beside Keras's own."""

import fnmatch
import importlib
import json
from unittest import mock

import commands
import h5py
import keras
import numpy as np
import pytest
from backends import to_numpy
from test_experiment import finish, script

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.experiments import warm_start
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.flags import FLAGS, experiment_from_flags
from low_rank_local_connectivity.inspection import operations
from low_rank_local_connectivity.layers import LowRankLocallyConnected2D
from low_rank_local_connectivity.models import APPLICATIONS, NETWORKS, Settings
from low_rank_local_connectivity.training import RunError

# The module of each, whose `preprocess_input` is Keras's own.
MODULES = {
    "resnet": ("ResNet50", "ResNet101", "ResNet152"),
    "vgg16": ("VGG16",),
    "vgg19": ("VGG19",),
    "resnet_v2": ("ResNet50V2", "ResNet101V2", "ResNet152V2"),
    "densenet": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "mobilenet": ("MobileNet",),
    "mobilenet_v2": ("MobileNetV2",),
}
MODULE_OF = {name: module for module, names in MODULES.items() for name in names}
# One whose channels are reversed, and one that is not so deep.
QUICK = ("VGG16", "MobileNetV2")
EACH = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in APPLICATIONS
]
# Of modules of several, those that take longest to build.
DEEPEST = ("ResNet101", "ResNet152", "ResNet101V2", "ResNet152V2", "DenseNet169", "DenseNet201")
SHAPE = (48, 40, 3)


def own(name, weights=None, shape=SHAPE):
    make = getattr(keras.applications, name)
    return make(include_top=False, weights=weights, input_shape=shape, pooling="avg")


def vary(model, rng):
    """Makes all vectors differ from what they are at first; kernels are random anyway.

    With larger changes a deep network would be chaotic: what differs by rounding would grow.
    """
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(to_numpy(weight) + rng.uniform(0, 0.2, weight.shape))


def write_as_keras_does(model, path):
    """Writes weights in the format of the files that Keras downloads."""
    legacy = importlib.import_module("keras.src.legacy.saving.legacy_h5_format")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        legacy.save_weights_to_hdf5_group(file, model)


def test_every_application_is_in_the_tables():
    assert set(MODULE_OF) == set(APPLICATIONS)
    assert set(APPLICATIONS) < set(NETWORKS)


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in DEEPEST else [])
        for name in APPLICATIONS
    ],
)
def test_weights_are_looked_for_under_the_name_that_keras_downloads_them_as(name):
    class AskedError(Exception):
        pass

    files = importlib.import_module("keras.src.utils.file_utils")
    asked = mock.Mock(side_effect=AskedError)
    with (
        mock.patch.object(files, "get_file", asked),
        keras.StatelessScope(initialize_variables=False),
        pytest.raises(AskedError),
    ):
        own(name, "imagenet", (224, 224, 3))
    assert asked.call_args.args[0] == APPLICATIONS[name].file
    assert asked.call_args.kwargs["cache_subdir"] == "models"


def test_weights_lie_where_keras_keeps_what_it_downloads(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert APPLICATIONS["VGG16"].path == tmp_path / "models" / APPLICATIONS["VGG16"].file
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert APPLICATIONS["VGG16"].path.parent == tmp_path / ".keras" / "models"


@pytest.mark.parametrize("name", EACH)
def test_an_application_computes_what_keras_s_own_does_of_its_preprocessed_images(
    name, tmp_path, rng
):
    theirs = own(name)
    vary(theirs, rng)
    write_as_keras_does(theirs, tmp_path / APPLICATIONS[name].file)
    octets = rng.integers(0, 256, (2, *SHAPE)).astype("float32")
    module = importlib.import_module(f"keras.applications.{MODULE_OF[name]}")
    expected = to_numpy(theirs(module.preprocess_input(octets.copy())))
    dataset = DATASETS["folder"]
    ours = NETWORKS[name].build(
        SHAPE,
        None,
        value_range=dataset.value_range,
        weights=tmp_path / APPLICATIONS[name].file,
    )
    inputs = np.asarray(dataset.prepare(octets), "float32")
    found = to_numpy(ours(inputs))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-4)


def test_logits_are_new_and_a_relaxed_network_starts_as_the_plain_one(tmp_path, monkeypatch, rng):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    name, pattern = "MobileNetV2", "block_1[45]_project"
    theirs = own(name)
    vary(theirs, rng)
    write_as_keras_does(theirs, APPLICATIONS[name].path)
    experiment = small(name, relax=(pattern, "Conv_1"), spatial_rank=3)
    model, source = experiment.build(), warm_start.source(experiment)
    found = warm_start.match(model, source, name)
    relaxed = [pair.layer.name for pair in found.pairs if pair.relaxes]
    assert relaxed == ["block_14_project", "block_15_project", "Conv_1"]
    assert [one.name for one in model.layers if isinstance(one, LowRankLocallyConnected2D)] == (
        relaxed
    )
    assert (found.new, found.unused) == (["logits"], [])
    for pair in found.pairs:
        warm_start.assign(pair, seed=1)
    images = rng.normal(size=(2, 64, 64, 3)).astype("float32")
    plain = to_numpy(source(images))
    inside = keras.Model(model.inputs[0], model.get_layer("logits").input)
    scale = np.abs(plain).max()
    np.testing.assert_allclose(to_numpy(inside(images)) / scale, plain / scale, atol=2e-4)


def small(name, **changes):
    given = {"dataset": "synthetic", "image_size": 64, "layer_types": (), "network": name}
    return Experiment(**given, weights=name, **changes)


@pytest.mark.once
def test_all_stands_for_every_convolution_larger_than_one_by_one():
    with keras.StatelessScope(initialize_variables=False):
        model = small("ResNet50V2", relax=("all",), spatial_rank=2).build()
    names = [one.name for one in model.layers if isinstance(one, LowRankLocallyConnected2D)]
    assert names[0] == "conv1_conv"
    assert len(names) == 17
    assert all(fnmatch.fnmatch(name, "conv*_2_conv") for name in names[1:])
    layer = model.get_layer("conv4_block2_2_conv")
    plain = own("ResNet50V2").get_layer("conv4_block2_2_conv")
    for one in ("filters", "kernel_size", "strides", "padding", "use_bias", "name"):
        assert getattr(layer, one) == getattr(plain, one), one


@pytest.mark.once
def test_settings_of_low_rank_layers_reach_those_of_an_application():
    settings = Settings(spatial_rank=2, normalize_weights="norm", use_spatial_bias=False)
    with keras.StatelessScope(initialize_variables=False):
        model = NETWORKS["VGG16"].build((32, 32, 3), 4, relax=("block1_*",), settings=settings)
    layer = model.get_layer("block1_conv1")
    assert (layer.spatial_rank, layer.normalize_weights) == (2, "norm")
    assert not layer.spatial_bias_terms
    assert layer.activation is keras.activations.relu


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relax": ("conv9",)}, "`relax` must match convolutions. Received: relax=conv9, where"),
        (
            {"relax": ("block_16_project",), "spatial_rank": 5},
            "`spatial_rank` must be at most the number of positions of block_16_project, 4. Receiv",
        ),
    ],
)
def test_what_does_not_fit_an_application_is_refused_when_it_is_built(changes, words):
    with (
        keras.StatelessScope(initialize_variables=False),
        pytest.raises(RunError) as caught,
    ):
        small("MobileNetV2", **changes).build()
    assert str(caught.value).startswith(words)


REFUSED = {
    "--weights=VGG16 --network=resnet18": "--weights needs --network=VGG16, or none. Received: "
    "--weights=VGG16.",
    "--weights=VGG16 --dataset=digits": "--network needs images of 3 channels, not of 16x16x1. "
    "Received: --network=VGG16.",
    "--network=VGG16 --weight_decay=0.1": "--weight_decay needs --optimizer=adamw or lion in "
    "VGG16. Received: --weight_decay=0.1.",
    "--network=VGG16 --synchronized_batch_norm": "--synchronized_batch_norm does not apply to "
    "VGG16, which has layers of its own. Received: --synchronized_batch_norm=True.",
    "--network=VGG16 --filters=3": "--filters does not apply to VGG16, which has layers of its own."
    " Received: --filters=3.",
}


@pytest.mark.once
@pytest.mark.parametrize("flags", REFUSED)
def test_flags_that_do_not_fit_an_application_are_refused(flags):
    images = () if "--dataset" in flags else ("--dataset=synthetic", "--image_size=64")
    with pytest.raises(ValueError, match="--") as caught:
        parsed(*flags.split(), *images)
    assert str(caught.value) == REFUSED[flags]


def parsed(*flags):
    for name in FLAGS:
        FLAGS[name].unparse()
    FLAGS(["run_experiment.py", *flags])
    return experiment_from_flags()


@pytest.mark.once
def test_weights_alone_name_the_network():
    experiment = parsed("--weights=ResNet50V2", "--dataset=synthetic", "--image_size=64")
    assert (experiment.network, experiment.layer_types) == ("ResNet50V2", ())
    assert "ResNet50V2" in experiment.model_dir
    assert experiment.layers_in_words == "ResNet50V2, unchanged"
    changed = parsed("--weights=VGG16", "--relax=block1_*", "--dataset=synthetic")
    words = "VGG16, low_rank_locally_connected2d in block1_*"
    assert changed.layers_in_words == words


@pytest.mark.once
def test_weights_that_were_not_downloaded_are_named_before_a_framework_loads(tmp_path):
    flags = ("--weights=VGG16", "--dataset=synthetic", "--image_size=64", "--model_dir=run")
    environment = {"KERAS_HOME": str(tmp_path / "home"), "KERAS_BACKEND": "absent"}
    done = commands.python(commands.SCRIPT, *flags, cwd=tmp_path, **environment)
    path = tmp_path / "home" / "models" / APPLICATIONS["VGG16"].file
    assert done.stderr == (
        "run_experiment.py: --weights=VGG16 needs the file of these weights in Keras's cache "
        f"folder, as nothing is downloaded here. Received: none at {path}. Put it there: "
        "keras.applications.VGG16(include_top=False) downloads it.\n"
    )
    assert done.returncode == 2
    assert not (tmp_path / "run").exists()


RUN = ("--dataset=synthetic", "--image_size=32", "--epochs=2", "--batch_size=16")
RUN += ("--train_examples=32", "--export_formats=none", "--noevaluation", "--weights=MobileNetV2")


@pytest.mark.slow
def test_an_application_is_trained_on_relaxed_with_its_weights_frozen_at_first(tmp_path, rng):
    model = own("MobileNetV2")
    vary(model, rng)
    home = tmp_path / "home"
    write_as_keras_does(model, home / "models" / APPLICATIONS["MobileNetV2"].file)
    flags = (*RUN, "--relax=block_3_project", "--freeze_epochs=2")
    output = finish(tmp_path / "run", *flags, KERAS_HOME=str(home))
    assert "convolutions that became low-rank layers: block_3_project" in output
    assert "not loaded, and new: logits." in output
    trained = keras.models.load_model(tmp_path / "run" / "model.keras", compile=False)
    kernels = [to_numpy(one.get_layer("block_2_project").kernel) for one in (model, trained)]
    np.testing.assert_array_equal(*kernels)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["network"], config["weights"]) == ("MobileNetV2", "MobileNetV2")
    assert config["weights_sha256"]
    damaged = home / "models" / APPLICATIONS["MobileNetV2"].file
    damaged.write_bytes(damaged.read_bytes()[:20_000])
    done = script(f"--model_dir={tmp_path / 'other'}", *flags, KERAS_HOME=str(home))
    assert done.returncode == 2
    assert done.stderr.startswith("run_experiment.py: The weights of MobileNetV2 must be those of ")


@pytest.mark.once
def test_operations_of_the_kinds_that_applications_have():
    shape = (None, 8, 9, 4)

    def counted(layer, shape=shape):
        layer.build(shape)
        return operations(layer, shape)

    depthwise = keras.layers.DepthwiseConv2D((3, 2), depth_multiplier=5, use_bias=False)
    assert counted(depthwise) == 2 * 6 * (6 * 8 * 4 * 5)
    assert counted(keras.layers.DepthwiseConv1D(3, activation="relu"), (None, 8, 4)) == (6 + 2) * 24
    assert counted(keras.layers.Rescaling(2.0, -1.0)) == 2 * 8 * 9 * 4
    assert counted(keras.layers.Concatenate(), [shape, shape]) == 0
