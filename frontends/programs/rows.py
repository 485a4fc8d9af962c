"""Splits the rows of a product's tile over warp groups: each part accumulates in registers of its own.

A warp group holds at most 224 accumulators a thread, so a 128 x 256 tile takes two of them, which share the operand of
the columns (cooperative groups of CUTLASS). Values of rows get the suffix of their part, as sub-tiles of attention do.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.frontends.programs.errors import InvalidOption
from treadle.ir.tile.program import Operand, OperationKind, Tile, TileOperation, TileProgram

ROW_PARTS = "row_parts"
"""Option of a program whose rows are split: how many parts there are."""


def row_values(program: TileProgram) -> frozenset[str]:
    """Return the values that have the rows of the products' results: left operands, products, what is made of them."""
    products = [operation for operation in program.operations if operation.kind is OperationKind.MMA]
    rows = {operation.operands[0].value for operation in products} | {operation.name for operation in products}
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
    plain = not program.invariants and "sub_tiles" not in program.tile_sizes
    return (
        bool(products)
        and plain
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
    return replace(program, operations=(*loads, *others), options={**program.options, ROW_PARTS: parts})


def _part(operation: TileOperation, part: int, parts: int, rows: frozenset[str]) -> TileOperation:
    operands = tuple(
        Operand(f"{operand.value}_{part}" if operand.value in rows else operand.value, operand.distance)
        for operand in operation.operands
    )
    height, *rest = operation.result.shape
    tile = Tile((height // parts, *rest), operation.result.dtype, operation.result.memory)
    return replace(operation, name=f"{operation.name}_{part}", operands=operands, result=tile)
