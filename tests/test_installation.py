"""The package as it is published: what it says of itself, and that it runs without the checkout."""

import email
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import lowest
import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
LIBRARY = "low_rank_local_connectivity"

PROGRAM = f"""
import importlib, pathlib, runpy, sys
folder = pathlib.Path(sys.argv.pop(1))
sys.argv[0] = str(folder / "bin" / "lrlc-train")
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
print("trained", file=sys.stderr)
import keras
import numpy as np
import {LIBRARY} as lrlc
from {LIBRARY}.data import DATASETS
from {LIBRARY}.models import MODELS, Settings, convolution
PARTS = ("", ".data", ".models", ".experiments", ".training", ".export", ".legacy", ".plots")
for name in PARTS:
    file = importlib.import_module(lrlc.__name__ + name).__file__
    assert pathlib.Path(file).is_relative_to(folder), file
assert "digits" in DATASETS and "simple_network" in MODELS
layer = lrlc.LowRankLocallyConnected2D(3, (3, 2), spatial_rank=2, activation="relu")
model = keras.Sequential([keras.Input((7, 6, 2)), layer, keras.layers.Flatten()])
images = np.random.default_rng(0).normal(size=(4, 7, 6, 2)).astype("float32")
model.save("model.keras")
again = keras.models.load_model("model.keras")
outputs = [keras.ops.convert_to_numpy(one(images)) for one in (again, model)]
np.testing.assert_array_equal(*outputs)
print(lrlc.conversion.to_locally_connected(layer).kernel.shape[0], "positions")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a source distribution as on a package index."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_an_installation_adds_one_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top_levels = {name.partition("/")[0] for name in names}
    assert {name for name in top_levels if not name.endswith(".dist-info")} == {LIBRARY}
    parts = ["data/digits.py", "models/simple_network.py", "training/session.py", "py.typed"]
    parts += ["plans/coefficients.json"]
    parts += ["experiments/command.py", "experiments/paper/mnist_convolution.flags"]
    for part in parts:
        assert f"{LIBRARY}/{part}" in names


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*install, wheel], check=True)
    return folder


def test_the_installed_command_trains_and_what_is_installed_runs_without_the_checkout(
    installed, tmp_path
):
    flags = ["--flagfile=digits_low_rank.flags", "--epochs=1", "--filters=3", "--model_dir=run"]
    flags += ["--train_examples=64", "--export_formats=none", "--noevaluation"]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, installed, *flags],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("trained\n")
    *_, result, positions = run.stdout.splitlines()
    assert result.startswith("Result: test accuracy ")
    assert positions == "25 positions"
    assert (tmp_path / "run" / "result.json").exists()


@pytest.fixture
def fresh(wheel, tmp_path):
    """A function that runs a command of an environment of its own, away from the checkout.

    The environment has the wheel, and sees the packages that it needs where they are installed.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    # A line of a .pth file names a folder, whose own .pth files, the checkout's among them, are
    # not read.
    (Path(packages) / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--ignore-installed", wheel], check=True)
    (tmp_path / "work").mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(name, *arguments):
        return subprocess.run(
            [tmp_path / "env" / "bin" / name, *map(str, arguments)],
            cwd=tmp_path / "work",
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
def test_every_command_of_a_wheel_works_in_a_fresh_environment(fresh, tmp_path):
    from PIL import Image

    work = tmp_path / "work"
    done = fresh("python", "-c", f"import {LIBRARY}; print({LIBRARY}.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "env"), done.stderr
    # Its flags are read, and lack nothing but the data.
    done = fresh("lrlc-train", "--flagfile=paper/mnist_lrlc_layer3.flags", "--data_dir=nowhere")
    assert done.returncode == 2
    assert "The dataset 'mnist' must be prepared in --data_dir." in done.stderr
    Image.new("L", (16, 16)).save(work / "black.png")
    small = ("--epochs=1", "--filters=3", "--batch_size=32", "--train_examples=64")
    sweep = (*small, "--spatial_ranks=1,2", "--export_formats=none", "--model_dir=sweep")
    commands = {
        "Nothing was trained": ("lrlc-train", *small, "--dry_run", "--model_dir=run"),
        "Result: test accuracy": ("lrlc-train", *small, "--export_formats=none", "--model_dir=run"),
        "Chosen on the validation split": ("lrlc-train", *sweep),
        "report/report.md": ("lrlc-report", "sweep", "run", "--out=report"),
        "360 examples of digits, test": ("lrlc-evaluate", "--model=run"),
        "black.png,": ("lrlc-predict", "--model=run", "black.png"),
        "": ("lrlc-export", "--model=run", "--formats=tf_saved_model", "--out=exported"),
    }
    if importlib.util.find_spec("ray") is not None:
        on_ray = (*sweep[:-1], "--sweep_engine=ray", "--model_dir=sweep_on_ray")
        commands["Chosen on the validation split: rank"] = ("lrlc-train", *on_ray)
    for told, command in commands.items():
        done = fresh(*command)
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
    made = ["run/evaluation.json", "run/confusion.png", "sweep/records.jsonl", "report/report.csv"]
    made += ["run/evaluation-test/evaluation.json", "exported/1/saved_model.pb"]
    for file in made:
        assert (work / file).exists(), file


def test_the_metadata_name_authors_addresses_and_versions_of_python(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("METADATA"))
        metadata = email.message_from_bytes(file.read(name))
    assert metadata["Author"] == "The low_rank_local_connectivity authors"
    addresses = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert set(addresses) == {"Repository", "Issues", "Changelog"}
    classifiers = metadata.get_all("Classifier", [])
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Development Status :: 4 - Beta" in classifiers
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert page.startswith("# low_rank_local_connectivity")
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links
    assert all(link.startswith("https://") for link in links)
    assert f"{addresses['Repository']}/blob/HEAD/CONTRIBUTING.md" in links
    assert f"{addresses['Repository']}/raw/HEAD/docs/combining_weights.png" in links


def test_every_link_of_the_readme_into_the_repository_leads_somewhere():
    links = re.findall(r"\]\(([^):]*)\)", (ROOT / "README.md").read_text())
    assert "CONTRIBUTING.md" in links
    for link in links:
        file, _, anchor = link.partition("#")
        assert (ROOT / file).exists(), link
        assert not anchor or anchor in anchors(ROOT / file), link


def anchors(document):
    """The names by which the sections of a document are linked to."""
    titles = re.findall(r"^#+ (.*)", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_every_dependency_has_a_lower_bound():
    pins = list(map(lowest.pin, lowest.requirements()))
    assert "keras==3.12" in pins
    assert "ruff" in {one.partition("==")[0] for one in pins}


@pytest.mark.parametrize("requirement", ["numpy", "numpy<3", "numpy>=2,<3"])
def test_a_dependency_without_one_is_refused(requirement):
    with pytest.raises(ValueError, match="must have a lower bound") as raised:
        lowest.pin(requirement)
    assert str(raised.value) == (
        "A dependency must have a lower bound, as in 'numpy>=2.0', and nothing else. "
        f"Received: {requirement!r}. Change it in pyproject.toml."
    )


def test_no_dependency_has_two_lower_bounds():
    pins = {}
    for requirement in lowest.requirements():
        name = requirement.partition(">=")[0]
        assert pins.setdefault(name, requirement) == requirement


def test_the_version_is_the_same_wherever_it_stands():
    import low_rank_local_connectivity

    version = low_rank_local_connectivity.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
