"""Says where the checkout's folders go when installed; pyproject.toml says everything else."""

from setuptools import find_packages, setup

PACKAGE = "low_rank_local_connectivity"

setup(
    packages=[
        *find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
        f"{PACKAGE}.data",
        f"{PACKAGE}.models",
    ],
    package_dir={f"{PACKAGE}.data": "data", f"{PACKAGE}.models": "models"},
    package_data={PACKAGE: ["py.typed"], f"{PACKAGE}.plans": ["coefficients.json"]},
)
