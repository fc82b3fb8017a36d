"""Derivatives of fused local convolution on JAX: of any order, forward and reverse.

Outputs are linear in the inputs, in the banks and in the combining weights, so the sum of outputs
times numbers given for them is linear in four arrays, or in three where filters are given. Its
derivative for any one of them is linear in the others. These derivatives are what kernels compute,
the outputs among them. A derivative of one is a sum of the same with another array in one's place,
and so is the transpose of one: nothing else is needed, at any order.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from low_rank_local_connectivity.kernels import tpu
from low_rank_local_connectivity.kernels.geometry import Geometry

FILTERS = ("banks", "weights")


def names_of(geometry: Geometry) -> tuple[str, ...]:
    """Returns the names of the arrays, in the order in which kernels take them."""
    return ("inputs", "outputs", *geometry.made_of)


def _read(geometry: Geometry, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of what is needed to compute something."""
    return tuple(name for name in names_of(geometry) if wanted != (name,))


def _dtype(name: str, dtype: Any) -> Any:
    return dtype if name in ("inputs", "outputs") else tpu.sum_dtype(dtype)


local_p = Primitive("fused_local_convolution")
local_p.multiple_results = True
moved_p = Primitive("fused_local_convolution_moved")


def local(geometry: Geometry, wanted: tuple[str, ...], arrays: dict[str, Any]) -> list:
    """Returns derivatives of the sum of outputs times the numbers given for them.

    Args:
        geometry: The shapes.
        wanted: Names of what there are derivatives for: one, or banks and weights.
        arrays: The other arrays by their names; of two that are wanted both are needed.

    Returns:
        An array for each name.
    """
    operands = [arrays[name] for name in _read(geometry, wanted)]
    return local_p.bind(*operands, geometry=geometry, wanted=wanted)


def _abstract(*operands: Any, geometry: Geometry, wanted: tuple[str, ...]) -> list:
    dtype = operands[0].dtype
    return [ShapedArray(geometry.shape(name), jnp.dtype(_dtype(name, dtype))) for name in wanted]


def _compute(interpret: bool, *operands: Any, geometry: Geometry, wanted: tuple[str, ...]) -> list:
    arrays = dict(zip(_read(geometry, wanted), operands, strict=True))
    made_of = [arrays.get(name) for name in geometry.made_of]
    if wanted == ("outputs",):
        return [tpu.outputs_of(geometry, interpret, arrays["inputs"], *made_of)]
    if wanted == ("inputs",):
        return [tpu.inputs_gradient(geometry, interpret, arrays["outputs"], *made_of)]
    pair = arrays["inputs"], arrays["outputs"]
    if geometry.kind == "given":
        return list(tpu.filters_gradient(geometry, interpret, *pair))
    # What is missing multiplies nothing that is wanted.
    zeros = [jnp.zeros(geometry.shape(name), _dtype(name, pair[0].dtype)) for name in FILTERS]
    made_of = [one if one is not None else zero for one, zero in zip(made_of, zeros, strict=True)]
    found = tpu.filters_gradient(geometry, interpret, *pair, *made_of)
    return [gradient for name, gradient in zip(FILTERS, found, strict=True) if name in wanted]


def _moved_abstract(inputs: Any, *rest: Any, geometry: Geometry) -> Any:
    del rest
    return ShapedArray(geometry.shape("outputs"), inputs.dtype)


@functools.cache
def _compiled(primitive: Any, parameters: tuple) -> Any:
    return jax.jit(functools.partial(primitive.bind, **dict(parameters)))


def _eagerly(primitive: Any, *operands: Any, **parameters: Any) -> Any:
    return _compiled(primitive, tuple(parameters.items()))(*operands)


def _sum(terms: Sequence[list]) -> list:
    return [functools.reduce(jnp.add, parts) for parts in zip(*terms, strict=True)]


def _tangent(primals: Sequence, tangents: Sequence, **parameters: Any) -> tuple[list, list]:
    """Adds what each of the arrays that move contributes, two at once where a kernel can."""
    geometry, wanted = parameters["geometry"], parameters["wanted"]
    names = _read(geometry, wanted)
    arrays = dict(zip(names, primals, strict=True))
    moving = {
        name: tangent
        for name, tangent in zip(names, tangents, strict=True)
        if not isinstance(tangent, ad.Zero)
    }
    outputs = local(geometry, wanted, arrays)
    terms = []
    if wanted == ("outputs",) and all(name in moving for name in FILTERS):
        operands = [arrays[name] for name in ("inputs", *FILTERS)]
        operands += [moving.pop(name) for name in FILTERS]
        terms.append([moved_p.bind(*operands, geometry=geometry)])
    terms += [_moved_one(geometry, wanted, arrays, *one) for one in moving.items()]
    return outputs, _sum(terms)


def _moved_one(
    geometry: Geometry, wanted: tuple[str, ...], arrays: dict, name: str, tangent: Any
) -> list:
    """Returns the derivatives with another array in one's place, zeros of what it is not in."""
    moved = {**arrays, name: tangent}
    if name not in wanted:
        return local(geometry, wanted, moved)
    return [
        jnp.zeros_like(arrays[one]) if one == name else local(geometry, (one,), moved)[0]
        for one in wanted
    ]


def _transposed(cotangents: Sequence, *operands: Any, **parameters: Any) -> list:
    """Returns the cotangent of the one array that is not known."""
    geometry, wanted = parameters["geometry"], parameters["wanted"]
    names = _read(geometry, wanted)
    (unknown,) = (
        name
        for name, operand in zip(names, operands, strict=True)
        if ad.is_undefined_primal(operand)
    )
    arrays = dict(zip(names, operands, strict=True))
    terms = [
        local(geometry, (unknown,), {**arrays, name: cotangent})
        for name, cotangent in zip(wanted, cotangents, strict=True)
        if name != unknown and not isinstance(cotangent, ad.Zero)
    ]
    total = _sum(terms)[0] if terms else None
    return [total if name == unknown else None for name in names]


def _spelled_out(*operands: Any, geometry: Geometry) -> Any:
    """Returns how outputs move with banks and weights, as the sum of two convolutions."""
    inputs, banks, weights, moved_banks, moved_weights = operands
    arrays = {"inputs": inputs, "banks": banks, "weights": weights}
    first = local(geometry, ("outputs",), {**arrays, "banks": moved_banks})
    second = local(geometry, ("outputs",), {**arrays, "weights": moved_weights})
    return first[0] + second[0]


def _moved_tangent(primals: Sequence, tangents: Sequence, **parameters: Any) -> tuple[Any, Any]:
    moving = [index for index, one in enumerate(tangents) if not isinstance(one, ad.Zero)]

    def of_moving(*values: Any) -> Any:
        operands = list(primals)
        for index, value in zip(moving, values, strict=True):
            operands[index] = value
        return _spelled_out(*operands, **parameters)

    directions = tuple(tangents[index] for index in moving)
    return jax.jvp(of_moving, tuple(primals[index] for index in moving), directions)


def _moved_transposed(cotangent: Any, *operands: Any, geometry: Geometry) -> list:
    """Returns the cotangents of the banks' and the weights' tangents, from one kernel."""
    inputs, banks, weights, *moved = operands
    arrays = {"inputs": inputs, "outputs": cotangent, "banks": banks, "weights": weights}
    wanted = tuple(
        name for name, one in zip(FILTERS, moved, strict=True) if ad.is_undefined_primal(one)
    )
    if isinstance(cotangent, ad.Zero):
        return [None] * len(operands)
    found = dict(zip(wanted, local(geometry, wanted, arrays), strict=True))
    return [None, None, None, *(found.get(name) for name in FILTERS)]


def _mapped(primitive: Any, operands: Sequence, axes: Sequence, **parameters: Any) -> tuple:
    """Computes one of a batch after another."""
    moving = [
        jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
        if axis is not None
    ]

    def one(some: Sequence) -> Any:
        rest = iter(some)
        every = [
            operand if axis is None else next(rest)
            for operand, axis in zip(operands, axes, strict=True)
        ]
        return primitive.bind(*every, **parameters)

    found = jax.lax.map(one, moving)
    return found, jax.tree.map(lambda _: 0, found)


local_p.def_abstract_eval(_abstract)
ad.primitive_jvps[local_p] = _tangent
ad.primitive_transposes[local_p] = _transposed
moved_p.def_abstract_eval(_moved_abstract)
ad.primitive_jvps[moved_p] = _moved_tangent
ad.primitive_transposes[moved_p] = _moved_transposed
mlir.register_lowering(moved_p, mlir.lower_fun(_spelled_out, multiple_results=False))
for _platform in (None, "tpu"):
    mlir.register_lowering(
        local_p,
        mlir.lower_fun(functools.partial(_compute, _platform is None), multiple_results=True),
        platform=_platform,
    )
for _primitive in (local_p, moved_p):
    _primitive.def_impl(functools.partial(_eagerly, _primitive))
    batching.primitive_batchers[_primitive] = functools.partial(_mapped, _primitive)
