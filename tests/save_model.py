"""Saves a model of a layer as this release writes it, for every later release to load.

    .venv-lowest/bin/python tests/save_model.py GroupConv2D   # after `make test-lowest`

What the lowest Keras wrote, any may read. The layer is that of its first row in `cases.py`; beside
the model lie inputs and the outputs that it gave.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from backends import randomize
from cases import CASES

import low_rank_local_connectivity

SAVED = Path(__file__).parent / "saved_models"


def save(name: str, folder: Path) -> Path:
    """Writes a model of the layer, its inputs and outputs.

    Args:
        name: Name of a public layer.
        folder: Where to write.

    Returns:
        The model's file.

    Raises:
        ValueError: If the layer has no row in `cases.py`, or its model has been saved.
    """
    case = next((case for case in CASES if case.layer == name), None)
    if case is None:
        raise ValueError(f"A layer must have a row in tests/cases.py first. Received: {name!r}.")
    path = folder / f"{low_rank_local_connectivity.__version__}-{name}.keras"
    if path.exists():
        raise ValueError(f"A saved model never changes, so its file must be new. Received: {path}.")
    rng = np.random.default_rng(0)
    given = keras.Input(case.input_shape[1:])
    model = keras.Model(given, case.make()(given))
    randomize(model, rng)
    inputs = rng.normal(size=case.input_shape).astype("float32")
    np.savez(path.with_suffix(".npz"), inputs=inputs, outputs=model.predict(inputs, verbose=0))
    model.save(path)
    return path


if __name__ == "__main__":
    print(*(save(name, SAVED) for name in sys.argv[1:]), sep="\n")
