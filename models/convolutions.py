"""Named ways to make one layer of a network that convolves in two dimensions.

A network asks for its layers by calling a `Convolution`, and does not know which kind it gets.
Adding a kind is adding an entry to `CONVOLUTIONS`. Layers are imported where they are made, so
that the command line can list the names without loading a framework.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Site:
    """Where in a network a layer stands, and what the network wants of it.

    Args:
        filters: Number of output channels of a plain convolution here.
        kernel_size: Taps per axis.
        in_channels: Number of input channels.
        last: Whether this is the network's last such layer.
        normalized: Whether batch normalisation follows, which makes a bias per filter redundant.
        strides: Step between windows per axis.
        padding: `"valid"` or `"same"`.
        kernel_initializer: Initializer of the kernel.
        name: Name of the layer.
    """

    filters: int
    kernel_size: int
    in_channels: int
    last: bool = False
    normalized: bool = True
    strides: int = 1
    padding: str = "valid"
    kernel_initializer: str = "he_uniform"
    name: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Returns what every kind of layer takes."""
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "kernel_initializer": self.kernel_initializer,
            "name": self.name,
        }


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be chosen about the layers that are not plain convolutions.

    Args:
        spatial_rank: Number of filter banks, `K`; of a wide convolution, the rank whose
            parameters it matches.
        normalize_weights: `"softmax"`, `"norm"` or None.
        combining_weights_initializer: `"conv_init"` or the name of an initializer.
        share_row_combining_weights: Whether a row's columns share logits of their own.
        share_col_combining_weights: Likewise for columns.
        input_dependent: Whether combining weights depend on the input.
        use_spatial_bias: Whether a low-rank locally connected layer has a spatial bias.
        locally_connected_fan: `fan` of locally connected layers.
    """

    spatial_rank: int = 4
    normalize_weights: Literal["softmax", "norm"] | None = "softmax"
    combining_weights_initializer: str = "conv_init"
    share_row_combining_weights: bool = True
    share_col_combining_weights: bool = True
    input_dependent: bool = False
    use_spatial_bias: bool = True
    locally_connected_fan: Literal["position", "kernel"] = "position"


# Makes the layer for a site; what it returns is a keras.Layer.
Convolution = Callable[[Site], Any]


def wide_filters(filters: int, in_channels: int, spatial_rank: int, last: bool) -> int:
    """Returns the width at which a convolution has about the parameters of a low-rank layer.

    `int((K c + f) / (c + f) * f)`: widening a layer by a factor widens the next one's input too,
    so the factor is below `K`; the last layer, followed by none, takes `K f`.

    Args:
        filters: Filters of the low-rank layer, `f`.
        in_channels: Input channels, `c`.
        spatial_rank: Rank to match, `K`.
        last: Whether no convolution follows.

    Returns:
        Number of filters.

    Example:
        >>> wide_filters(64, 64, 4, last=False), wide_filters(64, 64, 4, last=True)
        (160, 256)

    Reference:
        Elsayed et al., ICML 2020, section 4.1 and the released model's layers.
    """
    if last:
        return spatial_rank * filters
    return int((spatial_rank * in_channels + filters) / (in_channels + filters) * filters)


def _conv2d(settings: Settings, site: Site):
    del settings
    from keras import layers

    return layers.Conv2D(**site.arguments(), use_bias=not site.normalized)


def _wide_conv2d(settings: Settings, site: Site):
    filters = wide_filters(site.filters, site.in_channels, settings.spatial_rank, site.last)
    return _conv2d(settings, dataclasses.replace(site, filters=filters))


def _coord_conv2d(settings: Settings, site: Site):
    del settings
    from low_rank_local_connectivity import layers

    return layers.CoordConv2D(**site.arguments(), use_bias=not site.normalized)


def _locally_connected2d(settings: Settings, site: Site):
    from low_rank_local_connectivity import layers

    # Its bias has a value per position, which no normalisation makes redundant.
    return layers.LocallyConnected2D(**site.arguments(), fan=settings.locally_connected_fan)


def _low_rank_locally_connected2d(settings: Settings, site: Site):
    from low_rank_local_connectivity import layers

    shares = {
        "share_row_combining_weights": settings.share_row_combining_weights,
        "share_col_combining_weights": settings.share_col_combining_weights,
    }
    return layers.LowRankLocallyConnected2D(
        **site.arguments(),
        spatial_rank=settings.spatial_rank,
        use_bias=not site.normalized,
        normalize_weights=settings.normalize_weights,
        combining_weights_initializer=settings.combining_weights_initializer,
        use_spatial_bias=settings.use_spatial_bias,
        input_dependent=settings.input_dependent,
        **({} if settings.input_dependent else shares),
    )


CONVOLUTIONS: dict[str, Callable[[Settings, Site], Any]] = {
    "conv2d": _conv2d,
    "wide_conv2d": _wide_conv2d,
    "coord_conv2d": _coord_conv2d,
    "locally_connected2d": _locally_connected2d,
    "low_rank_locally_connected2d": _low_rank_locally_connected2d,
}


def convolution(name: str, settings: Settings) -> Convolution:
    """Returns the named way to make a layer, with its settings bound.

    Args:
        name: A key of `CONVOLUTIONS`.
        settings: What the kind of layer may need.

    Returns:
        Function of a `Site` to a `keras.Layer`.

    Example:
        >>> make = convolution("conv2d", Settings())
        >>> make(Site(filters=8, kernel_size=3, in_channels=1)).filters
        8
    """
    return functools.partial(CONVOLUTIONS[name], settings)
