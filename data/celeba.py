"""CelebA at 32x32, women and men, with the paper's crop, resizing and range."""

import functools

from .dataset import Dataset, Split
from .tfds_files import collect_splits, find_prepared, open_prepared

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
# The crop that contains the face, in images of 218x178.
TOP, LEFT, SIDE = 40, 20, 138
SIZE = 32


def read_celeba(data_dir: str | None = None, download: bool = False) -> dict[str, Split]:
    """Reads the official splits.

    Args:
        data_dir: Folder to look in; tensorflow-datasets' own if None.
        download: Whether the dataset may be downloaded and prepared there.

    Returns:
        A dictionary from `"train"`, `"valid"` and `"test"` to examples with float32 images, 2.5 GB
        in all. Bicubic interpolation leaves [0, 1] slightly and is not clipped.

    Raises:
        FileNotFoundError: If the data has not been prepared and may not be downloaded.
        UnreadableError: If a file is damaged or truncated.
    """
    return collect_splits(open_prepared("celeb_a", data_dir, download), SPLITS, face_and_label)


def face_and_label(example):
    """Returns the face in an image of CelebA, and 0 for female and 1 for male.

    Args:
        example: Dictionary with a uint8 `"image"` of shape `(218, 178, 3)` and `"attributes"`.

    Returns:
        A dictionary of an `"image"`, float32 of shape `(32, 32, 3)`, and a `"label"`, int64.
    """
    import tensorflow as tf

    label = tf.cast(example["attributes"]["Male"], tf.int64)
    return {"image": face(example["image"]), "label": label}


def face(image):
    """Returns the face in an image of CelebA, uint8 of shape `(218, 178, 3)`, in [0, 1]."""
    import tensorflow as tf

    from .images import resize_bicubic_tf1

    crop = tf.cast(image[TOP : TOP + SIDE, LEFT : LEFT + SIDE], tf.float32) / 255.0
    return resize_bicubic_tf1(crop[tf.newaxis], (SIZE, SIZE))[0]


CELEBA32 = Dataset(
    name="celeba32",
    image_shape=(SIZE, SIZE, 3),
    class_names=("female", "male"),
    split_sizes=(162_770, 19_867, 19_962),
    value_range=(0.0, 1.0),
    stored_range=(0.0, 1.0),
    read=read_celeba,
    find=functools.partial(find_prepared, "celeb_a"),
    needs_tensorflow=True,
    source="CelebA as prepared by tensorflow-datasets, official splits, faces cropped to 138x138 "
    "and resized to 32x32",
    view=face,
)
