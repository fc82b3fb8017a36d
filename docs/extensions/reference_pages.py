"""Pages of the API: one for every package, and one for everything public in it.

Docstrings are written in the manner of Google with Markdown's backticks. Here they become what
Sphinx reads, and names of public objects become links.
"""

import importlib
import inspect
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import generated_files

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LIBRARY = "low_rank_local_connectivity"
# In the order of the contents.
PACKAGES = (
    LIBRARY,
    *(
        f"{LIBRARY}.{name}"
        for name in (
            "conversion",
            "equivariance",
            "inspection",
            "export",
            "legacy",
            "plots",
            "plans",
            "ops",
            "models",
            "data",
            "training",
            "experiments.experiment",
        )
    ),
)
# What CONTRIBUTING asks of every layer.
ASKED_OF_LAYERS = ("operations", "windows")
# What every layer has and Keras's own pages explain.
KERAS_METHODS = (
    "build",
    "call",
    "compute_mask",
    "compute_output_shape",
    "compute_output_spec",
    "get_build_config",
    "build_from_config",
    "get_config",
    "from_config",
)


def public_names(package: str) -> list[str]:
    """Returns the names that a package or module gives its users."""
    module = importlib.import_module(package)
    named = getattr(module, "__all__", None)
    return list(named or (name for name, value in vars(module).items() if _own(module, value)))


def _own(module: Any, value: Any) -> bool:
    """Returns whether a module without `__all__` defines a public class or function."""
    own = getattr(value, "__module__", None) == module.__name__
    return own and inspect.isroutine(value) | inspect.isclass(value) and value.__name__[0] != "_"


def objects() -> dict[str, Any]:
    """Returns everything public by its full name, each once."""
    found: dict[str, Any] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        found |= {f"{package}.{name}": getattr(module, name) for name in public_names(package)}
    return found


def documented(value: Any) -> bool:
    """Returns whether something has a page of its own: classes and functions have."""
    return inspect.isclass(value) or inspect.isroutine(value)


def page_of(full_name: str, value: Any) -> str:
    """Returns the page of a class or a function."""
    name = full_name.rpartition(".")[2]
    lines = [f":orphan:\n\n{name}\n{'=' * len(name)}\n"]
    lines += [f".. py:currentmodule:: {full_name.rpartition('.')[0]}\n"]
    if inspect.isclass(value):
        lines += [f".. autoclass:: {name}", "   :members:", "   :inherited-members:"]
        lines += [""]
    else:
        lines += [f".. autofunction:: {name}", ""]
    return "\n".join(lines)


def summary(value: Any) -> str:
    """Returns the first line of a docstring, in Markdown."""
    return next(iter(inspect.getdoc(value).splitlines()))  # pyright: ignore[reportOptionalMemberAccess]


def listing(package: str) -> str:
    """Returns the page of a package, in Markdown: its description and what is in it."""
    module = importlib.import_module(package)
    names = public_names(package)
    title = "Layers" if package == LIBRARY else package.rpartition(".")[2]
    lines = [f"# {title}\n", f"`{package}`\n", _description(module), ""]
    pages = [name for name in names if documented(getattr(module, name))]
    rows = [f"| {{py:obj}}`{n} <{package}.{n}>` | {summary(getattr(module, n))} |" for n in pages]
    lines += ["| | |", "|---|---|", *rows, ""]
    values = [name for name in names if name not in pages]
    if values:
        lines += ["**Values**\n", "| | |", "|---|---|"]
        lines += [f"| `{name}` | {_about(getattr(module, name))} |" for name in values]
    entries = [f"{package}.{name}" for name in pages]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *entries, "```", ""])


def _description(module: Any) -> str:
    """Returns what a module says of itself, with its example as code."""
    text, _, example = inspect.getdoc(module).partition("\nExample:\n")  # pyright: ignore[reportOptionalMemberAccess]
    code = f"\n```pycon\n{inspect.cleandoc(example)}\n```" if example else ""
    return text.rstrip() + "\n" + code


def _about(value: Any) -> str:
    """Returns what a constant holds, in a few words."""
    if isinstance(value, (dict, tuple)) and all(isinstance(one, str) for one in value):
        return ", ".join(f"`{one}`" for one in value)
    name = getattr(value, "name", None)
    return f"{type(value).__name__} `{name}`" if name else f"`{value!r}`"


def write_pages(app: "Sphinx") -> None:
    """Writes the pages of all packages."""
    folder = Path(app.srcdir) / "generated" / "api"
    pages = {f"{package}.md": listing(package) for package in PACKAGES}
    for full_name, value in objects().items():
        if documented(value):
            pages[f"{full_name}.rst"] = page_of(full_name, value).removeprefix(":orphan:\n\n")
    for name, text in pages.items():
        generated_files.write_if_new(folder / name, text)
    generated_files.remove_others(folder, {folder / name for name in pages})


def signature(
    app: "Sphinx", what: str, name: str, obj: Any, options: Any, given: str, returned: str
) -> tuple[str, str] | None:
    """Returns the arguments that a class takes, which Keras's `__new__` hides."""
    del app, name, options, given
    if what != "class":
        return None
    try:
        found = inspect.signature(obj)
    except ValueError:  # an exception's, which is Python's
        return None
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    return str(inspect.Signature(plain)), returned


def skipped(app: "Sphinx", what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out of a layer's page what is Keras's, and what layers say to each other only."""
    del app, what, skip, options
    method = getattr(obj, "fget", None) or getattr(obj, "__func__", None) or obj
    module = getattr(method, "__module__", None) or LIBRARY
    if name in KERAS_METHODS or not module.startswith(LIBRARY):
        return True
    shown = "Example:" in (getattr(obj, "__doc__", None) or "") or name in ASKED_OF_LAYERS
    return True if not shown and _is_between_layers(name, method) else None


def _is_between_layers(name: str, method: Any) -> bool:
    """Returns whether a method answers what a base class, which is not public, asks of layers."""
    module = getattr(method, "__module__", None) or ""
    if not module.startswith(f"{LIBRARY}.layers."):
        return False
    owner = getattr(sys.modules[module], method.__qualname__.partition(".")[0])
    public = importlib.import_module(LIBRARY).__all__
    ours = [one for one in owner.__mro__ if one.__module__.startswith(LIBRARY)]
    return any(name in vars(one) for one in ours if one.__name__ not in public)


def docstring(
    app: "Sphinx", what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Turns Markdown's backticks into literals, and public names into links."""
    del app, what, name, obj, options
    text = "\n".join(lines)
    # A list of names and meanings; some layers describe their weights in a sentence instead.
    names = r"^Weights(?:, in this order)?:\n(?= +\w[\w/, ()`]*: )"
    text = re.sub(names, "Weights in this order:\n", text, flags=re.MULTILINE)
    parts = re.split(r"((?:^ *(?:>>>|\.\.\.) .*\n(?:(?! *\n).*\n?)*)+)", text, flags=re.MULTILINE)
    parts[::2] = [re.sub(r"(.?)`([^`]+)`(\w?)", _marked, part) for part in parts[::2]]
    lines[:] = "".join(parts).split("\n")


def _marked(match: re.Match) -> str:
    """Returns a piece of code as a link or a literal, parted from letters around it."""
    before, code, after = match.groups()
    link = links().get(code.removesuffix("()"))
    before += "\\ " if before and before not in " \n([{<'\"-/:" else ""
    after = f"\\ {after}" if after else ""
    return f"{before}:py:obj:`{code} <{link}>`{after}" if link else f"{before}``{code}``{after}"


_LINKS: dict[str, str] = {}


def links() -> dict[str, str]:
    """Returns the full names of what docstrings call `Shift`, `plans.choose` and so on."""
    if not _LINKS:
        _LINKS.update(_named())
    return _LINKS


def _named() -> Iterator[tuple[str, str]]:
    for full_name, value in objects().items():
        if documented(value):
            package, _, name = full_name.rpartition(".")
            if inspect.isclass(value) or "_" in name:
                yield name, full_name
            yield f"{package.rpartition('.')[2]}.{name}", full_name


def setup(app: "Sphinx") -> dict[str, int]:
    """Connects the pages, signatures and docstrings with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skipped)
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before napoleon
    # What an earlier form of this file has read is read again.
    version = zlib.crc32(Path(__file__).read_bytes())
    return {"env_version": version, "parallel_read_safe": True, "parallel_write_safe": True}
