"""The flags of a command: made from fields, read as an experiment, and named in sentences."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.experiments.backend import backend_name
from low_rank_local_connectivity.experiments.experiment import PLACES, SAVING, WATCHING, Experiment
from low_rank_local_connectivity.experiments.fields import (
    AT_LEAST_0,
    SHARED_OR_WHOLE,
    Group,
    about,
    field,
    one_of,
    takes_none,
    value_type,
)
from low_rank_local_connectivity.models import APPLICATIONS, NETWORKS

FLAGS = flags.FLAGS
# Folder with the files of flags of the paper's experiments.
PAPER = Path(__file__).parent / "paper"

# Length of the description of a run in the name of its folder.
NAME_LENGTH = 48


@dataclasses.dataclass(frozen=True)
class Beside:
    """Flags of a command that do not belong to an experiment."""

    num_seeds: int = field(1, "Seeds of a sweep: seed, seed + 1, and so on.", Group.OPTIMISATION)
    spatial_ranks: tuple[str, ...] = field(
        (), "Ranks of a sweep. [spatial_rank alone]", Group.LOW_RANK
    )
    allow_other_flags: bool = field(
        False, "Whether to continue a run that was started with different flags.", Group.SAVING
    )
    dry_run: bool = field(
        False,
        "Whether only to print the layers, what they cost and how they are computed. Nothing is "
        "trained or written.",
        Group.NETWORK,
    )
    sweep_engine: str = field(
        "folder",
        "What trains the runs of a sweep: folder, one after the other, each process that was "
        "started with the same folder; or Ray, as tasks of a cluster.",
        Group.DEVICES,
        one_of(("folder", "ray")),
    )
    ray_address: str | None = field(
        None, "Address of a running Ray cluster. [one is started here]", Group.DEVICES
    )
    cpus_per_run: float = field(
        1.0, "Processors that Ray reserves for each run.", Group.DEVICES, SHARED_OR_WHOLE
    )
    gpus_per_run: float = field(
        0.0,
        "GPUs that Ray reserves for each run, a part of one for runs that share it.",
        Group.DEVICES,
        SHARED_OR_WHOLE,
    )
    retries: int = field(
        3,
        "How often Ray tries a run again after its worker was lost, or a signal ended it.",
        Group.DEVICES,
        AT_LEAST_0,
    )
    every_flag_given: bool = field(
        False,
        "Whether all flags are given, as a sweep does for its runs, so that flags without an "
        "effect are accepted.",
        Group.SAVING,
    )


FIELDS = {one.name: one for owner in (Experiment, Beside) for one in dataclasses.fields(owner)}


class PathParser(flags.ArgumentParser):
    """Reads a path, in which a leading `~` is the user's home folder."""

    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        """Returns the path with its home folder expanded.

        Raises:
            ValueError: If there is none; absl turns this into a flag error.
        """
        if not argument.startswith("~"):
            return argument
        try:
            return str(Path(argument).expanduser())
        except RuntimeError:
            raise ValueError("there is no such home folder") from None


DEFINERS = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
}


def define(one: dataclasses.Field, values: flags.FlagValues = FLAGS) -> None:
    """Defines the flag of a field, which `--help` lists in the field's group.

    Args:
        one: The field.
        values: The flags of the command; those of run_experiment.py if left out.
    """
    told, kind = about(one), value_type(one)
    choices = told.accepted.choices if told.accepted else ()
    default: Any = one.default
    arguments: dict[str, Any] = {"help": told.meaning, "module_name": told.group.value}
    arguments["flag_values"] = values
    if told.path:
        serializer = flags.ArgumentSerializer()
        flags.DEFINE(PathParser(), one.name, default, serializer=serializer, **arguments)
    elif kind is tuple:
        nothing = told.accepted.nothing if told.accepted else ""
        flags.DEFINE_list(one.name, ",".join(default) or nothing, **arguments)
    elif choices:
        names = [*choices, "none"] if takes_none(one) else choices
        flags.DEFINE_enum(one.name, default, names, **arguments)
    else:
        DEFINERS[kind](one.name, default, **arguments)


for _field in FIELDS.values():
    define(_field)


def help_text() -> str:
    """Returns the descriptions of the flags for `--help`, group by group."""
    return "\n".join(FLAGS.module_help(group.value) for group in Group)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses a command line and returns the arguments that are not flags.

    The files of flags of the paper's experiments are found by name from any folder.

    Raises:
        flags.Error: If a flag is unknown, or its value cannot be read.
    """
    return FLAGS([*argv[:1], *itertools.chain(*map(_expanded, argv[1:]))])


def _expanded(word: str) -> list[str]:
    """Returns the flags of a file of the paper's in place of the flag that names it."""
    name, _, value = word.partition("=")
    file = PAPER / Path(value).name
    given = Path(value).expanduser()
    if name.lstrip("-") != "flagfile" or not file.is_file():
        return [word]
    if given.exists() and not given.samefile(file):
        return [word]
    lines = (line.strip() for line in file.read_text().splitlines())
    return [*itertools.chain(*(_expanded(line) for line in lines if line[:1] not in ("", "#")))]


def in_flags(sentence: str) -> str:
    """Returns a sentence of the library with flags in place of arguments.

    Example:
        >>> in_flags("`batch_size` must be even. Received: batch_size=3.")
        '--batch_size must be even. Received: --batch_size=3.'
    """
    names = "|".join(FIELDS)
    return re.sub(rf"`({names})`|(?<!\S)({names})(?==)", r"--\1\2", sentence)


def experiment_from_flags() -> Experiment:
    """Returns the experiment that the flags describe, with all defaults filled in."""
    values = {one.name: value_of(one) for one in dataclasses.fields(Experiment)}
    if values["weights"] in APPLICATIONS and FLAGS["network"].using_default_value:
        values["network"] = values["weights"]
    network = NETWORKS[values["network"]]
    if not network.num_layers and FLAGS["layer_types"].using_default_value:
        values["layer_types"] = ()
    if values["replace"] == ("all",):
        values["replace"] = network.stages
    if ranks():  # a sweep over them does not use the flag of one
        values["spatial_rank"] = ranks()[0]
    if values["model_dir"] is None:
        last = "sweep" if is_sweep() else values["seed"]
        name = f"{values['dataset']}-{values['network']}-{last}{what_differs()}"
        values["model_dir"] = f"runs/{name}"
    return Experiment(**values)


def value_of(one: dataclasses.Field, values: flags.FlagValues = FLAGS) -> Any:
    """Returns the value of a field from its flag."""
    value = items_of_flag(one.name, values[one.name].value)
    if isinstance(value, list):
        return tuple(value)
    return None if value == "none" and takes_none(one) else value


def items_of_flag(name: str, value: Any) -> Any:
    """Returns the items of a list without `none`, and other values as they are.

    The order of augmentations does not matter: each is applied once.
    """
    if not isinstance(value, list):
        return value
    items = [item.strip() for item in value if item.strip() not in ("", "none")]
    return sorted(set(items)) if name == "augment" else items


def what_differs() -> str:
    """Returns the part of a folder's name that distinguishes a run from one with all defaults.

    It has the first flags in words and a digest of all, and is empty if no flag differs. The runs
    of a sweep have names of their own within its folder.
    """
    if is_sweep():
        return ""
    named = ("dataset", "network", "seed", *PLACES, *SAVING, *WATCHING)
    names = [one.name for one in dataclasses.fields(Experiment) if one.name not in named]
    values = {name: items_of_flag(name, FLAGS[name].value) for name in names}
    usual = {name: items_of_flag(name, FLAGS[name].default) for name in names}
    different = {name: value for name, value in values.items() if value != usual[name]}
    if DATASETS[FLAGS.dataset].complete is not None:
        different = {"data_dir": Path(FLAGS.data_dir or "").name, **different}
    if backend_name() != "tensorflow":
        different = {"backend": backend_name(), **different}
    if not different:
        return ""
    words = "-".join(f"{name}_{_in_a_name(value)}" for name, value in different.items())
    everything = json.dumps([different, FLAGS.data_dir], sort_keys=True)
    return f"-{words[:NAME_LENGTH]}-{hashlib.sha256(everything.encode()).hexdigest()[:6]}"


def _in_a_name(value: Any) -> str:
    """Returns a flag's value in letters that are safe in the name of a folder."""
    text = ",".join(value) if isinstance(value, list) else str(value)
    return "".join(letter if letter.isalnum() or letter in "._," else "_" for letter in text)


def is_sweep() -> bool:
    """Returns whether the flags describe a sweep, which may have a single run."""
    return FLAGS["num_seeds"].present > 0 or bool(FLAGS.spatial_ranks)


def check_besides() -> None:
    """Raises a `ValueError` if a flag that is no experiment's is out of its range."""
    for one in dataclasses.fields(Beside):
        value, accepted = FLAGS[one.name].value, about(one).accepted
        if accepted is not None and value is not None and not accepted.holds(value):
            raise ValueError(f"--{one.name} {accepted.words}. Received: --{one.name}={value}.")


def given_flags() -> dict[str, Any]:
    """Returns the values of the flags that are given, on the command line or in a file."""
    names = {*FIELDS} - {"num_seeds", "every_flag_given", "dry_run"}
    return {name: FLAGS[name].value for name in FIELDS if name in names and FLAGS[name].present > 0}


def usual_flags() -> dict[str, Any]:
    """Returns the values of flags that are not given."""
    return {name: FLAGS[name].default for name in FIELDS}


def ranks() -> list[int]:
    """Returns the ranks of a sweep; empty for that of the experiment alone.

    Raises:
        ValueError: If one is not an integer.
    """
    try:
        return [int(rank) for rank in FLAGS.spatial_ranks]
    except ValueError:
        given = ",".join(FLAGS.spatial_ranks)
        raise ValueError(f"--spatial_ranks takes integers. Received: {given}.") from None


def as_flags(experiment: Experiment) -> list[str]:
    """Returns the flags that describe an experiment, without those whose value is None."""
    described = []
    for one in dataclasses.fields(experiment):
        name, value = one.name, getattr(experiment, one.name)
        if isinstance(value, bool):
            described.append(f"--{name}" if value else f"--no{name}")
        elif isinstance(value, tuple):
            described.append(f"--{name}={','.join(value) or 'none'}")
        elif value is not None:
            described.append(f"--{name}={value}")
        elif takes_none(one):
            described.append(f"--{name}=none")
    return described
