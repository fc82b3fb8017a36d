"""A campaign: what it trains next, when it stops, and what it says."""

import signal
import time

import pytest

from low_rank_local_connectivity.experiments import campaign, sweeping
from low_rank_local_connectivity.experiments.folder import write_result
from low_rank_local_connectivity.training.claims import claimed
from low_rank_local_connectivity.training.endings import STOPPED_STATUS, StoppedError
from low_rank_local_connectivity.training.records import append_record

pytestmark = pytest.mark.once


def options(folder, **changes):
    return campaign.Options(model_dir=str(folder), **changes)


def runs_of(folder, **changes):
    described = campaign.experiments(options(folder, **changes))
    return [campaign.planned(experiment, folder) for experiment in described]


def record(run, folder, accuracy=0.5):
    result = dict.fromkeys(("train_accuracy", "valid_accuracy", "test_accuracy"), accuracy)
    result |= {"parameters": 10, "seconds": 60}
    append_record(
        folder / "records.jsonl", {"name": run.name, "config": run.config, "result": result}
    )


@pytest.fixture
def trained(monkeypatch):
    """Runs that were trained, each as soon as it is asked for."""
    names = []

    def train(run, log, lock):
        del log, lock
        names.append(run.name)
        run.folder.mkdir(parents=True)
        result = {"train_accuracy": 0.6, "valid_accuracy": 0.5, "test_accuracy": 0.4}
        write_result(run.folder, {**result, "parameters": 3, "seconds": 60})
        return 0

    monkeypatch.setattr(sweeping, "_train", train)
    return names


@pytest.mark.parametrize("budget", campaign.BUDGETS)
def test_every_run_of_a_budget_is_another(budget, tmp_path):
    runs = runs_of(tmp_path, budget=budget)
    assert len({run.name for run in runs}) == len(runs)
    assert all(run.folder == tmp_path / run.name for run in runs)


def test_small_budgets_begin_where_they_contradict_the_paper_most_and_large_ones_with_one_seed(
    tmp_path,
):
    small = [(run.config["dataset"], run.config["seed"]) for run in runs_of(tmp_path, budget="cpu")]
    assert small[:12] == [("cifar10", seed) for seed in (0, 1, 2) for _ in range(4)]
    large = [
        (run.config["dataset"], run.config["seed"]) for run in runs_of(tmp_path, budget="paper")
    ]
    assert large[:30] == 10 * [("mnist", 0)] + 10 * [("cifar10", 0)] + 10 * [("mnist", 1)]
    (first, *_) = runs_of(tmp_path, budget="paper")
    assert (first.config["epochs"], first.config["filters"]) == (150, 64)


def test_what_is_neither_recorded_nor_trained_elsewhere_is_trained_in_order(
    trained, tmp_path, capsys
):
    runs = runs_of(tmp_path)
    record(runs[0], tmp_path)
    with claimed(tmp_path / "locks" / runs[1].name):
        assert campaign.train(runs[:4], tmp_path, 60) == 0
    assert trained == [runs[2].name, runs[3].name]
    said = capsys.readouterr().out
    assert "3 of 4 runs are done." in said
    assert "Missing, in this order:\n* cifar10: LRLC, layer 3, rank 4, seed 0\n" in said
    assert "| convolution |" in said


def test_no_run_begins_after_the_time_is_over(trained, tmp_path):
    runs = runs_of(tmp_path)
    assert campaign.train(runs, tmp_path, 0) == STOPPED_STATUS
    assert len(trained) <= 1


def test_a_run_that_fails_is_told_and_the_next_is_trained(monkeypatch, tmp_path, capsys):
    def fail(*asked):
        asked[1].parent.mkdir(exist_ok=True)
        asked[1].write_text("no")
        return 3

    monkeypatch.setattr(sweeping, "_train", fail)
    runs = runs_of(tmp_path)[:2]
    assert campaign.train(runs, tmp_path, 60) == 1
    assert capsys.readouterr().out.count("failed: exit status 3, no (") == 2


def test_the_process_is_asked_to_stop_when_the_time_is_over():
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(StoppedError, match="Stopped by SIGTERM between two runs"),
        campaign.ending_after(0.05),
    ):
        time.sleep(20)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_status_trains_nothing_and_names_what_has_begun(trained, tmp_path, capsys):
    run = runs_of(tmp_path)[0]
    (run.folder / "checkpoints").mkdir(parents=True)
    assert campaign.carry_on(options(tmp_path, status=True), []) == 0
    said = capsys.readouterr().out
    assert said.startswith("0 of 42 runs are done.\n\nMissing, in this order:\n")
    assert "* cifar10: convolution, seed 0 (begun)\n" in said
    assert not trained


def test_data_that_is_not_there_is_told_before_anything_is_trained(trained, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match="cifar10"):
        campaign.carry_on(options(tmp_path, data_dir=str(tmp_path / "nowhere")), [])
    with pytest.raises(ValueError, match=r"Only flags are taken\. Received: more"):
        campaign.carry_on(options(tmp_path), ["more"])
    assert not trained


@pytest.mark.slow
def test_a_run_that_the_time_ended_goes_on(prepared, tmp_path):
    given = options(tmp_path, data_dir=prepared, minutes=1)
    for _ in range(2):
        assert campaign.carry_on(given, []) == STOPPED_STATUS
    (log,) = (tmp_path / "logs").iterdir()
    text = log.read_text()
    assert text.count("Stopped by SIGTERM after step") == 2
    assert "Continuing after step" in text
