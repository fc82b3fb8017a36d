"""Steps per second of run_experiment.py against a bare loop over batches that are ready.

    python -m benchmarks.training_loop --dataset=digits --epochs=6

Takes the script's own flags, except `--model_dir`, and trains in a temporary folder on
TensorFlow. After every epoch the same compiled step runs on the epoch's first batches, held as
tensors, with no pipeline, callbacks or progress bar; the first epoch is left out.
"""

import statistics
import sys
import tempfile
import time
from typing import Any

from absl import flags

import run_experiment
from experiments.experiment import Experiment

READY = 32


class Watch:
    """Times a model's epochs in `fit`, and after each the same steps without it."""

    def __init__(self, model, batches) -> None:
        self.model = model
        self.ready = list(batches.take(READY))
        self.started: float | None = None
        self.steps = 0
        self.seconds = 0.0
        self.script: list[float] = []
        self.bare: list[float] = []
        self.compiled: Any = None

    def begin(self, epoch, logs) -> None:
        """Waits for the first step's end, so that filling the buffers does not count."""
        del epoch, logs
        self.started = None

    def step(self, batch, logs) -> None:
        """Notes the time since the first step."""
        del logs
        now = time.perf_counter()
        self.started = self.started or now
        self.steps, self.seconds = batch, now - self.started

    def end(self, epoch, logs) -> None:
        """Runs as many bare steps as the epoch had; the first time, only compiles them."""
        if epoch == 0:
            import tensorflow as tf

            self.compiled = tf.function(self.model.train_step, jit_compile=False)
            self.compiled(self.ready[0])
            return
        started = time.perf_counter()
        for index in range(self.steps):
            logs = self.compiled(self.ready[index % READY])
        float(logs["loss"])
        self.script.append(self.steps / self.seconds)
        self.bare.append(self.steps / (time.perf_counter() - started))


def run(experiment: Experiment) -> Watch:
    """Runs the script's own training with a watch among its callbacks."""
    import keras

    fit = keras.Model.fit
    watches = []

    def watched_fit(model, batches, callbacks, **arguments):
        watch = Watch(model, batches)
        watches.append(watch)
        callback = keras.callbacks.LambdaCallback(
            on_epoch_begin=watch.begin, on_epoch_end=watch.end, on_train_batch_end=watch.step
        )
        return fit(model, batches, callbacks=[*callbacks, callback], **arguments)

    keras.Model.fit = watched_fit
    run_experiment.run(experiment)
    return watches[0]


def main() -> None:
    """Measures the run that the flags describe."""
    with tempfile.TemporaryDirectory() as folder:
        flags.FLAGS([*sys.argv, f"--model_dir={folder}/run", "--export_formats=none"])
        experiment = run_experiment.experiment_from_flags()
        run_experiment.load_framework()
        watch = run(experiment)
    script, bare = statistics.median(watch.script), statistics.median(watch.bare)
    print(f"script: {script:.2f} steps per second")
    print(f"bare loop: {bare:.2f} steps per second")
    print(f"script / bare loop: {script / bare:.1%}")


if __name__ == "__main__":
    main()
