"""Layers for Keras 3 that relax, keep or restore spatial invariance.

Every layer is here by name; what works on layers and models is in a package of its own, loaded
when it is first used. So is Keras: until then, data and experiments can be described and checked
without it. Wherever this package and Keras are both imported, in either order, Keras can load
models that hold these layers.

Example:
    >>> import low_rank_local_connectivity as lrlc
    >>> layer = lrlc.LowRankLocallyConnected2D(6, 3, spatial_rank=4)
    >>> layer.build((None, 9, 8, 3))
    >>> tuple(lrlc.conversion.to_locally_connected(layer).kernel.shape)
    (42, 27, 6)
"""

import importlib
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity import registration

if TYPE_CHECKING:
    # What `__getattr__` loads, for type checkers and editors.
    from low_rank_local_connectivity import activations as activations
    from low_rank_local_connectivity import conversion as conversion
    from low_rank_local_connectivity import data as data
    from low_rank_local_connectivity import equivariance as equivariance
    from low_rank_local_connectivity import experiments as experiments
    from low_rank_local_connectivity import export as export
    from low_rank_local_connectivity import initializers as initializers
    from low_rank_local_connectivity import inspection as inspection
    from low_rank_local_connectivity import layers as layers
    from low_rank_local_connectivity import legacy as legacy
    from low_rank_local_connectivity import models as models
    from low_rank_local_connectivity import ops as ops
    from low_rank_local_connectivity import plans as plans
    from low_rank_local_connectivity import plots as plots
    from low_rank_local_connectivity import receptive_field as receptive_field
    from low_rank_local_connectivity import regularizers as regularizers
    from low_rank_local_connectivity import training as training
    from low_rank_local_connectivity.activations import keras2_hard_sigmoid
    from low_rank_local_connectivity.initializers import IdentityConv
    from low_rank_local_connectivity.layers import (
        AddCoordinates1D,
        AddCoordinates2D,
        AddCoordinates3D,
        CondConv2D,
        CoordConv1D,
        CoordConv2D,
        CoordConv2DTranspose,
        CoordConv3D,
        DeformableConv2D,
        DeformableScaleConv2D,
        DepthwiseLocallyConnected1D,
        DepthwiseLocallyConnected2D,
        DepthwiseLowRankLocallyConnected1D,
        DepthwiseLowRankLocallyConnected2D,
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
        LocallyConnected1DTranspose,
        LocallyConnected2D,
        LocallyConnected2DTranspose,
        LocallyConnected3D,
        LocallyConnected3DTranspose,
        LowRankLocallyConnected1D,
        LowRankLocallyConnected1DTranspose,
        LowRankLocallyConnected2D,
        LowRankLocallyConnected2DTranspose,
        LowRankLocallyConnected3D,
        LowRankLocallyConnected3DTranspose,
        OverLevels,
        ScaleConv2D,
        ScalePooling2D,
        ScaleSpaceLifting2D,
        SeparableLowRankLocallyConnected1D,
        SeparableLowRankLocallyConnected2D,
        SpatialBias,
        SpatialTransformer2D,
        WithBackground,
    )
    from low_rank_local_connectivity.regularizers import SpatialSmoothness

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
    "IdentityConv",
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
        "data",
        "equivariance",
        "experiments",
        "export",
        "initializers",
        "inspection",
        "layers",
        "legacy",
        "models",
        "ops",
        "plans",
        "plots",
        "receptive_field",
        "regularizers",
        "training",
    }
)

# Where the names of `__all__` are.
_HOMES = ("activations", "initializers", "layers", "regularizers")


def _load() -> None:
    """Makes the names of `__all__` this module's; their classes register with Keras."""
    homes = [importlib.import_module(f"{__name__}.{home}") for home in _HOMES]
    found = {name: value for home in homes for name, value in vars(home).items()}
    globals().update({name: found[name] for name in __all__})


# A type checker that saw `__getattr__` would take any name for one of the library's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Loads a package of the library, or all public names, when one is first used."""
        if name in _PACKAGES:
            return importlib.import_module(f"{__name__}.{name}")
        if name in __all__:
            _load()
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Names what there is, loaded or not."""
        return sorted({*globals(), *__all__, *_PACKAGES})


registration.after_keras(__name__, _load)
