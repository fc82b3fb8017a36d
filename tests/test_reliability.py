"""The campaign of kills and failing calls, which anyone can run with another seed."""

import collections
import random
import shutil
import subprocess
import sys

import commands
import pytest

from benchmarks.reliability.faults import ERRORS, plan, problem_of
from benchmarks.reliability.processes import Ended
from benchmarks.reliability.tally import Tally

pytestmark = pytest.mark.once


def test_every_call_fails_once_before_any_does_twice_and_in_all_its_ways():
    calls = ["open_to_write", "fsync", "rename", "fsync", "stat64"]
    cases = list(plan(calls, random.Random(1)))
    assert sorted(number for number, _, _ in cases[:5]) == [1, 2, 3, 4, 5]
    assert all(calls[number - 1] == name for number, name, _ in cases)
    assert len(set(cases)) == len(cases)
    ways = collections.Counter(number for number, _, _ in cases)
    assert [ways[number] for number in (1, 2, 3, 5)] == [
        *(len(ERRORS[name]) for name in calls[:3]),
        1,
    ]


@pytest.mark.parametrize(
    ("status", "errors", "problem"),
    [
        (0, "", None),
        (2, "a warning\nrun_experiment.py: A sentence.\n", None),
        (75, "", "status 75 without a sentence, "),
        (-6, "Aborted", "status -6, Aborted"),
        (1, "Traceback (most recent call last):\nOSError: no", "a traceback, OSError: no"),
    ],
)
def test_a_run_whose_call_failed_ends_in_a_sentence(status, errors, problem):
    assert problem_of(Ended(status, "", errors)) == problem


def test_what_is_not_allowed_is_listed_under_the_counts(capsys):
    tally = Tally("Kills")
    tally.add("mirrored", "equal")
    tally.add("mirrored", "otherwise", "other metrics")
    text = tally.in_markdown()
    assert "| mirrored | 1 | 1 |" in text
    assert text.endswith("Not allowed: 1.\n* mirrored: other metrics\n")
    assert capsys.readouterr().out == "WRONG mirrored: other metrics\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="the campaign compiles a library")
def test_a_campaign_of_two_minutes_finds_nothing(tmp_path):
    flags = ["--minutes=2", "--seed=7", "--only=kills,faults", f"--out={tmp_path / 'told.md'}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability", *flags],
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "told.md").read_text()
    assert text.count("Not allowed: none.") == 2
    assert "| one device |" in text
