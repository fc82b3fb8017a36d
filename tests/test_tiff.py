"""TIFF files of every mode, on tf.data and grain."""

import io
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("pipelines_as_written")]


def encode(image, **options):
    stream = io.BytesIO()
    image.save(stream, "TIFF", **options)
    return stream.getvalue()


def image_of(pixels, mode=None):
    from PIL import Image

    image = Image.fromarray(pixels)
    return image if mode is None else image.convert(mode)


def on_tensorflow(encoded, channels=3):
    from low_rank_local_connectivity.data.tiff import decode_with_tiff

    return decode_with_tiff(encoded, channels).numpy()


def on_grain(encoded, channels=3):
    from low_rank_local_connectivity.data.pillow_images import decode

    return decode(encoded, channels)


READERS = {"tf.data": on_tensorflow, "grain": on_grain}


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (7, 9, 3), "uint8")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "packbits"},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_deflate"},
        {"compression": "zstd"},
        {"big_tiff": True},
        {"tiffinfo": {278: 2}},  # two rows in a strip
    ],
    ids=str,
)
def test_what_is_in_a_file_is_read_however_it_is_packed(options, read, pixels):
    given = encode(image_of(pixels), **options)
    np.testing.assert_array_equal(read(given), pixels)
    assert read(given, 1).shape == (7, 9, 1)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_mode_becomes_red_green_and_blue_or_gray(read, pixels, rng):
    gray = pixels[..., 0]
    same = np.stack([gray] * 3, -1)
    np.testing.assert_array_equal(read(encode(image_of(gray))), same)
    alpha = rng.integers(0, 256, (7, 9, 1), "uint8")
    clear = np.concatenate([pixels, alpha], -1)
    np.testing.assert_array_equal(read(encode(image_of(clear))), pixels)
    pale = np.concatenate([gray[..., np.newaxis], alpha], -1)
    np.testing.assert_array_equal(read(encode(image_of(pale))), same)
    black = np.where(gray > 127, 255, 0).astype("uint8")
    np.testing.assert_array_equal(read(encode(image_of(gray > 127))), np.stack([black] * 3, -1))
    few = pixels // 128 * 255
    np.testing.assert_array_equal(read(encode(image_of(few, "P"))), few)
    # Two steps of rounding, and a matrix of three decimals.
    np.testing.assert_allclose(read(encode(image_of(pixels, "YCbCr"))), pixels, atol=3)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_ink_is_what_light_lacks(read, rng):
    from PIL import Image

    cyan, magenta, yellow, black = ink = rng.integers(0, 256, (4, 7, 9))
    image = Image.merge("CMYK", [Image.fromarray(one.astype("uint8")) for one in ink])
    light = [(255 - one) * (255 - black) / 255 for one in (cyan, magenta, yellow)]
    np.testing.assert_allclose(read(encode(image)), np.stack(light, -1), atol=1.5)


def in_16_bits(values, order):
    """A TIFF file of values of 16 bits, written from the format's description."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    start, light = 8 + len(data), 2 if channels > 1 else 1
    # A value that fits into four bytes stands in place of where it stands.
    where = bits.ljust(4, b"\0") if channels < 3 else struct.pack(f"{order}I", start)
    numbers = {256: width, 257: height, 259: 1, 262: light, 273: 8, 277: channels, 278: height}
    numbers[279] = len(data)
    fields = {tag: (4, 1, struct.pack(f"{order}I", one)) for tag, one in numbers.items()}
    fields[258] = (3, channels, where)
    file = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start + len(bits))
    file += data + bits + struct.pack(f"{order}H", len(fields))
    for tag, (kind, count, value) in sorted(fields.items()):
        file += struct.pack(f"{order}HHI", tag, kind, count) + value
    return file + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_8_are_kept(channels, order, read, rng):
    values = rng.integers(0, 2**16, (7, 9, channels), "uint16")
    np.testing.assert_array_equal(
        read(in_16_bits(values, order)), np.broadcast_to(values // 256, (7, 9, 3))
    )


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_the_first_page_is_read_and_turned_as_its_camera_held_it(read, pixels):
    from PIL import Image

    other = image_of(255 - pixels)
    pages = encode(image_of(pixels), save_all=True, append_images=[other])
    np.testing.assert_array_equal(read(pages), pixels)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels),
    }
    for noted, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = noted
        np.testing.assert_array_equal(read(encode(image_of(pixels), exif=exif)), expected)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_values_with_fractions_and_half_a_file_are_refused(read, pixels):
    import tensorflow as tf

    with pytest.raises((ValueError, tf.errors.OpError), match="Its values have fractions"):
        read(encode(image_of(pixels[..., 0] / np.float32(255))))
    with pytest.raises((ValueError, tf.errors.OpError), match="no complete image"):
        read(encode(image_of(pixels))[:150])


def folder_with(tmp_path, rng, **broken):
    """Ten cats as TIFF files and ten dogs, brighter, as PNG files, in each split."""
    for split in ("train", "valid", "test"):
        for name, kind, bright in (("cat", "tif", 0), ("dog", "png", 128)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(10):
                values = bright + rng.integers(0, 128, (20, 30, 3), dtype=np.uint8)
                image_of(values).save(tmp_path / split / name / f"{number}.{kind}")
    for place, content in broken.items():
        (tmp_path / place / "cat" / "broken.tiff").write_bytes(content)
    return tmp_path


def test_both_pipelines_train_on_them_and_skip_what_is_broken(tmp_path, rng, pixels):
    from low_rank_local_connectivity.data import DATASETS, grain_pipeline, pipeline
    from low_rank_local_connectivity.data.unreadable import skipped_images

    floating = encode(image_of(pixels[..., 0] / np.float32(255)))
    root = str(folder_with(tmp_path / "photos", rng, train=floating, test=b"II*\0 nothing"))
    dataset = DATASETS["folder"].at(root, 16)
    splits = dataset.load(root)
    for number, module in enumerate((pipeline, grain_pipeline)):
        note = tmp_path / f"skipped-{number}.txt"
        batches = module.training_batches(dataset, splits["train"], 7, 2, 3, skipped=note)
        images, labels = map(np.concatenate, zip(*map(as_arrays, batches), strict=True))
        bright = images.mean((1, 2, 3))
        assert {*labels.tolist()} == {0, 1}
        assert bright[labels == 1].min() > bright[labels == 0].max()
        assert [Path(name).name for name in skipped_images(note)] == ["broken.tiff"]
        (name,) = module.unreadable_images(splits["test"])
        assert Path(name).name == "broken.tiff"


def as_arrays(batch):
    return tuple(np.asarray(one) for one in batch)


def test_python_is_called_only_where_files_need_it(tmp_path, rng):
    from low_rank_local_connectivity.data import DATASETS, decoding, tiff

    root = folder_with(tmp_path, rng)
    dataset = DATASETS["folder"]
    with_them = dataset.at(str(root)).load(str(root))["train"]
    assert tiff.decode_of(with_them) is tiff.decode_with_tiff
    for path in root.rglob("cat/*.tif"):
        shutil.copy(next(root.rglob("dog/*.png")), path.with_suffix(".png"))
        path.unlink()
    without = dataset.at(str(root)).load(str(root))["train"]
    assert tiff.decode_of(without) is decoding.decode
