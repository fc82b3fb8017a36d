"""Trains the network that its flags describe, evaluates it, draws its weights and exports it.

All settings are flags, which `--help` lists. They become an `Experiment`, which is checked before
any framework is loaded.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.unreadable import unreadable_image
from low_rank_local_connectivity.experiments.backend import check_backend
from low_rank_local_connectivity.experiments.dry_run import dry_run
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.finishing import lacking_evaluation
from low_rank_local_connectivity.experiments.flags import (
    FLAGS,
    check_besides,
    experiment_from_flags,
    given_flags,
    help_text,
    in_flags,
    is_sweep,
    parse_flags,
    ranks,
    usual_flags,
)
from low_rank_local_connectivity.experiments.folder import (
    check_clock,
    check_folder,
    check_room,
    check_writable,
)
from low_rank_local_connectivity.experiments.needs import check_flags_have_effect
from low_rank_local_connectivity.experiments.ray_sweeping import Cluster, check_ray, sweep_on_ray
from low_rank_local_connectivity.experiments.running import run
from low_rank_local_connectivity.experiments.runs import runs_of_sweep
from low_rank_local_connectivity.experiments.streams import keep_streams_open
from low_rank_local_connectivity.experiments.sweeping import run_sweep
from low_rank_local_connectivity.experiments.warm_start import check_weights
from low_rank_local_connectivity.experiments.watching import check_callbacks
from low_rank_local_connectivity.training.endings import refused_file


def main() -> None:
    """Parses the flags and carries them out; ends the process with a status."""
    keep_streams_open()
    threading.excepthook = quiet_about_files
    app.run(train_or_tell, flags_parser=parse)


def quiet_about_files(told: threading.ExceptHookArgs) -> None:
    """Shows the error of a thread, unless it is a file's: whoever uses what it wrote tells that."""
    if told.exc_value is None or refused_file(told.exc_value) is None:
        threading.__excepthook__(told)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; an error in one is reported in a sentence."""
    for one in (HelpByGroup(), ShortHelpByGroup()):
        one.allow_override = True
        flags.DEFINE_flag(one)
    try:
        return parse_flags(argv)
    except flags.Error as error:
        refuse(error)


class HelpByGroup(app.HelpFlag):
    """`--help`, which lists the flags by their groups."""

    def parse(self, arg: Any) -> None:
        """Prints the help and ends the process, as absl's own flag does."""
        if self._parse(arg):
            told = sys.modules["__main__"].__doc__ or __doc__
            text = f"{told}\nflags:\n{help_text()}\n\nTry --helpfull to get a list of all flags."
            print(text, flush=True)
            sys.exit(1)


class ShortHelpByGroup(HelpByGroup):
    """`--helpshort`, which is `--help`."""

    NAME = "helpshort"
    SHORT_NAME = None


def train_or_tell(argv: list[str]) -> NoReturn:
    """Runs the experiment that the flags describe, or prints its result if it is finished."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow tells through it how it saves
    try:
        experiment, result = checked(argv)
    except ValueError as error:
        refuse(error)
    except OSError as error:
        refuse(refused_file(error) or error)
    try:
        if FLAGS.dry_run:
            sys.exit(ending_in_a_sentence(dry_run, runs_asked_for(experiment)))
        if is_sweep():
            sys.exit(ending_in_a_sentence(sweep, experiment))
        sys.exit(run_or_tell(experiment, result))
    except KeyboardInterrupt:
        print("Stopped by SIGINT. The same command continues from the saved state.", flush=True)
        sys.exit(os.EX_TEMPFAIL)


def checked(argv: list[str]) -> tuple[Experiment, dict[str, Any] | None]:
    """Returns the experiment that the flags describe, and its result if there is one.

    Raises:
        ValueError: If a flag, the backend or the folder cannot be used.
        FileNotFoundError: If the data is missing.
    """
    if argv[1:]:
        raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}.")
    experiment = experiment_from_flags()
    check_flags(experiment)
    result = None if is_sweep() else check_folder(experiment, FLAGS.allow_other_flags)
    result = lacking_evaluation(experiment, result)
    if result is None or "failed" in result:
        check_callbacks(experiment)
        for one in runs_asked_for(experiment):
            check_weights(one)
        if not experiment.download:
            DATASETS[experiment.dataset].find(experiment.data_dir)
        check_backend(experiment.placed)
        check_clock()
        if FLAGS.sweep_engine == "ray":
            check_ray()
        (check_room if FLAGS.dry_run else check_writable)(Path(experiment.model_dir))
    return experiment, result


def check_flags(experiment: Experiment) -> None:
    """Checks the flags that are not an experiment's, and that every flag has an effect.

    Raises:
        ValueError: If a flag is out of its range or has no effect.
    """
    check_besides()
    runs = runs_asked_for(experiment)
    if not FLAGS.every_flag_given:
        check_flags_have_effect(given_flags(), usual_flags(), runs, is_sweep())


def runs_asked_for(experiment: Experiment) -> list[Experiment]:
    """Returns the runs that the flags describe."""
    if not is_sweep():
        return [experiment]
    return runs_of_sweep(experiment, FLAGS.num_seeds, ranks())


def sweep(experiment: Experiment) -> int:
    """Trains the runs of a sweep that are missing and returns an exit status."""
    runs, folder = runs_asked_for(experiment), Path(experiment.model_dir)
    if FLAGS.sweep_engine == "ray":
        cluster = Cluster(FLAGS.ray_address, FLAGS.cpus_per_run, FLAGS.gpus_per_run, FLAGS.retries)
        engine = functools.partial(sweep_on_ray, cluster)
        return ending_in_a_sentence(run_sweep, runs, folder, engine)
    return ending_in_a_sentence(run_sweep, runs, folder)


def run_or_tell(experiment: Experiment, result: dict[str, Any] | None) -> int:
    """Completes a run, prints its result and returns an exit status."""
    if result is None or "failed" in result:
        result = run_or_refuse(experiment, result)
    print(summary(result, experiment.model_dir))
    failed = result.get("failed", {})
    for name, sentence in failed.items():
        tell(f"The {name} failed: {sentence}")
    if failed:
        print("The result is valid, and the same command tries the rest again.", file=sys.stderr)
    return 1 if failed else 0


def summary(result: dict[str, Any], folder: str) -> str:
    """Returns a result in one line."""
    return (
        f"Result: test accuracy {result['test_accuracy']:.4f}, valid accuracy "
        f"{result['valid_accuracy']:.4f}, {result['parameters']:,} parameters, "
        f"{result['seconds']:.1f} s, in {folder}"
    )


def run_or_refuse(experiment: Experiment, unfinished: dict[str, Any] | None) -> dict[str, Any]:
    """Completes a run; ends the program with a sentence on a user's error or a signal to stop."""
    return ending_in_a_sentence(run, experiment, unfinished, FLAGS.allow_other_flags)


def ending_in_a_sentence(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function; ends the program with a sentence on a user's error or a signal to stop."""
    from low_rank_local_connectivity import training

    try:
        return function(*arguments)
    except training.StoppedError as stopped:
        print(stopped, flush=True)
        sys.exit(training.STOPPED_STATUS)
    except training.RunError as error:
        refuse(error)
    except Exception as error:
        if gone := training.lost_peer(error):
            tell(gone)
            os._exit(1)  # the usual way out waits ten more seconds for the one that is gone
        sentence = unreadable_image(error) or training.full_disk(error)
        sentence = sentence or training.out_of_memory(error) or training.refused_file(error)
        if sentence is None:
            raise
        refuse(sentence)


def refuse(error: Exception | str) -> NoReturn:
    """Ends the program because of an error that the user can correct."""
    tell(str(error))
    sys.exit(2)


def tell(sentence: str) -> None:
    """Prints a sentence to standard error, after the name of the program."""
    print(f"{Path(sys.argv[0]).name}: {in_flags(sentence)}", file=sys.stderr, flush=True)
