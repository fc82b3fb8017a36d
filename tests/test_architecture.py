"""Which folder may import which."""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import commands
import pytest

from low_rank_local_connectivity import layers

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
LIBRARY = "low_rank_local_connectivity"
# Folders that are linked into the package, and the only names that they are imported by.
LINKED = {name: f"{LIBRARY}.{name}" for name in ("models", "data", "experiments")}
OURS = {LIBRARY, *LINKED, *LINKED.values(), "benchmarks", "run_experiment", "tests"}
# The house from the ground up: every part may import what is on lower floors, and nothing else.
FLOORS = (
    "registration unfinished untrusted",
    "ops keras_settings",
    "inspection kernels",
    "activations initializers regularizers plans receptive_field",
    "layers",
    "conversion equivariance",
    "export legacy plots",
    "training",
    "models data",
    "experiments",
    "run_experiment",
    "benchmarks",
)
ROOMS = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
# What each part may import of ours; relative imports stay inside their folder.
MAY_IMPORT = {LIBRARY: {LIBRARY}, "models": {LIBRARY}, "data": {LIBRARY}}
MAY_IMPORT["experiments"] = {LIBRARY, *LINKED.values()}
MAY_IMPORT["run_experiment"] = {LINKED["experiments"]}
MAY_IMPORT["benchmarks"] = {*MAY_IMPORT["experiments"], "benchmarks"}
MAY_IMPORT["tests"] = {*MAY_IMPORT["benchmarks"], "tests"}
# What the parts that run on every backend may import beside the standard library.
PORTABLE = {
    f"{LIBRARY}/ops": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/plans": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/layers": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/conversion": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/equivariance": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/inspection": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/receptive_field.py": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/keras_settings.py": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/activations.py": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/initializers.py": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/regularizers.py": {"keras", "numpy", LIBRARY},
    "models": {"keras", "numpy", LIBRARY},
}
# Of those, the files that tell a backend in its own words what it could not see for itself.
NAMES_A_BACKEND = {
    f"{LIBRARY}/ops/constants.py": {"torch"},
    f"{LIBRARY}/ops/gradients.py": {"jax", "torch"},
    f"{LIBRARY}/ops/padding.py": {"torch"},
    f"{LIBRARY}/plans/machine.py": {"tensorflow", "jax", "torch"},
}
OPTIONAL = {"tensorflow", "matplotlib", "sklearn", "scipy", "tensorflow_datasets", "absl"}


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """What a module imports absolutely, by its top-level name or that of a linked folder."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return set(map(owner, names))


def owner(name: str) -> str:
    """What of ours, or which package of others, holds a module or a name in it."""
    linked = ".".join(name.split(".")[:2])
    return linked if linked in LINKED.values() else name.partition(".")[0]


def modules(folder: str) -> list[Path]:
    path = ROOT / folder
    files = [path.with_suffix(".py"), *([] if path.is_symlink() else path.rglob("*.py"))]
    return sorted(file for file in files if file.is_file())


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder):
    for path in modules(folder):
        forbidden = imports(path) & OURS - MAY_IMPORT[folder]
        if path == ROOT / LIBRARY / "__init__.py":
            forbidden -= set(LINKED.values())  # it hands out its parts
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def room(parts: Sequence[str]) -> str | None:
    """Returns the part of the house that a module is in, given the words of its name."""
    if parts[0] != LIBRARY:
        return parts[0] if parts[0] in ROOMS else None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else LIBRARY


def names_imported(path: Path) -> set[str]:
    """Returns the whole names of what a file imports, in functions too."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            parts = [word for word in (*start, *(node.module or "").split(".")) if word]
            found |= {".".join((*parts, alias.name)) for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    """Returns the parts of the house that a file imports from."""
    return {found for name in names_imported(path) if (found := room(name.split(".")))}


def test_every_part_of_the_house_has_a_floor():
    inside = [f"{LIBRARY}/{path.stem}" for path in (ROOT / LIBRARY).iterdir() if is_code(path)]
    outside = [path.stem for path in ROOT.iterdir() if is_code(path)]
    missing = {Path(name).name for name in inside + outside} - set(ROOMS)
    missing -= {LIBRARY, "__init__", "setup", "tests"}
    assert not missing, f"say in FLOORS on which floor {sorted(missing)} are"


def is_code(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").exists()


@pytest.mark.parametrize("name", ROOMS)
def test_imports_point_down(name):
    for path in [path for folder in (f"{LIBRARY}/{name}", name) for path in modules(folder)]:
        below = {one for one, floor in ROOMS.items() if floor < ROOMS[name]}
        wrong = rooms_imported(path) - below - {name}
        if not path.is_relative_to(ROOT / LIBRARY):
            wrong -= {LIBRARY}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}, which are not below"


LAYERS = ROOT / LIBRARY / "layers"
FAMILIES = sorted(path.parent.name for path in LAYERS.glob("*/__init__.py"))


def is_of_another_family(name: str, own: str) -> bool:
    """Whether what a layer imports is neither of its own family nor beside the families."""
    if not f"{name}.".startswith(f"{LIBRARY}.layers."):
        return False
    _, _, part, *_ = (*name.split("."), "")
    beside = part not in FAMILIES and (LAYERS / f"{part}.py").exists()
    return part != own and not beside


def classes_extended(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {ast.unparse(base) for one in classes for base in one.bases}


def test_a_layer_takes_of_other_families_only_the_class_that_it_extends():
    for path in sorted(set(modules(f"{LIBRARY}/layers")) - {LAYERS / "__init__.py"}):
        others = {n for n in names_imported(path) if is_of_another_family(n, path.parent.name)}
        wrong = {name for name in others if name.rpartition(".")[2] not in classes_extended(path)}
        assert not wrong, (
            f"{path.relative_to(ROOT)} imports {sorted(wrong)}: what two families share belongs "
            "beside the base classes, in layers/, or in ops/"
        )


def test_every_family_of_layers_has_its_tests():
    tested = {path.parent.name for path in (ROOT / "tests" / "layers").glob("*/test_*.py")}
    assert tested == set(FAMILIES)


@pytest.mark.parametrize("folder", PORTABLE)
def test_what_runs_on_every_backend_imports_keras_and_numpy_only(folder):
    for path in modules(folder):
        foreign = imports(path) - PORTABLE[folder] - set(sys.stdlib_module_names)
        foreign -= NAMES_A_BACKEND.get(path.relative_to(ROOT).as_posix(), set())
        assert not imports(path, everywhere=False) & {"jax", "torch", "tensorflow"}
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


def test_layers_pad_with_what_pytorch_s_compiler_sees_through():
    for path in [*modules(f"{LIBRARY}/ops"), *modules(f"{LIBRARY}/layers")]:
        if path.name != "padding.py":
            assert "ops.pad(" not in path.read_text(), f"{path}: use ops.padding.pad"


def test_of_ours_data_imports_the_checks_of_files_alone():
    for path in modules("data"):
        assert rooms_imported(path) <= {"data", "untrusted"}, path.name


def test_data_does_not_depend_on_keras_and_its_global_settings():
    for path in modules("data"):
        if path.name != "batch_changes.py":  # Keras's layers, told what the settings would tell
            assert not imports(path) & {"keras", "jax", "torch"}, path.name


EXTRAS = [f"{LIBRARY}.{name}" for name in ("export", "plots", "legacy", "equivariance")]


def test_importing_the_library_loads_no_extra():
    """On JAX, where Keras itself loads none of them."""
    pytest.importorskip("jax", reason="JAX is not installed")
    modules = ", ".join([LIBRARY, *EXTRAS])
    code = f"import keras, sys; before = set(sys.modules); import {modules}; "
    code += "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    run = commands.new_python("-c", code, KERAS_BACKEND="jax")
    assert run.returncode == 0, run.stderr
    assert LIBRARY in run.stdout.split()
    assert not set(run.stdout.split()) & OPTIONAL


def test_a_folder_beside_the_package_is_its_part():
    for name, installed in LINKED.items():
        link = ROOT / LIBRARY / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name
        module = importlib.import_module(installed)
        assert Path(str(module.__file__)).resolve() == ROOT / name / "__init__.py"


def printed(code: str, python: Any = commands.new_python) -> set[str]:
    """The words that a process of its own prints, on the backend that loads soonest."""
    run = python("-c", code, cwd=ROOT, KERAS_BACKEND="jax")
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


LIGHT = ("", ".export", ".export.formats", ".models", ".data", ".training", ".experiments.command")
LIGHT = (*LIGHT, ".experiments.sweeping", ".experiments.paper.report")


@pytest.mark.parametrize("part", LIGHT)
def test_a_framework_is_loaded_when_it_is_used(part):
    loaded = printed(f"import sys, {LIBRARY}{part}; print(*sys.modules)")
    assert LIBRARY in loaded
    assert not loaded & {"keras", "tensorflow", "jax", "torch"}


ORDERS = {
    "after": "keras, {}",
    "before": "{}, keras",
    "before a light part": "{}.export, keras",
    "by a part": "{}.ops, keras",
    "by its classes": "{}.layers, keras",
    "by a part of a light part": "{}.export.exporting, keras",
    "by training": "{}.training.records, keras",
    "by a part that is asked for": "{0} as lrlc; lrlc.plots; import keras",
    "before TensorFlow": "{}, tensorflow as tf; tf.keras.layers; import keras",
}


# All of these import the package first, as "before" does.
SLOW = ("before a light part", "by a part", "by its classes", "by training")


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(imports, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, imports in ORDERS.items()
    ],
)
def test_keras_knows_the_layers_wherever_both_are_imported(imports):
    pytest.importorskip("jax", reason="JAX is not installed")
    code = f"import {imports.format(LIBRARY)}; "
    code += f"print(*[k for k in keras.saving.get_custom_objects() if k.startswith('{LIBRARY}>')])"
    found = printed(code, commands.server_beneath_keras().python)
    assert {f"{LIBRARY}>{name}" for name in layers.__all__ if name.endswith("Conv2D")} <= found
    assert f"{LIBRARY}>LowRankLocallyConnected3D" in found
