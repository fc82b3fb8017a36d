"""What a TPU asks for: steps that XLA compiles, of fixed shapes, without calling the host."""

import keras
import numpy as np
import pytest

from low_rank_local_connectivity.models import CONVOLUTIONS, MODELS, Settings, convolution
from low_rank_local_connectivity.training import Placement, Recipe, session

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX compiles everything"),
]
BATCH = 4
# In the compiled module each of these would be a way to the host.
TO_THE_HOST = ("outfeed", "infeed", "callback", "send(", "recv(", 'custom_call_target="Py')
# Networks whose kinds of layers cannot be chosen.
OWN = [name for name in MODELS if not MODELS[name].stages and not MODELS[name].num_layers]
KINDS = [*CONVOLUTIONS, "input-dependent"]
# Compiling the others takes most of a minute. The second has all that a low-rank layer has; every
# layer's own step is compiled by test_contract.py.
QUICK = ("input-dependent",)


def network(name, kind):
    settings = Settings(spatial_rank=2)
    if kind == "input-dependent":
        kind = "low_rank_locally_connected2d"
        settings = Settings(
            spatial_rank=2,
            input_dependent=True,
            share_row_combining_weights=False,
            share_col_combining_weights=False,
        )
    make = convolution(kind, settings)
    if not MODELS[name].stages and not MODELS[name].num_layers:
        return MODELS[name].build((32, 32, 3), 5)
    if not MODELS[name].stages:
        return MODELS[name].build((12, 11, 3), 5, [make] * 3, filters=4)
    last = MODELS[name].stages[-1]
    return MODELS[name].build((64, 96, 3), 5, insert=make, replace={last: make})


def lowered(name, kind):
    """The compiled training and evaluation steps as XLA's text."""
    import tensorflow as tf

    model = network(name, kind)
    session.compile_model(model, Recipe(2, 3, 0.1, 1, optimizer="sgd", label_smoothing=0.1))
    images = tf.constant(np.zeros((BATCH, *model.input_shape[1:]), "float32"))
    labels = tf.constant(np.zeros(BATCH, "int64"))
    model._symbolic_build(data_batch=(images, labels))

    def text(step):
        compiled = tf.function(step, jit_compile=True)
        return compiled.experimental_get_compiler_ir((images, labels))(stage="hlo")

    return text(model.train_step), text(model.test_step)


def check(name, kind):
    for module in lowered(name, kind):
        assert module.startswith("HloModule")
        assert f"f32[{BATCH}," in module
        # A size that is only bounded is written with <=.
        assert "<=" not in module.replace("direction=LE", "")
        for way in TO_THE_HOST:
            assert way not in module


@pytest.mark.parametrize(
    "kind",
    [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def test_the_small_networks_steps_compile(kind):
    check("simple_network", kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].stages])
def test_every_residual_networks_steps_compile(name, kind):
    if kind == "full_conv2d" and not name.startswith("full_"):
        pytest.skip("A network is full as a whole.")
    check(name, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer_network", *OWN])
def test_the_steps_of_networks_with_layers_of_their_own_compile(name):
    check(name, "conv2d")


def test_a_gpu_compiles_what_xla_can_make_deterministic(monkeypatch):
    import tensorflow as tf

    small, residual = network("simple_network", "conv2d"), network("resnet18", "conv2d")
    assert session.choose_jit_compile(small) is False
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU:0"])
    assert session.choose_jit_compile(small) is True
    assert session.choose_jit_compile(residual) is False
    mirrored = Placement("mirrored", replicas=2, strategy=tf.distribute.get_strategy())
    assert session.choose_jit_compile(small, mirrored) is False


def test_on_a_tpu_kernels_are_not_asked_to_be_deterministic(monkeypatch):
    import tensorflow as tf

    asked = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append(True))
    session.make_deterministic(0, kernels=False)
    assert not asked
    session.make_deterministic(0)
    assert asked
