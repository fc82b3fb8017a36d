"""What a user may name: functions, classes and constants, their arguments, and flags.

`python tests/public_names.py` writes them to `public_names.txt`, which a test compares with the
code: what has been published stays.
"""

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
LIBRARY = "low_rank_local_connectivity"
LISTED = Path(__file__).with_suffix(".txt")


# What the documents do not name: how Keras comes to know the layers, how Keras's settings are
# changed for a while, and how files are written that no reader sees half of.
INTERNAL = {"keras_settings", "registration", "unfinished"}


def packages() -> Iterator[str]:
    """Names the library, its packages and its modules outside of them."""
    yield LIBRARY
    for module in pkgutil.iter_modules([str(ROOT / LIBRARY)]):
        if module.name not in INTERNAL:
            yield f"{LIBRARY}.{module.name}"
    yield from (f"{LIBRARY}.experiments.{name}" for name in ("paper", "studies"))


def public(module: ModuleType) -> dict[str, object]:
    """Returns what a module says is public or has moved, or else what it defines."""
    if hasattr(module, "__all__"):
        names = (*module.__all__, *getattr(module, "_MOVED", ()))
        return {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def arguments(value: object) -> str:
    """Returns the names of a callable's arguments, a `*` before those given by name only."""
    try:
        parameters = inspect.signature(value).parameters.values() if callable(value) else ()
    except ValueError:  # an exception's, which is Python's
        return ""
    words = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            words.append(parameter.name)
    return " ".join(words)


def published() -> Iterator[str]:
    """Yields a line for every name: where it is, then its arguments."""
    for package in packages():
        module = importlib.import_module(package)
        for name, value in sorted(public(module).items()):
            yield f"{package}.{name} {arguments(value)}".rstrip()
    for flag in sorted(
        importlib.import_module("low_rank_local_connectivity.experiments.flags").FIELDS
    ):
        yield f"--{flag}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    LISTED.write_text("".join(f"{line}\n" for line in published()))
