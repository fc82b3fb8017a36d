"""Where the checkout's folders go when installed, and where the repository is.

pyproject.toml says everything else.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "low_rank_local_connectivity"
# The one place that says where the repository is. To be replaced once it is public: the release
# workflow compares it with the repository that it runs in.
REPOSITORY = "https://repository.example/low_rank_local_connectivity"


def with_absolute_links(markdown: str) -> str:
    """Returns a document whose links into the repository work on a package index too."""
    pictures = re.compile(r"(!\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")
    links = re.compile(r"(?<!!)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")
    markdown = pictures.sub(rf"\1({REPOSITORY}/raw/HEAD/\2)", markdown)
    return links.sub(rf"\1({REPOSITORY}/blob/HEAD/\2)", markdown)


if __name__ == "__main__":
    setup(
        long_description=with_absolute_links(Path("README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
        project_urls={
            "Repository": REPOSITORY,
            "Issues": f"{REPOSITORY}/issues",
            "Changelog": f"{REPOSITORY}/blob/HEAD/CHANGELOG.md",
        },
        packages=[
            *find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
            f"{PACKAGE}.data",
            f"{PACKAGE}.models",
        ],
        package_dir={f"{PACKAGE}.data": "data", f"{PACKAGE}.models": "models"},
        package_data={PACKAGE: ["py.typed"], f"{PACKAGE}.plans": ["coefficients.json"]},
    )
