"""Sections of overlap plans and of cuts: the operators of a period over time by nano-batch, the sections as a table."""

from __future__ import annotations

from treadle.codegen.report.sections import Context, Section, filled
from treadle.codegen.svg import element, label
from treadle.ir.operator.plan import OverlapBody
from treadle.ir.operator.schedule import stream_profile
from treadle.ir.sections.graph import SectionsBody

WIDTH, ROW, LEFT = 960, 34, 110


def period(context: Context) -> Section | None:
    """Return one period: a row a nano-batch, heights by share of the SMs, and a row a stream with its load."""
    from markupsafe import Markup

    body: OverlapBody = context.plan.body
    rows = [
        {
            "name": operator.name,
            "mode": body.schedule.modes[operator.name],
            "start_us": body.schedule.start_ns[operator.name] % body.schedule.period_ns / 1000,
            "duration_us": body.schedule.mode(body.loop, operator.name).duration_ns / 1000,
        }
        for operator in body.loop.operators
    ]
    rows.sort(key=lambda row: (str(row["name"]).partition(".")[0], row["start_us"]))
    html = filled("operators.html.j2", picture=Markup(period_svg(body)), rows=rows, body=body)
    return Section("period", "One period of a layer", html)


def period_svg(body: OverlapBody) -> str:
    """Return the picture of a period."""
    length = body.schedule.period_ns
    batches = sorted({name.partition(".")[0] for name in body.loop.index})
    drawn: list[str] = []
    for number, batch in enumerate(batches):
        top = number * ROW
        drawn.append(label(0, top + ROW * 0.6, f"nano-batch {batch}", font_size=12, fill="currentColor"))
        for name in (name for name in body.loop.index if name.startswith(f"{batch}.")):
            begin, mode = body.schedule.start_ns[name] % length, body.schedule.mode(body.loop, name)
            end = begin + mode.duration_ns
            height = (ROW - 6) * mode.shares_milli.get("sm", 0) / 1000
            for low, high in ((begin, min(end, length)), (0, end - length)):
                if high > low:
                    drawn.append(_bar(low, high, length, top + ROW - 4 - height, height, name, number))
    for number, stream in enumerate(body.loop.streams):
        top = (len(batches) + number) * ROW
        drawn.append(label(0, top + ROW * 0.6, stream.name, font_size=12, fill="currentColor"))
        for low, high, load in stream_profile(body.loop, body.schedule, stream.name):
            height = (ROW - 6) * load / stream.capacity_milli
            shown = f"{stream.name} {load / 10:.0f} %"
            drawn.append(_bar(low, high, length, top + ROW - 4 - height, height, shown, 4))
    total = (len(batches) + len(body.loop.streams)) * ROW
    drawn.append(label(LEFT, total + 14, "0", font_size=11, fill="currentColor"))
    drawn.append(label(WIDTH - 60, total + 14, f"{length / 1000:.0f} us", font_size=11, fill="currentColor"))
    return element("svg", *drawn, view_box=f"0 0 {WIDTH} {total + 20}", width=WIDTH, role="img")


_COLOURS = ("#2f6db3", "#b3662f", "#3f8f5f", "#8f5fa8", "#7a8590")


def _bar(low: int, high: int, length: int, top: float, height: float, name: str, colour: int) -> str:
    scale = (WIDTH - LEFT) / length
    title = element("title", f"{name}: {low / 1000:.0f} to {high / 1000:.0f} us")
    bar = element(
        "rect", title, x=LEFT + low * scale, y=top, width=max(0.5, (high - low) * scale - 0.5), height=height,
        fill=_COLOURS[min(colour, 4)],
    )  # fmt: skip
    short = name.partition(".")[2]
    if not short or (high - low) * scale < 6.2 * len(short) or height < 12:
        return bar
    return bar + label(LEFT + low * scale + 3, top + height - 4, short, font_size=10, fill="#fff")


def cuts(context: Context) -> Section | None:
    """Return the sections of a cut as a table."""
    body: SectionsBody = context.plan.body
    rows = [
        {
            "first": body.graph.tasks[section.first].name,
            "last": body.graph.tasks[section.end - 1].name if section.end > section.first + 1 else "",
            "mode": section.mode.value,
            "held": ", ".join(section.held),
        }
        for section in body.sections
    ]
    figures = [(item.name, item.value, item.unit) for item in context.plan.predictions]
    return Section("sections", "Sections", filled("section_cuts.html.j2", rows=rows, figures=figures))
