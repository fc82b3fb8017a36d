"""Checks of an export's arguments that do not depend on the model."""

import os
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.export.formats import FORMATS
from low_rank_local_connectivity.inspection.graph import require_model
from low_rank_local_connectivity.ops.arguments import (
    integer,
    is_real,
    is_tensor,
    number_above,
    received,
    sequence,
    tensor,
    text,
)

# What the names of types of numbers begin with; complex ones are served nowhere.
NUMBERS = ("float", "bfloat", "int", "uint", "bool")


def require_arguments(
    model: Any,
    path: Any,
    formats: Any,
    convert: Any,
    sample: Any,
    serving_batch_size: Any,
    preprocess: Any,
    class_names: Any,
    tolerance: Any,
) -> None:
    """Checks the types and ranges of `export_model`'s arguments.

    Raises:
        ValueError: If one is wrong.
    """
    require_model("export_model", model)
    _require_numbers(model)
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"`path` must be a folder's path. Received: {received('path', path)}.")
    _require_formats(formats)
    measured = isinstance(convert, str) and convert == "measure"
    if not measured and not isinstance(convert, (bool, np.bool_)):
        raise ValueError(
            f"`convert` must be True, False or 'measure'. Received: {received('convert', convert)}."
        )
    _require_sample(sample)
    if serving_batch_size is not None and (integer(serving_batch_size) or 0) < 1:
        raise ValueError(
            "`serving_batch_size` must be at least 1. Received: "
            f"{received('serving_batch_size', serving_batch_size)}."
        )
    if preprocess is not None and not callable(preprocess):
        raise ValueError(
            "`preprocess` must be a function from a file's bytes to an input, or None. Received: "
            f"{received('preprocess', preprocess)}."
        )
    if class_names is not None:
        for name in sequence("class_names", class_names, "names"):
            text("class_names", name)
    number_above("tolerance", tolerance, 0, or_equal=True)


def _require_numbers(model: Any) -> None:
    """Refuses models of strings, which most formats cannot hold, and of complex numbers."""
    for kind in ("input", "output"):
        for one in getattr(model, f"{kind}s", None) or ():
            if not one.dtype.startswith(NUMBERS):
                name = one._keras_history.operation.name
                raise ValueError(
                    "export_model() takes models from numbers to numbers. Received: "
                    f"{model.name!r}, whose {kind} {name!r} is of type {one.dtype}. Export the "
                    "part of it between its lookups of strings, as a keras.Model of its own."
                )


def _require_formats(formats: Any) -> None:
    if isinstance(formats, str):
        raise ValueError(
            f"`formats` must be a list of formats. Received: {received('formats', formats)}. For "
            f"one of them: formats=({formats!r},)."
        )
    given = sequence("formats", formats, "formats")
    if any(not isinstance(name, str) or name not in FORMATS for name in given):
        raise ValueError(
            f"`formats` must be among {', '.join(map(repr, FORMATS))}. Received: "
            f"{received('formats', given)}."
        )


def _require_sample(sample: Any) -> None:
    """Refuses samples that contain anything but numbers."""
    leaves = [] if sample is None else keras.tree.flatten(sample)
    if isinstance(sample, (list, tuple)) and all(map(is_real, leaves)):
        tensor("sample", sample, "K")
    for one in leaves:
        numbers = is_tensor(one) and not isinstance(one, keras.KerasTensor)
        if isinstance(one, np.ndarray):
            numbers = one.dtype.kind in "fiub"
        if not numbers and not is_real(one):
            raise ValueError(
                f"`sample` must be inputs of the model. Received: {received('sample', sample)}."
            )
