"""Pooling over orientations."""

from typing import Any, Literal, Unpack

import keras

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer
from low_rank_local_connectivity.layers.data_format import standardize_data_format
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.layers.turned.group_action import CommutesWithEveryGroup
from low_rank_local_connectivity.layers.turned.group_maps import plain_shape
from low_rank_local_connectivity.ops.arguments import one_of
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.ops.reduction import reduce_axis
from low_rank_local_connectivity.ops.windows import Windows


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class GroupPooling2D(CommutesWithEveryGroup, ConfiguredLayer):
    """The maximum or the mean over the orientations of maps, which then only turn.

    `outputs[p, c] = max_r inputs[p, r, c]`. A turned image gives turned maps whose orientations
    are moved on; pooled over them the maps are turned and nothing else, and pooled over positions
    too they stay as they were: features that do not depend on the rotation.

    Args:
        mode: `"max"`, which keeps how well the best orientation fits, or `"mean"`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.

    Input:
        `(batch, height, width, order, channels)`, or `(batch, order, channels, height, width)`
        under `"channels_first"`.

    Output:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`.

    Raises:
        ValueError: If an argument is not one of these.

    Example:
        >>> tuple(GroupPooling2D("mean")(keras.ops.ones((2, 9, 8, 4, 5))).shape)
        (2, 9, 8, 5)

    Reference:
        Cohen and Welling, "Group Equivariant Convolutional Networks", ICML 2016, section 6.3.
    """

    def __init__(
        self,
        mode: Literal["max", "mean"] = "max",
        data_format: str | None = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.mode = one_of("mode", mode, ("max", "mean"))
        self.data_format = standardize_data_format(data_format)
        self.input_spec = keras.layers.InputSpec(ndim=5)
        self._build_now(GroupPooling2D)

    ARGUMENTS = arguments_of(__init__)

    def compute_output_shape(self, input_shape) -> tuple:
        """Returns the shape without orientations."""
        return plain_shape(input_shape, self.data_format)[0]

    @property
    def windows(self) -> Windows:
        """Each position by itself, in all orientations."""
        return Windows.single(2)

    def operations(self, input_shape: Any) -> int:
        """Counts one for each number that is pooled."""
        return numbers(input_shape)

    def call(self, inputs):
        """Pools over the orientations."""
        axis = 3 if self.data_format == "channels_last" else 1
        return reduce_axis(inputs, self.mode, axis)
