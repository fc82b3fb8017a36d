"""What images are where there is nothing, carried through layers as one more example."""

from typing import Any, Unpack

import keras
from keras import layers, ops

from low_rank_local_connectivity.inspection.operation_rules import operations
from low_rank_local_connectivity.layers.arguments import layer_of
from low_rank_local_connectivity.layers.configured_layer import TakesAnyDtype
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.ops.arguments import finite_number, items_of


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class WithBackground(TakesAnyDtype, layers.Wrapper):
    """Runs layers on a batch and, behind it, an example that is background everywhere.

    `outputs = layer(concatenate([inputs, background]))[:-1]`

    Whatever the layers do to their inputs they do to the background: biases, activations, poolings
    and normalisations act on it as on any other example. Those that pad with
    `padding_value="background"` read from it what their own input is where there is nothing. It
    costs the time of one example in a batch, and takes part in batch statistics while training.

    Args:
        layer: A layer or model whose outputs have one example for each of its inputs.
        value: The background of the images: a number, or one for each channel (last axis), such
            as that which normalisation turns black into.

    Input:
        As the layer's; a single tensor.

    Raises:
        ValueError: If `layer` is no layer, or `value` neither a number nor a list of them.

    Output:
        As the layer's.

    Example:
        >>> from low_rank_local_connectivity import FullConv2D
        >>> body = keras.Sequential([
        ...     FullConv2D(4, 3, use_bias=True, activation="relu"),
        ...     FullConv2D(5, 3, use_bias=True, padding_value="background"),
        ... ])
        >>> tuple(WithBackground(body)(ops.zeros((2, 7, 8, 3))).shape)
        (2, 11, 12, 5)

    Reference:
        The padding of Kayhan and van Gemert (CVPR 2020) is zero; a background that follows the
        network is what makes their invariance exact with biases.
    """

    def __init__(
        self,
        layer: Any,
        value: float | list[float] = 0.0,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(layer_of("layer", layer, "a layer or model"), **kwargs)
        items = items_of(value)
        if items is None:
            self.value: Any = finite_number("value", value)
        else:
            self.value = [finite_number("value", one) for one in items]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain values."""
        return {**super().get_config(), "value": self.value}

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the shape of the layer's outputs."""
        shape = self.layer.compute_output_shape((None, *input_shape[1:]))
        return (input_shape[0], *shape[1:])

    @property
    def windows(self) -> Any:
        """The layer itself, whose positions read what these do."""
        return self.layer

    def operations(self, input_shape: Any) -> int:
        """Counts the layer on an example; the background is one more example in a batch."""
        return operations(self.layer, input_shape)

    def call(self, inputs):
        """Appends the background, applies the layer, drops what became of the background."""
        value: Any = ops.cast(ops.convert_to_tensor(self.value), inputs.dtype)
        background = ops.zeros_like(inputs[:1]) + value
        extended = ops.concatenate([inputs, background], axis=0)
        # Keras gives the layer the value of `training` that this call has.
        return self.layer(extended)[:-1]
