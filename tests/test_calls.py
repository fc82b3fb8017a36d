"""Calls without examples, and layers that are built when they are made."""

import keras
import numpy as np
import pytest
from backends import call, outputs_and_gradients
from cases import CASES

from low_rank_local_connectivity import layers

BACKEND = keras.backend.backend()


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras's Conv2D takes no empty batch there")
@pytest.mark.parametrize(
    "case",
    # JAX compiles each of them; what differs by argument reads moved taps.
    [case for case in CASES if BACKEND != "jax" or not case.label or "Deform" in case.layer],
    ids=str,
)
def test_an_empty_batch_gives_an_empty_batch_and_gradients_of_zero(case):
    layer = case.make()
    layer.build(case.input_shape)
    inputs = np.zeros((0, *case.input_shape[1:]), "float32")
    shape = (0, *layer.compute_output_shape(case.input_shape)[1:])
    outputs, gradients = outputs_and_gradients(layer, inputs, np.zeros(shape, "float32"))
    assert outputs.shape == shape
    assert gradients[0].shape == inputs.shape
    for weight, gradient in zip(layer.trainable_weights, gradients[1:], strict=True):
        assert gradient.shape == tuple(weight.shape)
        assert not gradient.any()


WEIGHTLESS = {
    "AddCoordinates2D": {},
    "GroupPooling2D": {},
    "ScalePooling2D": {},
    "ScaleSpaceLifting2D": {"num_scales": 2},
    "DynamicLocalFilter2D": {"kernel_size": 3, "use_generator": False},
}


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_layers_without_weights_are_built_when_made_unless_a_subclass_builds(name):
    layer_class, arguments = getattr(layers, name), WEIGHTLESS[name]
    assert layer_class(**arguments).built
    assert not layer_class(**arguments).weights

    class Scaled(layer_class):
        def build(self, input_shape):
            super().build(input_shape)
            self.factor = self.add_weight(shape=(), name="factor")

    layer = Scaled(**arguments)
    assert not layer.built
    (case,) = [c for c in CASES if c.layer == name and not c.label]
    layer.build(case.input_shape)
    assert [weight.name for weight in layer.weights] == ["factor"]


def test_layers_without_weights_take_any_number_of_channels():
    for layer in (layers.ScalePooling2D(), layers.ScaleSpaceLifting2D(2)):
        shape = (2, 3, 5, 7, 4)[-5 if isinstance(layer, layers.ScalePooling2D) else -4 :]
        for channels in (4, 6):
            found = call(layer, np.zeros((*shape[:-1], channels), "float32"))
            assert found.shape[-1] == channels
