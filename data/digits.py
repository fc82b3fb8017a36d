"""Scikit-learn's handwritten digits: real data that needs no download."""

import numpy as np

from .dataset import Dataset, Examples, Split

# Stratified splits are drawn once and for all; a run's seed does not change them.
SPLIT_SEED = 0
SIZES = (1257, 180, 360)


def read_digits(data_dir: str | None = None, download: bool = False) -> dict[str, Split]:
    """Reads the 1,797 digits, resized from 8x8 to 16x16, in fixed stratified splits.

    At 16x16 the third of three unpadded 3x3 layers still has 10x10 positions.

    Args:
        data_dir: Not used; scikit-learn holds the data.
        download: Not used.

    Returns:
        70 % of the digits as `"train"`, 10 % as `"valid"` and 20 % as `"test"`, each with the
        classes in the same proportion.
    """
    del data_dir, download
    import sklearn.datasets
    import sklearn.model_selection
    from scipy import ndimage

    digits = sklearn.datasets.load_digits()
    # Bilinear, with pixels as squares: each of the 8x8 pixels covers 2x2 of the new ones.
    zoom = {"order": 1, "mode": "nearest", "grid_mode": True}
    images = ndimage.zoom(digits.images.astype("float32"), (1, 2, 2), **zoom)[..., np.newaxis]
    labels = digits.target.astype("int64")

    def divide(indices, size):
        return sklearn.model_selection.train_test_split(
            indices, test_size=size, random_state=SPLIT_SEED, stratify=labels[indices]
        )

    rest, test = divide(np.arange(len(labels)), SIZES[2])
    train, valid = divide(rest, SIZES[1])
    parts = {"train": train, "valid": valid, "test": test}
    return {name: Examples(images[where], labels[where]) for name, where in parts.items()}


def find_digits(data_dir: str | None = None) -> None:
    """Does nothing: scikit-learn contains the digits."""
    del data_dir


DIGITS = Dataset(
    name="digits",
    image_shape=(16, 16, 1),
    class_names=tuple("0123456789"),
    split_sizes=SIZES,
    value_range=(-1.0, 1.0),
    stored_range=(0.0, 16.0),
    read=read_digits,
    find=find_digits,
    source="scikit-learn's 1,797 handwritten digits, resized from 8x8 to 16x16",
)
