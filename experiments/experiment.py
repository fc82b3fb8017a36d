"""One run, with every choice made and checked before a framework is loaded."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
from collections.abc import Iterable
from typing import Any

from data import AUGMENTATIONS, DATASETS, Dataset
from experiments.backend import backend_name
from models import CONVOLUTIONS, MODELS, Settings, convolution

# A run is the same run wherever its data and results lie, and however often it is saved.
PLACES = ("data_dir", "download", "model_dir", "tpu", "peers_timeout")
# Formats, the backends that write each, and what it needs there that comes with neither the library
# nor the experiments.
EXPORT_FORMATS: dict[str, dict[str, tuple[str, ...]]] = {
    "tf_saved_model": {"tensorflow": (), "jax": ()},
    "onnx": {
        "tensorflow": ("onnx", "onnxruntime", "tf2onnx"),
        "torch": ("onnx", "onnxruntime"),
    },
    "litert": {"tensorflow": ("ai_edge_litert",)},
    "litert_int8": {"tensorflow": ("ai_edge_litert",)},
}
SAVING = ("checkpoint_steps", "checkpoint_minutes", "keep_checkpoints")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, with every choice made; the fields are the flags of the same names.

    Raises:
        ValueError: If a field is out of its range, or fields contradict each other.
    """

    dataset: str
    data_dir: str | None
    download: bool
    train_examples: int | None
    image_size: int | None
    augment: tuple[str, ...]
    eval_crop: float | None
    translate: bool
    canvas_size: int | None
    network: str
    layer_types: tuple[str, ...]
    insert_layer: str | None
    replace: tuple[str, ...]
    replace_with: str
    spatial_rank: int
    kernel_size: int
    filters: int
    normalize_weights: str | None
    combining_weights_initializer: str
    share_row_combining_weights: bool
    share_col_combining_weights: bool
    input_dependent: bool
    use_spatial_bias: bool
    locally_connected_fan: str
    coord_conv: bool
    batch_size: int
    epochs: int
    optimizer: str
    peak_learning_rate: float
    warmup_epochs: int
    schedule: str
    momentum: float
    weight_decay: float
    label_smoothing: float
    precision: str
    validation_every: int
    seed: int
    strategy: str
    tpu: str | None
    synchronized_batch_norm: bool
    virtual_devices: int | None
    peers_timeout: float
    checkpoint_steps: int | None
    checkpoint_minutes: float | None
    keep_checkpoints: int
    model_dir: str
    export_formats: tuple[str, ...]
    serving_batch_size: int | None

    def __post_init__(self) -> None:
        names = ("spatial_rank", "kernel_size", "filters", "batch_size", "epochs")
        for name in (*names, "validation_every"):
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        self._check_data()
        if MODELS[self.network].stages:
            self._check_residual_layers()
        elif MODELS[self.network].num_layers:
            self._check_layers()
        else:
            self._check_own_layers()
        shared = self.share_row_combining_weights or self.share_col_combining_weights
        self._require(
            "input_dependent",
            not (self.input_dependent and shared),
            "needs --share_row_combining_weights and --share_col_combining_weights off",
        )
        self._check_training()
        self._check_export()

    def _require(self, name: str, holds: bool, sentence: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = ",".join(value) if isinstance(value, tuple) else value
            raise ValueError(f"--{name} {sentence}. Received: --{name}={shown}.")

    def _check_data(self) -> None:
        resizable = DATASETS[self.dataset].resizable
        sized = self.image_size is None or (resizable and self.image_size >= 1)
        sentence = f"must be at least 1 and goes with images of any size, not {self.dataset}"
        self._require("image_size", sized, sentence if not resizable else "must be at least 1")
        self._check_views()
        dataset = self.placed
        side = max(dataset.image_shape[:2])
        holds = self.canvas_size is None or (self.translate and self.canvas_size >= side)
        sentence = f"goes with --translate and must be at least the images' {side} pixels"
        self._require("canvas_size", holds, sentence)
        all_of_them = dataset.split_sizes[0]
        some = self.train_examples is None or 1 <= self.train_examples <= all_of_them
        streamed = self.dataset == "imagenet2012" and self.train_examples is not None
        self._require(
            "train_examples", not streamed, "needs examples that can be chosen one by one"
        )
        sentence = f"must be from 1 to the {all_of_them} training examples of {self.dataset}"
        self._require("train_examples", some, sentence)

    def _check_views(self) -> None:
        known = set(self.augment) <= set(AUGMENTATIONS)
        self._require("augment", known, f"takes {', '.join(AUGMENTATIONS)}, or none")
        if self.eval_crop is not None:
            of_files = DATASETS[self.dataset].encoded
            sentence = f"goes with images of sizes of their own, not {self.dataset}"
            self._require("eval_crop", of_files, sentence)
            within = 0 < self.eval_crop <= 1
            self._require("eval_crop", within, "must be above 0 and at most 1")

    def _check_layers(self) -> None:
        network = MODELS[self.network]
        count = network.num_layers
        listed = ", ".join(CONVOLUTIONS)
        known = set(self.layer_types) <= set(CONVOLUTIONS)
        self._require("layer_types", known, f"takes names among {listed}")
        few = len(self.layer_types) <= count
        self._require("layer_types", few, f"names at most the {count} layers of {self.network}")
        for name in ("insert_layer", "replace"):
            self._require(name, not getattr(self, name), f"needs a ResNet, not {self.network}")
        shape = self.data.input_shape
        sizes = network.output_sizes(shape, self.kernel_size) if network.output_sizes else []
        fits = min(map(min, sizes)) >= 1
        what = "x".join(map(str, shape[:2]))
        self._require("kernel_size", fits, f"must leave {count} layers a position in {what} images")
        self._check_rank(zip(self.filled_layer_types, sizes, strict=True))

    def _check_residual_layers(self) -> None:
        network = MODELS[self.network]
        plain = {"layer_types": (), "kernel_size": 3, "filters": 64, "coord_conv": False}
        for name, value in plain.items():
            sentence = f"belongs to simple_network, and {self.network} has --insert_layer and "
            self._require(name, getattr(self, name) == value, sentence + "--replace instead")
        known = set(self.replace) <= set(network.stages)
        self._require("replace", known, f"takes stages among {', '.join(network.stages)}, or all")
        sizes = network.site_sizes(self.data.input_shape) if network.site_sizes else {}
        sentence = "changes sizes, so a ResNet is full as a whole: --network=full_resnet18"
        for name in ("insert_layer", "replace_with"):
            self._require(name, getattr(self, name) != "full_conv2d", sentence)
        what = "x".join(map(str, self.data.input_shape[:2]))
        fits = min(map(min, sizes.values())) >= 1
        self._require("network", fits, f"must see no more than the {what} pixels of the images")
        sites = dict.fromkeys(self.replace, self.replace_with)
        if self.insert_layer:
            sites["insert"] = self.insert_layer
        self._check_rank((kind, sizes[site]) for site, kind in sites.items())

    def _check_own_layers(self) -> None:
        """Checks the flags of a network whose layers are its own."""
        plain = {"layer_types": (), "kernel_size": 3, "filters": 64, "coord_conv": False}
        for name, value in plain.items():
            if name not in MODELS[self.network].options:
                sentence = f"does not go with {self.network}, whose layers are its own"
                self._require(name, getattr(self, name) == value, sentence)
        sentence = f"needs a ResNet whose layers can be replaced, not {self.network}"
        for name in ("insert_layer", "replace"):
            self._require(name, not getattr(self, name), sentence)
        if not MODELS[self.network].turned:
            return
        odd = self.kernel_size % 2 == 1
        self._require("kernel_size", odd, f"must be odd in {self.network}")
        height, width, _ = self.data.input_shape
        sentence = f"needs images whose sides are both even or both odd, not {height}x{width}"
        self._require("network", (height - width) % 2 == 0, sentence)

    def _check_rank(self, layers: Iterable[tuple[str, tuple[int, int]]]) -> None:
        for kind, size in layers:
            if kind == "low_rank_locally_connected2d":
                positions = math.prod(size)
                sentence = f"must be at most the layer's number of positions, {positions}"
                self._require("spatial_rank", self.spatial_rank <= positions, sentence)

    def _check_training(self) -> None:
        examples = self.train_examples or self.placed.split_sizes[0]
        sentence = f"must be at most the {examples} training examples"
        self._require("batch_size", self.batch_size <= examples, sentence)
        rate = self.peak_learning_rate
        sentence = "must be a positive number"
        self._require("peak_learning_rate", 0 < rate < math.inf, sentence)
        below = 0 <= self.warmup_epochs < self.epochs
        self._require("warmup_epochs", below, f"must be from 0 to below --epochs={self.epochs}")
        for name in ("momentum", "label_smoothing"):
            self._require(name, 0 <= getattr(self, name) < 1, "must be from 0 to below 1")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "must be at least 0")
        self._require("seed", 0 <= self.seed < 2**32, "must be from 0 to 4294967295")
        for name in ("checkpoint_steps", "keep_checkpoints", "virtual_devices"):
            value = getattr(self, name)
            self._require(name, value is None or value >= 1, "must be at least 1")
        for name in ("checkpoint_minutes", "peers_timeout"):
            value = getattr(self, name)
            self._require(name, value is None or 0 < value < math.inf, "must be positive")

    def _check_export(self) -> None:
        known = set(self.export_formats) <= set(EXPORT_FORMATS)
        listed = ", ".join(EXPORT_FORMATS)
        self._require("export_formats", known, f"takes {listed}, or none for no export")
        # Now rather than after hours of training.
        backend = backend_name()
        needed = [
            package
            for name in self.export_formats
            for package in EXPORT_FORMATS[name].get(backend, ())
        ]
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        sentence = f"needs {', '.join(missing)}: pip install 'low-rank-local-connectivity[export]'"
        self._require("export_formats", not missing, sentence)
        size = self.serving_batch_size
        self._require("serving_batch_size", size is None or size >= 1, "must be at least 1")

    @functools.cached_property
    def placed(self) -> Dataset:
        """The dataset as it is in its folder."""
        return DATASETS[self.dataset].at(self.data_dir, self.image_size)

    @property
    def data(self) -> Dataset:
        """The dataset, augmented, cropped and translated if so asked."""
        dataset = self.placed.augmented(self.augment).cropped(self.eval_crop)
        if not self.translate:
            return dataset
        side = self.canvas_size or 3 * max(dataset.image_shape[:2]) // 2
        return dataset.translated((side, side))

    @property
    def filled_layer_types(self) -> tuple[str, ...]:
        """The kind of every layer of the network."""
        missing = MODELS[self.network].num_layers - len(self.layer_types)
        return self.layer_types + ("conv2d",) * missing

    def build(self):
        """Builds the network; a framework must be there."""
        dataset, network = self.data, MODELS[self.network]
        of_all = {"weight_decay": self.weight_decay, "synchronized": self.synchronized_batch_norm}
        if network.stages:
            insert = self.insert_layer and convolution(self.insert_layer, self.settings)
            replace = {
                stage: convolution(self.replace_with, self.settings) for stage in self.replace
            }
            of_all |= {"insert": insert, "replace": replace}
        elif network.num_layers:
            makers = [convolution(kind, self.settings) for kind in self.filled_layer_types]
            of_all |= {"convolutions": makers}
        of_all |= {name: getattr(self, name) for name in network.options}
        return network.build(dataset.input_shape, dataset.num_classes, **of_all)

    @property
    def settings(self) -> Settings:
        """What the makers of layers are told."""
        names = [field.name for field in dataclasses.fields(Settings)]
        return Settings(**{name: getattr(self, name) for name in names})

    @property
    def layers_in_words(self) -> str:
        """The kinds of the network's layers, in a line."""
        if MODELS[self.network].num_layers:
            return " > ".join(self.filled_layer_types)
        changes = [f"{self.insert_layer} inserted"] if self.insert_layer else []
        changes += [f"{self.replace_with} in {', '.join(self.replace)}"] if self.replace else []
        return f"{self.network}, {' and '.join(changes) or 'unchanged'}"

    def recipe(self, steps_per_epoch: int):
        """Returns how to train; a framework must be there."""
        from low_rank_local_connectivity.training import Recipe

        names = [field.name for field in dataclasses.fields(Recipe)]
        own = {name: getattr(self, name) for name in names if name != "steps_per_epoch"}
        return Recipe(steps_per_epoch=steps_per_epoch, **own)

    def config(self) -> dict[str, Any]:
        """Returns all fields, the backend and what the images are, as JSON holds them."""
        found: dict[str, Any] = {**dataclasses.asdict(self), "backend": backend_name()}
        if DATASETS[self.dataset].complete is not None:
            # Whose name is the same whatever lies in the folder.
            found["images"] = _told_apart(self.placed)
        return json.loads(json.dumps(found))

    def recorded_config(self) -> dict[str, Any]:
        """Returns what a record says of the run: its configuration but the places of its files.

        What runs did before a field told of it is left out, so that records from before are of
        the same budget and the same names as those from after.
        """
        config = self.config()
        before = {"backend": "tensorflow"}
        if not DATASETS[self.dataset].encoded:  # whose images were always cropped
            before |= {"augment": [], "eval_crop": None}
        return {
            name: value
            for name, value in config.items()
            if name not in (*PLACES, *SAVING) and not (name in before and value == before[name])
        }


def _told_apart(dataset: Dataset) -> str:
    """Returns what tells the images of a folder apart from another's."""
    train, valid, test = dataset.split_sizes
    names = hashlib.sha256(json.dumps(dataset.class_names).encode()).hexdigest()[:8]
    return (
        f"{train} train, {valid} valid and {test} test images of {dataset.num_classes} classes "
        f"({names})"
    )
