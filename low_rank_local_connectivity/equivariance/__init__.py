"""How far any Keras model is from commuting with shifts, scalings and rotations.

`error` and `curve` measure equivariance and invariance, `shift_consistency` and
`accuracy_under_shifts` what a classifier makes of shifts, `location_probe` what features tell of
where they are.
"""

from low_rank_local_connectivity.equivariance.consistency import (
    accuracy_under_shifts as accuracy_under_shifts,
)
from low_rank_local_connectivity.equivariance.consistency import (
    shift_consistency as shift_consistency,
)
from low_rank_local_connectivity.equivariance.curves import Curve as Curve
from low_rank_local_connectivity.equivariance.group_rotation import GroupRotation as GroupRotation
from low_rank_local_connectivity.equivariance.measuring import curve as curve
from low_rank_local_connectivity.equivariance.measuring import error as error
from low_rank_local_connectivity.equivariance.probe import LocationProbe as LocationProbe
from low_rank_local_connectivity.equivariance.probe import location_probe as location_probe
from low_rank_local_connectivity.equivariance.scale_space import (
    ScaleSpaceAction as ScaleSpaceAction,
)
from low_rank_local_connectivity.equivariance.transforms import Rotation as Rotation
from low_rank_local_connectivity.equivariance.transforms import Scale as Scale
from low_rank_local_connectivity.equivariance.transforms import Shift as Shift
from low_rank_local_connectivity.equivariance.transforms import Transform as Transform
