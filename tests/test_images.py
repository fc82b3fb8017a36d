"""Decoding, cropping and resizing, against what they are defined to be."""

import io

import numpy as np
import pytest

pytestmark = pytest.mark.once


def smooth(rng, height=50, width=70):
    """An image without sharp edges, so that decoders may differ a little only."""
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encode(image, file_format, **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def decoded(encoded, channels=3):
    from low_rank_local_connectivity.data.images import decode

    return decode(encoded, channels).numpy()


def keys_kernel(distance):
    """Keys' cubic kernel with a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * (x**3 - 5 * x**2 + 8 * x - 4)
    return 0.0


def bicubic_matrix(old, new):
    """Rows of weights: new pixel i is read at i * old / new, edges repeated."""
    matrix = np.zeros((new, old))
    for index in range(new):
        place = index * old / new
        for tap in range(int(place) - 1, int(place) + 3):
            matrix[index, min(max(tap, 0), old - 1)] += keys_kernel(place - tap)
    return matrix


@pytest.mark.parametrize(
    ("old", "new"), [((138, 69), (32, 16)), ((5, 6), (15, 9)), ((7, 4), (7, 4))]
)
def test_tf1_bicubic_is_keys_kernel_from_the_corner_without_antialiasing(old, new, rng):
    from low_rank_local_connectivity.data.images import resize_bicubic_tf1

    images = rng.uniform(size=(2, *old, 3)).astype("float32")
    rows, columns = bicubic_matrix(old[0], new[0]), bicubic_matrix(old[1], new[1])
    expected = np.einsum("ph,qw,bhwc->bpqc", rows, columns, images)
    # TensorFlow reads the kernel from a table of 1,024 places per pixel.
    np.testing.assert_allclose(resize_bicubic_tf1(images, new), expected, atol=2e-3)


def test_tf1_bicubic_is_exact_where_the_paper_uses_it_and_is_not_clipped(rng):
    from low_rank_local_connectivity.data.images import resize_bicubic_tf1

    # 138 / 32 is 4 5/16: every place is in the table.
    images = rng.integers(0, 2, (1, 138, 138, 1)).astype("float32")
    matrix = bicubic_matrix(138, 32)
    expected = np.einsum("ph,qw,bhwc->bpqc", matrix, matrix, images)
    small = resize_bicubic_tf1(images, (32, 32)).numpy()
    np.testing.assert_allclose(small, expected, atol=1e-5)
    assert small.min() < -0.05
    assert small.max() > 1.05


def test_a_face_is_138_pixels_from_row_40_and_column_20(rng):
    from low_rank_local_connectivity.data.celeba import face_and_label

    image = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
    matrix = bicubic_matrix(138, 32)
    face = image[40:178, 20:158] / 255
    result = face_and_label({"image": image, "attributes": {"Male": True}})
    expected = np.einsum("ph,qw,hwc->pqc", matrix, matrix, face)
    np.testing.assert_allclose(result["image"], expected, atol=1e-5)
    assert result["label"] == 1
    # What lies outside the crop does not matter.
    image[:40], image[178:], image[:, :20], image[:, 158:] = 0, 0, 0, 0
    again = face_and_label({"image": image, "attributes": {"Male": False}})
    np.testing.assert_array_equal(again["image"], result["image"])
    assert again["label"] == 0


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_png_of_every_mode_becomes_what_pillow_makes_of_it(mode, rng):
    from PIL import Image

    image = smooth(rng)
    if mode == "RGBA":
        image = Image.merge("RGBA", [*image.split(), image.convert("L")])
    encoded = encode(image.convert(mode), "PNG")
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(decoded(encoded), expected)


def test_png_of_16_bits_keeps_the_upper_8(rng):
    from PIL import Image

    gray = np.asarray(smooth(rng).convert("L"))
    low = rng.integers(0, 256, gray.shape)
    encoded = encode(Image.fromarray(gray * np.uint16(256) + low.astype("uint16")), "PNG")
    np.testing.assert_array_equal(decoded(encoded), np.repeat(gray[..., np.newaxis], 3, axis=2))


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {})],
    ids=["plain", "progressive", "gray", "CMYK"],
)
def test_jpeg_of_every_mode_becomes_nearly_what_pillow_makes_of_it(mode, options, rng):
    from PIL import Image

    encoded = encode(smooth(rng).convert(mode), "JPEG", quality=95, **options)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    result = decoded(encoded)
    assert result.shape == (50, 70, 3)
    # Pillow and TensorFlow round CMYK and the cosine transform differently.
    assert np.abs(result - expected).mean() < 2
    assert np.abs(result - expected).max() <= 16


def test_colour_decodes_to_gray_where_one_channel_is_asked_for(rng):
    image = smooth(rng)
    for file_format in ("PNG", "JPEG"):
        gray = decoded(encode(image, file_format, quality=95), channels=1)
        expected = np.asarray(image.convert("L"))[..., np.newaxis].astype(int)
        assert np.abs(gray - expected).max() <= 16


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0, 0.02, 0.5, 0.95])
def test_a_part_of_a_file_is_no_image(file_format, kept, rng):
    import tensorflow as tf

    encoded = encode(smooth(rng), file_format)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(encoded[: int(kept * len(encoded))])


def as_pillow_shows_it(encoded):
    from PIL import Image, ImageOps

    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    return np.asarray(shown.convert("RGB")).astype(int)


def with_orientation(image, file_format, value, endian="<"):
    """A file that notes an orientation beside other things, as cameras do."""
    from PIL import Image

    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112], exif[0x011A] = "Maker", value, 72.0
    return encode(image, file_format, exif=exif.tobytes(), **LOSSLESS.get(file_format, {}))


LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "icc_profile": b"Exif\0\0 no" * 9}}


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", range(10))
def test_an_image_is_turned_and_mirrored_as_its_file_says(value, file_format, endian, rng):
    encoded = with_orientation(smooth(rng), file_format, value, endian)
    expected, result = as_pillow_shows_it(encoded), decoded(encoded)
    assert result.shape == ((70, 50, 3) if 5 <= value <= 8 else (50, 70, 3)) == expected.shape
    # Decoders of JPEG round differently.
    assert np.abs(result - expected).max() <= (16 if file_format == "JPEG" else 0)
    gray = decoded(encoded, channels=1)
    assert gray.shape == (*expected.shape[:2], 1)


@pytest.mark.parametrize("kept", [0, 1, 6, 7, 10, 15, 22, 28])
def test_a_note_that_breaks_off_turns_nothing(kept, rng):
    encoded = with_orientation(smooth(rng), "PNG", 6)
    from PIL import Image

    exif = Image.open(io.BytesIO(encoded)).info["exif"]
    broken = encode(smooth(rng), "PNG", exif=exif[:kept])
    assert decoded(broken).shape == (50, 70, 3)


def test_what_looks_like_a_note_within_a_picture_turns_nothing(rng):
    turned = with_orientation(smooth(rng), "JPEG", 6)
    start = turned.index(b"\xff\xe1")
    length = 2 + int.from_bytes(turned[start + 2 : start + 4], "big")
    note = turned[start : start + length]
    plain = turned[:start] + turned[start + length :]
    assert decoded(plain + note).shape == (50, 70, 3)
    comment = b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note
    assert decoded(plain[:2] + comment + plain[2:]).shape == (50, 70, 3)
    assert decoded(plain[:2] + comment + b"\xff\xff" + note + plain[2:]).shape == (70, 50, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("file_format", ["BMP", "GIF", "WEBP"])
def test_other_formats_become_what_pillow_makes_of_them(file_format, mode, rng):
    from PIL import Image

    image = smooth(rng)
    if mode == "RGBA":
        image = Image.merge("RGBA", [*image.split(), image.convert("L")])
    encoded = encode(image.convert(mode), file_format)
    np.testing.assert_array_equal(decoded(encoded), as_pillow_shows_it(encoded))
    gray = Image.fromarray(decoded(encoded)).convert("L")
    assert np.abs(decoded(encoded, 1)[..., 0].astype(int) - np.asarray(gray)).max() <= 1


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("file_format", ["GIF", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(file_format, opaque, rng):
    image = smooth(rng)
    if not opaque:
        image.putalpha(image.convert("L"))
    frames = {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    encoded = encode(image, file_format, **frames)
    np.testing.assert_array_equal(decoded(encoded), as_pillow_shows_it(encoded))


@pytest.mark.parametrize("opaque", [True, False])
def test_an_animated_webp_is_refused(opaque, rng):
    import tensorflow as tf

    image = smooth(rng)
    if not opaque:
        image.putalpha(image.convert("L"))
    encoded = encode(image, "WEBP", save_all=True, append_images=[image.rotate(90)])
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(encoded)


def test_a_bmp_that_cannot_be_read_right_is_refused(rng):
    import tensorflow as tf

    palette = encode(smooth(rng).convert("P"), "BMP")
    compressed = palette[:30] + bytes([1]) + palette[31:]
    for encoded in (compressed, encode(smooth(rng).convert("1"), "BMP"), palette[:60]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decoded(encoded)


@pytest.mark.parametrize("file_format", ["TIFF", "JPEG2000", "PPM"])
def test_formats_that_are_not_read_are_refused(file_format, rng):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(encode(smooth(rng), file_format))


def test_text_is_no_image():
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(b"no image at all")


def ramp(height, width):
    """An image whose first channel is the row and whose second is the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], axis=-1).astype("float32")


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40)])
def test_evaluation_takes_seven_eighths_of_the_shorter_side_from_the_centre(height, width):
    from low_rank_local_connectivity.data.images import evaluation_view

    view = evaluation_view(ramp(height, width), 35).numpy()
    top, left = (height - 35) // 2, (width - 35) // 2
    np.testing.assert_allclose(view, ramp(height, width)[top : top + 35, left : left + 35])


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_evaluation_resizes_as_pillow_does(method, rng):
    from PIL import Image

    from low_rank_local_connectivity.data.images import evaluation_view

    image = np.asarray(smooth(rng, 80, 96)).astype("float32")
    view = evaluation_view(image, 31, method).numpy()
    for channel in range(3):
        part = Image.fromarray(image[5:75, 13:83, channel])
        expected = part.resize((31, 31), Image.Resampling[method.upper()])
        np.testing.assert_allclose(view[..., channel], np.asarray(expected), atol=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (300, 2), (3, 3)])
def test_the_smallest_images_have_views(shape):
    from low_rank_local_connectivity.data.images import evaluation_view, training_view

    image = np.full((*shape, 3), 7, "uint8")
    for view in (evaluation_view(image, 8), training_view(image, 8, [1, 2])):
        np.testing.assert_allclose(view, np.full((8, 8, 3), 7.0), atol=1e-4)


def boxes(count=400, height=90, width=120, size=30):
    """The sides, in shares of the image's, and the mirrorings of many training views."""
    import tensorflow as tf

    from low_rank_local_connectivity.data.images import training_view

    image = tf.constant(ramp(height, width))
    keys = tf.stack(
        [tf.fill([count], tf.constant(3, tf.int64)), tf.range(count, dtype=tf.int64)], 1
    )
    views = tf.map_fn(lambda key: training_view(image, size, key), keys, tf.float32).numpy()
    # Between the outermost of `size` pixel centres lie (size - 1) / size of the side.
    scale = size / (size - 1)
    tall = (views[:, -1, 0, 0] - views[:, 0, 0, 0]) * scale / height
    wide = (views[:, 0, -1, 1] - views[:, 0, 0, 1]) * scale / width
    return tall, np.abs(wide), wide < 0


def test_training_views_have_the_areas_and_aspects_of_their_ranges():
    tall, wide, mirrored = boxes()
    areas, aspects = tall * wide, wide * 120 / (tall * 90)
    # Widths are whole pixels, and antialiasing pulls the outermost a little in.
    assert 0.05 < areas.min() < 0.15
    assert 0.8 < areas.max() <= 1.01
    assert 0.7 < aspects.min() < 0.85
    assert 1.2 < aspects.max() < 1.45
    # 400 throws of a coin: 5 standard deviations.
    assert abs(mirrored.mean() - 0.5) < 0.125


def test_a_training_view_is_a_function_of_its_key(rng):
    from low_rank_local_connectivity.data.images import training_view

    image = np.asarray(smooth(rng))
    one, again, other = (training_view(image, 20, key).numpy() for key in ([1, 2], [1, 2], [2, 1]))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
