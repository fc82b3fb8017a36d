"""Convolutions whose kernel is a sum of Kronecker products."""

from typing import Any, Unpack

import keras
import numpy as np
from keras import initializers, ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv import (
    fitting_windows,
    require_keras_windows,
)
from low_rank_local_connectivity.layers.biases import add_bias, with_biases
from low_rank_local_connectivity.layers.configured_layer import LayerWithKernels
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.filter_initialization import draw_factor
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.other.kronecker_checks import (
    kernel_to_factorize,
    require_product,
)
from low_rank_local_connectivity.layers.planned import Planned
from low_rank_local_connectivity.ops.arguments import (
    one_of,
    per_axis,
    positive_int,
    received,
    sizes_of,
)
from low_rank_local_connectivity.ops.kronecker import (
    checked_factors,
    checked_rank,
    kronecker_kernel,
    nearest_kronecker_factors,
    rearrange_kernel,
)
from low_rank_local_connectivity.ops.operation_counts import numbers, per_output
from low_rank_local_connectivity.ops.windows import (
    READ_BORDERS,
    Padding,
    Windows,
    checked_padding,
)
from low_rank_local_connectivity.plans.kronecker import KRONECKER, KroneckerRequest
from low_rank_local_connectivity.plans.machine import present_machine
from low_rank_local_connectivity.plans.plan import Plan, choose, names_of

# What the layer has in common with the convolution that it comes from or becomes.
KEPT = ("strides", "padding", "data_format", "activation", "use_bias", "activity_regularizer")


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class KroneckerConv2D(Planned, LayerWithKernels):
    """A convolution whose kernel is a sum of Kronecker products of two smaller kernels.

    `kernel[i h2 + k, j w2 + l, c c2 + d, e o2 + f]
    = sum_r coarse[r, i, j, c, e] fine[r, k, l, d, f]`:
    `rank (h1 w1 c1 o1 + h2 w2 c2 o2)` parameters instead of their product. Among its special cases
    are separable kernels, `((h, 1, 1, 1), (1, w, channels, filters))`, and layers that mix blocks
    of channels, `((1, 1, c1, o1), (h, w, c2, o2))`.

    Args:
        filters: Number of filters, `o1 o2`.
        kernel_size: Taps per spatial axis of the whole kernel: an integer or a tuple of 2.
        factors: Shapes `(h1, w1, c1, o1)` and `(h2, w2, c2, o2)` of a term's coarse and fine
            kernel: rows, columns, input channels and filters. They multiply to the kernel's.
        rank: Number of terms, from 1 to the smaller number of parameters in a term's two kernels;
            with that many every kernel can be written.
        strides: Step between windows, in input elements.
        padding: As in `LocallyConnected2D`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        activation: Activation function; none if None.
        use_bias: Whether each filter has a bias.
        kernel_initializer: Initializer that gives the kernel its variance, that of an ordinary
            convolution of this shape: here `2 / fan_in`, as in the other layers of several filter
            banks. Uniform, since products of uniform numbers have a kurtosis of 3.24, near a
            normal distribution's 3, and those of normal ones have 9. Not zeros, which a product
            never leaves.
        bias_initializer: Initializer of the biases.
        kernel_regularizer: Regularizer of both factors, one by one.
        bias_regularizer: Regularizer of the biases.
        activity_regularizer: Regularizer of the outputs.
        kernel_constraint: Constraint on both factors, one by one.
        bias_constraint: Constraint on the biases.
        strategy: `"dense"` to spell out the kernel and convolve once; `"factored"` to convolve
            with the fine and then with the coarse kernels, which saves time where it saves very
            many multiply-adds; `"auto"` for the one that `plans.choose` expects to be
            faster. The outputs are the same.

    Weights:
        `coarse_kernel` of shape `(rank, h1, w1, c1, o1)`, `fine_kernel` of shape
        `(rank, h2, w2, c2, o2)` and `bias` of shape `(filters,)`.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; any size. Under
        strides above 1 and a padding that keeps the size, `"factored"` needs it to be known, and
        so does a border that is read from the inputs.

    Output:
        As `keras.layers.Conv2D`.

    Raises:
        ValueError: If the factors do not multiply to the kernel, or another argument or the input
            is out of its range.

    Example:
        >>> layer = KroneckerConv2D(8, 6, factors=((2, 3, 1, 4), (3, 2, 5, 2)), rank=2)
        >>> outputs = layer(ops.ones((1, 9, 7, 5)))
        >>> tuple(outputs.shape), layer.count_params(), layer.to_conv2d().count_params()
        ((1, 4, 2, 8), 176, 1448)

    Reference:
        Zhou et al., "Exploiting Local Structures with the Kronecker Layer in Convolutional
        Networks", 2015; Hameed et al., "Convolutional Neural Network Compression through
        Generalized Kronecker Product Decomposition", 2022.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        factors: Any,
        rank: int = 1,
        strides: Any = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "he_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        strategy: str = "auto",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters = positive_int("filters", filters)
        self.kernel_size = per_axis("kernel_size", kernel_size, 2)
        self.factors = checked_factors(factors)
        require_product(self.factors, self.kernel_size, self.filters)
        self.rank = checked_rank(rank, self.factors)
        self.strides = per_axis("strides", strides, 2)
        self.padding = checked_padding(padding, ("valid", "same", *READ_BORDERS), 2)
        self.data_format = standardize_data_format(data_format)
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
        if isinstance(self.kernel_initializer, initializers.Zeros):
            raise ValueError(
                "`kernel_initializer` must not be zeros: if both factors of a product are 0, so "
                "are both gradients, and it never changes. Received: "
                f"kernel_initializer={kernel_initializer!r}."
            )
        self.strategy = one_of("strategy", strategy, ("auto", *names_of(KRONECKER)))
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.machine: Any = None  # read by `build`

    ARGUMENTS = arguments_of(__init__)

    @property
    def windows(self) -> Windows:
        """Where the whole kernel's windows sit."""
        return Windows(self.kernel_size, self.strides, (1, 1), self.padding)

    def build(self, input_shape: Any) -> None:
        """Creates the factors for inputs of this shape."""
        sizes, channels = split_shape(input_shape, self.data_format, 2)
        (_, _, blocks, _), (_, _, in_block, _) = self.factors
        if channels != blocks * in_block:
            raise ValueError(
                f"The channels of `factors` must multiply to those of the input of layer "
                f"{self.name!r}. Received: factors={self.factors}, with {blocks} * {in_block} "
                f"channels, and input_shape={tuple(input_shape)}, with {channels}."
            )
        fitting_windows(self, sizes)
        if self.strategy == "factored":
            # Refuses an unknown size under strides and padding before any weight is made.
            self.windows.pad_amounts(sizes)
        self.machine = present_machine()
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={axis: channels})
        self.coarse_kernel, self.fine_kernel = (
            self._add_factor(name, index) for index, name in enumerate(("coarse", "fine"))
        )
        self.bias = add_bias(self)

    def _add_factor(self, name: str, index: int) -> Any:
        def draw(shape, dtype=None):  # noqa: ARG001, the shape follows from the factors
            return draw_factor(self.kernel_initializer, self.factors, self.rank, index, dtype)

        return self.add_weight(
            shape=(self.rank, *self.factors[index]),
            initializer=draw,
            name=f"{name}_kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            # The kernel is summed up before it is rounded to the compute dtype.
            autocast=False,
        )

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns `(batch, *output sizes, filters)` in the layer's data format."""
        sizes, _ = split_shape(input_shape, self.data_format, 2)
        sizes = fitting_windows(self, sizes)
        return join_shape(input_shape[0], sizes, self.filters, self.data_format)

    def call(self, inputs):
        """Convolves, adds the biases and applies the activation."""
        inputs = to_channels_last(inputs, self.data_format)
        fitting_windows(self, tuple(inputs.shape[1:3]))
        outputs = with_biases(self._convolve(inputs), self.bias)
        return self.activation(from_channels_last(outputs, self.data_format))

    def operations(self, input_shape: Any) -> int:
        """Counts one convolution, or two steps if that is the strategy, biases and activation."""
        self.require_built("operations")
        sizes, _ = split_shape(input_shape, self.data_format, 2)
        positions = numbers((None, *self.windows.output_shape(sizes)))
        per_position = self.asked(sizes).multiply_adds[self.chosen_strategy(sizes)]
        products = round(per_position * positions)
        after = per_output(self.use_bias, self.activation)
        return 2 * products + after * self.filters * positions

    def _convolve(self, inputs):
        """Applies the kernel to channels-last inputs, by the plan chosen."""
        request = self.asked(inputs.shape[1:3], inputs.shape[0])
        plan = choose(KRONECKER, request, self.machine.memory, self.strategy)
        return plan.apply(request, inputs, self.coarse_kernel, self.fine_kernel)

    def _plan(self, shape: tuple[int | None, ...], training: bool) -> Plan:
        del training  # `call` is not told
        request = self.asked(shape[1:3], shape[0])
        return choose(KRONECKER, request, self.machine.memory, self.strategy)

    def asked(self, sizes: Any = (None, None), batch: Any = None) -> KroneckerRequest:
        """Returns what the layer is asked to compute for inputs of a spatial size.

        Args:
            sizes: Rows and columns of the inputs, None where unknown.
            batch: Number of examples, None if unknown.

        Raises:
            ValueError: If there are not two.
        """
        if len(sizes_of(sizes) or ()) != 2:
            raise ValueError(
                "`sizes` must be the rows and columns of the inputs, each an integer or None. "
                f"Received: {received('sizes', sizes)}."
            )
        machine = self.machine or present_machine()
        return KroneckerRequest(
            self.windows,
            (batch, *sizes, self.factors[0][2] * self.factors[1][2]),
            self.filters,
            self.rank,
            backend=machine.backend,
            device=machine.device,
            itemsize=machine.itemsize(self.compute_dtype),
            factors=self.factors,
        )

    @property
    def kernel(self) -> Any:
        """The whole kernel, `(*kernel_size, channels, filters)`."""
        return kronecker_kernel(self.coarse_kernel, self.fine_kernel)

    def chosen_strategy(self, sizes: tuple[int | None, ...] = (None, None)) -> str:
        """Returns `"factored"` or `"dense"`: how inputs of a spatial size are convolved."""
        machine = self.machine or present_machine()
        return choose(KRONECKER, self.asked(sizes), machine.memory, self.strategy).name

    def to_conv2d(self) -> keras.layers.Conv2D:
        """Returns the ordinary convolution that computes the same: its kernel is spelled out.

        Regularizers and constraints of the factors have no counterpart and stay behind.

        Returns:
            Built layer of the same name, `trainable` flag and dtype policy.

        Raises:
            ValueError: If this layer is not built, or no convolution of Keras's has its padding.
        """
        self.require_built("to_conv2d")
        require_keras_windows("to_conv2d", self)
        conv = keras.layers.Conv2D(
            **{name: getattr(self, name) for name in KEPT},
            filters=self.filters,
            kernel_size=self.kernel_size,
            dtype=self.dtype_policy,
            name=self.name,
        )
        kernel = ops.convert_to_numpy(self.kernel)
        conv.build(join_shape(None, (None, None), kernel.shape[2], self.data_format))
        conv.set_weights([kernel, *([] if self.bias is None else [self.bias])])
        conv.trainable = self.trainable
        return conv

    @classmethod
    def from_conv2d(
        cls, conv: keras.layers.Conv2D, factors: Any, rank: int = 1, strategy: str = "auto"
    ) -> "KroneckerConv2D":
        """Returns the layer whose kernel is nearest to a convolution's, in least squares.

        The kernel, arranged as `ops.rearrange_kernel` says, is replaced by the first `rank` terms
        of its singular value decomposition. `approximation_error` says how much is lost.

        Args:
            conv: Built `Conv2D` with `groups=1` and no dilation. Its regularizers and constraints
                are of its kernel as a whole and stay behind.
            factors: As in the layer; they must multiply to the kernel.
            rank: Number of terms.
            strategy: As in the layer.

        Returns:
            Built layer of the same name, `trainable` flag and dtype policy.

        Raises:
            ValueError: If the convolution is of another kind, not built or not finite, or the
                factors or the rank do not fit it.

        Example:
            >>> conv = keras.layers.Conv2D(8, 3)
            >>> conv.build((None, 9, 7, 6))
            >>> layer = KroneckerConv2D.from_conv2d(conv, ((3, 3, 2, 1), (1, 1, 3, 8)), rank=18)
            >>> bool(ops.all(ops.isclose(layer.kernel, conv.kernel, atol=1e-5)))
            True
        """
        factors = checked_factors(factors)
        kernel = kernel_to_factorize("from_conv2d", conv, factors)
        layer = cls(
            conv.filters,
            conv.kernel_size,
            factors,
            rank,
            **{name: getattr(conv, name) for name in KEPT},
            strategy=strategy,
            dtype=conv.dtype_policy,
            name=conv.name,
        )
        layer.build(conv.get_build_config()["input_shape"])
        values = nearest_kronecker_factors(kernel, factors, layer.rank)
        layer.set_weights([*values, *([conv.bias] if conv.use_bias else [])])
        layer.trainable = conv.trainable
        return layer

    @staticmethod
    def approximation_error(conv: keras.layers.Conv2D, factors: Any, rank: int = 1) -> float:
        """Returns how far a convolution's kernel is from the nearest one of a rank.

        The Frobenius norm of the difference, the root of the sum of the squares of the singular
        values that `from_conv2d(conv, factors, rank)` leaves out; arguments and errors as there.
        """
        factors = checked_factors(factors)
        kernel = kernel_to_factorize("approximation_error", conv, factors)
        kept = checked_rank(rank, factors)
        values = np.linalg.svd(rearrange_kernel(kernel, factors), compute_uv=False)
        return float(np.sqrt(np.sum(values[kept:] ** 2)))
