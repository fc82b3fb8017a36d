"""Low-rank locally connected layers: every position's filter is a mix of shared filter banks."""

import functools
import math
from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.local.shared_banks import SharedBanks
from low_rank_local_connectivity.ops.arguments import (
    boolean,
    groups_of,
    per_axis,
    positive_int,
    received,
)
from low_rank_local_connectivity.ops.low_rank_local_convolution import combine_banks, embed_banks
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.ops.windows import Padding, Windows
from low_rank_local_connectivity.plans.fused import require_kernel
from low_rank_local_connectivity.plans.low_rank import (
    DEPTHWISE_LOW_RANK,
    LOW_RANK,
    LowRankRequest,
)
from low_rank_local_connectivity.plans.machine import require_memory
from low_rank_local_connectivity.plans.plan import Plan, choose, names_of

Implementation = Literal["auto", "convolve_then_combine", "combine_then_convolve", "fused"]


class LowRankLocallyConnected(SharedBanks):
    """A convolution whose filter at each position mixes `K` shared filter banks.

    `filter[i, j] = sum_k w[i, j, k] * bank[k]` (equation 2 of the paper), a rank-`K`
    factorisation of a locally connected layer's kernel: `K = 1` is a convolution with a spatial
    bias, `K = positions` can be any locally connected layer. The combining weights are

    `w[i, j] = normalize(row[i] + col[j])` (equations 3 and 4),

    or depend on the input through the network of `InputDependentCombiningWeights` (equation 6).
    To the outputs is added `bias_row[i] + bias_col[j] + bias[f]` (equation 5).

    A fresh layer under softmax has every combining weight equal to `1 / K`: it starts as one
    convolution, whose kernel is the mean of the banks and has `1 / K` of a bank's variance. A
    normalisation after the layer makes that immaterial; without one, consider
    `preserve_variance=True`.

    Args:
        filters: Number of filters, `F`.
        kernel_size: Taps per spatial axis: an integer or a tuple. A *list* of `K` such values
            gives each bank its own size: a mixed basis, which needs padding that keeps the size
            (any but `"valid"` and amounts).
        spatial_rank: Number of filter banks, `K`, at least 1. More banks than positions add
            parameters, not functions.
        strides: Step between windows per spatial axis, in input elements.
        padding: `"valid"`, or what stands around the input. Zeros: `"same"`, `"causal"` in 1D, or
            a tuple that says how many, with a pair `(before, after)` for each spatial axis. As
            many elements of the input itself as `"same"` has zeros: `"circular"`, wrapped around;
            `"reflect"`, mirrored without repeating the border; `"replicate"`, the border repeated.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis; a list of `K` for a mixed basis.
        activation: Name or callable.
        use_bias: Whether each filter has a bias.
        additive_axes: Spatial axes, counted from 0, that have logits of their own, which are
            summed. All if None: `(0, 1)` in 2D, `(H + W) K` logits, which the paper found
            better than `()`, one logit per position. An axis left out is shared along, and may
            have any size. Must be left None, or be `()`, with `input_dependent`.
        input_dependent: Whether the logits are predicted from the input, for each example.
        normalize_weights: `"softmax"`, `"norm"` (divided by their Euclidean norm) or None. The
            release's `""` is taken as None.
        use_spatial_bias: True for a bias along the axes of the combining weights,
            `"per_filter"` for one per position and filter, False for none.
        combining_weights_initializer: `"conv_init"`, the constant `1 / sqrt(K)` divided by the
            number of axes whose logits are summed, or any initializer.
        kernel_initializer: Initializer of the banks, each drawn as a convolution's kernel.
        bias_initializer: Initializer of all biases.
        kernel_regularizer: Regularizer of the banks.
        combining_weights_regularizer: Regularizer of the logits of each axis; `SpatialSmoothness`
            is one of the normalised weights instead, predicted ones too.
        bias_regularizer: Regularizer of the filters' bias.
        spatial_bias_regularizer: Regularizer of the spatial bias's terms.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the banks.
        combining_weights_constraint: Constraint on the logits of each axis.
        bias_constraint: Constraint on the filters' bias.
        spatial_bias_constraint: Constraint on the spatial bias's terms.
        preserve_variance: Under softmax, whether fresh banks are drawn `sqrt(K)` larger, so that
            their mean has the variance of a convolution's kernel.
        implementation: `"convolve_then_combine"` mixes the responses of `K` convolutions,
            `"combine_then_convolve"` mixes the banks and applies one filter per position, at a
            cost that hardly depends on `K`. `"fused"` has a kernel, in 1D and 2D: on JAX, for a
            known batch and size, one for TPUs, by which neither filters nor patches go through
            memory, and which is interpreted elsewhere, slowly; on PyTorch one for GPUs, by which
            patches do not (its package `triton` has to be installed). All give the same numbers.
            `"auto"` takes the fastest one by the cost model of `plans.choose`, from the device,
            static shapes, `K`, the batch (32 if unknown), `training` and what fits into memory;
            on a CPU it takes the first where the second cannot be: for input-dependent weights,
            mixed bases and unknown sizes.
        groups: Into how many groups of neighbours the input channels and the filters are divided;
            a filter reads the channels of its own group, as in Keras's convolutions. No kernel is
            written for groups, so `"fused"` is refused.

    Weights, in this order:
        kernel_bases: `(*kernel_size, input channels / groups, K * F)`, bank-major in the last
            axis; or `kernel_bases_0` to `kernel_bases_{K-1}` of a mixed basis, `(*its size,
            input channels / groups, F)`.
        combining_weights_row, combining_weights_col (`_length` in 1D, `_depth` too in 3D): logits
            `(positions along the axis, K)`; or combining_weights: `(*output sizes, K)`. None
            where they could not matter: with `K = 1` under softmax, or `input_dependent`.
        bias_row, bias_col (likewise): length 1 along all axes but their own; or spatial_bias:
            `(*output sizes, 1)`, or `(*output sizes, F)` if per filter.
        bias: `(F,)`.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`.

    Output:
        The same with `F` channels.

    Raises:
        ValueError: If arguments are out of range or contradict each other, or if a spatial size
            that the weights depend on is unknown.

    Reference:
        Elsayed, Ramachandran, Shlens and Kornblith, "Revisiting Spatial Invariance with Low-Rank
        Local Connectivity", ICML 2020, https://arxiv.org/abs/2002.02959.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...] | list,
        spatial_rank: int,
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] | list = 1,
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
        groups: int = 1,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        self.groups = positive_int("groups", groups)
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            spatial_rank=spatial_rank,
            strides=strides,
            padding=padding,
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
        groups_of(self.groups, self.filters)
        if self.mixed and (self.padding == "valid" or not isinstance(self.padding, str)):
            raise ValueError(
                "Banks of different kernel sizes or dilation rates need padding that keeps the "
                f"size. Received: padding={self.padding!r} with kernel_size={self.kernel_size} and "
                f"dilation_rate={self.dilation_rate}. Use padding='same'."
            )

    ARGUMENTS = arguments_of(__init__)

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """Creates a layer from `get_config`'s result, which JSON may have made lists of.

        In a configuration that a layer wrote, with the three entries of every Keras layer, a list
        of integers was a tuple, one for each axis: a mixed basis nests its own. One written by
        hand means what the constructor takes it for.
        """
        config = dict(config)
        written = {"name", "trainable", "dtype"} <= set(config)
        for name in ("kernel_size", "dilation_rate"):
            value: Any = config.get(name)
            numbers = isinstance(value, list) and all(isinstance(item, int) for item in value)
            if numbers and (written or len(value) != config.get("spatial_rank")):
                config[name] = tuple(value)
        return super().from_config(config)

    def _standardize_structure(self, name: str, value: Any) -> Any:
        """Returns a value per axis, or a list with one of those per bank."""
        if not isinstance(value, list):
            return per_axis(name, value, self.dimensions)
        if len(value) != self.spatial_rank:
            raise ValueError(
                f"A list as `{name}` gives each of the `spatial_rank` banks its own value, so it "
                f"must have that length. Received: {name}={value!r} with "
                f"spatial_rank={self.spatial_rank}. For one value per axis use a tuple."
            )
        return [
            per_axis(name, tuple(item) if isinstance(item, list) else item, self.dimensions)
            for item in value
        ]

    def _standardize_implementation(self, value: Any) -> str:
        *choices, last = ("auto", *names_of(LOW_RANK))
        if not isinstance(value, str) or value not in (*choices, last):
            raise ValueError(
                f"`implementation` must name a plan: {', '.join(map(repr, choices))} or {last!r}. "
                f"Received: {received('implementation', value)}. The numbers of the original "
                "release have no meaning here."
            )
        if value == "fused":
            self._require_kernel()
        if value == "combine_then_convolve" and (self.input_dependent or self.mixed):
            raise ValueError(
                "Banks can be mixed before convolving only if they have one kernel size and "
                "dilation rate and the combining weights are the same for all examples. "
                f"Received: implementation={value!r} with input_dependent={self.input_dependent}, "
                f"kernel_size={self.kernel_size} and dilation_rate={self.dilation_rate}. "
                "Use implementation='auto'."
            )
        return value

    def _require_kernel(self) -> None:
        """Refuses `implementation="fused"` where there is no kernel for the layer."""
        require_kernel(self.name, keras.backend.backend(), self.dimensions, self.groups)
        if self.mixed:
            raise ValueError(
                "A fused kernel mixes banks of one kernel size and dilation rate. Received: "
                f"implementation='fused' with kernel_size={self.kernel_size} and "
                f"dilation_rate={self.dilation_rate}. Use implementation='auto'."
            )

    @property
    def mixed(self) -> bool:
        """Whether the banks may differ in kernel size or dilation rate."""
        return isinstance(self.kernel_size, list) or isinstance(self.dilation_rate, list)

    @property
    def bank_windows(self) -> list[Windows]:
        """Where each bank's windows sit."""
        banks = range(self.spatial_rank)
        sizes, rates = (
            value if isinstance(value, list) else [value for _ in banks]
            for value in (self.kernel_size, self.dilation_rate)
        )
        return [Windows(sizes[k], self.strides, rates[k], self.padding) for k in banks]

    @property
    def windows(self) -> Windows:
        """Where the layer's windows sit; of a mixed basis, the first bank's."""
        return self.bank_windows[0]

    @property
    def further_windows(self) -> tuple[Windows | None, ...]:
        """The windows of the other banks of a mixed basis, and None if it reads all positions."""
        banks = self.bank_windows[1:] if self.mixed else ()
        return (*banks, *([None] if self.input_dependent else []))

    def build_banks(self, input_shape: Any) -> None:
        """Creates the banks."""
        self._require_plan(input_shape)
        channels = (self.kernel_channels, self.kernel_filters)
        if self.mixed:
            self.kernel_bases = [
                self.add_banks(f"kernel_bases_{k}", (*windows.sizes, *channels), 1, k)
                for k, windows in enumerate(self.bank_windows)
            ]
        else:
            bank = (*self.windows.sizes, *channels)
            self.kernel_bases = self.add_banks("kernel_bases", bank, self.spatial_rank, 0)

    def _require_plan(self, input_shape: Any) -> None:
        """Refuses inputs for which the plan that the layer was told to take cannot be."""
        if self.implementation == "fused" and None in self.input_sizes:
            raise ValueError(
                "implementation='fused' compiles a kernel for one size, so every spatial size must "
                f"be known. Received: input_shape={tuple(input_shape)}. Use implementation='auto'."
            )
        if self.implementation == "combine_then_convolve" and None in self.output_sizes:
            raise ValueError(
                "implementation='combine_then_convolve' mixes one filter for each position, so "
                f"every spatial size must be known. Received: input_shape={tuple(input_shape)}. "
                "Use implementation='auto'."
            )
        if self.implementation == "combine_then_convolve":
            positions = math.prod(self.windows.static_output_shape(self.input_sizes))
            require_memory(
                4 * positions * self.windows.taps * self.kernel_channels * self.kernel_filters,
                f"The filters that layer {self.name!r} mixes for every position",
                "Use implementation='convolve_then_combine', or larger strides.",
            )

    def local_kernel(self):
        """Returns the filter at each position, mixed from the banks.

        Of a mixed basis, each bank stands where it really sits in one box of taps of dilation 1
        that holds them all; otherwise the taps are those of `kernel_size`, at `dilation_rate`.

        Returns:
            Tensor of shape `(*output sizes, *kernel size, input channels / groups, filters)`,
            length 1 along an output axis of unknown size.

        Raises:
            ValueError: If the layer is not built, or the filters depend on the input.

        Example:
            >>> layer = LowRankLocallyConnected2D(5, 3, spatial_rank=4)
            >>> layer.build((None, 8, 9, 2))
            >>> ops.shape(layer.local_kernel())
            (6, 7, 3, 3, 2, 5)
        """
        weights = self.weights_of_local_kernel()
        if self.mixed:
            banks = [ops.convert_to_tensor(bank) for bank in self.kernel_bases]
            kernel, _ = embed_banks(banks, self.bank_windows, self.input_sizes)
        else:
            kernel = ops.convert_to_tensor(self.kernel_bases)
        return combine_banks(kernel, weights)

    def convolve(self, inputs, training: bool | None = None):
        """Applies the local filters to channels-last inputs, by the plan chosen."""
        request = self.asked(tuple(inputs.shape), bool(training))
        plan = self._plan_for(request)
        return plan.apply(
            request, inputs, self._banks_in_groups(), functools.partial(self._penalized, inputs)
        )

    def _banks_in_groups(self) -> list:
        """Returns the banks side by side, or one by one of a mixed basis, as plans take them."""
        return self.kernel_bases if self.mixed else [self.kernel_bases]

    def _plan_for(self, request: LowRankRequest) -> Plan:
        plans = DEPTHWISE_LOW_RANK if request.depthwise else LOW_RANK
        return choose(plans, request, self.machine.memory, self.implementation)

    def asked(self, shape: Any, training: bool = False) -> LowRankRequest:
        """Returns what the layer is asked to compute for inputs of a shape.

        Args:
            shape: Shape of the inputs, channels last; None where unknown.
            training: Whether gradients are wanted.

        Raises:
            ValueError: If the layer is not built, or an argument is of another kind.
        """
        self.require_built("asked")
        return LowRankRequest(
            self.windows,
            shape,
            self.step_filters,
            self.spatial_rank,
            training,
            self.machine.backend,
            self.machine.device,
            self.machine.itemsize(self.compute_dtype),
            mixing=self._mixing,
            bank_windows=self.bank_windows if self.mixed else None,
            fixed_sizes=None not in self.output_sizes,
            groups=self.groups,
        )

    def operations(self, input_shape: Any) -> int:
        """Counts `K` convolutions, the mixing of their responses, and what predicts the weights."""
        self.require_built("operations")
        outputs = numbers(self.compute_output_shape(input_shape))
        banks = self.kernel_bases if self.mixed else [self.kernel_bases]
        positions = outputs // self.filters
        found = 2 * positions * sum(math.prod(bank.shape) for bank in banks)
        if self.has_logits:
            found += 2 * self.spatial_rank * positions * self.step_filters
        if self.predictor is not None:
            found += self._predicting_operations()
        return found + self._operations_afterwards(outputs)

    def local_filters(self, input_shape: Any) -> int:
        """Counts the taps and channels that each output reads; of a mixed basis, in their box."""
        outputs = numbers(self.compute_output_shape(input_shape))
        taps = self.windows.taps
        if self.mixed:  # banks of different structure are mixed in the box that holds them all
            boxes = zip(*(bank.extents for bank in self.bank_windows), strict=True)
            taps = math.prod(map(max, boxes))
        made = outputs // self.filters * self.step_filters
        return taps * (self.input_channels // self.groups) * made


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LowRankLocallyConnected)
class LowRankLocallyConnected1D(LowRankLocallyConnected):
    """A low-rank locally connected layer over 1 axis, such as time.

    Example:
        >>> layer = LowRankLocallyConnected1D(6, 3, spatial_rank=2, padding="causal")
        >>> tuple(layer(ops.ones((2, 10, 4))).shape)
        (2, 10, 6)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LowRankLocallyConnected)
class LowRankLocallyConnected2D(LowRankLocallyConnected):
    """A low-rank locally connected layer over 2 axes, such as those of images.

    Args:
        share_row_combining_weights: The release's name: whether there are logits per row, shared
            by the row's columns, so that axis 0 is in `additive_axes`. True if only the other
            one is given and the weights do not depend on the input.
        share_col_combining_weights: Likewise per column: axis 1.

    Example:
        >>> layer = LowRankLocallyConnected2D(6, (3, 2), spatial_rank=4)
        >>> tuple(layer(ops.ones((2, 9, 8, 3))).shape)
        (2, 7, 7, 6)
    """

    dimensions = 2

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...] | list,
        spatial_rank: int,
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] | list = 1,
        activation: Any = None,
        use_bias: bool = True,
        *,
        share_row_combining_weights: bool | None = None,
        share_col_combining_weights: bool | None = None,
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
        groups: int = 1,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            spatial_rank=spatial_rank,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            additive_axes=_axes_with_logits(
                additive_axes,
                share_row_combining_weights,
                share_col_combining_weights,
                input_dependent,
            ),
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
            groups=groups,
            **kwargs,
        )


def _axes_with_logits(
    axes: Any, share_rows: bool | None, share_columns: bool | None, input_dependent: Any
) -> Any:
    """Returns `additive_axes` as the release's names spell them, or as given without these."""
    if share_rows is None and share_columns is None:
        return axes
    if axes is not None:
        raise ValueError(
            "`additive_axes` and the `share_{row,col}_combining_weights` say the same thing twice. "
            f"Received: additive_axes={axes!r}, share_row_combining_weights={share_rows} and "
            f"share_col_combining_weights={share_columns}. Give one."
        )
    default = not boolean("input_dependent", input_dependent)
    shares = {
        "share_row_combining_weights": share_rows,
        "share_col_combining_weights": share_columns,
    }
    given = (default if share is None else boolean(name, share) for name, share in shares.items())
    return tuple(axis for axis, share in enumerate(given) if share)


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LowRankLocallyConnected)
class LowRankLocallyConnected3D(LowRankLocallyConnected):
    """A low-rank locally connected layer over 3 axes, such as those of volumes or videos.

    Example:
        >>> layer = LowRankLocallyConnected3D(6, 2, spatial_rank=2, padding="same")
        >>> tuple(layer(ops.ones((2, 5, 4, 3, 2))).shape)
        (2, 5, 4, 3, 6)
    """

    dimensions = 3
