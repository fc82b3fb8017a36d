"""From images to scale spaces."""

import math
from typing import Any, Literal, Unpack

import keras
import numpy as np
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.layers.scale.scale_action import (
    arrays_of,
    error_of_levels,
    inside,
    made_smaller,
    whole_base,
)
from low_rank_local_connectivity.layers.scale_levels import checked_base, join_levels, levels_of
from low_rank_local_connectivity.ops.arguments import (
    array,
    boolean,
    number_above,
    one_of,
    positive_int,
)
from low_rank_local_connectivity.ops.constants import constant, plain_number
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.ops.precision import at_least_float32
from low_rank_local_connectivity.ops.scale_space import (
    apply_to_rows_and_columns,
    bilinear_matrix,
    gaussian_matrix,
    level_factor,
    level_variances,
    reduced_length,
)

CONSTANTS = {make: constant(make) for make in (bilinear_matrix, gaussian_matrix)}


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class ScaleSpaceLifting2D(ConfiguredLayer):
    """Stacks an image and ever coarser versions of it: a scale space.

    `outputs[k] = G[t_k] * image`, `t_k = zero_scale^2 (base^(2 k) - 1)`, for `k` from 0,

    with the Gaussian `G` of the integers (`ops.discrete_gaussian`), zeros around the image. If the
    image has the smoothness of a Gaussian of standard deviation `zero_scale`, level `k` has that
    of `zero_scale * base^k`: the levels of an image that is subsampled by `base`, once smoothed by
    `t_1`, are those of the image, subsampled, one level on.

    `method="bilinear"` resizes instead: level `k` is interpolated at `floor(size / base^k)`
    positions, half of them apart at the borders.

    Args:
        num_scales: Number of levels, the image included.
        base: Factor from one level to the next, above 1. `ScaleConv2D` wants a whole number.
        zero_scale: Standard deviation, in pixels, of the smoothness that images already have;
            above 0. Half a pixel is about what sampling leaves. Without meaning for
            `method="bilinear"`.
        method: `"gaussian"` or `"bilinear"`.
        pyramid: False for levels of the image's size in one tensor, to be read with dilation;
            those of `method="bilinear"` are interpolated back. True for a list of levels as small
            as they are coarse, to be read without: of Gaussian levels every `base^k`th row and
            column, for which `base` must be whole. Convolutions of a pyramid compute what they
            would compute at these positions of the full size, for less than
            `base^2 / (base^2 - 1)` times an image's work instead of `num_scales` times.
        antialias: Whether `method="bilinear"` smooths by a triangle before it reduces.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; any size.

    Output:
        `(batch, num_scales, height, width, channels)`, or `(batch, channels, num_scales, height,
        width)`, on which Keras's 3D layers work as on three spatial axes; for a pyramid, a list
        of as many maps. In one tensor the time is mostly that of products with matrices of
        `height^2` and `width^2` elements.

    Raises:
        ValueError: If an argument is out of range, or an image too small for its coarsest level.

    Example:
        >>> tuple(ScaleSpaceLifting2D(4)(ops.ones((1, 16, 24, 3))).shape)
        (1, 4, 16, 24, 3)
        >>> pyramid = ScaleSpaceLifting2D(3, method="bilinear", pyramid=True)
        >>> [tuple(level.shape) for level in pyramid(ops.ones((1, 17, 24, 3)))]
        [(1, 17, 24, 3), (1, 8, 12, 3), (1, 4, 6, 3)]

    Reference:
        Worrall and Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019,
        https://arxiv.org/abs/1905.11697.
    """

    def __init__(
        self,
        num_scales: int,
        base: float = 2,
        zero_scale: float = 0.5,
        method: Literal["gaussian", "bilinear"] = "gaussian",
        pyramid: bool = False,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.num_scales = positive_int("num_scales", num_scales)
        self.base = checked_base(base)
        self.zero_scale = number_above("zero_scale", zero_scale, 0)
        self.method = one_of("method", method, ("gaussian", "bilinear"))
        self.pyramid = boolean("pyramid", pyramid)
        self.antialias = boolean("antialias", antialias)
        self.data_format = standardize_data_format(data_format)
        if self.antialias and self.method == "gaussian":
            raise ValueError(
                "`antialias` belongs to method='bilinear'; a Gaussian scale space is smooth "
                "already. Received: antialias=True with method='gaussian'. Leave it out."
            )
        if self.pyramid and self.method == "gaussian" and not isinstance(self.base, int):
            raise ValueError(
                "The levels of a Gaussian pyramid are every `base ** k`th row and column, so "
                f"`base` must be a whole number. Received: base={base!r} with method='gaussian' "
                "and pyramid=True. Use method='bilinear', or pyramid=False."
            )
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self._build_now(ScaleSpaceLifting2D)

    ARGUMENTS = arguments_of(__init__)

    def _level_lengths(self, level: int, sizes: Any) -> list[Any]:
        """Returns the lengths of a level of the pyramid, None where they are not known."""
        factor = level_factor(self.base, level)
        if self.method == "bilinear":
            return [reduced_length(length, factor) for length in sizes]
        return [None if length is None else -(-length // factor) for length in sizes]

    def build(self, input_shape: Any) -> None:
        """Checks that images of this shape are large enough; there are no weights."""
        self.compute_output_shape(input_shape)

    def _check_sizes(self, sizes: Any) -> None:
        """Refuses images that are too small for the coarsest level."""
        coarsest = self._level_lengths(self.num_scales - 1, sizes)
        if self.method == "bilinear" and 0 in coarsest:
            factor = level_factor(self.base, self.num_scales - 1)
            raise ValueError(
                f"The coarsest level of layer {self.name!r} is {factor} times smaller than the "
                f"images, which must be that large. Received: spatial input size {sizes} with "
                f"num_scales={self.num_scales} and base={self.base}. Use fewer scales."
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the scale space, of each level if it is a pyramid."""
        sizes, channels = split_shape(input_shape, self.data_format, 2)
        self._check_sizes(sizes)
        if not self.pyramid:
            sizes = (self.num_scales, *sizes)
            return join_shape(input_shape[0], sizes, channels, self.data_format)
        lengths = [self._level_lengths(level, sizes) for level in range(self.num_scales)]
        return [join_shape(input_shape[0], one, channels, self.data_format) for one in lengths]

    # A Gaussian reaches everywhere, and the levels of a pyramid are differently far apart.
    windows = None

    def operations(self, input_shape: Any) -> int:
        """Counts, for every level but the image, the products with a matrix along each axis."""
        (height, width), channels = split_shape(input_shape, self.data_format, 2)
        numbers((None, height, width))
        found = 0
        for level in range(1, self.num_scales):
            rows, columns = self._level_lengths(level, (height, width))
            if not self.pyramid:
                rows, columns = height, width
            found += rows * width * (height + columns)
        return 2 * channels * found

    def call(self, inputs):
        """Makes the levels, each from the image."""
        image = to_channels_last(inputs, self.data_format)
        self._check_sizes(tuple(image.shape[1:3]))
        levels = [image]
        for level in range(1, self.num_scales):
            lengths = map(plain_number, ops.shape(image)[1:3])
            dtype = at_least_float32(image)
            rows, columns = (self._matrix(level, length, dtype) for length in lengths)
            levels.append(apply_to_rows_and_columns(image, rows, columns))
        return join_levels(levels, self.data_format, self.pyramid)

    def _matrix(self, level: int, length: Any, dtype: str) -> Any:
        """Returns the matrix that makes an axis of a level from the image's."""
        factor = level_factor(self.base, level)
        if self.method == "bilinear":
            make: Any = bilinear_matrix
            settings: tuple = (factor, self.antialias, not self.pyramid, dtype)
        else:
            variance = level_variances(level + 1, self.base, self.zero_scale)[level]
            step = int(factor) if self.pyramid else 1
            make, settings = gaussian_matrix, (variance, step, dtype)
        if isinstance(length, int):
            return CONSTANTS[make](dtype, length, *settings)
        return make(length, *settings)

    def check_equivariance(self, inputs: Any) -> dict[str, float]:
        """Returns how far the levels of smaller images are from those of the images, one level on.

        `error[n] = ||T_n f(x) - f(T_n x)|| / ||T_n f(x)||`,

        where `T_n` subsamples images by `base^n` after smoothing them by `t_n`, and moves levels
        as `ScaleConv2D.check_equivariance` says. Levels that `f(x)` does not have do not count,
        nor positions within three standard deviations of a level's smoothing from the border. The
        smoother the images, the smaller the error: a Gaussian of the integers is not exactly one
        of every second integer.

        Args:
            inputs: Images.

        Returns:
            The error by the change of scale, such as `"subsampling by 4"`.

        Raises:
            ValueError: If the method is not `"gaussian"`, `base` is not whole, or images are too
                small for a position to count.

        Example:
            >>> rows, columns = np.mgrid[:48, :64] / 8
            >>> images = np.sin(rows + np.cos(columns))[None, :, :, None]
            >>> errors = ScaleSpaceLifting2D(3).check_equivariance(images)
            >>> list(errors), max(errors.values()) < 0.01
            (['subsampling by 2', 'subsampling by 4'], True)
        """
        whole_base(self)
        if self.method != "gaussian":
            raise ValueError(
                "check_equivariance() smooths images as method='gaussian' does. Received: layer "
                f"{self.name!r} with method={self.method!r}."
            )
        given = ops.convert_to_tensor(array("inputs", inputs, "bhwc"))
        images = to_channels_last(ops.cast(given, "float32"), self.data_format)
        images = np.asarray(ops.convert_to_numpy(images))
        levels = self._levels_of(images)
        return {
            f"subsampling by {self.base**steps}": self._error(images, levels, steps)
            for steps in range(1, self.num_scales)
        }

    def _levels_of(self, images: np.ndarray) -> list[np.ndarray]:
        given = from_channels_last(ops.convert_to_tensor(images), self.data_format)
        return arrays_of(levels_of(self(given), self.data_format))

    def _error(self, images: np.ndarray, levels: list[np.ndarray], steps: int) -> float:
        """Returns the error under subsampling by `steps` levels."""
        variances = level_variances(self.num_scales, self.base, self.zero_scale)
        factor = int(self.base**steps)
        found = self._levels_of(made_smaller(images, variances[steps], factor))[:-steps]
        apart = 1 if self.pyramid else factor
        expected = [level[:, ::apart, ::apart] for level in levels[steps:]]
        distances = [factor * (self.base**k if self.pyramid else 1) for k in range(len(found))]
        margins = [
            math.ceil(3 * math.sqrt(variance) / distance)
            for variance, distance in zip(variances[steps:], distances, strict=True)
        ]
        return error_of_levels(inside(found, margins), inside(expected, margins))
