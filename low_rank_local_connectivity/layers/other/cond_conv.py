"""Convolution whose kernel each example mixes for itself from a few experts."""

import math
from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv import BaseLocalConv
from low_rank_local_connectivity.layers.biases import add_bias
from low_rank_local_connectivity.layers.data_format import from_channels_last, to_channels_last
from low_rank_local_connectivity.layers.dense import Dense
from low_rank_local_connectivity.layers.filter_initialization import draw_filters
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.planned import Planned
from low_rank_local_connectivity.ops.arguments import (
    is_tensor,
    one_of,
    positive_int,
    received,
    tensor,
)
from low_rank_local_connectivity.ops.cond_conv import mix_kernels
from low_rank_local_connectivity.ops.operation_counts import convolution, each_shape, numbers
from low_rank_local_connectivity.ops.precision import at_least_float32, mean
from low_rank_local_connectivity.ops.windows import Padding
from low_rank_local_connectivity.plans.conditional import CONDITIONAL
from low_rank_local_connectivity.plans.machine import present_machine
from low_rank_local_connectivity.plans.plan import Plan, choose
from low_rank_local_connectivity.plans.request import Request


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class CondConv2D(Planned, BaseLocalConv):
    """A convolution whose kernel and bias each example mixes for itself from `n` experts.

    `outputs[b] = conv(inputs[b], sum_n r[b, n] * kernel[n]) + sum_n r[b, n] * bias[n]`

    with the routing weights `r[b] = sigmoid(Dense(mean over positions of inputs[b]))`: each
    between 0 and 1 and independent of the others, unlike a softmax's. They can be given instead,
    where several layers share one router, as those of a block do in the reference.

    The weights differ between examples and are constant over space; those of
    `LowRankLocallyConnected2D` differ over space, and, input-dependent, over both.

    A convolution is linear in its kernel, so mixing kernels gives what mixing the experts'
    responses would, for the work of one convolution instead of `n`, and that of mixing. Of up
    to 3 experts the responses are mixed, which is faster.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple of 2.
        num_experts: Number of experts, `n`, at least 1. The layer's size grows with it, its work
            hardly: mixing costs as much as convolving at `n` more positions.
        strides: Step between windows per spatial axis, in input elements.
        padding: As in `LocallyConnected2D`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis, in input elements.
        activation: Name or callable.
        use_bias: Whether each expert has a bias per filter.
        routing: `"sigmoid"`, the reference's choice, `"softmax"` for weights that sum to 1, or
            None for a layer without a router, whose routing weights are always given.
        kernel_initializer: Initializer of the kernels, each expert drawn as a convolution's.
        bias_initializer: Initializer of the biases.
        kernel_regularizer: Regularizer of the experts' kernels.
        bias_regularizer: Regularizer of the experts' biases.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the experts' kernels.
        bias_constraint: Constraint on the experts' biases.

    Weights, in this order:
        kernel: `(n, *kernel_size, input channels, filters)`.
        bias: `(n, filters)`.
        router/kernel, router/bias: `(input channels, n)` and `(n,)`; none with `routing=None`.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`, and optionally
        `routing_weights` of shape `(batch, n)`.

    Output:
        As `keras.layers.Conv2D`.

    Raises:
        ValueError: If an argument is out of range, or routing weights are missing or misshapen.

    Example:
        >>> layer = CondConv2D(6, 3, num_experts=4)
        >>> tuple(layer(ops.ones((2, 9, 8, 3))).shape)
        (2, 7, 6, 6)

        Two layers that share a router:

        >>> inputs = keras.Input((9, 8, 3))
        >>> pooled = keras.layers.GlobalAveragePooling2D()(inputs)
        >>> shared = keras.layers.Dense(4, activation="sigmoid")(pooled)
        >>> x = CondConv2D(6, 3, num_experts=4, routing=None)(inputs, routing_weights=shared)
        >>> x = CondConv2D(5, 1, num_experts=4, routing=None)(x, routing_weights=shared)
        >>> tuple(keras.Model(inputs, x).output.shape)
        (None, 7, 6, 5)

    Reference:
        Yang, Bender, Le and Ngiam, "CondConv: Conditionally Parameterized Convolutions for
        Efficient Inference", NeurIPS 2019, https://arxiv.org/abs/1904.04971.
    """

    dimensions = 2

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        num_experts: int = 8,
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        activation: Any = None,
        use_bias: bool = True,
        routing: Literal["sigmoid", "softmax"] | None = "sigmoid",
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
        self.num_experts = positive_int("num_experts", num_experts)
        self.routing = one_of("routing", routing, ("sigmoid", "softmax", None))
        self.router = None
        if routing is not None:
            self.router = Dense(
                self.num_experts, activation=routing, dtype=self.dtype_policy, name="router"
            )

    ARGUMENTS = arguments_of(__init__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        super().build(input_shape)
        self.machine = present_machine()
        bank = (*self.kernel_size, self.input_channels, self.filters)

        def draw(shape, dtype=None):
            drawn = draw_filters(self.kernel_initializer, bank, shape[0], dtype)
            return ops.moveaxis(drawn, -2, 0)

        self.kernel = self.add_weight(
            shape=(self.num_experts, *bank),
            initializer=draw,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,
        )
        shape = (self.num_experts, self.filters)
        self.bias = add_bias(self, shape, initializer=self._draw_biases, autocast=False)
        if self.router is not None:
            self.router.build((None, self.input_channels))

    def _draw_biases(self, shape, dtype=None):
        """Draws the biases in one call; their initializer may be unable to see two axes apart."""
        count, filters = shape
        return ops.reshape(self.bias_initializer((count * filters,), dtype=dtype), shape)

    def fixed_axes(self) -> tuple[int, ...]:
        """Returns no axes: the kernels fit inputs of any spatial size."""
        return ()

    def routing_weights(self, inputs):
        """Returns the weight of each expert for each example, from the layer's own router.

        Args:
            inputs: The layer's inputs.

        Returns:
            Tensor of shape `(batch, num_experts)`.

        Raises:
            ValueError: If the layer has no router, or `inputs` are no batch of images.

        Example:
            >>> layer = CondConv2D(6, 3, num_experts=4, routing="softmax")
            >>> layer.build((None, 9, 8, 3))
            >>> weights = layer.routing_weights(ops.zeros((1, 9, 8, 3)))
            >>> ops.convert_to_numpy(weights).tolist()
            [[0.25, 0.25, 0.25, 0.25]]
        """
        self._require_router()
        router: Any = self.router
        inputs = ops.convert_to_tensor(tensor("inputs", inputs, "bhwc"))
        axes = (1, 2) if self.data_format == "channels_last" else (2, 3)
        # A float16 sum over a large image overflows.
        return router(mean(ops.cast(inputs, at_least_float32(inputs)), axis=axes))

    def _require_router(self) -> None:
        if self.router is None:
            raise ValueError(
                f"Layer {self.name!r} has no router of its own, so its routing weights must be "
                "given. Received: routing_weights=None with routing=None. Call "
                "layer(inputs, routing_weights=...), or set routing='sigmoid'."
            )

    def compute_output_spec(self, inputs, routing_weights=None):
        """Returns what a call would, which refuses the same routing weights."""
        if routing_weights is None:
            self._require_router()
        else:
            self._checked(routing_weights, inputs.shape[0])
        return super().compute_output_spec(inputs, routing_weights=routing_weights)

    @property
    def further_windows(self) -> tuple[None, ...]:
        """None, for all positions, which the router reads."""
        return () if self.router is None else (None,)

    def operations(self, input_shape: Any) -> int:
        """Counts a convolution, the mixing of its kernel and bias, and the router.

        Args:
            input_shape: Shape of the inputs, or list of it and that of given routing weights.
        """
        shape, *given = each_shape(input_shape)
        found = super().operations(shape) + 2 * self.num_experts * self._mixed_numbers()
        return found if given or self.router is None else found + self._routing_operations(shape)

    def filter_operations(self, input_shape: Any, outputs: int) -> int:
        """Counts the convolution with a mixed kernel."""
        del input_shape
        return convolution(self.kernel.shape[1:], outputs)

    def _mixed_numbers(self) -> int:
        """Returns how many numbers a mixed kernel and bias have."""
        weights = [self.kernel] if self.bias is None else [self.kernel, self.bias]
        return sum(math.prod(weight.shape[1:]) for weight in weights)

    def _routing_operations(self, input_shape: Any) -> int:
        """Counts the mean over positions, and products, bias and activation of each expert."""
        channels = self.input_channels
        return numbers(input_shape) + channels + (2 * channels + 2) * self.num_experts

    def call(self, inputs, routing_weights=None):
        """Mixes a kernel and a bias for each example and applies them.

        Args:
            inputs: Tensor in the layer's data format.
            routing_weights: Weight of each expert for each example, `(batch, num_experts)`;
                the router's if None.
        """
        self._check_sizes(tuple(inputs.shape))
        if routing_weights is None:
            routing_weights = self.routing_weights(inputs)
        else:
            routing_weights = self._checked(routing_weights, inputs.shape[0])
        inputs = to_channels_last(inputs, self.data_format)
        kernels = ops.convert_to_tensor(self.kernel)
        outputs = self._convolve(inputs, kernels, routing_weights)
        if self.bias is not None:
            biases = mix_kernels(ops.convert_to_tensor(self.bias), routing_weights)
            outputs = outputs + ops.cast(biases[:, None, None], outputs.dtype)
        return self.activation(from_channels_last(outputs, self.data_format))

    def _convolve(self, inputs, kernels, routing_weights):
        """Applies each example's mix of the experts to channels-last inputs, by the plan chosen."""
        plan = self._plan(tuple(inputs.shape), training=False)
        return plan.apply(self._asked(tuple(inputs.shape)), inputs, kernels, routing_weights)

    def _plan(self, shape: tuple[int | None, ...], training: bool) -> Plan:
        del training  # which costs all plans alike
        return choose(CONDITIONAL, self._asked(shape), self.machine.memory)

    def _asked(self, shape: tuple[int | None, ...]) -> Request:
        return Request(
            self.windows,
            shape,
            self.filters,
            self.num_experts,
            backend=self.machine.backend,
            device=self.machine.device,
            itemsize=self.machine.itemsize(self.compute_dtype),
        )

    def _checked(self, routing_weights: Any, batch: Any) -> Any:
        """Returns given routing weights as a tensor, if each example has one for each expert."""
        if not is_tensor(routing_weights):
            raise ValueError(
                "`routing_weights` must be a tensor of shape (batch, num_experts). Received: "
                f"{received('routing_weights', routing_weights)}."
            )
        given = tensor("routing_weights", routing_weights, "bn")
        examples, experts = given.shape
        if experts != self.num_experts:
            raise ValueError(
                "`routing_weights` must have shape (batch, num_experts), here "
                f"(batch, {self.num_experts}). Received: routing_weights of shape "
                f"{tuple(given.shape)}."
            )
        # An unknown batch is None, or a symbol where JAX exports.
        if isinstance(batch, int) and isinstance(examples, int) and examples != batch:
            raise ValueError(
                f"`routing_weights` must be given for each of the inputs' {batch} examples. "
                f"Received: routing_weights of shape {tuple(given.shape)}."
            )
        return given
