"""Keras 2's description of one layer, as Keras 3 would describe it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from low_rank_local_connectivity import layers

Config = dict[str, Any]
LOCALLY_CONNECTED = ("LocallyConnected1D", "LocallyConnected2D")
REBUILD = "Build the model anew in Keras 3 and use load_weights()"
# Layers of Keras 2 that hold what cannot be loaded.
CODE = {"Lambda": f"it holds Python code, and no code from a file is run. {REBUILD}"}
CODE |= dict.fromkeys(
    ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty"),
    f"it calls a function of TensorFlow, which Keras 3 has in keras.ops. {REBUILD}",
)
# Arguments that Keras 3's layers no longer have, with the values that mean what they do now.
ANY = object()
DROPPED: dict[str, tuple[Any, ...]] = {
    "batch_input_shape": (ANY,),
    "input_length": (ANY,),
    "ragged": (False, None),
    "time_major": (False,),
    "fused": (ANY,),
    "renorm": (False,),
    "renorm_clipping": (ANY,),
    "renorm_momentum": (ANY,),
    "virtual_batch_size": (None,),
    "adjustment": (None,),
    "rng_type": (ANY,),
    "query_shape": (ANY,),
    "key_shape": (ANY,),
    "value_shape": (ANY,),
    "softmax_robust_masking": (False, None),
}
# `implementation` of recurrent layers said how they compute; locally connected layers take it.
SEPARABLE = {"SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D"}
RECURRENT = {"LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell", "ConvLSTM2D"}
PLACES = ("layers", "initializers", "regularizers", "constraints")


def plain(value: Any) -> Any:
    """Returns lists for what metadata wraps as tuples."""
    if isinstance(value, dict):
        if value.get("class_name") in ("__tuple__", "TensorShape"):
            return [plain(one) for one in value["items"]]
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """A layer as Keras 2 described it.

    Args:
        described: `{"class_name": ..., "config": ..., ...}`.
        custom_objects: The user's layers and functions by name.
        path: Where it comes from, for errors.
    """

    described: Config
    custom_objects: Mapping[str, Any]
    path: str

    def refusal(self, reason: str) -> ValueError:
        """Returns the error for a layer that cannot be loaded."""
        name, kind = self.described["config"].get("name"), self.described["class_name"]
        # Keras wraps what it says in whole descriptions.
        reason = " ".join(reason.rpartition("Exception encountered: ")[2].split()).rstrip(".")
        return ValueError(
            f"The layer {name!r}, a {kind}, in {self.path!r} cannot be loaded: {reason}."
        )

    def layer(self) -> Any:
        """Returns the layer, not built."""
        config = self._modern(plain(self.described))
        return keras.layers.deserialize(config, custom_objects=dict(self.custom_objects))

    def _modern(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._modern(one) for one in value]
        if not isinstance(value, dict):
            return value
        if not {"class_name", "config"} <= set(value):
            return {key: self._modern(one) for key, one in value.items()}
        class_name, config = value["class_name"], value["config"]
        if class_name in CODE:
            raise self.refusal(CODE[class_name])
        if class_name in ("Policy", "PolicyV1"):
            return config["name"]
        if isinstance(config, dict):
            config = self._modern(self._arguments(class_name, config))
        module, registered = self._place(value)
        known = {"module": module, "class_name": class_name, "registered_name": registered}
        return {**known, "config": config}

    def _place(self, value: Config) -> tuple[str | None, str | None]:
        """Returns the module of Keras's own classes, and the name that others go by."""
        class_name = value["class_name"]
        if class_name in LOCALLY_CONNECTED:
            return None, keras.saving.get_registered_name(getattr(layers, class_name))
        if class_name != "function":
            named = (value.get("module") or "").partition(".")[2]
            places = [place for place in PLACES if hasattr(getattr(keras, place), class_name)]
            if places:
                return f"keras.{named if named in places else places[0]}", None
        names = [value.get("registered_name"), class_name, value["config"]]
        names = [name for name in names if isinstance(name, str) and name != "function"]
        for name in names:
            registered = keras.saving.get_registered_object(name, dict(self.custom_objects))
            if registered is not None:
                return None, name
        raise self.refusal(
            f"Keras 3 has no {names[-1]!r}. Pass it by that name in custom_objects, or register it"
        )

    def _arguments(self, class_name: str, config: Config) -> Config:
        """Returns the arguments that Keras 3 has in place of Keras 2's."""
        config = {**config, **_renamed(class_name, config)}
        if class_name == "InputLayer" and "batch_input_shape" in config:
            config["batch_shape"] = config["batch_input_shape"]
        if class_name in LOCALLY_CONNECTED:
            config["fan"] = "kernel"  # As Keras 2 drew them, should they be drawn again.
        if class_name == "BatchNormalization" and isinstance(config.get("axis"), list):
            if len(config["axis"]) != 1:
                raise self.refusal(f"Keras 3 has no axis={config['axis']}")
            (config["axis"],) = config["axis"]
        for argument in set(config) & set(DROPPED):
            value, allowed = config.pop(argument), DROPPED[argument]
            if ANY not in allowed and value not in allowed:
                raise self.refusal(f"Keras 3 has no {argument}={value!r}")
        for argument in _superfluous(class_name):
            config.pop(argument, None)
        return config


def _renamed(class_name: str, config: Config) -> Config:
    if class_name == "LeakyReLU" and "alpha" in config:
        return {"negative_slope": float(config["alpha"])}
    return {}


def _superfluous(class_name: str) -> tuple[str, ...]:
    if class_name in RECURRENT:
        return ("implementation",)
    if class_name == "LeakyReLU":
        return ("alpha",)
    if class_name.startswith("SpatialDropout"):
        return ("trainable", "noise_shape")
    if class_name in SEPARABLE:
        return ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
    if class_name.endswith("Transpose"):
        return ("groups",)
    return ("dtype",) if hasattr(keras.initializers, class_name) else ()
