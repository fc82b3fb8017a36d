"""Datasets, by name. Importing this reads nothing and loads no framework."""

from .celeba import CELEBA32
from .cifar10 import CIFAR10
from .dataset import AUGMENTATIONS as AUGMENTATIONS
from .dataset import Dataset as Dataset
from .dataset import EncodedExamples as EncodedExamples
from .dataset import Examples as Examples
from .digits import DIGITS
from .folder import FOLDER
from .imagenet import IMAGENET2012
from .mnist import MNIST
from .synthetic import SYNTHETIC

DATASETS = {
    dataset.name: dataset
    for dataset in (DIGITS, MNIST, CIFAR10, CELEBA32, IMAGENET2012, FOLDER, SYNTHETIC)
}
