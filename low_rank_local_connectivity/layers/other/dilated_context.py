"""A cascade of dilated convolutions that gathers context without losing resolution."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import layers

from low_rank_local_connectivity.initializers import IdentityConv
from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.configured_layer import LayerWithKernels
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.filter_initialization import separate_clone
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.ops.arguments import (
    one_of_any_case,
    per_axis,
    positive_int,
    positive_ints,
)
from low_rank_local_connectivity.ops.borders import with_border
from low_rank_local_connectivity.ops.operation_counts import convolution, numbers, per_output
from low_rank_local_connectivity.ops.windows import READ_BORDERS, Windows


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class DilatedContext2D(LayerWithKernels):
    """Dilated convolutions with ReLU, one after another, and a linear 1x1 convolution.

    `x[i + 1] = relu(conv(x[i], dilation d[i]) + bias[i])`, and `outputs = conv1x1(x[n]) + bias`.

    Each convolution widens what an output sees by `(kernel_size - 1) * d[i]`, so dilations that
    double widen it exponentially at linear cost: 67 x 67 elements by default, with no pooling.
    Initial kernels are near the identity: a fresh module passes on the positive part of its
    input, and can be put behind a trained network; the reference found that with random ones
    such a module does not learn.

    Args:
        channels: Channels of the output, and of each convolution unless `multipliers` says
            otherwise; the input's if None.
        dilations: Step between taps of each convolution but the last.
        kernel_size: Taps per spatial axis of each convolution but the last. Odd, to begin as the
            identity: of an even number no tap lies over the position itself once it is dilated.
        padding: `"same"`, with zeros around each convolution's inputs; `"circular"`, `"reflect"` or
            `"replicate"`, with a border read from these, as in `LocallyConnected2D`; or `"valid"`,
            for inputs that carry their own surroundings.
        multipliers: Width of each convolution but the last, as a multiple of `channels`: an
            integer each; 1 if None, the reference's basic module. Its large one widens with the
            dilations.
        use_bias: Whether the convolutions have biases.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        kernel_initializer: Initializer of every kernel; `IdentityConv()` if None. One without
            groups of its own works in as many groups as `channels`.
        bias_initializer: Initializer of every bias.
        kernel_regularizer: Regularizer of every kernel.
        bias_regularizer: Regularizer of every bias.
        kernel_constraint: Constraint on every kernel.
        bias_constraint: Constraint on every bias.

    Weights:
        context_0/kernel, context_0/bias and so on, then output/kernel, output/bias.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; any size.

    Output:
        The same with `channels` channels; without padding, smaller by
        `(kernel_size - 1) * sum(dilations)`.

    Raises:
        ValueError: If an argument is out of range or the input too small.

    Example:
        >>> from keras import ops
        >>> layer = DilatedContext2D(kernel_initializer=IdentityConv(stddev=0.0))
        >>> inputs = ops.reshape(ops.arange(-2, 2, dtype="float32"), (1, 2, 2, 1))
        >>> ops.convert_to_numpy(layer(inputs)).ravel().tolist()
        [0.0, 0.0, 0.0, 1.0]

    Reference:
        Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016,
        https://arxiv.org/abs/1511.07122.
    """

    def __init__(
        self,
        channels: int | None = None,
        dilations: Sequence[int] = (1, 1, 2, 4, 8, 16, 1),
        kernel_size: int | tuple[int, ...] = 3,
        padding: str = "same",
        multipliers: Sequence[int] | None = None,
        use_bias: bool = True,
        data_format: str | None = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.channels = None if channels is None else positive_int("channels", channels)
        self.dilations = positive_ints("dilations", dilations)
        self.kernel_size = per_axis("kernel_size", kernel_size, 2)
        self.padding = one_of_any_case("padding", padding, ("same", "valid", *READ_BORDERS))
        self.multipliers = self._standardize_multipliers(multipliers)
        self.data_format = standardize_data_format(data_format)
        self.keep(
            use_bias=use_bias,
            kernel_initializer=IdentityConv() if kernel_initializer is None else kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        self.input_spec = layers.InputSpec(ndim=4)
        self.convolutions: list[keras.Layer] = []

    ARGUMENTS = arguments_of(__init__)

    def _standardize_multipliers(self, values: Sequence[int] | None) -> tuple[int, ...] | None:
        if values is None:
            return None
        multipliers = positive_ints("multipliers", values)
        if len(multipliers) != len(self.dilations):
            raise ValueError(
                "`multipliers` must have one integer for each of `dilations`. Received: "
                f"multipliers={multipliers} with dilations={self.dilations}."
            )
        return multipliers

    @property
    def windows(self) -> Windows:
        """Where windows sit that read as much as all convolutions, one after another."""
        padding = "valid" if self.padding == "valid" else "same"
        return Windows(self.receptive_field, (1, 1), (1, 1), padding)

    def _windows_of_each(self) -> list[Windows]:
        """Returns where the windows of each convolution sit."""
        context = [
            Windows(self.kernel_size, (1, 1), (rate, rate), self.padding) for rate in self.dilations
        ]
        return [*context, Windows.single(2)]

    def _sizes_between(self, sizes: tuple) -> list[tuple]:
        """Returns the spatial size of what each convolution makes of inputs of a size."""
        found = []
        for windows in self._windows_of_each():
            if windows.reads_border:
                windows.pad_amounts(sizes)
            sizes = windows.output_shape(sizes)
            found.append(sizes)
        return found

    @property
    def receptive_field(self) -> tuple[int, ...]:
        """How many input elements an output depends on, along each spatial axis.

        Example:
            >>> DilatedContext2D().receptive_field
            (67, 67)
        """
        return tuple(1 + (size - 1) * sum(self.dilations) for size in self.kernel_size)

    def build(self, input_shape: Any) -> None:
        """Creates the convolutions for inputs of this shape."""
        sizes, width = split_shape(input_shape, self.data_format, 2)
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = layers.InputSpec(ndim=4, axes={axis: width})
        self._output_sizes(sizes)
        channels = self.channels or width
        multipliers = self.multipliers or (1,) * len(self.dilations)
        self.convolutions = []
        for index, (rate, multiplier) in enumerate(zip(self.dilations, multipliers, strict=True)):
            filters = multiplier * channels
            self.convolutions.append(
                self._convolution(index, width, channels, filters, rate, f"context_{index}")
            )
            width = filters
        index = len(self.convolutions)
        self.convolutions.append(self._convolution(index, width, channels, channels, 0, "output"))

    def _convolution(
        self, index: int, width: int, channels: int, filters: int, rate: int, name: str
    ) -> keras.Layer:
        """Returns the built convolution at `index` in the cascade; the last has no dilation."""
        initializer: Any = separate_clone(self.kernel_initializer, index)
        if isinstance(initializer, IdentityConv) and initializer.groups is None:
            divides = width % channels == 0
            config = {**initializer.get_config(), "groups": channels if divides else None}
            initializer = IdentityConv.from_config(config)
        convolution = layers.Conv2D(
            filters,
            self.kernel_size if rate else 1,
            padding="same" if self.padding == "same" else "valid",
            data_format="channels_last",
            dilation_rate=rate or 1,
            activation="relu" if rate else None,
            use_bias=self.use_bias,
            kernel_initializer=initializer,
            bias_initializer=separate_clone(self.bias_initializer, index),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )
        convolution.build((None, None, None, width))
        return convolution

    def _output_sizes(self, sizes: tuple) -> tuple:
        """Returns the spatial size of the outputs for inputs of a size, which must be enough."""
        found = self._sizes_between(sizes)[-1]
        if any(isinstance(size, int) and size < 1 for size in found):
            raise ValueError(
                f"Layer {self.name!r} sees {self.receptive_field} input elements at once and "
                "without padding needs as many. Received: spatial input size "
                f"{sizes} with padding='valid'. Use padding='same', or fewer or smaller dilations."
            )
        return found

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape with the output's channels and size."""
        sizes, width = split_shape(input_shape, self.data_format, 2)
        channels = self.channels or width
        return join_shape(input_shape[0], self._output_sizes(sizes), channels, self.data_format)

    def operations(self, input_shape: Any) -> int:
        """Counts every convolution with its bias and activation."""
        self.require_built("operations")
        sizes, _ = split_shape(input_shape, self.data_format, 2)
        found = 0
        for conv, size in zip(self.convolutions, self._sizes_between(sizes), strict=True):
            one: Any = conv
            outputs = numbers((None, *size, one.filters))
            after = per_output(one.use_bias, one.activation)
            found += convolution(one.kernel.shape, outputs) + after * outputs
        return found

    def call(self, inputs):
        """Convolves, one after another."""
        outputs = to_channels_last(inputs, self.data_format)
        self._output_sizes(tuple(outputs.shape[1:3]))
        for one, windows in zip(self.convolutions, self._windows_of_each(), strict=True):
            padded, _ = with_border(outputs, windows)
            outputs = one(padded)
        return from_channels_last(outputs, self.data_format)
