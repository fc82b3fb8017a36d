"""Which folder may import which, and what an installation adds to site-packages."""

import ast
import itertools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
OURS = {"low_rank_local_connectivity", "models", "data", "experiments", "run_experiment", "tests"}
LIBRARY = "low_rank_local_connectivity"
# What each part may import of ours; relative imports stay inside their folder.
MAY_IMPORT = {LIBRARY: {LIBRARY}, "models": {LIBRARY}, "data": set()}
MAY_IMPORT["experiments"] = {LIBRARY, "models", "data", "experiments"}
MAY_IMPORT["benchmarks"] = {*MAY_IMPORT["experiments"], "benchmarks", "run_experiment"}
# What the parts that run on every backend may import beside the standard library.
PORTABLE = {
    f"{LIBRARY}/ops": {"keras", "numpy", LIBRARY},
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
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder):
    for path in modules(folder):
        forbidden = imports(path) & OURS - MAY_IMPORT[folder]
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_within_the_library_imports_point_down():
    order = ["ops", "layers"]
    for level, part in enumerate(order):
        above = [*order[level + 1 :], "training", "export", "plots", "conversion", "legacy"]
        above += ["equivariance", "receptive_field", "window_rules", "graph"]
        for path in modules(f"{LIBRARY}/{part}"):
            for name in above:
                assert f"{LIBRARY}.{name}" not in path.read_text(), f"{path} imports {name}"


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
    modules = ", ".join([LIBRARY, *EXTRAS])
    code = f"import keras, sys; before = set(sys.modules); import {modules}; "
    code += "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & OPTIONAL


def test_importing_models_data_and_experiments_loads_no_framework():
    code = "import sys, models, data, experiments.folder; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not set(run.stdout.split()) & {"keras", "tensorflow", "jax", "torch", LIBRARY}


@pytest.mark.slow
def test_an_installation_adds_one_name(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top_levels = {name.partition("/")[0] for name in names}
    assert {name for name in top_levels if not name.endswith(".dist-info")} == {LIBRARY}
    for part in ("data/digits.py", "models/simple_network.py", "training/session.py", "py.typed"):
        assert f"{LIBRARY}/{part}" in names
