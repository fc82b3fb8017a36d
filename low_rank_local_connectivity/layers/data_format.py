"""Where tensors and their shapes have the channels."""

from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.arguments import one_of_any_case, received, sizes_of


def standardize_data_format(data_format: str | None) -> str:
    """Returns the data format, Keras's global one if None is given."""
    if data_format is None:
        return keras.config.image_data_format()
    return one_of_any_case("data_format", data_format, ("channels_last", "channels_first"))


def require_shape(shape: Any, expected: str, dimensions: int | None) -> tuple[Any, ...]:
    """Returns the shape of a layer's inputs, if it has the axes that they have.

    Args:
        shape: The shape.
        expected: What it must be, in words.
        dimensions: How many spatial axes it must have, if that is known.
    """
    sizes = sizes_of(shape) or []
    if len(sizes) < 2 if dimensions is None else len(sizes) != dimensions + 2:
        raise ValueError(
            f"`input_shape` must be the shape of the inputs, {expected}, with None for a batch of "
            f"any size. Received: {received('input_shape', shape)}."
        )
    return tuple(sizes)


def _layout(data_format: str, dimensions: int | None) -> str:
    """Returns the axes of inputs in words."""
    names = {1: "length", 2: "height, width", 3: "depth, height, width"}
    sizes = "*spatial" if dimensions is None else names[dimensions]
    last = data_format == "channels_last"
    return f"(batch, {sizes}, channels)" if last else f"(batch, channels, {sizes})"


def split_shape(
    shape: Any, data_format: str, dimensions: int | None = None
) -> tuple[tuple[Any, ...], int]:
    """Returns the spatial sizes (None if unknown) and the number of channels of a shape.

    Args:
        shape: Shape of inputs, the batch first.
        data_format: Where it has the channels.
        dimensions: How many spatial axes it must have, if that is known.

    Raises:
        ValueError: If it is no such shape, or the number of channels is not known.
    """
    shape = require_shape(shape, _layout(data_format, dimensions), dimensions)
    if data_format == "channels_last":
        spatial, channels = tuple(shape[1:-1]), shape[-1]
    else:
        spatial, channels = tuple(shape[2:]), shape[1]
    if channels is None:
        raise ValueError(
            "The number of channels of the input must be known when a layer is built. "
            f"Received: input_shape={tuple(shape)} with data_format={data_format!r}."
        )
    return spatial, channels


def join_shape(batch: int | None, spatial: Any, channels: int, data_format: str) -> tuple:
    """Returns the shape with the channels where `data_format` wants them."""
    if data_format == "channels_last":
        return (batch, *spatial, channels)
    return (batch, channels, *spatial)


def to_channels_last(inputs, data_format: str):
    """Moves the channels last if they stand first."""
    return inputs if data_format == "channels_last" else ops.moveaxis(inputs, 1, -1)


def from_channels_last(outputs, data_format: str):
    """Moves the channels to where `data_format` wants them."""
    # Counted from the front: PyTorch's exporter to ONNX may not know how many axes there are.
    last = len(outputs.shape) - 1
    return outputs if data_format == "channels_last" else ops.moveaxis(outputs, last, 1)
