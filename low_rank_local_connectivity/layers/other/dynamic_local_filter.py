"""Filters that the input itself generates, for every example and position."""

import math
from typing import Any, Literal, Unpack

import keras
from keras import layers, ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.configured_layer import LayerWithKernels
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.ops.arguments import (
    boolean,
    one_of,
    one_of_any_case,
    per_axis,
    tensor,
)
from low_rank_local_connectivity.ops.borders import with_border
from low_rank_local_connectivity.ops.combining_weights import normalize_logits
from low_rank_local_connectivity.ops.dynamic_local_filter import dynamic_local_filter
from low_rank_local_connectivity.ops.operation_counts import each_shape, numbers
from low_rank_local_connectivity.ops.windows import READ_BORDERS, Windows


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class DynamicLocalFilter2D(LayerWithKernels):
    """Filters every position of every example with weights generated from the input.

    `outputs[b, i, j, c] = sum_t F[b, i, j, t] * patch_t[b, i, j, c]`

    where `patch_t` is the input under tap `t`, and `F` the generator's answer,
    normalised over the taps. The generator is one convolution.

    Among layers whose filter at each position mixes `K` banks, this is the input-dependent one
    with the identity as its basis: the banks are the `K` single taps, each channel is filtered
    by itself, and there is nothing to learn but the mixing. `LowRankLocallyConnected2D` learns
    the banks as well.

    Args:
        kernel_size: Taps per spatial axis: an integer or a tuple of 2. With an even number the
            window reaches one further down or right, as under Keras's `padding="same"`.
        normalize: `"softmax"` over the taps, so that each output is a weighted mean of its
            window, or None for filters of any sign and size.
        per_channel: Whether each channel has filters of its own; otherwise all share them.
        dilation_rate: Step between the filters' taps per spatial axis, in input elements.
        generator_kernel_size: Taps per spatial axis of the generator; None for those of
            `kernel_size` at `dilation_rate`, so that it sees the window which it weighs.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        use_generator: Whether the layer generates its filters; otherwise they are always given.
        use_bias: Whether the generator has a bias: what every position's filter starts from.
        kernel_initializer: Initializer of the generator's kernel.
        bias_initializer: Initializer of the generator's bias.
        kernel_regularizer: Regularizer of the generator's kernel.
        bias_regularizer: Regularizer of the generator's bias.
        kernel_constraint: Constraint on the generator's kernel.
        bias_constraint: Constraint on the generator's bias.
        padding: What filters and generator read beyond the input: zeros under `"same"`, or the
            input itself under `"circular"`, `"reflect"` and `"replicate"`, as in
            `LocallyConnected2D`.

    Weights:
        generator/kernel, generator/bias: a convolution's, with `taps` filters, or
        `taps * channels` if per channel; none without a generator.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; any size.
        Optionally `filters`: the same with `taps` channels, in row-major order, or with
        `taps * channels` in the order of (tap, channel). They are normalised too.

    Output:
        The input's shape.

    Raises:
        ValueError: If an argument is out of range, or filters are missing or misshapen.

    Example:
        >>> layer = DynamicLocalFilter2D(3)
        >>> outputs = layer(ops.ones((2, 6, 7, 4)))
        >>> [tuple(weight.shape) for weight in layer.weights], tuple(outputs.shape)
        ([(3, 3, 4, 9), (9,)], (2, 6, 7, 4))

        Filters made elsewhere; without normalisation and with all weight on the last tap, the
        image moves up and left:

        >>> image = ops.reshape(ops.arange(6, dtype="float32"), (1, 2, 3, 1))
        >>> filters = ops.broadcast_to(ops.one_hot(8, 9), (1, 2, 3, 9))
        >>> layer = DynamicLocalFilter2D(3, normalize=None, use_generator=False)
        >>> ops.convert_to_numpy(layer(image, filters=filters))[0, ..., 0].tolist()
        [[4.0, 5.0, 0.0], [0.0, 0.0, 0.0]]

    Reference:
        Jia, De Brabandere, Tuytelaars and Van Gool, "Dynamic Filter Networks", NIPS 2016,
        https://arxiv.org/abs/1605.09673.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        normalize: Literal["softmax"] | None = "softmax",
        per_channel: bool = False,
        dilation_rate: int | tuple[int, ...] = 1,
        generator_kernel_size: int | tuple[int, ...] | None = None,
        data_format: str | None = None,
        use_generator: bool = True,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        padding: str = "same",
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.padding = one_of_any_case("padding", padding, ("same", *READ_BORDERS))
        self.kernel_size = per_axis("kernel_size", kernel_size, 2)
        self.normalize = one_of("normalize", normalize, ("softmax", None))
        self.per_channel = boolean("per_channel", per_channel)
        self.dilation_rate = per_axis("dilation_rate", dilation_rate, 2)
        self.generator_kernel_size = (
            None
            if generator_kernel_size is None
            else per_axis("generator_kernel_size", generator_kernel_size, 2)
        )
        self.data_format = standardize_data_format(data_format)
        self.use_generator = boolean("use_generator", use_generator)
        self.keep(
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        self.input_spec = layers.InputSpec(ndim=4)
        self.generator: Any = None
        if not use_generator:
            self._build_now(DynamicLocalFilter2D)

    ARGUMENTS = arguments_of(__init__)

    @property
    def windows(self) -> Windows:
        """Where the layer's windows sit."""
        return Windows(self.kernel_size, (1, 1), self.dilation_rate, self.padding)

    @property
    def further_windows(self) -> tuple[Windows, ...]:
        """What the filters are made from, which may be wider than what they are applied to."""
        size = self.generator_kernel_size
        return () if size is None else (Windows(size, (1, 1), (1, 1), self.padding),)

    def operations(self, input_shape: Any) -> int:
        """Counts the generator, the filters' normalisation, and their application.

        Args:
            input_shape: Shape of the inputs, or list of it and that of given filters.
        """
        shape, *given = each_shape(input_shape)
        outputs, taps = numbers(shape), self.windows.taps
        sizes, channels = split_shape(shape, self.data_format, 2)
        weights = taps * math.prod(sizes) * (channels if self.per_channel else 1)
        found = 2 * taps * outputs + (0 if self.normalize is None else 3 * weights)
        if given or not self.use_generator:
            return found
        self.require_built("operations")
        kernel = self.generator.kernel.shape
        return found + (2 * math.prod(kernel[:-1]) + self.use_bias) * weights

    def build(self, input_shape: Any) -> None:
        """Creates the generator for inputs of this shape."""
        sizes, channels = split_shape(input_shape, self.data_format, 2)
        self._check_border(sizes)
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = layers.InputSpec(ndim=4, axes={axis: channels})
        if not self.use_generator:
            return
        generator = layers.Conv2D(
            self.windows.taps * (channels if self.per_channel else 1),
            self.generator_kernel_size or self.kernel_size,
            padding="valid" if self.windows.reads_border else "same",
            data_format="channels_last",
            dilation_rate=1 if self.generator_kernel_size else self.dilation_rate,
            use_bias=self.use_bias,
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name="generator",
        )
        generator.build((None, None, None, channels))
        self.generator = generator

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape."""
        sizes, _ = split_shape(input_shape, self.data_format, 2)
        self._check_border(sizes)
        return tuple(input_shape)

    def _check_border(self, sizes: tuple[int | None, ...]) -> None:
        """Refuses inputs with too little to read for the border."""
        for windows in (self.windows, *self.further_windows):
            windows.pad_amounts(sizes)

    def call(self, inputs, filters=None):
        """Filters the inputs.

        Args:
            inputs: Tensor in the layer's data format.
            filters: Filters before their normalisation, in the layer's data format; the
                generator's if None.
        """
        inputs = to_channels_last(inputs, self.data_format)
        if filters is None:
            self._require_generator()
            read, _ = with_border(inputs, (*self.further_windows, self.windows)[0])
            filters = self.generator(read)
        else:
            filters = to_channels_last(tensor("filters", filters, "bSt"), self.data_format)
        self._check_filters(tuple(filters.shape), tuple(inputs.shape))
        filters = self._normalized(filters, inputs.shape[-1])
        outputs = dynamic_local_filter(inputs, ops.cast(filters, inputs.dtype), self.windows)
        return from_channels_last(outputs, self.data_format)

    def compute_output_spec(self, inputs, filters=None):
        """Returns what a call would, which refuses the same filters."""
        if filters is None:
            self._require_generator()
        else:
            tensor("filters", filters, "bSt")
            self._check_filters(
                *(tuple(to_channels_last(one, self.data_format).shape) for one in (filters, inputs))
            )
        return super().compute_output_spec(inputs, filters=filters)

    def _require_generator(self) -> None:
        if not self.use_generator:
            raise ValueError(
                f"Layer {self.name!r} has no generator, so its filters must be given. Received: "
                "filters=None with use_generator=False. Call layer(inputs, filters=...), or set "
                "use_generator=True."
            )

    def _check_filters(self, shape: tuple, input_shape: tuple) -> None:
        """Refuses filters, channels last, that do not fit the inputs."""
        taps = self.windows.taps
        width = input_shape[-1] if self.per_channel else 1
        expected = (*input_shape[1:-1], taps * width)
        received = shape[1:]
        known = zip(received, expected, strict=False)
        if len(received) != 3 or any(a != b for a, b in known if None not in (a, b)):
            of_channels = f" of {width} channels" if self.per_channel else ""
            raise ValueError(
                f"`filters` must be given for every position of the inputs and each of {taps} taps"
                f"{of_channels}: of shape (batch, {', '.join(map(str, expected))}), channels last. "
                f"Received: filters of shape (batch, {', '.join(map(str, received))})."
            )

    def _normalized(self, filters, channels: int):
        """Returns filters of axes (batch, row, column, tap, channel or 1), normalised over taps."""
        taps, width = self.windows.taps, channels if self.per_channel else 1
        shape = ops.shape(filters)
        filters = ops.reshape(filters, (*shape[:-1], taps, width))
        if self.normalize is None:
            return filters
        by_tap = normalize_logits(ops.swapaxes(filters, -1, -2), self.normalize)
        return ops.swapaxes(by_tap, -1, -2)
