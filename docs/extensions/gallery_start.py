"""What the examples of the gallery start from."""

import logging
import warnings

import keras


def reset(_gallery: dict, _script: str) -> None:
    """Gives every example the same random numbers, and names that count from zero."""
    # That examples build several models is no news on their pages.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="You are saving your model as an HDF5 file")
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
