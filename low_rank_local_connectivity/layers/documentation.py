"""Pages of `help()` for classes that share most of their description."""

import inspect
import re
from collections.abc import Callable
from typing import TypeVar

# A page's first section is its description, which has no heading.
DESCRIPTION = ""
SECTIONS = (
    DESCRIPTION,
    "Args",
    "Weights",
    "Input",
    "Output",
    "Raises",
    "Example",
    "Reference",
)

Class = TypeVar("Class", bound=type)


def documented_with(base: type) -> Callable[[Class], Class]:
    """Returns a decorator that completes a class's docstring by the sections of another's.

    Arguments of both are listed, the other's first; of any other section that both have, the
    class's own is kept. A description of one line is followed by the other's.

    Args:
        base: Class that says what the decorated one leaves out.
    """

    def complete(decorated: Class) -> Class:
        if decorated.__doc__ and base.__doc__:  # none under `python -OO`
            decorated.__doc__ = _complete(_sections(decorated.__doc__), _sections(base.__doc__))
        return decorated

    return complete


def _complete(own: dict[str, str], shared: dict[str, str]) -> str:
    """Returns a page of both, its sections in their usual order."""
    page = {**shared, **own}
    if "\n" not in own[DESCRIPTION]:
        page[DESCRIPTION] = f"{own[DESCRIPTION]}\n\n{shared[DESCRIPTION]}"
    if "Args" in own and "Args" in shared:
        page["Args"] = shared["Args"] + own["Args"].removeprefix("Args:")
    return "\n\n".join(page[name] for name in sorted(page, key=SECTIONS.index)) + "\n"


def _sections(docstring: str) -> dict[str, str]:
    """Returns the sections of a docstring, with their headings, by the heading's first word."""
    sections, name = {DESCRIPTION: ""}, DESCRIPTION
    for line in inspect.cleandoc(docstring).splitlines():
        heading = re.fullmatch(r"([A-Z][a-z]+)(, [a-z ]+)?:", line)
        if heading:
            name = heading[1]
            sections[name] = ""
        sections[name] += f"{line}\n"
    return {name: text.rstrip() for name, text in sections.items()}
