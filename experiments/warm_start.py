"""Starting a run from the weights of a trained network.

The network is the one that the flags describe. Each of its layers takes the weights of the file's
layer of the same name; where the file has a convolution and the network a low-rank layer, it starts
as that convolution. In place of a file there may be a network of keras.applications, whose weights
are where Keras keeps what it has downloaded.
"""

import contextlib
import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.models import APPLICATIONS, NETWORKS
from low_rank_local_connectivity.untrusted.sizes import on_disk, read_text, require_room, room_for

if TYPE_CHECKING:
    from low_rank_local_connectivity.experiments.experiment import Experiment

# What a run keeps of its start: which layers were loaded, so that the file is read only once.
LOADED = "warm_start.json"
MEMBERS = {"config.json", "model.weights.h5"}
# Attributes of which layers must have the same, if they have them, to compute the same.
COMPUTING = ("strides", "padding", "dilation_rate", "data_format", "activation", "epsilon")
COMPUTING += ("groups", "normalize_weights", "additive_axes", "input_dependent")
# Of a convolution and the low-rank layer that starts as it.
OF_CONVOLUTION = ("kernel_size", "use_bias", *COMPUTING[:5])


def file_of(weights: str) -> Path:
    """Returns the file that `--weights` names, which of a run's folder is its model."""
    if weights in APPLICATIONS:
        return APPLICATIONS[weights].path
    path = Path(weights)
    return path / "model.keras" if path.is_dir() else path


def digest_of(weights: str) -> str | None:
    """Returns the SHA-256 of the file of `--weights`; None if it is no longer there.

    Raises:
        ValueError: If it is mostly holes.
    """
    path = file_of(weights)
    if not path.is_file():  # nor a pipe
        return None
    require_room(path.stat().st_size, room_for(on_disk(path)), path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_begun(folder: Path) -> bool:
    """Returns whether a run has a state of its own from which it continues."""
    return any((folder / "checkpoints").glob("step_*.npz"))


def check_weights(experiment: "Experiment") -> None:
    """Checks, without a framework, that a run's `--weights` can be read, if it will read them.

    Raises:
        ValueError: If they are not in a `.keras` file.
    """
    given = experiment.weights
    if given is None or is_begun(Path(experiment.model_dir)):
        return
    path = file_of(given)
    if given in APPLICATIONS:
        check_downloaded(given)
        return
    if not path.is_file():
        lacking = "has no model.keras" if Path(given).is_dir() else "does not exist"
    elif path.suffix != ".keras" or not _is_archive(path):
        lacking = "is not such a file"
    else:
        return
    raise ValueError(
        "--weights must be a .keras file, or the folder of a run with its model.keras. Received: "
        f"--weights={given}, which {lacking}."
    )


def check_downloaded(name: str) -> None:
    """Raises a `ValueError` if the weights of a network of keras.applications are not there."""
    path = APPLICATIONS[name].path
    if not path.is_file():
        raise ValueError(
            f"--weights={name} needs the file of these weights in Keras's cache folder, as nothing "
            f"is downloaded here. Received: none at {path}. Put it there: "
            f"keras.applications.{name}(include_top=False) downloads it."
        )


def _is_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return set(file.namelist()) >= MEMBERS
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return False


@dataclasses.dataclass(frozen=True)
class Match:
    """A layer of a network, and the layer of a file whose weights it takes."""

    layer: Any
    other: Any
    relaxes: bool = False


@dataclasses.dataclass(frozen=True)
class Matches:
    """What of a file goes into a network.

    Args:
        pairs: The layers that take weights.
        new: Names of the layers that keep their initial weights.
        unused: Names of the file's layers that have weights, and are not used.
    """

    pairs: Sequence[Match]
    new: Sequence[str]
    unused: Sequence[str]

    def told(self, weights: str) -> str:
        """Returns in a line what was loaded, and what was not."""
        relaxed = [match.layer.name for match in self.pairs if match.relaxes]
        names = ", ".join(match.layer.name for match in self.pairs)
        parts = [f"Loaded from {weights}: {names}"]
        if relaxed:
            parts.append(f"convolutions that became low-rank layers: {', '.join(relaxed)}")
        parts.append(f"not loaded, and new: {', '.join(self.new) or 'none'}")
        if self.unused:
            parts.append(f"not used: {', '.join(self.unused)}")
        return "; ".join(parts) + "."


def with_weights(model: Any) -> list[Any]:
    """Returns the layers with weights of a model and of the models among them, in order."""
    from low_rank_local_connectivity.inspection.graph import opened_layers

    return [layer for layer in opened_layers(model) if layer.weights]


def match(model: Any, source: Any, weights: str) -> Matches:
    """Returns which layers of a network take the weights of which of a file's.

    Its last layer, the logits, is left new if it has another shape.

    Raises:
        RunError: If a layer of the same name does not fit, or there is none.
    """
    from low_rank_local_connectivity import training

    layers, theirs = with_weights(model), {layer.name: layer for layer in with_weights(source)}
    pairs, new = [], []
    for layer in layers:
        found = _matched(layer, theirs.get(layer.name))
        if found is not None:
            pairs.append(found)
        elif layer.name not in theirs or layer is layers[-1]:
            new.append(layer.name)
        else:
            raise training.RunError(
                "`weights` must have layers that fit those of the same names in the network, but "
                f"for the last. Received: weights={weights}, where {layer.name} is "
                f"{_in_words(theirs[layer.name])}, and the network's is {_in_words(layer)}. Give "
                "the flags of that network."
            )
    if not pairs:
        raise training.RunError(
            "`weights` must have layers with the names of the network's, besides the last. "
            f"Received: weights={weights}, with {', '.join(theirs) or 'no weights'}, for "
            f"{', '.join(layer.name for layer in layers)}."
        )
    used = {one.layer.name for one in pairs}
    return Matches(pairs, new, [name for name in theirs if name not in used])


def _matched(layer: Any, other: Any) -> Match | None:
    """Returns how a layer takes the weights of another, or None if they do not fit."""
    if type(layer) is type(other):
        shapes = [[tuple(weight.shape) for weight in one.weights] for one in (layer, other)]
        fits = shapes[0] == shapes[1] and _alike(layer, other, COMPUTING)
        return Match(layer, other) if fits else None
    return Match(layer, other, relaxes=True) if other and _relaxes(layer, other) else None


def _alike(layer: Any, other: Any, names: Sequence[str]) -> bool:
    return all(getattr(layer, name, None) == getattr(other, name, None) for name in names)


def _relaxes(layer: Any, other: Any) -> bool:
    """Returns whether a layer is a low-rank one that can start as a convolution."""
    from low_rank_local_connectivity.conversion import families

    if type(layer) is not families.RELAXED.get(type(other)) or layer.mixed or layer.input_dependent:
        return False
    channels = layer.input_channels == families.channels_read(other)
    names = (*families.family_of(other).filters, *OF_CONVOLUTION)
    return channels and _alike(layer, other, names)


def _in_words(layer: Any) -> str:
    shapes = ", ".join("x".join(map(str, weight.shape)) or "1" for weight in layer.weights)
    return f"{type(layer).__name__} with weights of {shapes}"


def assign(found: Match, seed: int) -> None:
    """Gives a network's layer the weights of a file's."""
    from keras import ops

    if found.relaxes:
        start_as_convolution(found.layer, found.other, seed)
        return
    for ours, theirs in zip(found.layer.weights, found.other.weights, strict=True):
        ours.assign(ops.convert_to_numpy(theirs))


def start_as_convolution(layer: Any, convolution: Any, seed: int) -> None:
    """Gives a low-rank layer weights with which it computes a convolution.

    They are those of `from_convolution`, scaled to the equal combining weights `w` of the layer:
    by `1 / (K * w)`, which is 1 under softmax.
    """
    import numpy as np
    from keras import ops

    from low_rank_local_connectivity.conversion import from_convolution

    shape = convolution.get_build_config()["input_shape"]
    start = from_convolution(convolution, layer.spatial_rank, shape, seed=seed)
    for weight in layer.logits:
        weight.assign(np.ones(weight.shape))
    for weight in layer.spatial_bias_terms:
        weight.assign(np.zeros(weight.shape))
    scale = 1.0
    if layer.has_logits:
        scale = layer.spatial_rank * ops.convert_to_numpy(layer.combining_weights()).max()
    layer.kernel_bases.assign(ops.convert_to_numpy(start.kernel_bases) / scale)
    if hasattr(layer, "pointwise_kernel"):
        layer.pointwise_kernel.assign(ops.convert_to_numpy(convolution.pointwise_kernel))
    if layer.use_bias:
        layer.bias.assign(ops.convert_to_numpy(convolution.bias))


def read(weights: str, max_bytes: int | None = None) -> Any:
    """Returns the model in the file of `--weights`; no code from it is run.

    Args:
        weights: The file, or the folder of a run.
        max_bytes: Bytes that its arrays may take in memory, or None for the usual limit.

    Raises:
        RunError: If it cannot be loaded.
    """
    from low_rank_local_connectivity import training

    path = file_of(weights)
    try:
        return training.load(path, None, max_bytes)
    except OSError as error:
        raise training.RunError(
            f"`weights` must be a file that can be read. Received: weights={weights}: "
            f"{error.strerror or error}."
        ) from error


def source_of(experiment: "Experiment") -> Any:
    """Returns the model whose weights a run will read; None if it has no need of one."""
    if experiment.weights is None or is_begun(Path(experiment.model_dir)):
        return None
    return source(experiment)


def source(experiment: "Experiment") -> Any:
    """Returns the model whose weights a run starts from.

    Raises:
        RunError: If it cannot be loaded.
    """
    weights = experiment.weights or ""
    if weights not in APPLICATIONS:
        return read(weights, experiment.max_bytes)
    from low_rank_local_connectivity import training
    from low_rank_local_connectivity.untrusted.models import require_whole_weights

    try:
        require_whole_weights(file_of(weights), experiment.max_bytes)
        return NETWORKS[weights].build(
            experiment.data.input_shape,
            None,
            value_range=experiment.data.value_range,
            weights=file_of(weights),
        )
    except Exception as error:  # whatever a damaged file leads Keras to
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise training.RunError(
            f"The weights of {weights} must be those of this network without its classifier. "
            f"Received: {file_of(weights)}: {told}."
        ) from error


def begin(experiment: "Experiment", model: Any, chief: bool = True) -> list[Any]:
    """Loads the weights that a run starts from, unless it has a state of its own.

    Args:
        experiment: The run.
        model: Its network.
        chief: Whether this process tells and records what was loaded.

    Returns:
        The layers that were loaded now, or when the run began if some do not learn at first.

    Raises:
        RunError: If the file does not fit, or the record of what was loaded is damaged.
    """
    from low_rank_local_connectivity import training

    folder = Path(experiment.model_dir)
    if experiment.weights is None:
        return []
    if is_begun(folder):
        names = _recorded(folder / LOADED) if experiment.freeze_epochs else []
        return [layer for layer in with_weights(model) if layer.name in names]
    found = match(model, source(experiment), experiment.weights)
    check_something_learns(experiment, found)
    for pair in found.pairs:
        assign(pair, experiment.seed)
    loaded = [pair.layer for pair in found.pairs]
    if chief:
        print(found.told(experiment.weights), flush=True)
        names = [layer.name for layer in loaded]
        training.write_json(folder / LOADED, {"loaded": names, "new": found.new})
    return loaded


def check_fit(experiment: "Experiment", model: Any, source: Any) -> None:
    """Raises a `RunError` if a run would not start with the weights of this source, if any."""
    if source is not None:
        check_something_learns(experiment, match(model, source, experiment.weights or ""))


def check_something_learns(experiment: "Experiment", found: Matches) -> None:
    """Raises a `RunError` if nothing would learn in the epochs in which what is loaded does not."""
    from low_rank_local_connectivity import training

    if experiment.freeze_epochs and not found.new:
        raise training.RunError(
            "`freeze_epochs` needs a layer that is not loaded, as only such a layer learns in "
            f"them. Received: freeze_epochs={experiment.freeze_epochs} with all layers loaded from "
            f"{experiment.weights}. Leave it out."
        )


def _recorded(path: Path) -> list[str]:
    """Returns the names of the layers that were loaded when a run began."""
    from low_rank_local_connectivity import training

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        names = json.loads(read_text(path))["loaded"]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    raise training.RunError(
        "A run that began with `weights` must have the record of what was loaded. Received: "
        f"{path}, which is missing or damaged. Put it back, or give another `model_dir`."
    )
