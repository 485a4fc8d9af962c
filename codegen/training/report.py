"""The report of a parallel plan: decision, what binds, breakdown, timeline, memory over time, why others lose."""

from __future__ import annotations

from html import escape

from treadle.codegen.svg import element, label, text
from treadle.codegen.svg_lines import Chart, Mark, Series, lines_svg, ticks
from treadle.codegen.training.page import levels_list, page, table
from treadle.costmodels.training_breakdown import COMPUTE, PARTS, binding_stage, breakdowns, busiest, memory_over_time
from treadle.costmodels.training_memory import capacity_bytes, stage_capacities
from treadle.costmodels.training_replay import Event, Replay, replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.ir.certificate import Certificate
from treadle.ir.training.front import front
from treadle.ir.training.placement import stage_groups
from treadle.ir.training.plan import Degrees, ParallelBody
from treadle.ir.training.trainers import notes

_WIDTH, _ROW, _LEFT = 1100.0, 14.0, 56.0
_MOST_EVENTS = 5000
_MOST_POINTS = 400
_COLOURS = {"forward": "#4c78a8", "backward": "#f58518", "weights": "#54a24b"}
_PART_COLOURS = ("#4c78a8", "#72b7b2", "#e45756", "#b279a2", "#d0d0d0", "#eeca3b")


def report(body: ParallelBody, certificate: Certificate) -> bytes:
    """Return a self-contained HTML page."""
    setting = setting_of(body.model, body.cluster, body.spec)
    played = replay(setting, body.degrees, body.layout, record=True)
    said = "".join(f"<li>{escape(str(note))}</li>" for note in notes(body.degrees, body.layout))
    parts = [
        f"<p><b>{escape(body.degrees.text())}</b>: {played.step_us / 1e6:.4f} s a step, "
        f"{_rate(body, played.step_us):,.0f} tokens/s per GPU</p>",
        levels_list(certificate),
        "<h2>What binds</h2>" + _binds(setting, body, played),
        "<h2>One step</h2>" + timeline(played.events, body.degrees, played.step_us),
        "<h2>Memory over time</h2>" + _memory(setting, body, played),
        "<h2>Stages</h2>" + _stages(body, stage_capacities(setting, body.degrees)),
        "<h2>Other plans</h2>" + _others(body),
        "<h2>Time, memory and GPUs</h2>" + _front(body) if body.steps else "",
        f"<h2>Trainers</h2><ul>{said}</ul>" if said else "",
    ]
    return page(f"{body.model.name} on {body.cluster.text}", parts)


def _rate(body: ParallelBody, step_us: float) -> float:
    return body.spec.global_batch * body.spec.sequence_tokens / (step_us / 1e6) / body.degrees.gpus


def _binds(setting: Setting, body: ParallelBody, played: Replay) -> str:
    """Return the breakdown of the busiest rank as a bar per rank and in words."""
    found = breakdowns(setting, body.degrees, body.layout, played)
    most = busiest(found)
    rank, share = binding_stage(setting, body.degrees, played.stages)
    shown = "; ".join(f"{name} {most.parts_us[name] / played.step_us:.1%}" for name in PARTS)
    words = (
        f"<p>Busiest is rank {most.rank}: {escape(shown)}. "
        f"{'Compute binds' if most.binds == COMPUTE else f'After compute, {escape(most.binds)} costs most'}. "
        f"Nearest its memory is stage {rank}: {share:.0%} of what is allowed.</p>"
    )
    keys = " ".join(
        f'<span style="border-left:1em solid {colour};padding:0 .6em 0 .3em">{escape(name)}</span>'
        for name, colour in zip(PARTS, _PART_COLOURS, strict=True)
    )
    rows: list[str] = []
    scale = (_WIDTH - _LEFT) / played.step_us
    for item in found:
        x, y = _LEFT, item.rank * _ROW
        rows.append(label(_LEFT - 6, y + _ROW - 4, f"rank {item.rank}", text_anchor="end", class_="tick"))
        for name, colour in zip(PARTS, _PART_COLOURS, strict=True):
            width = item.parts_us[name] * scale
            said = f"rank {item.rank}, {name}: {item.parts_us[name] / 1e3:.2f} ms"
            tip = element("title", text(said))
            rows.append(element("rect", tip, x=x, y=y, width=max(0.0, width), height=_ROW - 2, fill=colour))
            x += width
    height = len(found) * _ROW + 4
    return f"{words}<p>{keys}</p>" + _svg(rows, height, "breakdown of every rank's step")


def _svg(parts: list[str], height: float, title: str) -> str:
    return element(
        "svg", element("title", text(title)), *parts, view_box=f"0 0 {_WIDTH:g} {height:g}", role="img",
        xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def timeline(events: tuple[Event, ...], degrees: Degrees, step_us: float) -> str:
    """Return the pipeline as SVG, one row per rank; of a long step its beginning and its end."""
    keys = " ".join(
        f'<span style="border-left:1em solid {colour};padding:0 .6em 0 .3em">{name}</span>'
        for name, colour in _COLOURS.items()
        if name != "weights" or degrees.schedule.splits_backward
    )
    head = f"<p>{keys} lighter: later chunks of a rank; hover for microbatch and times</p>"
    if len(events) <= _MOST_EVENTS:
        return head + _drawn(events, degrees, 0.0, step_us)
    ordered = sorted(events, key=lambda event: event.start_us)
    early, late = ordered[: _MOST_EVENTS // 2], ordered[-_MOST_EVENTS // 2 :]
    between = len(events) - len(early) - len(late)
    return (
        head
        + _drawn(tuple(early), degrees, 0.0, max(event.end_us for event in early))
        + f"<p class=note>{between:,} runs in between are not drawn</p>"
        + _drawn(tuple(late), degrees, min(event.start_us for event in late), step_us)
    )


def _drawn(events: tuple[Event, ...], degrees: Degrees, start_us: float, end_us: float) -> str:
    scale = (_WIDTH - _LEFT) / max(1e-9, end_us - start_us)
    height = degrees.pipeline * _ROW
    parts = [
        label(_LEFT - 6, rank * _ROW + _ROW - 4, f"rank {rank}", text_anchor="end", class_="tick")
        for rank in range(degrees.pipeline)
    ]
    for at in ticks(start_us / 1e3, end_us / 1e3, 10):
        x = _LEFT + (at * 1e3 - start_us) * scale
        parts.append(element("line", x1=x, x2=x, y1=0, y2=height, class_="rule"))
        parts.append(label(x, height + 13, f"{at:,.6g} ms", text_anchor="middle", class_="tick"))
    parts += [_box(event, degrees, start_us, scale) for event in events]
    return _svg(parts, height + 20, "one training step")


def _box(event: Event, degrees: Degrees, start_us: float, scale: float) -> str:
    kind = "forward" if event.forward else "weights" if event.weight else "backward"
    said = (
        f"rank {event.rank} {kind}, microbatch {event.microbatch}, chunk {event.chunk}: "
        f"{event.start_us / 1e3:.2f} to {event.end_us / 1e3:.2f} ms"
    )
    return element(
        "rect", element("title", text(said)), x=round(_LEFT + (event.start_us - start_us) * scale, 2),
        y=event.rank * _ROW, width=round(max(0.4, (event.end_us - event.start_us) * scale - 0.2), 2),
        height=_ROW - 2, fill=_COLOURS[kind], opacity=round(1 - 0.55 * event.chunk / max(1, degrees.virtual), 2),
    )  # fmt: skip


def _memory(setting: Setting, body: ParallelBody, played: Replay) -> str:
    """Return the memory of up to four stages as staircases under the capacity."""
    last = body.degrees.pipeline - 1
    chosen = sorted({0, last // 3, 2 * last // 3, last})
    series = tuple(
        Series(f"stage {rank}", _thinned(memory_over_time(setting, body.degrees, body.layout, played.events, rank)), at)
        for at, rank in enumerate(chosen)
    )
    chart = Chart(
        "memory of a GPU of each stage",
        "time in the step (ms)",
        "GiB",
        tuple(
            Series(one.name, tuple((x / 1e3, y / 2**30) for x, y in one.points), one.colour, steps=True)
            for one in series
        ),
        _allowed(setting, body),
    )
    pairs = zip(series, chosen, strict=True)
    names = " ".join(f'<span class="key l{one.colour}">stage {rank}</span>' for one, rank in pairs)
    return f"<p>{names}</p>{lines_svg(chart, 'memory')}"


def _allowed(setting: Setting, body: ParallelBody) -> tuple[Mark, ...]:
    """Return a line at what each GPU type in use may hold."""
    named = zip(stage_groups(body.cluster, body.degrees), stage_capacities(setting, body.degrees), strict=False)
    capacities = {f"allowed on {body.cluster.groups[group].gpu}": capacity for group, capacity in named}
    capacities = capacities or {"allowed": capacity_bytes(setting)}
    return tuple(Mark(name, capacity / 2**30) for name, capacity in capacities.items())


def _thinned(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Return at most so many points: of every stretch of time the highest."""
    if len(points) <= _MOST_POINTS:
        return points
    stretch = -(-len(points) // _MOST_POINTS)
    parts = (points[start : start + stretch] for start in range(0, len(points), stretch))
    return tuple(max(part, key=lambda point: point[1]) for part in parts)


def _stages(body: ParallelBody, capacities: list[float]) -> str:
    degrees, layers, again = body.degrees, body.layout.layers, body.layout.recomputed
    groups = stage_groups(body.cluster, degrees) or [0] * degrees.pipeline
    rows = [
        (
            str(stage.rank),
            *((body.cluster.groups[group].gpu,) if degrees.placement else ()),
            " + ".join(str(layers[slot]) for slot in degrees.slots_of(stage.rank)),
            *((" + ".join(str(again[slot]) for slot in degrees.slots_of(stage.rank)),) if again else ()),
            f"{stage.forward_us / 1e3:.2f}",
            f"{stage.backward_us / 1e3:.2f}",
            f"{stage.parameters / 1e9:.3f}",
            f"{stage.state_bytes / 2**30:.1f}",
            f"{stage.activation_bytes / 2**30:.1f}",
            f"{stage.transient_bytes / 2**30:.1f}",
            f"{stage.memory_bytes / capacity:.0%}",
        )
        for stage, group, capacity in zip(body.stages, groups, capacities, strict=True)
    ]
    typed = ("GPU",) if degrees.placement else ()
    head = ("rank", *typed, "layers", *(("run again",) if again else ()), "forward ms", "backward ms", "parameters G")
    return table((*head, "state GiB", "activations GiB", "transient GiB", "of allowed"), rows)


def _front(body: ParallelBody) -> str:
    """Return the front as a line per number of GPUs and as a table."""
    plans = front(body.steps)
    counts = sorted({plan.gpus for plan in plans}, reverse=True)
    series = tuple(
        Series(
            f"{count} GPUs",
            tuple(
                (plan.peak_memory_bytes / 2**30, plan.step_time_us / 1e6)
                for plan in sorted(plans, key=lambda one: one.peak_memory_bytes)
                if plan.gpus == count
            ),
            number % 8,
            steps=True,
        )
        for number, count in enumerate(counts)
    )
    chart = Chart("fastest step within a memory limit", "peak memory (GiB)", "step (s)", series)
    names = " ".join(f'<span class="key l{one.colour}">{one.name}</span>' for one in series)
    rows = [
        (str(one.gpus), f"{one.step_time_us / 1e6:.4f}", f"{one.peak_memory_bytes / 2**30:.1f}", one.degrees.text())
        for one in plans
    ]
    table_of = table(("GPUs", "step s", "peak GiB", "plan"), rows, text=(3,))
    return f"<p>{names}</p>{lines_svg(chart, 'front')}{table_of}"


def _others(body: ParallelBody) -> str:
    rows = [
        (item.degrees.text(), f"{item.step_time_us / 1e6:.4f}", f"{item.peak_memory_bytes / 2**30:.1f}", item.reason)
        for item in body.alternatives
    ]
    return table(("degrees", "step s", "peak GiB", "why it loses"), rows, text=(3,))
