"""Batches without TensorFlow: order, resumption, views and unreadable images."""

import io

import numpy as np
import pytest
from PIL import Image

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.dataset import Examples, steps_per_epoch
from low_rank_local_connectivity.data.unreadable import (
    UnreadableError,
    refuse_unreadable,
    skipped_images,
)

pytest.importorskip("grain", reason="grain is not installed")
from low_rank_local_connectivity.data import grain_pipeline, pillow_images

pytestmark = pytest.mark.once
SIZE = 12


def numbered(count):
    """Images whose pixels, stored from 0 to 255, are the label."""
    labels = np.arange(count)
    images = np.broadcast_to(labels[:, None, None, None], (count, 28, 28, 1)).astype("uint8")
    return DATASETS["mnist"], Examples(images, labels)


def read(batches):
    images, labels = zip(*batches, strict=True)
    return list(images), list(labels)


def train(dataset, examples, batch_size=5, epochs=3, seed=1, **arguments):
    batches = grain_pipeline.training_batches(
        dataset, examples, batch_size, epochs, seed, **arguments
    )
    return read(batches)


def evaluate(dataset, examples, batch_size=5, seed=0):
    return read(grain_pipeline.evaluation_batches(dataset, examples, batch_size, seed))


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_epoch_has_its_own_order_and_no_example_twice():
    images, labels = train(*numbered(23))
    assert steps_per_epoch(numbered(23)[1], 5) == 4
    assert [len(batch) for batch in labels] == [5] * 12
    epochs = np.array(labels).reshape(3, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    values = np.concatenate(images)[:, 5, 6, 0]
    np.testing.assert_allclose((values + 1) * 127.5, np.concatenate(labels), atol=1e-4)
    assert images[0].dtype == "float32"


@pytest.mark.parametrize("kind", ["as stored", "placed in noise", "cropped and mirrored"])
@pytest.mark.parametrize("start", [0, 3, 4, 11, 12])
def test_a_run_continued_after_any_step_sees_what_it_would_have_seen(kind, start):
    dataset, examples = numbered(23)
    if kind == "placed in noise":
        dataset = dataset.translated((32, 31))
    if kind == "cropped and mirrored":
        dataset = dataset.augmented(("crop", "flip"))
    whole, rest = (
        train(dataset, examples),
        list(grain_pipeline.training_batches(dataset, examples, 5, 3, 1, start)),
    )
    assert len(rest) == 12 - start
    for part in range(2):
        assert_equal([batch[part] for batch in rest], whole[part][start:])
    other = train(dataset, examples, seed=2)[1]
    assert not np.array_equal(np.concatenate(other), np.concatenate(whole[1]))


def test_every_example_is_evaluated_once_in_order():
    images, labels = evaluate(*numbered(23))
    assert [len(batch) for batch in labels] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(labels), np.arange(23))
    expected = numbered(23)[0].prepare(numbered(23)[1].images.astype("float32"))
    np.testing.assert_array_equal(np.concatenate(images), expected)


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(ValueError, match="batch_size=5 with 4 training examples"):
        train(*numbered(4))


def test_translated_images_lie_anywhere_in_noise_of_the_dataset_s_range():
    dataset, examples = numbered(40)
    bright = Examples(np.full_like(examples.images, 255), examples.labels)
    placed = dataset.translated((31, 33))
    (images, *_), _ = train(placed, bright, 40, 1)
    noise = images[images < 1]
    assert (noise.min(), noise.max()) == pytest.approx((-1, 1), abs=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.03)
    corners = set()
    for image in images[..., 0]:
        rows, columns = (np.flatnonzero((image == 1).all(axis)) for axis in (1, 0))
        assert rows.size == 0  # noise beside it, in every row
        assert columns.size == 0
        whole = np.lib.stride_tricks.sliding_window_view(image == 1, (28, 28)).all((2, 3))
        (corner,) = np.argwhere(whole).tolist()
        corners.add(tuple(corner))
    assert {row for row, _ in corners} == set(range(4))
    assert {column for _, column in corners} == set(range(6))
    first, again = (evaluate(placed, bright, 40, seed)[0][0] for seed in (0, 0))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, evaluate(placed, bright, 40, seed=1)[0][0])


def encoded(pixels, kind, **options):
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_what_a_lossless_file_holds_is_decoded(kind, rng):
    pixels = rng.integers(0, 256, (7, 9, 3), "uint8")
    given = encoded(pixels, kind, **LOSSLESS[kind])
    np.testing.assert_array_equal(pillow_images.decode(given), pixels)
    assert pillow_images.decode(given, channels=1).shape == (7, 9, 1)


def test_rare_kinds_of_files_are_decoded(rng):
    pixels = rng.integers(0, 256, (7, 9, 3), "uint8")
    deep = rng.integers(0, 2**16, (7, 9), "uint16")
    clear = np.concatenate([pixels, rng.integers(0, 256, (7, 9, 1), "uint8")], -1)
    gray = pixels[..., 0]
    decode = pillow_images.decode
    np.testing.assert_array_equal(decode(encoded(deep, "PNG"), 1)[..., 0], deep // 256)
    np.testing.assert_array_equal(decode(encoded(clear, "PNG")), pixels)
    np.testing.assert_array_equal(decode(encoded(gray, "PNG")), np.stack([gray] * 3, -1))
    few = Image.fromarray(pixels // 128 * 255).convert("P", palette=Image.Palette.WEB)
    np.testing.assert_array_equal(decode(encoded(few, "GIF")), pixels // 128 * 255)
    frames = [Image.fromarray(pixels // 128 * 255), Image.fromarray(255 - pixels // 128 * 255)]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(moving), pixels // 128 * 255)


@pytest.mark.parametrize("noted", range(1, 9))
def test_an_image_is_turned_as_its_camera_held_it(noted, rng):
    from low_rank_local_connectivity.data.decoding import decode

    pixels = np.kron(rng.integers(0, 256, (2, 3, 3), "uint8"), np.ones((8, 8, 1), "uint8"))
    exif = Image.Exif()
    exif[0x0112] = noted
    given = encoded(pixels, "PNG", exif=exif)
    expected = decode(given).numpy()
    np.testing.assert_array_equal(pillow_images.decode(given), expected)


@pytest.mark.parametrize(("shape", "size"), [((23, 31), 12), ((9, 7), (20, 22)), ((40, 40), 40)])
@pytest.mark.parametrize("crop", [None, 0.875, 0.5])
def test_views_are_those_of_tensorflow(shape, size, crop, rng):
    from low_rank_local_connectivity.data.images import evaluation_view

    image = rng.integers(0, 256, (*shape, 3), "uint8")
    expected = evaluation_view(image, size, crop=crop).numpy()
    found = pillow_images.evaluation_view(image, size, crop=crop)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_crops_have_the_paper_s_areas_and_shapes_and_half_are_mirrored(rng):
    # Every pixel says where it is.
    rows, columns = np.mgrid[:60, :80]
    image = np.stack([rows, columns, 0 * rows], -1).astype("float32")
    areas, ratios, mirrored = [], [], 0
    for _ in range(400):
        view = pillow_images.training_view(image, 200, rng)
        mirrored += view[0, 0, 1] > view[0, -1, 1]
        height, width = (1 + np.ptp(view[..., channel]) for channel in range(2))
        areas.append(height * width / (60 * 80))
        ratios.append(width / height)
    assert 0.07 <= min(areas) < 0.15
    assert 0.85 < max(areas) <= 1
    assert (min(ratios), max(ratios)) == pytest.approx((3 / 4, 4 / 3), abs=0.08)
    assert 160 < mirrored < 240
    whole = pillow_images.training_view(image, 20, rng, augment=("flip",))
    assert np.ptp(whole[..., 0]) == pytest.approx(57, abs=1)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 20 images, the gray value of each its own."""
    for label, name in enumerate(("cat", "dog")):
        for part, count in (("train", 20), ("valid", 3), ("test", 4)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((14, 13, 3), 100 * label + number, "uint8")
                file = tmp_path / part / name / f"{number}.png"
                file.write_bytes(encoded(pixels, "PNG"))
    return tmp_path


def opened(folder):
    dataset = DATASETS["folder"].at(str(folder), SIZE)
    return dataset, dataset.load(str(folder))


def values(dataset, images):
    """The gray value that an image was made with."""
    low, high = (np.asarray(bound)[0] for bound in dataset.value_range)
    return np.round((images[:, 0, 0, 0] - low) / (high - low) * 255).astype(int)


def test_images_in_files_are_read_in_the_same_order_every_time(folder):
    dataset, splits = opened(folder)
    images, labels = train(dataset, splits["train"], 8, 2)
    again, _ = train(dataset, splits["train"], 8, 2)
    assert_equal(images, again)
    seen = values(dataset, np.concatenate(images[:5]))
    assert sorted(seen) == [*range(20), *range(100, 120)]
    np.testing.assert_array_equal(seen >= 100, np.concatenate(labels[:5]))
    assert images[0].shape == (8, SIZE, SIZE, 3)
    assert_equal(train(dataset, splits["train"], 8, 2, start=7)[0], images[7:])


def test_unreadable_images_are_skipped_in_training_and_their_names_kept(folder, tmp_path):
    dataset, splits = opened(folder)
    broken = [folder / "train" / "cat" / f"{number}.png" for number in (3, 11)]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:-30])
    skipped = tmp_path / "skipped.txt"
    images, labels = train(dataset, splits["train"], 8, 1, skipped=skipped)
    seen = values(dataset, np.concatenate(images))
    assert set(seen) == {*range(20), *range(100, 120)} - {3, 11}
    np.testing.assert_array_equal(seen >= 100, np.concatenate(labels))
    assert skipped_images(skipped) == sorted(map(str, broken))
    again = train(dataset, splits["train"], 8, 1)[0]
    assert_equal(images, again)


def test_images_that_are_scored_must_be_readable(folder):
    dataset, splits = opened(folder)
    names = grain_pipeline.unreadable_images
    refuse_unreadable(splits.values(), names)
    broken = [folder / "test" / "dog" / f"{number}.png" for number in (0, 2)]
    for path in broken:
        path.write_bytes(b"no image")
    with pytest.raises(UnreadableError, match=f"2 that are not: {broken[0]}, {broken[1]}"):
        refuse_unreadable((splits["test"],), names)
    with pytest.raises(UnreadableError, match=f"must be readable. Received: {broken[0]}."):
        evaluate(dataset, splits["test"])


def test_one_training_image_must_be_readable(folder):
    dataset, splits = opened(folder)
    for path in (folder / "train").glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UnreadableError, match="Received: none of 40"):
        train(dataset, splits["train"])
