"""Named ways to make one layer of a network that convolves in two dimensions.

A network asks for its layers by calling a `Convolution`, and does not know which kind it gets.
Adding a kind is adding an entry to `CONVOLUTIONS`. Layers are imported where they are made, so
that the command line can list the names without loading a framework.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Site:
    """Where in a network of channels-last images a layer stands, and what the network wants of it.

    Args:
        filters: Number of output channels of a plain convolution here.
        kernel_size: Taps per axis.
        in_channels: Number of input channels.
        last: Whether this is the network's last such layer.
        normalized: Whether batch normalisation follows, which makes a bias per filter redundant.
        strides: Step between windows per axis.
        padding: `"valid"` or `"same"`.
        kernel_initializer: Initializer of the kernel.
        kernel_regularizer: Regularizer of the kernel; of a low-rank layer, of its banks.
        name: Name of the layer.
        in_size: Rows and columns of the input, None where unknown.
        parameters_after_per_channel: Parameters that each output channel costs behind this
            layer: batch normalisation's two, and the weights that read the channel. A wide
            convolution then matches the parameters of a low-rank layer here exactly, up to
            rounding; if None, by the paper's formula.
        fixed_width: Whether the number of output channels is the network's, as where a shortcut
            is added: a wide convolution is as wide as a plain one here.
        makes_up_for: A site of fixed width whose layer is of the same kind and reads this one:
            a wide convolution here has that layer's additional parameters too.
    """

    filters: int
    kernel_size: int
    in_channels: int
    last: bool = False
    normalized: bool = True
    strides: int = 1
    padding: str = "valid"
    kernel_initializer: str = "he_uniform"
    kernel_regularizer: Any = None
    name: str | None = None
    in_size: tuple[int | None, int | None] | None = None
    parameters_after_per_channel: int | None = None
    fixed_width: bool = False
    makes_up_for: "Site | None" = None

    def arguments(self) -> dict[str, Any]:
        """Returns what every kind of layer takes."""
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": "channels_last",
            "kernel_initializer": self.kernel_initializer,
            "kernel_regularizer": self.kernel_regularizer,
            "name": self.name,
        }

    @property
    def parameters_per_filter(self) -> int:
        """Parameters of one filter of a plain convolution here, its bias included."""
        return self.kernel_size**2 * self.in_channels + (not self.normalized)

    def known_in_size(self) -> tuple[int, int]:
        """Returns `in_size`.

        Raises:
            ValueError: If it is not known.
        """
        rows, columns = self.in_size or (None, None)
        if rows is None or columns is None:
            raise ValueError(
                "The parameters of a low-rank layer depend on its number of rows and columns, so "
                f"`in_size` must be known. Received: in_size={self.in_size} at site "
                f"{self.name!r}. Give the network an image of static size."
            )
        return rows, columns

    def out_size(self) -> tuple[int, int]:
        """Returns the number of rows and columns of positions.

        Raises:
            ValueError: If `in_size` is not known.

        Example:
            >>> Site(8, 3, in_channels=1, strides=2, padding="same", in_size=(7, 10)).out_size()
            (4, 5)
        """
        lost = self.kernel_size - 1 if self.padding == "valid" else 0
        rows, columns = self.known_in_size()
        return -(-(rows - lost) // self.strides), -(-(columns - lost) // self.strides)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be chosen about the layers that are not plain convolutions.

    Args:
        spatial_rank: Number of filter banks, `K`; of a wide convolution, the rank whose
            parameters it matches. Where the network says what follows, the other settings say
            which layer it matches.
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


def low_rank_parameters(settings: Settings, site: Site) -> int:
    """Returns how many parameters the low-rank locally connected layer of a site has.

    `K (k^2 c f) + logits + spatial bias + bias`, with `oh x ow` positions: for each of `oh` rows,
    `ow` columns (where they share) or `oh ow` positions (where nothing is shared) `K` logits and
    one value of spatial bias. Input-dependent logits are counted by `weights_network_parameters`;
    the softmax of a single logit has none at all.

    Args:
        settings: Rank, sharing and biases of the layer.
        site: Where it stands.

    Returns:
        Number of trainable parameters, batch normalisation not included.

    Raises:
        ValueError: If positions count and the site's `in_size` is not known.

    Example:
        >>> site = Site(64, 3, in_channels=64, in_size=(24, 24))
        >>> low_rank_parameters(Settings(spatial_rank=4), site)
        147676
    """
    rank = settings.spatial_rank
    total = rank * site.kernel_size**2 * site.in_channels * site.filters
    total += 0 if site.normalized else site.filters
    has_logits = rank > 1 or settings.normalize_weights != "softmax"
    if has_logits and settings.input_dependent:
        total += weights_network_parameters(rank, site.in_channels, site.known_in_size())
    elif has_logits:
        total += rank * _parameters_per_map(settings, site)
    if settings.use_spatial_bias:
        total += _parameters_per_map(settings, site)
    return total


def _parameters_per_map(settings: Settings, site: Site) -> int:
    """Returns how many numbers spell one value per position, shared as the settings say."""
    rows, columns = site.out_size()
    by_row = settings.share_row_combining_weights and not settings.input_dependent
    by_column = settings.share_col_combining_weights and not settings.input_dependent
    if not by_row and not by_column:
        return rows * columns
    return rows * by_row + columns * by_column


def weights_network_parameters(rank: int, channels: int, in_size: tuple[int, int]) -> int:
    """Returns how many parameters predict a layer's combining weights from its input.

    A 1x1 convolution from `c` to `K` channels; a depthwise 3x3 one for each dilation rate
    `r` of 1, 2, 4, 8 with `r <= (min(size) - 1) // 2`, say `n` of them; 1x1 ones from `(n + 2) K`
    to `3 K`, `6 K` and `K`; all biased.

    Args:
        rank: Number of filter banks, `K`.
        channels: Channels of the layer's input, `c`.
        in_size: Its rows and columns.

    Returns:
        Number of trainable parameters.

    Example:
        >>> weights_network_parameters(2, 64, (24, 24))
        398

    Reference:
        `low_rank_local_connectivity.InputDependentCombiningWeights`.
    """
    kept = sum(rate <= (min(in_size) - 1) // 2 for rate in (1, 2, 4, 8))
    widths = [(kept + 2) * rank, 3 * rank, 6 * rank, rank]
    aggregation = sum((read + 1) * made for read, made in itertools.pairwise(widths))
    return (channels + 1) * rank + kept * (3 * 3 + 1) * rank + aggregation


def matching_width(settings: Settings, site: Site) -> int:
    """Returns the width at which a plain convolution costs what a low-rank layer would.

    With `a` parameters behind each channel and `s` for each filter of the convolution itself, a
    width `w` costs `w (s + a)` in all, the low-rank layer `low_rank_parameters + f a`: `w` is the
    nearest to where they are equal. A site that this one makes up for adds what its low-rank
    layer has more than its convolution.

    Args:
        settings: What the low-rank layer would be.
        site: Where it would stand, with its `parameters_after_per_channel`.

    Returns:
        Number of filters, at least 1.

    Example:
        >>> place = {"in_channels": 512, "in_size": (7, 7), "padding": "same"}
        >>> site = Site(512, 3, **place, parameters_after_per_channel=2 + 4 * 512)
        >>> matching_width(Settings(spatial_rank=4), site)
        1575
    """
    after = site.parameters_after_per_channel or 0
    total = low_rank_parameters(settings, site) + site.filters * after
    if site.makes_up_for is not None:
        other = site.makes_up_for
        total += low_rank_parameters(settings, other) - other.filters * other.parameters_per_filter
    return max(round(total / (site.parameters_per_filter + after)), 1)


def kernel_decay(weight_decay: float):
    """Returns the regularizer that decays kernels.

    The penalty is `weight_decay / 2 * sum(kernel ** 2)`, its gradient `weight_decay * kernel`:
    what optimizers with plain weight decay add, as ImageNet recipes mean it.

    Args:
        weight_decay: The factor, at least 0.

    Returns:
        A `keras.regularizers.L2`, or None for 0.

    Raises:
        ValueError: If the factor is negative.

    Example:
        >>> kernel_decay(0.0) is None
        True
    """
    if weight_decay < 0:
        raise ValueError(
            f"`weight_decay` must be at least 0. Received: weight_decay={weight_decay}. Use 0 for "
            "none."
        )
    if weight_decay == 0:
        return None
    from keras import regularizers

    return regularizers.L2(weight_decay / 2)


def _conv2d(settings: Settings, site: Site):
    del settings
    from keras import layers

    return layers.Conv2D(**site.arguments(), use_bias=not site.normalized)


def _wide_conv2d(settings: Settings, site: Site):
    if site.fixed_width:
        return _conv2d(settings, site)
    if site.parameters_after_per_channel is None:
        width = wide_filters(site.filters, site.in_channels, settings.spatial_rank, site.last)
    else:
        width = matching_width(settings, site)
    return _conv2d(settings, dataclasses.replace(site, filters=width))


def _coord_conv2d(settings: Settings, site: Site):
    del settings
    from low_rank_local_connectivity import layers

    return layers.CoordConv2D(**site.arguments(), use_bias=not site.normalized)


def _full_conv2d(settings: Settings, site: Site):
    del settings
    from low_rank_local_connectivity import layers

    arguments = site.arguments()
    if arguments.pop("padding") == "same":
        raise ValueError(
            "A full convolution makes its input larger, which a network that adds a shortcut to "
            f"it must know. Received: full_conv2d at site {site.name!r}. Build a full ResNet."
        )
    return layers.FullConv2D(**arguments, use_bias=not site.normalized)


def _deformable_conv2d(settings: Settings, site: Site, modulated: bool = True):
    del settings
    from low_rank_local_connectivity import layers

    return layers.DeformableConv2D(
        **site.arguments(), use_bias=not site.normalized, modulated=modulated
    )


def _deformable_conv2d_v1(settings: Settings, site: Site):
    return _deformable_conv2d(settings, site, modulated=False)


def _locally_connected2d(settings: Settings, site: Site):
    from low_rank_local_connectivity import layers

    # Its bias has a value per position, which no normalisation makes redundant.
    return layers.LocallyConnected2D(**site.arguments(), fan=settings.locally_connected_fan)


def _low_rank_locally_connected2d(settings: Settings, site: Site):
    from low_rank_local_connectivity import layers

    predicted = settings.input_dependent
    return layers.LowRankLocallyConnected2D(
        **site.arguments(),
        spatial_rank=settings.spatial_rank,
        use_bias=not site.normalized,
        normalize_weights=settings.normalize_weights,
        combining_weights_initializer=settings.combining_weights_initializer,
        use_spatial_bias=settings.use_spatial_bias,
        input_dependent=predicted,
        share_row_combining_weights=None if predicted else settings.share_row_combining_weights,
        share_col_combining_weights=None if predicted else settings.share_col_combining_weights,
    )


CONVOLUTIONS: dict[str, Callable[[Settings, Site], Any]] = {
    "conv2d": _conv2d,
    "wide_conv2d": _wide_conv2d,
    "coord_conv2d": _coord_conv2d,
    "full_conv2d": _full_conv2d,
    "deformable_conv2d": _deformable_conv2d,
    "deformable_conv2d_v1": _deformable_conv2d_v1,
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
