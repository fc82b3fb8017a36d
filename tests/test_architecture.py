"""Which folder may import which."""

import ast
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import commands
import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
OURS = {"low_rank_local_connectivity", "models", "data", "experiments", "run_experiment", "tests"}
LIBRARY = "low_rank_local_connectivity"
# The house from the ground up: every part may import what is on lower floors, and nothing else.
FLOORS = (
    "ops keras_settings",
    "kernels",
    "activations initializers regularizers plans",
    "layers",
    "graph window_rules",
    "receptive_field inspection",
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
MAY_IMPORT = {LIBRARY: {LIBRARY}, "models": {LIBRARY}, "data": set()}
MAY_IMPORT["experiments"] = {LIBRARY, "models", "data", "experiments"}
MAY_IMPORT["benchmarks"] = {*MAY_IMPORT["experiments"], "benchmarks", "run_experiment"}
# What the parts that run on every backend may import beside the standard library.
PORTABLE = {
    f"{LIBRARY}/ops": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/plans": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/layers": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/conversion": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/equivariance": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/receptive_field.py": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/window_rules.py": {"keras", "numpy", LIBRARY},
    f"{LIBRARY}/graph.py": {"keras", "numpy", LIBRARY},
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
    """Top-level names that a module imports absolutely, inside functions too if `everywhere`."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def modules(folder: str) -> list[Path]:
    path = ROOT / folder
    files = [path.with_suffix(".py"), *path.rglob("*.py")]
    return sorted(file for file in files if file.is_file())


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder):
    for path in modules(folder):
        forbidden = imports(path) & OURS - MAY_IMPORT[folder]
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def room(parts: Sequence[str]) -> str | None:
    """Returns the part of the house that a module is in, given the words of its name."""
    if parts[0] != LIBRARY:
        return parts[0] if parts[0] in ROOMS else None
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else LIBRARY


def rooms_imported(path: Path) -> set[str]:
    """Returns the parts of the house that a file imports from, in functions too."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {room(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            parts = (*start, *(node.module or "").split("."))
            found |= {room([word for word in (*parts, a.name) if word]) for a in node.names}
    return found - {None}


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


def test_data_does_not_depend_on_keras_and_its_global_settings():
    for path in modules("data"):
        assert not imports(path) & {"keras", "jax", "torch"}, path.name


def test_no_file_mixes_the_two_names_of_models_and_data():
    folders = ("tests", "benchmarks", "experiments")
    for path in [*itertools.chain(*map(modules, folders)), ROOT / "run_experiment.py"]:
        if path != Path(__file__):
            text = path.read_text()
            for name in ("models", "data"):
                assert f"{LIBRARY}.{name}" not in text, f"{path} should say {name!r}"


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


def test_importing_models_data_and_experiments_loads_no_framework():
    code = "import sys, models, data, experiments.folder; print(*sys.modules)"
    run = commands.new_python("-c", code, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert not set(run.stdout.split()) & {"keras", "tensorflow", "jax", "torch", LIBRARY}
