"""Translating Keras 2's description of a layer to Keras 3's."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.activations import keras2_hard_sigmoid
from low_rank_local_connectivity.keras_settings import changed_settings
from low_rank_local_connectivity.untrusted.descriptions import FOREIGN, NAMING_FILES

Config = dict[str, Any]
LOCALLY_CONNECTED = ("LocallyConnected1D", "LocallyConnected2D")
REBUILD = "Build the model again in Keras 3 and use load_weights()"
CONTAINERS = {"Sequential", "Functional", "Model"}
# Layers of Keras 2 that cannot be loaded.
REFUSED = {
    "Lambda": f"it holds Python code, and no code from a file is run. {REBUILD}",
    "RandomCrop": "at inference Keras 2's takes the central part at the crop's aspect ratio and "
    "resizes it, and Keras 3's leaves images as they are. Build the model again in Keras 3 with "
    "Resizing(height, width, crop_to_aspect_ratio=True) in its place and use load_weights()",
}
REFUSED |= dict.fromkeys(FOREIGN, f"it stands for what is not in the file. {REBUILD}")
CALLS = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")
REFUSED |= dict.fromkeys(
    CALLS, f"it calls a function of TensorFlow, which Keras 3 has in keras.ops. {REBUILD}"
)
# Layers that have another name in Keras 3, and their arguments there.
BATCH_NORMALIZATION: tuple[str, Config] = ("BatchNormalization", {})
OTHER_NAMES: dict[str, tuple[str, Config]] = {
    "BatchNormalizationV1": BATCH_NORMALIZATION,
    "BatchNormalizationV2": BATCH_NORMALIZATION,
    "SyncBatchNormalization": ("BatchNormalization", {"synchronized": True}),
    "ThresholdedReLU": ("ReLU", {}),
}
# Values of arguments missing from a description, where Keras 3 has another default.
GATES: Config = {"recurrent_activation": "hard_sigmoid"}
GATED_RESET: Config = {**GATES, "reset_after": False}
DEFAULTS = {"LSTM": GATES, "LSTMCell": GATES, "GRU": GATED_RESET, "GRUCell": GATED_RESET}
DEFAULTS |= {"ConvLSTM1D": GATES, "ConvLSTM2D": GATES, "ConvLSTM3D": GATES}
# Layers within tf_keras.applications, which Keras 3 has without public names.
APPLICATIONS = {"LayerScale": "convnext", "CustomScaleLayer": "inception_resnet_v2"}
APPLICATIONS["StochasticDepth"] = "convnext"
# Arguments that Keras 3's layers no longer have, with the values that agree with what they do now.
ANY = object()
DROPPED: dict[str, tuple[Any, ...]] = {
    "batch_input_shape": (ANY,),
    "input_length": (ANY,),
    "num_constants": (None,),
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
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell")
RECURRENT = (*RECURRENT, "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
SEPARABLE = ("SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D")
OF_A_CONVOLUTION = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
SUPERFLUOUS: dict[str, tuple[str, ...]] = dict.fromkeys(RECURRENT, ("implementation",))
SUPERFLUOUS |= dict.fromkeys(SEPARABLE, OF_A_CONVOLUTION)
SUPERFLUOUS |= {"LeakyReLU": ("alpha",), "ReLU": ("theta",), "Discretization": ("trainable",)}
ADAPTED = """its bin boundaries were adapted to data and are stored as a weight, where Keras 3 has \
an argument. Save the model again in Keras 2 with Discretization(bin_boundaries=...)"""
ELSEWHERE = """its {} is in another file, {!r}, which is not read. Give the values themselves"""
# Interpolations by which UpSampling2D and Resizing compute TensorFlow's numbers. Keras 3 refuses
# others only when called, and "bicubic" differs by 0.002 on JAX and by 0.3 on PyTorch.
EVERYWHERE = ("nearest", "bilinear")
INTERPOLATIONS: dict[str, tuple[str, ...]] = {
    "tensorflow": (*EVERYWHERE, "bicubic", "lanczos3", "lanczos5", "area"),
    "jax": (*EVERYWHERE, "lanczos3", "lanczos5"),
}
# Last words of the names of arguments that may be a function's name.
IDENTIFIED = ("activation", "initializer", "regularizer", "constraint")
PLACES = ("layers", "initializers", "regularizers", "constraints")


def plain(value: Any) -> Any:
    """Returns lists for what metadata wraps as tuples."""
    if isinstance(value, dict):
        if value.get("class_name") in ("__tuple__", "TensorShape"):
            return [plain(one) for one in value["items"]]
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def is_container(described: Config) -> bool:
    """Whether this describes a model of layers."""
    config = described["config"]
    lists = isinstance(config, list) or (isinstance(config, dict) and "layers" in config)
    return described["class_name"] in CONTAINERS and lists


@dataclasses.dataclass(frozen=True)
class Context:
    """The context that all layers of a file share.

    Args:
        custom_objects: The user's layers and functions by name.
        path: Where the file is, for errors.
        model: Function that rebuilds a model described within a wrapper.
        name: Function that returns the name that a layer or model has in Keras 3.
    """

    custom_objects: Mapping[str, Any]
    path: str
    model: Callable[[Config], Any]
    name: Callable[[str], str]


class LayerConfig:
    """A layer as Keras 2 described it.

    Args:
        described: `{"class_name": ..., "config": ..., ...}`.
        context: Of its file.
    """

    def __init__(self, described: Config, context: Context):
        self.described = described
        self.context = context
        self.custom_objects = dict(context.custom_objects)

    def refusal(self, reason: str) -> ValueError:
        """Returns the error for a layer that cannot be loaded."""
        name, kind = self.described["config"].get("name"), self.described["class_name"]
        # Keras wraps what it says in whole descriptions.
        reason = " ".join(reason.rpartition("Exception encountered: ")[2].split()).rstrip(".")
        return ValueError(
            f"The layer {name!r}, a {kind}, in {self.context.path!r} cannot be loaded: {reason}."
        )

    def layer(self) -> Any:
        """Returns the layer, not built."""
        config = self._modern(plain(self.described))
        # A description without a data format is of a layer that had no other.
        with changed_settings(image_data_format="channels_last"):
            return keras.layers.deserialize(config, custom_objects=self.custom_objects)

    def _modern(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._modern(one) for one in value]
        if not isinstance(value, dict):
            return value
        if not {"class_name", "config"} <= set(value):
            return {key: self._modern(one) for key, one in value.items()}
        if is_container(value):
            return self._handed_out(self.context.model(value))
        return self._object(value["class_name"], value["config"], value)

    def _object(self, class_name: str, config: Any, value: Config) -> Any:
        """Returns the description of a layer, a function or another object."""
        if class_name in REFUSED:
            raise self.refusal(REFUSED[class_name])
        if class_name in ("Policy", "PolicyV1"):
            return config["name"]
        if class_name == "function" and config == "hard_sigmoid":
            return self._identified("activation", config)
        if isinstance(config, dict):
            class_name, config = self._arguments(class_name, config)
            config = self._modern(config)
        return {**self._place({**value, "class_name": class_name}), "config": config}

    def _handed_out(self, model: Any) -> Config:
        """Returns a description from which Keras gets a model that exists already."""
        name = f"model {len(self.custom_objects)}"
        giving = {"from_config": classmethod(lambda cls, config: model)}  # noqa: ARG005
        self.custom_objects[name] = type("Given", (), giving)
        return {"module": None, "class_name": name, "registered_name": name, "config": {}}

    def _identified(self, kind: str, name: str) -> Any:
        """Returns Keras 3's name of an activation, an initializer and so on."""
        if keras.saving.get_registered_object(name, self.custom_objects) is not None:
            return _function(name)
        if (kind, name) == ("activation", "hard_sigmoid"):
            return _function(keras.saving.get_registered_name(keras2_hard_sigmoid))
        try:
            getattr(keras, f"{kind}s").get(name)
        except ValueError as error:
            raise self._unknown(name) from error
        return name

    def _unknown(self, name: str) -> ValueError:
        return self.refusal(
            f"Keras 3 has no {name!r}. Pass it by that name in custom_objects, or register it"
        )

    def _place(self, value: Config) -> Config:
        """Returns the module of Keras's own classes, and the name that others go by."""
        class_name = value["class_name"]
        if class_name in LOCALLY_CONNECTED:
            return _known(class_name, keras.saving.get_registered_name(getattr(layers, class_name)))
        if class_name != "function":
            named = (value.get("module") or "").partition(".")[2]
            places = [place for place in PLACES if hasattr(getattr(keras, place), class_name)]
            if places:
                place = named if named in places else places[0]
                return _known(class_name, None, f"keras.{place}")
        names = [value.get("registered_name"), class_name, value["config"]]
        names = [name for name in names if isinstance(name, str) and name != "function"]
        for name in names:
            registered = keras.saving.get_registered_object(name, self.custom_objects)
            if registered is not None:
                return _known(class_name, name)
        bare = class_name.removeprefix("Custom>")
        if bare in APPLICATIONS:
            return _known(bare, None, f"keras.src.applications.{APPLICATIONS[bare]}")
        raise self._unknown(names[-1])

    def _arguments(self, class_name: str, config: Config) -> tuple[str, Config]:
        """Returns the class and the arguments that Keras 3 has in place of Keras 2's."""
        config = {**DEFAULTS.get(class_name, {}), **config, **_renamed(class_name, config)}
        class_name, added = OTHER_NAMES.get(class_name, (class_name, {}))
        self._require_known_values(class_name, config)
        config |= added
        config |= dict(self._changed(class_name, config))
        for argument in set(config) & set(DROPPED):
            value, allowed = config.pop(argument), DROPPED[argument]
            if ANY not in allowed and value not in allowed:
                raise self.refusal(f"Keras 3 has no {argument}={value!r}")
        for argument in _superfluous(class_name):
            config.pop(argument, None)
        return class_name, config

    def _changed(self, class_name: str, config: Config) -> Iterator[tuple[str, Any]]:
        """Yields arguments whose values Keras 3 writes otherwise."""
        for argument, value in config.items():
            kind = argument.rpartition("_")[2]
            if kind in IDENTIFIED and isinstance(value, str):
                yield argument, self._identified(kind, value)
        if isinstance(config.get("name"), str):
            yield "name", self.context.name(config["name"])
        if class_name in LOCALLY_CONNECTED:
            yield "fan", "kernel"  # As Keras 2 drew them, should they be drawn again.
        if class_name == "BatchNormalization" and isinstance(config.get("axis"), list):
            yield "axis", config["axis"][0]
        if config.get("synchronized") and keras.backend.backend() != "tensorflow":
            yield "synchronized", False  # Of replicas, which no other backend has.

    def _require_known_values(self, class_name: str, config: Config) -> None:
        axis = config.get("axis")
        if class_name == "BatchNormalization" and isinstance(axis, list) and len(axis) != 1:
            raise self.refusal(f"Keras 3 has no axis={axis}")
        if class_name in ("UpSampling2D", "Resizing") and "interpolation" in config:
            self._require_interpolation(config["interpolation"], keras.backend.backend())
        for argument in NAMING_FILES:
            if isinstance(config.get(argument), str):
                raise self.refusal(ELSEWHERE.format(argument, config[argument]))
        if class_name == "Discretization" and config.get("bin_boundaries") is None:
            raise self.refusal(ADAPTED)

    def _require_interpolation(self, value: Any, backend: str) -> None:
        if value not in INTERPOLATIONS["tensorflow"]:
            raise self.refusal(f"Keras 3 has no interpolation={value!r}")
        if value not in INTERPOLATIONS.get(backend, EVERYWHERE):
            raise self.refusal(
                f"with interpolation={value!r} Keras 3 does not compute on {backend} what it does "
                "on tensorflow. Load it there"
            )


def _known(class_name: str, registered: str | None, module: str | None = None) -> Config:
    return {"module": module, "class_name": class_name, "registered_name": registered}


def _function(name: str) -> Config:
    return {**_known("function", name), "config": name}


def _renamed(class_name: str, config: Config) -> Config:
    if class_name == "LeakyReLU" and "alpha" in config:
        return {"negative_slope": float(config["alpha"])}
    if class_name == "ThresholdedReLU":
        return {"threshold": float(config["theta"])}
    if class_name == "InputLayer" and "batch_input_shape" in config:
        return {"batch_shape": config["batch_input_shape"]}
    return {}


def _superfluous(class_name: str) -> tuple[str, ...]:
    if class_name.startswith("SpatialDropout"):
        return ("trainable", "noise_shape")
    if class_name.endswith("Transpose"):
        return ("groups",)
    if hasattr(keras.initializers, class_name):
        return ("dtype",)
    return SUPERFLUOUS.get(class_name, ())
