"""What every layer here shares: data types, configuration, data format and checks of arguments."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import activations, constraints, initializers, ops, regularizers

# What layers check their arguments with comes from here.
from low_rank_local_connectivity.ops.arguments import (  # noqa: F401
    boolean,
    number_above,
    one_of,
    one_of_any_case,
    per_axis,
    positive_int,
    positive_ints,
    received,
    sizes_of,
    spatial_axes,
)
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

        Raises:
            ValueError: If a tensor is of text or complex numbers.
        """
        if isinstance(value, (list, tuple)):
            values = [self.to_compute_dtype(one) for one in value]
            return values if isinstance(value, list) else tuple(values)
        if not hasattr(value, "dtype") or dtype_of(value) == self.compute_dtype:
            return value
        floating = keras.backend.is_float_dtype(dtype_of(value))
        if not floating and not is_whole(value):
            raise ValueError(
                f"Layer {self.name!r} takes tensors of real numbers. Received: a tensor of shape "
                f"{tuple(value.shape)} and dtype {dtype_of(value)}. Turn it into numbers before."
            )
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

    def require_built(self, method: str) -> None:
        """Refuses to do without weights what one of the layer's methods does with them."""
        if not self.built:
            raise ValueError(
                f"Layer {self.name!r} must be built before {method}() is called: call it on "
                "inputs, or call build(input_shape)."
            )


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


def initializer_of(name: str, value: Any) -> Any:
    """Returns the initializer that an argument names; for None the one that Keras's layers take."""
    found = initializers.get("glorot_uniform" if value is None else value)
    if not callable(found):
        raise ValueError(
            f"`{name}` must be an initializer: its name, its configuration, or a function of a "
            f"shape and a dtype. Received: {received(name, value)}."
        )
    return found


def layer_of(name: str, value: Any, what: str) -> keras.Layer:
    """Returns a layer or model, from its serialized configuration too."""
    if isinstance(value, dict):
        try:
            value = keras.saving.deserialize_keras_object(value)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"`{name}` must be {what}, or its serialized configuration. Received: "
                f"{received(name, value)}."
            ) from error
    if not isinstance(value, keras.Layer):
        raise ValueError(f"`{name}` must be {what}. Received: {received(name, value)}.")
    return value


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
