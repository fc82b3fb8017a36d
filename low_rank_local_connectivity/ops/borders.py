"""What stands around the inputs of windows: zeros, or elements of the inputs themselves.

A tensor's name ends in its axes: `b` batch, `S` spatial axes, `c` channels.
"""

from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.windows import Windows


def pad_windows(inputs_bSc, windows: Windows):
    """Returns the inputs with all that `windows.padding` asks for around the spatial axes.

    Example:
        >>> inputs = ops.reshape(ops.arange(3, dtype="float32"), (1, 3, 1))
        >>> padded = pad_windows(inputs, Windows((3,), (1,), (1,), "circular"))
        >>> ops.convert_to_numpy(padded)[0, :, 0].tolist()
        [2.0, 0.0, 1.0, 2.0, 0.0]
    """
    amounts = windows.pad_amounts(inputs_bSc.shape[1:-1])
    if not any(map(any, amounts)):
        return inputs_bSc
    if not windows.reads_border:
        return pad(inputs_bSc, ((0, 0), *amounts, (0, 0)))
    for axis, pair in enumerate(amounts, start=1):
        inputs_bSc = _extended(inputs_bSc, axis, pair, windows.padding)
    return inputs_bSc


def with_border(inputs_bSc, windows: Windows) -> tuple[Any, Windows]:
    """Returns inputs and windows with a border that is read from the inputs among these.

    Gradients of the border are thereby the backend's, and what follows knows no padding but zeros.

    Args:
        inputs_bSc: Inputs; the spatial size may be unknown, but for strides above 1.
        windows: Where the windows sit; those with zeros around come back as they are.

    Example:
        >>> inputs, windows = with_border(
        ...     ops.ones((2, 8, 9, 4)), Windows((3, 5), (1, 1), (1, 1), "reflect")
        ... )
        >>> ops.shape(inputs), windows.padding
        ((2, 10, 13, 4), 'valid')
    """
    if not windows.reads_border:
        return inputs_bSc, windows
    return pad_windows(inputs_bSc, windows), windows.inside


def _extended(values, axis: int, amounts: tuple[int, int], border: str):
    """Returns values with so many more before and after an axis, read from the axis itself."""
    before, after = amounts
    if border == "circular":
        first, last = [_part(values, axis, -before, before)], [_part(values, axis, 0, after)]
    elif border == "reflect":
        first = [ops.flip(_part(values, axis, 1, before), axis=axis)]
        last = [ops.flip(_part(values, axis, -after - 1, after), axis=axis)]
    else:
        first, last = [_part(values, axis, 0, 1)] * before, [_part(values, axis, -1, 1)] * after
    parts = [*(first if before else []), values, *(last if after else [])]
    return ops.concatenate(parts, axis=axis) if len(parts) > 1 else values


def _part(values, axis: int, start: int, length: int):
    """Returns so many values along an axis, from a start that counts from the end if below 0.

    Where TensorFlow leaves the size open, `ops.slice` refuses an input that is too small when the
    graph runs. Subscripts would give less, and the layer fewer outputs than inputs.
    """
    if isinstance(values, keras.KerasTensor) or values.shape[axis] is not None:
        return values[(slice(None),) * axis + (slice(start, start + length or None),)]
    shape: Any = ops.shape(values)
    starts, lengths = [0] * len(shape), [-1] * len(shape)  # -1 is all there are
    starts[axis], lengths[axis] = start if start >= 0 else shape[axis] + start, length
    return ops.slice(values, starts, lengths)
