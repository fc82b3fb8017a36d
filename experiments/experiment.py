"""The settings of a run, checked before a framework is loaded."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
from collections.abc import Iterable
from typing import Any

from low_rank_local_connectivity.data import AUGMENTATIONS, DATASETS, Dataset
from low_rank_local_connectivity.data.augmentations import are_known
from low_rank_local_connectivity.experiments.backend import backend_name
from low_rank_local_connectivity.experiments.fields import (
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    FUNCTION,
    POSITIVE,
    STEPS,
    UINT32,
    Accepted,
    Group,
    about,
    field,
    one_of,
    some_of,
)
from low_rank_local_connectivity.experiments.warm_start import digest_of
from low_rank_local_connectivity.export import FORMATS
from low_rank_local_connectivity.models import (
    APPLICATIONS,
    BY_DIMENSIONS,
    CONVOLUTIONS,
    NETWORKS,
    Settings,
    convolution,
    in_dimensions,
)

# Every kind of layer that a network of layers of any kind may have.
LAYER_TYPES = tuple(dict.fromkeys(name for kinds in BY_DIMENSIONS.values() for name in kinds))
LOW_RANK_KIND = "low_rank_locally_connected2d"
# A run is the same wherever its data and results are stored, and however often it is saved.
PLACES = ("data_dir", "download", "model_dir", "tpu", "peers_timeout")
SAVING = ("checkpoint_steps", "checkpoint_minutes", "keep_checkpoints", "evaluation", "no_lock")
# Nor does watching it change a run.
WATCHING = ("callbacks", "profile")
# Limits of gradients, and strategies of many replicas.
LIMITS = ("clipnorm", "global_clipnorm", "clipvalue")
REPLICATED = ("mirrored", "multi_worker", "tpu")
# Newer fields, whose defaults are what runs did before.
LATER = (*LIMITS, "gradient_accumulation_steps", "use_ema", "ema_momentum")
LATER += ("stem", "relax", "weights", "freeze_epochs")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The settings of a run; a command's flags are made from its fields.

    If a field must have a value but is None by default, its value depends on the other fields, as
    its description says.

    Raises:
        ValueError: If a field is out of its range, or fields contradict each other.

    Example:
        >>> experiment = Experiment(epochs=20, input_dependent=True)
        >>> experiment.warmup_epochs, experiment.share_row_combining_weights
        (2, False)
    """

    dataset: str = field("digits", "Images to classify.", Group.DATA, one_of(DATASETS))
    data_dir: str | None = field(
        None,
        "Folder of prepared data; the file of npz. [tensorflow-datasets' own]",
        Group.DATA,
        path=True,
    )
    download: bool = field(False, "Whether missing data may be downloaded.", Group.DATA)
    train_examples: int | None = field(
        None, "Size of a fixed subset to train on. [all]", Group.DATA
    )
    image_size: int | None = field(
        None,
        "Pixels per side, for datasets of images of any size: imagenet2012, folder. [224]",
        Group.DATA,
    )
    augment: tuple[str, ...] = field(
        (),
        "Random changes of training images, drawn anew in every epoch: crop resizes 8 to 100 % of "
        "the area, flip mirrors half of the images, crop,flip does both, and none does not change "
        "them. Not for classes that depend on where something is, or on left and right. "
        "Of Keras, with a strength up to 1 if one is given, as in mixup:0.4: randaugment makes two "
        "changes of colour or place, erasing fills a rectangle in that share of the images, "
        "mixup and cutmix mix images and labels by shares of a beta distribution of the parameter.",
        Group.DATA,
        Accepted(
            f"takes {', '.join(AUGMENTATIONS)}, each once, the last four with a strength above 0 "
            "and up to 1 if wanted, as in mixup:0.4; or none",
            are_known,
            nothing="none",
        ),
    )
    eval_crop: float | None = field(
        None,
        "Side of the central square that evaluation uses of each image of folder or imagenet2012, "
        "as a fraction of the shorter side; 0.875 is usual with --augment=crop. [the whole image]",
        Group.DATA,
        Accepted("must be above 0 and at most 1", lambda share: 0 < share <= 1),
    )
    translate: bool = field(
        False, "Whether images are placed at random in a canvas of noise.", Group.DATA
    )
    canvas_size: int | None = field(
        None,
        "Pixels per side of the canvas. [1.5 times the larger side of an image]",
        Group.DATA,
    )
    network: str = field("simple_network", "Network to train.", Group.NETWORK, one_of(NETWORKS))
    layer_types: tuple[str, ...] = field(
        ("conv2d", "conv2d", "low_rank_locally_connected2d"),
        f"Kind of each layer, first to last, and conv2d for the rest: {', '.join(CONVOLUTIONS)}; "
        "of signals and volumes, with 1d and 3d in place of 2d, those that are not of images only.",
        Group.NETWORK,
        some_of(LAYER_TYPES, "takes names among {}"),
    )
    insert_layer: str | None = field(
        None,
        "Kind of a layer added after a ResNet's first.",
        Group.NETWORK,
        one_of(CONVOLUTIONS),
    )
    replace: tuple[str, ...] = field(
        (),
        "Stages of a ResNet whose 3x3 convolutions are replaced: conv2 to conv5, or all.",
        Group.NETWORK,
    )
    replace_with: str = field(
        "low_rank_locally_connected2d",
        "Kind of the layers that replace them.",
        Group.NETWORK,
        one_of(CONVOLUTIONS),
    )
    stem: str = field(
        "imagenet",
        "How a ResNet begins: with a 7x7 convolution and a max-pool at stride 2, or, for small "
        "images, with a 3x3 convolution alone at stride 1, so that conv5 has 4x4 positions at "
        "32x32 pixels.",
        Group.NETWORK,
        one_of(("imagenet", "cifar")),
    )
    relax: tuple[str, ...] = field(
        (),
        "Convolutions of a network of keras.applications that become low-rank layers: patterns of "
        "their names, such as conv5_*_2_conv, or all that are larger than 1x1.",
        Group.NETWORK,
    )
    spatial_rank: int = field(
        4,
        "Filter banks of a low-rank layer; for a wide convolution, the rank to match.",
        Group.LOW_RANK,
        AT_LEAST_1,
    )
    kernel_size: int = field(3, "Taps per axis of each layer.", Group.NETWORK, AT_LEAST_1)
    filters: int = field(64, "Filters of each layer.", Group.NETWORK, AT_LEAST_1)
    normalize_weights: str | None = field(
        "softmax",
        "How combining weights are normalised.",
        Group.LOW_RANK,
        one_of(("softmax", "norm")),
    )
    combining_weights_initializer: str = field(
        "conv_init",
        "Initializer of combining weights.",
        Group.LOW_RANK,
        one_of(
            (
                "conv_init",
                "glorot_normal",
                "glorot_uniform",
                "he_normal",
                "he_uniform",
                "lecun_normal",
                "lecun_uniform",
                "ones",
                "random_normal",
                "random_uniform",
                "truncated_normal",
                "zeros",
            )
        ),
    )
    share_row_combining_weights: bool = field(
        None, "Whether each row has logits of its own. [unless input-dependent]", Group.LOW_RANK
    )
    share_col_combining_weights: bool = field(
        None, "Whether each column has logits of its own. [unless input-dependent]", Group.LOW_RANK
    )
    input_dependent: bool = field(
        False, "Whether combining weights depend on the input.", Group.LOW_RANK
    )
    use_spatial_bias: bool = field(
        True, "Whether low-rank layers have a spatial bias.", Group.LOW_RANK
    )
    locally_connected_fan: str = field(
        "position",
        "Fans in the initializer of locally connected layers; the paper's were 'kernel'.",
        Group.NETWORK,
        one_of(("position", "kernel")),
    )
    coord_conv: bool = field(
        False, "Whether coordinate channels are added to the network's input.", Group.NETWORK
    )
    batch_size: int = field(
        64, "Examples per step, over all devices.", Group.OPTIMISATION, AT_LEAST_1
    )
    epochs: int = field(30, "Passes over the training examples.", Group.OPTIMISATION, AT_LEAST_1)
    optimizer: str = field(
        "adam",
        "Adam, Adam with decoupled weight decay, Lion, or SGD with Nesterov's momentum.",
        Group.OPTIMISATION,
        one_of(("adam", "adamw", "lion", "sgd")),
    )
    peak_learning_rate: float = field(
        0.01,
        "Highest learning rate.",
        Group.OPTIMISATION,
        Accepted("must be a positive number", POSITIVE.holds),
    )
    warmup_epochs: int = field(
        None, "Epochs over which the learning rate rises. [a tenth of all]", Group.OPTIMISATION
    )
    schedule: str = field(
        "cosine",
        "How the learning rate falls: to 0 along a cosine, to a tenth at 1/3, 2/3 and 8/9 of the "
        "steps, or not at all.",
        Group.OPTIMISATION,
        one_of(("cosine", "steps", "constant")),
    )
    momentum: float = field(0.9, "Momentum of SGD.", Group.OPTIMISATION, BELOW_1)
    weight_decay: float = field(
        0.0,
        "Weight decay: the multiple of a kernel that adam and sgd add to its gradient; adamw and "
        "lion subtract the multiple, times the learning rate, from the kernel itself.",
        Group.OPTIMISATION,
        AT_LEAST_0,
    )
    clipnorm: float | None = field(
        None, "Largest norm of each weight's gradient. [any]", Group.OPTIMISATION, POSITIVE
    )
    global_clipnorm: float | None = field(
        None, "Largest norm of all gradients together. [any]", Group.OPTIMISATION, POSITIVE
    )
    clipvalue: float | None = field(
        None, "Largest absolute value in a gradient. [any]", Group.OPTIMISATION, POSITIVE
    )
    gradient_accumulation_steps: int = field(
        1,
        "Steps whose gradients are averaged before weights change; the learning rate and averages "
        "of weights advance at every step.",
        Group.OPTIMISATION,
        AT_LEAST_1,
    )
    use_ema: bool = field(
        False,
        "Whether an exponential moving average of the weights is evaluated, saved and exported; "
        "training goes on from the weights themselves.",
        Group.OPTIMISATION,
    )
    ema_momentum: float = field(
        0.99, "Share of the average that a step keeps.", Group.OPTIMISATION, BELOW_1
    )
    label_smoothing: float = field(
        0.0, "Fraction of the target that is spread over all classes.", Group.OPTIMISATION, BELOW_1
    )
    precision: str = field(
        "float32",
        "Precision in which layers compute; weights are float32.",
        Group.OPTIMISATION,
        one_of(("float32", "mixed_bfloat16", "mixed_float16")),
    )
    validation_every: int = field(
        1, "Epochs from one validation to the next.", Group.OPTIMISATION, AT_LEAST_1
    )
    weights: str | None = field(
        None,
        "File .keras, or folder of a run, with whose weights to start: each layer takes those of "
        "the layer of the same name, and a low-rank layer also those of a convolution, as which "
        "it starts. The last layer may have other classes. Or a network of keras.applications, "
        "which is trained on from the weights in Keras's cache folder: "
        f"{', '.join(APPLICATIONS)}. [random weights]",
        Group.OPTIMISATION,
        path=True,
    )
    freeze_epochs: int = field(
        0,
        "First epochs in which the layers that --weights gave do not learn.",
        Group.OPTIMISATION,
        AT_LEAST_0,
    )
    seed: int = field(
        0, "Seed of everything random; the first of a sweep's.", Group.OPTIMISATION, UINT32
    )
    strategy: str = field(
        "auto",
        "Where to train: auto uses every available device.",
        Group.DEVICES,
        one_of(("auto", "one_device", "mirrored", "multi_worker", "tpu")),
    )
    tpu: str | None = field(
        None, "Name or address of a TPU; 'local' on the machine that has it.", Group.DEVICES
    )
    synchronized_batch_norm: bool = field(
        False, "Whether replicas share batch statistics. [each has its own]", Group.DEVICES
    )
    virtual_devices: int | None = field(
        None,
        "Number of devices into which to divide the CPU, to try out a strategy. [one]",
        Group.DEVICES,
        AT_LEAST_1,
    )
    peers_timeout: float = field(
        300.0, "Seconds to wait for the other workers to start.", Group.DEVICES, POSITIVE
    )
    checkpoint_steps: int | None = field(
        None, "Steps between checkpoints within an epoch. [none]", Group.SAVING, AT_LEAST_1
    )
    checkpoint_minutes: float | None = field(
        None, "Minutes between checkpoints within an epoch. [none]", Group.SAVING, POSITIVE
    )
    keep_checkpoints: int = field(
        2, "How many of the newest checkpoints to keep, besides the best.", Group.SAVING, AT_LEAST_1
    )
    model_dir: str = field(
        None,
        "Folder for the files of the run or sweep. [runs/<dataset>-<network>-<seed or sweep>, and "
        "the flags of a run that differ from the defaults]",
        Group.SAVING,
        path=True,
    )
    evaluation: bool = field(
        True,
        "Whether a trained network's answers for test examples are evaluated class by class, in "
        "evaluation.json and confusion.png.",
        Group.SAVING,
    )
    no_lock: bool = field(
        False,
        "Whether to use the folder without a lock, if its file system has none. No other process "
        "may use it then.",
        Group.SAVING,
    )
    callbacks: str | None = field(
        None,
        "Function that is given the Experiment and returns Keras callbacks, as MODULE:FUNCTION, "
        "such as those of MLflow. They must not change the run. [none]",
        Group.SAVING,
        FUNCTION,
    )
    profile: tuple[str, ...] = field(
        (),
        "First and last step, from 1, of which to write a trace for TensorBoard: START,END.",
        Group.SAVING,
        STEPS,
    )
    export_formats: tuple[str, ...] = field(
        ("tf_saved_model",),
        f"Formats to export: {', '.join(FORMATS)}; or none.",
        Group.EXPORT,
        some_of(FORMATS, "takes {}, or none for no export"),
    )
    serving_batch_size: int | None = field(
        None,
        "Batch size at which to measure which form of the model is fastest to serve. [1]",
        Group.EXPORT,
        AT_LEAST_1,
    )

    def __post_init__(self) -> None:
        self._fill()
        for one in dataclasses.fields(self):
            value, accepted = getattr(self, one.name), about(one).accepted
            if accepted is not None and value is not None:
                self._require(one.name, accepted.holds(value), accepted.words)
        self._check_data()
        self._check_dimensions()
        has_stem = self.stem == "imagenet" or "stem" in NETWORKS[self.network].options
        self._require("stem", has_stem, f"needs a ResNet that is not full, not {self.network}")
        relaxes = not self.relax or "relax" in NETWORKS[self.network].options
        sentence = f"needs a network of keras.applications, not {self.network}"
        self._require("relax", relaxes, sentence)
        if NETWORKS[self.network].stages:
            self._check_residual_layers()
        elif NETWORKS[self.network].num_layers:
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
        self._check_packages()

    def _fill(self) -> None:
        """Fills in the fields that are None but must have values."""
        defaults = {
            "share_row_combining_weights": not self.input_dependent,
            "share_col_combining_weights": not self.input_dependent,
            "warmup_epochs": self.epochs // 10,
            "model_dir": f"runs/{self.dataset}-{self.network}-{self.seed}",
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # as the dataclass is frozen

    def _follow_data(self) -> None:
        """Makes the network's usual layers those of signals or volumes, where the data is such."""
        usual: Any = {one.name: one.default for one in dataclasses.fields(self)}["layer_types"]
        if self.layer_types == usual:
            kinds = tuple(in_dimensions(kind, self.placed.dimensions) for kind in usual)
            object.__setattr__(self, "layer_types", kinds)

    def _require(self, name: str, holds: bool, sentence: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = ",".join(value) if isinstance(value, tuple) else value
            raise ValueError(f"--{name} {sentence}. Received: --{name}={shown}.")

    def _check_data(self) -> None:
        resizable = DATASETS[self.dataset].resizable
        sized = self.image_size is None or (resizable and self.image_size >= 1)
        sentence = f"needs a dataset of images of any size, not {self.dataset}"
        self._require("image_size", sized, sentence if not resizable else "must be at least 1")
        self._check_views()
        dataset = self.placed
        side = max(dataset.image_shape[:-1])
        holds = self.canvas_size is None or (self.translate and self.canvas_size >= side)
        sentence = f"needs --translate and must be at least the images' {side} pixels"
        self._require("canvas_size", holds, sentence)
        all_of_them = dataset.split_sizes[0]
        some = self.train_examples is None or 1 <= self.train_examples <= all_of_them
        streamed = self.dataset == "imagenet2012" and self.train_examples is not None
        self._require(
            "train_examples", not streamed, "needs examples that can be chosen one by one"
        )
        sentence = f"must be from 1 to the {all_of_them} training examples of {self.dataset}"
        self._require("train_examples", some, sentence)

    def _check_dimensions(self) -> None:
        """Checks that data and network have as many spatial axes, and gives the layers as many."""
        count, shape = self.placed.dimensions, self.placed.image_shape
        if count == 2:
            return
        what = f"images, not examples of shape {'x'.join(map(str, shape))} in {self.dataset}"
        known = count in NETWORKS[self.network].dimensions
        self._require("network", known, f"needs {what}: choose simple_network")
        for name in ("translate", "augment", "coord_conv"):
            self._require(name, not getattr(self, name), f"needs {what}")
        shared = self.share_row_combining_weights == self.share_col_combining_weights
        self._require(
            "share_row_combining_weights",
            shared,
            f"must equal --share_col_combining_weights for other data than {what}",
        )
        self._follow_data()

    def _check_views(self) -> None:
        if self.eval_crop is not None:
            of_files = DATASETS[self.dataset].encoded
            sentence = f"needs a dataset of images of any size, not {self.dataset}"
            self._require("eval_crop", of_files, sentence)

    def _check_layers(self) -> None:
        network = NETWORKS[self.network]
        count = network.num_layers
        here = BY_DIMENSIONS[self.placed.dimensions]
        fitting = set(self.layer_types) <= set(here)
        self._require("layer_types", fitting, f"takes names among {', '.join(here)}")
        few = len(self.layer_types) <= count
        self._require("layer_types", few, f"must name at most the {count} layers of {self.network}")
        for name in ("insert_layer", "replace"):
            self._require(name, not getattr(self, name), f"needs a ResNet, not {self.network}")
        shape = self.data.input_shape
        sizes = network.output_sizes(shape, self.kernel_size) if network.output_sizes else []
        fits = min(map(min, sizes)) >= 1
        what = "x".join(map(str, shape[:-1]))
        inputs = {1: "signals", 2: "images", 3: "volumes"}[len(shape) - 1]
        sentence = f"must leave {count} layers a position in {what} {inputs}"
        self._require("kernel_size", fits, sentence)
        self._check_rank(zip(self.filled_layer_types, sizes, strict=True))

    def _check_residual_layers(self) -> None:
        network = NETWORKS[self.network]
        plain = {"layer_types": (), "kernel_size": 3, "filters": 64, "coord_conv": False}
        for name, value in plain.items():
            sentence = f"belongs to simple_network, and {self.network} has --insert_layer and "
            self._require(name, getattr(self, name) == value, sentence + "--replace instead")
        known = set(self.replace) <= set(network.stages)
        self._require("replace", known, f"takes stages among {', '.join(network.stages)}, or all")
        choice = {"stem": self.stem} if "stem" in network.options else {}
        sizes = network.site_sizes(self.data.input_shape, **choice) if network.site_sizes else {}
        sentence = "changes sizes, so only a whole ResNet can be full: --network=full_resnet18"
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
        """Checks the flags of a network that has layers of its own."""
        plain = {"layer_types": (), "kernel_size": 3, "filters": 64, "coord_conv": False}
        for name, value in plain.items():
            if name not in NETWORKS[self.network].options:
                sentence = f"does not apply to {self.network}, which has layers of its own"
                self._require(name, getattr(self, name) == value, sentence)
        sentence = f"needs a ResNet whose layers can be replaced, not {self.network}"
        for name in ("insert_layer", "replace"):
            self._require(name, not getattr(self, name), sentence)
        if self.network in APPLICATIONS:
            self._check_application()
        if not NETWORKS[self.network].turned:
            return
        odd = self.kernel_size % 2 == 1
        self._require("kernel_size", odd, f"must be odd in {self.network}")
        height, width, _ = self.data.input_shape
        sentence = f"needs images whose sides are both even or both odd, not {height}x{width}"
        self._require("network", (height - width) % 2 == 0, sentence)

    def _check_application(self) -> None:
        """Checks what a network of keras.applications does not let be chosen."""
        shape = "x".join(map(str, self.placed.image_shape))
        sentence = f"needs images of 3 channels, not of {shape}"
        self._require("network", self.placed.image_shape[-1] == 3, sentence)
        decays = self.weight_decay == 0 or self.optimizer not in ("adam", "sgd")
        sentence = f"needs --optimizer=adamw or lion in {self.network}"
        self._require("weight_decay", decays, sentence)
        sentence = f"does not apply to {self.network}, which has layers of its own"
        self._require("synchronized_batch_norm", not self.synchronized_batch_norm, sentence)

    def _check_rank(self, layers: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        for kind, size in layers:
            if kind.startswith("low_rank_locally_connected"):
                positions = math.prod(size)
                sentence = f"must be at most the layer's number of positions, {positions}"
                self._require("spatial_rank", self.spatial_rank <= positions, sentence)

    def _check_training(self) -> None:
        examples = self.train_examples or self.placed.split_sizes[0]
        sentence = f"must be at most the {examples} training examples"
        self._require("batch_size", self.batch_size <= examples, sentence)
        below = 0 <= self.warmup_epochs < self.epochs
        self._require("warmup_epochs", below, f"must be from 0 to below --epochs={self.epochs}")
        frozen, most = self.freeze_epochs, self.epochs if self.weights is not None else 0
        what = f"must be at most --epochs={self.epochs}" if most else "needs --weights"
        self._require("freeze_epochs", frozen <= most, what)
        if self.weights in APPLICATIONS:
            own = self.network == self.weights
            self._require("weights", own, f"needs --network={self.weights}, or none")
        given = [name for name in LIMITS if getattr(self, name) is not None]
        for name in given[1:]:
            self._require(name, False, f"must be given without --{given[0]}: one limit applies")
        if self.strategy in REPLICATED and backend_name() == "tensorflow":
            self.check_replicas()

    def check_replicas(self) -> None:
        """Raises a `ValueError` if TensorFlow's replicas cannot train with these settings."""
        for name in LIMITS:
            alone = getattr(self, name) is None
            why = "where TensorFlow limits the gradients of each replica and not their sum"
            self._require(name, alone, f"cannot be used with several replicas, {why}")
        one = self.gradient_accumulation_steps == 1
        why = "whose gradients TensorFlow cannot keep from step to step"
        self._require(
            "gradient_accumulation_steps", one, f"cannot be used with several replicas, {why}"
        )
        none = self.freeze_epochs == 0
        self._require("freeze_epochs", none, "cannot be used with several replicas of TensorFlow")

    def _check_packages(self) -> None:
        """Refuses exports whose packages are missing before training rather than after it."""
        # The check of the backend has a message for TensorFlow, which every run needs.
        backend = backend_name()
        needed = {
            name
            for kind in self.export_formats
            for name in FORMATS[kind].backends.get(backend, {})
            if name != "tensorflow"
        }
        missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
        sentence = f"needs {', '.join(missing)}: pip install 'low-rank-local-connectivity[export]'"
        self._require("export_formats", not missing, sentence)

    @functools.cached_property
    def placed(self) -> Dataset:
        """The dataset, with its shapes, classes and sizes found in its folder."""
        return DATASETS[self.dataset].at(self.data_dir, self.image_size)

    @property
    def data(self) -> Dataset:
        """The dataset, augmented, cropped and translated as the flags say."""
        dataset = self.placed.augmented(self.augment).cropped(self.eval_crop)
        if not self.translate:
            return dataset
        side = self.canvas_size or 3 * max(dataset.image_shape[:2]) // 2
        return dataset.translated((side, side))

    @property
    def filled_layer_types(self) -> tuple[str, ...]:
        """The kind of every layer of the network."""
        missing = NETWORKS[self.network].num_layers - len(self.layer_types)
        return self.layer_types + (f"conv{self.placed.dimensions}d",) * missing

    def build(self):
        """Builds the network; needs a framework."""
        from low_rank_local_connectivity.training import session

        dataset, network = self.data, NETWORKS[self.network]
        penalty = 0.0 if self.optimizer in session.DECOUPLED else self.weight_decay
        of_all = {"weight_decay": penalty, "synchronized": self.synchronized_batch_norm}
        if network.stages:
            insert = self.insert_layer and convolution(self.insert_layer, self.settings)
            replace = {
                stage: convolution(self.replace_with, self.settings) for stage in self.replace
            }
            of_all |= {"insert": insert, "replace": replace}
        elif self.network in APPLICATIONS:
            return self._application()
        elif network.num_layers:
            makers = [convolution(kind, self.settings) for kind in self.filled_layer_types]
            of_all |= {"convolutions": makers}
        of_all |= {name: getattr(self, name) for name in network.options}
        return network.build(dataset.input_shape, dataset.num_classes, **of_all)

    def _application(self):
        """Builds a network of keras.applications."""
        from low_rank_local_connectivity.training import RunError

        try:
            return NETWORKS[self.network].build(
                self.data.input_shape,
                self.data.num_classes,
                value_range=self.data.value_range,
                relax=self.relax,
                settings=self.settings,
            )
        except ValueError as error:
            raise RunError(" ".join(str(error).split())) from None

    @property
    def settings(self) -> Settings:
        """The settings of layers that are not plain convolutions."""
        names = [field.name for field in dataclasses.fields(Settings)]
        return Settings(**{name: getattr(self, name) for name in names})

    @property
    def layers_in_words(self) -> str:
        """The kinds of the network's layers, in a line."""
        if NETWORKS[self.network].num_layers:
            return " > ".join(self.filled_layer_types)
        changes = [f"{self.insert_layer} inserted"] if self.insert_layer else []
        changes += [f"{LOW_RANK_KIND} in {', '.join(self.relax)}"] if self.relax else []
        changes += [f"{self.replace_with} in {', '.join(self.replace)}"] if self.replace else []
        return f"{self.network}, {' and '.join(changes) or 'unchanged'}"

    def recipe(self, steps_per_epoch: int):
        """Returns how to train; needs a framework."""
        from low_rank_local_connectivity.training import Recipe

        names = [field.name for field in dataclasses.fields(Recipe)]
        found = {"steps_per_epoch": steps_per_epoch, "soft_labels": self.data.soft_labels}
        own = {name: getattr(self, name) for name in names if name not in found}
        return Recipe(**found, **own)

    def config(self) -> dict[str, Any]:
        """Returns all fields, the backend and a description of the images, for JSON."""
        found: dict[str, Any] = {**dataclasses.asdict(self), "backend": backend_name()}
        if DATASETS[self.dataset].complete is not None:
            # Whose name is the same whatever lies in the folder.
            found["images"] = _told_apart(self.placed)
        if self.weights is not None and (digest := digest_of(self.weights)):
            found["weights_sha256"] = digest
        return json.loads(json.dumps(found))

    def recorded_config(self) -> dict[str, Any]:
        """Returns the configuration in a record of the run, without the places of its files.

        A newer field is left out if its value is what runs did before it existed, so that older
        and newer records have the same budgets and names.
        """
        return recorded(self.config())


def recorded(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a run's configuration that its record has; see `recorded_config`."""
    before = {"backend": "tensorflow", **defaults_of(LATER)}
    if not DATASETS[config["dataset"]].encoded:  # whose images were always cropped
        before |= {"augment": [], "eval_crop": None}
    return {
        name: value
        for name, value in config.items()
        if name not in (*PLACES, *SAVING, *WATCHING)
        and not (name in before and value == before[name])
    }


def defaults_of(names: Iterable[str]) -> dict[str, Any]:
    """Returns the default values of some fields of an experiment, as in JSON."""
    found = {one.name: one.default for one in dataclasses.fields(Experiment)}
    return json.loads(json.dumps({name: found[name] for name in names}))


def _told_apart(dataset: Dataset) -> str:
    """Returns a description that distinguishes a folder's images from another's."""
    train, valid, test = dataset.split_sizes
    names = hashlib.sha256(json.dumps(dataset.class_names).encode()).hexdigest()[:8]
    return (
        f"{train} train, {valid} valid and {test} test images of {dataset.num_classes} classes "
        f"({names})"
    )
