"""How far any Keras model is from commuting with shifts, scalings and rotations.

`error` and `curve` measure equivariance and invariance, `shift_consistency` and
`accuracy_under_shifts` what a classifier makes of shifts, `location_probe` what features tell of
where they are.
"""

from low_rank_local_connectivity.equivariance.consistency import (
    accuracy_under_shifts,
    shift_consistency,
)
from low_rank_local_connectivity.equivariance.curves import Curve
from low_rank_local_connectivity.equivariance.group_rotation import GroupRotation
from low_rank_local_connectivity.equivariance.measuring import curve, error
from low_rank_local_connectivity.equivariance.probe import LocationProbe, location_probe
from low_rank_local_connectivity.equivariance.scale_space import (
    ScaleSpaceAction,
)
from low_rank_local_connectivity.equivariance.transforms import Rotation, Scale, Shift, Transform

__all__ = [
    "Curve",
    "GroupRotation",
    "LocationProbe",
    "Rotation",
    "Scale",
    "ScaleSpaceAction",
    "Shift",
    "Transform",
    "accuracy_under_shifts",
    "curve",
    "error",
    "location_probe",
    "shift_consistency",
]
