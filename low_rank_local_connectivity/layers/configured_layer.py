"""What every layer here shares: data types, and a configuration made of its arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import keras_argument, serialize_argument
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

    def to_compute_dtype(self, value: Any, name: str = "inputs") -> Any:
        """Returns an argument with its tensors in the compute dtype, the rest as it is.

        Args:
            value: Tensor, list of tensors or anything else. Floating-point numbers stay as they
                are if the layer has `autocast=False`.
            name: The argument's name, for the error.

        Raises:
            ValueError: If a tensor is of text or complex numbers.
        """
        if isinstance(value, (list, tuple)):
            values = [self.to_compute_dtype(one, name) for one in value]
            return values if isinstance(value, list) else tuple(values)
        if not hasattr(value, "dtype") or dtype_of(value) == self.compute_dtype:
            return value
        floating = keras.backend.is_float_dtype(dtype_of(value))
        if not floating and not is_whole(value):
            raise ValueError(
                f"`{name}` of layer {self.name!r} must be tensors of real numbers. Received: "
                f"{name} of shape {tuple(value.shape)} and dtype {dtype_of(value)}."
            )
        if is_whole(value) or (floating and self.autocast):
            return ops.cast(value, self.compute_dtype)
        return value


def _casting(call: Callable) -> Callable:
    """Returns a layer's `call` with the tensors that it takes and returns cast."""
    _, *names = inspect.signature(call).parameters

    @functools.wraps(call)
    def cast_and_call(self, *args: Any, **kwargs: Any) -> Any:
        each = [*names, *[names[-1]] * len(args)]  # behind the last, what a `*args` takes
        given = [self.to_compute_dtype(*both) for both in zip(args, each, strict=False)]
        named = {name: self.to_compute_dtype(one, name) for name, one in kwargs.items()}
        return self.to_compute_dtype(call(self, *given, **named))

    return cast_and_call


class ConfiguredLayer(TakesAnyDtype):
    """A layer whose configuration is the list of its arguments.

    A subclass says `ARGUMENTS = arguments_of(__init__)` behind its constructor and keeps each
    argument in an attribute of the same name; `get_config` follows.
    """

    ARGUMENTS: ClassVar[tuple[str, ...]] = ()

    def _build_now(self, owner: type[keras.Layer]) -> None:
        """Marks a layer without weights as built, as Keras does, unless a subclass builds.

        Args:
            owner: The class that knows that there are no weights.
        """
        if type(self).build is owner.build:
            self.built = True

    def keep(self, **arguments: Any) -> None:
        """Keeps arguments that Keras's layers have too in attributes of their names."""
        for name, value in arguments.items():
            setattr(self, name, keras_argument(name, value))

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


class LayerWithKernels(ConfiguredLayer):
    """A layer whose kernels and biases are drawn, regularized and constrained as Keras's are."""

    use_bias: bool
    kernel_initializer: Any
    bias_initializer: Any
    kernel_regularizer: Any
    bias_regularizer: Any
    kernel_constraint: Any
    bias_constraint: Any
