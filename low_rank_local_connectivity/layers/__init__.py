"""Every layer of the library."""

from low_rank_local_connectivity.layers.deformable.deformable_conv import DeformableConv2D
from low_rank_local_connectivity.layers.deformable.deformable_scale_conv import (
    DeformableScaleConv2D,
)
from low_rank_local_connectivity.layers.deformable.spatial_transformer import (
    SpatialTransformer2D,
)
from low_rank_local_connectivity.layers.local.combining_weights import (
    InputDependentCombiningWeights,
)
from low_rank_local_connectivity.layers.local.depthwise import (
    DepthwiseLocallyConnected1D,
    DepthwiseLocallyConnected2D,
)
from low_rank_local_connectivity.layers.local.depthwise_low_rank import (
    DepthwiseLowRankLocallyConnected1D,
    DepthwiseLowRankLocallyConnected2D,
)
from low_rank_local_connectivity.layers.local.locally_connected import (
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected3D,
)
from low_rank_local_connectivity.layers.local.locally_connected_transpose import (
    LocallyConnected1DTranspose,
    LocallyConnected2DTranspose,
    LocallyConnected3DTranspose,
)
from low_rank_local_connectivity.layers.local.low_rank_locally_connected import (
    LowRankLocallyConnected1D,
    LowRankLocallyConnected2D,
    LowRankLocallyConnected3D,
)
from low_rank_local_connectivity.layers.local.low_rank_locally_connected_transpose import (
    LowRankLocallyConnected1DTranspose,
    LowRankLocallyConnected2DTranspose,
    LowRankLocallyConnected3DTranspose,
)
from low_rank_local_connectivity.layers.local.separable_low_rank import (
    SeparableLowRankLocallyConnected1D,
    SeparableLowRankLocallyConnected2D,
)
from low_rank_local_connectivity.layers.local.spatial_bias import SpatialBias
from low_rank_local_connectivity.layers.other.background import WithBackground
from low_rank_local_connectivity.layers.other.cond_conv import CondConv2D
from low_rank_local_connectivity.layers.other.coord_conv import (
    AddCoordinates1D,
    AddCoordinates2D,
    AddCoordinates3D,
    CoordConv1D,
    CoordConv2D,
    CoordConv2DTranspose,
    CoordConv3D,
)
from low_rank_local_connectivity.layers.other.dilated_context import DilatedContext2D
from low_rank_local_connectivity.layers.other.dynamic_local_filter import (
    DynamicLocalFilter2D,
)
from low_rank_local_connectivity.layers.other.full_conv import FullConv1D, FullConv2D, FullConv3D
from low_rank_local_connectivity.layers.other.kronecker_conv import KroneckerConv2D
from low_rank_local_connectivity.layers.scale.over_levels import OverLevels
from low_rank_local_connectivity.layers.scale.scale_conv import ScaleConv2D
from low_rank_local_connectivity.layers.scale.scale_pooling import ScalePooling2D
from low_rank_local_connectivity.layers.scale.scale_space_lifting import (
    ScaleSpaceLifting2D,
)
from low_rank_local_connectivity.layers.turned.group_batch_normalization import (
    GroupBatchNormalization,
)
from low_rank_local_connectivity.layers.turned.group_conv import GroupConv2D, GroupLiftConv2D
from low_rank_local_connectivity.layers.turned.group_pooling import GroupPooling2D

__all__ = [
    "AddCoordinates1D",
    "AddCoordinates2D",
    "AddCoordinates3D",
    "CondConv2D",
    "CoordConv1D",
    "CoordConv2D",
    "CoordConv2DTranspose",
    "CoordConv3D",
    "DeformableConv2D",
    "DeformableScaleConv2D",
    "DepthwiseLocallyConnected1D",
    "DepthwiseLocallyConnected2D",
    "DepthwiseLowRankLocallyConnected1D",
    "DepthwiseLowRankLocallyConnected2D",
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
    "LocallyConnected1DTranspose",
    "LocallyConnected2D",
    "LocallyConnected2DTranspose",
    "LocallyConnected3D",
    "LocallyConnected3DTranspose",
    "LowRankLocallyConnected1D",
    "LowRankLocallyConnected1DTranspose",
    "LowRankLocallyConnected2D",
    "LowRankLocallyConnected2DTranspose",
    "LowRankLocallyConnected3D",
    "LowRankLocallyConnected3DTranspose",
    "OverLevels",
    "ScaleConv2D",
    "ScalePooling2D",
    "ScaleSpaceLifting2D",
    "SeparableLowRankLocallyConnected1D",
    "SeparableLowRankLocallyConnected2D",
    "SpatialBias",
    "SpatialTransformer2D",
    "WithBackground",
]
