"""The passes of a row convolution, as vector instructions: LLVM cannot know that a butterfly's legs do not overlap.

Points are float32 (n_padded, 2, LANES): real and imaginary parts of LANES rows, or of pairs of rows. Instructions and
loops share this file because numba's cache notices changes only in the file of the loop.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, njit, types

LANES = 16
"""Pairs of rows at once: what a 512-bit register holds. Narrower processors take two or four registers for it."""
ROWS = 2 * LANES
CACHED_POINTS = 192
"""Points of a transform, 128 bytes each, that stay in a core's first cache (32 kB and more) through all passes."""
ALIGNMENT = 64
"""Bytes of a 512-bit register, and of a cache line: a vector that begins elsewhere would be read from two lines."""
OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}

# For the type checker: a caller leaves an intrinsic's first argument out.
intrinsic: Any = extending.intrinsic

Value = tuple[Any, Any]
"""A complex number in LLVM's hands: a vector of real parts and one of imaginary parts."""

FLOAT, INDEX = ir.FloatType(), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
FLAGS = ("contract", "nsz")


def _vector(value: float) -> ir.Constant:
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, float(np.float32(value)))] * LANES)


def _add(b: Any, x: Value, y: Value) -> Value:
    return b.fadd(x[0], y[0], flags=FLAGS), b.fadd(x[1], y[1], flags=FLAGS)


def _subtract(b: Any, x: Value, y: Value) -> Value:
    return b.fsub(x[0], y[0], flags=FLAGS), b.fsub(x[1], y[1], flags=FLAGS)


def _scale(b: Any, x: Value, factor: Any) -> Value:
    return b.fmul(x[0], factor, flags=FLAGS), b.fmul(x[1], factor, flags=FLAGS)


def _multiply(b: Any, x: Value, y: Value) -> Value:
    return _add(b, _scale(b, x, y[0]), _scale(b, (b.fneg(x[1]), x[0]), y[1]))


def _turn(b: Any, x: Value, sign: int) -> Value:
    """Multiply by i for sign +1 (inverse passes) and by −i for −1 (forward passes)."""
    return (b.fneg(x[1]), x[0]) if sign > 0 else (x[1], b.fneg(x[0]))


def _butterfly(b: Any, x: list[Value], sign: int) -> list[Value]:
    """Return the discrete Fourier transform of 2, 3, 4 or 8 values, with exp(sign · 2πi …)."""
    if len(x) == 2:
        return [_add(b, x[0], x[1]), _subtract(b, x[0], x[1])]
    if len(x) == 3:
        both = _add(b, x[1], x[2])
        middle = _subtract(b, x[0], _scale(b, both, _vector(0.5)))
        aside = _turn(b, _scale(b, _subtract(b, x[1], x[2]), _vector(math.sqrt(3) / 2)), sign)
        return [_add(b, x[0], both), _add(b, middle, aside), _subtract(b, middle, aside)]
    even, odd = _butterfly(b, x[0::2], sign), _butterfly(b, x[1::2], sign)
    turned = [odd[0], *(_eighth(b, y, sign, k * 8 // len(x)) for k, y in enumerate(odd) if k)]
    pairs = list(zip(even, turned, strict=True))
    return [_add(b, x, y) for x, y in pairs] + [_subtract(b, x, y) for x, y in pairs]


def _eighth(b: Any, x: Value, sign: int, eighths: int) -> Value:
    """Multiply by exp(sign · 2πi · eighths / 8), for 1 to 3 eighths."""
    turned = _turn(b, x, sign)
    if eighths == 2:
        return turned
    return _scale(b, _add(b, turned, x) if eighths == 1 else _subtract(b, turned, x), _vector(math.sqrt(0.5)))


def _transposed(b: Any, rows: list[Any]) -> list[Any]:
    """Return the columns of a square of LANES vectors, each step swapping halves of ever smaller squares."""
    size = LANES // 2
    while size:
        low = [lane if not lane & size else lane - size + LANES for lane in range(LANES)]
        high = [lane + size if not lane & size else lane + LANES for lane in range(LANES)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask) for mask in (low, high)]
        swapped = list(rows)
        for k in range(LANES):
            if not k & size:
                pair = rows[k], rows[k + size]
                swapped[k], swapped[k + size] = (b.shuffle_vector(*pair, mask) for mask in masks)
        rows, size = swapped, size // 2
    return rows


def _data(context: Any, b: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, b, array).data


def _at(b: Any, data: Any, index: Any) -> Any:
    return b.bitcast(b.gep(data, [index]), VECTOR.as_pointer())


def _times(b: Any, index: Any, factor: int) -> Any:
    return b.mul(index, ir.Constant(INDEX, factor))


def _plus(b: Any, index: Any, more: int) -> Any:
    return b.add(index, ir.Constant(INDEX, more))


@intrinsic(prefer_literal=True)
def _step(typingctx, radix, way, points, first, stride, table, entry):
    """Do one butterfly in place on points first, first + stride, …

    way: −1 forward, then times the factors in table; 1 inverse, after times their conjugates; 0 the last forward pass,
    the response in table and the first inverse pass. Both radix and way are written out where it is called.
    """
    n, sign = radix.literal_value, way.literal_value

    def generate(context, b, signature, arguments):
        data, factors = (_data(context, b, signature.args[k], arguments[k]) for k in (2, 5))
        first, stride, entry = arguments[3], arguments[4], arguments[6]

        def place(leg, part):
            return _at(b, data, _plus(b, _times(b, b.add(first, _times(b, stride, leg)), ROWS), part * LANES))

        def factor(k):
            one = b.insert_element(
                ir.Constant(VECTOR, ir.Undefined),
                b.load(b.gep(factors, [_plus(b, entry, k)])),
                ir.Constant(ir.IntType(32), 0),
            )
            everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return b.shuffle_vector(one, ir.Constant(VECTOR, ir.Undefined), everywhere)

        x = [(b.load(place(leg, 0), align=ALIGNMENT), b.load(place(leg, 1), align=ALIGNMENT)) for leg in range(n)]
        if sign < 0:
            x = _butterfly(b, x, sign)
            turns = [(factor(2 * leg - 2), factor(2 * leg - 1)) for leg in range(1, n)]
            x = [x[0], *(_multiply(b, value, turn) for value, turn in zip(x[1:], turns, strict=True))]
        elif sign > 0:
            turns = [(factor(2 * leg - 2), b.fneg(factor(2 * leg - 1))) for leg in range(1, n)]
            x = [x[0], *(_multiply(b, value, turn) for value, turn in zip(x[1:], turns, strict=True))]
            x = _butterfly(b, x, sign)
        else:
            x = [_scale(b, value, factor(leg)) for leg, value in enumerate(_butterfly(b, x, -1))]
            x = _butterfly(b, x, 1)
        for leg, value in enumerate(x):
            b.store(value[0], place(leg, 0), align=ALIGNMENT)
            b.store(value[1], place(leg, 1), align=ALIGNMENT)
        return context.get_dummy_value()

    return types.void(radix, way, points, first, stride, table, entry), generate


@intrinsic
def _gather_square(typingctx, rows, weight, row, column, points, part):
    """Write LANES columns of LANES rows, times their weight, as one part (0 real, 1 imaginary) of as many points."""

    def generate(context, b, signature, arguments):
        n_u = b.extract_value(context.make_array(signature.args[0])(context, b, arguments[0]).shape, 1)
        source, factors, target = (_data(context, b, signature.args[k], arguments[k]) for k in (0, 1, 4))
        row, column, part = arguments[2], arguments[3], arguments[5]
        vectors = []
        for k in range(LANES):
            index = b.add(b.mul(_plus(b, row, k), n_u), column)
            value, factor = (b.load(_at(b, array, index), align=4) for array in (source, factors))
            vectors.append(b.fmul(value, factor, flags=FLAGS))
        for k, vector in enumerate(_transposed(b, vectors)):
            index = b.add(_times(b, _plus(b, column, k), ROWS), _times(b, part, LANES))
            b.store(vector, _at(b, target, index), align=ALIGNMENT)
        return context.get_dummy_value()

    return types.void(rows, weight, row, column, points, part), generate


@intrinsic
def _scatter_square(typingctx, points, part, result, row, column):
    """Write one part of LANES points to LANES columns of as many rows."""

    def generate(context, b, signature, arguments):
        n_u = b.extract_value(context.make_array(signature.args[2])(context, b, arguments[2]).shape, 1)
        source, target = (_data(context, b, signature.args[k], arguments[k]) for k in (0, 2))
        part, row, column = arguments[1], arguments[3], arguments[4]
        vectors = []
        for k in range(LANES):
            index = b.add(_times(b, _plus(b, column, k), ROWS), _times(b, part, LANES))
            vectors.append(b.load(_at(b, source, index), align=ALIGNMENT))
        for k, vector in enumerate(_transposed(b, vectors)):
            b.store(vector, _at(b, target, b.add(b.mul(_plus(b, row, k), n_u), column)), align=4)
        return context.get_dummy_value()

    return types.void(points, part, result, row, column), generate


# ── the loops ────────────────────────────────────────────────────────────────────────────────────────────────────────


@njit(**OPTIONS)
def _forward(points, base, length, radix, twiddles, offset):
    stride = length // radix
    for j in range(stride):
        if radix == 8:
            _step(8, -1, points, base + j, stride, twiddles, offset + 14 * j)
        elif radix == 4:
            _step(4, -1, points, base + j, stride, twiddles, offset + 6 * j)
        elif radix == 2:
            _step(2, -1, points, base + j, stride, twiddles, offset + 2 * j)
        else:
            _step(3, -1, points, base + j, stride, twiddles, offset + 4 * j)


@njit(**OPTIONS)
def _inverse(points, base, length, radix, twiddles, offset):
    stride = length // radix
    for j in range(stride):
        if radix == 8:
            _step(8, 1, points, base + j, stride, twiddles, offset + 14 * j)
        elif radix == 4:
            _step(4, 1, points, base + j, stride, twiddles, offset + 6 * j)
        elif radix == 2:
            _step(2, 1, points, base + j, stride, twiddles, offset + 2 * j)
        else:
            _step(3, 1, points, base + j, stride, twiddles, offset + 4 * j)


@njit(**OPTIONS)
def _respond(points, base, length, radix, response):
    for first in range(base, base + length, radix):
        if radix == 8:
            _step(8, 0, points, first, 1, response, first)
        elif radix == 4:
            _step(4, 0, points, first, 1, response, first)
        elif radix == 2:
            _step(2, 0, points, first, 1, response, first)
        else:
            _step(3, 0, points, first, 1, response, first)


@njit(**OPTIONS)
def _transform(points, radices, lengths, offsets, twiddles, response):
    """Convolve the points in place, pass by pass while blocks are large, and then block by block."""
    n, last, whole = len(points), len(radices) - 1, 0
    while whole < last and lengths[whole] > CACHED_POINTS:
        for base in range(0, n, lengths[whole]):
            _forward(points, base, lengths[whole], radices[whole], twiddles, offsets[whole])
        whole += 1
    for block in range(0, n, lengths[whole]):
        for k in range(whole, last):
            for base in range(block, block + lengths[whole], lengths[k]):
                _forward(points, base, lengths[k], radices[k], twiddles, offsets[k])
        _respond(points, block, lengths[whole], radices[last], response)
        for k in range(last - 1, whole - 1, -1):
            for base in range(block, block + lengths[whole], lengths[k]):
                _inverse(points, base, lengths[k], radices[k], twiddles, offsets[k])
    for k in range(whole - 1, -1, -1):
        for base in range(0, n, lengths[k]):
            _inverse(points, base, lengths[k], radices[k], twiddles, offsets[k])


@njit(**OPTIONS)
def convolve(rows, weight, result, points, radices, lengths, offsets, twiddles, response):
    n_v, n_u = rows.shape
    squares = n_u // LANES * LANES
    for first in range(0, n_v, ROWS):
        for part in range(2):
            row = first + part * LANES
            whole = row + LANES <= n_v
            if whole:
                for column in range(0, squares, LANES):
                    _gather_square(rows, weight, row, column, points, part)
            for column in range(squares if whole else 0, n_u):
                for lane in range(LANES):
                    inside = row + lane < n_v
                    value = rows[row + lane, column] * weight[row + lane, column] if inside else np.float32(0)
                    points[column, part, lane] = value
        points[n_u:] = 0
        _transform(points, radices, lengths, offsets, twiddles, response)
        for part in range(2):
            row = first + part * LANES
            whole = row + LANES <= n_v
            if whole:
                for column in range(0, squares, LANES):
                    _scatter_square(points, part, result, row, column)
            for column in range(squares if whole else 0, n_u):
                for lane in range(min(LANES, n_v - row)):
                    result[row + lane, column] = points[column, part, lane]
