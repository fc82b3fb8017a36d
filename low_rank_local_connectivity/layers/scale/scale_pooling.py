"""From scale spaces to maps that hardly depend on the scale."""

from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    standardize_data_format,
)
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.layers.scale_levels import (
    is_pyramid,
    levels_of,
    split_scale_space,
)
from low_rank_local_connectivity.ops.arguments import one_of
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.ops.reduction import reduce_axis


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class ScalePooling2D(ConfiguredLayer):
    """Reduces a scale space to one map: at each position, the largest or the mean of all levels.

    `outputs[z] = max over k of inputs[k, z]`

    The levels of a pyramid are first brought to the size of the smallest: level `k` by max-pooling
    over windows of `size[k] // size[-1]` positions, next to each other. A rest at the end, which
    windows of that size leave where `base` is no whole number, is dropped.

    Args:
        mode: `"max"` or `"mean"`, of the levels; the windows' is always the largest.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.

    Input:
        `(batch, scales, height, width, channels)` or `(batch, channels, scales, height, width)`;
        or a list of the levels of a pyramid, whose sizes must be known, the smallest last.

    Output:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; of a pyramid,
        as large as its smallest level.

    Raises:
        ValueError: If the mode is unknown, the input no scale space, or a pyramid's sizes not
            known or a level smaller than the last.

    Example:
        >>> inputs = ops.reshape(ops.array([1.0, 5.0, 3.0, 1.0]), (1, 2, 1, 2, 1))
        >>> ops.convert_to_numpy(ScalePooling2D()(inputs)).ravel().tolist()
        [3.0, 5.0]
        >>> levels = [ops.ones((1, 9, 12, 3)), ops.ones((1, 4, 6, 3)), ops.ones((1, 2, 3, 3))]
        >>> tuple(ScalePooling2D("mean")(levels).shape)
        (1, 2, 3, 3)

    Reference:
        Worrall and Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019,
        https://arxiv.org/abs/1905.11697.
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
        self._build_now(ScalePooling2D)

    ARGUMENTS = arguments_of(__init__)

    def build(self, input_shape: Any) -> None:
        """Checks the input's shape; there are no weights."""
        self.compute_output_shape(input_shape)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape without the axis of scales, or that of the last level."""
        sizes, channels = split_scale_space(input_shape, self.data_format, self.name)
        if is_pyramid(input_shape):
            _windows(sizes, self.name)
        batch = input_shape[0][0] if is_pyramid(input_shape) else input_shape[0]
        return join_shape(batch, sizes[-1], channels, self.data_format)

    # Levels are read together, those of a pyramid at different distances: no one window says how.
    windows = None

    def operations(self, input_shape: Any) -> int:
        """Counts one for each number that is pooled."""
        return numbers(input_shape)

    def call(self, inputs):
        """Reduces the levels."""
        pyramid = is_pyramid(inputs)
        self.compute_output_shape([one.shape for one in inputs] if pyramid else inputs.shape)
        if not pyramid:
            return reduce_axis(inputs, self.mode, 1 if self.data_format == "channels_last" else 2)
        levels = levels_of(inputs, self.data_format)
        sizes = [tuple(level.shape[1:3]) for level in levels]
        pooled = [
            _shrink(level, window, sizes[-1])
            for level, window in zip(levels, _windows(sizes, self.name), strict=True)
        ]
        return from_channels_last(reduce_axis(ops.stack(pooled), self.mode, 0), self.data_format)


def _windows(sizes: list[Any], name: str) -> list[tuple[int, int]]:
    """Returns the pooling window that brings each level to about the last one's size."""
    smallest = sizes[-1]
    if any(None in size or min(size) < 1 for size in sizes) or any(
        length < last for size in sizes for length, last in zip(size, smallest, strict=True)
    ):
        raise ValueError(
            f"The levels of a pyramid given to layer {name!r} must have known sizes, the smallest "
            f"last. Received: spatial sizes {sizes}."
        )
    return [(size[0] // smallest[0], size[1] // smallest[1]) for size in sizes]


def _shrink(level, window: tuple[int, int], size: tuple[int, int]):
    if max(window) > 1:
        level = ops.max_pool(level, window, window, "valid", data_format="channels_last")
    return level[:, : size[0], : size[1]]
