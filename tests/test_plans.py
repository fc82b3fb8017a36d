"""Which plan a layer takes, what it costs and needs, and what is refused for want of memory."""

import dataclasses
import datetime as dt
import itertools
import re
import types
import typing

import keras
import numpy as np
import pytest
from backends import call, randomize, to_numpy

from benchmarks import cells, tpu, tpu_compiler
from low_rank_local_connectivity import layers, ops
from low_rank_local_connectivity.layers.local.low_rank_locally_connected import (
    Implementation,
    LowRankLocallyConnected,
)
from low_rank_local_connectivity.ops import Windows
from low_rank_local_connectivity.plans import (
    CONDITIONAL,
    DEPTHWISE_LOW_RANK,
    KRONECKER,
    LOW_RANK,
    LOW_RANK_TRANSPOSE,
    KroneckerRequest,
    LowRankRequest,
    LowRankTransposeRequest,
    Machine,
    Request,
    choose,
    coefficients,
    estimated_cost,
    low_rank,
    machine,
    moved,
    names_of,
)
from low_rank_local_connectivity.plans.work import bytes_in_memory

WINDOWS = Windows((3, 3), (1, 1), (1, 1), "valid")
TRANSPOSED = ops.TransposedWindows((3, 3), (1, 1), (1, 1), "same")
FACTORS = ((3, 3, 1, 2), (1, 1, 4, 3))
BACKENDS = ("tensorflow", "jax", "torch")
CONVOLVING, COMBINING, FUSED = LOW_RANK
_, SPREADING = LOW_RANK_TRANSPOSE
BOTH = LOW_RANK[:2]


def request(rank, batch, size=28, channels=64, training=True, backend="tensorflow", **more):
    shape = (batch, size, size + 1, channels)
    return LowRankRequest(WINDOWS, shape, channels, rank, training, backend, **more)


# The plans of each layer that has several, with something it may ask for.
ASKED = {
    LOW_RANK: request(4, 8),
    LOW_RANK_TRANSPOSE: LowRankTransposeRequest.of(TRANSPOSED, (8, 9, 10, 4), 6, 2),
    DEPTHWISE_LOW_RANK: request(4, 8, groups=64),
    KRONECKER: KroneckerRequest(WINDOWS, (8, 9, 10, 4), 6, 2, factors=FACTORS),
    CONDITIONAL: Request(WINDOWS, (8, 9, 10, 4), 6, 5),
}
PLANS = {
    plan.measured_as or plan.name: (plan, asked) for plans, asked in ASKED.items() for plan in plans
}
# The arguments that name plans: of which layer, and of what type they are said to be.
NAMED = {
    "implementation": (LowRankLocallyConnected, LOW_RANK),
    "strategy": (
        layers.KroneckerConv2D,
        KRONECKER,
    ),
}


@pytest.mark.once
def test_every_plan_has_a_name_of_its_own():
    assert len(PLANS) == sum(map(len, ASKED))


@pytest.mark.once
@pytest.mark.parametrize("name", PLANS)
def test_every_plan_says_what_it_does_and_each_of_its_terms_has_a_cost_where_it_was_measured(name):
    plan, asked = PLANS[name]
    assert plan.work is not None, f"the plan {name!r} does not say what it moves and computes"
    records = [record for record in coefficients.RECORDS if name in record["costs"]]
    on_cpu = plan.terms(asked) and any(record["device"] == "cpu" for record in records)
    assert on_cpu or not plan.terms(asked), f"coefficients.json has no costs of {name!r} on a CPU"
    for record in records:
        for mode in ("inference", "training"):
            assert set(record["costs"][name][mode]) == set(plan.terms(asked)), record["backend"]


@pytest.mark.once
@pytest.mark.parametrize("argument", NAMED)
def test_what_a_layer_says_of_an_argument_names_every_plan(argument):
    layer, plans = NAMED[argument]
    for name in names_of(plans):
        assert f'`"{name}"`' in layer.__doc__, f"{layer.__name__} does not say what {name!r} does"


@pytest.mark.once
def test_the_type_of_implementation_names_every_plan():
    assert typing.get_args(Implementation) == ("auto", *names_of(LOW_RANK))


@pytest.mark.once
def test_every_record_says_where_and_when_it_was_measured():
    for record in coefficients.RECORDS:
        assert set(record) == {"backend", "device", "machine", "date", "command", "costs"}
        assert record["backend"] in machine.BACKENDS
        assert record["device"] in machine.DEVICES
        assert dt.date.fromisoformat(record["date"])
        assert record["machine"]
        assert record["command"]
        assert set(record["costs"]) <= set(PLANS), "costs of plans that there are not"


@pytest.mark.once
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_batch_and_rank_mix_the_filters_first(backend):
    assert choose(BOTH, request(30, 128, backend=backend)).name == "combine_then_convolve"


@pytest.mark.once
@pytest.mark.parametrize("training", [False, True])
def test_a_single_example_of_few_banks_is_convolved_first(training):
    assert choose(BOTH, request(2, 1, training=training)).name == "convolve_then_combine"


@pytest.mark.once
def test_transposed_filters_are_mixed_first_for_many_banks_and_examples_only():
    def taken(rank, batch, **more):
        windows = ops.TransposedWindows((3, 3), (2, 2), (1, 1), "same")
        shape = (batch, 14, 15, 64)
        asked = LowRankTransposeRequest.of(windows, shape, 32, rank, backend="tensorflow", **more)
        return choose(LOW_RANK_TRANSPOSE, asked).name

    for training in (False, True):
        assert taken(30, 128, training=training) == "combine_then_spread"
        assert taken(2, 1, training=training) == "weigh_then_convolve"
        assert taken(30, 128, training=training, mixing="per_example") == "weigh_then_convolve"
        assert taken(30, 128, training=training, fixed_sizes=False) == "weigh_then_convolve"


@pytest.mark.once
@pytest.mark.parametrize(
    "change",
    [
        {"mixing": "per_example"},
        {"mixing": "none"},
        {"fixed_sizes": False},
        {"bank_windows": [WINDOWS] * 30},
        {"shape": (128, None, 29, 64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_has_no_filters_of_its_own_at_each_position_is_convolved_first(change):
    asked = dataclasses.replace(request(30, 128), **change)
    assert choose(BOTH, asked, 1).name == "convolve_then_combine"


@pytest.mark.once
def test_an_unknown_batch_is_taken_as_32():
    assert estimated_cost(BOTH, request(4, None)) == estimated_cost(BOTH, request(4, 32))
    assert request(4, None).examples == request(4, 32).examples == 32


@pytest.mark.once
def test_counts_are_those_of_the_equation():
    asked = request(5, 7, size=10, channels=3)
    # 8 x 9 positions, filters of 3 x 3 x 3, too few channels to read slabs.
    assert (asked.examples, asked.positions, asked.reads, asked.slabs) == (7, 72, 27, 1)
    assert CONVOLVING.terms(asked) == {
        "call": 1,
        "bank": 5,
        "weight": 5 * 27 * 3,
        "product": 7 * 72 * 27 * 3 * 5,
        "response": 7 * 72 * 3 * 5,
    }
    assert COMBINING.terms(asked) == {
        "call": 1,
        "filter": 72 * 27 * 3,
        "mixing": 5 * 72 * 27 * 3,
        "product": 7 * 72 * 27 * 3,
        "patch": 7 * 72 * 27,
        "output": 7 * 72 * 3,
    }


@pytest.mark.once
def test_a_cost_is_the_sum_of_the_terms_by_their_coefficients():
    asked = Request(WINDOWS, (8, 9, 10, 4), 6, 5)
    assert estimated_cost(CONDITIONAL, asked) == [5 * 1.0, 3.0]


@pytest.mark.once
def test_costs_are_those_of_the_device_where_it_was_measured(monkeypatch):
    on_gpu = {"mix_responses": {"inference": {"convolution": 0.1}}}
    monkeypatch.setitem(coefficients.COEFFICIENTS, ("jax", "gpu"), on_gpu)
    asked = Request(WINDOWS, (8, 9, 10, 4), 6, 5, backend="jax")
    assert choose(CONDITIONAL, asked).name == "mix_kernels"
    # A plan that was not measured where others were is not taken.
    asked = dataclasses.replace(asked, device="gpu")
    assert estimated_cost(CONDITIONAL, asked) == [0.5, np.inf]
    assert choose(CONDITIONAL, asked).name == "mix_responses"
    # On a processor where none was, TensorFlow's stand in.
    numpy = request(4, 8, backend="numpy")
    assert estimated_cost(BOTH, numpy) == estimated_cost(BOTH, request(4, 8))


@pytest.mark.once
@pytest.mark.parametrize("device", ["gpu", "tpu"])
@pytest.mark.parametrize("name", PLANS)
def test_where_nothing_was_measured_a_plan_takes_as_long_as_it_moves_or_computes(name, device):
    plan, asked = PLANS[name]
    asked = dataclasses.replace(asked, device=device)
    done = plan.work(asked)
    assert done.bytes > 0
    assert done.flops > 0
    # Bytes per second and operations per second, as in the makers' data sheets.
    bandwidth, peak = {"gpu": (3.35e12, 989e12), "tpu": (819e9, 197e12)}[device]
    seconds = max(done.bytes / bandwidth, done.flops / peak)
    assert estimated_cost([plan], asked) == [pytest.approx(seconds)]
    assert estimated_cost([dataclasses.replace(plan, work=None)], asked) == [np.inf]


@pytest.mark.once
def test_operations_are_those_of_the_products():
    asked = request(5, 7, size=10, channels=3, device="tpu")
    products = 7 * 72 * 27 * 3
    assert CONVOLVING.work(asked).flops == 3 * 2 * 5 * products
    assert COMBINING.work(asked).flops == 3 * 2 * (products + 5 * 72 * 27 * 3)
    inference = dataclasses.replace(asked, training=False)
    assert CONVOLVING.work(inference).flops == 2 * 5 * products
    conditional = Request(WINDOWS, (8, 9, 10, 4), 6, 5)
    one = 2 * 8 * 7 * 8 * 36 * 6
    assert [plan.work(conditional).flops for plan in CONDITIONAL] == [5 * one, one]
    kronecker = ASKED[KRONECKER]
    per_pixel = kronecker.multiply_adds
    assert [plan.work(kronecker).flops for plan in KRONECKER] == [
        pytest.approx(2 * 8 * 7 * 8 * per_pixel[plan.name]) for plan in KRONECKER
    ]


@pytest.mark.once
def test_a_tpu_fills_up_the_lanes_of_the_axis_that_wastes_least():
    assert bytes_in_memory("tpu", 10, 2, 64, 100) == pytest.approx(2 * 10 * 1.28)
    assert bytes_in_memory("tpu", 10, 2, 128, 100) == 20
    assert bytes_in_memory("gpu", 10, 2, 64) == 20


@pytest.mark.once
@pytest.mark.parametrize("plans", ASKED)
def test_an_axis_of_unknown_size_counts_as_32_where_work_is_counted(plans):
    asked = dataclasses.replace(ASKED[plans], device="gpu")
    batch, *_, channels = asked.shape
    known, unknown = (
        [
            plan.work(dataclasses.replace(asked, shape=shape))
            for plan in plans
            if plan.name not in (COMBINING.name, FUSED.name, SPREADING.name)
        ]
        for shape in ((batch, 34, 34, channels), (batch, None, None, channels))
    )
    for one, other in zip(known, unknown, strict=True):
        # 34 pixels make 32 positions.
        assert other.flops == pytest.approx(one.flops, rel=0.1)
        assert other.bytes == pytest.approx(one.bytes, rel=0.2)


# What was taken on a CPU before other devices had costs of their own, as bits: 0 for convolving
# first, over the grid of `cpu_requests`.
TAKEN_ON_CPU = {
    "tensorflow": (
        "000000000000000aaaa00aaaa0aabba0aabbb0abbb000000000aaaa00aaaa02aaaa0aaaaa0aaaaa8aaab"
        "000000000000000000000000f0fffef0fffff0ffff000000000000000000000feaf0ffeaf0ffebf0fffb"
    ),
    "jax": (
        "000000000000000022200222a0aabba0aabbb0abbb000000000000000002000222a0aaaaa0aaaaa2aaab"
        "000000000000000000f0cffefcfffefcffffffffff000000000000000000000feaf0ffeaf0ffebf0fffb"
    ),
    "torch": (
        "00000000002a000aaa800aaaa0aabba0aabbb0abbb0000020002aa000aaaa00aaaa0aaaaa0aaaaa8aaab"
        "000000000000000000ccccccfccffefccffffcffff000000000000000008c00ceaf0cfeafcffebfcfffb"
    ),
}


def cpu_requests(backend):
    """Requests of W1 to W4, with the memory there is."""
    sizes = (
        ((28, 28, 64), (3, 3), "valid"),
        ((7, 7, 512), (3, 3), "same"),
        ((16, 16, 16), (3, 3), "valid"),
        ((256, 32), (9,), "valid"),
    )
    ranks, batches = (1, 2, 3, 4, 8, 10, 30), (None, 1, 16, 64, 128, 512)
    for (shape, kernel, padding), rank, batch, training, limit in itertools.product(
        sizes, ranks, batches, (False, True), (None, 10**8)
    ):
        ones = (1,) * len(kernel)
        windows = Windows(kernel, ones, ones, padding)
        yield LowRankRequest(windows, (batch, *shape), shape[-1], rank, training, backend), limit


@pytest.mark.once
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_a_cpu_the_same_plans_are_taken_as_before(backend):
    bits = [BOTH.index(choose(BOTH, asked, limit)) for asked, limit in cpu_requests(backend)]
    assert f"{int(''.join(map(str, bits)), 2):0{len(bits) // 4}x}" == TAKEN_ON_CPU[backend]


def compiled_for_tpus():
    """Cells of benchmarks/measured/tpu.csv: a request, and the bytes that each plan moves."""
    found = {}
    for cell, counted in cells.read(tpu.LAYERS_FILE, tpu.Cell).items():
        if cell.layer == tpu.LOW_RANK_LAYER and counted:
            key = dataclasses.replace(cell, plan="")
            found.setdefault(key, {})[cell.plan] = counted["bytes"]
    return {cell: each for cell, each in found.items() if len(each) > 1}


COMPILED = compiled_for_tpus()


def tpu_request(cell):
    """What the layer of a cell would ask for on a TPU."""
    workload = cell.workload
    kernel = (workload.kernel_size,) * len(workload.spatial)
    ones = (1,) * len(kernel)
    return LowRankRequest(
        Windows(kernel, ones, ones, workload.padding),
        workload.input_shape,
        workload.filters,
        cell.rank,
        cell.mode == "training",
        "jax",
        "tpu",
        itemsize=4 if cell.dtype == "float32" else 2,
    )


@pytest.mark.once
@pytest.mark.parametrize(("dtype", "least"), [("mixed_bfloat16", 96), ("float32", 11)])
def test_on_a_tpu_the_plan_taken_moves_hardly_more_bytes_than_the_best(dtype, least):
    close = []
    for cell, each in COMPILED.items():
        if cell.dtype == dtype:
            plans = [plan for plan in LOW_RANK if plan.name in each]
            memory = tpu_compiler.CHIPS[cell.chip].memory
            taken = choose(plans, tpu_request(cell), memory).name
            close.append(each[taken] <= 1.15 * min(each.values()))
    assert len(close) >= least
    assert np.mean(close) >= 0.9


@pytest.mark.once
@pytest.mark.parametrize("plan", BOTH, ids=lambda plan: plan.name)
def test_the_bytes_of_a_plan_are_about_those_of_the_compiled_program(plan):
    # Of a single example the compiler never writes the filters that it mixes.
    several = [cell for cell in COMPILED if cell.batch > 1]
    ratios = [plan.work(tpu_request(cell)).bytes / COMPILED[cell][plan.name] for cell in several]
    assert 0.8 < np.median(ratios) < 1.25
    assert np.median(np.abs(np.log(ratios))) < np.log(1.25)


@pytest.mark.once
def test_a_plan_that_does_not_fit_into_memory_is_not_taken():
    small = request(30, 8)
    assert COMBINING.memory(small) > CONVOLVING.memory(request(2, 1, training=False))
    assert COMBINING.memory(request(30, 128)) < CONVOLVING.memory(request(30, 128))
    limit = COMBINING.memory(small)
    assert choose(BOTH, small, limit) is COMBINING
    assert choose(BOTH, small, limit - 1) is CONVOLVING
    assert choose(BOTH, small, 1) is CONVOLVING


def compiled_bytes(plan, asked, *tensors):
    """What XLA holds at once beside inputs and outputs, by its own count."""
    import jax

    def step(*tensors):
        outputs = plan.apply(asked, *tensors)
        return (outputs**2).sum() if asked.training else outputs

    every = tuple(range(len(tensors)))
    wanted = jax.grad(step, argnums=every) if asked.training else step
    compiled = jax.jit(wanted).lower(*tensors).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("training", [False, True])
def test_plans_of_several_kernels_hold_what_xla_says(training):
    if keras.backend.backend() != "jax":
        pytest.skip("only JAX tells what a compiled step holds")
    shape = (6, 28, 27, 16)
    images = np.ones(shape, "float32")
    conditional = Request(WINDOWS, shape, 24, 5, training)
    experts = np.ones((5, 3, 3, 16, 24), "float32"), np.ones((6, 5), "float32")
    responses, kernels = (
        plan.memory(conditional) / compiled_bytes(plan, conditional, images, *experts)
        for plan in CONDITIONAL
    )
    # XLA mixes responses while it computes them, which other backends do not.
    assert not training or 0.8 < responses < 1.25
    assert 0.8 < kernels < 2
    factors = ((3, 3, 4, 3), (1, 1, 4, 8))
    kronecker = KroneckerRequest(WINDOWS, shape, 24, 2, training, factors=factors)
    terms = (np.ones((2, *each), "float32") for each in factors)
    factored = KRONECKER[1]
    held = compiled_bytes(factored, kronecker, images, *terms)
    assert 0.8 < factored.memory(kronecker) / held < 1.25


@pytest.mark.once
@pytest.mark.parametrize("plans", [KRONECKER, CONDITIONAL])
def test_of_two_plans_the_one_that_needs_less_is_taken_if_neither_fits(plans):
    asked = ASKED[plans]
    assert all(plan.memory(asked) > 1 for plan in plans)
    assert choose(plans, asked, 1) is min(plans, key=lambda plan: plan.memory(asked))


@pytest.mark.once
def test_a_plan_that_is_named_is_taken_whatever_it_costs():
    for plan in BOTH:
        assert choose(BOTH, request(30, 128), 1, plan.name) is plan


@pytest.mark.once
def test_the_names_that_ops_had_still_answer(monkeypatch):
    for name in moved.__all__:
        assert getattr(ops, name) is getattr(moved, name)
    sizes = {"sizes": (28, 29), "channels": 64, "filters": 64}
    for rank, batch, backend in itertools.product((1, 2, 8, 30), (None, 1, 64), BACKENDS):
        counts = moved.Request.of(WINDOWS, **sizes, rank=rank, batch=batch, training=True)
        asked = request(rank, batch, backend=backend)
        for limit in (None, 10**7):
            monkeypatch.setattr(moved, "memory_bytes", lambda limit=limit: limit)
            assert moved.choose_plan(counts, backend) == choose(BOTH, asked, limit).name
    assert counts.slabs == 3
    large = ((9, 9, 1, 1), (3, 3, 8, 8))
    found = [moved.choose_strategy(large, backend=backend) for backend in BACKENDS]
    assert found == ["factored", "dense", "factored"]
    assert moved.choose_strategy(FACTORS, backend="tensorflow") == "dense"
    assert not hasattr(ops, "nothing")


REFUSED = {
    "name": (
        lambda: choose(BOTH, request(4, 8), name="fast"),
        (
            "`name` must be one of 'auto', 'convolve_then_combine', 'combine_then_convolve'. "
            "Received: name='fast'."
        ),
    ),
    "plans": (
        lambda: choose([], Request(WINDOWS, (8, 9, 10, 4), 6, 5, backend="jax")),
        (
            "One of `plans` must be allowed for the request. Received: plans=[] and request="
            "Request(windows=Windows(sizes=(3, 3), strides=(1, 1), dilations=(1, 1), "
            "padding='valid'), shape=(8, 9, 10, 4), filters=6, rank=5, training=False, "
            "backend='jax', device='cpu', itemsize=4, groups=1)."
        ),
    ),
    "shape": (
        lambda: Request(WINDOWS, (8, 9, 10, None), 6, 5),
        (
            "`shape` must be that of inputs with channels last: 4 sizes for these windows, the "
            "last one known. Received: shape=(8, 9, 10, None)."
        ),
    ),
    "memory": (
        lambda: dataclasses.replace(LOW_RANK[0], memory=3),
        "`memory` of a plan must be a function. Received: memory=3.",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("argument", REFUSED)
def test_what_is_no_request_or_plan_is_refused(argument):
    make, message = REFUSED[argument]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


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
    monkeypatch.setattr(machine, "memory_bytes", lambda: 50_000_000)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make().build((None, 28, 28, 64))


@pytest.mark.once
def test_memory_is_the_containers_if_that_is_less(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "LIMIT_FILES", (limit, tmp_path / "missing"))
    whole = machine.memory_bytes()
    limit.write_text("max\n")
    assert machine.memory_bytes() == whole
    limit.write_text("1000000\n")
    assert machine.memory_bytes() == 1_000_000
    monkeypatch.delattr("os.sysconf")
    assert machine.memory_bytes() is None


def pretend_tensorflow(monkeypatch):
    tf = pytest.importorskip("tensorflow")
    from tensorflow.python.client import device_lib

    kinds = [types.SimpleNamespace(device_type=kind) for kind in ("CPU", "GPU")]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: kinds)
    found = [("/device:CPU:0", 256), ("/device:GPU:0", 80_000)]
    devices = [types.SimpleNamespace(name=name, memory_limit=limit) for name, limit in found]
    monkeypatch.setattr(device_lib, "list_local_devices", lambda: devices)


def pretend_jax(monkeypatch):
    jax = pytest.importorskip("jax")
    device = types.SimpleNamespace(platform="cuda", memory_stats=lambda: {"bytes_limit": 80_000})
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: [device])  # noqa: ARG005


def pretend_torch(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.delenv("KERAS_TORCH_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70_000, 80_000))


PRETEND = {"tensorflow": pretend_tensorflow, "jax": pretend_jax, "torch": pretend_torch}


def test_an_accelerators_memory_is_its_own(monkeypatch):
    backend = keras.backend.backend()
    PRETEND[backend](monkeypatch)
    # PyTorch's compiler is told a constant when a function is defined, not when it is called.
    assert machine.present_machine() == Machine(backend, "gpu", 80_000)


@pytest.mark.once
def test_the_device_that_keras_is_told_to_take_counts(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_TORCH_DEVICE", "cpu:0")
    assert machine.KINDS["torch"]() == "cpu"


LAYERS = {
    "low rank": lambda: layers.LowRankLocallyConnected2D(6, 3, spatial_rank=3),
    "Kronecker": lambda: layers.KroneckerConv2D(6, 3, FACTORS),
    "conditional": lambda: layers.CondConv2D(6, 3, num_experts=4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_asks_once_what_it_computes_on(name, monkeypatch, rng):
    asked = []
    monkeypatch.setattr(machine, "memory_bytes", lambda: asked.append(1) or 10**9)
    layer = LAYERS[name]()
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    for _ in range(2):
        layer(inputs)
        call(layer, inputs)
    assert len(asked) == 1
    assert layer.machine.memory == 10**9


@pytest.mark.parametrize(
    ("device", "dtype", "size"),
    [("cpu", "mixed_bfloat16", 4), ("tpu", "mixed_bfloat16", 2), ("gpu", "float32", 4)],
)
def test_a_request_has_the_bytes_of_the_layers_numbers_but_on_a_cpu_of_float32(device, dtype, size):
    low_rank_layer = layers.LowRankLocallyConnected2D(6, 3, spatial_rank=3, dtype=dtype)
    low_rank_layer.build((None, 8, 11, 4))
    kronecker_layer = layers.KroneckerConv2D(6, 3, FACTORS, dtype=dtype)
    kronecker_layer.build((None, 8, 11, 4))
    for layer in (low_rank_layer, kronecker_layer):
        layer.machine = Machine(keras.backend.backend(), device, None)
    assert low_rank_layer.asked((5, 8, 11, 4)).itemsize == size
    assert kronecker_layer.asked((8, 11)).itemsize == size


def test_a_low_rank_layer_keeps_to_the_memory_that_it_was_built_with(monkeypatch, rng):
    applied = []

    def spy(plan):
        def apply(*arguments):
            applied.append(plan.name)
            return plan.apply(*arguments)

        return dataclasses.replace(plan, apply=apply)

    module = "low_rank_local_connectivity.layers.local.low_rank_locally_connected.LOW_RANK"
    monkeypatch.setattr(module, tuple(map(spy, BOTH)))
    inputs = rng.normal(size=(64, 8, 11, 4)).astype("float32")
    for limit in (10**9, 1):
        monkeypatch.setattr(machine, "memory_bytes", lambda limit=limit: limit)
        layer = layers.LowRankLocallyConnected2D(6, 3, spatial_rank=30)
        layer.build(inputs.shape)
        layer(inputs, training=True)
    first, second = applied
    assert first == "combine_then_convolve"
    assert second == choose(BOTH, layer.asked(inputs.shape, True), 1).name


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("rank", [1, 2, 3, 30])
@pytest.mark.parametrize("training", [False, True])
def test_the_automatic_plan_gives_the_numbers_of_each(rank, batch, training, rng):
    inputs = rng.normal(size=(batch, 8, 11, 4)).astype("float32")
    arguments = {"filters": 6, "kernel_size": 3, "spatial_rank": rank}
    automatic = layers.LowRankLocallyConnected2D(**arguments)
    automatic.build(inputs.shape)
    randomize(automatic, rng)
    expected = to_numpy(automatic(inputs, training=training))
    for plan in names_of(BOTH):
        layer = layers.LowRankLocallyConnected2D(**arguments, implementation=plan)
        layer.build(inputs.shape)
        layer.set_weights(automatic.get_weights())
        scale = np.abs(expected).max()
        outputs = call(layer, inputs, training=training)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("plan", ["auto", *names_of(BOTH)])
def test_a_layer_whose_columns_are_alike_takes_other_widths(plan, rng):
    layer = layers.LowRankLocallyConnected2D(
        6, 3, spatial_rank=30, additive_axes=(0,), implementation=plan
    )
    layer.build((None, 8, 11, 4))
    randomize(layer, rng)
    inputs = rng.normal(size=(64, 8, 15, 4)).astype("float32")
    outputs = to_numpy(layer(inputs, training=True))
    for start in (0, 4):
        part = to_numpy(layer(inputs[:, :, start : start + 11], training=True))
        np.testing.assert_allclose(outputs[:, :, start : start + 9], part, rtol=0, atol=1e-4)


def test_responses_added_one_by_one_survive_infinite_inputs(rng, monkeypatch):
    monkeypatch.setattr(low_rank, "MOST_RESPONSES", 0)
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
