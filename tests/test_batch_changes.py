"""Changes of whole batches: as Keras's layers make them, whatever came before, labels with them."""

import dataclasses
import importlib

import keras
import numpy as np
import pytest
from backends import to_numpy

from low_rank_local_connectivity.data import DATASETS, Examples
from low_rank_local_connectivity.data.batch_changes import BatchChanges
from low_rank_local_connectivity.training import session

pytestmark = pytest.mark.usefixtures("pipelines_as_written")
BACKEND = keras.backend.backend()
PIPELINES = ("pipeline", "grain_pipeline")
CLASSES, SHAPE = 7, (10, 12, 1)


def dataset_of(*augment):
    """Images between -1 and 3, of seven classes."""
    dataset = dataclasses.replace(
        DATASETS["digits"],
        image_shape=SHAPE,
        class_names=tuple("abcdefg"),
        value_range=(-1.0, 3.0),
        stored_range=(0.0, 1.0),
    )
    return dataset.augmented(augment)


LAYERS = {
    "mixup:0.4": lambda seed: keras.layers.MixUp(0.4, seed=seed),
    "cutmix": lambda seed: keras.layers.CutMix((1.0, 1.0), seed=seed),
    "erasing:0.7": lambda seed: keras.layers.RandomErasing(
        (0.7, 0.7), value_range=(0, 1), seed=seed
    ),
    "randaugment": lambda seed: keras.layers.RandAugment(value_range=(0, 1), seed=seed),
}
SLOW_ON_JAX = "JAX compiles every operation of each of its eleven layers by itself"


@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_is_changed_as_by_keras_s_layer_of_that_seed(name, rng):
    if BACKEND == "jax" and name == "randaugment":
        pytest.skip(SLOW_ON_JAX)
    images = rng.random((5, *SHAPE), "float32")
    labels = np.eye(CLASSES, dtype="float32")[rng.integers(CLASSES, size=5)]
    change = BatchChanges(dataset_of(name))
    for seed in (9, 4, 9):  # whatever came before
        found = [to_numpy(one) for one in change(4 * images - 1, labels, seed)]
        expected = LAYERS[name](seed)({"images": images, "labels": labels})
        np.testing.assert_allclose(found[0], 4 * to_numpy(expected["images"]) - 1, atol=1e-5)
        np.testing.assert_allclose(found[1], to_numpy(expected["labels"]), atol=1e-6)
        assert np.abs(found[0] - (4 * images - 1)).max() > 0.1


def numbered(count=23):
    """Images of one brightness each, by which their labels can be told."""
    labels = np.arange(count) % CLASSES
    images = np.broadcast_to((labels / CLASSES)[:, None, None, None], (count, *SHAPE))
    return Examples(images.astype("float32"), labels)


def batches(pipeline, dataset, examples, start=0, seed=5):
    module = importlib.import_module(f"low_rank_local_connectivity.data.{pipeline}")
    found = module.training_batches(dataset, examples, 6, 2, seed, start)
    return [tuple(np.asarray(one) for one in batch) for batch in found]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_labels_are_mixed_as_images_are(pipeline):
    examples = numbered()
    for augment, tolerance in (("mixup:1", 1e-5), ("cutmix", 0.2)):
        mixed = batches(pipeline, dataset_of(augment), examples)
        assert len(mixed) == 6
        shares = np.concatenate([labels for _, labels in mixed])
        np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
        assert 0.2 < (shares.max(-1) < 0.99).mean() < 1
        brightness = np.concatenate([images for images, _ in mixed]).mean((1, 2, 3))
        expected = 4 * (shares @ np.arange(CLASSES)) / CLASSES - 1
        # A rectangle's sides are whole pixels; its share of the labels is not rounded.
        np.testing.assert_allclose(brightness, expected, atol=tolerance * 4)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_run_continued_after_any_step_sees_the_changes_that_it_would_have_seen(pipeline):
    dataset, examples = dataset_of("flip", "erasing", "mixup"), numbered()
    whole = batches(pipeline, dataset, examples)
    for start in (1, 3, 5):
        for one, other in zip(
            batches(pipeline, dataset, examples, start), whole[start:], strict=True
        ):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    labels = [labels for _, labels in whole]
    assert len({one.tobytes() for one in labels}) == len(labels)
    other = batches(pipeline, dataset, examples, seed=6)
    assert not np.array_equal(other[0][1], labels[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_and_accuracies_are_of_mixed_labels_and_of_integers(smoothing, rng):
    logits = rng.normal(size=(5, 4)).astype("float32")
    mixed = rng.dirichlet(np.ones(4), 5).astype("float32")
    loss, metric = session.smoothed_crossentropy(smoothing, True), session.accuracy(True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    integers = np.array([3, 0, 1, 1, 2])
    for labels, shares in ((mixed, mixed), (integers, np.eye(4)[integers])):
        targets = shares * (1 - smoothing) + smoothing / 4
        tensors = [keras.ops.convert_to_tensor(one) for one in (labels, logits)]
        found = to_numpy(loss(*tensors))
        np.testing.assert_allclose(found, -(targets * logs).sum(-1), rtol=1e-5)
        metric.reset_state()
        metric.update_state(*tensors, sample_weight=np.array([1, 1, 1, 1, 0]))
        right = (shares.argmax(-1) == logits.argmax(-1))[:4].mean()
        assert float(to_numpy(metric.result())) == pytest.approx(right)


@pytest.mark.once
@pytest.mark.parametrize(
    "augment", ["rotate", "mixup:0", "mixup:1.5", "mixup:much", "flip:0.5", "mixup,mixup:0.5"]
)
def test_other_words_and_strengths_are_refused(augment):
    with pytest.raises(ValueError, match="`augment` must be among 'crop', 'flip', 'randaugment'"):
        dataset_of(*augment.split(","))
