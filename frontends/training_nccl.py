"""nccl-tests output -> a bandwidth curve.

The format (nccl-tests, `src/common.cu`): `#  Rank  0 ... on HOST device ...` per rank, then rows of size, count, type,
redop, root, and twice time (us), algbw (GB/s), busbw (GB/s), #wrong: out of place, in place. all_gather, alltoall
and others print the same columns.
"""

from __future__ import annotations

import re
from pathlib import Path

from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.errors import UnknownName
from treadle.ir.plan import read_text
from treadle.ir.training.cluster import Curve

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
_RANK = re.compile(r"^#\s+Rank\s+(\d+)\b.*\bon\s+(\S+)")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")


class NotNcclTests(TreadleError):
    """A file that is no nccl-tests output."""

    code = "TRD153"
    template = "not nccl-tests output: {reason}"
    hint = "give the text that `all_reduce_perf -b 1M -e 1G -f 2` prints"


def read_curve(path: Path, operation: str, nodes: int) -> Curve:
    """Read one file; raises UnreadableFile, NotNcclTests, UnknownName."""
    return parse_curve(read_text(path), str(path), operation, nodes)


def parse_curve(text: str, file: str, operation: str, nodes: int) -> Curve:
    """Return the curve of out-of-place bus bandwidths; sizes printed twice keep the later row."""
    if operation not in OPERATIONS:
        raise UnknownName(
            kind="collective",
            name=operation,
            expected=f"one of {', '.join(OPERATIONS)}",
            hint=closest(operation, OPERATIONS),
        )
    ranks: set[str] = set()
    points: dict[int, float] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _RANK.match(line):
            ranks.add(match[1])
        elif line.strip() and not line.lstrip().startswith("#") and line.split()[0].isdigit():
            size, rate = _row(line, Place(file, number, 1, text=line[:160]))
            if size and rate:
                points[size] = rate
    if not ranks:
        raise NotNcclTests(place=Place(file), reason="no `#  Rank` lines", expected="one line per rank")
    if not points:
        raise NotNcclTests(place=Place(file), reason="no rows of sizes and bandwidths", expected="rows of 13 columns")
    sizes = tuple(sorted(points))
    return Curve(operation, len(ranks), nodes, sizes, tuple(points[size] for size in sizes))


def _row(line: str, place: Place) -> tuple[int, float]:
    cells = line.split()
    if len(cells) < 8 or not all(_NUMBER.fullmatch(cell) for cell in cells[5:8]):
        raise NotNcclTests(
            place=place,
            reason=f"a row of {len(cells)} columns",
            expected="size, count, type, redop, root, time, algbw, busbw",
        )
    return int(cells[0]), float(cells[7])
