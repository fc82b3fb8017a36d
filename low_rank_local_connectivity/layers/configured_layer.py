"""What every layer here shares: data types, configuration, data format and checks of arguments."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import activations, constraints, initializers, ops, regularizers

from low_rank_local_connectivity.ops.precision import dtype_of, is_whole


class TakesAnyDtype(keras.Layer):
    """A layer that takes tensors of any data type, and computes and returns its compute dtype.

    Keras casts the floating-point arguments of a layer and leaves integers and booleans as they
    are; `TimeDistributed` and stateless calls reach `call` without any cast. So the cast belongs
    to `call`, and every subclass that defines it gets the cast with it. Outputs are cast too,
    since some of Keras's activations return float32 for float64.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "call" in vars(cls):
            cls.call = _casting(cls.call)

    def to_compute_dtype(self, value: Any) -> Any:
        """Returns an argument with its tensors in the compute dtype, the rest as it is.

        Args:
            value: Tensor, list of tensors or anything else. Floating-point numbers stay as they
                are if the layer has `autocast=False`.
        """
        if isinstance(value, (list, tuple)):
            values = [self.to_compute_dtype(one) for one in value]
            return values if isinstance(value, list) else tuple(values)
        if not hasattr(value, "dtype") or dtype_of(value) == self.compute_dtype:
            return value
        floating = keras.backend.is_float_dtype(dtype_of(value))
        if is_whole(value) or (floating and self.autocast):
            return ops.cast(value, self.compute_dtype)
        return value


def _casting(call: Callable) -> Callable:
    """Returns a layer's `call` with the tensors that it takes and returns cast."""

    @functools.wraps(call)
    def cast_and_call(self, *args: Any, **kwargs: Any) -> Any:
        given = [self.to_compute_dtype(one) for one in args]
        named = {name: self.to_compute_dtype(one) for name, one in kwargs.items()}
        return self.to_compute_dtype(call(self, *given, **named))

    return cast_and_call


class ConfiguredLayer(TakesAnyDtype):
    """A layer whose configuration is the list of its arguments.

    A subclass names its constructor's arguments in `ARGUMENTS` and keeps each in an attribute of
    the same name; `get_config` follows. A test compares the list with the signature.
    """

    ARGUMENTS: ClassVar[tuple[str, ...]] = ()

    def _build_now(self, owner: type[keras.Layer]) -> None:
        """Marks a layer without weights as built, as Keras does, unless a subclass builds.

        Args:
            owner: The class that knows that there are no weights.
        """
        if type(self).build is owner.build:
            self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain values."""
        arguments = {name: serialize_argument(name, getattr(self, name)) for name in self.ARGUMENTS}
        return {**super().get_config(), **arguments}


def serialize_argument(name: str, value: Any) -> Any:
    """Returns an argument as JSON can hold it, by the kind of object its name announces."""
    if name == "activation":
        return activations.serialize(value)
    if name.endswith("_regularizer"):
        return regularizers.serialize(value)
    if name.endswith("_constraint"):
        return constraints.serialize(value)
    if name.endswith("_initializer") and not isinstance(value, str):
        return initializers.serialize(value)
    if isinstance(value, list):
        return [serialize_argument("", item) for item in value]
    return value


def standardize_data_format(data_format: str | None) -> str:
    """Returns the data format, Keras's global one if None is given."""
    if data_format is None:
        return keras.config.image_data_format()
    return one_of_any_case("data_format", data_format, ("channels_last", "channels_first"))


def one_of(name: str, value: Any, choices: tuple) -> Any:
    """Returns `value` if it is among `choices`."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {listed}. Received: {name}={value!r}.")
    return value


def one_of_any_case(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns the choice that `value` is but for capitals, as Keras spells padding and formats."""
    lowered = value.lower() if isinstance(value, str) else value
    return lowered if lowered in choices else one_of(name, value, choices)


def positive_int(name: str, value: Any) -> int:
    """Returns `value` if it is a whole number of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}.")
    return int(value)


def number_above(name: str, value: Any, least: float, or_equal: bool = False) -> float:
    """Returns `value` if it is a finite number above `least`, or equal to it if that is allowed."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not (least < value < float("inf") or (or_equal and value == least)):
        bound = f"of at least {least}" if or_equal else f"above {least}"
        raise ValueError(f"`{name}` must be a finite number {bound}. Received: {name}={value!r}.")
    return float(value)


def per_axis(name: str, value: Any, dimensions: int) -> tuple[int, ...]:
    """Returns one positive integer per spatial axis from one for all or a sequence of them."""
    values = value if isinstance(value, (tuple, list)) else (value,) * dimensions
    try:
        if len(values) != dimensions:
            raise ValueError
        return tuple(positive_int(name, item) for item in values)
    except ValueError:
        raise ValueError(
            f"`{name}` must be an integer of at least 1, or a tuple of {dimensions} of them. "
            f"Received: {name}={value!r}."
        ) from None


def spatial_axes(name: str, value: Any, dimensions: int) -> tuple[int, ...]:
    """Returns distinct spatial axes in ascending order, counted from 0 without the batch."""
    axes = (value,) if isinstance(value, int) else tuple(value)
    if len(set(axes)) != len(axes) or not set(axes) <= set(range(dimensions)):
        raise ValueError(
            f"`{name}` must be distinct spatial axes, each from 0 to {dimensions - 1}. "
            f"Received: {name}={value!r}."
        )
    return tuple(sorted(int(axis) for axis in axes))


def split_shape(shape: Any, data_format: str) -> tuple[tuple[Any, ...], int]:
    """Returns the spatial sizes (None if unknown) and the number of channels of a shape."""
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
    return outputs if data_format == "channels_last" else ops.moveaxis(outputs, -1, 1)
