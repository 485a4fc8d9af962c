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
_STARTED = re.compile(r"^#\s+Collective test starting:\s*(\w+?)_perf\b")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")


class NotNcclTests(TreadleError):
    """A file that is no nccl-tests output."""

    code = "TRD153"
    template = "not nccl-tests output: {reason}"
    hint = "give the text that `{operation}_perf -b 1M -e 1G -f 2` prints"


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
    lines = [(line, Place(file, number, 1, text=line[:160])) for number, line in enumerate(text.splitlines(), start=1)]
    ranks: set[str] = set()
    points: dict[int, float] = {}
    for line, place in lines:
        if match := _RANK.match(line):
            ranks.add(match[1])
        elif match := _STARTED.match(line):
            _require_same(operation, match[1], place)
        elif line.strip() and not line.lstrip().startswith("#") and line.split()[0].isdigit():
            size, rate = _row(line, place, operation)
            if size and rate:
                points[size] = rate
    _require_complete(lines, file, operation, len(ranks), len(points), nodes)
    sizes = tuple(sorted(points))
    return Curve(operation, len(ranks), nodes, sizes, tuple(points[size] for size in sizes))


def _require_same(operation: str, ran: str, place: Place) -> None:
    """Refuse the output of another collective than the specification names."""
    if ran != operation:
        hint = f'write operation = "{ran}", or name the file of {operation}_perf' if ran in OPERATIONS else ""
        raise NotNcclTests(
            place=place,
            operation=operation,
            reason=f"the file is of {ran}_perf",
            expected=f"{operation}_perf, as `operation` says",
            hint=hint,
        )


def _require_complete(
    lines: list[tuple[str, Place]], file: str, operation: str, ranks: int, points: int, nodes: int
) -> None:
    """Refuse text without ranks or rows, and more nodes than ranks."""
    written = next(((line, place) for line, place in lines if line.strip()), None)
    if not ranks:
        found = f"the first line says `{written[0].strip()[:60]}`" if written else "the file is empty"
        reason = f"no line names a rank, and {found}"
        expected = "`#  Rank  0 ... on HOST device ...`, one line per rank"
    elif not points:
        reason, expected = (
            "no row has a size and a bandwidth above 0",
            "rows of 13 columns, the eighth is busbw in GB/s",
        )
    elif ranks % nodes:
        reason, expected = f"its {ranks} ranks are not spread evenly over {nodes} nodes", f"nodes = {_divisors(ranks)}"
    else:
        return
    place = written[1] if written and not ranks else Place(file)
    raise NotNcclTests(place=place, operation=operation, reason=reason, expected=expected)


def _divisors(ranks: int) -> str:
    """Return the numbers of nodes that a number of ranks can be spread over, as words."""
    return " or ".join(str(nodes) for nodes in range(1, ranks + 1) if ranks % nodes == 0)


def _row(line: str, place: Place, operation: str) -> tuple[int, float]:
    cells = line.split()
    names = "size, count, type, redop, root, time, algbw, busbw"
    if len(cells) < 8:
        raise NotNcclTests(
            place=place, operation=operation, reason=f"a row of {len(cells)} columns", expected=f"at least 8: {names}"
        )
    for number in range(5, 8):
        if not _NUMBER.fullmatch(cells[number]):
            reason = f"column {number + 1} of a row is `{cells[number][:20]}`"
            raise NotNcclTests(place=place, operation=operation, reason=reason, expected=f"a number ({names})")
    return int(cells[0]), float(cells[7])
