"""What Kronecker layers refuse, in words."""

from typing import Any

import keras
import numpy as np
from keras import ops

from low_rank_local_connectivity.inspection.graph import not_built
from low_rank_local_connectivity.ops.kronecker import Factors


def require_product(factors: Factors, kernel_size: tuple[int, ...], filters: int) -> None:
    """Refuses factors that do not multiply to the kernel."""
    (h1, w1, _, o1), (h2, w2, _, o2) = factors
    if (h1 * h2, w1 * w2, o1 * o2) != (*kernel_size, filters):
        raise ValueError(
            "The rows, columns and filters of `factors` must multiply to those of the kernel. "
            f"Received: factors={factors}, which multiply to kernel_size={(h1 * h2, w1 * w2)} and "
            f"filters={o1 * o2}, with kernel_size={kernel_size} and filters={filters}."
        )


def kernel_to_factorize(function: str, conv: Any, factors: Factors) -> np.ndarray:
    """Returns a convolution's kernel in float64, if it can be a sum of such Kronecker products."""
    # A subclass, such as a transposed or a depthwise convolution, computes something else.
    if type(conv) is not keras.layers.Conv2D or conv.groups != 1 or conv.dilation_rate != (1, 1):
        names = ("groups", "dilation_rate")
        found = [f"{name}={getattr(conv, name)}" for name in names if hasattr(conv, name)]
        raise ValueError(
            f"{function}() takes a Conv2D with groups=1 and dilation_rate=1. Received: "
            f"{' with '.join([type(conv).__name__, *([' and '.join(found)] if found else [])])}."
        )
    if not conv.built:
        raise ValueError(not_built(function, conv))
    kernel = np.array(ops.convert_to_numpy(conv.kernel), "float64")
    if not np.isfinite(kernel).all():
        raise ValueError(
            f"{function}() needs finite weights. Received: layer {conv.name!r}, whose kernel holds "
            "NaN or infinity. Take an earlier checkpoint."
        )
    whole = tuple(one * other for one, other in zip(*factors, strict=True))
    if whole != kernel.shape:
        raise ValueError(
            f"`factors` must multiply to the kernel of layer {conv.name!r}, axis by axis. "
            f"Received: factors={factors}, which multiply to {whole}, for a kernel of shape "
            f"{kernel.shape}."
        )
    return kernel
