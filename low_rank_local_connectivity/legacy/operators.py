"""TensorFlow's functions between the layers of a functional model, as functions of Keras 3.

Keras 2 made a layer of each: of `x + y`, of `x[:, 0]`, of `tf.concat([x, y], -1)`. Names in a file
are never looked up in a module: a function that is not in this table is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

Function = Callable[..., Any]


def _named(function: Function, **names: str) -> Function:
    """Returns a function that takes TensorFlow's names of arguments, given Keras's for them."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{names.get(key, key): one for key, one in kwargs.items()})

    return call


def _binary(function: Function) -> Function:
    return lambda x, y: function(constant(x), constant(y))


def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    a, b = (
        ops.swapaxes(x, -1, -2) if turn else x for x, turn in ((a, transpose_a), (b, transpose_b))
    )
    return ops.matmul(a, b)


def _transpose(a: Any, perm: Any = None, conjugate: bool = False) -> Any:
    return ops.conj(ops.transpose(a, perm)) if conjugate else ops.transpose(a, perm)


def _item(tensor: Any, slice_spec: Any) -> Any:
    return tensor[tuple(_index(one) for one in slice_spec)]


def _index(described: Any) -> Any:
    if not isinstance(described, Mapping):
        return described
    if described.get("class_name") == "__ellipsis__":
        return ...
    return slice(described["start"], described["stop"], described["step"])


def _sum(inputs: Sequence[Any]) -> Any:
    total = inputs[0]
    for one in inputs[1:]:
        total = ops.add(total, one)
    return total


FUNCTIONS: dict[str, Function] = {
    "__operators__.getitem": _item,
    "__operators__.add": _binary(ops.add),
    "math.add_n": _sum,
    "math.pow": _binary(ops.power),
    "math.truediv": _binary(ops.true_divide),
    "linalg.matmul": _matmul,
    "compat.v1.transpose": _transpose,
    "compat.v1.squeeze": ops.squeeze,
    "reshape": _named(ops.reshape, shape="newshape"),
    "concat": ops.concatenate,
    "stack": ops.stack,
    "expand_dims": ops.expand_dims,
    "tile": _named(ops.tile, multiples="repeats"),
    "cast": ops.cast,
    "clip_by_value": _named(ops.clip, clip_value_min="x_min", clip_value_max="x_max"),
    "nn.softmax": ops.softmax,
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.leaky_relu": _named(ops.leaky_relu, alpha="negative_slope"),
    "nn.swish": ops.silu,
}
for _name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
    FUNCTIONS[f"math.{_name}"] = _binary(getattr(ops, _name))
for _name in ("mean", "sum", "max", "min", "prod"):
    FUNCTIONS[f"math.reduce_{_name}"] = getattr(ops, _name)
for _name in ("abs", "negative", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square"):
    FUNCTIONS[f"math.{_name}"] = getattr(ops, _name)
for _name in ("sin", "cos", "tanh", "sigmoid", "softplus"):
    FUNCTIONS[f"math.{_name}"] = getattr(ops, _name)
for _name in ("relu", "relu6", "elu", "selu", "sigmoid", "tanh", "softplus", "softsign", "silu"):
    FUNCTIONS[f"nn.{_name}"] = getattr(ops, _name)


def constant(value: Any) -> Any:
    """Returns a number or a list of numbers that stands in place of a tensor."""
    return np.asarray(value, "float32") if isinstance(value, list) else value


def operator(name: str, function: str) -> Function | None:
    """Returns an operation for one of TensorFlow's functions; None if the function is unknown.

    Args:
        name: The operation's name in the model; names that Keras chooses could be those of layers
            in the file.
        function: TensorFlow's name of the function, such as `math.multiply`.
    """
    found = FUNCTIONS.get(function)
    if found is None:
        return None

    def call(*args: Any, **kwargs: Any) -> Any:
        output = found(*args, **{key: one for key, one in kwargs.items() if key != "name"})
        output._keras_history.operation.name = name
        return output

    return call
