"""Which plan a low-rank layer takes, what it needs, and what is refused for want of memory."""

import dataclasses
import re

import numpy as np
import pytest
from backends import call, randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.layers import low_rank_locally_connected
from low_rank_local_connectivity.ops import Windows, memory, plan_costs

PLANS = plan_costs.PLANS
BACKENDS = tuple(plan_costs.COSTS)


def request(rank, batch, size=28, channels=64, training=True):
    windows = Windows((3, 3), (1, 1), (1, 1), "valid")
    sizes = (size, size + 1)
    return plan_costs.Request.of(windows, sizes, channels, channels, rank, batch, training)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_cost_model_knows_every_term_of_both_plans(backend):
    for plan in PLANS:
        for training in (False, True):
            assert set(plan_costs.COSTS[backend][plan, training]) == set(
                plan_costs.terms(plan, request(4, 8))
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_batch_and_rank_mix_the_filters_first(backend):
    assert plan_costs.choose_plan(request(30, 128), backend) == "combine_then_convolve"


@pytest.mark.once
@pytest.mark.parametrize("training", [False, True])
def test_a_single_example_of_few_banks_is_convolved_first(training):
    found = plan_costs.choose_plan(request(2, 1, training=training), "tensorflow")
    assert found == "convolve_then_combine"


@pytest.mark.once
def test_an_unknown_batch_is_taken_as_32():
    assert request(4, None) == request(4, 32)


@pytest.mark.once
def test_counts_are_those_of_the_equation():
    asked = request(5, 7, size=10, channels=3)
    # 8 x 9 positions, filters of 3 x 3 x 3, too few channels to read slabs.
    assert dataclasses.astuple(asked) == (7, 72, 27, 3, 5, 1, True, 4)
    assert plan_costs.terms("convolve_then_combine", asked) == {
        "call": 1,
        "bank": 5,
        "weight": 5 * 27 * 3,
        "product": 7 * 72 * 27 * 3 * 5,
        "response": 7 * 72 * 3 * 5,
    }
    assert plan_costs.terms("combine_then_convolve", asked) == {
        "call": 1,
        "filter": 72 * 27 * 3,
        "mixing": 5 * 72 * 27 * 3,
        "product": 7 * 72 * 27 * 3,
        "patch": 7 * 72 * 27,
        "output": 7 * 72 * 3,
    }


@pytest.mark.once
def test_a_plan_that_does_not_fit_into_memory_is_not_taken(monkeypatch):
    asked = request(30, 128)
    need = {plan: plan_costs.memory_needed(plan, asked) for plan in PLANS}
    assert need["combine_then_convolve"] < need["convolve_then_combine"]
    small = request(30, 8)
    assert plan_costs.choose_plan(small, "tensorflow") == "combine_then_convolve"
    limit = plan_costs.memory_needed("combine_then_convolve", small) - 1
    monkeypatch.setattr(plan_costs, "memory_bytes", lambda: limit)
    assert plan_costs.choose_plan(small, "tensorflow") == "convolve_then_combine"
    monkeypatch.setattr(plan_costs, "memory_bytes", lambda: 1)
    assert plan_costs.choose_plan(small, "tensorflow") == "convolve_then_combine"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: layers.LocallyConnected2D(64, 3, name="local"),
            (
                "The filters that layer 'local' has at every position must fit into memory. "
                "Received: a request for 99,680,256 bytes, of 50,000,000 that there are. Use a "
                "LowRankLocallyConnected2D, whose positions share filters, or larger strides."
            ),
        ),
        (
            lambda: layers.LowRankLocallyConnected2D(
                64, 3, 4, implementation="combine_then_convolve", name="low"
            ),
            (
                "The filters that layer 'low' mixes for every position must fit into memory. "
                "Received: a request for 99,680,256 bytes, of 50,000,000 that there are. Use "
                "implementation='convolve_then_combine', or larger strides."
            ),
        ),
    ],
)
def test_filters_that_cannot_fit_are_refused_when_a_layer_is_built(make, message, monkeypatch):
    monkeypatch.setattr(memory, "memory_bytes", lambda: 50_000_000)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make().build((None, 28, 28, 64))


@pytest.mark.once
def test_memory_is_the_containers_if_that_is_less(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMIT_FILES", (limit, tmp_path / "missing"))
    whole = memory.memory_bytes()
    limit.write_text("max\n")
    assert memory.memory_bytes() == whole
    limit.write_text("1000000\n")
    assert memory.memory_bytes() == 1_000_000
    monkeypatch.delattr("os.sysconf")
    assert memory.memory_bytes() is None


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("rank", [1, 2, 3, 30])
@pytest.mark.parametrize("training", [False, True])
def test_the_automatic_plan_gives_the_numbers_of_both(rank, batch, training, rng):
    inputs = rng.normal(size=(batch, 8, 11, 4)).astype("float32")
    arguments = {"filters": 6, "kernel_size": 3, "spatial_rank": rank}
    automatic = layers.LowRankLocallyConnected2D(**arguments)
    automatic.build(inputs.shape)
    randomize(automatic, rng)
    expected = to_numpy(automatic(inputs, training=training))
    for plan in PLANS:
        layer = layers.LowRankLocallyConnected2D(**arguments, implementation=plan)
        layer.build(inputs.shape)
        layer.set_weights(automatic.get_weights())
        scale = np.abs(expected).max()
        outputs = call(layer, inputs, training=training)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5 * scale)


def test_responses_added_one_by_one_survive_infinite_inputs(rng, monkeypatch):
    monkeypatch.setattr(low_rank_locally_connected, "MOST_RESPONSES", 0)
    layer = layers.LowRankLocallyConnected2D(
        6, 3, spatial_rank=3, implementation="convolve_then_combine"
    )
    layer.build((None, 8, 11, 4))
    randomize(layer, rng)
    inputs = rng.normal(size=(3, 8, 11, 4)).astype("float32")
    expected = to_numpy(layer(inputs, training=True))
    inputs[0, 0, 0, 0] = np.inf
    found = call(layer, inputs, training=False)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-4, atol=1e-5)
