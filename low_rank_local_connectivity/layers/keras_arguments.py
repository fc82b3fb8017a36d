"""What Keras's classes take by name, so that type checkers and editors know it of ours too."""

from typing import Any, TypedDict


class LayerArguments(TypedDict, total=False):
    """What every layer takes beside its own arguments."""

    name: str | None
    trainable: bool
    dtype: Any
    autocast: bool


class RegularizedLayerArguments(LayerArguments, total=False):
    """The same of a layer that leaves the regularizer of its outputs to Keras."""

    activity_regularizer: Any


class Conv2DArguments(RegularizedLayerArguments, total=False):
    """What `keras.layers.Conv2D` takes beside its filters and kernel size."""

    strides: int | tuple[int, ...]
    padding: Any
    data_format: str | None
    dilation_rate: int | tuple[int, ...]
    groups: int
    activation: Any
    use_bias: bool
    kernel_initializer: Any
    bias_initializer: Any
    kernel_regularizer: Any
    bias_regularizer: Any
    kernel_constraint: Any
    bias_constraint: Any


class Conv2DTransposeArguments(Conv2DArguments, total=False):
    """What `keras.layers.Conv2DTranspose` takes beside its filters and kernel size."""

    output_padding: int | tuple[int, ...] | None


class BatchNormalizationArguments(RegularizedLayerArguments, total=False):
    """What `keras.layers.BatchNormalization` takes beside its axis, momentum and epsilon."""

    center: bool
    scale: bool
    beta_initializer: Any
    gamma_initializer: Any
    moving_mean_initializer: Any
    moving_variance_initializer: Any
    beta_regularizer: Any
    gamma_regularizer: Any
    beta_constraint: Any
    gamma_constraint: Any
    renorm: bool
    renorm_clipping: Any
    renorm_momentum: float
    synchronized: bool
