"""The convolution that tells each tap of another where to read."""

import math
from typing import Any

from keras import ops

from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer
from low_rank_local_connectivity.ops.arguments import number_above, positive_int, received
from low_rank_local_connectivity.ops.operation_counts import SAMPLE


class OffsetBranch(ConfiguredLayer):
    """A layer whose taps move to where a second convolution of its inputs tells them.

    Its weights start at zero: no tap moves. A subclass takes the arguments and the channels and
    builds the branch behind its own weights; it applies the branch to its own kind of inputs.
    """

    kernel_size: tuple[int, ...]

    def _take_offset_arguments(self, offset_groups: Any, offset_lr_multiplier: Any) -> None:
        self.offset_groups = positive_int("offset_groups", offset_groups)
        self.offset_lr_multiplier = number_above(
            "offset_lr_multiplier", offset_lr_multiplier, 0, or_equal=True
        )

    def _take_channels(self, input_shape: Any, channels: int) -> None:
        """Keeps the number of channels that taps read, which the offset groups must divide."""
        self.offset_channels = channels
        if channels % self.offset_groups:
            raise ValueError(
                f"`offset_groups` must divide the number of input channels of layer "
                f"{self.name!r}. Received: offset_groups={self.offset_groups} and "
                f"{received('input_shape', input_shape)}, with {channels} channels."
            )

    def _build_offset_branch(self, per_tap: int = 2) -> None:
        """Creates the branch's weights, which find `per_tap` numbers for each group and tap."""
        found = self.offset_groups * math.prod(self.kernel_size) * per_tap
        self.offset_kernel = self.add_weight(
            shape=(*self.kernel_size, self.offset_channels, found),
            initializer="zeros",
            name="offset_kernel",
        )
        self.offset_bias = self.add_weight(shape=(found,), initializer="zeros", name="offset_bias")

    def _offset_weights(self, dtype: str) -> tuple[Any, Any]:
        """Returns the branch's kernel and bias in a data type, with slower gradients."""
        weights = (self.offset_kernel, self.offset_bias)
        kernel, bias = (slow_down(one, self.offset_lr_multiplier) for one in weights)
        return ops.cast(kernel, dtype), ops.cast(bias, dtype)

    def _offset_operations(self, positions: int, further: int = 0) -> int:
        """Counts the branch, with `further` operations on each number that it finds."""
        *read, found = self.offset_kernel.shape
        return (2 * math.prod(read) + 1 + further) * found * positions

    def _sampling_operations(self, positions: int, further: int = 0) -> int:
        """Counts what every tap reads, with `further` operations on each sample."""
        reads = math.prod(self.kernel_size) * self.offset_channels
        return (SAMPLE + further) * reads * positions


def slow_down(weight: Any, multiplier: float) -> Any:
    """Returns the weight's value, through which `multiplier` times the gradient passes.

    Example:
        >>> slow_down(ops.array([3.0, 0.1]), 0.1).shape[0]
        2
    """
    weight = ops.convert_to_tensor(weight)
    if multiplier == 1:
        return weight
    still = ops.stop_gradient(weight)
    # The difference is exactly 0: the value is the weight's own to the last bit.
    return still + multiplier * (weight - still)
