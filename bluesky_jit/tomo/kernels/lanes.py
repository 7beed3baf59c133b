"""Sixteen numbers at a time: vectors as values inside numba functions.

LLVM turns them into the widest instructions that the processor has: one of AVX-512, two of AVX2, four of NEON. Left to
find vectors in scalar loops by itself it takes half the width here, or none when it cannot prove that arrays lie apart.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

LANES = 16
VECTOR_BYTES = 4 * LANES
FAST_MATH = ("contract", "nsz")
"""A product and a sum may become one instruction, which rounds once; the sign of zero does not matter."""
OPTIONS = {
    "nogil": True,
    "fastmath": set(FAST_MATH),
    # Python's check for division by zero costs a branch each.
    "error_model": "numpy",
}

INT16, INT32, INT64, FLOAT32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


class Lanes(types.Type):
    """Describe a vector to numba."""

    def __init__(self, name: str, element: ir.Type, number: types.Type) -> None:
        self.vector = ir.VectorType(element, LANES)
        self.number = number
        super().__init__(name)


# For the type checker: an intrinsic's caller leaves its first argument out, and these are not typed.
intrinsic: Any = extending.intrinsic
inferred: Any = infer_global
register_model: Any = extending.register_model


@register_model(Lanes)
class _Model(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, kind.vector)


floats = Lanes("lanes of float32", FLOAT32, types.float32)
integers = Lanes("lanes of int32", INT32, types.int32)


def _operator(symbol: Callable[..., Any], lanes: Lanes, emit: Callable[[Any, Any, Any], Any]) -> None:
    """Let two vectors of a kind be combined with an operator."""

    @inferred(symbol)
    class _Template(ConcreteTemplate):
        cases = [signature(lanes, lanes, lanes)]  # noqa: RUF012 - numba wants a plain list

    extending.lower_builtin(symbol, lanes, lanes)(lambda _, builder, __, arguments: emit(builder, *arguments))


_operator(operator.add, floats, lambda builder, a, b: builder.fadd(a, b, flags=FAST_MATH))
_operator(operator.sub, floats, lambda builder, a, b: builder.fsub(a, b, flags=FAST_MATH))
_operator(operator.mul, floats, lambda builder, a, b: builder.fmul(a, b, flags=FAST_MATH))
_operator(operator.truediv, floats, lambda builder, a, b: builder.fdiv(a, b, flags=FAST_MATH))
_operator(operator.add, integers, lambda builder, a, b: builder.add(a, b))
_operator(operator.mul, integers, lambda builder, a, b: builder.mul(a, b))


@intrinsic
def each(typing, number):
    """Return a vector with a float32 or an int32 in every lane."""
    lanes = floats if isinstance(number, types.Float) else integers

    def generate(context, builder, signature, arguments):
        nothing = ir.Constant(lanes.vector, ir.Undefined)
        one = builder.insert_element(nothing, arguments[0], ir.Constant(INT32, 0))
        return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))

    return lanes(lanes.number), generate


def _loader(lanes: Lanes) -> Any:
    def load(typing, address):
        def generate(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], lanes.vector.as_pointer())
            return builder.load(pointer, typ=lanes.vector, align=4)

        return lanes(types.int64), generate

    return intrinsic(load)


load_floats = _loader(floats)
load_integers = _loader(integers)


@intrinsic
def store(typing, address, values):
    """Write a vector to an address."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], values.vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, values), generate


@intrinsic
def prefetch(typing, address):
    """Ask for the cache line at an address, without waiting for it; any address will do."""

    def generate(context, builder, signature, arguments):
        bytes_pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [bytes_pointer, INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        # To read; into the nearest cache; data.
        hints = [ir.Constant(INT32, number) for number in (0, 3, 1)]
        builder.call(function, [builder.inttoptr(arguments[0], bytes_pointer), *hints])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def truncated(typing, values):
    """Return floats without what is behind the point, as integers."""
    return integers(floats), lambda _, builder, __, arguments: builder.fptosi(arguments[0], integers.vector)


@intrinsic
def as_floats(typing, values):
    return floats(integers), lambda _, builder, __, arguments: builder.sitofp(arguments[0], floats.vector)


def _choice(symbol: str, lanes: Lanes) -> Any:
    def chosen(typing, a, b):
        def generate(context, builder, signature, arguments):
            compare = builder.fcmp_ordered if lanes is floats else builder.icmp_signed
            return builder.select(compare(symbol, *arguments), *arguments)

        return lanes(lanes, lanes), generate

    return intrinsic(chosen)


lesser = _choice("<", floats)
greater = _choice(">", floats)
lesser_integers = _choice("<", integers)


@intrinsic
def zero_unless_above(typing, values, depths, limit):
    """Return values where depths are above a limit, and zero elsewhere, NaN included."""

    def generate(context, builder, signature, arguments):
        above = builder.fcmp_ordered(">", arguments[1], arguments[2])
        return builder.select(above, arguments[0], ir.Constant(floats.vector, [0.0] * LANES))

    return floats(floats, floats, floats), generate


@intrinsic
def first_halves(typing, words):
    """Return the first of the two int16 in each word (little-endian) as floats."""

    def generate(context, builder, signature, arguments):
        return builder.sitofp(builder.trunc(arguments[0], ir.VectorType(INT16, LANES)), floats.vector)

    return floats(integers), generate


@intrinsic
def second_halves(typing, words):
    """Return the second of the two int16 in each word (little-endian) as floats."""

    def generate(context, builder, signature, arguments):
        half = ir.Constant(integers.vector, [16] * LANES)
        return builder.sitofp(builder.ashr(arguments[0], half), floats.vector)

    return floats(integers), generate


def _every_other(first: int) -> Any:
    def load(typing, address):
        def generate(context, builder, signature, arguments):
            pairs = ir.VectorType(FLOAT32, 2 * LANES)
            both = builder.load(builder.inttoptr(arguments[0], pairs.as_pointer()), typ=pairs, align=4)
            lanes = ir.Constant(ir.VectorType(INT32, LANES), [2 * k + first for k in range(LANES)])
            return builder.shuffle_vector(both, ir.Constant(pairs, ir.Undefined), lanes)

        return floats(types.int64), generate

    return intrinsic(load)


load_first_of_pairs = _every_other(0)
load_second_of_pairs = _every_other(1)


def _copier(bits: int, element_bytes: int) -> Any:
    word = ir.IntType(bits)

    def copy(typing, to, base, index_address):
        def generate(context, builder, signature, arguments):
            target, base, index_address = arguments
            index = builder.load(builder.inttoptr(index_address, INT32.as_pointer()), typ=INT32, align=4)
            offset = builder.mul(builder.sext(index, INT64), ir.Constant(INT64, element_bytes))
            source = builder.inttoptr(builder.add(base, offset), word.as_pointer())
            value = builder.load(source, typ=word, align=element_bytes)
            builder.store(value, builder.inttoptr(target, word.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), generate

    return intrinsic(copy)


copy_int16_pair = _copier(32, 2)
"""Copy int16 elements i and i + 1 after a base, as one (unaligned) word, to an address; i is the int32 at another."""
copy_float_pair = _copier(64, 4)
"""Do the same for two float32."""


@njit(forceinline=True, **OPTIONS)
def aligned(n_vectors):
    """Return float32 zeros for so many vectors, and the address of the first, which no cache line divides."""
    room = np.zeros((n_vectors + 1) * LANES, dtype=np.float32)
    address = np.int64(room.ctypes.data)
    return room, address + (-address) % VECTOR_BYTES
