"""The small network that predicts combining weights from a layer's input."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer
from low_rank_local_connectivity.layers.data_format import (
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.dense import Dense
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.ops.arguments import items_of, positive_int, positive_ints
from low_rank_local_connectivity.ops.depthwise_convolution import depthwise_convolution
from low_rank_local_connectivity.ops.operation_counts import linear_resizing
from low_rank_local_connectivity.ops.precision import mean
from low_rank_local_connectivity.ops.resampling import resize_aligned
from low_rank_local_connectivity.ops.windows import Windows

# Taps along each axis of the depthwise convolutions.
TAPS = 3


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class InputDependentCombiningWeights(ConfiguredLayer):
    """Predicts a logit for each filter bank at each position from the input itself.

    The network g of equation 6 of the paper. A 1x1 convolution reduces the input to `K` channels;
    from these come, each resized linearly with aligned corners to the output size,

    * the channels themselves,
    * their mean over all positions,
    * a depthwise convolution of 3 taps per axis, unpadded, at each dilation rate;

    which are concatenated and aggregated by three 1x1 convolutions: to half of `n K` channels
    with ReLU, to `n K` with sigmoid, and to the `K` logits, where `n` is the number of dilation
    rates plus 2. Every convolution has a bias.

    Args:
        spatial_rank: Number of filter banks, `K`.
        output_size: Positions per spatial axis to predict logits for: an integer or a tuple;
            the input's own size if None.
        dilation_rates: Dilation rates of the depthwise convolutions, in input elements. Rates
            too large for an input are left out: `r` is kept if `r <= (min(sizes) - 1) // 2`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`, with 1 to 3 spatial axes
        of known size.

    Output:
        Logits of shape `(batch, *output_size, K)`, banks last whatever the data format.

    Raises:
        ValueError: If an argument is out of range or a spatial size is unknown.

    Example:
        >>> layer = InputDependentCombiningWeights(4, output_size=(6, 7))
        >>> tuple(layer(ops.ones((2, 8, 9, 3))).shape)
        (2, 6, 7, 4)

    Reference:
        Elsayed et al., "Revisiting Spatial Invariance with Low-Rank Local Connectivity",
        ICML 2020, section 3.2.2 and its supplement B.
    """

    def __init__(
        self,
        spatial_rank: int,
        output_size: int | Sequence[int] | None = None,
        dilation_rates: Sequence[int] = (1, 2, 4, 8),
        data_format: str | None = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.spatial_rank = positive_int("spatial_rank", spatial_rank)
        self.output_size = self._standardize_size(output_size)
        self.dilation_rates = positive_ints("dilation_rates", dilation_rates)
        self.data_format = standardize_data_format(data_format)

        width = (len(self.dilation_rates) + 2) * self.spatial_rank

        def pointwise(units: int, activation: str | None, name: str) -> keras.Layer:
            return Dense(units, activation=activation, name=name, dtype=self.dtype_policy)

        self.reduction = pointwise(self.spatial_rank, None, "reduction")
        self.aggregation = [
            pointwise(width // 2, "relu", "aggregation_0"),
            pointwise(width, "sigmoid", "aggregation_1"),
            pointwise(self.spatial_rank, None, "aggregation_2"),
        ]

    ARGUMENTS = arguments_of(__init__)

    def _standardize_size(self, size: Any) -> tuple[int, ...] | int | None:
        if size is None:
            return None
        one = items_of(size) is None
        return positive_int("output_size", size) if one else positive_ints("output_size", size)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        sizes, channels = split_shape(input_shape, self.data_format)
        if not 1 <= len(sizes) <= 3 or None in sizes:
            raise ValueError(
                "InputDependentCombiningWeights needs inputs with 1 to 3 spatial axes of known "
                f"size. Received: input_shape={tuple(input_shape)}."
            )
        self.input_sizes = sizes
        self.positions = self._positions(sizes)
        self.kept_rates = self._fitting_rates(sizes)
        self.depthwise_kernels, self.depthwise_biases = [], []
        for rate in self.kept_rates:
            # The trailing 1 is Keras's channel multiplier: it gives the initializer its fans.
            self.depthwise_kernels.append(
                self.add_weight(
                    shape=(TAPS,) * len(sizes) + (self.spatial_rank, 1),
                    initializer="glorot_uniform",
                    name=f"depthwise_kernel_{rate}",
                )
            )
            self.depthwise_biases.append(
                self.add_weight(
                    shape=(self.spatial_rank,),
                    initializer="zeros",
                    name=f"depthwise_bias_{rate}",
                )
            )
        self.reduction.build((None, channels))
        maps = (len(self.kept_rates) + 2) * self.spatial_rank
        for layer in self.aggregation:
            layer.build((None, maps))
            maps = layer.units

    def _fitting_rates(self, sizes: tuple[int, ...]) -> list[int]:
        return [rate for rate in self.dilation_rates if rate <= (min(sizes) - 1) // 2]

    def _check_sizes(self, input_shape: tuple) -> None:
        """Refuses inputs of a size for which the weights are not those that they would have."""
        sizes, _ = split_shape(input_shape, self.data_format)
        known = tuple(
            built if size is None else size
            for size, built in zip(sizes, self.input_sizes, strict=True)
        )
        same = self._positions(known) == self.positions
        if not same or self._fitting_rates(known) != self.kept_rates:
            raise ValueError(
                f"Layer {self.name!r} predicts logits at {self.positions} positions, with branches "
                f"at the dilation rates {self.kept_rates}, which fit inputs of spatial size "
                f"{self.input_sizes}. Received: inputs of shape {input_shape} with "
                f"data_format={self.data_format!r}. Resize the inputs."
            )

    def _positions(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the output size, one number per axis."""
        if self.output_size is None:
            return sizes
        if isinstance(self.output_size, int):
            return (self.output_size,) * len(sizes)
        if len(self.output_size) != len(sizes):
            raise ValueError(
                "`output_size` must have one number for each spatial axis of the input. "
                f"Received: output_size={self.output_size} for inputs with {len(sizes)}."
            )
        return self.output_size

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns `(batch, *output_size, spatial_rank)`."""
        if self.built:
            self._check_sizes(tuple(input_shape))
        sizes, _ = split_shape(input_shape, self.data_format)
        return (input_shape[0], *self._positions(sizes), self.spatial_rank)

    # The mean over all positions is among what every position reads.
    windows = None

    def operations(self, input_shape: Any) -> int:
        """Counts the reduction and its mean, the branches, their resizing and the aggregation."""
        self.require_built("operations")
        self._check_sizes(tuple(input_shape))
        sizes, channels = split_shape(input_shape, self.data_format)
        rank, pixels = self.spatial_rank, math.prod(sizes)
        found = (2 * channels + 1) * rank * pixels + rank * pixels
        found += linear_resizing(sizes, self.positions, rank)
        for rate in self.kept_rates:
            filtered = [size - (TAPS - 1) * rate for size in sizes]
            found += (2 * TAPS ** len(sizes) + 1) * rank * math.prod(filtered)
            found += linear_resizing(filtered, self.positions, rank)
        return found + self._aggregating_operations() * math.prod(self.positions)

    def _aggregating_operations(self) -> int:
        """Returns the operations of the three last convolutions at a position."""
        maps = (len(self.kept_rates) + 2) * self.spatial_rank
        widths = [maps, *(layer.units for layer in self.aggregation)]
        products = sum(read * made for read, made in itertools.pairwise(widths))
        # Each of the three has a bias, and each but the last an activation.
        return 2 * products + 2 * sum(widths[1:]) - self.spatial_rank

    def call(self, inputs):
        """Predicts the logits."""
        self._check_sizes(tuple(inputs.shape))
        reduced = self.reduction(to_channels_last(inputs, self.data_format))
        axes = tuple(range(1, len(self.positions) + 1))
        maps = [reduced, mean(reduced, axis=axes, keepdims=True)]
        for rate, kernel, bias in zip(
            self.kept_rates, self.depthwise_kernels, self.depthwise_biases, strict=True
        ):
            axes = len(self.positions)
            windows = Windows((TAPS,) * axes, (1,) * axes, (rate,) * axes, "valid")
            maps.append(depthwise_convolution(reduced, kernel, windows) + bias)
        outputs = ops.concatenate([resize_aligned(part, self.positions) for part in maps], axis=-1)
        for layer in self.aggregation:
            outputs = layer(outputs)
        return outputs
