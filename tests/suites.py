"""Runs make targets that test, one after another, and prints one table of their results last.

    python tests/suites.py "test PYTEST=--cov" test-jax test-torch

Every suite runs, whatever became of the one before; the exit status is 0 only if all are green.
"""

import dataclasses
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one suite: tests by outcome, or nothing if pytest never came to report."""

    suite: str
    status: int
    seconds: float
    tests: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def row(self) -> str:
        """The suite's line of the table."""
        passed = self.tests - self.failed - self.skipped
        verdict = "green" if self.status == 0 else f"RED (status {self.status})"
        counts = f"{passed:>7}  {self.skipped:>7}  {self.failed:>6}  {self.seconds:>7.0f}"
        return f"{self.suite:<22}  {counts}  {verdict}"


def counts(report: Path) -> dict[str, int]:
    """Reads the numbers of tests from a report in JUnit's format, if pytest wrote one."""
    if not report.exists():
        return {}
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    number = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    return {"tests": number["tests"], "failed": failed, "skipped": number["skipped"]}


def run(suite: str) -> Result:
    """Makes the target and reads how its tests went."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={report}"
        start = time.monotonic()
        environment = {**os.environ, "PYTEST_ADDOPTS": options}
        status = subprocess.call(["make", *shlex.split(suite)], cwd=ROOT, env=environment)
        return Result(suite, status, time.monotonic() - start, **counts(report))


def main(suites: list[str]) -> int:
    """Runs the suites and prints the table."""
    results = [run(suite) for suite in suites]
    print(f"\n{'suite':<22}  {'passed':>7}  {'skipped':>7}  {'failed':>6}  {'seconds':>7}")
    print(*(result.row for result in results), sep="\n")
    return int(any(result.status for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
