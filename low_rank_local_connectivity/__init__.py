"""Layers for Keras 3 that relax, keep or restore spatial invariance."""

from low_rank_local_connectivity.activations import keras2_hard_sigmoid as keras2_hard_sigmoid
from low_rank_local_connectivity.initializers import IdentityConv as IdentityConv
from low_rank_local_connectivity.layers import AddCoordinates2D as AddCoordinates2D
from low_rank_local_connectivity.layers import CondConv2D as CondConv2D
from low_rank_local_connectivity.layers import CoordConv2D as CoordConv2D
from low_rank_local_connectivity.layers import DeformableConv2D as DeformableConv2D
from low_rank_local_connectivity.layers import DeformableScaleConv2D as DeformableScaleConv2D
from low_rank_local_connectivity.layers import DilatedContext2D as DilatedContext2D
from low_rank_local_connectivity.layers import DynamicLocalFilter2D as DynamicLocalFilter2D
from low_rank_local_connectivity.layers import FullConv1D as FullConv1D
from low_rank_local_connectivity.layers import FullConv2D as FullConv2D
from low_rank_local_connectivity.layers import FullConv3D as FullConv3D
from low_rank_local_connectivity.layers import GroupBatchNormalization as GroupBatchNormalization
from low_rank_local_connectivity.layers import GroupConv2D as GroupConv2D
from low_rank_local_connectivity.layers import GroupLiftConv2D as GroupLiftConv2D
from low_rank_local_connectivity.layers import GroupPooling2D as GroupPooling2D
from low_rank_local_connectivity.layers import (
    InputDependentCombiningWeights as InputDependentCombiningWeights,
)
from low_rank_local_connectivity.layers import KroneckerConv2D as KroneckerConv2D
from low_rank_local_connectivity.layers import LocallyConnected1D as LocallyConnected1D
from low_rank_local_connectivity.layers import LocallyConnected2D as LocallyConnected2D
from low_rank_local_connectivity.layers import LocallyConnected3D as LocallyConnected3D
from low_rank_local_connectivity.layers import (
    LowRankLocallyConnected1D as LowRankLocallyConnected1D,
)
from low_rank_local_connectivity.layers import (
    LowRankLocallyConnected2D as LowRankLocallyConnected2D,
)
from low_rank_local_connectivity.layers import (
    LowRankLocallyConnected3D as LowRankLocallyConnected3D,
)
from low_rank_local_connectivity.layers import OverLevels as OverLevels
from low_rank_local_connectivity.layers import ScaleConv2D as ScaleConv2D
from low_rank_local_connectivity.layers import ScalePooling2D as ScalePooling2D
from low_rank_local_connectivity.layers import ScaleSpaceLifting2D as ScaleSpaceLifting2D
from low_rank_local_connectivity.layers import SpatialBias as SpatialBias
from low_rank_local_connectivity.layers import SpatialTransformer2D as SpatialTransformer2D
from low_rank_local_connectivity.layers import WithBackground as WithBackground
from low_rank_local_connectivity.regularizers import SpatialSmoothness as SpatialSmoothness

__version__ = "0.1.0"
