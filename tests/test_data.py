"""The datasets: their splits, their ranges, their order and what happens without them."""

import dataclasses
import json
import shutil
import time
from io import BytesIO
from pathlib import Path

import commands
import numpy as np
import pytest

from low_rank_local_connectivity.data import DATASETS, Dataset, Examples

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("pipelines_as_written")]


def in_memory(examples) -> Examples:
    assert isinstance(examples, Examples)
    return examples


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
    for examples in map(in_memory, splits.values()):
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
    for name in splits:
        examples = in_memory(splits[name])
        np.testing.assert_array_equal(examples.images, in_memory(again[name]).images)
        share = len(examples) / len(original.target)
        assert np.abs(np.bincount(examples.labels) - counts * share).max() < 1
        seen += [image.tobytes() for image in examples.images]
    assert len(seen) == 1797
    duplicates = len(seen) - len(set(seen))
    assert duplicates == 1797 - len({image.tobytes() for image in original.images})


def test_digits_are_resized_as_squares_of_four():
    import sklearn.datasets

    image = in_memory(DATASETS["digits"].load()["test"]).images[0, :, :, 0]
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


def test_mnist_is_that_of_the_paper():
    dataset = DATASETS["mnist"]
    assert dataset.split_sizes == (55_200, 4_800, 10_000)
    assert dataset.value_range == (-1.0, 1.0)


@pytest.mark.slow  # how such files are read is tested below, without them
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
    np.testing.assert_array_equal(in_memory(splits["valid"]).images[:50], first["image"])
    names = tfds.builder("cifar10", data_dir=prepared).info.features["label"].names
    assert list(dataset.class_names) == names


@pytest.mark.parametrize(
    ("name", "stored_as"),
    [
        ("mnist", "mnist"),
        ("cifar10", "cifar10"),
        ("celeba32", "celeb_a"),
        ("imagenet2012", "imagenet2012"),
    ],
)
def test_missing_data_is_said_at_once_without_a_network(name, stored_as, tmp_path):
    started = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        DATASETS[name].load(str(tmp_path))
    assert time.monotonic() - started < 2
    assert str(caught.value) == (
        f"The dataset {stored_as!r} must be prepared in `data_dir`. Looked for "
        f"{tmp_path / stored_as}/<version>/dataset_info.json and found none. Add `download` to "
        "fetch it there, or give the folder that holds it with `data_dir`."
    )


# Tells that data is missing; then checks the splits of which a run takes its examples.
WITHOUT_SOCKETS = f"""
import runpy, sys
def refuse(event, arguments):
    if event == "socket.__new__" or event == "socket.connect":
        raise AssertionError(event)
sys.addaudithook(refuse)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_data import DATASETS, Dataset, check_splits
try:
    DATASETS["mnist"].load(sys.argv.pop(1))
except FileNotFoundError:
    print("said so")
load = Dataset.load
def load_and_check(dataset, *arguments):
    splits = load(dataset, *arguments)
    check_splits(dataset, splits)
    print("checked")
    return splits
Dataset.load = load_and_check
sys.argv[0] = {commands.SCRIPT!r}
runpy.run_path({commands.SCRIPT!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_mnist_has_the_paper_s_splits_and_trains_and_no_socket_is_opened_for_data(
    tmp_path, prepared
):
    """A hundred steps on MNIST are enough to know many digits."""
    flags = ["--dataset=mnist", f"--data_dir={prepared}", f"--model_dir={tmp_path / 'run'}"]
    flags += ["--filters=8", "--batch_size=64", "--spatial_rank=2", "--train_examples=6400"]
    flags += ["--peak_learning_rate=0.02", "--epochs=1", "--export_formats=none", "--noevaluation"]
    done = commands.python("-c", WITHOUT_SOCKETS, tmp_path, *flags)
    assert done.stdout.split("\n")[:2] == ["said so", "checked"], done.stderr
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_accuracy"] > 0.4


def test_every_epoch_has_its_own_order_and_no_example_twice():
    from low_rank_local_connectivity.data.pipeline import steps_per_epoch, training_batches

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


def test_a_run_continued_after_any_step_sees_what_it_would_have_seen():
    from low_rank_local_connectivity.data.pipeline import training_batches

    dataset, examples = numbered(23)
    _, whole = arrays(training_batches(dataset, examples, 5, epochs=3, seed=1))
    for start in (1, 4, 6, 11):
        _, rest = arrays(training_batches(dataset, examples, 5, epochs=3, seed=1, start=start))
        np.testing.assert_array_equal(whole[start:], rest)
    _, other = arrays(training_batches(dataset, examples, 5, epochs=3, seed=2))
    assert not np.array_equal(whole, other)


def test_evaluation_gives_every_example_once():
    from low_rank_local_connectivity.data.pipeline import evaluation_batches

    dataset, examples = numbered(23)
    _, labels = arrays(evaluation_batches(dataset, examples, 5))
    assert np.concatenate(labels).tolist() == list(range(23))


def test_a_batch_larger_than_the_data_is_refused():
    from low_rank_local_connectivity.data.pipeline import training_batches

    dataset, examples = numbered(4)
    with pytest.raises(ValueError, match="Received: batch_size=5 with 4 training examples"):
        training_batches(dataset, examples, 5, epochs=1, seed=0)


def prepared_folder(tmp_path, name, version):
    """Makes a folder look as if tensorflow-datasets had prepared a dataset in it."""
    folder = tmp_path / name / version
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    return str(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_loading_code_works_on_mocked_data(tmp_path):
    import tensorflow_datasets as tfds

    folder = prepared_folder(tmp_path, "mnist", "3.0.1")
    with tfds.testing.mock_data(num_examples=100):
        splits = DATASETS["mnist"].load(folder)
    for examples in map(in_memory, splits.values()):
        assert examples.images.shape[1:] == (28, 28, 1)


@pytest.mark.filterwarnings("ignore")
def test_celeba_loads_mocked_data_into_float_faces(tmp_path):
    import tensorflow_datasets as tfds

    folder = prepared_folder(tmp_path, "celeb_a", "2.1.0")
    dataset = DATASETS["celeba32"]
    with tfds.testing.mock_data(num_examples=40):
        splits = dataset.load(folder)
    assert list(splits) == ["train", "valid", "test"]
    for examples in map(in_memory, splits.values()):
        assert examples.images.shape == (40, 32, 32, 3)
        assert examples.images.dtype == "float32"
        assert examples.labels.dtype == "int64"
        assert set(examples.labels) == {0, 1}
        # Random pixels, interpolated without clipping.
        assert examples.images.min() < 0
        assert examples.images.max() > 1
        np.testing.assert_array_equal(dataset.prepare(examples.images), examples.images)


def test_celeba_has_the_official_splits():
    dataset = DATASETS["celeba32"]
    assert dataset.split_sizes == (162_770, 19_867, 19_962)
    assert dataset.class_names == ("female", "male")
    assert dataset.value_range == (0.0, 1.0)


def test_imagenet_holds_out_one_percent_of_its_training_images():
    dataset = DATASETS["imagenet2012"]
    train, valid, test = dataset.split_sizes
    assert train + valid == 1_281_167
    assert valid == round(0.01 * 1_281_167)
    assert test == 50_000
    assert dataset.num_classes == 1000
    # Black and white as everyone has them.
    np.testing.assert_allclose(dataset.value_range[0], [-2.1179, -2.0357, -1.8044], atol=1e-4)
    np.testing.assert_allclose(dataset.value_range[1], [2.2489, 2.4286, 2.64], atol=1e-4)
    pixels = np.array([[0.0, 255.0, 51.0]], "float32")
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(dataset.prepare(pixels), expected, rtol=1e-5)


def gray_jpeg(level):
    """A JPEG of one gray level."""
    import tensorflow as tf

    return tf.io.encode_jpeg(np.full((20, 30, 3), level, "uint8"), quality=100).numpy()


def prepare(folder, features, splits, num_shards, name="imagenet2012", version="5.1.0"):
    """Has tensorflow-datasets prepare examples as a dataset of this name.

    It stands in for one that must be downloaded, or that only registered people can prepare.
    """
    import tensorflow_datasets as tfds

    def info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def split_generators(_self, _manager):
        return {split: iter(enumerate(examples)) for split, examples in splits.items()}

    members = {
        "name": name,
        "VERSION": tfds.core.Version(version),
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": None,
        "pkg_dir_path": Path(__file__).parent,
    }
    with tfds.core.registered.skip_registration():
        builder = type("Prepared", (tfds.core.GeneratorBasedBuilder,), members)
    tfds.display_progress_bar(enable=False)
    config = tfds.download.DownloadConfig(num_shards=num_shards)
    builder(data_dir=folder).download_and_prepare(download_config=config)
    return str(folder)


@pytest.fixture(scope="module")
def tiny_imagenet(tmp_path_factory):
    """40 training and 10 validation images in several files, prepared by tensorflow-datasets.

    The gray level of an image is 5 times its label.
    """
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=1000),
        "file_name": tfds.features.Text(),
    }

    def examples(count):
        images = [BytesIO(gray_jpeg(5 * number)) for number in range(count)]
        return [
            {"image": image, "label": number, "file_name": f"{number}.JPEG"}
            for number, image in enumerate(images)
        ]

    splits = {"train": examples(40), "validation": examples(10)}
    return prepare(tmp_path_factory.mktemp("imagenet"), features, splits, num_shards=4)


@pytest.fixture
def imagenet(tiny_imagenet, monkeypatch):
    """The dataset at 8x8 and its splits, the first 6 training images held out."""
    from low_rank_local_connectivity.data import imagenet

    splits = {"train": "train[6:]", "valid": "train[:6]", "test": "validation"}
    monkeypatch.setattr(imagenet, "SPLITS", splits)
    dataset = DATASETS["imagenet2012"].at(tiny_imagenet, image_size=8)
    return dataset, dataset.load(tiny_imagenet)


def check_gray_levels(dataset, images, labels):
    """Checks that every image still is with its label."""
    levels = np.broadcast_to(5.0 * np.asarray(labels)[:, None, None, None], images.shape)
    np.testing.assert_allclose(images, dataset.prepare(levels.astype("float32")), atol=0.05)


def test_imagenet_s_splits_are_streamed_whole_and_without_overlap(imagenet):
    from low_rank_local_connectivity.data.pipeline import evaluation_batches

    dataset, splits = imagenet
    assert [len(splits[name]) for name in ("train", "valid", "test")] == [34, 6, 10]
    seen = {}
    for name, examples in splits.items():
        images, labels = arrays(evaluation_batches(dataset, examples, 4))
        check_gray_levels(dataset, np.concatenate(images), np.concatenate(labels))
        seen[name] = np.concatenate(labels).tolist()
    assert sorted(seen["train"] + seen["valid"]) == list(range(40))
    assert sorted(seen["test"]) == list(range(10))


def test_imagenet_s_training_order_is_a_function_of_seed_and_epoch(imagenet):
    import tensorflow as tf

    from low_rank_local_connectivity.data.pipeline import training_batches

    dataset, splits = imagenet
    images, whole = arrays(training_batches(dataset, splits["train"], 5, epochs=3, seed=1))
    check_gray_levels(dataset, np.concatenate(images), np.concatenate(whole))
    epochs = np.array(whole).reshape(3, 30)
    assert all(len(set(epoch)) == 30 for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    # The global seed has no say in it.
    tf.random.set_seed(5)
    _, rest = arrays(training_batches(dataset, splits["train"], 5, epochs=3, seed=1, start=8))
    np.testing.assert_array_equal(whole[8:], rest)
    _, other = arrays(training_batches(dataset, splits["train"], 5, epochs=3, seed=2))
    assert not np.array_equal(whole, other)


def test_a_subset_of_a_stream_is_refused(imagenet):
    with pytest.raises(ValueError, match="A subset needs") as caught:
        imagenet[1]["train"].subset(9)
    assert str(caught.value) == (
        "A subset needs examples that can be read in any order, but these are a stream. "
        "Received: 9 of 34 examples. Train on all of them."
    )


DAMAGES = {
    "a flipped bit": lambda raw: raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:],
    "a flipped bit in a length": lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
    "cut off": lambda raw: raw[: len(raw) // 2],
    "empty": lambda _: b"",
}


@pytest.fixture
def damaged(tiny_imagenet, tmp_path):
    """A prepared folder, and a function that damages a file of each split and returns those."""
    shutil.copytree(tiny_imagenet, tmp_path / "prepared")
    files = sorted((tmp_path / "prepared").glob("*/*/*.tfrecord-00001-of-*"))
    assert len(files) == 2
    whole = {file: file.read_bytes() for file in files}

    def damage(how):
        for file in files:
            file.write_bytes(DAMAGES[how](whole[file]))
        return dict(zip(("train", "test"), files, strict=True))

    return str(tmp_path / "prepared"), damage


def whole_is_asked_for(file):
    return (
        f"Every file of a prepared dataset must be whole. Received: {file}, which is damaged or "
        "truncated. Put it back, or prepare the dataset again."
    )


def test_a_damaged_file_of_records_is_named(damaged, monkeypatch):
    from low_rank_local_connectivity.data import imagenet
    from low_rank_local_connectivity.data.pipeline import (
        evaluation_batches,
        training_batches,
        unreadable_images,
    )
    from low_rank_local_connectivity.data.unreadable import refuse_unreadable, unreadable_image

    monkeypatch.setattr(imagenet, "SPLITS", {"train": "train", "test": "validation"})
    folder, damage = damaged
    dataset = DATASETS["imagenet2012"].at(folder, image_size=8)
    splits = dataset.load(folder)
    batches = {
        "train": training_batches(dataset, splits["train"], 5, 2, seed=1),
        "test": evaluation_batches(dataset, splits["test"], 4),
    }
    for how in DAMAGES:
        files = damage(how)
        # Training reads records as evaluation does.
        for split, some in batches.items() if how == "cut off" else [("test", batches["test"])]:
            with pytest.raises(Exception, match="must be whole") as caught:
                arrays(some)
            assert unreadable_image(caught.value) == whole_is_asked_for(files[split]), how
    with pytest.raises(Exception, match="must be whole") as caught:
        refuse_unreadable((splits["test"],), unreadable_images)
    assert unreadable_image(caught.value) == whole_is_asked_for(files["test"])


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_of_records_that_are_read_into_memory_is_named(how, damaged):
    import tensorflow as tf

    from low_rank_local_connectivity.data.tfds_files import collect_splits, open_prepared
    from low_rank_local_connectivity.data.unreadable import UnreadableError

    folder, damage = damaged
    files = damage(how)
    builder = open_prepared("imagenet2012", folder, download=False)

    def corner(example):
        image = tf.ensure_shape(example["image"][:2, :3], (2, 3, 3))
        return {"image": image, "label": example["label"]}

    with pytest.raises(UnreadableError) as caught:
        collect_splits(builder, {"test": "validation"}, corner)
    assert str(caught.value) == whole_is_asked_for(files["test"])


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_holds_a_split_alone_is_read_as_it_was_stored_or_named(tmp_path, rng):
    """The files of MNIST and CIFAR-10 are of this kind."""
    import tensorflow_datasets as tfds

    from low_rank_local_connectivity.data.tfds_files import read_prepared
    from low_rank_local_connectivity.data.unreadable import UnreadableError

    features = {
        "image": tfds.features.Image(shape=(5, 4, 3)),
        "label": tfds.features.ClassLabel(num_classes=7),
    }
    images = rng.integers(0, 256, (60, 5, 4, 3), "uint8")
    labels = rng.integers(0, 7, 60)
    examples = [
        {"image": image, "label": label} for image, label in zip(images, labels, strict=True)
    ]
    splits = {"train": examples[:50], "test": examples[50:]}
    folder = prepare(tmp_path, features, splits, 1, "tiny", "1.0.0")
    read = read_prepared("tiny", folder, download=False, valid_percent=20)
    for split, count in {"train": 40, "valid": 10, "test": 10}.items():
        examples = in_memory(read[split])
        assert len(examples) == count
        # tensorflow-datasets shuffles examples when it writes them.
        for image, label in zip(examples.images, examples.labels, strict=True):
            (stored,) = np.flatnonzero((images == image).all((1, 2, 3)))
            assert labels[stored] == label
    (file,) = tmp_path.glob("tiny/1.0.0/*test.tfrecord-00000-of-00001")
    whole = file.read_bytes()
    for damage in DAMAGES.values():
        file.write_bytes(damage(whole))
        with pytest.raises(UnreadableError) as caught:
            read_prepared("tiny", folder, download=False, valid_percent=20)
        assert str(caught.value) == whole_is_asked_for(file)


def test_a_split_that_was_not_prepared_is_said(tiny_imagenet, monkeypatch):
    from low_rank_local_connectivity.data import imagenet

    monkeypatch.setattr(imagenet, "SPLITS", {"train": "train", "test": "test[:5]"})
    with pytest.raises(FileNotFoundError) as caught:
        DATASETS["imagenet2012"].load(tiny_imagenet)
    assert str(caught.value) == (
        "imagenet2012 must have been prepared with its split 'test'. Received: ['train', "
        f"'validation'] in {tiny_imagenet}/imagenet2012/5.1.0. Prepare it again with the archive "
        "of that split."
    )


def test_files_that_cannot_be_streamed_are_refused():
    from types import SimpleNamespace

    from low_rank_local_connectivity.data.tfds_records import PreparedRecords

    info = SimpleNamespace(splits={"train"}, file_format=SimpleNamespace(value="array_record"))
    builder = SimpleNamespace(name="imagenet2012", data_dir="/d", info=info)
    with pytest.raises(ValueError, match="TFRecord") as caught:
        PreparedRecords.of(builder, "train[:5]")
    assert str(caught.value) == (
        "imagenet2012 must have been prepared as TFRecord files. Received: 'array_record' in /d. "
        "Prepare it with file_format='tfrecord'."
    )


def test_synthetic_images_are_the_same_every_time_and_of_any_size():
    dataset = DATASETS["synthetic"].at(image_size=6)
    splits, again = dataset.load(), dataset.load()
    for name, size in zip(splits, dataset.split_sizes, strict=True):
        examples = in_memory(splits[name])
        assert examples.images.shape == (size, 6, 6, 3)
        assert examples.images.dtype == "uint8"
        assert 0 <= examples.labels.min() <= examples.labels.max() < dataset.num_classes
        np.testing.assert_array_equal(examples.images, in_memory(again[name]).images)
    assert DATASETS["synthetic"].at().image_shape == (224, 224, 3)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "celeba32"])
def test_images_of_one_size_are_not_resized(name):
    dataset = DATASETS[name]
    assert dataset.at("/anywhere") is dataset
    with pytest.raises(ValueError, match="any size") as caught:
        dataset.at(image_size=99)
    assert str(caught.value) == (
        f"`image_size` needs a dataset of any size; images of {name} have "
        f"{dataset.image_shape[:2]} pixels. Received: image_size=99. Leave it out."
    )


def test_images_have_a_size():
    with pytest.raises(ValueError, match=r"must be at least 1\. Received: image_size=0\."):
        DATASETS["synthetic"].at(image_size=0)


def test_a_subset_in_memory_is_always_the_same():
    _, examples = numbered(23)
    chosen = examples.subset(7).labels.tolist()
    assert chosen == sorted(set(chosen)) == examples.subset(7).labels.tolist()
    assert len(chosen) == 7


def marked(count=1):
    """Images of 2x3 pixels that noise in [0, 1] cannot be taken for."""
    dataset, _ = numbered(count)
    images = np.full((count, 2, 3, 1), 7, "uint8")
    dataset = dataclasses.replace(
        dataset, image_shape=(2, 3, 1), value_range=(0.0, 1.0), stored_range=(0.0, 1.0)
    )
    return dataset.translated((5, 9)), Examples(images, np.zeros(count, "int64"))


def places(images):
    """The upper left corner of each marked image, which must be there whole."""
    found = []
    for image in images:
        rows, columns = np.nonzero(image[..., 0] == 7)
        assert len(rows) == 6
        assert (np.ptp(rows), np.ptp(columns)) == (1, 2)
        found.append((rows.min(), columns.min()))
    return found


def test_images_lie_everywhere_in_the_canvas_equally_often():
    from low_rank_local_connectivity.data.pipeline import training_batches

    dataset, examples = marked(50)
    images, _ = arrays(training_batches(dataset, examples, 50, epochs=56, seed=0))
    found = places(np.concatenate(images))
    rows, columns = zip(*found, strict=True)
    counts, _, _ = np.histogram2d(rows, columns, [range(5), range(8)])
    expected = 50 * 56 / 28
    # Chi squared with 27 degrees of freedom: above 56 once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 56
    noise = np.concatenate(images)
    noise = noise[noise != 7]
    assert 0 <= noise.min() <= noise.max() <= 1
    shares = np.histogram(noise, 10, (0, 1))[0] / len(noise)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_places_are_new_in_every_epoch_and_fixed_in_evaluation():
    from low_rank_local_connectivity.data.pipeline import evaluation_batches, training_batches

    dataset, examples = marked(30)
    images, _ = arrays(training_batches(dataset, examples, 30, epochs=2, seed=4))
    first, second = map(places, images)
    assert first != second
    (again,), _ = arrays(training_batches(dataset, examples, 30, epochs=2, seed=4, start=1))
    np.testing.assert_array_equal(again, images[1])
    whole, _ = arrays(evaluation_batches(dataset, examples, 30, seed=4))
    parts, _ = arrays(evaluation_batches(dataset, examples, 7, seed=4))
    np.testing.assert_array_equal(np.concatenate(parts), whole[0])
    assert places(whole[0]) not in (first, second)


def test_a_canvas_must_hold_the_images():
    dataset, _ = numbered(3)
    with pytest.raises(ValueError, match="must hold images") as caught:
        dataclasses.replace(dataset, image_shape=(2, 3, 1)).translated((5, 2))
    assert str(caught.value) == (
        "`canvas` must hold images of (2, 3) pixels. Received: canvas=(5, 2). Give at least the "
        "images' own size."
    )
