"""The studies: what their command does, and that the data they are made of is what they say."""

import importlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from low_rank_local_connectivity.experiments.studies import images, patch_matching, quadrant, study
from low_rank_local_connectivity.experiments.studies.study import Options, Study

STUDIES = (
    "aligned",
    "cascade",
    "compression",
    "coordinates",
    "deformable",
    "dense_shift",
    "far_cue",
    "few_examples",
    "image_shifts",
    "patch_matching",
    "quadrant",
    "red_green",
    "rook",
    "rotation",
    "scale",
    "scale_settings",
    "texture",
)
pytestmark = pytest.mark.once


def example(measured, **changes):
    """A study that measures nothing but which runs were asked for."""

    def measure(value, seed, options):
        del options
        measured.append((value, seed))
        return {"score": value + seed / 10, "curve": [value, value + 1]}

    return Study(
        name="example",
        claim="One is more than the other.",
        criterion="Its score is.",
        conditions={"less": 1, "more": 2},
        measure=measure,
        verdict=lambda found: (
            "It is.",
            study.mean(found["more"], "score") > study.mean(found["less"], "score"),
        ),
        table=lambda found: study.rows(
            ["", "score"], [[name, study.mean(runs, "score")] for name, runs in found.items()]
        ),
        seeds=2,
        **changes,
    )


def test_a_study_runs_what_is_missing_and_writes_claim_criterion_and_outcome(tmp_path, capsys):
    measured = []
    study.main(example(measured), [f"--output={tmp_path}"])
    assert measured == [(1, 0), (2, 0), (1, 1), (2, 1)]
    text = (tmp_path / "example.md").read_text()
    for part in (
        "One is more",
        "**Criterion.** Its",
        "**Outcome (met; 2 seeds).** It is.",
        "| more",
    ):
        assert part in text
    study.main(example(measured), [f"--output={tmp_path}", "--seeds=3"])
    assert measured[4:] == [(1, 2), (2, 2)]
    records = [json.loads(line) for line in (tmp_path / "example.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records[-2:]] == ["less, seed 2", "more, seed 2"]
    assert "keras" in records[0]["versions"]
    assert "example: more, seed 1" in capsys.readouterr().out


def test_every_data_set_and_variant_has_files_of_its_own(tmp_path):
    flags = {"network": {"choices": ["small", "large"], "default": "small"}}
    changes = {"images": True, "flags": flags, "variant": "network"}
    options = ["--dataset=mnist", "--data_dir=there", "--network=large"]
    study.main(example([], **changes), [f"--output={tmp_path}", *options])
    study.main(example([], **changes), [f"--output={tmp_path}"])
    assert (tmp_path / "example.md").exists()
    assert (tmp_path / "example-large-mnist.md").exists()


REFUSED = {
    "--seeds=0": "--seeds must be at least 1. Received: --seeds=0.",
    "--epochs=0": "--epochs must be at least 1. Received: --epochs=0.",
    "--dataset=mnist": "--dataset=mnist must come with the folder that holds it. Received: no "
    "--data_dir. Name the folder.",
    "--weights=absent.h5": "--weights must name a file of weights, or imagenet. Received: "
    "--weights=absent.h5, which does not exist. Name one that does.",
    "--weights=imagenet": "--weights=imagenet must come with --network=densenet121, of "
    "keras.applications. Received: --network=small. Name a file of weights.",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(flag, capsys):
    with pytest.raises(SystemExit):
        study.parse(quadrant.STUDY, [flag])
    assert capsys.readouterr().err.endswith(f"error: {REFUSED[flag]}\n")


def test_training_keeps_the_weights_of_the_best_epoch_and_stops_when_none_is_better():
    class Model:
        """Gives losses from a list, and remembers by its weights after which epoch."""

        losses = (3.0, 1.0, 2.0, 2.5, 0.5)
        epoch = 0
        seen: tuple[int, ...] = ()

        def reset_metrics(self):
            pass

        def train_on_batch(self, features, labels, return_dict):
            assert return_dict
            np.testing.assert_array_equal(features[:, 0], labels)
            if not self.seen:
                self.epoch += 1
            self.seen = (*self.seen, *labels)
            if len(self.seen) == 3:
                assert sorted(self.seen) == [0, 1, 2]
                self.seen = ()
            return self.test_on_batch(features, labels, return_dict)

        def test_on_batch(self, features, labels, return_dict):
            """Returns losses whose mean over examples is that of the list."""
            del features, return_dict
            return {"loss": self.losses[self.epoch - 1] + {3: 0, 2: 1, 1: -2}[len(labels)]}

        def get_weights(self):
            return self.epoch

        def set_weights(self, weights):
            self.epoch = weights

    examples = (np.arange(3)[:, None], np.arange(3))
    model = Model()
    found = study.train(model, examples, examples, epochs=5, batch_size=2, seed=0, patience=2)
    assert (found, model.epoch) == ([3.0, 1.0, 2.0, 2.5], 2)


def test_images_are_placed_whole_somewhere_or_in_the_middle(rng):
    drawn = rng.uniform(0.5, 1, size=(20, 5, 6, 2)).astype("float32")
    canvas, _ = images.on_canvas((drawn, np.zeros(20)), 11, rng)
    for image, original in zip(canvas, drawn, strict=True):
        row, column = (np.flatnonzero(image.sum(axis=axes))[0] for axes in ((1, 2), (0, 2)))
        np.testing.assert_array_equal(image[row : row + 5, column : column + 6], original)
        assert np.count_nonzero(image) == original.size
    middle, _ = images.on_canvas((drawn, np.zeros(20)), 11, None)
    np.testing.assert_array_equal(middle[:, 3:8, 2:8], drawn)


def test_patches_of_different_splits_share_no_pixel(rng, monkeypatch):
    read = []

    def coordinates(photo, places, **_):
        del photo
        read.append((places[1].min(), places[1].max()))
        return rng.uniform(size=places.shape[1:])

    monkeypatch.setattr(patch_matching.ndimage, "map_coordinates", coordinates)
    ends = []
    for split, (first, last) in patch_matching.REGIONS.items():
        read.clear()
        patches, places = patch_matching.pairs(split, 50, rng)
        assert patches.shape == (50, 2, 32, 32, 1)
        assert places.shape == (50, 3)
        assert min(low for low, _ in read) >= first
        # Linear interpolation reads the next column too.
        assert max(high for _, high in read) <= last - 1
        ends.append((first, last))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(ends))


def test_a_pair_shows_one_place(rng):
    patches, _ = patch_matching.pairs("train", 40, rng)
    flat = patches.reshape(40, 2, -1)
    own = (flat[:, 0] * flat[:, 1]).mean(axis=-1)
    other = (flat[:, 0] * np.roll(flat[:, 1], 1, axis=0)).mean(axis=-1)
    assert np.median(own) > np.median(other) + 0.2


def test_a_full_convolution_cannot_tell_the_quadrants_apart(rng):
    shown, labels = quadrant.examples(rng.uniform(size=(3, 16, 16, 1)).astype("float32"))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    for padding, apart in (("full", False), ("same", True)):
        body = quadrant.features("small", padding, 1)
        parts = quadrant.frozen(body, 4, {"train": (shown, labels)})
        responses, _ = parts["train"]
        assert (np.abs(responses[:3] - responses[3:]).max() > 1e-3) == apart


def test_own_weights_reach_the_network(tmp_path, rng):
    body = quadrant.small("same", 1)
    path = str(tmp_path / "own.weights.h5")
    body.save_weights(path)
    image = rng.uniform(size=(1, 20, 20, 1)).astype("float32")
    again = quadrant.features("small", "same", 1, path)
    np.testing.assert_array_equal(again(image), body(image))
    options = Options(
        1, None, Path(), flags={"network": "small", "weights": path, "frozen_only": 1}
    )
    assert quadrant.chosen(options) == [
        f"small {padding}, {how}" for padding in ("same", "full") for how in quadrant.HOW[1:]
    ]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_says_what_it_claims_and_when_that_is_so(name):
    found = importlib.import_module(f"low_rank_local_connectivity.experiments.studies.{name}").STUDY
    assert found.name == name
    assert found.claim.endswith(".")
    assert found.criterion.endswith(".")
    assert found.seeds >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_to_its_table_and_picture(name, tmp_path):
    found = importlib.import_module(f"low_rank_local_connectivity.experiments.studies.{name}").STUDY
    study.main(found, ["--seeds=1", "--epochs=1", f"--output={tmp_path}"])
    assert "**Outcome" in (tmp_path / f"{name}.md").read_text()
    assert (tmp_path / f"{name}.png").exists()


@pytest.mark.slow
def test_the_cascade_is_one_convolution_but_for_same_padding_s_border(tmp_path):
    study.main(
        importlib.import_module("low_rank_local_connectivity.experiments.studies.cascade").STUDY,
        ["--seeds=1", f"--output={tmp_path}"],
    )
    assert "**Outcome (met; 1 seed).**" in (tmp_path / "cascade.md").read_text()
