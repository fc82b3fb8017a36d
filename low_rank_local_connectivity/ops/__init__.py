"""Pure functions of tensors: no layer, no state.

Integers and booleans are taken for floating-point numbers, of the data type of the tensors that
they meet, or of Keras's `floatx`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.ops.affine_sampling import sample_affine
from low_rank_local_connectivity.ops.bilinear_sampling import sample_bilinear
from low_rank_local_connectivity.ops.cascade import merge_cascade
from low_rank_local_connectivity.ops.combining_weights import normalize_logits, sum_over_axes
from low_rank_local_connectivity.ops.deform_conv import deform_conv2d
from low_rank_local_connectivity.ops.deformable_scale import (
    deformable_scale_correlation,
)
from low_rank_local_connectivity.ops.group_conv import expand_kernel, rotation_matrix
from low_rank_local_connectivity.ops.kronecker import (
    kronecker_convolution,
    kronecker_kernel,
    nearest_kronecker_factors,
    rearrange_kernel,
)
from low_rank_local_connectivity.ops.local_convolution import local_convolution
from low_rank_local_connectivity.ops.local_convolution_transpose import local_convolution_transpose
from low_rank_local_connectivity.ops.low_rank_local_convolution import (
    combine_banks,
    combine_then_convolve,
    convolve_then_combine,
    convolve_then_combine_mixed,
    embed_banks,
)
from low_rank_local_connectivity.ops.low_rank_local_convolution_transpose import (
    combine_then_spread,
    weigh_then_convolve,
)
from low_rank_local_connectivity.ops.resampling import resize_aligned
from low_rank_local_connectivity.ops.scale_space import (
    discrete_gaussian,
    level_variances,
    scale_correlation,
)
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows
from low_rank_local_connectivity.ops.windows import Windows

__all__ = [
    "TransposedWindows",
    "Windows",
    "combine_banks",
    "combine_then_convolve",
    "combine_then_spread",
    "convolve_then_combine",
    "convolve_then_combine_mixed",
    "deform_conv2d",
    "deformable_scale_correlation",
    "discrete_gaussian",
    "embed_banks",
    "expand_kernel",
    "kronecker_convolution",
    "kronecker_kernel",
    "level_variances",
    "local_convolution",
    "local_convolution_transpose",
    "merge_cascade",
    "nearest_kronecker_factors",
    "normalize_logits",
    "rearrange_kernel",
    "resize_aligned",
    "rotation_matrix",
    "sample_affine",
    "sample_bilinear",
    "scale_correlation",
    "sum_over_axes",
    "weigh_then_convolve",
]

# What chooses between ways to compute is in `plans`; its names here still mean what they did.
_MOVED = ("Request", "choose_plan", "choose_strategy", "multiply_adds")

# A type checker that saw `__getattr__` would take any name for one of the package's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Returns what a moved name stood for."""
        if name in _MOVED:
            return getattr(importlib.import_module("low_rank_local_connectivity.plans.moved"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
