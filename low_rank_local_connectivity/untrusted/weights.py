"""Models that a file describes: their weights are counted before they are made."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator
from typing import Any

import keras

from low_rank_local_connectivity.untrusted.sizes import require_room

NUMBER_BYTES = 4


class _Count:
    """How much the weights that were made take, and may take."""

    def __init__(self, room: int, path: Any, drawn: bool):
        self.taken, self.room, self.path, self.drawn = 0, room, path, drawn

    def add(self, shape: Any) -> None:
        sizes = [shape] if isinstance(shape, int) else shape or ()
        self.taken += NUMBER_BYTES * math.prod(int(size) for size in sizes)
        require_room(self.taken, self.room, self.path)


_COUNT: contextvars.ContextVar[_Count | None] = contextvars.ContextVar("count", default=None)


@contextlib.contextmanager
def weights_within(room: int, path: Any, drawn: bool = True) -> Iterator[None]:
    """Refuses layers that are made within this context if their weights take more than they may.

    Args:
        room: Bytes that the weights of all layers together may take.
        path: The file that describes them, for errors.
        drawn: Whether they are given initial values, which the file's would replace; zeros if not.

    Raises:
        ValueError: If they take more; nothing has been allocated for the one that does.
    """
    add_weight = keras.layers.Layer.add_weight

    @functools.wraps(add_weight)
    def counted(layer: Any, *args: Any, **kwargs: Any) -> Any:
        count = _COUNT.get()  # None in other threads
        if count is not None:
            count.add(args[0] if args else kwargs.get("shape"))
            if not count.drawn:
                kwargs |= dict(zip(("shape", "initializer", "dtype"), args, strict=False))
                args, kwargs["initializer"] = (), "zeros"
        return add_weight(layer, *args, **kwargs)

    token = _COUNT.set(_Count(room, path, drawn))
    keras.layers.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight
        _COUNT.reset(token)
