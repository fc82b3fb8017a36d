"""Fields of an experiment, with their defaults, descriptions and accepted values."""

import dataclasses
import enum
import math
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any


class Group(enum.StrEnum):
    """The groups of fields in `--help`, in this order."""

    INPUT = "Input"
    DATA = "Data"
    NETWORK = "Network"
    LOW_RANK = "Low-rank layers"
    OPTIMISATION = "Optimisation"
    DEVICES = "Devices"
    SAVING = "Saving"
    EXPORT = "Export"
    OUTPUT = "Output"


@dataclasses.dataclass(frozen=True)
class Accepted:
    """The values that a field takes.

    Args:
        words: What must hold, in words that follow the field's name.
        holds: Function of a value that tells whether it does.
        choices: The names to choose from, if values are names.
        nothing: How a command spells that none of them is chosen.
    """

    words: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()
    nothing: str = ""


def one_of(choices: Iterable[str]) -> Accepted:
    """Returns the condition that a value is one of some names."""
    names = tuple(choices)
    return Accepted(f"must be one of {', '.join(names)}", names.__contains__, names)


def some_of(choices: Iterable[str], words: str = "takes {}", nothing: str = "") -> Accepted:
    """Returns the condition that every item of a value is one of some names.

    Args:
        choices: The names.
        words: The condition in words, with `{}` in place of the list of names.
        nothing: How a command spells that there is no item.
    """
    names = tuple(choices)
    sentence = words.format(", ".join(names))
    return Accepted(sentence, lambda items: set(items) <= set(names), names, nothing)


AT_LEAST_1 = Accepted("must be at least 1", lambda value: value >= 1)
AT_LEAST_0 = Accepted("must be at least 0", lambda value: 0 <= value < math.inf)
BELOW_1 = Accepted("must be from 0 to below 1", lambda value: 0 <= value < 1)
POSITIVE = Accepted("must be positive", lambda value: 0 < value < math.inf)
SHARED_OR_WHOLE = Accepted(
    "must be from 0 to 1, or a whole number",
    lambda value: 0 <= value <= 1 or value % 1 == 0 < value,
)
UINT32 = Accepted("must be from 0 to 4294967295", lambda value: 0 <= value < 2**32)


def is_function(text: str) -> bool:
    """Returns whether a text names a module and a function in it."""
    return re.fullmatch(r"\w+(\.\w+)*:\w+", text) is not None


def are_steps(steps: tuple[str, ...]) -> bool:
    """Returns whether words are none, or two numbers of steps in order."""
    if not steps:
        return True
    known = len(steps) == 2 and all(step.isascii() and step.isdigit() for step in steps)
    return known and 1 <= int(steps[0]) <= int(steps[1])


FUNCTION = Accepted("must be a module and a function, MODULE:FUNCTION", is_function)
STEPS = Accepted("must be two steps in order, the first at least 1: START,END", are_steps)


@dataclasses.dataclass(frozen=True)
class About:
    """Facts about a field other than its default and its type.

    Args:
        meaning: Its description in `--help`.
        group: Its group in `--help`.
        accepted: The values that it takes, besides None; None if all of its type.
        path: Whether it is the path of a file or folder.
    """

    meaning: str
    group: Group
    accepted: Accepted | None = None
    path: bool = False


def field(
    default: Any,
    meaning: str,
    group: Group,
    accepted: Accepted | None = None,
    *,
    path: bool = False,
) -> Any:
    """Returns a dataclass's field; for the arguments see `About`."""
    about = About(meaning, group, accepted, path)
    return dataclasses.field(default=default, metadata={"about": about})


def about(one: dataclasses.Field) -> About:
    """Returns the facts about a field."""
    return one.metadata["about"]


def value_type(one: dataclasses.Field) -> type:
    """Returns the type of a field's values that are not None.

    Example:
        >>> @dataclasses.dataclass
        ... class Owner:
        ...     names: tuple[str, ...] | None
        >>> value_type(dataclasses.fields(Owner)[0])
        <class 'tuple'>
    """
    annotation: Any = one.type
    if isinstance(annotation, types.UnionType):
        (annotation,) = set(typing.get_args(annotation)) - {types.NoneType}
    return typing.get_origin(annotation) or annotation


def takes_none(one: dataclasses.Field) -> bool:
    """Returns whether a field that is not None by default may be None."""
    return one.default is not None and types.NoneType in typing.get_args(one.type)
