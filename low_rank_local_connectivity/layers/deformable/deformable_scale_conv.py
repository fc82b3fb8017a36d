"""Convolution of scale spaces whose taps move, farther at coarser scales."""

from typing import Any, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.deformable.offset_branch import OffsetBranch
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.scale.scale_conv import ScaleConv2D
from low_rank_local_connectivity.layers.scale_levels import is_pyramid, join_levels, levels_of
from low_rank_local_connectivity.ops.arguments import boolean, tensor
from low_rank_local_connectivity.ops.deformable_scale import deformable_scale_correlation
from low_rank_local_connectivity.ops.scale_space import scale_correlation


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class DeformableScaleConv2D(OffsetBranch, ScaleConv2D):
    """A convolution of a scale space whose taps move to where the inputs tell them.

    `outputs[k, z] = activation(bias + sum_l sum_y kernel[l, y] inputs[k + l](r))`
    with `r = z + base^k (y + offset[k, z, y])`

    and bilinear interpolation between pixels. The offsets of a level come from
    a convolution of that level, the offset branch: one kernel for all levels, of the same size
    and, like them, with taps `base^k` apart. Its weights start at zero, so that the layer starts
    as a `ScaleConv2D`.

    An offset is multiplied by `base^k`, as the distance of taps is: a shape that is twice as large
    is then met one level up by taps that have moved twice as far. With offsets that are whole
    numbers the layer is exactly as equivariant as a `ScaleConv2D`; with others it is up to the
    interpolation between pixels, which are coarser where the image is smaller.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple of 2. Odd, to be symmetric about
            a position.
        interaction: Number of levels that the kernel reads, from the output's own upwards, all
            with the offsets of the output's level.
        base: Factor from one level to the next, that of the lifting: an integer above 1, or any
            number above 1 with `rounding="floor"`.
        strides: Distance of outputs, as many positions at every level.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        rounding: As in `ScaleConv2D`.
        offset_groups: How many groups of input channels have offsets of their own, at least 1;
            divides the channels.
        scale_offsets: Whether offsets are multiplied by `base^k`. With False they count pixels
            at every level, which is not equivariant and is there to be compared with.
        offset_lr_multiplier: As in `DeformableConv2D`.
        activation: Name or callable.
        use_bias: Whether each filter has a bias, one for all levels.
        kernel_initializer: Initializer of the kernel, as in `ScaleConv2D`.
        bias_initializer: Initializer of the biases.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the biases.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the biases.
        output_scales: As in `ScaleConv2D`.

    Weights, in this order:
        kernel: `(interaction, *kernel_size, input channels, filters)`.
        bias: `(filters,)`.
        offset_kernel: `(*kernel_size, input channels, 2 * offset_groups * taps)`.
        offset_bias: `(2 * offset_groups * taps,)`.

    Input:
        As `ScaleConv2D`. In a pyramid levels are as small as they are coarse, and taps and offsets
        count the pixels of their level.

    Output:
        As `ScaleConv2D`.

    Raises:
        ValueError: If an argument is out of range, the input no scale space, or the groups do not
            divide its channels.

    Example:
        >>> layer = DeformableScaleConv2D(8, 3, interaction=2)
        >>> tuple(layer(ops.ones((1, 4, 16, 24, 3))).shape), tuple(layer.offset_kernel.shape)
        ((1, 4, 16, 24, 8), (3, 3, 3, 18))

    Reference:
        Worrall and Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019; Dai et
        al., "Deformable Convolutional Networks", ICCV 2017.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        interaction: int = 1,
        base: float = 2,
        strides: int | tuple[int, ...] = 1,
        data_format: str | None = None,
        rounding: str | None = None,
        offset_groups: int = 1,
        scale_offsets: bool = True,
        offset_lr_multiplier: float = 1.0,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        *,
        output_scales: int | None = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            interaction=interaction,
            base=base,
            strides=strides,
            data_format=data_format,
            rounding=rounding,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            output_scales=output_scales,
            **kwargs,
        )
        self._take_offset_arguments(offset_groups, offset_lr_multiplier)
        self.scale_offsets = boolean("scale_offsets", scale_offsets)

    ARGUMENTS = arguments_of(__init__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape, or of a list of shapes."""
        super().build(input_shape)
        self._take_channels(input_shape, self.kernel.shape[-2])
        self._build_offset_branch()

    def offsets(self, inputs):
        """Returns where the taps go for given inputs, in pixels, in the form of the outputs.

        Args:
            inputs: The layer's inputs.

        Returns:
            Offsets with `2 * offset_groups * taps` channels: for every group and tap the pixels
            down and to the right, already multiplied by `base^k` if the layer does so.

        Raises:
            ValueError: If the layer is not built, or `inputs` are no scale space.
        """
        self.require_built("offsets")
        pyramid = is_pyramid(inputs)
        if pyramid:
            inputs = [tensor("inputs", level, "bhwc") for level in inputs]
        else:
            inputs = ops.convert_to_tensor(tensor("inputs", inputs, "bshwc"))
        levels = [
            ops.cast(level, self.compute_dtype) for level in levels_of(inputs, self.data_format)
        ]
        dilations = self.spacings(len(levels), pyramid)
        return join_levels(self._offsets_of(levels, dilations), self.data_format, pyramid)

    def _offsets_of(self, levels, dilations):
        kernel, bias = self._offset_weights(levels[0].dtype)
        found = scale_correlation(levels, kernel[None], dilations, self.strides)
        factors = dilations if self.scale_offsets else [1] * len(dilations)
        return [factor * (one + bias) for factor, one in zip(factors, found, strict=True)]

    def operations(self, input_shape: Any) -> int:
        """Counts the convolution, the offsets of every level, their scaling, and the sampling."""
        found = super().operations(input_shape)
        levels = self._reads(input_shape)
        found += self._sampling_operations(sum(count * positions for count, positions in levels))
        positions = sum(positions for _, positions in levels)
        return found + self._offset_operations(positions, further=self.scale_offsets)

    def correlate(self, levels, dilations):
        """Asks the offset branch where to read every level, reads and convolves."""
        return deformable_scale_correlation(
            levels,
            ops.convert_to_tensor(self.kernel),
            self._offsets_of(levels, dilations),
            dilations,
            self.strides,
            self.offset_groups,
        )
