"""Latency and size of what is served: a low-rank layer, its converted form, and a convolution.

    python -m benchmarks.serving --convolution=RUN/model.keras --low_rank=RUN/model.keras

One layer of W1, and two trained networks, of convolutions and with a low-rank third layer, exported
in every format and run by its runtime, alternately in one process. Without the two files the small
network for MNIST is measured untrained.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

from benchmarks.steps import alternate
from benchmarks.workloads import WORKLOADS
from low_rank_local_connectivity import layers
from low_rank_local_connectivity.conversion import convert, fold_batch_normalization
from low_rank_local_connectivity.export import FORMATS, export_model
from low_rank_local_connectivity.export.forms import bank_by_bank
from low_rank_local_connectivity.export.signatures import Served, ports
from models import MODELS, Settings, convolution

BATCHES = (1, 16, 128)
LOW_RANK = "low rank, K=4"
# Each form: which of the two models it is, and how it is converted.
FORMS = {
    "convolution": ("convolution", convert),
    LOW_RANK: (LOW_RANK, lambda model: model),
    f"{LOW_RANK}, bank by bank": (LOW_RANK, lambda model: convert(model, bank_by_bank)),
    f"{LOW_RANK}, converted": (LOW_RANK, convert),
}


def single_layers() -> dict[str, keras.Model]:
    """Returns models of one layer of W1."""
    workload = WORKLOADS["W1"]
    inputs = keras.Input(workload.input_shape[1:], name="image")
    arguments = workload.arguments
    return {
        "convolution": keras.Model(inputs, keras.layers.Conv2D(**arguments)(inputs)),
        LOW_RANK: keras.Model(
            inputs, layers.LowRankLocallyConnected2D(**arguments, spatial_rank=4)(inputs)
        ),
    }


def trained(convolution_path: str, low_rank_path: str) -> dict[str, keras.Model]:
    """Returns the networks that two runs of run_experiment.py trained."""
    load = keras.saving.load_model
    return {"convolution": load(convolution_path), LOW_RANK: load(low_rank_path)}


def networks() -> dict[str, keras.Model]:
    """Returns the small network for MNIST, all convolutions or with a low-rank third layer."""
    plain = convolution("conv2d", Settings())
    low_rank = convolution("low_rank_locally_connected2d", Settings(spatial_rank=4))
    build = MODELS["simple_network"].build
    return {
        "convolution": build((28, 28, 1), 10, [plain] * 3),
        LOW_RANK: build((28, 28, 1), 10, [plain, plain, low_rank]),
    }


def measure(models: dict[str, keras.Model], rounds: int) -> None:
    """Prints a table of one workload."""
    shape = tuple(models["convolution"].inputs[0].shape)[1:]
    images = np.random.default_rng(0).normal(size=(max(BATCHES), *shape)).astype("float32")
    print("| format | form | kB | " + " | ".join(f"ms at {batch}" for batch in BATCHES) + " |")
    print("|---|---|---|" + "---|" * len(BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in FORMATS.items():
            if kind.integers:
                continue
            sizes, runs = {}, {}
            for form, (which, converted) in FORMS.items():
                path = Path(folder) / name / form
                model = fold_batch_normalization(converted(models[which]))
                manifest = export_model(model, path, [name], convert=False)
                sizes[form] = manifest["formats"][name]["bytes"]
                served = Served(model, *ports(model))
                run, image = kind.run(path / kind.file, served), served.inputs[0].name
                runs[form] = lambda batch, run=run, image=image: run({image: batch})
            found = {form: [] for form in FORMS}
            for batch in BATCHES:
                steps = {
                    form: (lambda run=run, batch=batch: run(images[:batch]))
                    for form, run in runs.items()
                }
                for form, seconds in alternate(steps, rounds).items():
                    found[form].append(1000 * seconds)
            for form, values in found.items():
                first = found["convolution"]
                cells = [
                    f"{value:.2f} ({value / other:.2f})"
                    for value, other in zip(values, first, strict=True)
                ]
                print(f"| {name} | {form} | {sizes[form] / 1000:.0f} | {' | '.join(cells)} |")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--convolution", help="model.keras of a run with convolutions only")
    parser.add_argument("--low_rank", help="model.keras of a run with a low-rank third layer")
    arguments = parser.parse_args()
    files = (arguments.convolution, arguments.low_rank)
    found = trained(*files) if all(files) else networks()
    for title, models in (("W1, one layer", single_layers()), ("MNIST network", found)):
        print(f"\n{title}: milliseconds, in brackets in convolutions\n")
        measure(models, arguments.rounds)


if __name__ == "__main__":
    main()
