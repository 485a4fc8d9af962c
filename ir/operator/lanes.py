"""Loops of lanes: rows of operators in launch order that share streams and nothing else (nano-batches of a layer)."""

from __future__ import annotations

from itertools import pairwise

from treadle.ir.operator.loop import Operator, OperatorLoop

Row = tuple[Operator, ...]


def rows_of(loop: OperatorLoop) -> tuple[Row, ...] | None:
    """Return the lanes of a loop, or None where it is not chains, each closed by a dependence of distance 1."""
    if not loop.periodic:
        return None
    rows: list[list[Operator]] = []
    following = {d.source: d.target for d in loop.dependences if d.distance == 0}
    starts = [operator for operator in loop.operators if operator.name not in following.values()]
    for start in starts:
        row = [start]
        while (after := following.get(row[-1].name)) is not None:
            row.append(loop.operator(after))
        rows.append(row)
    wanted = {(a.name, b.name, 0) for row in rows for a, b in pairwise(row)}
    wanted |= {(row[-1].name, row[0].name, 1) for row in rows}
    found = {(d.source, d.target, d.distance) for d in loop.dependences}
    if wanted != found or sum(map(len, rows)) != len(loop.operators):
        return None
    return tuple(tuple(row) for row in rows)


def two_rows(loop: OperatorLoop) -> tuple[Row, Row] | None:
    """Return the lanes of a loop that has exactly two, else None."""
    rows = rows_of(loop)
    return (rows[0], rows[1]) if rows is not None and len(rows) == 2 else None
