"""The datasets: their splits, their ranges, their order and what happens without them."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data import DATASETS, Dataset, Examples

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]


def arrays(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return list(images), list(labels)


def numbered(count):
    """A dataset whose images say which example they are."""
    images = np.arange(count, dtype="uint8").reshape(count, 1, 1, 1)
    examples = Examples(images, np.arange(count))
    dataset = Dataset(
        name="numbered",
        image_shape=(1, 1, 1),
        class_names=tuple(map(str, range(count))),
        split_sizes=(count, 0, 0),
        value_range=(-1.0, 1.0),
        stored_range=(0.0, 255.0),
        read=lambda _folder, _download: {"train": examples},
        source="numbers",
        find=lambda _folder: None,
    )
    return dataset, examples


def check_splits(dataset, splits):
    sizes = tuple(len(splits[name]) for name in ("train", "valid", "test"))
    assert sizes == dataset.split_sizes
    for examples in splits.values():
        assert examples.images.shape == (len(examples), *dataset.image_shape)
        assert set(np.unique(examples.labels)) == set(range(dataset.num_classes))
        low, high = dataset.stored_range
        assert examples.images.min() == low
        assert examples.images.max() == high
    prepared = dataset.prepare(np.array(dataset.stored_range, "float32"))
    np.testing.assert_allclose(prepared, dataset.value_range)


def test_digits_are_split_without_overlap_and_in_proportion():
    import sklearn.datasets

    dataset = DATASETS["digits"]
    splits = dataset.load()
    check_splits(dataset, splits)
    again = dataset.load()
    original = sklearn.datasets.load_digits()
    counts = np.bincount(original.target)
    seen = []
    for name, examples in splits.items():
        np.testing.assert_array_equal(examples.images, again[name].images)
        share = len(examples) / len(original.target)
        assert np.abs(np.bincount(examples.labels) - counts * share).max() < 1
        seen += [image.tobytes() for image in examples.images]
    assert len(seen) == 1797
    duplicates = len(seen) - len(set(seen))
    assert duplicates == 1797 - len({image.tobytes() for image in original.images})


def test_digits_are_resized_as_squares_of_four():
    import sklearn.datasets

    image = DATASETS["digits"].load()["test"].images[0, :, :, 0]
    # Bilinear at a factor of 2: each new pixel is 9/16, 3/16, 3/16, 1/16 of its neighbours.
    for original in sklearn.datasets.load_digits().images:
        padded = np.pad(original, 1, mode="edge")
        expected = (
            9 * padded[1:-1, 1:-1]
            + 3 * padded[:-2, 1:-1]
            + 3 * padded[1:-1, :-2]
            + padded[:-2, :-2]
        ) / 16
        if np.allclose(image[::2, ::2], expected, atol=1e-4):
            return
    raise AssertionError("no original digit gives this image")


def test_mnist_has_the_paper_s_splits(prepared):
    dataset = DATASETS["mnist"]
    splits = dataset.load(prepared)
    check_splits(dataset, splits)
    assert dataset.split_sizes == (55_200, 4_800, 10_000)
    assert dataset.value_range == (-1.0, 1.0)


def test_cifar10_has_the_paper_s_splits_from_the_start_of_train(prepared):
    import tensorflow_datasets as tfds

    dataset = DATASETS["cifar10"]
    splits = dataset.load(prepared)
    check_splits(dataset, splits)
    assert dataset.split_sizes == (45_000, 5_000, 10_000)
    assert dataset.value_range == (0.0, 1.0)
    first = tfds.as_numpy(
        tfds.load("cifar10", split="train[:50]", data_dir=prepared, batch_size=-1)
    )
    np.testing.assert_array_equal(splits["valid"].images[:50], first["image"])
    names = tfds.builder("cifar10", data_dir=prepared).info.features["label"].names
    assert list(dataset.class_names) == names


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_is_said_at_once_without_a_network(name, tmp_path):
    started = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        DATASETS[name].load(str(tmp_path))
    assert time.monotonic() - started < 2
    assert str(caught.value) == (
        f"The dataset {name!r} must be prepared in --data_dir. Looked for "
        f"{tmp_path / name}/<version>/dataset_info.json and found none. Add --download to fetch "
        "it there, or give the folder that holds it with --data_dir."
    )


def test_no_socket_is_opened_for_missing_or_prepared_data(tmp_path, prepared):
    code = f"""
import sys
def refuse(event, arguments):
    if event == "socket.__new__" or event == "socket.connect":
        raise AssertionError(event)
sys.addaudithook(refuse)
from data import DATASETS
try:
    DATASETS["mnist"].load({str(tmp_path)!r})
except FileNotFoundError:
    print("said so")
print(len(DATASETS["mnist"].load({prepared!r})["test"]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == ["said", "so", "10000"]


def test_every_epoch_has_its_own_order_and_no_example_twice():
    from data.pipeline import steps_per_epoch, training_batches

    dataset, examples = numbered(23)
    batches = training_batches(dataset, examples, batch_size=5, epochs=3, seed=1)
    images, labels = arrays(batches)
    assert steps_per_epoch(examples, 5) == 4
    assert [len(batch) for batch in labels] == [5] * 12
    epochs = np.array(labels).reshape(3, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    values = np.concatenate(images).ravel()
    np.testing.assert_allclose((values + 1) * 127.5, np.concatenate(labels), atol=1e-4)


def test_a_run_continued_after_an_epoch_sees_what_it_would_have_seen():
    from data.pipeline import training_batches

    dataset, examples = numbered(23)
    _, whole = arrays(training_batches(dataset, examples, 5, epochs=3, seed=1))
    _, rest = arrays(training_batches(dataset, examples, 5, epochs=3, seed=1, start=1))
    np.testing.assert_array_equal(whole[4:], rest)
    _, other = arrays(training_batches(dataset, examples, 5, epochs=3, seed=2))
    assert not np.array_equal(whole, other)


def test_evaluation_gives_every_example_once():
    from data.pipeline import evaluation_batches

    dataset, examples = numbered(23)
    _, labels = arrays(evaluation_batches(dataset, examples, 5))
    assert np.concatenate(labels).tolist() == list(range(23))


def test_a_batch_larger_than_the_data_is_refused():
    from data.pipeline import training_batches

    dataset, examples = numbered(4)
    with pytest.raises(ValueError, match="Received: batch_size=5 with 4 training examples"):
        training_batches(dataset, examples, 5, epochs=1, seed=0)


@pytest.mark.filterwarnings("ignore")
def test_loading_code_works_on_mocked_data(tmp_path):
    import tensorflow_datasets as tfds

    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    with tfds.testing.mock_data(num_examples=100):
        splits = DATASETS["mnist"].load(str(tmp_path))
    for examples in splits.values():
        assert examples.images.shape[1:] == (28, 28, 1)
