"""What functions and layers ask of their arguments, and the words in which they refuse others.

Where a tensor's name ends in its axes, the name says what is asked: `images_bhwc` must have four
axes, and its `b` the length that `b` has in other arguments. A capital stands for one axis per
spatial dimension.
"""

import math
import operator
import reprlib
from collections.abc import Mapping
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 120
_BRIEF.maxlist = _BRIEF.maxtuple = 12


def received(name: str, value: Any) -> str:
    """Returns how an error shows an argument: a tensor by its shape, anything else as it is.

    Example:
        >>> received("rank", 1.5), received("mask", np.ones((2, 3)))
        ('rank=1.5', 'mask of shape (2, 3) and dtype float64')
    """
    if is_tensor(value) and tuple(value.shape):
        dtype = getattr(value.dtype, "name", None) or str(value.dtype)
        return f"{name} of shape {tuple(value.shape)} and dtype {dtype}"
    return f"{name}={_BRIEF.repr(value)}"


def is_tensor(value: Any) -> bool:
    """Whether a value is an array, tensor, variable or symbolic tensor of known rank."""
    if isinstance(value, type) or not (hasattr(value, "shape") and hasattr(value, "dtype")):
        return False
    return getattr(value.shape, "rank", 0) is not None


def one_of(name: str, value: Any, choices: tuple) -> Any:
    """Returns which of `choices` a value is; 1 is not True."""
    plain = value.item() if isinstance(value, np.generic) else value
    for choice in choices:
        same_kind = isinstance(plain, bool) is isinstance(choice, bool)
        if same_kind and isinstance(plain, type(choice)) and plain == choice:
            return choice
    listed = ", ".join(map(repr, choices))
    raise ValueError(f"`{name}` must be one of {listed}. Received: {received(name, value)}.")


def one_of_any_case(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """Returns the choice that `value` is but for capitals, as Keras spells padding and formats."""
    if isinstance(value, str) and value.lower() in choices:
        return value.lower()
    return one_of(name, value, choices)


def boolean(name: str, value: Any) -> bool:
    """Returns a value that is True or False, or 1 or 0."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, np.integer, np.bool_)) and value in (0, 1):
        return bool(value)
    raise ValueError(f"`{name}` must be True or False. Received: {received(name, value)}.")


def integer(value: Any) -> int | None:
    """Returns a whole number as Python's own, None for anything else."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError):  # a tensor may say either of several numbers
        return None


def whole_number(name: str, value: Any, least: int) -> int:
    """Returns `value` if it is a whole number of at least `least`."""
    found = integer(value)
    if found is None or found < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. Received: {received(name, value)}."
        )
    return found


def positive_int(name: str, value: Any) -> int:
    """Returns `value` if it is a whole number of at least 1."""
    return whole_number(name, value, 1)


def positive_ints(name: str, value: Any) -> tuple[int, ...]:
    """Returns the items of a sequence of whole numbers of at least 1."""
    items = sequence(name, value, "integers of at least 1")
    return tuple(positive_int(name, item) for item in items)


def number_above(name: str, value: Any, least: float, or_equal: bool = False) -> float:
    """Returns `value` if it is a finite number above `least`, or equal to it if that is allowed."""
    found = float(value) if is_real(value) else math.nan
    if not (least < found < math.inf or (or_equal and found == least)):
        bound = f"of at least {least}" if or_equal else f"above {least}"
        raise ValueError(
            f"`{name}` must be a finite number {bound}. Received: {received(name, value)}."
        )
    return found


def real_number(name: str, value: Any) -> float:
    """Returns `value` if it is a number, NaN and infinity included."""
    if not is_real(value):
        raise ValueError(f"`{name}` must be a number. Received: {received(name, value)}.")
    return float(value)


def text(name: str, value: Any) -> str:
    """Returns `value` if it is text."""
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be text. Received: {received(name, value)}.")
    return value


def mapping(name: str, value: Any, of: str) -> Mapping[Any, Any]:
    """Returns a mapping; `of` says from what to what."""
    if not isinstance(value, Mapping):
        raise ValueError(
            f"`{name}` must be a dictionary of {of}. Received: {received(name, value)}."
        )
    return value


def finite_number(name: str, value: Any) -> float:
    """Returns `value` if it is a finite number."""
    found = float(value) if is_real(value) else math.nan
    if not math.isfinite(found):
        raise ValueError(f"`{name}` must be a finite number. Received: {received(name, value)}.")
    return found


def is_real(value: Any) -> bool:
    """Whether a value is a number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def per_axis(name: str, value: Any, dimensions: int, least: int | None = 1) -> tuple[int, ...]:
    """Returns an integer per spatial axis from one for all or a sequence of them."""
    values = items_of(value)
    values = (value,) * dimensions if values is None else values
    found = tuple(map(integer, values))
    if len(found) != dimensions or any(not _reaches(item, least) for item in found):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(
            f"`{name}` must be an integer{bound}, or a tuple of {dimensions} of them. Received: "
            f"{received(name, value)}."
        )
    return found  # pyright: ignore[reportReturnType], None was refused


def _reaches(item: int | None, least: int | None) -> bool:
    return item is not None and (least is None or item >= least)


def items_of(value: Any) -> list[Any] | None:
    """Returns the items of a tuple, list, range or array of one axis; None for anything else."""
    if isinstance(value, (tuple, list, range)):  # a shape of PyTorch is a tuple
        return list(value)
    if isinstance(value, np.ndarray):
        return value.tolist() if value.ndim == 1 else None
    if hasattr(value, "as_list"):  # a shape of TensorFlow
        return value.as_list()
    return None


# What is no size of an axis: a size is a whole number, None or, where JAX exports, a symbol.
_NO_SIZES = (bool, float, str, bytes, tuple, list, dict, set, type, np.ndarray, np.floating)


def is_symbol(size: Any) -> bool:
    """Whether the size of an axis is a symbol, as in programs that are exported for any size.

    Example:
        >>> is_symbol(8), is_symbol(None)
        (False, False)
    """
    return not (size is None or isinstance(size, (int, np.integer)) or is_tensor(size))


def sizes_of(shape: Any) -> list[Any] | None:
    """Returns the sizes that a shape holds; None if it is no shape."""
    if is_tensor(shape) or isinstance(shape, (str, bytes, dict, set)):
        shape = items_of(shape)
    if not hasattr(shape, "__len__") or not hasattr(shape, "__iter__"):
        return None
    return None if any(isinstance(size, _NO_SIZES) for size in shape) else list(shape)


def sequence(name: str, value: Any, of: str) -> list[Any]:
    """Returns the items of a sequence, or of a tensor; `of` says what they must be."""
    items = items_of(value)
    if is_tensor(value) and isinstance(next(iter(value.shape), None), int):
        items = [value[index] for index in range(value.shape[0])]
    if items is None:
        raise ValueError(f"`{name}` must be a list of {of}. Received: {received(name, value)}.")
    return items


def groups_of(groups: Any, filters: int, channels: int | None = None) -> int:
    """Returns a number of groups into which filters, and channels if known, can be divided."""
    found = positive_int("groups", groups)
    if filters % found or (channels or 0) % found:
        also = "" if channels is None else f" and {channels} channels"
        raise ValueError(
            "`groups` must divide the number of input channels and that of filters. Received: "
            f"groups={found} with {filters} filters{also}."
        )
    return found


def spatial_axes(name: str, value: Any, dimensions: int) -> tuple[int, ...]:
    """Returns distinct spatial axes in ascending order, counted from 0 without the batch."""
    values = items_of(value)
    axes = [integer(axis) for axis in ([value] if values is None else values)]
    if len(set(axes)) != len(axes) or not set(axes) <= set(range(dimensions)):
        raise ValueError(
            f"`{name}` must be distinct spatial axes, each from 0 to {dimensions - 1}. "
            f"Received: {received(name, value)}."
        )
    return tuple(sorted(axis for axis in axes if axis is not None))


def pairs_of_pads(value: Any, dimensions: int = 2) -> list[tuple[int, int]] | None:
    """Returns `((top, bottom), (left, right))` as pairs of whole numbers, None if it is not."""
    pairs = [items_of(pair) for pair in items_of(value) or []]
    found = [[integer(item) for item in pair or []] for pair in pairs]
    if len(found) != dimensions or any(len(pair) != 2 for pair in found):
        return None
    if any(item is None or item < 0 for pair in found for item in pair):
        return None
    return [(pair[0], pair[1]) for pair in found]  # pyright: ignore[reportReturnType], likewise


def instance_of(name: str, value: Any, kind: type) -> Any:
    """Returns a value that is of a class of this package."""
    if not isinstance(value, kind):
        raise ValueError(
            f"`{name}` must be of the class {kind.__name__}. Received: {received(name, value)}."
        )
    return value


def tensor(name: str, value: Any, axes: str) -> Any:
    """Returns a value as a tensor that has these axes.

    Args:
        name: The argument's name.
        value: Tensor, array or nested lists of numbers.
        axes: A letter for each axis; a capital for one or more.

    Raises:
        ValueError: If it has other axes, or something else than numbers.
    """
    found = value if is_tensor(value) else _from_lists(value)
    rank, least = -1 if found is None else len(found.shape), len(axes)
    fits = rank >= least if any(map(str.isupper, axes)) else rank == least
    if not fits or not _holds_numbers(found):
        listed = ", ".join(f"*{axis}" if axis.isupper() else axis for axis in axes)
        raise ValueError(
            f"`{name}` must be a tensor of real numbers with the axes ({listed}). Received: "
            f"{received(name, value if found is None else found)}."
        )
    return found


def array(name: str, value: Any, axes: str) -> np.ndarray:
    """Returns a value as an array that has these axes; see `tensor`."""
    if isinstance(value, keras.KerasTensor):
        raise ValueError(f"`{name}` must hold values. Received: {received(name, value)}.")
    return np.asarray(ops.convert_to_numpy(tensor(name, value, axes)))


def _from_lists(value: Any) -> Any:
    """Returns nested lists of numbers as a tensor, None for anything else."""
    try:
        kind = np.asarray(value).dtype.kind
    except (TypeError, ValueError):  # lists of different lengths
        return None
    return ops.convert_to_tensor(value) if kind in "fiub" else None


def _holds_numbers(found: Any) -> bool:
    try:
        dtype = keras.backend.standardize_dtype(found.dtype)
    except (TypeError, ValueError):  # no numbers: text, objects
        return False
    return "float" in dtype or "int" in dtype or dtype == "bool"


def tensors(or_one: str = "", /, **arguments: Any) -> list[Any]:
    """Returns arguments as tensors of real numbers with the axes that their names end in.

    An axis must be as long in one as in another; what is unknown fits.

    Args:
        or_one: Axes that may have length 1 instead.
        **arguments: Tensors by their names.

    Raises:
        ValueError: If one has other axes, or two do not fit together.

    Example:
        >>> found = tensors(rows_bp=[[0.5, 1.5]], columns_bp=[[1.0, 2.0]])
        >>> [tuple(tensor.shape) for tensor in found]
        [(1, 2), (1, 2)]
    """
    found = {name: tensor(name, value, axes_of(name)) for name, value in arguments.items()}
    first: dict[str, tuple[str, Any]] = {}
    for name, one in found.items():
        for axis, length in _lengths(axes_of(name), tuple(one.shape)):
            unknown = not isinstance(length, (int, tuple)) or (axis in or_one and length == 1)
            if unknown:
                continue
            other, expected = first.setdefault(axis, (name, length))
            if not _agree(length, expected, axis in or_one):
                raise ValueError(
                    f"`{other}` and `{name}` must agree along their axes {axis!r}. Received: "
                    f"{other} of shape {tuple(found[other].shape)} and {name} of shape "
                    f"{tuple(one.shape)}."
                )
    return list(found.values())


def axes_of(name: str) -> str:
    """Returns the axes that a tensor's name ends in.

    Example:
        >>> axes_of("images_bhwc")
        'bhwc'
    """
    return name.rpartition("_")[2]


def _lengths(axes: str, shape: tuple) -> list[tuple[str, Any]]:
    """Returns each axis with its length; a capital with as many as there are."""
    extra = len(shape) - len(axes)
    found, start = [], 0
    for axis in axes:
        # Several capitals share what is left evenly; with one alone it takes all.
        more = extra // sum(map(str.isupper, axes)) if axis.isupper() else 0
        length = shape[start : start + 1 + more] if axis.isupper() else shape[start]
        found.append((axis, length))
        start += 1 + more
    return found


def _agree(length: Any, expected: Any, or_one: bool) -> bool:
    if not isinstance(length, tuple):
        return length == expected
    if len(length) != len(expected):
        return False
    return all(
        a == b
        for a, b in zip(length, expected, strict=True)
        if isinstance(a, int) and isinstance(b, int) and not (or_one and 1 in (a, b))
    )


def require_same_dtype(**arguments: Any) -> None:
    """Refuses floating-point tensors of different data types."""
    dtypes = {name: keras.backend.standardize_dtype(one.dtype) for name, one in arguments.items()}
    dtypes = {name: dtype for name, dtype in dtypes.items() if "float" in dtype}
    if len(set(dtypes.values())) > 1:
        names = " and ".join(f"`{name}`" for name in dtypes)
        given = " and ".join(f"{name} of dtype {dtype}" for name, dtype in dtypes.items())
        raise ValueError(f"{names} must have the same dtype. Received: {given}. Cast one of them.")


def require_dimensions(dimensions: int, what: str, **arguments: Any) -> None:
    """Refuses tensors with another number of spatial axes, named `S`, `O` or `T`, than `what`."""
    for name, one in arguments.items():
        axes = axes_of(name)
        found = len(one.shape) - sum(not axis.isupper() for axis in axes)
        if found != dimensions:
            raise ValueError(
                f"`{name}` must have as many spatial axes as {what}, {dimensions}. Received: "
                f"{name} of shape {tuple(one.shape)}."
            )


def require_length(name: str, one: Any, axis: str, expected: Any, spelled: str) -> None:
    """Refuses a tensor whose axis has another length than `spelled` says."""
    length = dict(_lengths(axes_of(name), tuple(one.shape)))[axis]
    if isinstance(length, int) and isinstance(expected, int) and length != expected:
        raise ValueError(
            f"Axis {axis!r} of `{name}` must have the length {spelled}, {expected}. Received: "
            f"{name} of shape {tuple(one.shape)}."
        )


def require_each(name: str, items: Any, count: int, what: str) -> None:
    """Refuses a list that has not one item for each of something."""
    if len(items) != count:
        raise ValueError(
            f"`{name}` must have one item for each of {what}, {count}. Received: "
            f"{len(items)} items."
        )
