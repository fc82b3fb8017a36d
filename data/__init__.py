"""Datasets, by name. Importing this reads nothing and loads no framework."""

from .cifar10 import CIFAR10
from .dataset import Dataset as Dataset
from .dataset import Examples as Examples
from .digits import DIGITS
from .mnist import MNIST

DATASETS = {dataset.name: dataset for dataset in (DIGITS, MNIST, CIFAR10)}
