"""Base class of the transposed local convolution layers."""

from collections.abc import Sequence
from typing import Any

from low_rank_local_connectivity.layers.base_local_conv import BaseLocalConv
from low_rank_local_connectivity.ops.arguments import one_of_any_case, per_axis
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows


class BaseLocalConvTranspose(BaseLocalConv):
    """A transposed local operation: each input position writes to a window of the outputs.

    Args:
        output_padding: Further outputs per axis, less than the stride; None as in Keras.
        **convolution: Arguments of `BaseLocalConv`.
    """

    def __init__(self, *, output_padding: int | tuple[int, ...] | None, **convolution: Any) -> None:
        one_of_any_case("padding", convolution["padding"], self.paddings())
        super().__init__(**convolution)
        self._refuse_strides_with_dilation()
        self.output_padding = (
            None
            if output_padding is None
            else per_axis("output_padding", output_padding, self.dimensions, 0)
        )
        _ = self.windows  # refuses amounts that are not less than the stride

    def paddings(self) -> tuple[str, ...]:
        """Returns the values that `padding` may have."""
        return ("valid", "same")

    def _refuse_strides_with_dilation(self) -> None:
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "`strides` above 1 cannot be combined with a `dilation_rate` above 1 in a "
                f"transposed layer, as in Keras's. Received: strides={self.strides} and "
                f"dilation_rate={self.dilation_rate}. Set one of them to 1."
            )

    @property
    def windows(self) -> Any:
        """Where the layer's windows sit, an `ops.TransposedWindows`."""
        return TransposedWindows(
            self.kernel_size, self.strides, self.dilation_rate, self.padding, self.output_padding
        )

    @property
    def position_sizes(self) -> tuple[int | None, ...]:
        """How many positions along each axis have filters of their own: those of the inputs."""
        return self.input_sizes

    def fitting_sizes(self, sizes: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the outputs' size; there must be inputs, and outputs left of what they write."""
        found = self.windows.output_shape(sizes)
        if any(isinstance(size, int) and size < 1 for size in (*sizes, *found)):
            raise ValueError(
                f"The inputs and outputs of layer {self.name!r} must have at least one element "
                f"along every axis. Received: spatial input size {tuple(sizes)} with "
                f"kernel_size={self.kernel_size}, strides={self.strides}, "
                f"padding={self.padding!r} and output_padding={self.output_padding}. Use larger "
                "inputs, or leave output_padding out."
            )
        return found
