"""ImageNet 2012, streamed from the files of tensorflow-datasets."""

import functools

from .dataset import Dataset, Split
from .tfds_files import described_whole, find_prepared, open_prepared

IMAGES, TEST_IMAGES = 1_281_167, 50_000
# Held out for choices such as the rank: the first 1 % of train in the order of
# tensorflow-datasets, which is shuffled once and for all.
HELD_OUT = 12_812
# Mean and standard deviation of ImageNet's training images in [0, 1]: red, green, blue.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
# What black and white become. Subtracting the mean and dividing by the deviation maps [0, 255] to
# this range, channel by channel, so noise that fills the range looks like noise in images.
STANDARD_RANGE = (
    tuple((0 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)),
    tuple((1 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)),
)
SPLITS = {"train": f"train[{HELD_OUT}:]", "valid": f"train[:{HELD_OUT}]", "test": "validation"}


def read_imagenet(data_dir: str | None = None, download: bool = False) -> dict[str, Split]:
    """Opens the splits; nothing is read yet.

    Args:
        data_dir: Folder to look in; tensorflow-datasets' own if None.
        download: Whether tensorflow-datasets may prepare it there. The archives, which
            image-net.org gives to registered users only, must be in
            `<data_dir>/downloads/manual`.

    Returns:
        A dictionary from `"train"`, `"valid"` and `"test"` to encoded examples. The test split is
        the official validation.

    Raises:
        FileNotFoundError: If the data has not been prepared and may not be, or lacks a split.
        ValueError: If it was prepared as files that cannot be streamed.
    """
    builder = open_prepared("imagenet2012", data_dir, download)
    from .tfds_records import PreparedRecords

    with described_whole(builder):
        return {
            split: PreparedRecords.of(builder, instruction) for split, instruction in SPLITS.items()
        }


IMAGENET2012 = Dataset(
    name="imagenet2012",
    image_shape=(224, 224, 3),
    class_names=tuple(map(str, range(1000))),
    split_sizes=(IMAGES - HELD_OUT, HELD_OUT, TEST_IMAGES),
    value_range=STANDARD_RANGE,
    stored_range=(0.0, 255.0),
    read=read_imagenet,
    find=functools.partial(find_prepared, "imagenet2012"),
    needs_tensorflow=True,
    source="ImageNet 2012 as prepared by tensorflow-datasets, validation = the first 12,812 "
    "images of train, test = the official validation; classes by tensorflow-datasets' numbers",
    resizable=True,
    encoded=True,
)
