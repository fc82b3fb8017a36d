"""Values that no argument should crash on, and what an argument may do with one."""

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import low_rank_local_connectivity

OURS = str(Path(low_rank_local_connectivity.__file__).parent)
ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "fraction": lambda: 1.5,
    "text": lambda: "text",
    "zero": lambda: 0,
    "negative": lambda: -1,
    "bool": lambda: True,
    "not a number": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "empty text": lambda: "",
    "bytes": lambda: b"text",
    "object": object,
    "empty list": list,
    "text in a list": lambda: ["text"],
    "fractions": lambda: (1.5, 2.5),
    "a list of one": lambda: [2],
    "a tuple of five": lambda: (3, 2, 1, 4, 5),
    "nested": lambda: [[1, 2], [3]],
    "dict": dict,
    "dict of one": lambda: {"a": 1},
    "set": lambda: {1, 2},
    "function": lambda: len,
    "class": lambda: int,
    "numpy int": lambda: np.int64(2),
    "numpy float": lambda: np.float32(0.5),
    "numpy bool": lambda: np.bool_(True),
    "array of no axes": lambda: np.array(3),
    "array": lambda: np.ones((2, 3), "float32"),
    "array of text": lambda: np.array(["a", "b"]),
    "array of objects": lambda: np.array([None, {}], dtype=object),
    "tensor": lambda: keras.ops.ones((2, 3)),
    "symbolic tensor": lambda: keras.KerasTensor((None, 3)),
    "layer that is not built": lambda: keras.layers.Dense(2),
    "model that is not built": keras.Model,
}
# What may be right for an argument, if others were otherwise.
MEANT = {"empty list", "a list of one", "a tuple of five", "numpy int", "array of no axes", "array"}
MEANT |= {"tensor", "fractions", "nested"}
# What is called may raise what it likes.
CALLED = {"function", "class", "layer that is not built", "model that is not built"}
# What of it an argument may take whose annotation says that it is of one of these types.
WHOLE = {"zero", "negative", "numpy int", "array of no axes"}
FITTING: dict[Any, set[str]] = {
    bool: {"bool", "zero", "numpy bool"},
    int: WHOLE,
    float: {*WHOLE, "fraction", "numpy float", "not a number", "infinity"} - {"array of no axes"},
    str: {"text", "empty text"},
}
FITTING |= {kind | None: {*names, "None"} for kind, names in FITTING.items()}


def parameters(function: Callable) -> dict[str, Any]:
    """Returns a function's or class's arguments and their annotations; `*args` are none."""
    signature = inspect.signature(function)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {n: one.annotation for n, one in signature.parameters.items() if one.kind in named}


def chosen(every: bool, name: str) -> Iterator[tuple[str, Any]]:
    """Yields odd values: all, or the first three and one that depends on the argument's name."""
    labels = list(ODD)
    if not every:
        place = 3 + sum(map(ord, name)) % (len(labels) - 3)
        labels = [*labels[:3], labels[place]]
    for label in labels:
        yield label, ODD[label]()


def complaint(
    act: Callable[..., Any],
    arguments: Mapping[str, Any],
    name: str,
    value: Any,
    keras_does: Callable[[str, Any], Any] | None = None,
    label: str = "",
) -> str | None:
    """Returns what is wrong with how an odd value of an argument is met; None if nothing.

    It may be taken, or refused by a ValueError of this package that names the argument, or what
    the function is for, and shows what came. A value that Keras interprets may be refused where
    `keras_does` refuses it.
    """
    try:
        act(**{**arguments, name: value})
    except ValueError as error:
        text = _own_text(str(error))
        if not _raised_here(error):
            return _unless_keras(error, keras_does, name, value)
        if not _says(text, name, value, label in MEANT):
            return f"does not say it: {text}"
    except Exception as error:  # noqa: BLE001, that is what is looked for
        return _unless_keras(error, keras_does, name, value)
    return None


def _says(text: str, name: str, value: Any, meant: bool) -> bool:
    """Whether a sentence says which argument, or which function, was given what.

    Of a value that may be `meant`, it may say that it does not fit another argument.
    """
    named = (
        meant
        or name in text
        or any(f"() {verb}" in text for verb in ("takes", "measures", "looks into", "is given"))
    )
    shown = "Received" in text if named else repr(value) in text
    return shown and "\n" not in text


def _own_text(text: str) -> str:
    """Returns an error's text without what Keras adds of the call."""
    text = text.split("\n\nArguments received", maxsplit=1)[0]
    return text.rpartition("\n\n")[2] if text.startswith("Exception encountered") else text


def _raised_here(error: BaseException) -> bool:
    return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(OURS)


def _unless_keras(error: Exception, keras_does, name: str, value: Any) -> str | None:
    try:
        if keras_does is not None:
            keras_does(name, value)
    except Exception:  # noqa: BLE001, whatever Keras says to the same value
        return None
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:160]}"
