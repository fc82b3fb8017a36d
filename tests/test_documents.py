"""The commands of the README, of CONTRIBUTING and of the pages exist, and run."""

import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from test_npz import SHAPES, arrays

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
# Documents whose experiments run as they stand; those of others need machines or data.
TRIED = ("README.md", *(f"docs/{name}.md" for name in ("install", "photos", "arrays", "training")))


def commands(document: str) -> list[str]:
    """The lines of a document's shell blocks, without comments."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = (re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def experiments() -> list[str]:
    lines = [line for document in TRIED for line in commands(document)]
    return [line for line in dict.fromkeys(lines) if "python run_experiment.py" in line]


def test_the_two_commands_stand_first():
    assert commands("README.md")[:2] == ["make experiment", "make test"]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_exists(document):
    targets = {shlex.split(line)[1] for line in commands(document) if line.startswith("make")}
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_every_extra_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pages = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    extras = re.findall(r"\[([\w,-]+)\]\"", "".join(page.read_text() for page in pages))
    assert extras
    named = {name for group in extras for name in group.split(",")}
    assert named <= set(project["optional-dependencies"])


# What stands in the commands for a user's own data.
PLACES = re.compile("DATA|PHOTOS|RECORDINGS")


@pytest.mark.parametrize("command", experiments())
def test_every_experiment_s_flags_are_accepted(command, tmp_path, monkeypatch, rng):
    from absl import flags

    from low_rank_local_connectivity.experiments.command import check_flags
    from low_rank_local_connectivity.experiments.flags import FLAGS, experiment_from_flags

    for part, name in itertools.product(("train", "valid", "test"), ("cats", "dogs")):
        (tmp_path / part / name).mkdir(parents=True)
        for index in range(32):
            (tmp_path / part / name / f"{index}.jpg").touch()
    np.savez(tmp_path / "recordings", **arrays(rng, SHAPES["signals"], examples=80))
    monkeypatch.chdir(ROOT)
    command = command.replace("RECORDINGS.npz", str(tmp_path / "recordings.npz"))
    arguments = shlex.split(command.replace("PHOTOS", str(tmp_path)))
    saved = {name: flags.FLAGS[name].value for name in flags.FLAGS}
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    try:
        FLAGS(arguments[arguments.index("run_experiment.py") :])
        check_flags(experiment_from_flags())
    finally:
        for name, value in saved.items():
            flags.FLAGS[name].value = value


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in experiments() if not PLACES.search(line)])
def test_every_experiment_runs(command, tmp_path):
    environment = dict(os.environ)
    words = shlex.split(command)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    assert words[0] == "python"
    script = [sys.executable, str(ROOT / words[1]), *words[2:], "--epochs=2"]
    done = subprocess.run(
        script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith(("Result: test accuracy", "Chosen on the validation split"))
