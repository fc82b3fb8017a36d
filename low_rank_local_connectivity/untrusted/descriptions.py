"""What a file describes of a model, before anything of it is built."""

from collections.abc import Iterator
from typing import Any

# Calls of layers, each counted with those of the layers within it. A model that calls a model
# twice, which calls a model twice, takes a line for each and would take years.
MOST_CALLS = 10_000
# Layers that read other files, or hold what another library would run.
FOREIGN = ("TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper")
# Arguments that may be the path of a file.
NAMING_FILES = ("vocabulary", "idf_weights")


def require_own_description(described: Any, path: str) -> None:
    """Refuses a model with layers that stand for other files.

    Args:
        described: The model's description.
        path: The file that it is from, for errors.

    Raises:
        ValueError: If it has any.
        RecursionError: If it is nested too deeply.
    """
    for one in _objects(described):
        name, config = one["class_name"], one["config"]
        files = [argument for argument in NAMING_FILES if isinstance(config.get(argument), str)]
        if name in FOREIGN or files:
            what = f"whose {files[0]} is in another file" if files else "which stands for another"
            raise ValueError(
                f"A model must be described by its own file. Received: {path!r} with a {name}, "
                f"{what}. Save the model again without it."
            )


def require_few_calls(described: Any, path: str) -> None:
    """Refuses a model with too many calls of layers.

    Raises:
        ValueError: If it has too many.
    """
    calls = calls_within(described)
    if calls > MOST_CALLS:
        raise ValueError(
            f"A model must call its layers at most {MOST_CALLS:,} times, with those of models "
            f"within it. Received: {path!r}, whose model would call them {calls:,} times."
        )


def _objects(described: Any) -> Iterator[dict[str, Any]]:
    """Yields the descriptions of all layers and other objects."""
    if isinstance(described, dict):
        if isinstance(described.get("class_name"), str) and isinstance(
            described.get("config"), dict
        ):
            yield described
        for inner in described.values():
            yield from _objects(inner)
    elif isinstance(described, list):
        for inner in described:
            yield from _objects(inner)


def calls_within(described: Any) -> int:
    """Returns how many calls of layers a description has, with those of models within models.

    Example:
        >>> dense = {"class_name": "Dense", "config": {"name": "dense"}}
        >>> inner = {"class_name": "Functional", "config": {"name": "m", "layers": [dense] * 3}}
        >>> calls_within({"layers": [{**inner, "inbound_nodes": [["x"], ["y"]]}, dense]})
        9
    """
    if isinstance(described, list):
        return sum(map(calls_within, described))
    if not isinstance(described, dict):
        return 0
    nodes = described.get("inbound_nodes")
    inner = sum(calls_within(one) for key, one in described.items() if key != "inbound_nodes")
    calls = max(len(nodes), 1) if isinstance(nodes, list) else 1
    return calls * (_is_layer(described) + inner)


def _is_layer(described: dict[str, Any]) -> bool:
    """Whether this describes a layer, which has a name, unlike an initializer."""
    config, kind = described.get("config"), described.get("class_name")
    return isinstance(config, dict) and "name" in config and not str(kind).endswith("Policy")
