"""Every layer of the library."""

from low_rank_local_connectivity.layers.background import WithBackground
from low_rank_local_connectivity.layers.combining_weights import (
    InputDependentCombiningWeights,
)
from low_rank_local_connectivity.layers.cond_conv import CondConv2D
from low_rank_local_connectivity.layers.coord_conv import AddCoordinates2D, CoordConv2D
from low_rank_local_connectivity.layers.deformable_conv import DeformableConv2D
from low_rank_local_connectivity.layers.deformable_scale_conv import (
    DeformableScaleConv2D,
)
from low_rank_local_connectivity.layers.dilated_context import DilatedContext2D
from low_rank_local_connectivity.layers.dynamic_local_filter import (
    DynamicLocalFilter2D,
)
from low_rank_local_connectivity.layers.full_conv import FullConv1D, FullConv2D, FullConv3D
from low_rank_local_connectivity.layers.group_batch_normalization import (
    GroupBatchNormalization,
)
from low_rank_local_connectivity.layers.group_conv import GroupConv2D, GroupLiftConv2D
from low_rank_local_connectivity.layers.group_pooling import GroupPooling2D
from low_rank_local_connectivity.layers.kronecker_conv import KroneckerConv2D
from low_rank_local_connectivity.layers.locally_connected import (
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected3D,
)
from low_rank_local_connectivity.layers.low_rank_locally_connected import (
    LowRankLocallyConnected1D,
    LowRankLocallyConnected2D,
    LowRankLocallyConnected3D,
)
from low_rank_local_connectivity.layers.over_levels import OverLevels
from low_rank_local_connectivity.layers.scale_conv import ScaleConv2D
from low_rank_local_connectivity.layers.scale_pooling import ScalePooling2D
from low_rank_local_connectivity.layers.scale_space_lifting import (
    ScaleSpaceLifting2D,
)
from low_rank_local_connectivity.layers.spatial_bias import SpatialBias
from low_rank_local_connectivity.layers.spatial_transformer import (
    SpatialTransformer2D,
)

__all__ = [
    "AddCoordinates2D",
    "CondConv2D",
    "CoordConv2D",
    "DeformableConv2D",
    "DeformableScaleConv2D",
    "DilatedContext2D",
    "DynamicLocalFilter2D",
    "FullConv1D",
    "FullConv2D",
    "FullConv3D",
    "GroupBatchNormalization",
    "GroupConv2D",
    "GroupLiftConv2D",
    "GroupPooling2D",
    "InputDependentCombiningWeights",
    "KroneckerConv2D",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "LocallyConnected3D",
    "LowRankLocallyConnected1D",
    "LowRankLocallyConnected2D",
    "LowRankLocallyConnected3D",
    "OverLevels",
    "ScaleConv2D",
    "ScalePooling2D",
    "ScaleSpaceLifting2D",
    "SpatialBias",
    "SpatialTransformer2D",
    "WithBackground",
]
