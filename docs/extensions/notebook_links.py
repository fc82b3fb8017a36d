"""Notebooks of the gallery at addresses that stay, and links that open them in Colab.

The links need a public repository, whose pages lie on its branch gh-pages: the workflow that
publishes them names it in `GITHUB_REPOSITORY`, and in `SITE` the folder there, `dev` or `stable`. A
build without these has notebooks to download and no such links.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = "notebooks"


def colab(name: str, repository: str, site: str) -> str:
    """Returns the address at which Colab opens a notebook."""
    where = f"{repository}/blob/gh-pages/{site}/{FOLDER}/{name}.ipynb"
    return f"https://colab.research.google.com/github/{where}"


def add_link(app: "Sphinx", document: str, content: list[str]) -> None:
    """Adds the link to the end of an example's page."""
    del app
    folder, _, name = document.rpartition("/")
    repository, site = os.environ.get("GITHUB_REPOSITORY"), os.environ.get("SITE")
    if folder == "generated/gallery" and name.startswith("plot_") and repository and site:
        content[0] += f"\n\n`Open this notebook in Colab <{colab(name, repository, site)}>`__\n"


def copy_notebooks(app: "Sphinx", error: Exception | None) -> None:
    """Copies the notebooks beside the pages."""
    if error is None and app.builder.format == "html":
        target = Path(app.outdir) / FOLDER
        target.mkdir(exist_ok=True)
        for notebook in (Path(app.srcdir) / "generated" / "gallery").glob("plot_*.ipynb"):
            shutil.copy(notebook, target)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Connects links and copies with Sphinx."""
    app.connect("source-read", add_link)
    app.connect("build-finished", copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
