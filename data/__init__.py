"""Datasets, by name. Importing this reads nothing and loads no framework."""

from .augmentations import AUGMENTATIONS
from .celeba import CELEBA32
from .cifar10 import CIFAR10
from .dataset import Dataset, EncodedExamples, Examples
from .digits import DIGITS
from .folder import FOLDER
from .imagenet import IMAGENET2012
from .mnist import MNIST
from .npz import NPZ
from .synthetic import SYNTHETIC

__all__ = [
    "AUGMENTATIONS",
    "CELEBA32",
    "CIFAR10",
    "DATASETS",
    "DIGITS",
    "FOLDER",
    "IMAGENET2012",
    "MNIST",
    "NPZ",
    "SYNTHETIC",
    "Dataset",
    "EncodedExamples",
    "Examples",
]

DATASETS = {
    dataset.name: dataset
    for dataset in (DIGITS, MNIST, CIFAR10, CELEBA32, IMAGENET2012, FOLDER, NPZ, SYNTHETIC)
}
