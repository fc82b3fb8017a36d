"""What the commands beside run_experiment.py share: flags, help, and errors in a sentence."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from absl import flags

from low_rank_local_connectivity.experiments.fields import Accepted, Group, about
from low_rank_local_connectivity.experiments.flags import define, value_of
from low_rank_local_connectivity.experiments.streams import keep_streams_open, lost_output

Options = TypeVar("Options")


def carry_out(
    options: type[Options],
    function: Callable[[Options, list[str]], int],
    told: str,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parses a command's flags, calls a function of them, and ends the process with its status.

    Args:
        options: A dataclass of `fields.field`s, from which the flags are made.
        function: Function of its values and the other words of the command line that returns the
            exit status. A `ValueError`, `ImportError` or `OSError` is told in a sentence, with
            status 2.
        told: What the command does, for `--help`.
        argv: The command line; that of the process if None.
    """
    keep_streams_open()
    argv = list(sys.argv if argv is None else argv)
    values = flags.FlagValues()
    kind: Any = options  # a dataclass, which a type variable cannot say
    fields = dataclasses.fields(kind)
    for one in fields:
        define(one, values)
    if {"--help", "-help", "--helpshort", "-h"} & {*argv}:
        print(f"{told}\nflags:\n{help_of(values)}")
        sys.exit(0)
    name = Path(argv[0]).stem
    try:
        words = values(argv)[1:]
        given = {one.name: value_of(one, values) for one in fields}
        for one in fields:
            _require(one, given[one.name], about(one).accepted)
        status = function(options(**given), words)
        status = status if (lost := lost_output()) is None else refused(name, lost)
    except (flags.Error, ValueError, ImportError, OSError) as error:
        status = refused(name, told_of(error))
    except KeyboardInterrupt:
        print(f"{name}: stopped by SIGINT.", file=sys.stderr)
        status = 130
    sys.exit(status)


def refused(name: str, sentence: str) -> int:
    """Prints a sentence to standard error, after a command's name; returns the exit status."""
    print(f"{name}: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def told_of(error: Exception) -> str:
    """Returns what is said of an error; of the system's, the file and what it says."""
    system = error if isinstance(error, OSError) and error.errno is not None else None
    return refused_by_system(system) if system else str(error)


def refused_by_system(error: OSError) -> str:
    """Returns a sentence on a file that the system refused."""
    where = "" if error.filename is None else f"{error.filename}: "
    return (
        "The files of a command must be there for this user to read and write. Received: "
        f"{where}{error.strerror}. See to the file, and run the same command again."
    )


def help_of(values: flags.FlagValues) -> str:
    """Returns the descriptions of flags, group by group."""
    known = values.flags_by_module_dict()
    return "\n".join(values.module_help(group.value) for group in Group if group.value in known)


def _require(one: dataclasses.Field, value: Any, accepted: Accepted | None) -> None:
    if accepted is not None and value is not None and not accepted.holds(value):
        raise ValueError(f"--{one.name} {accepted.words}. Received: --{one.name}={value}.")
