"""Sixteen float32 lanes as one numba value, so that kernels are SIMD by construction.

A block of 4x4 pixels is one such value. LLVM maps it to one AVX-512 register, two AVX2 or four NEON ones; sums kept
in a loop stay in registers, which numba's auto-vectoriser (arrays that may alias) does not manage. Operators
+ - * / < <= > >= work between lanes, and between lanes and numbers; masks combine with & and |.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

_intrinsic: Any = numba.extending.intrinsic  # its type hints describe the undecorated function

WIDTH = 16
BLOCK = 4  # a block is BLOCK x BLOCK = WIDTH pixels; lane i is its pixel (i % BLOCK, i // BLOCK)

_F32 = ir.FloatType()
_VECTOR = ir.VectorType(_F32, WIDTH)
_INTS = ir.VectorType(ir.IntType(32), WIDTH)
_BOOLS = ir.VectorType(ir.IntType(1), WIDTH)
_FUSE = ("contract", "nsz")  # a * b + c may become one fused instruction; nothing else is reordered


class LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="lanes16")


class MaskType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="mask16")


LANES = LanesType()
MASK = MaskType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _BOOLS)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [float(np.float32(value))] * WIDTH)


def _broadcast(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """A number in every lane; lanes as they are."""
    if isinstance(kind, LanesType):
        return value
    number = context.cast(builder, value, kind, types.float32)
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INTS, [0] * WIDTH))


def _register(symbol: Any, result: Any, emit: Any) -> None:
    """Teach numba `symbol` between lanes and lanes or numbers."""

    @infer_global(symbol)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            fits = all(isinstance(arg, LanesType | types.Number) for arg in args)
            if len(args) == 2 and fits and LANES in args:
                return signature(result, *args)
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (_broadcast(context, builder, kind, arg) for kind, arg in zip(sig.args, args))
        return emit(builder, left, right)

    for pair in ((LANES, LANES), (LANES, types.Number), (types.Number, LANES)):
        lower_builtin(symbol, *pair)(lower)


for _symbol, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register(_symbol, LANES, lambda b, x, y, method=_method: getattr(b, method)(x, y, flags=_FUSE))
for _symbol, _test in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _register(_symbol, MASK, lambda b, x, y, test=_test: b.fcmp_ordered(test, x, y))


@infer_global(operator.and_)
@infer_global(operator.or_)
class _MaskTyping(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(MASK, MASK, MASK) if tuple(args) == (MASK, MASK) else None


lower_builtin(operator.and_, MASK, MASK)(lambda context, builder, sig, args: builder.and_(*args))
lower_builtin(operator.or_, MASK, MASK)(lambda context, builder, sig, args: builder.or_(*args))


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index_kind: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [context.cast(builder, index, index_kind, types.intp)])


@_intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """lanes = array[offset : offset + 16]; array: contiguous float32. No bounds check."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        return builder.load(builder.bitcast(pointer, ir.PointerType(_VECTOR)), align=4)

    return LANES(array, offset), emit


@_intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """array[offset : offset + 16] = lanes; array: contiguous float32. No bounds check."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], sig.args[1], args[1])
        builder.store(args[2], builder.bitcast(pointer, ir.PointerType(_VECTOR)), align=4)
        return context.get_dummy_value()

    return types.void(array, offset, value), emit


@_intrinsic
def fill(typingctx: Any, number: Any) -> Any:
    """The number in every lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(context, builder, sig.args[0], args[0])

    return LANES(number), emit


@_intrinsic
def lane_x(typingctx: Any) -> Any:
    """Column of each lane inside its block: 0 1 2 3 0 1 2 3 ..."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [float(i % BLOCK) for i in range(WIDTH)])

    return LANES(), emit


@_intrinsic
def lane_y(typingctx: Any) -> Any:
    """Row of each lane inside its block: 0 0 0 0 1 1 1 1 ..."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [float(i // BLOCK) for i in range(WIDTH)])

    return LANES(), emit


@_intrinsic
def lane_index(typingctx: Any) -> Any:
    """0 1 2 ... 15."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [float(i) for i in range(WIDTH)])

    return LANES(), emit


@_intrinsic
def select(typingctx: Any, mask: Any, yes: Any, no: Any) -> Any:
    """yes where the mask is set, no elsewhere; both may be lanes or numbers."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        chosen = (_broadcast(context, builder, kind, arg) for kind, arg in zip(sig.args[1:], args[1:]))
        return builder.select(args[0], *chosen)

    return LANES(mask, yes, no), emit


@_intrinsic
def anywhere(typingctx: Any, mask: Any) -> Any:
    """Whether any lane of the mask is set."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(WIDTH), 0))

    return types.boolean(mask), emit


@_intrinsic
def total(typingctx: Any, lanes: Any) -> Any:
    """Sum of the sixteen lanes, always in the same order."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = f"llvm.vector.reduce.fadd.v{WIDTH}f32"
        kind = ir.FunctionType(_F32, [_F32, _VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [ir.Constant(_F32, -0.0), args[0]], fastmath=("reassoc",))

    return types.float32(lanes), emit


def _unary(builder: Any, name: str, value: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{WIDTH}f32")
    return builder.call(function, [value])


@_intrinsic
def magnitude(typingctx: Any, lanes: Any) -> Any:
    """Absolute value of each lane."""
    return LANES(lanes), lambda context, builder, sig, args: _unary(builder, "fabs", args[0])


@_intrinsic
def sqrt(typingctx: Any, lanes: Any) -> Any:
    """Square root of each lane; NaN below zero."""
    return LANES(lanes), lambda context, builder, sig, args: _unary(builder, "sqrt", args[0])


def _pick(test: str) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (_broadcast(context, builder, kind, arg) for kind, arg in zip(sig.args, args))
        return builder.select(builder.fcmp_ordered(test, left, right), left, right)

    return emit


@_intrinsic
def smaller(typingctx: Any, left: Any, right: Any) -> Any:
    """The smaller of each two lanes (or number); the right one where either is NaN."""
    return LANES(left, right), _pick("<")


@_intrinsic
def larger(typingctx: Any, left: Any, right: Any) -> Any:
    """The larger of each two lanes (or number); the right one where either is NaN."""
    return LANES(left, right), _pick(">")


@_intrinsic
def row_bits(typingctx: Any, first: Any, past: Any) -> Any:
    """64 bits for 8x8 blocks: bit 8 i + j is set where first[i] <= j < past[i], for the first eight lanes i.

    Lanes hold numbers from 0 to 8, truncated to integers; past is nowhere below first."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        one = ir.Constant(_INTS, [1] * WIDTH)
        low, high = (builder.shl(one, builder.fptosi(arg, _INTS)) for arg in args)
        rows = builder.trunc(builder.sub(high, low), ir.VectorType(ir.IntType(8), WIDTH))
        halves = builder.bitcast(rows, ir.VectorType(ir.IntType(64), WIDTH // 8))
        return builder.extract_element(halves, ir.Constant(ir.IntType(32), 0))

    return types.uint64(first, past), emit


@_intrinsic
def lowest_bit(typingctx: Any, bits: Any) -> Any:
    """Index of the lowest bit set of a uint64 other than 0."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(bits), emit


# 2^f on [-1/2, 1/2]: Chebyshev fit of degree 5, relative error below 1e-7 before rounding
_NODES = np.cos(np.pi * (np.arange(64) + 0.5) / 64) / 2
_EXP2 = np.polynomial.Polynomial.fit(_NODES, 2.0**_NODES, 5, domain=[-0.5, 0.5], window=[-0.5, 0.5]).coef
_ROUND = 1.5 * 2**23  # adding it leaves the nearest integer in the low bits of a float32


def _exp2(builder: Any, x: Any) -> Any:
    shifted = builder.fadd(x, _constant(_ROUND))
    fraction = builder.fsub(x, builder.fsub(shifted, _constant(_ROUND)))
    power = _constant(_EXP2[5])
    for coefficient in _EXP2[4::-1]:
        power = builder.fadd(builder.fmul(power, fraction, flags=_FUSE), _constant(coefficient), flags=_FUSE)
    exponent = builder.shl(builder.bitcast(shifted, _INTS), ir.Constant(_INTS, [23] * WIDTH))
    return builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _VECTOR)


@_intrinsic
def exp2(typingctx: Any, lanes: Any) -> Any:
    """2^x of each lane, relative error 1e-7 (1 + |x|), for -126 <= x < 128; anything at all beyond."""
    return LANES(lanes), lambda context, builder, sig, args: _exp2(builder, args[0])


@_intrinsic
def exp(typingctx: Any, lanes: Any) -> Any:
    """e^x of each lane, relative error 1e-7 (1 + |x|); x is held between -87 and 88 (NaN becomes 88)."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        low, high = _constant(-87.0), _constant(88.0)
        x = builder.select(builder.fcmp_ordered("<", args[0], high), args[0], high)
        x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
        return _exp2(builder, builder.fmul(x, _constant(1 / math.log(2))))

    return LANES(lanes), emit


@_intrinsic
def reciprocal(typingctx: Any, lanes: Any) -> Any:
    """1 / x of each lane for normal positive numbers, relative error about 1e-7, in fewer cycles than a division."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # Negating the exponent field is a first guess within 12 %; each Newton step squares the error
        bits = builder.sub(ir.Constant(_INTS, [0x7EF311C3] * WIDTH), builder.bitcast(args[0], _INTS))
        guess = builder.bitcast(bits, _VECTOR)
        for _ in range(3):
            error = builder.fsub(_constant(1.0), builder.fmul(args[0], guess, flags=_FUSE), flags=_FUSE)
            guess = builder.fadd(guess, builder.fmul(guess, error, flags=_FUSE), flags=_FUSE)
        return guess

    return LANES(lanes), emit


@_intrinsic
def log(typingctx: Any, lanes: Any) -> Any:
    """Natural logarithm of each lane, for normal positive numbers; absolute error below 1e-7 near 1."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # x = 2^e m with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) leaves e in the exponent field
        bits = builder.bitcast(args[0], _INTS)
        root = int(np.float32(math.sqrt(0.5)).view(np.int32))
        shifted = builder.sub(bits, ir.Constant(_INTS, [root] * WIDTH))
        exponent = builder.ashr(shifted, ir.Constant(_INTS, [23] * WIDTH))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, ir.Constant(_INTS, [23] * WIDTH))), _VECTOR)
        # log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172
        s = builder.fdiv(builder.fsub(mantissa, _constant(1.0)), builder.fadd(mantissa, _constant(1.0)))
        square = builder.fmul(s, s)
        series = _constant(2 / 9)
        for coefficient in (2 / 7, 2 / 5, 2 / 3, 2.0):
            series = builder.fadd(builder.fmul(series, square, flags=_FUSE), _constant(coefficient), flags=_FUSE)
        whole = builder.fmul(builder.sitofp(exponent, _VECTOR), _constant(math.log(2)))
        return builder.fadd(builder.fmul(series, s, flags=_FUSE), whole, flags=_FUSE)

    return LANES(lanes), emit
