"""A user's own arrays: which files are datasets, and that networks follow their dimensions."""

import json

import numpy as np
import pytest
from test_experiment import finish, script

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.dataset import Examples
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.models import BY_DIMENSIONS, Settings, convolution, in_dimensions
from low_rank_local_connectivity.models.convolutions import Site, low_rank_parameters

pytestmark = pytest.mark.once
SHAPES = {"signals": (24, 2), "images": (10, 9, 3), "volumes": (9, 8, 10, 2)}
CLASSES = 3


def drawn(rng, shape, count, kind="float32"):
    labels = np.arange(count) % CLASSES
    inputs = rng.normal(3, 2, (count, *shape))
    rows = shape[0] * (2 * labels + 1) // (2 * CLASSES)
    inputs[np.arange(count), rows] += 20  # in which third of the first axis tells the class
    return inputs.astype(kind), labels


def arrays(rng, shape=SHAPES["images"], kind="float32", examples=60):
    counts = examples, 12
    (train, train_labels), (test, test_labels) = (drawn(rng, shape, n, kind) for n in counts)
    return {"x_train": train, "y_train": train_labels, "x_test": test, "y_test": test_labels}


def saved(tmp_path, given):
    path = str(tmp_path / "data.npz")
    np.savez(path, **given)
    return path


def loaded(path):
    dataset = DATASETS["npz"].at(path)
    splits = dataset.load(path)
    return dataset, {name: part for name, part in splits.items() if isinstance(part, Examples)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_tenth_is_held_out_and_values_are_standardised(shape, tmp_path, rng):
    given = arrays(rng, shape)
    dataset, splits = loaded(saved(tmp_path, given))
    assert (dataset.image_shape, dataset.split_sizes) == (shape, (54, 6, 12))
    assert (list(splits), dataset.class_names) == (["train", "valid", "test"], ("0", "1", "2"))
    prepared = dataset.prepare(splits["train"].images)
    assert (prepared.mean(), prepared.std()) == pytest.approx((0, 1), abs=1e-4)
    put_together = np.concatenate([splits["train"].images, splits["valid"].images])
    ordered = [np.sort(some.reshape(60, -1).sum(1)) for some in (put_together, given["x_train"])]
    np.testing.assert_array_equal(*ordered)
    np.testing.assert_array_equal(splits["test"].images, given["x_test"])


def test_pixels_are_mapped_as_those_of_other_datasets(tmp_path, rng):
    given = arrays(rng, kind="uint8")
    given["x_train"].flat[:2] = 0, 255
    dataset, splits = loaded(saved(tmp_path, given))
    np.testing.assert_allclose(dataset.prepare(splits["test"].images), given["x_test"] / 127.5 - 1)


def test_a_file_may_have_validation_examples_class_names_and_labels_in_columns(tmp_path, rng):
    given = arrays(rng)
    given["x_valid"], given["y_valid"] = drawn(rng, SHAPES["images"], 9)
    given["y_train"] = given["y_train"][:, np.newaxis]
    given["class_names"] = np.array(["ant", "bee", "cat"])
    dataset, splits = loaded(saved(tmp_path, given))
    assert (dataset.split_sizes, dataset.class_names) == ((60, 9, 12), ("ant", "bee", "cat"))
    np.testing.assert_array_equal(splits["train"].labels, np.arange(60) % CLASSES)


@pytest.mark.parametrize(
    ("axes", "shape"), [((8, 9), (8, 9, 1)), ((24, 6), (24, 6)), ((24, 7), (24, 7, 1))]
)
def test_three_axes_are_images_unless_they_are_four_times_as_long(axes, shape, tmp_path, rng):
    assert loaded(saved(tmp_path, arrays(rng, axes)))[0].image_shape == shape


def without(name):
    return lambda given: {key: value for key, value in given.items() if key != name}


def put(name, change):
    return lambda given: {**given, name: change(given)}


REFUSED = {
    "The file must have y_test. Received: x_train, y_train, x_test": without("y_test"),
    "The file must have y_valid. Received": put("x_valid", lambda given: given["x_test"]),
    "`x_train` must have the axes": put("x_train", lambda given: given["x_train"][:, 0, 0]),
    "`x_test` must be finite real numbers. Received: some that are not": put(
        "x_test", lambda given: given["x_test"] * np.nan
    ),
    "`x_test` must be finite real numbers. Received: complex64": put(
        "x_test", lambda given: given["x_test"].astype("complex64")
    ),
    "`y_train` must be a whole number from 0 for each of the 60 examples. Received: shape (59,)": (
        put("y_train", lambda given: given["y_train"][1:])
    ),
    "`y_train` must be a whole number from 0": put("y_train", lambda given: given["y_train"] - 1),
    "`y_test` must be a whole number from 0 for each of the 12 examples. Received: shape (12, 3)": (
        put("y_test", lambda given: np.eye(3)[given["y_test"]])
    ),
    "Examples of all splits must have one shape. Received: (10, 9, 3) in train, (10, 8, 3)": (
        put("x_test", lambda given: given["x_test"][:, :, 1:])
    ),
    "Every class must have training examples. Received: none of 3": (
        put("y_test", lambda given: given["y_test"] + 1)
    ),
    "`class_names` must be 3 different names. Received: ('a', 'b')": (
        put("class_names", lambda _: np.array(["a", "b"]))
    ),
    "A file of arrays must be a whole .npz file. Received: Object arrays": (
        put("x_train", lambda given: given["x_train"].astype(object))
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_no_dataset_is_refused_in_a_sentence(sentence, tmp_path, rng):
    path = saved(tmp_path, REFUSED[sentence](arrays(rng)))
    with pytest.raises(ValueError, match="data_dir=") as caught:
        DATASETS["npz"].at(path)
    assert str(caught.value).startswith(sentence)
    assert path in str(caught.value)


def test_a_damaged_and_a_missing_file_are_told(tmp_path, rng):
    path = saved(tmp_path, arrays(rng))
    with open(path, "r+b") as file:  # noqa: PTH123 - to write within it
        file.truncate(2000)
    with pytest.raises(ValueError, match=r"must be a whole \.npz file"):
        DATASETS["npz"].at(path)
    with pytest.raises(FileNotFoundError, match="needs a file of arrays"):
        DATASETS["npz"].at(str(tmp_path))


@pytest.mark.parametrize(("dimensions", "shape"), [(1, (24,)), (2, (10, 9)), (3, (9, 8, 7))])
def test_layers_of_any_kind_are_those_of_the_dimension(dimensions, shape):
    for name in BY_DIMENSIONS[dimensions]:
        site = Site(4, 3, in_channels=2, in_size=shape)
        layer = convolution(name, Settings())(site)
        layer.build((None, *shape, 2))
        spatial = layer.compute_output_shape((None, *shape, 2))[1:-1]
        assert len(spatial) == dimensions
        if name.startswith("low_rank"):
            assert spatial == site.out_size()
            assert layer.count_params() == low_rank_parameters(Settings(), site)


FLAGS = (
    "--dataset=npz",
    "--epochs=2",
    "--filters=4",
    "--batch_size=6",
    "--spatial_rank=2",
    "--noevaluation",
)
NO = ("--export_formats=none",)


@pytest.mark.parametrize("kind", ["signals", pytest.param("volumes", marks=pytest.mark.slow)])
def test_networks_follow_the_dimensions_of_the_data(kind, tmp_path, rng):
    path = saved(tmp_path, arrays(rng, SHAPES[kind]))
    formats = NO if kind == "volumes" else ()
    output = finish(tmp_path / "run", *FLAGS, f"--data_dir={path}", "--epochs=8", *formats)
    dimensions = {"signals": 1, "volumes": 3}[kind]
    kinds = ("conv2d", "conv2d", "low_rank_locally_connected2d")
    assert " > ".join(in_dimensions(name, dimensions) for name in kinds) in output
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_accuracy"] > 0.8
    assert "failed" not in result
    assert (tmp_path / "run" / "combining_weights.png").stat().st_size > 1000


NEEDS_IMAGES = "needs images, not examples of shape 24x2 in npz"
REFUSED_FLAGS = {
    "--network=resnet18": f"--network {NEEDS_IMAGES}: choose simple_network.",
    "--translate": f"--translate {NEEDS_IMAGES}.",
    "--augment=flip": f"--augment {NEEDS_IMAGES}.",
    "--coord_conv": f"--coord_conv {NEEDS_IMAGES}.",
    "--layer_types=conv2d": "--layer_types takes names among conv1d, wide_conv1d, full_conv1d, "
    "locally_connected1d, low_rank_locally_connected1d.",
    "--kernel_size=13": "--kernel_size must leave 3 layers a position in 24 signals.",
    "--noshare_row_combining_weights": "--share_row_combining_weights must equal --share_col_com",
}


@pytest.mark.parametrize("flag", REFUSED_FLAGS)
def test_flags_that_only_images_can_have_are_refused(flag, tmp_path, rng):
    path = saved(tmp_path, arrays(rng, SHAPES["signals"]))
    done = script(*FLAGS, f"--data_dir={path}", f"--model_dir={tmp_path / 'run'}", flag)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run_experiment.py: {REFUSED_FLAGS[flag]}"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_arrays_of_a_run_are_told_apart_from_others(tmp_path, rng):
    first = Experiment(dataset="npz", data_dir=saved(tmp_path, arrays(rng)), batch_size=6)
    described = first.config()["images"]
    assert described.startswith("54 train, 6 valid and 12 test images of 3 classes")
