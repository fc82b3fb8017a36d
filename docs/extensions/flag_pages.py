"""The page of flags, from the fields that `--help` is made of."""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import generated_files

if TYPE_CHECKING:
    from sphinx.application import Sphinx

KINDS = {
    bool: "true or false",
    float: "a number",
    int: "an integer",
    str: "a text",
    tuple: "a list with commas",
}
INTRODUCTION = """# Flags

Look here when you know what you want to change in a run and not what it is called. The list is that
of `python run_experiment.py --help` (or `lrlc-train --help`): the same fields, names and defaults.
A flag that would have no effect in a run is refused. Brackets hold what a flag means where it is
not given.

```sh
python run_experiment.py --layer_types=conv2d,conv2d,locally_connected2d --model_dir=runs/local
python run_experiment.py --flagfile=runs/local/run.flags --model_dir=runs/again
```

`--flagfile` reads flags from a file, one on a line; every run writes its own as `run.flags`.
"""


def page() -> str:
    """Returns the page, in Markdown."""
    from low_rank_local_connectivity.experiments.fields import Group, about
    from low_rank_local_connectivity.experiments.flags import FIELDS

    parts = [INTRODUCTION]
    for group in Group:
        fields = [one for one in FIELDS.values() if about(one).group is group]
        parts += [f"## {group.value}", *map(entry, fields)] if fields else []
    return "\n\n".join(parts) + "\n"


def entry(one: dataclasses.Field) -> str:
    """Returns the definition of a flag: its name, what it takes, its default and its meaning."""
    from low_rank_local_connectivity.experiments.fields import about, value_type

    told = about(one)
    kind = "a path" if told.path else KINDS[value_type(one)]
    if told.accepted and told.accepted.choices:
        kind += ": " + ", ".join(f"`{choice}`" for choice in told.accepted.choices)
    default = "" if one.default is None else f"; default `{_spelled(one.default)}`"
    name = f"--[no]{one.name}" if value_type(one) is bool else f"--{one.name}"
    return f"`{name}`\n: {_escaped(told.meaning)}\n\n  *{kind}{default}*"


def _spelled(default: object) -> str:
    """Returns a default as a command spells it."""
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _escaped(text: str) -> str:
    """Returns a text without characters that mean something in Markdown."""
    return re.sub(r"([<>*_\[\]])", r"\\\1", text)


def write_page(app: "Sphinx") -> None:
    """Writes the page before Sphinx reads the documents."""
    generated_files.write_if_new(Path(app.srcdir) / "generated" / "flags.md", page())


def setup(app: "Sphinx") -> dict[str, bool]:
    """Connects the page with Sphinx."""
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
