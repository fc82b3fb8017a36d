"""Named ways to make one layer of a network that convolves in one, two or three dimensions.

A network asks for its layers by calling a `Convolution`, and does not know which kind it gets.
Adding a kind is adding an entry to `CONVOLUTIONS`. Layers are imported where they are made, so
that the command line can list the names without loading a framework.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Site:
    """The place of a layer in a channels-last network, and what is required of it there.

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
        in_size: Rows and columns of the input, or its size along its one or three spatial axes;
            None where unknown.
        parameters_after_per_channel: Parameters that each output channel adds after this layer:
            two of batch normalisation, and the weights that read the channel. With it the width
            of a wide convolution matches the parameters of a low-rank layer here exactly, up to
            rounding; if None, the paper's formula is used.
        fixed_width: Whether the network fixes the number of output channels, as it does where a
            shortcut is added: a wide convolution is then no wider than a plain one.
        makes_up_for: A site of fixed width whose layer is of the same kind and reads this one:
            a wide convolution here is also given the parameters that are missing there.
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
    in_size: tuple[int | None, ...] | None = None
    parameters_after_per_channel: int | None = None
    fixed_width: bool = False
    makes_up_for: "Site | None" = None

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments that every kind of layer takes."""
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
    def dimensions(self) -> int:
        """How many spatial axes there are; two if `in_size` is not given."""
        return 2 if self.in_size is None else len(self.in_size)

    @property
    def parameters_per_filter(self) -> int:
        """Parameters of one filter of a plain convolution here, its bias included."""
        return self.kernel_size**self.dimensions * self.in_channels + (not self.normalized)

    def known_in_size(self) -> tuple[int, ...]:
        """Returns `in_size`.

        Raises:
            ValueError: If it is not known.
        """
        known = tuple(size for size in self.in_size or () if size is not None)
        if not known or len(known) < self.dimensions:
            raise ValueError(
                "The parameters of a low-rank layer depend on its number of rows and columns, so "
                f"`in_size` must be known. Received: in_size={self.in_size} at site "
                f"{self.name!r}. Give the network an image of static size."
            )
        return known

    def out_size(self) -> tuple[int, ...]:
        """Returns the number of positions along each axis: of rows and columns in an image.

        Raises:
            ValueError: If `in_size` is not known.

        Example:
            >>> Site(8, 3, in_channels=1, strides=2, padding="same", in_size=(7, 10)).out_size()
            (4, 5)
        """
        lost = self.kernel_size - 1 if self.padding == "valid" else 0
        return tuple(-(-(size - lost) // self.strides) for size in self.known_in_size())


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the layers that are not plain convolutions.

    Args:
        spatial_rank: Number of filter banks, `K`; for a wide convolution, the rank whose
            parameters it matches. Where the site says what follows the layer, the other settings
            determine the low-rank layer to match.
        normalize_weights: `"softmax"`, `"norm"` or None.
        combining_weights_initializer: `"conv_init"` or the name of an initializer.
        share_row_combining_weights: Whether a row's columns share logits of their own.
        share_col_combining_weights: Likewise for columns. In one or three dimensions both or
            neither: either each axis has logits of its own, or each position.
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


# Makes the layer for a site; returns a keras.Layer.
Convolution = Callable[[Site], Any]


def wide_filters(filters: int, in_channels: int, spatial_rank: int, last: bool) -> int:
    """Returns the width at which a convolution has about the parameters of a low-rank layer.

    `int((K c + f) / (c + f) * f)`: widening a layer also widens the input of the next one, so the
    factor is below `K`; the last layer, which no other follows, has `K f` filters.

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
    under softmax a layer of rank 1 has no logits.

    Args:
        settings: Rank, sharing and biases of the layer.
        site: Where it stands.

    Returns:
        Number of trainable parameters, batch normalisation not included.

    Raises:
        ValueError: If the count depends on the positions and the site's `in_size` is unknown.

    Example:
        >>> site = Site(64, 3, in_channels=64, in_size=(24, 24))
        >>> low_rank_parameters(Settings(spatial_rank=4), site)
        147676
    """
    rank = settings.spatial_rank
    total = rank * site.kernel_size**site.dimensions * site.in_channels * site.filters
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
    """Returns how many numbers give a value to each position, shared as the settings say."""
    sizes = site.out_size()
    axes = additive_axes(settings, site.dimensions)
    return sum(sizes[axis] for axis in axes) if axes else math.prod(sizes)


def additive_axes(settings: Settings, dimensions: int) -> tuple[int, ...]:
    """Returns the axes along which a low-rank layer has logits of their own, which are summed.

    Args:
        settings: What is shared.
        dimensions: How many spatial axes there are.

    Raises:
        ValueError: If rows and columns are told apart where there are none.

    Example:
        >>> additive_axes(Settings(share_col_combining_weights=False), dimensions=2)
        (0,)
        >>> additive_axes(Settings(), dimensions=3)
        (0, 1, 2)
    """
    shared = settings.share_row_combining_weights, settings.share_col_combining_weights
    if settings.input_dependent or not any(shared):
        return ()
    if dimensions == 2:
        return tuple(axis for axis in range(2) if shared[axis])
    if not all(shared):
        raise ValueError(
            "Rows and columns are the axes of images, so share_row_combining_weights and "
            "share_col_combining_weights must be the same for signals and volumes. Received: "
            f"{shared[0]} and {shared[1]} for {dimensions} dimensions."
        )
    return tuple(range(dimensions))


def weights_network_parameters(rank: int, channels: int, in_size: tuple[int, ...]) -> int:
    """Returns how many parameters the network has that predicts a layer's combining weights.

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
    return (channels + 1) * rank + kept * (3 ** len(in_size) + 1) * rank + aggregation


def matching_width(settings: Settings, site: Site) -> int:
    """Returns the width at which a plain convolution costs what a low-rank layer would.

    With `s` parameters per filter of the convolution and `a` more per channel in what follows, a
    convolution of width `w` costs `w (s + a)` and the low-rank layer `low_rank_parameters + f a`;
    `w` is the whole number that makes them most nearly equal. If this site makes up for another,
    the parameters that a low-rank layer there has beyond a convolution's are added.

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

    The penalty is `weight_decay / 2 * sum(kernel ** 2)` and its gradient `weight_decay * kernel`:
    what optimizers with plain weight decay add, which is what ImageNet recipes mean by it.

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


def _conv(settings: Settings, site: Site):
    del settings
    from keras import layers

    kind = getattr(layers, f"Conv{site.dimensions}D")
    return kind(**site.arguments(), use_bias=not site.normalized)


def _wide_conv(settings: Settings, site: Site):
    if site.fixed_width:
        return _conv(settings, site)
    if site.parameters_after_per_channel is None:
        width = wide_filters(site.filters, site.in_channels, settings.spatial_rank, site.last)
    else:
        width = matching_width(settings, site)
    return _conv(settings, dataclasses.replace(site, filters=width))


def _coord_conv2d(settings: Settings, site: Site):
    del settings
    from low_rank_local_connectivity import layers

    return layers.CoordConv2D(**site.arguments(), use_bias=not site.normalized)


def _full_conv(settings: Settings, site: Site):
    del settings
    from low_rank_local_connectivity import layers

    arguments = site.arguments()
    if arguments.pop("padding") == "same":
        raise ValueError(
            "A full convolution makes its input larger, so a network that adds a shortcut to it "
            f"must allow for that. Received: full_conv{site.dimensions}d at site {site.name!r}. "
            "Build a full ResNet."
        )
    kind = getattr(layers, f"FullConv{site.dimensions}D")
    return kind(**arguments, use_bias=not site.normalized)


def _deformable_conv2d(settings: Settings, site: Site, modulated: bool = True):
    del settings
    from low_rank_local_connectivity import layers

    return layers.DeformableConv2D(
        **site.arguments(), use_bias=not site.normalized, modulated=modulated
    )


def _deformable_conv2d_v1(settings: Settings, site: Site):
    return _deformable_conv2d(settings, site, modulated=False)


def _locally_connected(settings: Settings, site: Site):
    from low_rank_local_connectivity import layers

    # Its bias has a value per position, which no normalisation makes redundant.
    kind = getattr(layers, f"LocallyConnected{site.dimensions}D")
    return kind(**site.arguments(), fan=settings.locally_connected_fan)


def _low_rank_locally_connected(settings: Settings, site: Site):
    from low_rank_local_connectivity import layers

    kind = getattr(layers, f"LowRankLocallyConnected{site.dimensions}D")
    return kind(
        **site.arguments(),
        spatial_rank=settings.spatial_rank,
        use_bias=not site.normalized,
        normalize_weights=settings.normalize_weights,
        combining_weights_initializer=settings.combining_weights_initializer,
        use_spatial_bias=settings.use_spatial_bias,
        input_dependent=settings.input_dependent,
        additive_axes=additive_axes(settings, site.dimensions),
    )


# Of the kinds of layers that there are in any dimension, what follows it in their names.
EVERYWHERE: dict[str, Callable[[Settings, Site], Any]] = {
    "conv": _conv,
    "wide_conv": _wide_conv,
    "full_conv": _full_conv,
    "locally_connected": _locally_connected,
    "low_rank_locally_connected": _low_rank_locally_connected,
}
# The kinds of layers in networks of images, by name.
CONVOLUTIONS: dict[str, Callable[[Settings, Site], Any]] = {
    "conv2d": _conv,
    "wide_conv2d": _wide_conv,
    "coord_conv2d": _coord_conv2d,
    "full_conv2d": _full_conv,
    "deformable_conv2d": _deformable_conv2d,
    "deformable_conv2d_v1": _deformable_conv2d_v1,
    "locally_connected2d": _locally_connected,
    "low_rank_locally_connected2d": _low_rank_locally_connected,
}
# The same for networks of signals, images and volumes.
BY_DIMENSIONS = {
    dimensions: CONVOLUTIONS
    if dimensions == 2
    else {f"{name}{dimensions}d": make for name, make in EVERYWHERE.items()}
    for dimensions in (1, 2, 3)
}


def in_dimensions(name: str, dimensions: int) -> str:
    """Returns the name of the same kind of layer in another dimension.

    Example:
        >>> in_dimensions("low_rank_locally_connected2d", 1)
        'low_rank_locally_connected1d'
    """
    return re.sub(r"[123]d\b", f"{dimensions}d", name)


def convolution(name: str, settings: Settings) -> Convolution:
    """Returns the named way to make a layer, with its settings bound.

    Args:
        name: A key of a table of `BY_DIMENSIONS`.
        settings: Settings of the layer.

    Returns:
        Function of a `Site` to a `keras.Layer`.

    Example:
        >>> make = convolution("conv2d", Settings())
        >>> make(Site(filters=8, kernel_size=3, in_channels=1)).filters
        8
    """
    (make,) = {table[name] for table in BY_DIMENSIONS.values() if name in table}
    return functools.partial(make, settings)
