"""Every layer of the library."""

from low_rank_local_connectivity.layers.background import WithBackground as WithBackground
from low_rank_local_connectivity.layers.combining_weights import (
    InputDependentCombiningWeights as InputDependentCombiningWeights,
)
from low_rank_local_connectivity.layers.cond_conv import CondConv2D as CondConv2D
from low_rank_local_connectivity.layers.coord_conv import AddCoordinates2D as AddCoordinates2D
from low_rank_local_connectivity.layers.coord_conv import CoordConv2D as CoordConv2D
from low_rank_local_connectivity.layers.deformable_conv import DeformableConv2D as DeformableConv2D
from low_rank_local_connectivity.layers.deformable_scale_conv import (
    DeformableScaleConv2D as DeformableScaleConv2D,
)
from low_rank_local_connectivity.layers.dilated_context import DilatedContext2D as DilatedContext2D
from low_rank_local_connectivity.layers.dynamic_local_filter import (
    DynamicLocalFilter2D as DynamicLocalFilter2D,
)
from low_rank_local_connectivity.layers.full_conv import FullConv1D as FullConv1D
from low_rank_local_connectivity.layers.full_conv import FullConv2D as FullConv2D
from low_rank_local_connectivity.layers.full_conv import FullConv3D as FullConv3D
from low_rank_local_connectivity.layers.group_batch_normalization import (
    GroupBatchNormalization as GroupBatchNormalization,
)
from low_rank_local_connectivity.layers.group_conv import GroupConv2D as GroupConv2D
from low_rank_local_connectivity.layers.group_conv import GroupLiftConv2D as GroupLiftConv2D
from low_rank_local_connectivity.layers.group_pooling import GroupPooling2D as GroupPooling2D
from low_rank_local_connectivity.layers.kronecker_conv import KroneckerConv2D as KroneckerConv2D
from low_rank_local_connectivity.layers.locally_connected import (
    LocallyConnected1D as LocallyConnected1D,
)
from low_rank_local_connectivity.layers.locally_connected import (
    LocallyConnected2D as LocallyConnected2D,
)
from low_rank_local_connectivity.layers.locally_connected import (
    LocallyConnected3D as LocallyConnected3D,
)
from low_rank_local_connectivity.layers.low_rank_locally_connected import (
    LowRankLocallyConnected1D as LowRankLocallyConnected1D,
)
from low_rank_local_connectivity.layers.low_rank_locally_connected import (
    LowRankLocallyConnected2D as LowRankLocallyConnected2D,
)
from low_rank_local_connectivity.layers.low_rank_locally_connected import (
    LowRankLocallyConnected3D as LowRankLocallyConnected3D,
)
from low_rank_local_connectivity.layers.over_levels import OverLevels as OverLevels
from low_rank_local_connectivity.layers.scale_conv import ScaleConv2D as ScaleConv2D
from low_rank_local_connectivity.layers.scale_pooling import ScalePooling2D as ScalePooling2D
from low_rank_local_connectivity.layers.scale_space_lifting import (
    ScaleSpaceLifting2D as ScaleSpaceLifting2D,
)
from low_rank_local_connectivity.layers.spatial_bias import SpatialBias as SpatialBias
from low_rank_local_connectivity.layers.spatial_transformer import (
    SpatialTransformer2D as SpatialTransformer2D,
)
