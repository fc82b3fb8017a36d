"""Which layers stand for one another: by how many filters read how many channels."""

import dataclasses
from typing import Any

import keras

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.layers.base_local_conv_transpose import BaseLocalConvTranspose
from low_rank_local_connectivity.layers.local.depthwise import Depthwise
from low_rank_local_connectivity.layers.local.separable_low_rank import (
    SeparableLowRankLocallyConnected,
)

KINDS = ("initializer", "regularizer", "constraint")


@dataclasses.dataclass(frozen=True)
class Family:
    """Layers whose filters read channels in the same way, by their number of spatial axes.

    Args:
        filters: Names of the arguments that say how many filters there are.
        kernels: What their kernels are called in arguments; those with banks come first.
        convolutions: Keras's layers, whose filters all positions share.
        low_rank: Layers that mix banks.
        local: Layers with filters of their own at every position.
    """

    filters: tuple[str, ...]
    kernels: tuple[str, ...]
    convolutions: dict[int, Any]
    low_rank: dict[int, Any]
    local: dict[int, Any]

    @property
    def weight_arguments(self) -> tuple[str, ...]:
        """Names of the arguments about weights that convolutions and low-rank layers share."""
        names = (*self.kernels, "bias")
        return tuple(f"{name}_{kind}" for name in names for kind in KINDS[1:])


PLAIN = Family(
    ("filters", "groups"),
    ("kernel",),
    {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D},
    {
        1: layers.LowRankLocallyConnected1D,
        2: layers.LowRankLocallyConnected2D,
        3: layers.LowRankLocallyConnected3D,
    },
    {
        1: layers.LocallyConnected1D,
        2: layers.LocallyConnected2D,
        3: layers.LocallyConnected3D,
    },
)
DEPTHWISE = Family(
    ("depth_multiplier",),
    ("depthwise",),
    {1: keras.layers.DepthwiseConv1D, 2: keras.layers.DepthwiseConv2D},
    {
        1: layers.DepthwiseLowRankLocallyConnected1D,
        2: layers.DepthwiseLowRankLocallyConnected2D,
    },
    {1: layers.DepthwiseLocallyConnected1D, 2: layers.DepthwiseLocallyConnected2D},
)
# Of the local filters that depthwise and pointwise ones make together every one reads all channels.
SEPARABLE = Family(
    ("filters", "depth_multiplier"),
    ("depthwise", "pointwise"),
    {1: keras.layers.SeparableConv1D, 2: keras.layers.SeparableConv2D},
    {
        1: layers.SeparableLowRankLocallyConnected1D,
        2: layers.SeparableLowRankLocallyConnected2D,
    },
    {},
)
TRANSPOSED = Family(
    ("filters", "output_padding"),
    ("kernel",),
    {
        1: keras.layers.Conv1DTranspose,
        2: keras.layers.Conv2DTranspose,
        3: keras.layers.Conv3DTranspose,
    },
    {
        1: layers.LowRankLocallyConnected1DTranspose,
        2: layers.LowRankLocallyConnected2DTranspose,
        3: layers.LowRankLocallyConnected3DTranspose,
    },
    {
        1: layers.LocallyConnected1DTranspose,
        2: layers.LocallyConnected2DTranspose,
        3: layers.LocallyConnected3DTranspose,
    },
)
FAMILIES = (PLAIN, DEPTHWISE, SEPARABLE, TRANSPOSED)
# The low-rank layer that can start as a convolution of a class, which is that class itself.
RELAXED: dict[type, Any] = {
    family.convolutions[axes]: family.low_rank[axes]
    for family in FAMILIES
    for axes in family.convolutions
}


def family_of(layer: Any) -> Family:
    """Returns the family of a local layer, or of one of Keras's convolutions.

    Example:
        >>> family_of(layers.DepthwiseLocallyConnected2D(3)).filters
        ('depth_multiplier',)
    """
    for family in FAMILIES:
        if type(layer) in family.convolutions.values():
            return family
    if isinstance(layer, SeparableLowRankLocallyConnected):
        return SEPARABLE
    if isinstance(layer, BaseLocalConvTranspose):
        return TRANSPOSED
    return DEPTHWISE if isinstance(layer, Depthwise) else PLAIN


def channels_read(convolution: Any) -> int:
    """Returns the number of input channels of one of Keras's convolutions, which is built.

    Example:
        >>> layer = keras.layers.Conv2D(6, 3, groups=2)
        >>> layer.build((None, 8, 9, 4))
        >>> channels_read(layer)
        4
    """
    family = family_of(convolution)
    kernel = convolution.depthwise_kernel if family is SEPARABLE else convolution.kernel
    return kernel.shape[-1 if family is TRANSPOSED else -2] * getattr(convolution, "groups", 1)


def made_of_filters(layer: Any) -> tuple[Family, dict[str, Any]]:
    """Returns the family whose filters are a layer's `local_kernel()`, and how many there are."""
    family = family_of(layer)
    if family is SEPARABLE:
        return PLAIN, {"filters": layer.filters}
    return family, {name: getattr(layer, name) for name in family.filters}
