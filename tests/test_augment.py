"""What training and evaluation see of an image: all of it, unless the flags say otherwise."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest

from low_rank_local_connectivity.data import DATASETS, Dataset, Examples
from low_rank_local_connectivity.experiments.folder import check_folder

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("pipelines_as_written")]
ROOT = Path(__file__).parents[1]
SIZE = 12
COUNTS = {"train": 30, "valid": 6, "test": 8}


def halves(height, width, bright, blue):
    """An image that is brighter on one side, and smooth, so that resizers agree."""
    rows, columns = np.mgrid[:height, :width]
    ramp = columns if bright == "right" else width - 1 - columns
    pixels = np.stack([200 * ramp / width, 100 * rows / height, 0 * rows + blue], axis=-1)
    return pixels.astype("uint8")


@pytest.fixture
def root(tmp_path, rng):
    """A folder of images that are brighter on the left, or on the right."""
    from PIL import Image

    for split, count in COUNTS.items():
        for number in range(count):
            side = ("left", "right")[number % 2]
            (tmp_path / split / side).mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(20, 40, 2)
            image = Image.fromarray(halves(height, width, side, 8 * number))
            image.save(tmp_path / split / side / f"{number}.png")
    return tmp_path


def opened(root, augment=(), eval_crop=None) -> tuple[Any, dict[str, Any]]:
    dataset = DATASETS["folder"].at(str(root), SIZE).augmented(augment).cropped(eval_crop)
    return dataset, dataset.load(str(root))


def trained(dataset, examples, epochs=1, **arguments):
    from low_rank_local_connectivity.data.pipeline import training_batches

    batches = training_batches(dataset, examples, 5, epochs=epochs, seed=3, **arguments)
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def evaluated(dataset, examples):
    from low_rank_local_connectivity.data.pipeline import evaluation_batches

    images, labels = zip(*evaluation_batches(dataset, examples, 5).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def by_pillow(dataset, path, share=None):
    """What Pillow makes of an image: all of it, or its central square."""
    from PIL import Image

    image = Image.open(path)
    if share is not None:
        side = int(share * min(image.size))
        left, top = ((length - side) // 2 for length in image.size)
        image = image.crop((left, top, left + side, top + side))
    resized = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return dataset.prepare(np.asarray(resized, "float32"))


def brighter_side(images):
    """0 where an image's left half is the brighter one, 1 where it is the right one."""
    red, middle = images[..., 0], images.shape[2] // 2
    return (red[..., middle:].mean((1, 2)) > red[..., :middle].mean((1, 2))).astype(int)


def test_without_a_flag_training_sees_every_image_whole_and_as_it_is(root):
    dataset, splits = opened(root)
    images, labels = trained(dataset, splits["train"], epochs=2)
    np.testing.assert_array_equal(brighter_side(images), labels)
    expected = np.stack([by_pillow(dataset, path) for path in splits["train"].paths])
    for epoch in np.split(images, 2):
        distances = np.abs(epoch[:, np.newaxis] - expected).max((2, 3, 4))
        # Pillow rounds to whole levels, of which 58 make a standard deviation.
        assert distances.min(1).max() < 0.02
        assert sorted(distances.argmin(1)) == list(range(COUNTS["train"]))


@pytest.mark.parametrize("share", [None, pytest.param(0.5, marks=pytest.mark.slow), 0.875, 1.0])
def test_evaluation_sees_the_whole_image_or_the_central_square_that_is_asked_for(share, root):
    dataset, splits = opened(root, eval_crop=share)
    images, _ = evaluated(dataset, splits["test"])
    expected = [by_pillow(dataset, path, share) for path in splits["test"].paths]
    np.testing.assert_allclose(images, expected, atol=0.02)


@pytest.mark.parametrize("share", [None, 0.6])
def test_a_server_sees_what_evaluation_sees(share, root):
    from low_rank_local_connectivity.data.pipeline import input_from_bytes

    dataset, splits = opened(root, augment=("crop", "flip"), eval_crop=share)
    images, _ = evaluated(dataset, splits["valid"])
    to_input = input_from_bytes(dataset)
    for path, image in zip(splits["valid"].paths, images, strict=True):
        np.testing.assert_allclose(to_input(Path(path).read_bytes()), image, atol=1e-5)


def test_evaluation_is_never_augmented(root):
    plain, splits = opened(root)
    augmented, _ = opened(root, augment=("crop", "flip"))
    expected, _ = evaluated(plain, splits["test"])
    np.testing.assert_array_equal(evaluated(augmented, splits["test"])[0], expected)


def test_a_flip_mirrors_half_of_the_images_and_does_nothing_else(root):
    plain, splits = opened(root)
    flipped, _ = opened(root, augment=("flip",))
    before, _ = trained(plain, splits["train"], epochs=8)
    after, _ = trained(flipped, splits["train"], epochs=8)
    mirrored = (after == before[:, :, ::-1]).all((1, 2, 3))
    kept = (after == before).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    # 240 throws of a coin: 5 standard deviations.
    assert abs(mirrored.mean() - 0.5) < 0.17


def test_a_crop_mirrors_nothing(root):
    plain, splits = opened(root)
    cropped, _ = opened(root, augment=("crop",))
    before, _ = trained(plain, splits["train"])
    after, labels = trained(cropped, splits["train"])
    np.testing.assert_array_equal(brighter_side(after), labels)
    assert np.abs(after - before).max((1, 2, 3)).min() > 0.01


def in_memory(count=23, shape=(6, 8, 1)) -> tuple[Dataset, Examples]:
    """Images in memory, every pixel of which is another."""
    images = np.arange(count * np.prod(shape), dtype="float32").reshape(count, *shape)
    dataset = dataclasses.replace(
        DATASETS["digits"], image_shape=shape, value_range=(0.0, 1.0), stored_range=(0.0, 1.0)
    )
    return dataset, Examples(images, np.arange(count))


def test_images_in_memory_are_mirrored_too():
    dataset, examples = in_memory()
    images, labels = trained(dataset.augmented(("flip",)), examples, epochs=12)
    stored = examples.images[labels]
    mirrored = (images == stored[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored ^ (images == stored).all((1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.5) < 0.17


def test_a_crop_of_an_image_in_memory_is_a_part_of_it_enlarged():
    dataset, examples = in_memory()
    images, labels = trained(dataset.augmented(("crop",)), examples, epochs=4)
    stored = examples.images[labels]
    low, high = stored.min((1, 2, 3)), stored.max((1, 2, 3))
    assert (images.min((1, 2, 3)) >= low).all()
    assert (images.max((1, 2, 3)) <= high).all()
    # Values rise along rows and columns, in a part as in the whole.
    assert (np.diff(images, axis=1) >= 0).all()
    assert (np.diff(images, axis=2) >= 0).all()
    spread = (images.max((1, 2, 3)) - images.min((1, 2, 3))) / (high - low)
    assert spread.min() < 0.5
    assert spread.max() > 0.8


@pytest.mark.parametrize(
    ("stored", "canvas"),
    [
        ("in memory", (14, 15)),
        ("in files", None),
        pytest.param("in memory", None, marks=pytest.mark.slow),
        pytest.param("in files", (14, 15), marks=pytest.mark.slow),
    ],
)
def test_a_run_continued_after_any_step_sees_the_crops_that_it_would_have_seen(
    stored, canvas, root
):
    dataset, examples = in_memory()
    if stored == "in files":
        dataset, splits = opened(root)
        examples = splits["train"]
    dataset = dataset.augmented(("crop", "flip"))
    dataset = dataset if canvas is None else dataset.translated(canvas)
    whole, _ = trained(dataset, examples, epochs=2)
    rest, _ = trained(dataset, examples, epochs=2, start=3)
    np.testing.assert_array_equal(whole[3 * 5 :], rest)
    first, second = np.split(whole, 2)
    assert not {image.tobytes() for image in first} & {image.tobytes() for image in second}


def test_unknown_augmentations_are_refused():
    with pytest.raises(ValueError, match="`augment`") as caught:
        DATASETS["digits"].augmented(("crop", "rotate"))
    assert str(caught.value) == (
        "`augment` must be among 'crop', 'flip', 'randaugment', 'erasing', 'mixup', 'cutmix', "
        "each once, the last four with a strength above 0 and up to 1 if wanted, as in "
        "'mixup:0.4'. Received: augment=('crop', 'rotate')."
    )


@pytest.mark.parametrize(("name", "share"), [("digits", 0.5), ("folder", 0), ("folder", 1.01)])
def test_a_central_square_must_lie_in_images_of_sizes_of_their_own(name, share):
    with pytest.raises(ValueError, match="`eval_crop`") as caught:
        DATASETS[name].cropped(share)
    assert str(caught.value) == (
        "`eval_crop` must be above 0 and at most 1, and needs a dataset of images of any size. "
        f"Received: eval_crop={share} for {name}. Leave it out."
    )


def experiment(*arguments):
    from low_rank_local_connectivity.experiments.flags import FLAGS, experiment_from_flags

    for name in FLAGS:
        FLAGS[name].unparse()
    FLAGS(["run_experiment.py", *arguments])
    return experiment_from_flags()


def test_nothing_is_cropped_or_mirrored_by_default_but_by_the_recipes_of_imagenet(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("digits", "imagenet2012"):
        plain = experiment(f"--dataset={name}")
        assert (plain.data.augment, plain.data.eval_crop) == ((), None)
    recipes = sorted(Path("experiments/paper").glob("imagenet_*.flags"))
    assert recipes
    for path in recipes:
        recipe = experiment(f"--flagfile={path}")
        assert (recipe.data.augment, recipe.data.eval_crop) == (("crop", "flip"), 0.875)


def test_the_order_of_augmentations_makes_no_other_run():
    assert experiment("--augment=flip,crop") == experiment("--augment=crop,flip,crop")
    assert experiment("--augment=none") == experiment() == experiment("--augment=")


def test_a_run_from_before_the_flags_is_continued_with_what_it_was_trained_with(
    root, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("run")
    flags = ["--dataset=folder", f"--data_dir={root}", f"--model_dir={folder}"]
    flags += ["--batch_size=5", f"--image_size={SIZE}"]
    config = experiment(*flags).config()
    del config["augment"], config["eval_crop"]
    (folder / "config.json").write_text(json.dumps(config))
    assert check_folder(experiment(*flags, "--augment=crop,flip", "--eval_crop=0.875")) is None
    with pytest.raises(ValueError, match="--augment is") as caught:
        check_folder(experiment(*flags))
    assert "--augment is ['crop', 'flip'] there and [] here" in str(caught.value)
    assert "--eval_crop is 0.875 there and None here" in str(caught.value)
    config["dataset"] = "digits"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="--dataset is") as caught:
        check_folder(experiment(*flags))
    assert "augment" not in str(caught.value)


def write_blobs(root, rng):
    """Noise with a bright spot in its left or in its right half, which is the class."""
    from PIL import Image

    rows, columns = np.mgrid[:16, :16]
    for split, count in {"train": 128, "valid": 24, "test": 64}.items():
        for number in range(count):
            half = number % 2
            row, column = rng.uniform(2, 13), rng.uniform(2, 5) + 8 * half
            spot = 180 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4)
            pixels = 40 + spot[..., np.newaxis] + rng.normal(0, 10, (16, 16, 3))
            stream = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(stream, "PNG")
            folder = root / split / ("left", "right")[half]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(stream.getvalue())


# That images are neither mirrored nor cropped by default, and that the network learns, is tested
# apart in the quick suite.
@pytest.mark.slow
def test_the_default_network_learns_in_which_half_of_an_image_something_is(tmp_path, rng):
    write_blobs(tmp_path / "blobs", rng)
    flags = ["--dataset=folder", f"--data_dir={tmp_path / 'blobs'}", "--image_size=16"]
    flags += ["--filters=8", "--epochs=3", "--batch_size=16", "--export_formats=none"]
    flags += ["--peak_learning_rate=0.01"]
    done = commands.python(commands.SCRIPT, *flags, f"--model_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_accuracy"] >= 0.98
    assert done.stderr == ""
