"""What a user sees of the library: its names, its help, and what type checkers know of it."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import commands
import keras
import public_names
import pytest

import low_rank_local_connectivity as lrlc

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
LIBRARY = lrlc.__name__
INITS = [
    path
    for folder in (LIBRARY, "data", "models", "experiments", "benchmarks")
    for path in sorted((ROOT / folder).rglob("__init__.py"))
]
LAYERS = [getattr(lrlc.layers, name) for name in lrlc.layers.__all__]


def words(line: str) -> list[str]:
    return [word for word in line.split()[1:] if word != "*"]


def positional(line: str) -> list[str]:
    return line.partition(" *")[0].split()[1:]


def test_nothing_published_vanishes_and_arguments_keep_their_order():
    now = {line.split()[0]: line for line in public_names.published()}
    for line in public_names.LISTED.read_text().splitlines():
        name = line.split()[0]
        assert name in now, f"{name} was published and is gone"
        kept, old = positional(now[name]), positional(line)
        assert kept[: len(old)] == old, f"arguments of {name} by position were {old}, are {kept}"
        lost = set(words(line)) - set(words(now[name]))
        assert not lost, f"{name} no longer takes {sorted(lost)}"


def test_everything_published_is_listed():
    listed = public_names.LISTED.read_text().splitlines()
    missing = [line for line in public_names.published() if line not in listed]
    assert not missing, "run python tests/public_names.py, which adds:\n" + "\n".join(missing)


def module_name(folder: Path) -> str:
    """The name of a package, which may be linked into the library."""
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] in (LIBRARY, "benchmarks") else (LIBRARY, *parts))


@pytest.mark.parametrize("path", INITS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_a_package_says_what_is_public(path):
    module = importlib.import_module(module_name(path.parent))
    for name in module.__all__:
        getattr(module, name)  # some are loaded when they are first used
    bound = {
        name
        for name, value in vars(module).items()
        if not (name.startswith("_") or inspect.ismodule(value) or name in typing.__all__)
    }
    assert bound == set(module.__all__)


def test_importing_all_names_shadows_nothing_of_keras():
    given: dict[str, object] = {}
    exec("from low_rank_local_connectivity import *", given)
    names = set(given) - {"__builtins__"}
    assert "LowRankLocallyConnected2D" in names
    assert not names & {*dir(keras), *dir(keras.layers)}
    assert not set(lrlc.layers.__all__) & {*dir(keras), *dir(keras.layers)}


def test_packages_are_there_and_load_when_they_are_used():
    later = ["conversion", "export", "legacy", "equivariance", "plots", "receptive_field"]
    code = f"""
import sys
import low_rank_local_connectivity as lrlc
for name in {[*later, "training"]}:
    full = lrlc.__name__ + "." + name
    assert full not in sys.modules, name + " was loaded before it was used"
    assert name in dir(lrlc)
for name in {later}:
    assert getattr(lrlc, name) is sys.modules[lrlc.__name__ + "." + name]
"""
    done = commands.server_beneath_keras().python("-c", code, cwd=ROOT, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr


def test_a_package_that_does_not_exist_is_refused_in_python_s_words():
    message = "module 'low_rank_local_connectivity' has no attribute 'convertion'"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        _ = lrlc.convertion  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_help_on_a_layer_has_a_page_with_every_argument_and_an_example(layer):
    page = layer.__doc__
    titles = [other.__doc__.splitlines()[0] for other in LAYERS]
    assert titles.count(page.splitlines()[0]) == 1
    assert f"{layer.__name__}(" in page.partition("Example:")[2]
    described = re.findall(r"^ +\*{0,2}([\w, ]+):", page, re.MULTILINE)
    names = {name.strip() for line in described for name in line.split(",")}
    assert set(inspect.signature(layer).parameters) - {"kwargs"} <= names


def test_a_page_is_completed_by_sections_in_their_usual_order():
    from low_rank_local_connectivity.layers.documentation import documented_with

    class Base:
        """What a base does.

        In detail.

        Args:
            one: The first.

        Raises:
            ValueError: Always.

        Reference:
            A book.
        """

    @documented_with(Base)
    class Final(Base):
        """What it does.

        Args:
            two: The second.

        Example:
            >>> Final()
        """

    assert Final.__doc__ == (
        "What it does.\n\nWhat a base does.\n\nIn detail.\n\n"
        "Args:\n    one: The first.\n    two: The second.\n\n"
        "Raises:\n    ValueError: Always.\n\nExample:\n    >>> Final()\n\n"
        "Reference:\n    A book.\n"
    )


def test_the_layer_over_two_axes_adds_the_release_s_names_to_the_others_arguments():
    here = dict(inspect.signature(lrlc.LowRankLocallyConnected2D).parameters)
    added = [here.pop(f"share_{axis}_combining_weights") for axis in ("row", "col")]
    assert here == dict(inspect.signature(lrlc.LowRankLocallyConnected3D).parameters)
    assert [(one.default, one.kind) for one in added] == [
        (None, inspect.Parameter.KEYWORD_ONLY)
    ] * 2


# Lines that a type checker must refuse, and what each of the two says of them.
REFUSED = {
    "lrlc.LowRankLocallyConnected2D()": ("Arguments missing", "Missing positional arguments"),
    "lrlc.LowRankLocallyConnected2D(6, 3, 4, nonsense=4)": ("nonsense", "nonsense"),
    "lrlc.LowRankLocallyConnected1D(6, 3, 4, nonsense=4)": ("nonsense", "nonsense"),
    "lrlc.LowRankLocallyConnected3D(6, 3, 4, share_row_combining_weights=True)": (
        "share_row_combining_weights",
        "share_row_combining_weights",
    ),
    "lrlc.CoordConv2D(6, 3, nonsense=4)": ("nonsense", "nonsense"),
    "lrlc.GroupBatchNormalization(axis=1)": ("axis", "axis"),
    "lrlc.layers.WithBackground(None, nonsense=4)": ("nonsense", "nonsense"),
    "lrlc.export.nonsense": ("nonsense", "nonsense"),
    "lrlc.convertion": ("convertion", "convertion"),
}
ACCEPTED = """
import low_rank_local_connectivity as lrlc
from low_rank_local_connectivity import LowRankLocallyConnected2D
layer: LowRankLocallyConnected2D = lrlc.LowRankLocallyConnected2D(6, (3, 2), 4, name="a")
lrlc.LowRankLocallyConnected2D(6, 3, 4, share_row_combining_weights=True, dtype="float16")
lrlc.LocallyConnected1D(6, 3, trainable=False, fan="kernel")
lrlc.layers.AddCoordinates2D(activity_regularizer="l2")
lrlc.CoordConv2D(6, 3, padding="same", name="a")
lrlc.GroupBatchNormalization(center=False)
lrlc.conversion.to_low_rank
lrlc.equivariance.error
lrlc.export.export_model
lrlc.legacy.load_model
lrlc.plots.spatial_spectra
lrlc.inspection.total_cost
lrlc.receptive_field.receptive_field
lrlc.training.train
version: str = lrlc.__version__
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A program whose first lines are right and whose last are the refused ones."""
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text("\n".join([*ACCEPTED.splitlines(), *REFUSED]))
    return path


def refusals(found: dict[int, str], checker: int) -> None:
    """Compares what a checker found, by line, with what it must find."""
    first = len(ACCEPTED.splitlines()) + 1
    assert set(found) == set(range(first, first + len(REFUSED))), found
    for line, expected in enumerate(REFUSED.values(), first):
        assert expected[checker] in found[line]


def test_pyright_knows_every_argument_and_package(program):
    settings = {"venvPath": str(ROOT), "venv": ".venv", "extraPaths": [str(ROOT)]}
    settings |= {"reportUnusedExpression": False}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "-p", str(program.parent)]
    output = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    found = json.loads(output)["generalDiagnostics"]
    refusals({one["range"]["start"]["line"] + 1: one["message"] for one in found}, 0)


@pytest.mark.slow  # as pyright does
def test_mypy_knows_every_argument_and_package(program, tmp_path):
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    output = subprocess.run(
        [*command, str(program)], check=False, capture_output=True, text=True, env=environment
    ).stdout
    found = re.findall(r":(\d+): error: (.*)", output)
    refusals({int(line): message for line, message in found}, 1)
