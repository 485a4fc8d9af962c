"""What tile operations compute: arithmetic on random tiles for the library, uninterpreted functions for any loop.

An uninterpreted operation mixes all elements of its operands irreversibly, so that any operand exchanged for another,
of another iteration, or half written, changes the result; it needs no knowledge of the family.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from treadle.costmodels.errors import UnsupportedOperation
from treadle.costmodels.warp_rules import INITIAL, LIE, RULES, Array
from treadle.ir.tile.program import OperationKind, TileProgram


class Semantics(Protocol):
    """What the interpreter asks."""

    def invariant(self, name: str) -> Array:
        """Return a tile that is there before the loop."""
        ...

    def initial(self, name: str) -> Array:
        """Return what a carried value is before the first iteration."""
        ...

    def apply(self, name: str, iteration: int, operands: Sequence[Array]) -> Array:
        """Return the result of an operation in an iteration."""
        ...


def _drawn(name: str, iteration: int, shape: tuple[int, ...] | int) -> Array:
    return np.random.default_rng([zlib.crc32(name.encode()), iteration + 1]).standard_normal(shape)


class FamilySemantics:
    """Arithmetic of a program of the library on random tiles."""

    def __init__(self, program: TileProgram) -> None:
        self.program = program
        self.family = next((family for family in _families(program.family) if family in RULES), "")
        if not self.family:
            raise UnsupportedOperation(
                operation=program.name, program=program.name, what="interpreting this family", machine="numpy"
            )

    @property
    def scale(self) -> float:
        """Scale of attention scores in base 2."""
        return math.log2(math.e) / math.sqrt(self.program.shape.get("qk_head_dim", 1))

    def load(self, name: str, iteration: int) -> Array:
        """Return the tile that a load brings in an iteration, the same one whenever it is asked for."""
        return _drawn(name, iteration, self.program.tile_of(name).shape)

    def invariant(self, name: str) -> Array:
        """Return a tile that is there before the loop."""
        return self.load(name, -1)

    def initial(self, name: str) -> Array:
        """Return zeros, or the neutral element of a running maximum or minimum."""
        base = name.partition(".")[0]
        return np.full(self.program.tile_of(base).shape, INITIAL.get(_stem(base), 0.0))

    def apply(self, name: str, iteration: int, operands: Sequence[Array]) -> Array:
        """Return the result of an operation or of a transfer."""
        if "." in name:
            return operands[0]
        operation, stem = self.program.operation(name), _stem(name)
        rule = RULES[self.family].get(stem)
        if operation.kind is OperationKind.LOAD:
            return self.load(name, iteration)
        if operation.kind is OperationKind.MMA:
            return self._product(name, stem, operands)
        if stem == "shifted":
            statistic = operands[1] if self.family == "attention_bwd" else operands[1][:, None]
            return self.scale * (operands[0] - statistic)
        if stem == "drop":
            return self.scale * (operands[0] - operands[1])
        if stem == "index":
            columns = self.program.operation(name.replace("index", "distance")).result.shape[1]
            return np.where(operands[0] > 0, operands[1] + iteration * columns, operands[2])
        if rule is None and operation.kind in (OperationKind.CONVERT, OperationKind.STORE, OperationKind.BARRIER):
            return operands[0]
        if rule is None:
            raise UnsupportedOperation(operation=name, program=self.program.name, what="it", machine="the interpreter")
        return rule(*operands)

    def _product(self, name: str, stem: str, operands: Sequence[Array]) -> Array:
        a, b = operands[0], operands[1]
        lie = LIE.get(self.family, {}).get(stem.partition("_")[0], "nt")
        if lie == "tn":
            rows = self.program.operation(name).result.shape[0]
            piece = name.rpartition("_")[2] if a.shape[1] > rows else "0"
            a = a[:, int(piece) * rows : (int(piece) + 1) * rows].T
        result = a @ (b.T if lie == "nt" else b)
        return result + operands[2] if len(operands) > 2 else result


def _families(name: str) -> list[str]:
    """A family and, for a sibling loop named after it, the families its name begins with, longest first."""
    words = name.split("_")
    return ["_".join(words[:count]) for count in range(len(words), 0, -1)]


def _stem(name: str) -> str:
    """Name without the number of a sub-tile."""
    head, _, tail = name.rpartition("_")
    return head if tail.isdigit() and head else name


class MixedSemantics:
    """Uninterpreted functions over vectors of `WIDTH` numbers, for any loop."""

    WIDTH = 4

    def invariant(self, name: str) -> Array:
        """Return numbers that stand for an invariant."""
        return _drawn(name, -1, self.WIDTH)

    def initial(self, name: str) -> Array:
        """Return numbers that stand for the initial value."""
        return _drawn(f"{name} before", -1, self.WIDTH)

    def apply(self, name: str, iteration: int, operands: Sequence[Array]) -> Array:
        """Return numbers that depend on the operation, every operand and its place; of a load, on the iteration."""
        result = _drawn(name, iteration if not operands else -1, self.WIDTH)
        for place, operand in enumerate(operands):
            result = np.sin(3.0 * result + (place + 1.5) * np.roll(operand, place + 1))
        return result
