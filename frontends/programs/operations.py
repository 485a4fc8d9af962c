"""Short constructors of tile operations; operands are written `name` or `name@distance`."""

from __future__ import annotations

from treadle.ir.tile.program import Memory, Operand, OperationKind, Tile, TileOperation


def reads(*names: str) -> tuple[Operand, ...]:
    """Return operands from their text: `acc@1` is `acc` of one iteration ago."""
    operands: list[Operand] = []
    for name in names:
        value, _, distance = name.partition("@")
        operands.append(Operand(value, int(distance or 0)))
    return tuple(operands)


def load(name: str, shape: tuple[int, ...], dtype: str, note: str = "") -> TileOperation:
    """Copy a tile from global to shared memory."""
    return TileOperation(name, OperationKind.LOAD, (), Tile(shape, dtype, Memory.SHARED), note=note)


def load_at(name: str, where: tuple[str, ...], shape: tuple[int, ...], dtype: str, note: str = "") -> TileOperation:
    """Copy a tile whose addresses depend on the values `where` from global to shared memory."""
    return TileOperation(name, OperationKind.LOAD, reads(*where), Tile(shape, dtype, Memory.SHARED), note=note)


def store(name: str, value: str, shape: tuple[int, ...], dtype: str, note: str = "") -> TileOperation:
    """Copy a tile to global memory."""
    return TileOperation(name, OperationKind.STORE, reads(value), Tile(shape, dtype, Memory.GLOBAL), note=note)


def mma(name: str, operands: tuple[str, ...], shape: tuple[int, int], depth: int, note: str = "") -> TileOperation:
    """Multiply tiles on the tensor core into float32: (a, b) or (a, b, accumulator)."""
    tile = Tile(shape, "float32", Memory.REGISTER)
    return TileOperation(name, OperationKind.MMA, reads(*operands), tile, depth=depth, note=note)


def compute(
    name: str,
    kind: OperationKind,
    operands: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: str = "float32",
    work: float = 1,
    note: str = "",
) -> TileOperation:
    """Compute a tile in registers."""
    return TileOperation(name, kind, reads(*operands), Tile(shape, dtype, Memory.REGISTER), work=work, note=note)
