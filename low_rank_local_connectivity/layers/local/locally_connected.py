"""Locally connected layers: a filter bank of its own at every position."""

from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.local.stored_filters import StoredFilters, taps_first
from low_rank_local_connectivity.layers.planned import Planned
from low_rank_local_connectivity.ops.arguments import groups_of, one_of
from low_rank_local_connectivity.ops.windows import Padding
from low_rank_local_connectivity.plans.fused import require_kernel
from low_rank_local_connectivity.plans.locally_connected import LOCALLY_CONNECTED
from low_rank_local_connectivity.plans.machine import present_machine
from low_rank_local_connectivity.plans.plan import Plan, choose
from low_rank_local_connectivity.plans.request import Request


class LocallyConnected(Planned, StoredFilters):
    """A convolution that shares nothing between positions.

    `outputs[b, p, f] = activation(sum_r patches[p, b, r] * kernel[p, r, f] + bias[p, f])`

    where `p` runs over output positions and `r` over the taps and channels that a filter reads.
    Arguments, weight names, shapes and their order are those of Keras 2's layers, which Keras 3
    no longer has, so that weights trained there can be set here unchanged.

    Args:
        filters: Number of filters at each position.
        kernel_size: Taps per spatial axis: an integer or a tuple.
        strides: Step between windows per spatial axis, in input elements.
        padding: `"valid"`, or what stands around the input. Zeros: `"same"`, `"causal"` in 1D, or
            a tuple that says how many, with a pair `(before, after)` for each spatial axis. As
            many elements of the input itself as `"same"` has zeros: `"circular"`, wrapped around;
            `"reflect"`, mirrored without repeating the border; `"replicate"`, the border repeated.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        activation: Name or callable.
        use_bias: Whether each position and filter has a bias.
        kernel_initializer: Initializer of the kernel.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the bias.
        implementation: 1, 2 and 3 are accepted for Keras 2's sake and all mean that the layer
            chooses. `"fused"` has a kernel that keeps patches on the chip, in 1D and 2D: on JAX,
            for a known batch and size, one for TPUs, which is interpreted elsewhere, slowly; on
            PyTorch one for GPUs, where `triton` is installed.
        dilation_rate: Step between taps per spatial axis, in input elements.
        fan: How wide the initializer takes a filter to be. `"position"` draws each position's
            filters with the fans of one filter bank, as a convolution would, and positions
            differ. `"kernel"` gives the whole weight to the initializer as Keras 2 did: it
            counts the positions as taps, so values come out smaller by
            `sqrt(number of positions)`, 26 times for 26 x 26 positions. Without a normalisation
            after it, such a layer starts by all but erasing its input, and it trains slower;
            use it to repeat results obtained that way.
        groups: Into how many groups of neighbours the input channels and the filters are divided;
            a filter reads the channels of its own group, as in Keras's convolutions.

    Weights:
        kernel: `(positions, kernel taps * input channels / groups, filters)`; positions in
            row-major order. With `channels_first` the middle axis runs over channels, then taps.
        bias: `(*output sizes, filters)`. With `channels_first` its values are stored in the
            order `(filters, *output sizes)`, as Keras 2 stored them.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`; the spatial size must be
        known, the batch size need not be.

    Output:
        The same with `filters` channels.

    Raises:
        ValueError: If an argument is out of range, or the input's spatial size is unknown.

    Reference:
        LeCun, "Generalization and network design strategies", 1989.
    """

    position = "position"
    sharing = "LowRankLocallyConnected{}D"
    fewer_with = "larger strides"

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        implementation: int | Literal["fused"] = 1,
        *,
        dilation_rate: int | tuple[int, ...] = 1,
        fan: Literal["position", "kernel"] = "position",
        groups: int = 1,
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
        self.groups = groups_of(groups, self.filters)
        self.implementation = one_of("implementation", implementation, (1, 2, 3, "fused"))
        if self.implementation == "fused":
            require_kernel(self.name, keras.backend.backend(), self.dimensions, self.groups)
        self.fan = one_of("fan", fan, ("position", "kernel"))

    ARGUMENTS = arguments_of(__init__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        self.machine = present_machine()
        super().build(input_shape)

    @property
    def filter_initializer(self) -> Any:
        """What draws the kernel: position by position, or as a whole."""
        return super().filter_initializer if self.fan == "position" else self.kernel_initializer

    def local_kernel(self):
        """Returns the filters as a tensor `(*output sizes, *kernel size, channels, filters)`.

        The channels are those that a filter reads, `input channels / groups`.

        Raises:
            ValueError: If the layer is not built.

        Example:
            >>> layer = LocallyConnected1D(5, 3)
            >>> layer.build((None, 10, 2))
            >>> ops.shape(layer.local_kernel())
            (8, 3, 2, 5)
        """
        self.require_built("local_kernel")
        return ops.reshape(
            self._kernel_taps_first(self.kernel),
            (*self.output_sizes, *self.bank),
        )

    def _kernel_taps_first(self, kernel):
        """Returns the kernel with its middle axis over taps, then channels."""
        return taps_first(kernel, self.windows.taps, self.data_format)

    def convolve(self, inputs, training: bool | None = None):
        """Applies each position's filters to its patch."""
        request = self.asked(tuple(inputs.shape), bool(training))
        plan = self._plan_for(request)
        return plan.apply(request, inputs, self._kernel_taps_first(self.kernel))

    def _plan_for(self, request: Request) -> Plan:
        name = "patches_on_chip" if self.implementation == "fused" else "auto"
        return choose(LOCALLY_CONNECTED, request, name=name)

    def asked(self, shape: Any, training: bool = False) -> Request:
        """Returns what the layer is asked to compute for inputs of a shape.

        Args:
            shape: Shape of the inputs, channels last; None where unknown.
            training: Whether gradients are wanted.

        Raises:
            ValueError: If the layer is not built, or an argument is of another kind.
        """
        self.require_built("asked")
        return Request(
            self.windows,
            shape,
            self.step_filters,
            rank=1,
            training=training,
            backend=self.machine.backend,
            device=self.machine.device,
            itemsize=self.machine.itemsize(self.compute_dtype),
            groups=self.groups,
        )


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LocallyConnected)
class LocallyConnected1D(LocallyConnected):
    """A locally connected layer over 1 axis, such as time.

    Example:
        >>> layer = LocallyConnected1D(64, 3)
        >>> tuple(layer(ops.ones((2, 10, 32))).shape)
        (2, 8, 64)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LocallyConnected)
class LocallyConnected2D(LocallyConnected):
    """A locally connected layer over 2 axes, such as those of images.

    Example:
        >>> layer = LocallyConnected2D(6, (3, 2))
        >>> tuple(layer(ops.ones((2, 9, 8, 3))).shape)
        (2, 7, 7, 6)
    """

    dimensions = 2


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(LocallyConnected)
class LocallyConnected3D(LocallyConnected):
    """A locally connected layer over 3 axes, such as those of volumes or videos.

    Example:
        >>> layer = LocallyConnected3D(6, 2, padding="same")
        >>> tuple(layer(ops.ones((2, 5, 4, 3, 2))).shape)
        (2, 5, 4, 3, 6)
    """

    dimensions = 3
