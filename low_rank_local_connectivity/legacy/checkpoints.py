"""TensorFlow's own files: checkpoints, and the metadata that Keras 2 stored with them."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.legacy.stored import NOT_WEIGHTS, Weight

VALUE = "VARIABLE_VALUE"
LAYER = re.compile(r"layer-\d+")
WITH_WEIGHTS = "layer_with_weights-"


def _tensorflow() -> Any:
    """Returns TensorFlow, which reading its checkpoints requires."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ValueError(
            "Reading a SavedModel or a TensorFlow checkpoint needs tensorflow: pip install "
            "tensorflow."
        ) from error
    return tf


def read_description(file: Path) -> str:
    """Returns the model's description in `keras_metadata.pb`.

    The file is a protocol buffer, `SavedMetadata {repeated SavedObject nodes = 1}` with
    `SavedObject {string node_path = 3; string metadata = 5}`.

    Args:
        file: The file.

    Raises:
        OSError: If it cannot be read.
    """
    _tensorflow()
    from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    described = descriptor_pb2.FileDescriptorProto(name="keras_2.proto", package="keras_2")
    node = described.message_type.add(name="SavedObject")
    node.field.add(name="node_path", number=3, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    node.field.add(name="metadata", number=5, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    nodes = described.message_type.add(name="SavedMetadata").field.add(
        name="nodes", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED
    )
    nodes.type_name = ".keras_2.SavedObject"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("keras_2.SavedMetadata"))
    try:
        metadata: Any = kind.FromString(file.read_bytes())
    except message.DecodeError as error:
        raise OSError(f"keras_metadata.pb: {error}") from error
    for one in metadata.nodes:
        if one.node_path == "root":
            return one.metadata
    raise OSError("keras_metadata.pb does not describe a model")


def read_checkpoint(prefix: str) -> dict[str, Any]:
    """Returns the objects of a TensorFlow checkpoint as a tree of attributes.

    Args:
        prefix: The checkpoint's files without `.index` and `.data-...`.

    Raises:
        OSError: If it cannot be read.
    """
    tf = _tensorflow()
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    def read(key: str) -> Any:
        try:
            return reader.get_tensor(key)
        except tf.errors.OpError as error:
            raise OSError(str(error)) from error

    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError) as error:
        raise OSError(str(error)) from error
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        read("_CHECKPOINTABLE_OBJECT_GRAPH")
    )
    return _Objects(graph.nodes, reader.get_variable_to_shape_map(), read).tree(0) or {}


class _Objects:
    """The objects of a checkpoint; each is a node that several paths may reach."""

    def __init__(self, nodes: Any, shapes: dict[str, Any], read: Callable[[str], np.ndarray]):
        self.nodes = nodes
        self.shapes = shapes
        self.read = read
        # A layer may refer to an object that contains it, which is not searched again.
        self.trees: dict[int, Any] = {}

    def tree(self, number: int) -> Any:
        """Returns the weights of an object as a tree; empty if it has none."""
        if number not in self.trees:
            self.trees[number] = None
            self.trees[number] = self._weight(number) or self._children(number)
        return self.trees[number]

    def _weight(self, number: int) -> Weight | None:
        for attribute in self.nodes[number].attributes:
            if attribute.name == VALUE:
                key = attribute.checkpoint_key
                return Weight(tuple(self.shapes[key]), functools.partial(self.read, key))
        return None

    def _children(self, number: int) -> dict[str, Any]:
        children = {}
        for child in self.nodes[number].children:
            if child.local_name not in NOT_WEIGHTS:
                children[child.local_name] = self.tree(child.node_id)
        if any(name.startswith(WITH_WEIGHTS) for name in children):
            # A model's layers are there twice. Among all layers are those that Keras 2 made of
            # operations on tensors; those with weights are the same in Keras 3.
            children = {name: one for name, one in children.items() if not LAYER.fullmatch(name)}
        return {name: child for name, child in children.items() if child}
