"""How rotations move images and maps with orientations, and how exactly layers commute with it."""

import math
from typing import Any, ClassVar

import numpy as np
from keras import ops

from low_rank_local_connectivity.layers.relative_error import relative_error
from low_rank_local_connectivity.ops.arguments import array, boolean
from low_rank_local_connectivity.ops.interpolation import sample, turned_coordinates
from low_rank_local_connectivity.ops.plane_group import PlaneElement, PlaneGroup
from low_rank_local_connectivity.ops.windows import Windows


class CommutesWithGroup:
    """What layers have that commute with rotations: a measurement of how exactly they do."""

    data_format: str
    windows: Windows
    # Whether the inputs have orientations.
    reads_orientations: ClassVar[bool] = True

    @property
    def group(self) -> PlaneGroup:
        """The rotations and reflections that the layer commutes with."""
        raise NotImplementedError

    def check_equivariance(self, inputs: Any) -> dict[str, float]:
        """Returns how far the layer is from commuting with each rotation and reflection.

        With the layer `f`, an element `g` of its group and what it does to images and maps, `T_g`:

        `error[g] = ||T_g f(x) - f(T_g x)|| / ||T_g f(x)||`,

        in the L2 norm over all examples, positions, orientations and channels; its square is of
        the kind that `equivariance.error` returns. Multiples of 90 degrees and reflections only
        rearrange pixels, so that the error is rounding: about 1e-7 in float32. For other angles
        images and maps are interpolated bicubically, and of both only the positions are compared
        that lie in a disc about the centre and read neither padding nor what comes in from
        outside; on images that are not smooth the error is then that of interpolating them.

        Args:
            inputs: What the layer is called with. A layer that is not built is built for it.

        Returns:
            The error by the element's name, such as `"rotation by 90 degrees"`; without that of
            the identity.

        Raises:
            ValueError: If the layer refuses the inputs, or they are too small for such a disc.

        Example:
            >>> from low_rank_local_connectivity import GroupConv2D
            >>> layer = GroupConv2D(6, 3)
            >>> errors = layer.check_equivariance(np.random.rand(2, 8, 9, 4, 3))
            >>> list(errors)
            ['rotation by 90 degrees', 'rotation by 180 degrees', 'rotation by 270 degrees']
            >>> max(errors.values()) < 1e-5
            True
        """
        return self._errors(self._checked(inputs), self.group)

    def _checked(self, inputs: Any) -> np.ndarray:
        """Returns inputs as a channels-last array of floating-point numbers."""
        given = self._as_channels_last(array("inputs", inputs, self._input_axes))
        return given.astype("float32") if given.dtype.kind in "iub" else given

    def _errors(self, given: np.ndarray, group: PlaneGroup) -> dict[str, float]:
        """Returns the errors under the elements of a group."""
        outputs = self._outputs_of(given)
        errors = {}
        for element in group.elements()[1:]:
            counted: Any = True
            if not is_rearrangement(element, group):
                counted = self._counted(given.shape, outputs.shape)
            found = self._outputs_of(moved(given, element, group))
            errors[group.describe(element)] = relative_error(
                found, moved(outputs, element, group), counted
            )
        return errors

    @property
    def _input_axes(self) -> str:
        channels = "oc" if self.reads_orientations else "c"
        return f"bhw{channels}" if self.data_format == "channels_last" else f"b{channels}hw"

    def _outputs_of(self, maps: np.ndarray) -> np.ndarray:
        """Returns the outputs in float64 for channels-last maps, the channels last too."""
        if self.data_format == "channels_first":
            maps = np.ascontiguousarray(np.moveaxis(maps, (1, 2), (-2, -1)))
        layer: Any = self
        found = ops.convert_to_numpy(layer(ops.convert_to_tensor(maps), training=False))
        return self._as_channels_last(found).astype(float)

    def _as_channels_last(self, maps: np.ndarray) -> np.ndarray:
        last = self.data_format == "channels_last"
        return maps if last else np.moveaxis(maps, (-2, -1), (1, 2))

    def _counted(self, input_shape: tuple, output_shape: tuple) -> np.ndarray:
        """Returns which positions of interpolated outputs read interpolated inputs alone.

        Windows within a disc stay in it as it turns. Bicubic interpolation reads up to two
        positions further along each axis, less than three in any direction.
        """
        stride, reach = self.windows.strides[0], (self.windows.extents[0] - 1) / 2
        lost = math.sqrt(2) * reach + 3 * stride
        radius = (min(input_shape[1:3]) - 1) / 2 - lost
        rows, columns = (np.arange(size) - (size - 1) / 2 for size in output_shape[1:3])
        counted = stride * np.hypot(rows[:, None], columns) <= radius
        if not counted.any():
            least = math.ceil(2 * (lost + stride) + 1)
            raise ValueError(
                "`inputs` must have room for a disc that the filters do not leave as it turns. "
                f"Received: inputs of {input_shape[1]} x {input_shape[2]} positions. Use at least "
                f"{least} x {least}."
            )
        return counted.reshape(*counted.shape, *(1,) * (len(output_shape) - 3))


class CommutesWithEveryGroup(CommutesWithGroup):
    """What layers have that treat orientations alike, whichever group these are of."""

    def check_equivariance(self, inputs: Any, reflections: bool = False) -> dict[str, float]:
        """Returns how far the layer is from commuting with each rotation and reflection.

        As `GroupConv2D.check_equivariance`, of a group with as many elements as the inputs have
        orientations.

        Args:
            inputs: What the layer is called with. A layer that is not built is built for it.
            reflections: Whether the second half of the orientations are mirrored ones.

        Returns:
            The error by the element's name, such as `"reflection"`.

        Raises:
            ValueError: As there; or if the number of orientations is odd and half of them should
                be mirrored.

        Example:
            >>> from low_rank_local_connectivity import GroupPooling2D
            >>> maps = np.random.rand(2, 8, 9, 4, 3)
            >>> GroupPooling2D().check_equivariance(maps, reflections=True)["reflection"]
            0.0
        """
        given = self._checked(inputs)
        orientations = given.shape[3]
        if not boolean("reflections", reflections):
            return self._errors(given, PlaneGroup(orientations))
        if orientations % 2:
            raise ValueError(
                "Half of the orientations are mirrored under reflections=True, so their number "
                f"must be even. Received: {orientations} orientations."
            )
        return self._errors(given, PlaneGroup(orientations // 2, reflections=True))


def is_rearrangement(element: PlaneElement, group: PlaneGroup) -> bool:
    """Whether an element moves every position of a map to another one, and none in between."""
    return 4 * element.turns % group.order == 0


def moved(maps: np.ndarray, element: PlaneElement, group: PlaneGroup) -> np.ndarray:
    """Returns images, or maps and their orientations, as an element of the group moves them.

    Args:
        maps: Array `(batch, height, width, channels)` or `(batch, height, width, orientations,
            channels)`.
        element: Which element.
        group: The group that it is of.

    Example:
        >>> maps = np.arange(4.0).reshape(1, 1, 1, 4, 1)
        >>> moved(maps, PlaneElement(1), PlaneGroup(4)).ravel().tolist()
        [3.0, 0.0, 1.0, 2.0]
    """
    maps = maps[:, :, ::-1] if element.mirrored else maps
    if is_rearrangement(element, group):
        maps = np.rot90(maps, 4 * element.turns // group.order, axes=(1, 2))
    else:
        _, height, width, *_ = maps.shape
        rows, columns = turned_coordinates(height, width, 360 * element.turns / group.order)
        maps = sample(maps, rows, columns, "bicubic")
    return maps if maps.ndim == 4 else maps[:, :, :, group.moved_from(element)]
