"""Convolution whose taps move, each at every position, to where the input tells them."""

import math
from typing import Any, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv import SharedFilterConv
from low_rank_local_connectivity.layers.biases import with_biases
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    split_shape,
    to_channels_last,
)
from low_rank_local_connectivity.layers.deformable.offset_branch import OffsetBranch
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.ops.arguments import boolean, groups_of, number_above, tensor
from low_rank_local_connectivity.ops.borders import with_border
from low_rank_local_connectivity.ops.convolution import windowed_convolution
from low_rank_local_connectivity.ops.deform_conv import deform_conv2d
from low_rank_local_connectivity.ops.operation_counts import each_shape
from low_rank_local_connectivity.ops.windows import Padding, Windows


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class DeformableConv2D(OffsetBranch, SharedFilterConv):
    """A convolution whose taps move, each at every position, to where the input tells them.

    `outputs[p] = sum_t m_t[p] x(s p - pad + d t + offset_t[p]) @ kernel[t]`

    with bilinear interpolation between pixels and zeros outside. The offsets, and the factors `m`
    of the modulated form, come from a second convolution of the same inputs, the offset branch,
    with the same kernel size, strides, padding and dilation. Its weights start at zero, so that
    the layer starts as an ordinary convolution; `m = mask_scale * sigmoid(.)` is 1 then. Or both
    are given to the call, as another layer finds them.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple of 2.
        strides: Step between windows per spatial axis, in input elements.
        padding: As in `LocallyConnected2D`. A tap may be moved beyond what is padded, where there
            are zeros.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis, in input elements.
        offset_groups: How many groups of input channels have offsets of their own, at least 1;
            divides the channels.
        modulated: Whether each sample is weighted too, as in version 2 of the reference; False
            is version 1.
        mask_scale: The largest weight of a sample, above 0. 2, since `sigmoid` starts at 1/2; 1,
            the reference's, halves the responses of what starts as a convolution.
        offset_lr_multiplier: Factor of the gradients of the offset branch's weights, at least 0:
            under plain gradient descent its learning rate. The references use 0.1. An optimizer
            that normalises gradients, such as Adam, undoes it.
        activation: Name or callable.
        use_bias: Whether each filter has a bias.
        groups: How many groups of channels have filters of their own, as in Keras's convolutions:
            divides channels and filters.
        use_offset_branch: Whether the layer has a branch; if not, offsets must be given.
        kernel_initializer: Initializer of the kernel.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the bias.

    Weights, in this order:
        kernel: `(*kernel_size, input channels / groups, filters)`.
        bias: `(filters,)`.
        offset_kernel: `(*kernel_size, input channels, g * t * n)`, with `t` taps, `g` offset
            groups and `n` 2, or 3 if modulated: first all offsets, then all masks, in the order
            that `ops.deform_conv2d` takes them.
        offset_bias: `(g * t * n,)`.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; any size.
        Optionally `offset` and `modulation`, as `offsets_and_mask` returns them.

    Output:
        As `keras.layers.Conv2D`.

    Raises:
        ValueError: If an argument is out of range, or the groups do not divide the channels.

    Example:
        >>> layer = DeformableConv2D(6, 3, padding="same")
        >>> images = keras.random.normal((2, 8, 9, 4), seed=1)
        >>> outputs = layer(images)
        >>> plain = ops.conv(images, layer.kernel, padding="same", data_format="channels_last")
        >>> bool(ops.all(ops.isclose(outputs, plain, atol=1e-5)))
        True

    Reference:
        Dai et al., "Deformable Convolutional Networks", ICCV 2017; Zhu et al., "Deformable
        ConvNets v2: More Deformable, Better Results", CVPR 2019.
    """

    dimensions = 2

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        offset_groups: int = 1,
        modulated: bool = True,
        mask_scale: float = 2.0,
        offset_lr_multiplier: float = 1.0,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        *,
        groups: int = 1,
        use_offset_branch: bool = True,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
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
        self._take_offset_arguments(offset_groups, offset_lr_multiplier)
        self.groups = groups_of(groups, self.filters)
        self.use_offset_branch = boolean("use_offset_branch", use_offset_branch)
        self.modulated = boolean("modulated", modulated)
        self.mask_scale = number_above("mask_scale", mask_scale, 0)

    ARGUMENTS = arguments_of(__init__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        super().build(input_shape)
        self._take_channels(input_shape, self.input_channels)
        if self.use_offset_branch:
            self._build_offset_branch(3 if self.modulated else 2)

    def offsets_and_mask(self, x):
        """Returns where the taps go for given inputs, and how much each sample weighs.

        Args:
            x: The layer's inputs.

        Returns:
            Offsets, with `2 * offset_groups * taps` channels in the layer's data format: for
            every group and tap the pixels down and to the right; and the mask, with
            `offset_groups * taps` channels, or None if the layer is not modulated.

        Raises:
            ValueError: If the layer is not built, or `x` is no batch of images.

        Example:
            >>> layer = DeformableConv2D(6, (3, 2))
            >>> layer.build((None, 8, 9, 4))
            >>> offsets, mask = layer.offsets_and_mask(ops.ones((1, 8, 9, 4)))
            >>> tuple(offsets.shape), tuple(mask.shape), bool(ops.all(mask == 1))
            ((1, 6, 8, 12), (1, 6, 8, 6), True)
        """
        self.require_built("offsets_and_mask")
        self._require_offset_branch()
        inputs = ops.cast(ops.convert_to_tensor(tensor("x", x, "bhwc")), self.compute_dtype)
        inputs, windows = with_border(to_channels_last(inputs, self.data_format), self.windows)
        offsets, mask = self._offset_branch(inputs, windows)
        if mask is not None:
            mask = from_channels_last(mask, self.data_format)
        return from_channels_last(offsets, self.data_format), mask

    def _offset_branch(self, inputs, windows: Windows):
        kernel, bias = self._offset_weights(inputs.dtype)
        found = windowed_convolution(inputs, kernel, windows) + bias
        if not self.modulated:
            return found, None
        offsets = 2 * self.windows.taps * self.offset_groups
        return found[..., :offsets], self.mask_scale * ops.sigmoid(found[..., offsets:])

    @property
    def further_windows(self) -> tuple[None, ...]:
        """None, for all positions, because taps may be moved anywhere."""
        return (None,)

    def operations(self, input_shape: Any) -> int:
        """Counts the convolution and the sampling, and what finds offsets that are not given.

        Args:
            input_shape: Shape of the inputs, or list of it and those of given offsets and factors.
        """
        shape, *given = each_shape(input_shape)
        found = super().operations(shape)
        if given or not self.use_offset_branch:
            return found
        sizes, _ = split_shape(self.compute_output_shape(shape), self.data_format, 2)
        return found + self._offset_operations(math.prod(sizes))

    def filter_operations(self, input_shape: Any, outputs: int) -> int:
        """Counts the convolution and the sampling."""
        found = super().filter_operations(input_shape, outputs)
        return found + self._sampling_operations(outputs // self.filters, further=self.modulated)

    def call(self, inputs, offset=None, modulation=None, training: bool | None = None):
        """Reads the inputs where offsets say, and applies the filters.

        Args:
            inputs: Tensor in the layer's data format.
            offset: Offsets in it, with `2 * offset_groups * taps` channels; the branch's if None.
            modulation: Factors of the samples, with `offset_groups * taps` channels; the branch's
                if `offset` is None, and else 1.
            training: Not used.
        """
        if offset is None:
            self._require_offset_branch()
            return super().call(inputs, training)
        self._check_sizes(tuple(inputs.shape))
        inputs = to_channels_last(inputs, self.data_format)
        offset, modulation = (
            None if one is None else to_channels_last(one, self.data_format)
            for one in (offset, modulation)
        )
        inputs, windows = with_border(inputs, self.windows)
        outputs = self._deformed(inputs, windows, offset, modulation)
        outputs = with_biases(outputs, *self.output_biases())
        return self.activation(from_channels_last(outputs, self.data_format))

    def compute_output_spec(self, inputs, offset=None, modulation=None, training=None):
        """Returns what a call would, which needs the same offsets."""
        del modulation
        if offset is None:
            self._require_offset_branch()
        return super().compute_output_spec(inputs, training=training)

    def _require_offset_branch(self) -> None:
        if not self.use_offset_branch:
            raise ValueError(
                f"Layer {self.name!r} has no offset branch, so its offsets must be given. "
                "Received: offset=None with use_offset_branch=False. Call layer(inputs, "
                "offset=...), or set use_offset_branch=True."
            )

    def convolve(self, inputs, training: bool | None = None):
        """Asks the offset branch where to read channels-last inputs, reads and convolves."""
        del training
        inputs, windows = with_border(inputs, self.windows)
        return self._deformed(inputs, windows, *self._offset_branch(inputs, windows))

    def _deformed(self, inputs, windows: Windows, offset, mask):
        """Convolves channels-last inputs that have their border."""
        return deform_conv2d(
            inputs,
            ops.cast(self.kernel, inputs.dtype),
            offset,
            mask,
            strides=self.strides,
            padding=windows.padding,
            dilation_rate=self.dilation_rate,
            offset_groups=self.offset_groups,
            groups=self.groups,
            data_format="channels_last",
        )
