"""Prints the lowest releases that pyproject.toml allows, as constraints for pip.

python tests/lowest.py         # of every dependency and extra
python tests/lowest.py torch   # of one
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

# The extras of one release of a compiler, which say nothing of what the package needs.
COMPILERS = ("tpu-check", "gpu-check")
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def requirements() -> Iterator[str]:
    """Yields what the package and its extras need, but for the package itself."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    groups = [extras[name] for name in extras if name not in COMPILERS]
    for group in (project["dependencies"], *groups):
        yield from (line for line in group if not line.startswith(project["name"]))


def pin(requirement: str) -> str:
    """Returns the requirement of the lowest release that another allows."""
    bound = re.fullmatch(r"([\w-]+)(?:>=|==)([\d.]+)", requirement)
    if not bound:
        raise ValueError(
            "A dependency must have a lower bound, as in 'numpy>=2.0', and nothing else. "
            f"Received: {requirement!r}. Change it in pyproject.toml."
        )
    return f"{bound[1]}=={bound[2]}"


def main(names: list[str]) -> None:
    """Prints the constraints, of all dependencies or of those that are named."""
    pins = {requirement.partition("==")[0]: requirement for requirement in map(pin, requirements())}
    print(*(pins[name] for name in names or pins), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
