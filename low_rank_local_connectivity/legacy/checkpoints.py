"""TensorFlow's own files: checkpoints, and the metadata that Keras 2 stored with them.

They are read without TensorFlow, which ends the process at some damaged ones.
"""

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.legacy.messages import fields, number, octets, texts, varint
from low_rank_local_connectivity.legacy.stored import NOT_WEIGHTS, Weight
from low_rank_local_connectivity.legacy.tables import read_table
from low_rank_local_connectivity.untrusted.checksums import crc32c, masked
from low_rank_local_connectivity.untrusted.sizes import (
    MOST_RECORDS,
    MOST_TEXT,
    read_text,
    require_regular,
    require_room,
)

VALUE = b"VARIABLE_VALUE"
GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
LAYER = re.compile(r"layer-\d+")
WITH_WEIGHTS = "layer_with_weights-"
# TensorFlow's numbers of the types that weights have.
STRING, BFLOAT16 = 7, 14
TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?"}
TYPES |= {BFLOAT16: "<u2", 17: "<u2", 19: "<f2", 22: "<u4", 23: "<u8"}
CHECKSUM = 4
# Axes that a NumPy array may have.
MOST_AXES = 64


def read_description(file: Path) -> bytes:
    """Returns the model's description in `keras_metadata.pb`.

    The file is a protocol buffer, `SavedMetadata {repeated SavedObject nodes = 1}` with
    `SavedObject {string node_path = 3; string metadata = 5}`.

    Args:
        file: The file.

    Raises:
        OSError: If it does not describe a model.
        Exception: If it is damaged.
    """
    for node in map(fields, texts(fields(read_text(file, MOST_TEXT)), 1)):
        if octets(node, 3) == b"root":
            return octets(node, 5)
    raise OSError("keras_metadata.pb does not describe a model")


def files_of(prefix: str) -> list[Path]:
    """Returns the files of a checkpoint, which is named by what their names begin with."""
    path = Path(prefix)
    shards = path.parent.glob(f"{_literal(path.name)}.data-?????-of-?????")
    return [Path(f"{prefix}.index"), *sorted(shards)]


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def read_checkpoint(prefix: str, room: int) -> dict[str, Any]:
    """Returns the objects of a TensorFlow checkpoint as a tree of attributes.

    Args:
        prefix: The checkpoint's files without `.index` and `.data-...`.
        room: Bytes that its arrays may take in memory.

    Raises:
        Exception: If it is damaged.
    """
    bundle = _Bundle(prefix, room)
    graph = fields(bundle.text(GRAPH))
    return _Objects([fields(node) for node in texts(graph, 1)], bundle).tree(0) or {}


class _Bundle:
    """The tensors of a checkpoint by their keys.

    The index has a header, `BundleHeaderProto {num_shards = 1; endianness = 2}`, and for each
    tensor a `BundleEntryProto {dtype = 1; shape = 2; shard_id = 3; offset = 4; size = 5;
    crc32c = 6; slices = 7}`.
    """

    def __init__(self, prefix: str, room: int):
        table = read_table(read_text(Path(f"{prefix}.index"), MOST_RECORDS))
        header = fields(table.pop(b""))
        if number(header, 2):
            raise OSError("the numbers are stored with the highest byte first")
        self.prefix, self.shards = prefix, number(header, 1)
        self.entries = {key: fields(value) for key, value in table.items()}
        require_room(sum(number(one, 5) for one in self.entries.values()), room, prefix)

    def _stored(self, entry: Mapping[int, list[Any]]) -> bytes:
        """Returns the bytes of a tensor."""
        entry = dict(entry)
        if entry.get(7):
            raise OSError("a tensor is stored in slices")
        shard, begin, size = (number(entry, field) for field in (3, 4, 5))
        path = Path(f"{self.prefix}.data-{shard:05d}-of-{self.shards:05d}")
        require_regular(path)
        if begin + size > path.stat().st_size:
            raise EOFError(f"{path.name} ends before its tensors")
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(size)

    def text(self, key: bytes) -> bytes:
        """Returns a scalar string: its length, a checksum of that, and its bytes."""
        entry = self.entries[key]
        require_room(number(entry, 5), MOST_RECORDS, self.prefix)
        stored = self._stored(entry)
        length, at = varint(stored, 0)
        value = stored[at + CHECKSUM :]
        if number(entry, 1) != STRING or length != len(value):
            raise OSError(f"{key.decode()} is not a text")
        _require_checksum(
            length.to_bytes(4, "little") + stored[at : at + CHECKSUM] + value, entry, key
        )
        return value

    def shape(self, key: bytes) -> tuple[int, ...]:
        """Returns the shape of an array, which has as many numbers as are stored."""
        entry = self.entries[key]
        axes = texts(fields(octets(entry, 2)), 2)
        shape = tuple(number(fields(axis), 1) for axis in axes)
        kind = np.dtype(TYPES[number(entry, 1)])
        if len(shape) > MOST_AXES or math.prod(shape) * kind.itemsize != number(entry, 5):
            raise OSError(f"{key.decode()} has another size than its shape says")
        return shape

    def array(self, key: bytes) -> np.ndarray:
        """Returns an array whose checksum fits."""
        entry, shape = self.entries[key], self.shape(key)
        stored = self._stored(entry)
        _require_checksum(stored, entry, key)
        array = np.frombuffer(stored, TYPES[number(entry, 1)]).reshape(shape)
        if number(entry, 1) == BFLOAT16:
            return (array.astype("uint32") << 16).view("float32")
        return array


def _require_checksum(stored: bytes, entry: dict[int, list[Any]], key: bytes) -> None:
    if masked(crc32c(stored)) != number(entry, 6):
        raise OSError(f"the checksum of {key.decode()} does not fit")


class _Objects:
    """The objects of a checkpoint; each is a node that several paths may reach.

    A node is a `TrackableObject {children = 1; attributes = 2}` of `ObjectReference {node_id = 1;
    local_name = 2}` and `SerializedTensor {name = 1; checkpoint_key = 3}`.
    """

    def __init__(self, nodes: list[dict[int, list[Any]]], bundle: _Bundle):
        self.nodes = nodes
        self.bundle = bundle
        # A layer may refer to an object that contains it, which is not searched again.
        self.trees: dict[int, Any] = {}

    def tree(self, node: int) -> Any:
        """Returns the weights of an object as a tree; empty if it has none."""
        if node not in self.trees:
            self.trees[node] = None
            self.trees[node] = self._weight(node) or self._children(node)
        return self.trees[node]

    def _weight(self, node: int) -> Weight | None:
        for attribute in map(fields, texts(self.nodes[node], 2)):
            if octets(attribute, 1) == VALUE:
                key = octets(attribute, 3)
                return Weight(self.bundle.shape(key), functools.partial(self.bundle.array, key))
        return None

    def _children(self, node: int) -> dict[str, Any]:
        children = {}
        for child in map(fields, texts(self.nodes[node], 1)):
            name = octets(child, 2).decode()
            if name not in NOT_WEIGHTS:
                children[name] = self.tree(number(child, 1))
        if any(name.startswith(WITH_WEIGHTS) for name in children):
            # A model's layers are there twice. Among all layers are those that Keras 2 made of
            # operations on tensors; those with weights are the same in Keras 3.
            children = {name: one for name, one in children.items() if not LAYER.fullmatch(name)}
        return {name: child for name, child in children.items() if child}
