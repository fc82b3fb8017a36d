"""Images moved, scaled, sheared and turned as a network that looks at them decides."""

import json
import math
from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.inspection.operation_rules import operations
from low_rank_local_connectivity.layers.arguments import arguments_of, layer_of
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.ops.affine_sampling import OUTSIDE, sample_affine
from low_rank_local_connectivity.ops.arguments import (
    boolean,
    one_of,
    one_of_any_case,
    per_axis,
    tensor,
)
from low_rank_local_connectivity.ops.operation_counts import SAMPLE, numbers
from low_rank_local_connectivity.ops.precision import at_least_float32, matmul


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class SpatialTransformer2D(ConfiguredLayer):
    """Moves, scales, shears and turns each image as a network that looks at it decides.

    `outputs[b, i, j] = inputs[b](y, x)` with `(x, y) = A[b] (x_j, y_i, 1)`

    where `A`, 2 by 3, is what a dense layer of 6 outputs makes of the features that
    `localization` finds in the image, and `inputs(.)` is bilinear interpolation. The dense layer
    starts with no weights and the biases of the identity, so that the layer starts by passing
    images on. A homography has two numbers more, `g` and `h`, and divides by
    `z = g x_j + h y_i + 1`.

    Coordinates go from -1 to 1, from the first to the last column and row: `x` to the right, `y`
    down, as in the reference and in PyTorch's `affine_grid`.

    Args:
        localization: Layer or model from images, in this layer's data format, to features: one
            vector for each image, or maps, which are flattened. Or its serialized configuration.
        output_size: Rows and columns of the outputs, an integer or a tuple of 2; those of the
            inputs if None.
        align_corners: Whether -1 and 1 are the centres of the outermost pixels, as in the
            reference's code; if not, their outer edges.
        transformation: `"affine"`, or `"homography"`: images are also tilted, as planes are that
            a camera sees. Where `z` is less than 1e-6 that is taken.
        padding: What is read outside of an image, by PyTorch's names: `"zeros"`, the pixel at the
            `"border"` that is next, or its `"reflection"` in -1 and 1.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.

    Weights, in this order:
        kernel: `(features, 6)`, or `(features, 8)` for a homography.
        bias: `(6,)`, the rows of `A`, one after another; or `(8,)`, with `g` and `h` behind them.
            Those of `localization` follow.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; any size that
        `localization` takes.

    Output:
        The same with the rows and columns of `output_size`.

    Raises:
        ValueError: If `localization` is no layer or finds features of unknown number.

    Example:
        >>> network = keras.Sequential([
        ...     keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ... ])
        >>> layer = SpatialTransformer2D(network)
        >>> images = keras.random.normal((2, 12, 13, 3), seed=1)
        >>> bool(ops.all(ops.isclose(layer(images), images, atol=1e-6)))
        True

    Reference:
        Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial Transformer Networks", NIPS 2015,
        https://arxiv.org/abs/1506.02025.
    """

    def __init__(
        self,
        localization: Any,
        output_size: int | tuple[int, int] | None = None,
        align_corners: bool = True,
        data_format: str | None = None,
        *,
        transformation: Literal["affine", "homography"] = "affine",
        padding: Literal["zeros", "border", "reflection"] = "zeros",
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.localization: Any = layer_of(
            "localization", localization, "a layer or model from images to features"
        )
        self.output_size = None if output_size is None else per_axis("output_size", output_size, 2)
        self.align_corners = boolean("align_corners", align_corners)
        self.data_format = standardize_data_format(data_format)
        self.transformation = one_of("transformation", transformation, ("affine", "homography"))
        self.padding = one_of_any_case("padding", padding, OUTSIDE)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    ARGUMENTS = arguments_of(__init__)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain values."""
        network = keras.saving.serialize_keras_object(self.localization)
        # As it is once it was stored, so that a loaded layer has the same configuration.
        return {**super().get_config(), "localization": json.loads(json.dumps(network))}

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape, and those of the localization network."""
        _, channels = split_shape(input_shape, self.data_format, 2)
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={axis: channels})
        shape = tuple(input_shape)
        if not self.localization.built:
            self.localization.build(shape)
        features = self._features(shape)
        if None in features:
            raise ValueError(
                f"The localization network of layer {self.name!r} must find a known number of "
                f"features. Received: features of shape {(None, *features)} for "
                f"input_shape={shape}. Let it end in a global pooling, or give the input a static "
                "size."
            )
        # In at least float32, as coordinates must be: half a pixel of 1000 is less than what
        # half precision tells apart.
        found = 6 if self.transformation == "affine" else 8
        self.kernel = self.add_weight(
            shape=(math.prod(features), found), initializer="zeros", name="kernel", autocast=False
        )
        self.bias = self.add_weight(
            shape=(found,), initializer=_identity, name="bias", autocast=False
        )

    def _features(self, input_shape: tuple) -> Any:
        try:
            return tuple(self.localization.compute_output_shape(input_shape))[1:]
        except NotImplementedError as error:
            raise ValueError(
                f"`localization` must say what shape it returns. Received: localization="
                f"{self.localization}. Make it functional, keras.Model(inputs, outputs), or give "
                "it compute_output_shape(input_shape)."
            ) from error

    def _check_features(self, features: Any, input_shape: tuple) -> None:
        """Refuses inputs in which the network finds another number of features than weights."""
        if None not in features and math.prod(features) != self.kernel.shape[0]:
            raise ValueError(
                f"Layer {self.name!r} has weights for the {self.kernel.shape[0]} features that its "
                "localization network found in inputs of the size that it was built for. Received: "
                f"inputs of shape {input_shape}, in which it finds {math.prod(features)}. Resize "
                "the inputs, or let the network end in a global pooling."
            )

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape with the rows and columns of `output_size`."""
        sizes, channels = split_shape(input_shape, self.data_format, 2)
        if self.built:
            self._check_features(self._features(tuple(input_shape)), tuple(input_shape))
        return join_shape(input_shape[0], self.output_size or sizes, channels, self.data_format)

    def transformations(self, inputs):
        """Returns the map of each image, from outputs to where they read.

        Args:
            inputs: The layer's inputs.

        Returns:
            Tensor `(batch, 2, 3)`, in at least float32, that maps `(x, y, 1)` to `(x, y)`; or
            `(batch, 3, 3)`, that maps it to `(z x, z y, z)`.

        Raises:
            ValueError: If the layer is not built, or `inputs` are no batch of images.

        Example:
            >>> layer = SpatialTransformer2D(keras.layers.GlobalAveragePooling2D())
            >>> layer.build((None, 8, 9, 3))
            >>> ops.convert_to_numpy(layer.transformations(ops.ones((1, 8, 9, 3)))).tolist()
            [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
        """
        self.require_built("transformations")
        images = ops.convert_to_tensor(tensor("inputs", inputs, "bhwc"))
        features = self.localization(self.to_compute_dtype(images))
        self._check_features(tuple(features.shape[1:]), tuple(images.shape))
        dtype = at_least_float32(features)
        kernel, bias = (ops.cast(weight, dtype) for weight in (self.kernel, self.bias))
        features = ops.reshape(ops.cast(features, dtype), (-1, kernel.shape[0]))
        found = matmul(features, kernel) + bias
        if self.transformation == "affine":
            return ops.reshape(found, (-1, 2, 3))
        # `A` is known up to a factor.
        found = ops.concatenate([found, ops.ones_like(found[:, :1])], axis=-1)
        return ops.reshape(found, (-1, 3, 3))

    # Images may be read anywhere.
    windows = None

    def operations(self, input_shape: Any) -> int:
        """Counts the localization network, the transform and where it leads, and the sampling."""
        self.require_built("operations")
        features, entries = self.kernel.shape
        shape = self.compute_output_shape(input_shape)
        outputs, (sizes, _) = numbers(shape), split_shape(shape, self.data_format, 2)
        found = operations(self.localization, input_shape) + (2 * features + 1) * entries
        return found + 2 * entries * math.prod(sizes) + SAMPLE * outputs

    def call(self, inputs):
        """Asks the localization network where to read each image, and reads."""
        images = to_channels_last(inputs, self.data_format)
        outputs = sample_affine(
            images,
            self.transformations(inputs),
            self.output_size,
            self.align_corners,
            self.padding,
        )
        return from_channels_last(outputs, self.data_format)


def _identity(shape, dtype=None):
    entries = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    return ops.convert_to_tensor(entries[: shape[0]], dtype=dtype)
