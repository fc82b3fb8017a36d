"""Transposed locally connected layers: a filter bank of its own at every input position."""

from typing import Any, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv_transpose import BaseLocalConvTranspose
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.local.stored_filters import StoredFilters, taps_first
from low_rank_local_connectivity.ops.local_convolution_transpose import local_convolution_transpose


class LocallyConnectedTranspose(BaseLocalConvTranspose, StoredFilters):
    """A transposed convolution that shares nothing between positions.

    `outputs[b, s, f] = activation(sum inputs[b, p, c] * kernel[p, (t, f), c] + bias[s, f])`

    where the sum runs over the channels `c` and over the input positions `p` and taps `t` that
    meet at output `s`, `p * strides + t * dilation_rate - first = s`: every position of the *input*
    has filters of its own, which it spreads over the outputs. Arguments and output sizes are those
    of Keras's `Conv{1,2,3}DTranspose`, so that the decoder of a U-Net can be made locally
    connected.

    Without bias and activation it is the adjoint of the locally connected layer of the same kernel
    and windows, from outputs to inputs: `<LCT(x), y> = <x, LC(y)>`.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple.
        strides: Step between windows per spatial axis, in output elements.
        padding: `"valid"` or `"same"`.
        output_padding: Further outputs per spatial axis at the end, less than the stride; if None,
            `"same"` makes the outputs `strides` times as long as the inputs.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis, in output elements; 1 if strides are
            above 1.
        activation: Name or callable.
        use_bias: Whether each output position and filter has a bias.
        kernel_initializer: Initializer of the kernel; each position's filters are drawn as a
            transposed convolution's, and positions differ.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the bias.

    Weights:
        kernel: `(input positions, kernel taps * filters, input channels)`; positions in row-major
            order. With `channels_first` the middle axis runs over filters, then taps.
        bias: `(*output sizes, filters)`. With `channels_first` its values are stored in the
            order `(filters, *output sizes)`, as `LocallyConnected` layers store theirs.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`; the spatial size must be
        known, the batch size need not be.

    Output:
        The same with `filters` channels, larger as `Conv{1,2,3}DTranspose` makes it.

    Raises:
        ValueError: If an argument is out of range, or the input's spatial size is unknown.

    Reference:
        Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", CVPR 2010; asked for of
        PyTorch in https://github.com/pytorch/pytorch/issues/499.
    """

    position = "input position"
    sharing = "LowRankLocallyConnected{}DTranspose"
    fewer_with = "smaller inputs"

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        output_padding: int | tuple[int, ...] | None = None,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            output_padding=output_padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )

    ARGUMENTS = arguments_of(__init__)

    @property
    def bank(self) -> tuple[int, ...]:
        """Shape of the filters of one position, as a transposed convolution has its one bank."""
        return (*self.kernel_size, self.filters, self.input_channels)

    def local_kernel(self):
        """Returns the filters as a tensor `(*input sizes, *kernel size, filters, channels)`.

        Raises:
            ValueError: If the layer is not built.

        Example:
            >>> layer = LocallyConnected1DTranspose(5, 3)
            >>> layer.build((None, 10, 2))
            >>> ops.shape(layer.local_kernel())
            (10, 3, 5, 2)
        """
        self.require_built("local_kernel")
        return ops.reshape(
            taps_first(self.kernel, self.windows.taps, self.data_format),
            (*self.input_sizes, *self.bank),
        )

    def convolve(self, inputs, training: bool | None = None):
        """Spreads each position over the outputs by its filters."""
        kernel = taps_first(self.kernel, self.windows.taps, self.data_format)
        kernel = ops.cast(kernel, inputs.dtype)
        return local_convolution_transpose(inputs, kernel, self.windows, bool(training))


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LocallyConnectedTranspose)
class LocallyConnected1DTranspose(LocallyConnectedTranspose):
    """A transposed locally connected layer over 1 axis, such as time.

    Example:
        >>> layer = LocallyConnected1DTranspose(6, 3, strides=2, padding="same")
        >>> tuple(layer(ops.ones((2, 10, 4))).shape)
        (2, 20, 6)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LocallyConnectedTranspose)
class LocallyConnected2DTranspose(LocallyConnectedTranspose):
    """A transposed locally connected layer over 2 axes, such as those of images.

    Example:
        >>> layer = LocallyConnected2DTranspose(6, (3, 2), strides=2)
        >>> tuple(layer(ops.ones((2, 5, 4, 3))).shape)
        (2, 11, 8, 6)
    """

    dimensions = 2


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LocallyConnectedTranspose)
class LocallyConnected3DTranspose(LocallyConnectedTranspose):
    """A transposed locally connected layer over 3 axes, such as those of volumes or videos.

    Example:
        >>> layer = LocallyConnected3DTranspose(6, 2, padding="same")
        >>> tuple(layer(ops.ones((2, 5, 4, 3, 2))).shape)
        (2, 5, 4, 3, 6)
    """

    dimensions = 3
