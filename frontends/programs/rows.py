"""Splits the rows of a product's tile over warp groups: each part accumulates in registers of its own.

A warp group holds at most 224 accumulators a thread, so a 128 x 256 tile takes two of them, which share the operand of
the columns (cooperative groups of CUTLASS). Values of rows get the suffix of their part, as sub-tiles of attention do.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.programs.errors import InvalidOption
from treadle.ir.tile.program import Invariant, Operand, OperationKind, Tile, TileOperation, TileProgram

ROW_PARTS = "row_parts"
"""Option of a program whose rows are split: how many parts there are."""


def row_values(program: TileProgram) -> frozenset[str]:
    """Return the values that have the rows of the products' results: left operands, products, what is made of them.

    What left operands are made of has their rows too, as far as its first extent says so.
    """
    products = [operation for operation in program.operations if operation.kind is OperationKind.MMA]
    height = max((product.result.shape[0] for product in products), default=0)
    rows = {operation.operands[0].value for operation in products} | {operation.name for operation in products}
    for operation in reversed(program.operations):
        if operation.name in rows and operation.kind is not OperationKind.MMA:
            read = (operand.value for operand in operation.operands)
            rows |= {value for value in read if program.tile_of(value).shape[0] == height}
    for operation in program.operations:
        if any(operand.value in rows for operand in operation.operands):
            rows.add(operation.name)
    return frozenset(rows)


def splits_rows(program: TileProgram, parts: int, least_rows: int = 64) -> bool:
    """Whether every product's rows can be cut into `parts` of at least `least_rows`, which nothing else shares."""
    products = [operation for operation in program.operations if operation.kind is OperationKind.MMA]
    rows = row_values(program)
    shared = {operation.operands[1].value for operation in products}
    heights = {operation.result.shape[0] for operation in products}
    cut = all(program.tile_of(name).shape[0] in heights for name in rows)
    own = all(invariant.name in rows for invariant in program.invariants)
    lines = {o.name for o in program.operations if o.kind is OperationKind.LOAD and len(o.result.shape) == 1}
    unclear = any(
        operand.value in lines & rows and set(operation.result.shape) == heights and len(operation.result.shape) > 1
        for operation in program.operations
        for operand in operation.operands
    )
    plain = own and cut and not unclear and "sub_tiles" not in program.tile_sizes
    return (
        bool(products)
        and plain
        and not program.siblings
        and not shared & rows
        and all(h % parts == 0 and h // parts >= least_rows for h in heights)
    )


def split_rows(program: TileProgram, parts: int) -> TileProgram:
    """Return the program with the rows of its tile cut into `parts`.

    Raises:
        InvalidOption: `splits_rows` says that they cannot be.
    """
    if not splits_rows(program, parts, least_rows=16):
        expected = "a number that cuts the rows of products without invariants evenly"
        raise InvalidOption(family=program.family, key=ROW_PARTS, found=parts, expected=expected)
    rows = row_values(program)
    operations: list[TileOperation] = []
    for operation in program.operations:
        if operation.name not in rows:
            operations.append(operation)
            continue
        operations += [_part(operation, part, parts, rows) for part in range(parts)]
    loads = [operation for operation in operations if operation.kind is OperationKind.LOAD]
    others = [operation for operation in operations if operation.kind is not OperationKind.LOAD]
    invariants = tuple(
        Invariant(f"{invariant.name}_{part}", _cut(invariant.tile, parts))
        for invariant in program.invariants
        for part in range(parts)
    )
    options = {**program.options, ROW_PARTS: parts}
    return replace(program, operations=(*loads, *others), invariants=invariants, options=options)


def _cut(tile: Tile, parts: int) -> Tile:
    height, *rest = tile.shape
    return Tile((height // parts, *rest), tile.dtype, tile.memory)


def _part(operation: TileOperation, part: int, parts: int, rows: frozenset[str]) -> TileOperation:
    operands = tuple(
        Operand(f"{operand.value}_{part}" if operand.value in rows else operand.value, operand.distance)
        for operand in operation.operands
    )
    return replace(operation, name=f"{operation.name}_{part}", operands=operands, result=_cut(operation.result, parts))
