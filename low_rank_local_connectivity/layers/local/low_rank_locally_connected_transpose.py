"""Transposed low-rank layers: every input position's filter is a mix of shared filter banks."""

import functools
import math
from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv_transpose import BaseLocalConvTranspose
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.local.shared_banks import SharedBanks
from low_rank_local_connectivity.ops.arguments import one_of
from low_rank_local_connectivity.ops.low_rank_local_convolution import combine_banks
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.plans.low_rank_transpose import (
    LOW_RANK_TRANSPOSE,
    LowRankTransposeRequest,
)
from low_rank_local_connectivity.plans.machine import require_memory
from low_rank_local_connectivity.plans.plan import Plan, choose, names_of

Implementation = Literal["auto", "weigh_then_convolve", "combine_then_spread"]


class LowRankLocallyConnectedTranspose(BaseLocalConvTranspose, SharedBanks):
    """A transposed convolution whose filter at each input position mixes `K` shared filter banks.

    `outputs = sum_k transposed_conv(w[..., k] * inputs, bank_k) + spatial_bias + bias`

    where `w` are the combining weights of the *input* positions and the biases belong to those of
    the outputs: `filter[i, j] = sum_k w[i, j, k] * bank[k]` is what input position `(i, j)` spreads
    over the outputs. `K = 1` is Keras's `Conv{1,2,3}DTranspose` with a spatial bias, `K` = as many
    banks as there are input positions can be any transposed locally connected layer. Arguments and
    output sizes are those of Keras's layers, so that the decoder of a U-Net can be relaxed; how
    weights are made and normalised is as in the low-rank layers that are not transposed.

    Args:
        filters: Number of filters, `F`.
        kernel_size: Taps per spatial axis: an integer or a tuple.
        spatial_rank: Number of filter banks, `K`, at least 1.
        strides: Step between windows per spatial axis, in output elements.
        padding: `"valid"` or `"same"`.
        output_padding: Further outputs per spatial axis at the end, less than the stride; if None,
            `"same"` makes the outputs `strides` times as long as the inputs.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis, in output elements; 1 if strides are
            above 1.
        activation: Name or callable.
        use_bias: Whether each filter has a bias.
        additive_axes: Spatial axes, counted from 0, that have logits of their own, which are
            summed. All if None; `()` for one logit per input position. An axis left out is shared
            along, and may have any size. Must be left None, or be `()`, with `input_dependent`.
        input_dependent: Whether the logits are predicted from the input, for each example.
        normalize_weights: `"softmax"`, `"norm"` (divided by their Euclidean norm) or None.
        use_spatial_bias: True for a bias of the outputs along the axes of the combining weights,
            `"per_filter"` for one per output position and filter, False for none.
        combining_weights_initializer: `"conv_init"`, the constant `1 / sqrt(K)` divided by the
            number of axes whose logits are summed, or any initializer.
        kernel_initializer: Initializer of the banks, each drawn as a transposed convolution's
            kernel.
        bias_initializer: Initializer of all biases.
        kernel_regularizer: Regularizer of the banks.
        combining_weights_regularizer: Regularizer of the logits of each axis, or a
            `SpatialSmoothness` of the normalised weights.
        bias_regularizer: Regularizer of the filters' bias.
        spatial_bias_regularizer: Regularizer of the spatial bias's terms.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the banks.
        combining_weights_constraint: Constraint on the logits of each axis.
        bias_constraint: Constraint on the filters' bias.
        spatial_bias_constraint: Constraint on the spatial bias's terms.
        preserve_variance: Under softmax, whether fresh banks are drawn `sqrt(K)` larger, so that
            their mean has the variance of one kernel.
        implementation: `"weigh_then_convolve"` weighs the inputs for every bank and applies one
            transposed convolution of `K` times the channels; `"combine_then_spread"` mixes the
            banks and spreads each position by its own filter, at a cost that hardly depends on
            `K`. Both give the same numbers. `"auto"` takes the faster one by the cost model of
            `plans.choose`, and the first where the second cannot be: for input-dependent weights
            and unknown sizes.

    Weights, in this order:
        kernel_bases: `(*kernel_size, F, K * input channels)`, bank-major in the last axis: bank
            `k` is a kernel of Keras's transposed convolutions. The adjoint low-rank layer, from
            the outputs to the inputs, has the same.
        combining_weights_row, combining_weights_col (`_length` in 1D, `_depth` too in 3D): logits
            `(input positions along the axis, K)`; or combining_weights: `(*input sizes, K)`. None
            where they could not matter: with `K = 1` under softmax, or `input_dependent`.
        bias_row, bias_col (likewise): length 1 along all axes but their own; or spatial_bias:
            `(*output sizes, 1)`, or `(*output sizes, F)` if per filter.
        bias: `(F,)`.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`.

    Output:
        The same with `F` channels, larger as `Conv{1,2,3}DTranspose` makes it.

    Raises:
        ValueError: If arguments are out of range or contradict each other, or if a spatial size
            that the weights depend on is unknown.

    Reference:
        Elsayed, Ramachandran, Shlens and Kornblith, "Revisiting Spatial Invariance with Low-Rank
        Local Connectivity", ICML 2020, https://arxiv.org/abs/2002.02959, which has no transposed
        layer.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        spatial_rank: int,
        strides: int | tuple[int, ...] = 1,
        padding: str = "valid",
        output_padding: int | tuple[int, ...] | None = None,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        activation: Any = None,
        use_bias: bool = True,
        *,
        additive_axes: tuple[int, ...] | None = None,
        input_dependent: bool = False,
        normalize_weights: Literal["softmax", "norm", ""] | None = "softmax",
        use_spatial_bias: bool | Literal["per_filter"] = True,
        combining_weights_initializer: Any = "conv_init",
        kernel_initializer: Any = "he_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        combining_weights_regularizer: Any = None,
        bias_regularizer: Any = None,
        spatial_bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        combining_weights_constraint: Any = None,
        bias_constraint: Any = None,
        spatial_bias_constraint: Any = None,
        preserve_variance: bool = False,
        implementation: Implementation = "auto",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            spatial_rank=spatial_rank,
            strides=strides,
            padding=padding,
            output_padding=output_padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            additive_axes=additive_axes,
            input_dependent=input_dependent,
            normalize_weights=normalize_weights,
            use_spatial_bias=use_spatial_bias,
            combining_weights_initializer=combining_weights_initializer,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            combining_weights_regularizer=combining_weights_regularizer,
            bias_regularizer=bias_regularizer,
            spatial_bias_regularizer=spatial_bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            combining_weights_constraint=combining_weights_constraint,
            bias_constraint=bias_constraint,
            spatial_bias_constraint=spatial_bias_constraint,
            preserve_variance=preserve_variance,
            implementation=implementation,
            **kwargs,
        )

    ARGUMENTS = arguments_of(__init__)

    def _standardize_implementation(self, value: Any) -> str:
        one_of("implementation", value, ("auto", *names_of(LOW_RANK_TRANSPOSE)))
        if value == "combine_then_spread" and self.input_dependent:
            raise ValueError(
                "Banks can be mixed before spreading only if the combining weights are the same "
                f"for all examples. Received: implementation={value!r} with input_dependent=True. "
                "Use implementation='auto'."
            )
        return value

    @property
    def further_windows(self) -> tuple[None, ...]:
        """None for all positions if the weights depend on them."""
        return (None,) if self.input_dependent else ()

    def build_banks(self, input_shape: Any) -> None:
        """Creates the banks."""
        self._require_plan(input_shape)
        bank = (*self.kernel_size, self.filters, self.input_channels)
        self.kernel_bases = self.add_banks("kernel_bases", bank, self.spatial_rank, 0)

    def _require_plan(self, input_shape: Any) -> None:
        """Refuses inputs for which the plan that the layer was told to take cannot be."""
        if self.implementation != "combine_then_spread":
            return
        if None in self.input_sizes:
            raise ValueError(
                "implementation='combine_then_spread' mixes one filter for each input position, so "
                f"every spatial size must be known. Received: input_shape={tuple(input_shape)}. "
                "Use implementation='auto'."
            )
        positions = math.prod(self.input_sizes)
        require_memory(
            4 * positions * self.windows.taps * self.filters * self.input_channels,
            f"The filters that layer {self.name!r} mixes for every position",
            "Use implementation='weigh_then_convolve', or smaller inputs.",
        )

    def local_kernel(self):
        """Returns the filter at each input position, mixed from the banks.

        Returns:
            Tensor of shape `(*input sizes, *kernel size, filters, input channels)`, length 1
            along an axis of unknown size.

        Raises:
            ValueError: If the layer is not built, or the filters depend on the input.

        Example:
            >>> layer = LowRankLocallyConnected2DTranspose(5, 3, spatial_rank=4)
            >>> layer.build((None, 8, 9, 2))
            >>> ops.shape(layer.local_kernel())
            (8, 9, 3, 3, 5, 2)
        """
        weights = self.weights_of_local_kernel()
        return combine_banks(ops.convert_to_tensor(self.kernel_bases), weights)

    def convolve(self, inputs, training: bool | None = None):
        """Spreads channels-last inputs by the local filters, by the plan chosen."""
        request = self.asked(tuple(inputs.shape), bool(training))
        plan = self._plan_for(request)
        weights = functools.partial(self._penalized, inputs)
        return plan.apply(request, inputs, self.kernel_bases, weights)

    def _plan_for(self, request: LowRankTransposeRequest) -> Plan:
        return choose(LOW_RANK_TRANSPOSE, request, self.machine.memory, self.implementation)

    def asked(self, shape: Any, training: bool = False) -> LowRankTransposeRequest:
        """Returns what the layer is asked to compute for inputs of a shape.

        Args:
            shape: Shape of the inputs, channels last; None where unknown.
            training: Whether gradients are wanted.

        Raises:
            ValueError: If the layer is not built, or an argument is of another kind.
        """
        self.require_built("asked")
        return LowRankTransposeRequest.of(
            self.windows,
            shape,
            self.filters,
            self.spatial_rank,
            training=training,
            backend=self.machine.backend,
            device=self.machine.device,
            itemsize=self.machine.itemsize(self.compute_dtype),
            mixing=self._mixing,
            fixed_sizes=None not in self.input_sizes,
        )

    def operations(self, input_shape: Any) -> int:
        """Counts `K` transposed convolutions, the weighing, and what predicts the weights."""
        self.require_built("operations")
        outputs = numbers(self.compute_output_shape(input_shape))
        inputs = numbers(input_shape)
        found = 2 * inputs * self.spatial_rank * self.windows.taps * self.filters
        if self.has_logits:
            found += self.spatial_rank * inputs
        if self.predictor is not None:
            found += self._predicting_operations()
        return found + self._operations_afterwards(outputs)

    def local_filters(self, input_shape: Any) -> int:
        """Counts the taps and filters that each input number is spread by."""
        return numbers(input_shape) * self.windows.taps * self.filters


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LowRankLocallyConnectedTranspose)
class LowRankLocallyConnected1DTranspose(LowRankLocallyConnectedTranspose):
    """A transposed low-rank locally connected layer over 1 axis, such as time.

    Example:
        >>> layer = LowRankLocallyConnected1DTranspose(6, 3, spatial_rank=2, strides=2)
        >>> tuple(layer(ops.ones((2, 10, 4))).shape)
        (2, 21, 6)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LowRankLocallyConnectedTranspose)
class LowRankLocallyConnected2DTranspose(LowRankLocallyConnectedTranspose):
    """A transposed low-rank locally connected layer over 2 axes, such as those of images.

    Example:
        >>> layer = LowRankLocallyConnected2DTranspose(6, (3, 2), 4, strides=2, padding="same")
        >>> tuple(layer(ops.ones((2, 5, 4, 3))).shape)
        (2, 10, 8, 6)
    """

    dimensions = 2


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LowRankLocallyConnectedTranspose)
class LowRankLocallyConnected3DTranspose(LowRankLocallyConnectedTranspose):
    """A transposed low-rank locally connected layer over 3 axes, such as those of volumes.

    Example:
        >>> layer = LowRankLocallyConnected3DTranspose(6, 2, spatial_rank=2, padding="same")
        >>> tuple(layer(ops.ones((2, 5, 4, 3, 2))).shape)
        (2, 5, 4, 3, 6)
    """

    dimensions = 3
