"""People's own images, end to end: what is found, what is skipped, what is refused."""

import itertools
import json
import os
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.folder import ImageFiles, printable, split_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("pipelines_as_written")]
SIZE = 16


@pytest.fixture
def root(tmp_path, rng):
    """40 cats and 40 dogs, of different sizes and formats; a dog is brighter."""
    for class_name, bright in (("dog", 128), ("cat", 0)):
        for number in range(40):
            suffix = ("jpg", "jpeg", "png", "JPG")[number % 4]
            write(tmp_path / class_name / f"{number}.{suffix}", rng, bright)
    return tmp_path


def write(path, rng, bright=0):
    from PIL import Image

    height, width = rng.integers(17, 33, 2)
    pixels = bright + rng.integers(0, 128, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def opened(root, image_size=SIZE):
    dataset = DATASETS["folder"].at(str(root), image_size)
    return dataset, {name: files(part) for name, part in dataset.load(str(root)).items()}


def files(examples) -> ImageFiles:
    assert isinstance(examples, ImageFiles)
    return examples


def read(batches):
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return list(images), list(labels)


def train(dataset, splits, **arguments):
    from low_rank_local_connectivity.data.pipeline import training_batches

    return training_batches(dataset, splits["train"], batch_size=7, seed=3, **arguments)


def evaluate(dataset, examples, batch_size=7, seed=0):
    from low_rank_local_connectivity.data.pipeline import evaluation_batches

    return evaluation_batches(dataset, examples, batch_size, seed)


def test_a_folder_of_classes_is_divided_by_the_hash_of_the_path(root):
    dataset, splits = opened(root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_shape == (SIZE, SIZE, 3)
    assert dataset.split_sizes == tuple(len(splits[name]) for name in ("train", "valid", "test"))
    assert sum(dataset.split_sizes) == 80
    for name, examples in splits.items():
        for path, label in zip(examples.paths, examples.labels, strict=True):
            relative_path = path.removeprefix(f"{root}/")
            assert split_of(relative_path) == name
            assert relative_path.startswith(dataset.class_names[label])


def test_the_hash_is_the_same_for_ever_and_gives_eight_one_and_one_tenth():
    drawn = [split_of(f"cat/{number}.jpg") for number in range(10_000)]
    shares = [drawn.count(name) / 10_000 for name in ("train", "valid", "test")]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.015)
    assert "".join(name[:2] for name in drawn[:12]) == "trtrtrtrtrtrtrtrtrtrtrte"
    # An accented letter is one character on Linux and two on a Mac.
    assert all(split_of(f"caf\u00e9/{n}") == split_of(f"cafe\u0301/{n}") for n in range(50))


def test_a_divided_folder_is_taken_as_it_is(tmp_path, rng):
    counts = {"train": 5, "valid": 2, "test": 3}
    for split, count in counts.items():
        for class_name in ("b", "a"):
            for number in range(count):
                write(tmp_path / split / class_name / f"{number}.png", rng)
    dataset, splits = opened(tmp_path)
    assert dataset.split_sizes == (10, 4, 6)
    assert dataset.class_names == ("a", "b")
    for split, examples in splits.items():
        assert all(path.startswith(f"{tmp_path}/{split}/") for path in examples.paths)


def test_a_missing_validation_split_is_taken_from_train(tmp_path, rng):
    for split, count in (("train", 60), ("test", 2)):
        for class_name in ("a", "b"):
            for number in range(count):
                write(tmp_path / split / class_name / f"{number}.png", rng)
    dataset, splits = opened(tmp_path)
    assert dataset.split_sizes[0] + dataset.split_sizes[1] == 120
    assert dataset.split_sizes[2] == 4
    for path in splits["valid"].paths:
        assert split_of(path.removeprefix(f"{tmp_path}/train/")) == "valid"


def test_a_class_may_be_named_train(root):
    (root / "cat").rename(root / "train")
    assert opened(root)[0].class_names == ("dog", "train")


def test_hidden_files_and_other_files_are_no_images(root):
    before = opened(root)[0].split_sizes
    for name in ("._1.jpg", "notes.txt", "list.csv"):
        (root / "cat" / name).write_text("x")
    (root / ".git").mkdir()
    assert opened(root)[0].split_sizes == before


def test_every_other_visible_file_is_named_as_left_out(root):
    assert DATASETS["folder"].left_out is not None
    assert DATASETS["folder"].left_out(str(root)) == []
    (root / "cat" / "more").mkdir()
    others = ["cat/1.psd", "cat/2.heic", "cat/more/3.jpg", "dog/labels.csv", "read me", "stray.png"]
    for name in (*others, ".hidden", "cat/._1.tif"):
        (root / name).write_bytes(b"x")
    sizes = opened(root)[0].split_sizes
    assert sum(sizes) == 80
    assert DATASETS["folder"].left_out(str(root)) == others
    for split in ("train", "valid", "test"):
        for name in ("cat", "dog"):
            shutil.copytree(root / name, root / "divided" / split / name)
    found = DATASETS["folder"].left_out(str(root / "divided"))
    assert found == [
        f"{split}/{name}" for split in ("test", "train", "valid") for name in others[:4]
    ]


def test_images_of_other_formats_are_examples(root, rng):
    from PIL import Image

    from low_rank_local_connectivity.data.unreadable import skipped_images

    suffixes = itertools.cycle(("bmp", "gif", "webp", "WebP", "TIF", "tiff"))
    for path, suffix in zip(sorted((root / "cat").iterdir()), suffixes, strict=False):
        options = {"lossless": True} if suffix.lower() == "webp" else {}
        pixels = rng.integers(0, 128, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path.with_suffix(f".{suffix}"), **options)
        path.unlink()
    dataset, splits = opened(root)
    found = {Path(path).suffix for path in splits["train"].paths}
    assert found >= {".bmp", ".gif", ".webp", ".WebP", ".TIF", ".tiff"}
    # Labels have not come loose from images: a dog is brighter.
    note = root / "skipped.txt"
    images, labels = read(train(dataset, splits, epochs=2, skipped=note))
    assert skipped_images(note) == []
    bright = np.concatenate(images).mean((1, 2, 3))
    labels = np.concatenate(labels)
    assert (labels == 0).sum() > 40
    assert bright[labels == 1].min() > bright[labels == 0].max()


def test_training_evaluation_and_a_server_see_an_image_as_its_camera_held_it(tmp_path):
    """Each of the eight ways to hold a camera is a class."""
    from PIL import Image, ImageOps

    from low_rank_local_connectivity.data.pipeline import input_from_bytes, training_batches

    rows, columns = np.mgrid[:20, :30]
    picture = Image.fromarray(np.stack([8 * columns, 12 * rows, 0 * rows], -1).astype("uint8"))
    for split, value in itertools.product(("train", "valid", "test"), range(1, 9)):
        exif = Image.Exif()
        exif[0x0112] = value
        path = tmp_path / split / str(value) / "1.png"
        path.parent.mkdir(parents=True)
        picture.save(path, exif=exif.tobytes())
    dataset, splits = opened(tmp_path)
    paths = files_of(splits["test"])
    assert [path.parent.name for path in paths] == [*"12345678"]
    shown = [ImageOps.exif_transpose(Image.open(path)) for path in paths]
    small = [image.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in shown]
    expected = np.stack([dataset.prepare(np.asarray(image, "float32")) for image in small])
    trained = training_batches(dataset, splits["train"], batch_size=8, epochs=1, seed=0)
    for batches in (trained, evaluate(dataset, splits["test"], batch_size=8)):
        (images,), (labels,) = read(batches)
        assert sorted(labels) == [*range(8)]
        np.testing.assert_allclose(images, expected[labels], atol=0.02)
    to_input = input_from_bytes(dataset)
    served = [to_input(path.read_bytes()) for path in paths]
    np.testing.assert_allclose(served, expected, atol=0.02)


NAMES = {
    b"caf\xe9": r"caf\xe9",
    "caf\u00e9".encode(): "caf\u00e9",
    b"two  words ": "two  words ",
    b"two\nlines": "two\nlines",
    b"n" * 255: "n" * 255,
    b'"quoted" \\': '"quoted" \\',
    "\u65e5\u672c".encode(): "\u65e5\u672c",
}
# How a Mac spells the second; of one folder it would be the same class.
DECOMPOSED = {"cafe\u0301".encode(): "caf\u00e9"}


def test_a_class_is_named_as_it_is_composed(root):
    """Some systems store an accent apart from its letter."""
    ((stored, name),) = DECOMPOSED.items()
    shutil.copytree(root / "cat", root / os.fsdecode(stored))
    assert set(opened(root)[0].class_names) == {name, "cat", "dog"}


@pytest.mark.parametrize(
    "names",
    [NAMES, pytest.param(DECOMPOSED, marks=pytest.mark.slow)],
    ids=["composed", "decomposed"],
)
def test_classes_and_images_may_have_any_name(names, root, tmp_path_factory):
    from low_rank_local_connectivity.data.unreadable import skipped_images

    for name in names:
        folder = root / os.fsdecode(name)
        folder.mkdir()
        for path in sorted((root / "cat").iterdir())[:24]:
            stem = name[:200] + path.stem.encode()
            shutil.copy(path, folder / (os.fsdecode(stem) + path.suffix))
    dataset, splits = opened(root)
    assert set(dataset.class_names) == {*names.values(), "cat", "dog"}
    assert json.loads(json.dumps(dataset.class_names)) == list(dataset.class_names)
    assert "".join(dataset.class_names).encode()
    images, _ = read(evaluate(dataset, splits["test"]))
    assert len(np.concatenate(images)) == len(splits["test"])
    broken = {}
    for name in names.values():
        chosen = np.flatnonzero(splits["train"].labels == dataset.class_names.index(name))[:2]
        broken[name] = [splits["train"].paths[index] for index in chosen]
        for path in broken[name]:
            Path(path).write_bytes(b"")
    note = tmp_path_factory.mktemp("run") / "skipped.txt"
    read(train(dataset, splits, epochs=2, skipped=note))
    skipped = skipped_images(note)
    expected = {name: {*map(printable, paths)} for name, paths in broken.items()}
    assert {*skipped} <= set().union(*expected.values())
    # The last of an epoch may not come by.
    assert all(paths & {*skipped} for paths in expected.values())
    assert all(len(line.encode().splitlines()) == 1 for line in skipped)


def test_two_folders_that_spell_one_name_are_refused(root, rng):
    for spelling in ("caf\u00e9", "cafe\u0301"):
        write(root / spelling / "1.png", rng)
    assert refusal(root) == (
        "Every class must have a name of its own. Received: two folders that spell 'caf\u00e9' in "
        f"{root}. Rename one, or put their images together."
    )


def test_all_unreadable_images_that_are_scored_are_named_at_once(root):
    from low_rank_local_connectivity.data.pipeline import unreadable_images
    from low_rank_local_connectivity.data.unreadable import (
        UnreadableError,
        refuse_unreadable,
        unreadable_image,
    )

    _, splits = opened(root)
    refuse_unreadable((splits["valid"],), unreadable_images)
    broken = files_of(splits["valid"])[:1]
    broken[0].write_bytes(broken[0].read_bytes()[:-30])
    with pytest.raises(UnreadableError) as caught:
        refuse_unreadable((splits["valid"],), unreadable_images)
    assert str(caught.value) == (
        f"Every image that is scored must be readable. Received: {broken[0]}. Replace or remove "
        "that file."
    )
    broken += files_of(splits["test"])[1:5]
    for path in broken[1:]:
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UnreadableError) as caught:
        refuse_unreadable((splits["valid"], splits["test"]), unreadable_images)
    assert unreadable_image(caught.value) == (
        "Every image that is scored must be readable. Received: 5 that are not: "
        f"{', '.join(map(str, broken))}. Replace or remove those files."
    )


def test_a_folder_is_listed_before_any_framework_loads(root):
    code = f"""
import sys
from low_rank_local_connectivity.data import DATASETS
print(sum(DATASETS["folder"].at({str(root)!r}).split_sizes), *sys.modules)
"""
    run = commands.new_python("-c", code, cwd=commands.ROOT)
    total, *modules = run.stdout.split()
    assert total == "80"
    assert not set(modules) & {"tensorflow", "keras", "PIL", "tensorflow_datasets"}


def refusal(root, error: type[Exception] = ValueError):
    with pytest.raises(error) as caught:
        DATASETS["folder"].at(None if root is None else str(root))
    return str(caught.value)


LAYOUTS = (
    "Give a folder of <class>/<image>, or of train/<class>/<image>, test/<class>/<image> and "
    "perhaps valid/<class>/<image>, with images in .jpg, .jpeg, .png, .bmp, .gif, .webp, .tif or "
    ".tiff."
)


@pytest.mark.parametrize("folder", [None, "/no/such/folder"])
def test_no_folder_is_refused(folder):
    expected = f"The dataset 'folder' needs a folder. Received: data_dir={folder}. {LAYOUTS}"
    assert refusal(folder, FileNotFoundError) == expected
    with pytest.raises(FileNotFoundError, match="needs a folder"):
        DATASETS["folder"].load(folder)


def test_fewer_than_two_classes_are_refused(root):
    shutil.rmtree(root / "cat")
    assert refusal(root) == (
        "The dataset 'folder' needs at least 2 classes, each in a folder. Received: 1 in "
        f"data_dir={root}. {LAYOUTS}"
    )


def test_an_empty_class_is_refused(root):
    (root / "owl").mkdir()
    (root / "owl" / "notes.txt").write_text("none yet")
    assert refusal(root) == (
        "Every class must have images. Received: no .jpg, .jpeg, .png, .bmp, .gif, "
        f".webp, .tif or .tiff in {root / 'owl'}. Add some, or remove the folder."
    )


def test_a_split_without_images_is_refused(tmp_path, rng):
    for where in ("train/a", "train/b", "valid/b"):
        write(tmp_path / where / "1.png", rng)
    assert refusal(tmp_path) == (
        f"Every split must have images. Received: 2 train, 1 valid, 0 test in data_dir={tmp_path}"
        ". Add images, or put some into test/<class>/ yourself."
    )


def test_a_class_without_training_images_is_refused(root, rng):
    held_out = next(n for n in range(99) if split_of(f"owl/{n}.png") == "test")
    write(root / "owl" / f"{held_out}.png", rng)
    assert refusal(root) == (
        "Every class must have training images. Received: none for 'owl' in "
        f"data_dir={root}. Add images to that class."
    )


def test_a_class_that_is_only_tested_is_refused(tmp_path, rng):
    for where in ("train/a", "train/b", "test/c"):
        write(tmp_path / where / "1.png", rng)
    assert refusal(tmp_path) == (
        f"Every class must be in train. Received: 'c' in {tmp_path / 'test'} alone. Add its "
        "training images, or remove the folder."
    )


def test_another_name_for_a_split_is_refused(tmp_path, rng):
    for where in ("train/a", "train/b", "val/a", "test/a"):
        write(tmp_path / where / "1.png", rng)
    assert refusal(tmp_path) == (
        "A folder with train/ must have no folders but train, valid, test. Received: 'val' in "
        f"data_dir={tmp_path}. Rename or move it."
    )


def test_every_training_epoch_has_every_image_in_its_own_order_and_view(root):
    dataset, splits = opened(root)
    images, labels = read(train(dataset, splits, epochs=2))
    steps = len(splits["train"]) // 7
    assert len(labels) == 2 * steps
    assert all(image.shape == (7, SIZE, SIZE, 3) for image in images)
    first, second = np.array(labels).reshape(2, -1)
    assert not np.array_equal(first, second)
    assert abs(first.sum() - splits["train"].labels.sum()) < 7
    # Dogs are brighter, so no label has come loose from its image.
    bright = np.concatenate(images).mean((1, 2, 3))
    labels = np.concatenate(labels)
    assert bright[labels == 1].min() > bright[labels == 0].max()


def test_a_run_continued_after_any_step_sees_what_it_would_have_seen(root):
    dataset, splits = opened(root)
    whole, _ = read(train(dataset, splits, epochs=3))
    start = len(splits["train"]) // 7 + 2
    rest, _ = read(train(dataset, splits, epochs=3, start=start))
    np.testing.assert_array_equal(whole[start:], rest)


def test_inputs_are_standardised_per_channel(tmp_path):
    from PIL import Image

    for class_name, colour in (("a", (0, 128, 255)), ("b", (255, 0, 128))):
        for split in ("train", "valid", "test"):
            folder = tmp_path / split / class_name
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 30), colour).save(folder / "1.png")
    dataset, splits = opened(tmp_path)
    for batches in (evaluate(dataset, splits["test"]), train_one(dataset, splits)):
        (images,), (labels,) = read(batches)
        for image, label in zip(images, labels, strict=True):
            colour = np.array([(0, 128, 255), (255, 0, 128)][label]) / 255
            expected = (colour - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
            np.testing.assert_allclose(image, np.broadcast_to(expected, image.shape), atol=1e-4)


def train_one(dataset, splits):
    from low_rank_local_connectivity.data.pipeline import training_batches

    return training_batches(dataset, splits["train"], batch_size=2, epochs=1, seed=0)


def test_evaluation_gives_every_image_once_whatever_the_batch_size(root):
    dataset, splits = opened(root)
    images, labels = read(evaluate(dataset, splits["test"]))
    assert np.concatenate(labels).tolist() == splits["test"].labels.tolist()
    other, _ = read(evaluate(dataset, splits["test"], batch_size=3))
    np.testing.assert_array_equal(np.concatenate(images), np.concatenate(other))


def test_a_subset_is_always_the_same(root):
    _, splits = opened(root)
    subset = splits["train"].subset(10)
    assert subset.paths == opened(root)[1]["train"].subset(10).paths
    assert len(set(subset.paths)) == len(subset) == 10
    assert set(subset.paths) <= set(splits["train"].paths)
    for path, label in zip(subset.paths, subset.labels, strict=True):
        assert ("/dog/" in path) == label


def spoil(images):
    """Makes images unreadable in five ways; returns their names."""
    whole = images[0].read_bytes()
    images[0].write_bytes(b"")
    images[1].write_bytes(whole[: len(whole) // 2])
    images[2].write_text("I am a letter")
    images[3].unlink()
    images[4].write_bytes(bytes(range(256)))
    return {str(image) for image in images[:5]}


def files_of(examples):
    return [Path(path) for path in examples.paths]


def test_unreadable_training_images_are_skipped_and_named(root, tmp_path):
    from low_rank_local_connectivity.data.unreadable import skipped_images

    dataset, splits = opened(root)
    broken = spoil(files_of(splits["train"])[::5])
    note = tmp_path / "a b.txt"
    assert skipped_images(note) == []
    images, labels = read(train(dataset, splits, epochs=2, skipped=note))
    assert skipped_images(note) == sorted(broken)
    assert len(labels) == 2 * (len(splits["train"]) // 7)
    assert all(len(batch) == 7 for batch in labels)
    bright = np.concatenate(images).mean((1, 2, 3))
    labels = np.concatenate(labels)
    assert bright[labels == 1].min() > bright[labels == 0].max()


def test_skipping_moves_no_other_image_and_the_epoch_ends_as_it_began(root):
    from low_rank_local_connectivity.data.pipeline import training_batches

    dataset, splits = opened(root)
    examples = splits["train"].subset(56)

    def epoch():
        images, _ = read(training_batches(dataset, examples, 7, epochs=1, seed=3))
        return [image.tobytes() for image in np.concatenate(images)]

    before = epoch()
    spoil(files_of(examples))
    after = epoch()
    assert after[:51] == [image for image in before if image in set(after)]
    assert after[51:] == after[:5]


def test_skipping_needs_no_file(root):
    dataset, splits = opened(root)
    spoil(files_of(splits["train"]))
    assert len(read(train(dataset, splits, epochs=1))[1]) == len(splits["train"]) // 7


def test_no_readable_training_image_is_an_error_and_no_hang(root):
    from low_rank_local_connectivity.data.unreadable import unreadable_image

    dataset, splits = opened(root)
    images = files_of(splits["train"])
    for image in images:
        image.write_bytes(b"")
    with pytest.raises(Exception, match="At least one training image") as caught:
        read(train(dataset, splits, epochs=1))
    assert unreadable_image(caught.value) == (
        "At least one training image must be readable. Received: none of "
        f"{len(images)}. Check the files."
    )


@pytest.mark.parametrize("name", ["plain.png", 'a "b" [c] \\d é.png'])
def test_an_unreadable_image_in_evaluation_is_an_error_that_names_it(name, root):
    from low_rank_local_connectivity.data.unreadable import unreadable_image

    dataset, splits = opened(root)
    file = files_of(splits["test"])[1]
    renamed = file.with_name(name)
    renamed.write_bytes(b"no image")
    examples = ImageFiles((str(file), str(renamed)), np.array([0, 1]))
    with pytest.raises(Exception, match="Every image that is scored") as caught:
        read(evaluate(dataset, examples))
    assert unreadable_image(caught.value) == (
        f"Every image that is scored must be readable. Received: {renamed}. Replace or remove "
        "that file."
    )


@pytest.mark.filterwarnings("ignore")
def test_the_name_survives_a_model_s_evaluation(root):
    import keras

    from low_rank_local_connectivity.data.unreadable import unreadable_image

    dataset, splits = opened(root)
    broken = files_of(splits["test"])[1]
    broken.write_bytes(b"no image")
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(Exception, match="Every image that is scored") as caught:
        model.evaluate(evaluate(dataset, splits["test"]), verbose=0)
    sentence = unreadable_image(caught.value)
    assert sentence is not None
    assert str(broken) in sentence


def test_translated_images_lie_elsewhere_in_every_epoch_but_not_in_evaluation(root):
    dataset, splits = opened(root, image_size=8)
    dataset = dataset.translated((20, 24))
    images, _ = read(train(dataset, splits, epochs=2))
    assert images[0].shape == (7, 20, 24, 3)
    assert len({image.tobytes() for image in np.concatenate(images)}) == 7 * len(images)
    whole, _ = read(evaluate(dataset, splits["test"]))
    other, _ = read(evaluate(dataset, splits["test"], batch_size=2))
    np.testing.assert_array_equal(np.concatenate(whole), np.concatenate(other))
    seeded, _ = read(evaluate(dataset, splits["test"], seed=1))
    assert not np.array_equal(np.concatenate(whole), np.concatenate(seeded))


def test_noise_around_a_standardised_image_fills_each_channel_s_range(root):
    dataset, splits = opened(root, image_size=1)
    images, _ = read(evaluate(dataset.translated((40, 40)), splits["test"]))
    pixels = np.concatenate(images).reshape(-1, 3)
    low, high = dataset.value_range
    # Of ten thousand pixels the outermost lie within a thousandth of the range's ends.
    np.testing.assert_allclose(pixels.min(0), low, atol=0.02)
    np.testing.assert_allclose(pixels.max(0), high, atol=0.02)
    np.testing.assert_allclose(pixels.mean(0), np.mean([low, high], axis=0), atol=0.1)


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_images_are_read_in_parallel_under_determinism(part, tmp_path):
    code = f"""
import os, sys, threading, time
import numpy as np
import tensorflow as tf
from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.folder import ImageFiles
from low_rank_local_connectivity.data.pipeline import evaluation_batches, training_batches
tf.random.set_seed(1)
tf.config.experimental.enable_op_determinism()
# A pipe holds up whoever opens it to read, until somebody opens it to write.
pipes = [{str(tmp_path)!r} + "/" + str(number) for number in range(16)]
for pipe in pipes:
    os.mkfifo(pipe)
examples = ImageFiles(tuple(pipes), np.zeros(16, "int64"))
dataset = DATASETS["folder"]
if {part!r} == "training":
    batches = training_batches(dataset, examples, 4, 1, 1, skipped={str(tmp_path / "skipped")!r})
else:
    batches = evaluation_batches(dataset, examples, 4)
threading.Thread(target=lambda: next(iter(batches)), daemon=True).start()
opened, stop = 0, time.monotonic() + 20
while opened < 2 and time.monotonic() < stop:
    time.sleep(0.5)
    waiting = 0
    for pipe in pipes:
        try:
            handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        waiting += 1
    opened = max(opened, waiting)
print(opened)
sys.stdout.flush()
os._exit(0)
"""
    run = commands.python("-c", code)
    assert int(run.stdout) >= 2, run.stderr
