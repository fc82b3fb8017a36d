"""Between low-rank layers and locally connected ones."""

import numpy as np

from low_rank_local_connectivity.conversion import checks
from low_rank_local_connectivity.conversion.checks import (
    LOCAL,
    Local,
    LowRank,
    Stored,
    known_sizes,
    rank_in_range,
    require_layer,
)
from low_rank_local_connectivity.conversion.families import made_of_filters
from low_rank_local_connectivity.conversion.weights import (
    as_matrix,
    build_like,
    position_biases,
    shared_arguments,
    stored_weights,
    to_numpy,
)


def to_locally_connected(layer: LowRank) -> Stored:
    """Returns the locally connected layer that is equivalent to a low-rank one.

    `kernel[p] = sum_k w[p, k] * bank[k]` and `bias[p, f] = spatial_bias[p] + bias[f]`: the mixed
    filters are stored, so that inference only reads them. The banks of a mixed basis are placed in
    one box of taps. A depthwise layer becomes a depthwise one; of a separable layer every filter
    reads all channels, so that `convert`, which keeps the two steps apart, is better for serving.

    Args:
        layer: Built layer whose combining weights do not depend on the input. Regularizers and
            constraints of its weights have no counterpart and are dropped.

    Returns:
        Built layer of the same name, `trainable` flag and dtype policy, with
        `positions * taps * channels / groups * filters` parameters in its kernel.

    Raises:
        ValueError: If the layer is of another kind, is not built, depends on its inputs, or is
            built for inputs of unknown size.

    Example:
        >>> from low_rank_local_connectivity import layers
        >>> low_rank = layers.LowRankLocallyConnected2D(5, 3, spatial_rank=4)
        >>> low_rank.build((None, 8, 9, 2))
        >>> tuple(to_locally_connected(low_rank).kernel.shape)
        (42, 18, 5)
    """
    require_layer("to_locally_connected", layer, checks.LOW_RANK)
    sizes = known_sizes("to_locally_connected", layer)
    kernel = to_numpy(layer.local_kernel())
    window = kernel.shape[layer.dimensions : -2]
    bias = position_biases(layer)
    family, filters = made_of_filters(layer)
    found = family.local[layer.dimensions](
        **filters,
        **shared_arguments(layer),
        kernel_size=window,
        dilation_rate=1 if layer.mixed else layer.dilation_rate,
        use_bias=bias is not None,
    )
    build_like(found, layer, sizes, stored_weights(kernel, bias, layer.data_format))
    return found


def to_low_rank(layer: Local, spatial_rank: int) -> LowRank:
    """Returns the low-rank layer of a given rank that is nearest to a layer.

    The filters of all positions, a matrix `(positions, taps * channels * filters)`, are replaced by
    the first `spatial_rank` terms of their singular value decomposition, the best approximation of
    that rank in the least-squares sense. Its error is `truncation_error(layer, spatial_rank)`.

    Args:
        layer: Built locally connected layer, or low-rank one with fixed weights.
        spatial_rank: Number of banks, from 1 to the number of positions; if it is at least the
            rank of the matrix, the layer is reproduced exactly.

    Returns:
        Built layer of the same name, with `normalize_weights=None`, one logit per position and
        bank, and a bias for every position and filter if the layer has biases.

    Raises:
        ValueError: If the layer is of another kind, not built, or has weights that are not finite,
            or the rank is out of its range.

    Example:
        >>> from low_rank_local_connectivity import layers
        >>> local = layers.LocallyConnected2D(5, 3)
        >>> local.build((None, 8, 9, 2))
        >>> tuple(to_low_rank(local, 4).kernel_bases.shape)
        (3, 3, 2, 20)

    Reference:
        Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.
    """
    require_layer("to_low_rank", layer, LOCAL)
    sizes = known_sizes("to_low_rank", layer)
    rank = rank_in_range(layer, spatial_rank)
    kernel = to_numpy(layer.local_kernel())
    positions, window = kernel.shape[: layer.dimensions], kernel.shape[layer.dimensions : -2]
    mixed = getattr(layer, "mixed", False)
    left, values, right = np.linalg.svd(as_matrix(kernel, layer.dimensions), full_matrices=False)
    # Each side gets the square root of a singular value, so that both learn at the same pace.
    roots = np.zeros(rank)
    roots[: len(values)] = np.sqrt(values[:rank])
    weights = np.zeros((len(left), rank))
    weights[:, : len(values)] = left[:, :rank]
    banks = np.zeros((rank, right.shape[1]))
    banks[: len(values)] = right[:rank]
    bias = position_biases(layer)
    family, filters = made_of_filters(layer)
    found = family.low_rank[layer.dimensions](
        **filters,
        **shared_arguments(layer),
        kernel_size=window,
        spatial_rank=rank,
        dilation_rate=1 if mixed else layer.dilation_rate,
        additive_axes=(),
        normalize_weights=None,
        use_spatial_bias="per_filter" if bias is not None else False,
        use_bias=False,
    )
    stacked = (roots[:, None] * banks).reshape(rank, *kernel.shape[layer.dimensions :])
    merged = np.moveaxis(stacked, 0, -2).reshape(*kernel.shape[layer.dimensions : -1], -1)
    values_of_weights = [merged, (weights * roots).reshape(*positions, rank)]
    build_like(found, layer, sizes, values_of_weights + ([] if bias is None else [bias]))
    return found


def spatial_spectrum(layer: Local) -> np.ndarray:
    """Returns the singular values of the filters of all positions, largest first.

    How fast they fall shows how much spatial rank a layer really uses: a convolution has one that
    is not 0, a low-rank layer at most as many as its rank.

    Args:
        layer: Built locally connected layer, or low-rank one with fixed weights.

    Returns:
        Array of `min(positions, taps * channels * filters)` values, in float64.

    Raises:
        ValueError: If the layer is of another kind, not built, or has weights that are not finite.

    Example:
        >>> from low_rank_local_connectivity import layers
        >>> low_rank = layers.LowRankLocallyConnected1D(2, 3, spatial_rank=2)
        >>> low_rank.build((None, 8, 2))
        >>> int((spatial_spectrum(low_rank) > 1e-6).sum())  # fresh: every position has one mix
        1
    """
    require_layer("spatial_spectrum", layer, LOCAL)
    known_sizes("spatial_spectrum", layer)
    matrix = as_matrix(to_numpy(layer.local_kernel()), layer.dimensions)
    return np.linalg.svd(matrix, compute_uv=False)


def truncation_error(layer: Local, spatial_rank: int) -> float:
    """Returns the distance of a layer's filters from the nearest ones of a given rank.

    The Frobenius norm of the difference, `sqrt(sum(spatial_spectrum(layer)[K:] ** 2))`.

    Args:
        layer: Built locally connected layer, or low-rank one with fixed weights.
        spatial_rank: The rank `K`, from 1 to the number of positions.

    Raises:
        ValueError: As `to_low_rank`.

    Example:
        >>> from low_rank_local_connectivity import layers
        >>> low_rank = layers.LowRankLocallyConnected1D(2, 3, spatial_rank=2)
        >>> low_rank.build((None, 8, 2))
        >>> truncation_error(low_rank, 1) < 1e-6
        True
    """
    values = spatial_spectrum(layer)
    rank = rank_in_range(layer, spatial_rank)
    return float(np.sqrt(np.sum(values[rank:] ** 2)))
