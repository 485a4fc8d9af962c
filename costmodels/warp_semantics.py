"""What tile operations compute, in float64: by family where arithmetic is known, else as uninterpreted functions.

Row vectors (rows,) meet blocks (rows, columns) along rows. Values before the first iteration are zeros, except running
maxima. An uninterpreted operation mixes all elements of its operands irreversibly, so that any operand exchanged for
another, of another iteration, or half written, changes the result; it needs no knowledge of the family.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.errors import UnsupportedOperation
from treadle.ir.tile.program import OperationKind, TileOperation, TileProgram

Array = NDArray[np.float64]
Rule = Callable[..., Array]


class Semantics(Protocol):
    """What the interpreter asks."""

    def load(self, name: str, iteration: int) -> Array:
        """Return the tile that a load brings in an iteration."""
        ...

    def invariant(self, name: str) -> Array:
        """Return a tile that is there before the loop."""
        ...

    def initial(self, name: str) -> Array:
        """Return what a carried value is before the first iteration."""
        ...

    def apply(self, name: str, operands: Sequence[Array]) -> Array:
        """Return the result of an operation."""
        ...


def _block(row: Array) -> Array:
    return row[..., None]


def _high(block: Array) -> Array:
    result: Array = block.max(-1)
    return result


def _total(block: Array) -> Array:
    result: Array = block.sum(-1)
    return result


def _larger(tile: Array, before: Array) -> Array:
    return np.maximum(tile, before)


def _power(exponent: Array) -> Array:
    result: Array = np.exp2(exponent)
    return result


def _same(block: Array) -> Array:
    return block


def _rescaled_sum(total: Array, alpha: Array, tile: Array) -> Array:
    return total * alpha + tile


def _rescaled(block: Array, alpha: Array) -> Array:
    return block * _block(alpha)


_SOFTMAX: dict[str, Rule] = {
    "tile_max": _high,
    "row_max": _larger,
    "alpha": _power,
    "weights": _power,
    "tile_sum": _total,
    "row_sum": _rescaled_sum,
    "weights_low": _same,
    "rescaled": _rescaled,
}

RULES: dict[str, dict[str, Rule]] = {
    "gemm": {},
    "grouped_gemm": {},
    "swiglu": {},
    "attention_fwd": _SOFTMAX,
}
"""Rules by family and by name of the operation without its sub-tile; products and conversions need none."""

_LOW = {"row_max": -np.inf}


class FamilySemantics:
    """Arithmetic of a program of the library on random tiles; `values` keeps what was drawn."""

    def __init__(self, program: TileProgram, seed: int) -> None:
        self.program = program
        self.chance = np.random.default_rng(seed)
        self.drawn: dict[tuple[str, int], Array] = {}
        rules = RULES.get(program.family)
        if rules is None:
            raise UnsupportedOperation(
                operation=program.name, program=program.name, what="interpreting this family", machine="numpy"
            )
        self.rules = rules

    @property
    def scale(self) -> float:
        """Scale of attention scores in base 2."""
        return math.log2(math.e) / math.sqrt(self.program.shape.get("qk_head_dim", 1))

    def load(self, name: str, iteration: int) -> Array:
        """Return the tile that a load brings in an iteration, the same one whenever it is asked for."""
        key = (name, iteration)
        if key not in self.drawn:
            rng = np.random.default_rng([zlib.crc32(name.encode()), iteration + 1])
            self.drawn[key] = rng.standard_normal(self.program.tile_of(name).shape)
        return self.drawn[key]

    def invariant(self, name: str) -> Array:
        """Return a tile that is there before the loop."""
        return self.load(name, -1)

    def initial(self, name: str) -> Array:
        """Return zeros, or minus infinity for a running maximum."""
        base = name.partition(".")[0]
        return np.full(self.program.tile_of(base).shape, _LOW.get(_stem(base), 0.0))

    def apply(self, name: str, operands: Sequence[Array]) -> Array:
        """Return the result of an operation."""
        operation = self.program.operation(name)
        match operation.kind:
            case OperationKind.MMA:
                return _product(operation, operands)
            case OperationKind.CONVERT | OperationKind.BARRIER:
                return operands[0]
            case _:
                pass
        stem = _stem(name)
        if stem == "shifted":
            return self.scale * (operands[0] - _block(operands[1]))
        if stem == "drop":
            with np.errstate(invalid="ignore"):
                return self.scale * (operands[0] - operands[1])
        if stem not in self.rules:
            raise UnsupportedOperation(
                operation=name, program=self.program.name, what="interpreting it", machine="numpy"
            )
        result: Array = self.rules[stem](*operands)
        return result


def _product(operation: TileOperation, operands: Sequence[Array]) -> Array:
    """a (m, k) times b (n, k) transposed, or b (k, n) where the note says so (`P V`)."""
    a, b = operands[0], operands[1]
    result = a @ (b if operation.note == "P V" else b.swapaxes(-1, -2))
    return result + operands[2] if len(operands) > 2 else result


def _stem(name: str) -> str:
    """Name without the number of a sub-tile."""
    head, _, tail = name.rpartition("_")
    return head if tail.isdigit() else name


class MixedSemantics:
    """Uninterpreted functions over vectors of `WIDTH` numbers, for any loop."""

    WIDTH = 4

    def load(self, name: str, iteration: int) -> Array:
        """Return numbers that only this load in this iteration gives."""
        return np.random.default_rng([zlib.crc32(name.encode()), iteration + 1]).standard_normal(self.WIDTH)

    def invariant(self, name: str) -> Array:
        """Return numbers that stand for an invariant."""
        return self.load(name, -1)

    def initial(self, name: str) -> Array:
        """Return numbers that stand for the initial value."""
        return self.load(f"{name} before", -1)

    def apply(self, name: str, operands: Sequence[Array]) -> Array:
        """Return numbers that depend on the operation and on every operand and its place."""
        result = self.load(f"{name} of", len(operands))
        for place, operand in enumerate(operands):
            result = np.sin(3.0 * result + (place + 1.5) * np.roll(operand, place + 1))
        return result
