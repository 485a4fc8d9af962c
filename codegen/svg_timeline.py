"""The timeline of a schedule as SVG: units as rows, stages as colours, the steady interval marked, rings below."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.codegen.events import Event, slots_in_use, steady_window, unrolled
from treadle.codegen.svg import element, label, text
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.loop import Ring

WIDTH, GUTTER, MARGIN = 1120.0, 168.0, 14.0
ROW, GAP, TOP = 22.0, 7.0, 34.0
RING = 40.0
STAGE_COLOURS = 8
STANDALONE_COLOURS = ("#3f6fa3", "#b8691c", "#3d8257", "#a8456a", "#6c5ba7", "#1f7f8c", "#86702a", "#6b7178")
_STANDALONE_STYLE = (
    "svg{font:10.5px system-ui,sans-serif;background:#fff}text{fill:#1f2328}.tick,.note{fill:#667079}.name{fill:#fff}"
    ".rule{stroke:#e2e0da}.beat{stroke:#667079;stroke-width:.6;stroke-dasharray:2 3}.window{fill:#f4e9dc}"
    ".ring{fill:#b9c7d6}.depth{stroke:#b8691c;stroke-dasharray:5 3}.odd rect{fill-opacity:.74}"
)
MOST_STAGES_FROM_START = 4
"""With more stages the fill of the pipeline is left out and the picture starts one interval before the steady one."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Which cycles are shown, and where they are on the page."""

    begin: int
    end: int

    def x(self, cycle: float) -> float:
        """Return the horizontal place of a cycle, within the frame."""
        inside = min(max(cycle, self.begin), self.end) - self.begin
        return GUTTER + inside * (WIDTH - GUTTER - MARGIN) / (self.end - self.begin)


def timeline_svg(kernel: KernelPlan, prefix: str = "") -> str:
    """Return the timeline; `prefix` keeps ids unique where several stand on one page."""
    schedule = kernel.schedule
    window = steady_window(schedule)
    begin = 0 if schedule.stages <= MOST_STAGES_FROM_START else window[0] - schedule.ii_cycles
    frame = Frame(begin, window[1] + schedule.ii_cycles)
    shown = range(max(0, (begin - kernel.schedule.length_cycles) // schedule.ii_cycles), schedule.stages + 1)
    events = [e for e in unrolled(kernel.loop, schedule, shown) if e.end >= frame.begin and e.start < frame.end]
    rows, height = _rows(kernel, events)
    rings_top = height + (GAP if kernel.loop.rings else 0)
    total = rings_top + len(kernel.loop.rings) * (RING + GAP) + 20
    parts = [
        element("title", text(f"Timeline of {kernel.name}"), id=f"{prefix}title"),
        element("desc", text(_description(kernel)), id=f"{prefix}desc"),
        _grid(kernel, frame, window, total - 20),
        *(_row_label(unit, lane, y) for (unit, lane), y in rows.items()),
        *_iterations(events, frame, rows),
        *(
            _ring(kernel, ring, frame, shown, rings_top + position * (RING + GAP))
            for position, ring in enumerate(kernel.loop.rings)
        ),
    ]
    return element(
        "svg", *parts, class_="timeline", view_box=f"0 0 {WIDTH:g} {total:g}", role="img",
        aria_labelledby=f"{prefix}title {prefix}desc", xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def _description(kernel: KernelPlan) -> str:
    schedule = kernel.schedule
    return (
        f"{len(kernel.loop.operations)} operations on {len(kernel.loop.units)} units; a new iteration every "
        f"{schedule.ii_cycles} cycles, {schedule.stages} stages, {schedule.length_cycles} cycles from first to last. "
        "The table of operations below says the same in numbers."
    )


def _rows(kernel: KernelPlan, events: list[Event]) -> tuple[dict[tuple[str, int], float], float]:
    used = {(event.unit, event.lane) for event in events}
    rows: dict[tuple[str, int], float] = {}
    y = TOP
    for unit in kernel.loop.units:
        lanes = sorted(lane for name, lane in used if name == unit.name)
        for lane in lanes:
            rows[unit.name, lane] = y
            y += ROW
        y += GAP if lanes else 0
    return rows, y


def _row_label(unit: str, lane: int, y: float) -> str:
    name = unit.replace("_", " ") + (f" {lane + 1}" if lane else "")
    return label(GUTTER - 10, y + ROW / 2 + 3.5, name, text_anchor="end", class_="row") + element(
        "line", x1=GUTTER, x2=WIDTH - MARGIN, y1=y + ROW, y2=y + ROW, class_="rule"
    )


def _grid(kernel: KernelPlan, frame: Frame, window: tuple[int, int], bottom: float) -> str:
    ii = kernel.schedule.ii_cycles
    left, right = frame.x(window[0]), frame.x(window[1])
    parts = [
        element("rect", x=left, y=TOP - 4, width=right - left, height=bottom - TOP + 4, class_="window"),
        label((left + right) / 2, 12, f"one interval, {ii:,} cycles", text_anchor="middle", class_="note"),
    ]
    for cycle in range(frame.begin, frame.end + 1, ii):
        x = frame.x(cycle)
        parts.append(element("line", x1=x, x2=x, y1=TOP - 8, y2=bottom, class_="beat"))
        anchor = "end" if cycle == frame.end else "middle"
        parts.append(label(x, TOP - 11, f"{cycle:,}", text_anchor=anchor, class_="tick"))
    return "".join(parts)


def _iterations(events: list[Event], frame: Frame, rows: dict[tuple[str, int], float]) -> list[str]:
    """Return one group per iteration, so that pointing at one dims the others."""
    by_iteration: dict[int, list[str]] = {}
    for event in events:
        by_iteration.setdefault(event.iteration, []).append(_box(event, frame, rows[event.unit, event.lane]))
    return [
        element("g", *boxes, class_=f"iteration {'even' if iteration % 2 == 0 else 'odd'}")
        for iteration, boxes in sorted(by_iteration.items())
    ]


def _box(event: Event, frame: Frame, y: float) -> str:
    left, right = frame.x(event.start), frame.x(event.end)
    width = max(right - left, 1.6)
    said = (
        f"{event.operation}, iteration {event.iteration}, stage {event.stage}\n{event.unit}: cycle {event.start:,} to "
        f"{event.end:,} ({event.end - event.start:,}); result at {event.ready:,}"
    )
    parts = [
        element("title", text(said)),
        element("rect", x=left, y=y + 1.5, width=width, height=ROW - 3, rx=2, class_=f"s{event.stage % STAGE_COLOURS}"),
    ]
    name = _shortened(event.operation, width)
    if name:
        parts.append(label(left + width / 2, y + ROW / 2 + 3.5, name, text_anchor="middle", class_="name"))
    return element("g", *parts)


def _shortened(name: str, width: float) -> str:
    """Return as much of a name as fits a box; nothing when that would be less than four characters."""
    room = int((width - 6) / 5.9)
    if len(name) <= room:
        return name
    return f"{name[: room - 1]}…" if room > 4 else ""


def standalone_svg(kernel: KernelPlan) -> str:
    """Return the timeline with its colours inside, for use outside the report."""
    style = "".join(f".s{stage}{{fill:{colour}}}" for stage, colour in enumerate(STANDALONE_COLOURS))
    drawn = timeline_svg(kernel)
    opening = drawn.index(">") + 1
    return f"{drawn[:opening]}<style>{_STANDALONE_STYLE}{style}</style>{drawn[opening:]}\n"


def _ring(kernel: KernelPlan, ring: Ring, frame: Frame, shown: range, y: float) -> str:
    depth = kernel.schedule.ring_depths[ring.name]
    steps = slots_in_use(ring, kernel.schedule, frame.begin, frame.end, shown)
    most = max([depth, *(count for _, _, count in steps)])
    base, unit = y + RING, (RING - 8) / most
    path = f"M{frame.x(frame.begin):.2f} {base:.2f}"
    for begin, end, count in steps:
        level = base - count * unit
        path += f"L{frame.x(begin):.2f} {level:.2f}L{frame.x(end):.2f} {level:.2f}"
    path += f"L{frame.x(frame.end):.2f} {base:.2f}Z"
    top = base - depth * unit
    peak = max(count for _, _, count in steps)
    said = (
        f"ring {ring.name}: {peak} of {depth} slots of {ring.slot_bytes:,} bytes in use at most ({ring.memory} memory)"
    )
    return element(
        "g",
        element("title", text(said)),
        label(GUTTER - 10, y + RING / 2 + 2, f"ring {ring.name}", text_anchor="end", class_="row"),
        label(GUTTER - 10, y + RING / 2 + 15, f"{peak} of {depth} slots", text_anchor="end", class_="tick"),
        element("path", d=path, class_="ring"),
        element("line", x1=GUTTER, x2=WIDTH - MARGIN, y1=top, y2=top, class_="depth"),
        element("line", x1=GUTTER, x2=WIDTH - MARGIN, y1=base, y2=base, class_="rule"),
    )
