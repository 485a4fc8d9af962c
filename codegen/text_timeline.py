"""The timeline of a schedule as lines of text, for terminals: units as rows, two steady intervals."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.codegen.events import Event, steady_window, unrolled
from treadle.ir.tile.kernel import KernelPlan

LEAST_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a row: column, text and stage."""

    column: int
    text: str
    stage: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a unit: its name and its bars from left to right."""

    name: str
    bars: tuple[Bar, ...]

    def line(self, width: int) -> str:
        """Return the bars as one line of text."""
        line = ""
        for bar in self.bars:
            line = line.ljust(bar.column) + bar.text
        return line.ljust(width)


def timeline_rows(kernel: KernelPlan, width: int) -> tuple[Row, ...]:
    """Return the steady interval and the one after it on `width` columns, one row per unit and lane."""
    schedule = kernel.schedule
    begin = steady_window(schedule)[0]
    end = begin + 2 * schedule.ii_cycles
    columns = max(width, LEAST_WIDTH)
    first = max(0, (begin - schedule.length_cycles) // schedule.ii_cycles)
    events = unrolled(kernel.loop, schedule, range(first, schedule.stages + 2))
    rows: list[Row] = []
    for unit in kernel.loop.units:
        mine = [e for e in events if e.unit == unit.name and e.end > begin and e.start < end and e.end > e.start]
        for lane in sorted({event.lane for event in mine}):
            bars = _bars([event for event in mine if event.lane == lane], begin, end, columns)
            rows.append(Row(unit.name + (f" {lane + 1}" if lane else ""), bars))
    return tuple(rows)


def _bars(events: list[Event], begin: int, end: int, columns: int) -> tuple[Bar, ...]:
    """Place events on columns; one that rounding would put on its neighbour moves right or is cut."""
    bars: list[Bar] = []
    free = 0
    for event in events:
        left = max(free, (max(event.start, begin) - begin) * columns // (end - begin))
        right = max(left + 1, (min(event.end, end) - begin) * columns // (end - begin))
        if left >= columns:
            break
        bars.append(Bar(left, _drawn(event.operation, min(right, columns) - left), event.stage))
        free = right
    return tuple(bars)


def _drawn(name: str, width: int) -> str:
    if width < 3:
        return "█" * width
    inner = width - 2
    return f"[{name[:inner].ljust(inner, '·')}]"
