"""Base of layers whose filters mix banks that all positions share: how much of each, and where."""

import math
from typing import Any, Literal

from keras import constraints, initializers, ops, regularizers

from low_rank_local_connectivity.layers.arguments import initializer_of
from low_rank_local_connectivity.layers.base_local_conv import BaseLocalConv
from low_rank_local_connectivity.layers.biases import add_bias
from low_rank_local_connectivity.layers.data_format import to_channels_last
from low_rank_local_connectivity.layers.filter_initialization import draw_filters, separate_clone
from low_rank_local_connectivity.layers.local.combining_weights import (
    InputDependentCombiningWeights,
)
from low_rank_local_connectivity.layers.local.low_rank_adaptation import LowRankAdaptation
from low_rank_local_connectivity.layers.local.spatial_bias import AXIS_NAMES, add_spatial_bias
from low_rank_local_connectivity.layers.planned import Planned
from low_rank_local_connectivity.ops import combining_weights as weights_ops
from low_rank_local_connectivity.ops.arguments import (
    boolean,
    one_of,
    positive_int,
    spatial_axes,
    tensor,
)
from low_rank_local_connectivity.ops.operation_counts import numbers, per_output
from low_rank_local_connectivity.plans.machine import present_machine
from low_rank_local_connectivity.regularizers import SpatialSmoothness


class SharedBanks(LowRankAdaptation, Planned, BaseLocalConv):
    """A local operation whose filter at each position mixes `K` banks, by combining weights.

    Logits, their normalisation, the network that predicts them and the spatial bias are here. A
    subclass creates its banks in `build_banks`, says in `position_sizes` which positions have
    filters of their own, and computes in `convolve`.

    Args:
        spatial_rank: Number of banks, `K`.
        additive_axes: Spatial axes that have logits of their own, which are summed; all if None.
        input_dependent: Whether the logits are predicted from the input.
        normalize_weights: `"softmax"`, `"norm"` or None.
        use_spatial_bias: True for the axes of the combining weights, `"per_filter"`, or False.
        combining_weights_initializer: `"conv_init"` or any initializer.
        combining_weights_regularizer: Regularizer of the logits, or a `SpatialSmoothness`.
        spatial_bias_regularizer: Regularizer of the spatial bias's terms.
        combining_weights_constraint: Constraint on the logits.
        spatial_bias_constraint: Constraint on the spatial bias's terms.
        preserve_variance: Whether fresh banks are drawn `sqrt(K)` larger under softmax.
        implementation: The plan's name, checked by `_standardize_implementation`.
        **convolution: Arguments of `BaseLocalConv`.
    """

    def __init__(
        self,
        *,
        spatial_rank: int,
        additive_axes: tuple[int, ...] | None,
        input_dependent: bool,
        normalize_weights: Literal["softmax", "norm", ""] | None,
        use_spatial_bias: bool | Literal["per_filter"],
        combining_weights_initializer: Any,
        combining_weights_regularizer: Any,
        spatial_bias_regularizer: Any,
        combining_weights_constraint: Any,
        spatial_bias_constraint: Any,
        preserve_variance: bool,
        implementation: str,
        **convolution: Any,
    ) -> None:
        self.spatial_rank = positive_int("spatial_rank", spatial_rank)
        super().__init__(**convolution)
        self.input_dependent = boolean("input_dependent", input_dependent)
        self.additive_axes = self._standardize_axes(additive_axes)
        self.normalize_weights = (
            one_of("normalize_weights", normalize_weights, ("softmax", "norm", None, "")) or None
        )
        self.use_spatial_bias = one_of(
            "use_spatial_bias", use_spatial_bias, (True, False, "per_filter")
        )
        if not isinstance(combining_weights_initializer, str) or (
            combining_weights_initializer != "conv_init"
        ):
            combining_weights_initializer = initializer_of(
                "combining_weights_initializer", combining_weights_initializer
            )
        self.combining_weights_initializer: Any = combining_weights_initializer
        self.combining_weights_regularizer = regularizers.get(combining_weights_regularizer)
        self.spatial_bias_regularizer = regularizers.get(spatial_bias_regularizer)
        self.combining_weights_constraint = constraints.get(combining_weights_constraint)
        self.spatial_bias_constraint = constraints.get(spatial_bias_constraint)
        self.preserve_variance = boolean("preserve_variance", preserve_variance)
        self.implementation: Any = self._standardize_implementation(implementation)
        self.predictor: InputDependentCombiningWeights | None = None

    def _standardize_implementation(self, value: Any) -> str:
        raise NotImplementedError

    @property
    def mixed(self) -> bool:
        """Whether the banks may differ in kernel size or dilation rate."""
        return False

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        super().build(input_shape)
        self.machine = present_machine()
        self.build_banks(input_shape)
        self._build_logits(input_shape)
        self._build_spatial_bias()
        self.bias = add_bias(self)

    def build_banks(self, input_shape: Any) -> None:
        """Creates the banks."""
        raise NotImplementedError

    def draw_banks(self, bank: tuple[int, ...], count: int, index: int, dtype: Any = None):
        """Draws banks, each as the initializer draws one kernel.

        Args:
            bank: Shape of one bank.
            count: How many.
            index: 0 for the first call, and another number for each further one.
            dtype: Data type of the values.

        Returns:
            Tensor of the shape of a bank, with an axis for the banks before its last.
        """
        initializer = separate_clone(self.kernel_initializer, index)
        banks = draw_filters(initializer, bank, count, dtype)
        if self.preserve_variance and self.normalize_weights == "softmax":
            banks = banks * math.sqrt(self.spatial_rank)
        return banks

    def add_banks(self, name: str, bank: tuple[int, ...], count: int, index: int):
        """Creates a weight of banks side by side in the last axis.

        `autocast=False` keeps them in float32 until they are mixed.

        Args:
            name: Name of the weight.
            bank: Shape of one bank.
            count: How many.
            index: As in `draw_banks`.

        Returns:
            Variable of the shape of a bank, its last axis `count` times as long.
        """

        def draw(shape, dtype=None):
            return ops.reshape(self.draw_banks(bank, count, index, dtype), shape)

        return self.add_weight(
            shape=(*bank[:-1], count * bank[-1]),
            initializer=draw,
            name=name,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,
        )

    def _build_spatial_bias(self) -> None:
        self.spatial_bias_terms = []
        if self.use_spatial_bias:
            per_filter = self.use_spatial_bias == "per_filter"
            self.spatial_bias_terms = add_spatial_bias(
                self,
                self.output_sizes,
                () if per_filter else self.additive_axes,
                self.filters if per_filter else None,
                self.bias_initializer,
                self.spatial_bias_regularizer,
                self.spatial_bias_constraint,
            )

    def _standardize_axes(self, axes: Any) -> tuple[int, ...]:
        if axes is None:
            return () if self.input_dependent else tuple(range(self.dimensions))
        axes = spatial_axes("additive_axes", axes, self.dimensions)
        if self.input_dependent and axes:
            raise ValueError(
                "Input-dependent combining weights are predicted for every position, so "
                "`additive_axes` must be () or left None with `input_dependent=True`. "
                f"Received: additive_axes={axes}."
            )
        return axes

    @property
    def has_logits(self) -> bool:
        """Whether combining weights can be anything but 1, as softmax of a single logit cannot."""
        return self.spatial_rank > 1 or self.normalize_weights != "softmax"

    @property
    def _smooth(self) -> bool:
        """Whether the normalised combining weights are regularised instead of the logits."""
        return isinstance(self.combining_weights_regularizer, SpatialSmoothness)

    def _build_logits(self, input_shape: Any) -> None:
        """Creates the logits, or the network that predicts them."""
        self.logits = []
        if not self.has_logits:
            return
        if self.input_dependent:
            if None in self.input_sizes:
                raise ValueError(
                    "Input-dependent combining weights need an input of known spatial size. "
                    f"Received: input_shape={tuple(input_shape)}. Give keras.Input a static size."
                )
            self.predictor = InputDependentCombiningWeights(
                self.spatial_rank,
                self._sizes_or_one(),
                data_format="channels_last",
                dtype=self.dtype_policy,
                name="combining_weights",
            )
            self.predictor.build((None, *self.input_sizes, self.input_channels))
            return
        names = AXIS_NAMES[self.dimensions]
        shapes = {f"combining_weights_{names[axis]}": (axis,) for axis in self.additive_axes}
        shapes = shapes or {"combining_weights": tuple(range(self.dimensions))}
        for index, (name, axes) in enumerate(shapes.items()):
            sizes = tuple(self.position_sizes[axis] for axis in axes)
            if None in sizes:
                raise ValueError(
                    f"The weight {name!r} of layer {self.name!r} has logits for every position "
                    "along its axes, so the input's size along them must be known. Received: "
                    f"input_shape={tuple(input_shape)}. Give the input a static size, or share "
                    "along the unknown axis by leaving it out of `additive_axes`."
                )
            self.logits.append(
                self.add_weight(
                    shape=(*sizes, self.spatial_rank),
                    initializer=self._logits_initializer(index, len(shapes)),
                    name=name,
                    regularizer=None if self._smooth else self.combining_weights_regularizer,
                    constraint=self.combining_weights_constraint,
                    autocast=False,
                )
            )

    def _logits_initializer(self, index: int, terms: int):
        if self.combining_weights_initializer == "conv_init":
            return initializers.Constant(1 / math.sqrt(self.spatial_rank) / terms)
        return separate_clone(self.combining_weights_initializer, index)

    def fixed_axes(self) -> tuple[int, ...]:
        """Returns the spatial axes along which the weights fix the input's size."""
        if not self.has_logits and not self.use_spatial_bias:
            return ()
        if self.additive_axes and self.use_spatial_bias != "per_filter":
            return self.additive_axes
        return tuple(range(self.dimensions))

    def combining_weights(self, inputs=None):
        """Returns the weight of each bank at each position.

        Args:
            inputs: The layer's inputs; needed if the weights depend on them, else ignored.

        Returns:
            Tensor of shape `(*positions, K)`, or `(batch, *positions, K)` if the weights
            depend on the inputs, in at least float32; length 1 along an axis of unknown size.

        Raises:
            ValueError: If the layer is not built, or needs inputs and gets none.

        Example:
            >>> from low_rank_local_connectivity.layers import LowRankLocallyConnected2D
            >>> layer = LowRankLocallyConnected2D(5, 3, spatial_rank=4)
            >>> layer.build((None, 8, 9, 2))
            >>> ops.convert_to_numpy(layer.combining_weights())[0, 0].round(2).tolist()
            [0.25, 0.25, 0.25, 0.25]
        """
        self.require_built("combining_weights")
        if not self.input_dependent:
            weights = self._fixed_weights()
            return ops.broadcast_to(weights, (*self._sizes_or_one(), self.spatial_rank))
        if inputs is None:
            raise ValueError(
                f"The combining weights of layer {self.name!r} depend on its inputs. Received: "
                "inputs=None. Call combining_weights(inputs)."
            )
        given = tensor("inputs", inputs, "bSc")
        inputs = ops.cast(ops.convert_to_tensor(given), self.compute_dtype)
        self._check_sizes(inputs.shape)
        weights = self._weights_per_example(to_channels_last(inputs, self.data_format))
        shape = (ops.shape(inputs)[0], *self._sizes_or_one(), self.spatial_rank)
        return ops.broadcast_to(weights, shape)

    def weights_of_local_kernel(self):
        """Returns the weight of each bank at each position, for filters that are mixed once.

        Raises:
            ValueError: If the layer is not built, or the filters depend on the input.
        """
        self.require_built("local_kernel")
        if self.input_dependent and self.has_logits:
            raise ValueError(
                f"The filters of layer {self.name!r} depend on its inputs, so it has no local "
                "kernel. Mix `kernel_bases` by combining_weights(inputs) for each example."
            )
        shape = (*self._sizes_or_one(), self.spatial_rank)
        return ops.broadcast_to(self._fixed_weights(), shape)

    def _sizes_or_one(self) -> tuple[int, ...]:
        return tuple(1 if size is None else size for size in self.position_sizes)

    def _fixed_weights(self):
        """Returns normalised weights, of length 1 along axes that they do not depend on."""
        if not self.has_logits:
            return ops.ones((1,) * (self.dimensions + 1))
        parts = [ops.convert_to_tensor(part) for part in self.logits]
        if self.additive_axes:
            logits = weights_ops.sum_over_axes(parts, self.additive_axes, self.dimensions)
        else:
            (logits,) = parts
        return weights_ops.normalize_logits(logits, self.normalize_weights)

    def _weights_per_example(self, inputs):
        """Returns normalised weights with a batch axis, of length 1 if all examples share them."""
        if self.predictor is None:
            return ops.expand_dims(self._fixed_weights(), 0)
        return weights_ops.normalize_logits(self.predictor(inputs), self.normalize_weights)

    @property
    def _mixing(self) -> Literal["none", "shared", "per_example"]:
        if not self.has_logits:
            return "none"
        return "per_example" if self.input_dependent else "shared"

    def _penalized(self, inputs, batched: bool):
        """Returns normalised weights whose roughness, if regularised, is among the losses.

        Args:
            inputs: The layer's inputs, channels last.
            batched: Whether to have an axis of examples, of length 1 if all share the weights.
        """
        weights = self._weights_per_example(inputs) if batched else self._fixed_weights()
        if self._smooth and self.trainable:
            self.add_loss(self.combining_weights_regularizer(weights, batched))
        return weights

    def local_filters(self, input_shape: Any) -> int:
        """Returns how many numbers the mixed filters of all positions have."""
        raise NotImplementedError

    def combined_operations(self, input_shape: Any) -> tuple[int, int]:
        """Returns the operations once the banks are mixed, and those of mixing them.

        Args:
            input_shape: As in `operations`.

        Returns:
            Operations for each example with the mixed filters; and of mixing them for all
            positions, however many examples follow. Filters that depend on the input cannot be
            mixed before: `operations(input_shape)` and 0.

        Raises:
            ValueError: As in `operations`.

        Example:
            >>> from low_rank_local_connectivity.layers import LowRankLocallyConnected2D
            >>> layer = LowRankLocallyConnected2D(5, 3, spatial_rank=4, use_bias=False)
            >>> layer.build((None, 8, 9, 2))
            >>> outputs = 6 * 7 * 5
            >>> layer.combined_operations((None, 8, 9, 2)) == (37 * outputs, 4 * 36 * outputs)
            True
        """
        if self.input_dependent:
            return self.operations(input_shape), 0
        self.require_built("combined_operations")
        outputs = numbers(self.compute_output_shape(input_shape))
        filters = self.local_filters(input_shape)
        mixing = 2 * self.spatial_rank * filters if self.has_logits else 0
        return 2 * filters + self._operations_afterwards(outputs), mixing

    def _predicting_operations(self) -> int:
        """Counts the network, and three per logit: exponential or square, sum, division."""
        predictor: Any = self.predictor
        shape = (None, *self.input_sizes, self.input_channels)
        per_logit = 0 if self.normalize_weights is None else 3
        logits = self.spatial_rank * math.prod(predictor.positions)
        return predictor.operations(shape) + per_logit * logits

    def _operations_afterwards(self, outputs: int) -> int:
        return per_output(bool(self.output_biases()), self.activation) * outputs

    def output_biases(self) -> list:
        """Returns the terms of the spatial bias and the filters' bias."""
        return [*self.spatial_bias_terms, *super().output_biases()]
