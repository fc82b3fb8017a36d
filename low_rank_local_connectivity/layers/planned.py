"""Layers that have several ways to compute, and can say which one they take."""

from collections.abc import Callable
from typing import Any

from low_rank_local_connectivity.layers.data_format import split_shape
from low_rank_local_connectivity.ops.arguments import boolean
from low_rank_local_connectivity.plans.plan import Plan


class Planned:
    """Adds `chosen_plan` to a layer with the attributes of a local layer.

    A subclass says what it is `asked` to compute and which is the `_plan_for` that, or has a
    `_plan` of its own.
    """

    data_format: str
    asked: Callable[..., Any]
    _plan_for: Callable[[Any], Plan]

    def chosen_plan(self, input_shape: Any, training: bool = False) -> str:
        """Returns the name of the plan by which the layer computes inputs of a shape.

        It depends on the backend and the device on which the layer was built.

        Args:
            input_shape: Shape of the inputs, the batch first; the batch and spatial sizes may be
                None where the layer takes unknown ones.
            training: Whether gradients are wanted, which may make another plan the fastest.

        Returns:
            A name among `plans.names_of` the layer's plans.

        Raises:
            ValueError: If the layer is not built, or an argument is of another kind.

        Example:
            >>> from low_rank_local_connectivity.layers import LocallyConnected2D
            >>> layer = LocallyConnected2D(5, 3)
            >>> layer.build((None, 8, 9, 2))
            >>> isinstance(layer.chosen_plan((64, 8, 9, 2), training=True), str)
            True
        """
        layer: Any = self
        layer.require_built("chosen_plan")
        sizes, channels = split_shape(input_shape, self.data_format)
        shape = (input_shape[0], *sizes, channels)
        return self._plan(shape, boolean("training", training)).name

    def _plan(self, shape: tuple[int | None, ...], training: bool) -> Plan:
        """Returns the plan for channels-last inputs of a shape."""
        return self._plan_for(self.asked(shape, training))
