"""Layers for Keras 3 that relax, keep or restore spatial invariance.

Every layer is here by name; what works on layers and models is in a package of its own, loaded
when it is first used.

Example:
    >>> import low_rank_local_connectivity as lrlc
    >>> layer = lrlc.LowRankLocallyConnected2D(6, 3, spatial_rank=4)
    >>> layer.build((None, 9, 8, 3))
    >>> tuple(lrlc.conversion.to_locally_connected(layer).kernel.shape)
    (42, 27, 6)
"""

import importlib
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.activations import keras2_hard_sigmoid
from low_rank_local_connectivity.initializers import IdentityConv
from low_rank_local_connectivity.layers import (
    AddCoordinates2D,
    CondConv2D,
    CoordConv2D,
    DeformableConv2D,
    DeformableScaleConv2D,
    DilatedContext2D,
    DynamicLocalFilter2D,
    FullConv1D,
    FullConv2D,
    FullConv3D,
    GroupBatchNormalization,
    GroupConv2D,
    GroupLiftConv2D,
    GroupPooling2D,
    InputDependentCombiningWeights,
    KroneckerConv2D,
    LocallyConnected1D,
    LocallyConnected2D,
    LocallyConnected3D,
    LowRankLocallyConnected1D,
    LowRankLocallyConnected2D,
    LowRankLocallyConnected3D,
    OverLevels,
    ScaleConv2D,
    ScalePooling2D,
    ScaleSpaceLifting2D,
    SpatialBias,
    SpatialTransformer2D,
    WithBackground,
)
from low_rank_local_connectivity.regularizers import SpatialSmoothness

if TYPE_CHECKING:
    # What `__getattr__` loads, for type checkers and editors.
    from low_rank_local_connectivity import activations as activations
    from low_rank_local_connectivity import conversion as conversion
    from low_rank_local_connectivity import equivariance as equivariance
    from low_rank_local_connectivity import export as export
    from low_rank_local_connectivity import initializers as initializers
    from low_rank_local_connectivity import layers as layers
    from low_rank_local_connectivity import legacy as legacy
    from low_rank_local_connectivity import ops as ops
    from low_rank_local_connectivity import plans as plans
    from low_rank_local_connectivity import plots as plots
    from low_rank_local_connectivity import receptive_field as receptive_field
    from low_rank_local_connectivity import regularizers as regularizers
    from low_rank_local_connectivity import training as training

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
    "IdentityConv",
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
    "SpatialSmoothness",
    "SpatialTransformer2D",
    "WithBackground",
    "keras2_hard_sigmoid",
]

__version__ = "0.1.0"

# Left out of `__all__`, so that `import *` leaves Keras's `layers`, `ops` and others as they are.
_PACKAGES = frozenset(
    {
        "activations",
        "conversion",
        "equivariance",
        "export",
        "initializers",
        "layers",
        "legacy",
        "ops",
        "plans",
        "plots",
        "receptive_field",
        "regularizers",
        "training",
    }
)

# A type checker that saw `__getattr__` would take any name for one of the library's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Loads a package of the library when it is first used."""
        if name in _PACKAGES:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Names what there is, loaded or not."""
        return sorted({*globals(), *_PACKAGES})
