"""Convolution of scale spaces, with one kernel at every scale."""

import math
import warnings
from typing import Any, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.biases import add_bias, with_biases
from low_rank_local_connectivity.layers.configured_layer import LayerWithKernels
from low_rank_local_connectivity.layers.data_format import join_shape, standardize_data_format
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.scale.scale_action import CommutesWithScaling
from low_rank_local_connectivity.layers.scale_levels import (
    checked_base,
    input_spec,
    is_pyramid,
    join_levels,
    levels_of,
    split_scale_space,
)
from low_rank_local_connectivity.ops.arguments import one_of, per_axis, positive_int
from low_rank_local_connectivity.ops.operation_counts import numbers, per_output
from low_rank_local_connectivity.ops.scale_space import level_dilations, scale_correlation


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class ScaleConv2D(CommutesWithScaling, LayerWithKernels):
    """A convolution of a scale space whose kernel is, at each level, as large as it is coarse.

    `outputs[k, z] = activation(bias + sum_l sum_y kernel[l, y] * inputs[k + l, base^k y + z])`,

    for levels `k` and `l < interaction`, with zeros around the maps and no levels beyond the
    last. It commutes, exactly, with subsampling by `base` together with a step along the levels:
    where an image is that much smaller, the outputs are those of one level on. So do strides,
    activations, biases, and normalisation whose statistics all levels share, which
    `keras.layers.BatchNormalization` along the channels has (of a pyramid, with `OverLevels`
    around it). A max-pool does not: its window is not larger at coarser levels. Errors of a
    network come from its `ScaleSpaceLifting2D` and from the last
    levels: each layer that reads `interaction` levels leaves `interaction - 1` more of them
    without all they should read.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple of 2. Odd, to be symmetric about
            a position.
        interaction: Number of levels that the kernel reads, from the output's own upwards. With 1
            each level is convolved by itself. At most the number of levels.
        base: Factor from one level to the next, that of the lifting: an integer above 1, or any
            number above 1 with `rounding="floor"`. Without meaning for pyramids.
        strides: Distance of outputs, as many positions at every level.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        rounding: None to refuse a `base` that is not whole, for which taps would lie between the
            positions; `"floor"` to space them `floor(base^k)` apart. Then nothing is exactly
            equivariant: for 1.2 the first four levels have the same spacing.
        activation: Name or callable.
        use_bias: Whether each filter has a bias, one for all levels.
        kernel_initializer: Initializer of the kernel, whose `fan_in` is
            `interaction * rows * columns * channels`.
        bias_initializer: Initializer of the biases.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the biases.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the biases.
        output_scales: How many levels to compute, the finest first; all if None. The outputs of
            `scales - interaction + 1` levels read all that they should.

    Weights:
        kernel: `(interaction, *kernel_size, input channels, filters)`.
        bias: `(filters,)`.

    Input:
        `(batch, scales, height, width, channels)` or `(batch, channels, scales, height, width)`,
        of any size and number of scales, which must be known; or a list of the levels of a
        pyramid, `(batch, height[k], width[k], channels)` each, which are convolved without
        dilation, since they are as small as they are coarse. Their positions do not coincide, so
        that `interaction` must be 1.

    Output:
        As the input, `ceil(size / stride)` large, with `filters` channels, and of `output_scales`
        levels.

    Raises:
        ValueError: If an argument is out of range, or the input no scale space.

    Example:
        >>> layer = ScaleConv2D(8, 3, interaction=2)
        >>> tuple(layer(ops.ones((1, 4, 16, 24, 3))).shape), tuple(layer.kernel.shape)
        ((1, 4, 16, 24, 8), (2, 3, 3, 3, 8))

    Reference:
        Worrall and Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019,
        https://arxiv.org/abs/1905.11697.
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
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters = positive_int("filters", filters)
        self.kernel_size = per_axis("kernel_size", kernel_size, 2)
        self.interaction = positive_int("interaction", interaction)
        self.rounding = one_of("rounding", rounding, (None, "floor"))
        self.base = self._checked_base(base)
        self.strides = per_axis("strides", strides, 2)
        self.data_format = standardize_data_format(data_format)
        self.output_scales = (
            None if output_scales is None else positive_int("output_scales", output_scales)
        )
        self.keep(
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    ARGUMENTS = arguments_of(__init__)

    def _checked_base(self, value: Any) -> float:
        base = checked_base(value)
        if isinstance(base, int):
            return base
        if self.rounding is None:
            raise ValueError(
                "`base` must be a whole number, or the taps of coarser levels lie between the "
                f"positions. Received: base={base} with rounding=None. Use an integer, or "
                "rounding='floor' for taps `floor(base ** k)` apart, which is not exactly "
                "equivariant."
            )
        warnings.warn(
            f"With base={base} and rounding='floor' the taps of level k are floor({base} ** k) "
            "apart, so that the layer is equivariant to a change of scale only approximately.",
            stacklevel=3,
        )
        return base

    def dilations(self, num_scales: int) -> list[int]:
        """Returns the distance of taps at each of the levels of a scale space in one tensor.

        Example:
            >>> ScaleConv2D(8, 3, base=3).dilations(4)
            [1, 3, 9, 27]
        """
        return level_dilations(positive_int("num_scales", num_scales), self.base)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape, or of a list of shapes."""
        sizes, channels = split_scale_space(input_shape, self.data_format, self.name)
        if is_pyramid(input_shape) and self.interaction > 1:
            raise ValueError(
                "The levels of a pyramid have different sizes, so a kernel reads one of them. "
                f"Received: interaction={self.interaction} with a list of {len(sizes)} levels. "
                "Use interaction=1, or a lifting with pyramid=False."
            )
        if self.interaction > len(sizes):
            raise ValueError(
                "`interaction` must be at most the number of scales. Received: interaction="
                f"{self.interaction} with {len(sizes)} scales in input_shape={tuple(input_shape)}."
            )
        self._computed_levels(len(sizes))
        self.input_spec = input_spec(input_shape, self.data_format, channels)
        self.kernel = self.add_weight(
            shape=(self.interaction, *self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = add_bias(self)

    def _computed_levels(self, num_scales: int) -> int:
        """Returns how many levels the outputs have, of inputs of so many."""
        if self.output_scales is None:
            return num_scales
        if self.output_scales > num_scales:
            raise ValueError(
                "`output_scales` must be at most the number of scales. Received: output_scales="
                f"{self.output_scales} with {num_scales} scales given to layer {self.name!r}."
            )
        return self.output_scales

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape with the filters as channels, of each level of a pyramid."""
        levels, _ = split_scale_space(input_shape, self.data_format, self.name)
        computed = self._computed_levels(len(levels))
        sizes = [tuple(map(_strided, size, self.strides)) for size in levels[:computed]]
        if is_pyramid(input_shape):
            pairs = zip(input_shape[:computed], sizes, strict=True)
            return [join_shape(one[0], size, self.filters, self.data_format) for one, size in pairs]
        size = (computed, *sizes[0])
        return join_shape(input_shape[0], size, self.filters, self.data_format)

    # Taps are farther apart at coarser levels: no one window says how far.
    windows = None

    def operations(self, input_shape: Any) -> int:
        """Counts, at every level, a convolution of the levels that it reads."""
        self.require_built("operations")
        products = sum(read * positions for read, positions in self._reads(input_shape))
        products *= math.prod(self.kernel.shape[1:])
        after = per_output(self.use_bias, self.activation)
        return 2 * products + after * numbers(self.compute_output_shape(input_shape))

    def _reads(self, input_shape: Any) -> list[tuple[int, int]]:
        """Returns how many levels each level of the outputs reads, and its positions."""
        shape = self.compute_output_shape(input_shape)
        levels, _ = split_scale_space(shape, self.data_format, self.name)
        positions = [numbers((None, *size)) for size in levels]
        count = len(split_scale_space(input_shape, self.data_format, self.name)[0])
        return [(min(self.interaction, count - k), one) for k, one in enumerate(positions)]

    def correlate(self, levels: list[Any], dilations: list[int]) -> list[Any]:
        """Correlates levels, their channels last, with the kernel: as many as have a dilation."""
        kernel = ops.convert_to_tensor(self.kernel)
        return scale_correlation(levels, kernel, dilations, self.strides)

    def spacings(self, num_scales: int, pyramid: bool) -> list[int]:
        """Returns the distance of taps at each level that is computed."""
        computed = self._computed_levels(num_scales)
        return [1] * computed if pyramid else self.dilations(num_scales)[:computed]

    def call(self, inputs):
        """Convolves the levels, adds the biases and applies the activation."""
        levels = levels_of(inputs, self.data_format)
        pyramid = is_pyramid(inputs)
        outputs = self.correlate(levels, self.spacings(len(levels), pyramid))
        outputs = [self.activation(with_biases(level, self.bias)) for level in outputs]
        return join_levels(outputs, self.data_format, pyramid)


def _strided(length: int | None, stride: int) -> int | None:
    return None if length is None else -(-length // stride)
