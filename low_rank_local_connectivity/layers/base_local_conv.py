"""Base classes of the local convolution layers."""

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.biases import add_bias, with_biases
from low_rank_local_connectivity.layers.configured_layer import LayerWithKernels
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.ops.arguments import groups_of, per_axis, positive_int
from low_rank_local_connectivity.ops.convolution_transpose import computed_by_keras
from low_rank_local_connectivity.ops.operation_counts import convolution, numbers, per_output
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows
from low_rank_local_connectivity.ops.windows import (
    READ_BORDERS,
    Padding,
    Windows,
    checked_padding,
)


def fitting_windows(layer: Any, sizes: Sequence[int | None]) -> tuple[int | None, ...]:
    """Returns the number of windows per axis of a layer's inputs, which must have room for one.

    Args:
        layer: A layer with `windows`.
        sizes: Spatial size of its inputs.

    Raises:
        ValueError: If no window fits, or there is too little to read for the border.
    """
    windows = layer.windows
    found = windows.output_shape(sizes)
    if any(isinstance(size, int) and size < 1 for size in found):
        smaller = "kernel or dilation" if max(windows.dilations) > 1 else "kernel"
        raise ValueError(
            f"The kernel must fit into the input of layer {layer.name!r}: its windows span "
            f"{windows.extents} elements. Received: spatial input size {sizes} with "
            f"padding={layer.padding!r}. Use a smaller {smaller}, or padding='same'."
        )
    for one in (windows, *getattr(layer, "bank_windows", ())):
        if one.reads_border:
            one.pad_amounts(sizes)
    return found


def why_not_keras(layer: Any) -> str | None:
    """Returns why no convolution of Keras's has the windows of a layer, None if one has."""
    windows = layer.windows
    if isinstance(windows, TransposedWindows):
        computed = computed_by_keras(windows)
        return None if computed else "TensorFlow cannot compute Keras's own on a CPU"
    if windows.padding not in ("valid", "same", "causal"):
        return f"no convolution of Keras's has padding={windows.padding!r}"
    if windows.strided_and_dilated:
        return "no convolution of Keras's has strides and a dilation rate above 1 at once"
    if hasattr(layer, "depth_multiplier"):
        if windows.padding == "causal":
            return "no depthwise convolution of Keras's has padding='causal'"
        if len(set(windows.strides)) > 1:
            return "no depthwise convolution of Keras's has unequal strides on every backend"
    return None


def require_keras_windows(method: str, layer: Any) -> None:
    """Refuses to turn a layer into a convolution of Keras's that cannot have its windows.

    Args:
        method: What was asked for, for the error.
        layer: A layer with `windows`.

    Raises:
        ValueError: If there is no such convolution.
    """
    reason = why_not_keras(layer)
    if reason is not None:
        windows = layer.windows
        raise ValueError(
            f"{method}() returns a convolution of Keras's, and {reason}. Received: layer "
            f"{layer.name!r} with strides={windows.strides}, dilation_rate={windows.dilations} and "
            f"padding={windows.padding!r}. Keep the layer as it is, for export with convert=False."
        )


class BaseLocalConv(LayerWithKernels):
    """A local operation over `dimensions` spatial axes; subclasses say with which filters.

    A subclass creates its weights in `build`, after this class's own, and computes in
    `convolve`; data formats, shapes, checks, biases and the activation are handled here.
    """

    dimensions: ClassVar[int]
    # Into how many groups channels and filters are divided.
    groups: int = 1
    kernel: Any
    bias: Any

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters = positive_int("filters", filters)
        self.kernel_size = self._standardize_structure("kernel_size", kernel_size)
        self.strides = per_axis("strides", strides, self.dimensions)
        self.padding = checked_padding(padding, self.paddings(), self.dimensions)
        self.data_format = standardize_data_format(data_format)
        self.dilation_rate = self._standardize_structure("dilation_rate", dilation_rate)
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
        self.input_spec = keras.layers.InputSpec(ndim=self.dimensions + 2)

    def paddings(self) -> tuple[str, ...]:
        """Returns the names that `padding` may be."""
        causal = ("causal",) if self.dimensions == 1 else ()
        return ("valid", "same", *causal, *READ_BORDERS)

    def _standardize_structure(self, name: str, value: Any) -> Any:
        """Returns a kernel size or dilation rate per axis."""
        return per_axis(name, value, self.dimensions)

    @property
    def windows(self) -> Windows:
        """Where the layer's windows sit."""
        return Windows(self.kernel_size, self.strides, self.dilation_rate, self.padding)

    @property
    def position_sizes(self) -> tuple[int | None, ...]:
        """How many positions along each axis have filters of their own, None where unknown."""
        return self.output_sizes

    def fitting_sizes(self, sizes: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the outputs' size for inputs of a size, which must have room for a window."""
        return fitting_windows(self, sizes)

    def build(self, input_shape: Any) -> None:
        """Checks the input's shape and keeps what the weights' shapes follow from."""
        spatial, channels = split_shape(input_shape, self.data_format, self.dimensions)
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = keras.layers.InputSpec(ndim=self.dimensions + 2, axes={axis: channels})
        self.input_sizes = spatial
        self.input_channels = channels
        groups_of(self.groups, self.step_filters, channels)
        self.output_sizes = self.fitting_sizes(spatial)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns `(batch, *output sizes, filters)` in the layer's data format."""
        self._check_sizes(input_shape)
        spatial, channels = split_shape(input_shape, self.data_format, self.dimensions)
        sizes = self.windows.output_shape(spatial)
        return join_shape(input_shape[0], sizes, self.output_channels(channels), self.data_format)

    def output_channels(self, channels: int) -> int:
        """Returns the number of output channels for inputs of so many."""
        del channels
        return self.filters

    @property
    def kernel_channels(self) -> int:
        """Length of the axis of channels of the kernel: by default, those that a filter reads."""
        return self.input_channels // self.groups

    @property
    def kernel_filters(self) -> int:
        """Length of the axis of filters of the kernel."""
        return self.filters

    @property
    def step_filters(self) -> int:
        """Number of channels that the local filters make, of which more may be made afterwards."""
        return self.filters

    def call(self, inputs, training: bool | None = None):
        """Applies the layer's filters, biases and activation.

        Args:
            inputs: Tensor in the layer's data format.
            training: Whether gradients will be asked for; decides how, not what is computed.
        """
        self._check_sizes(tuple(inputs.shape))
        inputs = to_channels_last(inputs, self.data_format)
        if (
            None in inputs.shape[1:-1]
            and None not in self.input_sizes
            and len(self.fixed_axes()) == self.dimensions
        ):
            # A trace with a looser signature than the layer was built with.
            inputs = ops.reshape(inputs, (-1, *self.input_sizes, self.input_channels))
        outputs = self.convolve(inputs, training)
        outputs = with_biases(outputs, *self.output_biases())
        return self.activation(from_channels_last(outputs, self.data_format))

    def convolve(self, inputs, training: bool | None = None):
        """Applies the filters to channels-last inputs."""
        raise NotImplementedError

    def output_biases(self) -> list:
        """Returns tensors to add to the channels-last outputs."""
        return [] if self.bias is None else [self.bias]

    def operations(self, input_shape: Any) -> int:
        """Returns the floating-point operations that an example needs in inference.

        A product and a sum for every number of the kernel at every position, and one for each bias
        and activation, unless a layer says otherwise. Whatever is computed once for all examples,
        such as mixing fixed filters, is left out.

        Args:
            input_shape: Shape of the input with the batch, its other sizes known.

        Raises:
            ValueError: If the layer is not built, or a size is unknown.

        Example:
            >>> from low_rank_local_connectivity.layers import FullConv2D
            >>> layer = FullConv2D(5, 3)
            >>> layer.build((None, 8, 9, 4))
            >>> layer.operations((None, 8, 9, 4)) == 2 * 36 * 10 * 11 * 5
            True
        """
        self.require_built("operations")
        outputs = numbers(self.compute_output_shape(input_shape))
        after = per_output(self.use_bias, self.activation)
        return self.filter_operations(input_shape, outputs) + after * outputs

    def filter_operations(self, input_shape: Any, outputs: int) -> int:
        """Returns the operations of finding and applying the filters, which make the outputs."""
        del input_shape
        return convolution(self.kernel.shape, outputs)

    def fixed_axes(self) -> tuple[int, ...]:
        """Returns the spatial axes along which the weights fix the input's size."""
        return tuple(range(self.dimensions))

    def _check_sizes(self, input_shape: Any) -> None:
        """Refuses inputs without room for a window, or of another size than the weights are for."""
        received, _ = split_shape(input_shape, self.data_format, self.dimensions)
        self.fitting_sizes(received)
        for axis in self.fixed_axes() if self.built else ():
            if received[axis] not in (None, self.input_sizes[axis]):
                raise ValueError(
                    f"Layer {self.name!r} has weights for inputs of spatial size "
                    f"{self.input_sizes}, each position having its own. Received: inputs of "
                    f"shape {input_shape} with data_format={self.data_format!r}. "
                    "Resize the inputs, or the layer with conversion.resize(layer, input_shape)."
                )


class SharedFilterConv(BaseLocalConv):
    """Base of layers whose filters all positions share, for inputs of any spatial size."""

    def fixed_axes(self) -> tuple[int, ...]:
        """Returns no axes: the kernel fits inputs of any spatial size."""
        return ()

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        super().build(input_shape)
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, self.kernel_channels, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = add_bias(self)
