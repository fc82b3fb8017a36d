"""What convolutions with turned filters have in common."""

from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv import (
    BaseLocalConv,
    require_keras_windows,
)
from low_rank_local_connectivity.layers.biases import add_bias, with_biases
from low_rank_local_connectivity.layers.data_format import join_shape, split_shape
from low_rank_local_connectivity.layers.filter_initialization import draw_turned_filters
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.turned.group_action import CommutesWithGroup
from low_rank_local_connectivity.layers.turned.group_maps import (
    group_shape,
    join_orientations,
    plain_shape,
    split_orientations,
    works_by_value,
)
from low_rank_local_connectivity.ops.arguments import (
    boolean,
    integer,
    one_of,
    positive_int,
    whole_number,
)
from low_rank_local_connectivity.ops.convolution import windowed_convolution
from low_rank_local_connectivity.ops.group_conv import BASES, Basis, expand_kernel, tap_count
from low_rank_local_connectivity.ops.plane_group import PlaneGroup
from low_rank_local_connectivity.ops.windows import (
    READ_BORDERS,
    Padding,
    output_length,
    pad_amounts,
)

# What a layer has in common with the plain convolution that it becomes.
KEPT = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "activation")


def _at_every_side(padding: Any) -> Any:
    """Returns a number of zeros as amounts for every side, and any other padding as it is."""
    amount = integer(padding)
    if amount is None:
        return padding
    amount = whole_number("padding", amount, 0)
    return ((amount, amount), (amount, amount))


class BaseGroupConv2D(CommutesWithGroup, BaseLocalConv):
    """What the first and the later layers of a rotation-equivariant network have in common."""

    dimensions = 2

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        order: int = 4,
        strides: int | tuple[int, ...] = 1,
        padding: Padding | int = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
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
        reflections: bool = False,
        basis: Basis = "taps",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=_at_every_side(padding),
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
        self.order = positive_int("order", order)
        self.reflections = boolean("reflections", reflections)
        self.basis: Basis = one_of("basis", basis, BASES)
        for name in ("kernel_size", "strides", "dilation_rate"):
            rows, columns = getattr(self, name)
            if rows != columns:
                raise ValueError(
                    f"`{name}` must be the same along both axes, since filters are turned. "
                    f"Received: {name}={getattr(self, name)}."
                )
        self._check_padding()
        self.input_spec = keras.layers.InputSpec(ndim=5 if self.reads_orientations else 4)

    ARGUMENTS = arguments_of(__init__)

    @property
    def group(self) -> PlaneGroup:
        """The rotations and reflections by which filters are turned, one for each orientation."""
        return PlaneGroup(self.order, self.reflections)

    def _check_padding(self) -> None:
        """Refuses a border that is wider at one side of the image than at another."""
        if not isinstance(self.padding, str) and len(set(sum(self.padding, ()))) > 1:
            raise ValueError(
                "`padding` must be the same at all sides, since filters are turned. Received: "
                f"padding={self.padding}."
            )
        # With strides above 1 it depends on the image's size.
        even = self.strides[0] == 1 and self.windows.extents[0] % 2 == 0
        if even and self.padding in ("same", *READ_BORDERS):
            raise ValueError(
                f"padding={self.padding!r} would put one element more at one side of the image "
                "than at the other, and turned images would not give turned maps, unless a "
                "filter's extent, dilation_rate * (kernel_size - 1) + 1, is odd. "
                f"Received: kernel_size={self.kernel_size} and dilation_rate={self.dilation_rate}. "
                "Use an odd kernel_size, or padding='valid'."
            )

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        shape = input_shape
        if self.reads_orientations:
            shape, orientations = plain_shape(shape, self.data_format)
            self._check_orientations(tuple(input_shape), orientations)
        super().build(shape)
        self._check_windows(self.input_sizes)
        last = self.data_format == "channels_last"
        axes = {-1 if last else -3: self.input_channels}
        if self.reads_orientations:
            axes[-2 if last else 1] = self.group.size
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes=axes)
        orientations = (self.group.size,) if self.reads_orientations else ()
        taps = tap_count(self.kernel_size[0], self.order, self.basis)

        def draw(shape, dtype=None):
            return draw_turned_filters(self.kernel_initializer, shape, taps, self.group.size, dtype)

        self.kernel = self.add_weight(
            shape=(*self.kernel_size, *orientations, self.input_channels, self.filters),
            initializer=draw,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
            # Filters are turned before they are rounded to the compute dtype.
            autocast=False,
        )
        self.bias = add_bias(self)

    def _check_orientations(self, shape: tuple, orientations: int | None) -> None:
        if orientations != self.group.size:
            has = f"order={self.order}"
            both = "`order`"
            if self.reflections:
                has = f"{self.group.size} for {has} with reflections"
                both = "`order` and `reflections`"
            raise ValueError(
                f"Inputs of layer {self.name!r} must have as many orientations as it has, {has}, "
                f"along axis {-2 if self.data_format == 'channels_last' else 1}. Received: "
                f"input_shape={shape}, with {orientations}. Give every layer of a network the same "
                f"{both}."
            )

    def _check_windows(self, sizes: Any, unknown: bool = False) -> None:
        """Refuses sizes whose windows sit otherwise in a turned image.

        Args:
            sizes: Spatial size of the inputs.
            unknown: Whether it may be unknown.
        """
        if self.strides[0] == 1:
            return
        if None in sizes and not unknown:
            raise ValueError(
                "Whether turned images give turned maps under strides above 1 depends on the "
                f"image's size, so it must be known. Received: spatial input size {sizes} with "
                f"strides={self.strides} at layer {self.name!r}. Give keras.Input a static size, "
                "or use strides=1."
            )
        other = next((one for one in sizes if one is not None and not self._lie_alike(one)), None)
        if other is not None:
            near = range(max(other - self.strides[0], 1), other + self.strides[0] + 1)
            fitting = " and ".join(str(size) for size in near if self._lie_alike(size))
            raise ValueError(
                "Turned images give turned maps only if the windows lie alike seen from either "
                f"side of the image. Received: spatial input size {sizes} with kernel_size="
                f"{self.kernel_size}, strides={self.strides}, dilation_rate={self.dilation_rate} "
                f"and padding={self.padding!r} at layer {self.name!r}; of sizes near {other}, "
                f"{fitting} would do. Use images of such a size, or strides=1 and, on even sizes, "
                "average pooling over 2x2 positions."
            )

    def _lie_alike(self, size: int) -> bool:
        """Whether windows over an axis begin as far from one end as they end from the other."""
        padding = self.padding if isinstance(self.padding, str) else self.padding[0]
        axis = (size, self.kernel_size[0], self.strides[0], self.dilation_rate[0], padding)
        count: Any = output_length(*axis)
        before, _ = pad_amounts(*axis)
        span = (count - 1) * self.strides[0] + self.windows.extents[0]
        return count > 0 and span == size + 2 * before

    def _check_sizes(self, input_shape: tuple) -> None:
        super()._check_sizes(input_shape)
        sizes, _ = split_shape(input_shape, self.data_format)
        self._check_windows(sizes, unknown=True)

    def fixed_axes(self) -> tuple[int, ...]:
        """Returns no axes: the kernel fits inputs of any spatial size."""
        return ()

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns `(batch, *sizes, orientations, filters)`, or with both behind the batch."""
        shape = input_shape
        if self.reads_orientations:
            shape, _ = plain_shape(shape, self.data_format)
        plain = super().compute_output_shape(shape)
        return group_shape(plain, self.group.size, self.data_format)

    @property
    def plain_kernel(self) -> Any:
        """The kernel with its filters in all orientations, as `to_conv2d` has it."""
        kernel = ops.convert_to_tensor(self.kernel)
        if not self.reads_orientations:
            kernel = ops.expand_dims(kernel, 2)
        return expand_kernel(kernel, self.order, self.reflections, self.basis)

    def call(self, inputs):
        """Convolves with the filters in all orientations."""
        shape = tuple(inputs.shape)
        if self.reads_orientations:
            shape, _ = plain_shape(shape, self.data_format)
        self._check_sizes(shape)
        last = self.data_format == "channels_last"
        if self.reads_orientations:
            inputs = join_orientations(inputs, self.data_format)
        inputs = inputs if last else ops.moveaxis(inputs, 1, -1)
        # Under "same" what Keras pads is alike on both sides: sizes of which it is not are refused.
        kernel = ops.cast(self.plain_kernel, inputs.dtype)
        outputs = windowed_convolution(inputs, kernel, self.windows)
        outputs = split_orientations(outputs, self.group.size, "channels_last")
        outputs = with_biases(outputs, self.bias)
        if not last:
            outputs = ops.transpose(outputs, (0, 3, 4, 1, 2))
        return self.activation(outputs)

    def to_conv2d(self) -> keras.layers.Conv2D:
        """Returns the plain convolution that computes the same, its kernel spelled out.

        It has as many filters as this layer makes maps: filter `r * filters + f` is filter `f` in
        orientation `r`. Likewise its input channel `s * channels + c` is channel `c` in
        orientation `s`, if the inputs have orientations. So channels-last maps
        `(batch, height, width, order, filters)` need only be reshaped, and channels-first ones too.
        Regularizers and constraints have no counterpart and stay behind.

        Returns:
            Built layer of the same name, `trainable` flag and dtype policy.

        Raises:
            ValueError: If this layer is not built, its activation mixes channels, or no
                convolution of Keras's has its windows.
        """
        self.require_built("to_conv2d")
        require_keras_windows("to_conv2d", self)
        if not works_by_value(self.activation):
            raise ValueError(
                "to_conv2d() needs an activation that works value by value: a plain convolution "
                "has the orientations among its channels. Received: layer "
                f"{self.name!r} with activation={keras.activations.serialize(self.activation)!r}. "
                "Make the activation a layer of its own."
            )
        conv = keras.layers.Conv2D(
            self.group.size * self.filters,
            **{name: getattr(self, name) for name in KEPT},
            use_bias=self.use_bias,
            dtype=self.dtype_policy,
            name=self.name,
        )
        kernel = ops.convert_to_numpy(self.plain_kernel)
        conv.build(join_shape(None, (None, None), kernel.shape[2], self.data_format))
        biases = [] if self.bias is None else [ops.convert_to_numpy(self.bias)]
        conv.set_weights([kernel, *(np.tile(one, self.group.size) for one in biases)])
        conv.trainable = self.trainable
        return conv
