"""Trains one network on one dataset, and leaves behind its result, a picture and a servable model.

    python run_experiment.py --dataset=digits --spatial_rank=4

Everything is a flag; `--help` lists them. The flags become an `Experiment`, which is checked before
any framework is loaded. Running the same command again continues an unfinished run and prints the
result of a finished one.
"""

import dataclasses
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

from data import DATASETS
from models import CONVOLUTIONS, MODELS, Settings, convolution

FLAGS = flags.FLAGS

# A run is the same run wherever its data and results lie.
PLACES = ("data_dir", "download", "model_dir")
INITIALIZERS = (
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

flags.DEFINE_enum("dataset", "digits", list(DATASETS), "Images to classify.")
flags.DEFINE_string("data_dir", None, "Folder of prepared data. [tensorflow-datasets' own]")
flags.DEFINE_bool("download", False, "Whether data that is not there may be downloaded.")
flags.DEFINE_enum("network", "simple_network", list(MODELS), "Network to train.")
flags.DEFINE_list(
    "layer_types",
    "conv2d,conv2d,low_rank_locally_connected2d",
    f"Kind of each layer, first to last, conv2d where none is named: {', '.join(CONVOLUTIONS)}.",
)
flags.DEFINE_integer("spatial_rank", 4, "Filter banks of a low-rank layer, or a width to match.")
flags.DEFINE_integer("kernel_size", 3, "Taps of each layer per axis.")
flags.DEFINE_integer("filters", 64, "Filters of each layer.")
flags.DEFINE_enum(
    "normalize_weights", "softmax", ["softmax", "norm", "none"], "How combining weights normalise."
)
flags.DEFINE_enum(
    "combining_weights_initializer", "conv_init", INITIALIZERS, "Initial combining weights."
)
flags.DEFINE_bool(
    "share_row_combining_weights", None, "Whether each row has logits. [unless input-dependent]"
)
flags.DEFINE_bool(
    "share_col_combining_weights", None, "Whether each column has logits. [unless input-dependent]"
)
flags.DEFINE_bool("input_dependent", False, "Whether combining weights depend on the input.")
flags.DEFINE_bool("use_spatial_bias", True, "Whether low-rank layers have a spatial bias.")
flags.DEFINE_enum(
    "locally_connected_fan",
    "position",
    ["position", "kernel"],
    "Fans of locally connected layers' initial values; the paper's were 'kernel'.",
)
flags.DEFINE_bool("coord_conv", False, "Whether the network's input gets coordinate channels.")
flags.DEFINE_integer("batch_size", 64, "Examples per step, over all devices.")
flags.DEFINE_integer("epochs", 30, "Passes over the training examples.")
flags.DEFINE_float("peak_learning_rate", 0.01, "Highest learning rate of Adam.")
flags.DEFINE_integer("warmup_epochs", None, "Epochs of rising learning rate. [a tenth of them]")
flags.DEFINE_integer("seed", 0, "Seed of everything random.")
flags.DEFINE_enum("strategy", "auto", ["auto", "one_device"], "Where to train.")
flags.DEFINE_string(
    "model_dir", None, "Folder of the run's files. [runs/<dataset>-<network>-<seed>]"
)
flags.DEFINE_list("export_formats", "tf_saved_model", "Formats to export: tf_saved_model, or none.")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run, with every choice made; the fields are the flags of the same names.

    Raises:
        ValueError: If a field is out of its range, or fields contradict each other.
    """

    dataset: str
    data_dir: str | None
    download: bool
    network: str
    layer_types: tuple[str, ...]
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
    peak_learning_rate: float
    warmup_epochs: int
    seed: int
    strategy: str
    model_dir: str
    export_formats: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("spatial_rank", "kernel_size", "filters", "batch_size", "epochs"):
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        self._check_layers()
        self._check_training()
        known = set(self.export_formats) <= {"tf_saved_model"}
        self._require("export_formats", known, "takes tf_saved_model, or nothing for no export")

    def _require(self, name: str, holds: bool, sentence: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = ",".join(value) if isinstance(value, tuple) else value
            raise ValueError(f"--{name} {sentence}. Received: --{name}={shown}.")

    def _check_layers(self) -> None:
        network = MODELS[self.network]
        count = network.num_layers
        listed = ", ".join(CONVOLUTIONS)
        known = set(self.layer_types) <= set(CONVOLUTIONS)
        self._require("layer_types", known, f"takes names among {listed}")
        few = len(self.layer_types) <= count
        self._require("layer_types", few, f"names at most the {count} layers of {self.network}")
        shape = DATASETS[self.dataset].image_shape
        sizes = network.output_sizes(shape, self.kernel_size)
        fits = min(map(min, sizes)) >= 1
        what = "x".join(map(str, shape[:2]))
        self._require("kernel_size", fits, f"must leave {count} layers a position in {what} images")
        for kind, size in zip(self.filled_layer_types, sizes, strict=True):
            if kind == "low_rank_locally_connected2d":
                positions = math.prod(size)
                sentence = f"must be at most the layer's number of positions, {positions}"
                self._require("spatial_rank", self.spatial_rank <= positions, sentence)
        shared = self.share_row_combining_weights or self.share_col_combining_weights
        self._require(
            "input_dependent",
            not (self.input_dependent and shared),
            "needs --share_row_combining_weights and --share_col_combining_weights off",
        )

    def _check_training(self) -> None:
        dataset = DATASETS[self.dataset]
        examples = dataset.split_sizes[0]
        sentence = f"must be at most the {examples} training examples of {self.dataset}"
        self._require("batch_size", self.batch_size <= examples, sentence)
        rate = self.peak_learning_rate
        sentence = "must be a positive number"
        self._require("peak_learning_rate", 0 < rate < math.inf, sentence)
        below = 0 <= self.warmup_epochs < self.epochs
        self._require("warmup_epochs", below, f"must be from 0 to below --epochs={self.epochs}")
        self._require("seed", 0 <= self.seed < 2**32, "must be from 0 to 4294967295")

    @property
    def filled_layer_types(self) -> tuple[str, ...]:
        """The kind of every layer of the network."""
        missing = MODELS[self.network].num_layers - len(self.layer_types)
        return self.layer_types + ("conv2d",) * missing

    @property
    def settings(self) -> Settings:
        """What the makers of layers are told."""
        names = [field.name for field in dataclasses.fields(Settings)]
        return Settings(**{name: getattr(self, name) for name in names})

    def config(self) -> dict[str, Any]:
        """Returns all fields as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def experiment_from_flags() -> Experiment:
    """Returns the experiment that the flags describe, defaults that depend on others filled in."""
    values: dict[str, Any] = {
        field.name: FLAGS[field.name].value for field in dataclasses.fields(Experiment)
    }
    if values["normalize_weights"] == "none":
        values["normalize_weights"] = None
    for name in ("share_row_combining_weights", "share_col_combining_weights"):
        if values[name] is None:
            values[name] = not values["input_dependent"]
    if values["warmup_epochs"] is None:
        values["warmup_epochs"] = values["epochs"] // 10
    if values["model_dir"] is None:
        values["model_dir"] = "runs/{dataset}-{network}-{seed}".format(**values)
    formats = tuple(name for name in values["export_formats"] if name not in ("", "none"))
    layer_types = tuple(name.strip() for name in values["layer_types"])
    return Experiment(**{**values, "layer_types": layer_types, "export_formats": formats})


def check_folder(experiment: Experiment) -> dict[str, Any] | None:
    """Makes sure that the run's folder is its own.

    Args:
        experiment: The run.

    Returns:
        The result, if the run is finished.

    Raises:
        ValueError: If the folder holds another run, or files that are not a run's.
    """
    folder = Path(experiment.model_dir)
    config_path, result_path = folder / "config.json", folder / "result.json"
    if not config_path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                "--model_dir must be a new folder or hold a run of this script. Received: "
                f"--model_dir={folder}, which holds something else. Choose another."
            )
        return None
    there, here = json.loads(config_path.read_text()), experiment.config()
    names = sorted(set(there) | set(here) - set(PLACES))
    different = [
        f"--{name} is {there.get(name)} there and {here.get(name)} here"
        for name in names
        if name not in PLACES and there.get(name) != here.get(name)
    ]
    if different:
        raise ValueError(
            "--model_dir must not hold a run with other flags. Received: "
            f"--model_dir={folder}, where {'; '.join(different)}. Choose another."
        )
    return json.loads(result_path.read_text()) if result_path.exists() else None


def summary(result: dict[str, Any], folder: str) -> str:
    """Returns a result in one line."""
    return (
        f"Result: test accuracy {result['test_accuracy']:.4f}, valid accuracy "
        f"{result['valid_accuracy']:.4f}, {result['parameters']:,} parameters, "
        f"{result['seconds']:.1f} s, in {folder}"
    )


def load_framework() -> None:
    """Imports Keras and its backend, which tell of the machine on the way; errors are shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as notes:
        standard_error = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf  # the data pipeline needs it on every backend

            import low_rank_local_connectivity

            del tf, low_rank_local_connectivity
        except BaseException:
            notes.seek(0)
            os.write(standard_error, notes.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


def run(experiment: Experiment) -> dict[str, Any]:
    """Trains, scores, draws and exports.

    Args:
        experiment: A run whose folder `check_folder` has accepted.

    Returns:
        The result, as it stands in `result.json`.
    """
    load_framework()
    from data.pipeline import evaluation_batches, steps_per_epoch, training_batches
    from low_rank_local_connectivity import plots, training

    training.make_deterministic(experiment.seed)
    dataset = DATASETS[experiment.dataset]
    splits = dataset.load(experiment.data_dir, experiment.download)
    folder = Path(experiment.model_dir)
    training.write_json(folder / "config.json", experiment.config())

    makers = [convolution(kind, experiment.settings) for kind in experiment.filled_layer_types]
    model = MODELS[experiment.network].build(
        dataset.image_shape,
        dataset.num_classes,
        makers,
        filters=experiment.filters,
        kernel_size=experiment.kernel_size,
        coord_conv=experiment.coord_conv,
    )
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    sizes = ", ".join(f"{len(splits[name]):,} {name}" for name in splits)
    print(f"{dataset.name}: {sizes}. {' > '.join(experiment.filled_layer_types)}: ", end="")
    print(f"{parameters:,} trainable parameters. Files in {folder}.", flush=True)

    size, seed, epochs = experiment.batch_size, experiment.seed, experiment.epochs
    train, valid, test = (splits[name] for name in ("train", "valid", "test"))
    plan = training.Plan(
        epochs,
        steps_per_epoch(train, size),
        experiment.peak_learning_rate,
        experiment.warmup_epochs,
    )
    valid_batches = evaluation_batches(dataset, valid, size)
    recovery = training.train(
        model,
        plan,
        lambda start: training_batches(dataset, train, size, epochs, seed, start),
        valid_batches,
        folder,
    )
    training.save(model, folder / "model.keras")
    images = dataset.prepare(test.images[: plots.EXAMPLES].astype("float32"))
    plots.combining_weight_maps(model, folder / "combining_weights.png", images)
    export(model, experiment)
    result = {
        "valid_accuracy": training.score(model, valid_batches),
        "test_accuracy": training.score(model, evaluation_batches(dataset, test, size)),
        "train_accuracy": recovery.rows[-1]["accuracy"],
        "parameters": parameters,
        "seconds": round(recovery.seconds, 1),
        "versions": training.versions(),
    }
    training.write_json(folder / "result.json", result)
    return result


def export(model, experiment: Experiment) -> None:
    """Writes the exports that the flags ask for, as far as the backend can."""
    import keras

    from low_rank_local_connectivity.export import export_model

    folder = Path(experiment.model_dir) / "saved_model"
    if keras.backend.backend() == "torch" and experiment.export_formats:
        print("No SavedModel: Keras writes none on PyTorch. Load model.keras under TensorFlow.")
    elif experiment.export_formats and not (folder / "1").exists():
        export_model(model, folder, experiment.export_formats)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with one is said in one sentence."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        refuse(error)


def refuse(error: Exception) -> NoReturn:
    """Ends the program over something that its caller can mend."""
    print(f"run_experiment.py: {error}", file=sys.stderr)
    sys.exit(2)


def main(argv: list[str]) -> None:
    """Runs the experiment that the flags describe, or prints its result if it is finished."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow tells through it how it saves
    try:
        if argv[1:]:
            raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}.")
        experiment = experiment_from_flags()
        result = check_folder(experiment)
        if result is None and not experiment.download:
            DATASETS[experiment.dataset].find(experiment.data_dir)
    except (ValueError, FileNotFoundError) as error:
        refuse(error)
    if result is None:
        result = run(experiment)
    print(summary(result, experiment.model_dir))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
