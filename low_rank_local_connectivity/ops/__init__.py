"""Pure functions of tensors: no layer, no state.

Integers and booleans are taken for floating-point numbers, of the data type of the tensors that
they meet, or of Keras's `floatx`.
"""

from low_rank_local_connectivity.ops.affine_sampling import sample_affine as sample_affine
from low_rank_local_connectivity.ops.bilinear_sampling import sample_bilinear as sample_bilinear
from low_rank_local_connectivity.ops.cascade import merge_cascade as merge_cascade
from low_rank_local_connectivity.ops.combining_weights import normalize_logits as normalize_logits
from low_rank_local_connectivity.ops.combining_weights import sum_over_axes as sum_over_axes
from low_rank_local_connectivity.ops.deform_conv import deform_conv2d as deform_conv2d
from low_rank_local_connectivity.ops.deformable_scale import (
    deformable_scale_correlation as deformable_scale_correlation,
)
from low_rank_local_connectivity.ops.group_conv import expand_kernel as expand_kernel
from low_rank_local_connectivity.ops.group_conv import rotation_matrix as rotation_matrix
from low_rank_local_connectivity.ops.kronecker import kronecker_convolution as kronecker_convolution
from low_rank_local_connectivity.ops.kronecker import kronecker_kernel as kronecker_kernel
from low_rank_local_connectivity.ops.kronecker import (
    nearest_kronecker_factors as nearest_kronecker_factors,
)
from low_rank_local_connectivity.ops.kronecker import rearrange_kernel as rearrange_kernel
from low_rank_local_connectivity.ops.local_convolution import local_convolution as local_convolution
from low_rank_local_connectivity.ops.low_rank_local_convolution import (
    combine_banks as combine_banks,
)
from low_rank_local_connectivity.ops.low_rank_local_convolution import (
    combine_then_convolve as combine_then_convolve,
)
from low_rank_local_connectivity.ops.low_rank_local_convolution import (
    convolve_then_combine as convolve_then_combine,
)
from low_rank_local_connectivity.ops.low_rank_local_convolution import (
    convolve_then_combine_mixed as convolve_then_combine_mixed,
)
from low_rank_local_connectivity.ops.low_rank_local_convolution import embed_banks as embed_banks
from low_rank_local_connectivity.ops.resampling import resize_aligned as resize_aligned
from low_rank_local_connectivity.ops.scale_space import discrete_gaussian as discrete_gaussian
from low_rank_local_connectivity.ops.scale_space import level_variances as level_variances
from low_rank_local_connectivity.ops.scale_space import scale_correlation as scale_correlation
from low_rank_local_connectivity.ops.windows import Windows as Windows
