"""Sections of a serving plan: pools as a picture, what binds, goodput over rate, latencies of the replay, the front."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.report.sections import Context, Section, filled
from treadle.codegen.svg_lines import Chart, Mark, Series, lines_svg
from treadle.codegen.svg_pools import PoolPicture, pools_svg
from treadle.ir.serving.binding import Binding, bindings
from treadle.ir.serving.front import price_goal
from treadle.ir.serving.plan import ServingPlan
from treadle.ir.serving.pools import Engine, Role
from treadle.ir.serving.units import UNITS
from treadle.ir.workload import BLOCK_TOKENS, Metric

_COLOURS = {Role.AGGREGATED: 2, Role.PREFILL: 0, Role.DECODE: 3}


def pools(context: Context) -> Section | None:
    """Return the pools as a picture with their routing shares."""
    from markupsafe import Markup

    body: ServingPlan = context.plan.body
    drawn = [_picture(body, engine, count, sum(rates)) for engine, count, rates in _used(body)]
    rows = [
        {
            "name": engine.name,
            "count": count,
            "gpus": engine.gpus * count,
            "batch": engine.batch,
            "chunk": engine.chunk_tokens,
            "kv": engine.kv_tokens,
            "kv_needed": engine.kv_tokens_needed,
            "cache": _cache_words(body, engine),
            "rates": [(one.name, rate) for one, rate in zip(body.pools.problem.classes, rates, strict=True) if rate],
        }
        for engine, count, rates in _used(body)
    ]
    html = filled("serving_pools.html.j2", picture=Markup(pools_svg(drawn)), rows=rows, body=body)
    return Section("pools", "Engine pools", html)


def _cache_words(body: ServingPlan, engine: Engine) -> str:
    """Return what an engine keeps for reuse, memory by memory, and what it finds there; empty without reuse."""
    if not engine.cache_blocks:
        return ""
    names = ("GPU", *(tier.name for tier in body.kind_of(engine).tiers))
    sizes = (f"{name} {blocks * BLOCK_TOKENS:,}" for name, blocks in zip(names, engine.cache_blocks, strict=True))
    return f"{', '.join(sizes)} tokens; {engine.hit_share:.0%} of prompt tokens found"


def _used(body: ServingPlan) -> list[tuple[Engine, int, tuple[float, ...]]]:
    triples = zip(body.pools.problem.engines, body.pools.pools.counts, body.pools.pools.routing_per_s, strict=True)
    return [(engine, count, rates) for engine, count, rates in triples if count]


def _picture(body: ServingPlan, engine: Engine, count: int, rate: float) -> PoolPicture:
    classes = [one.name for position, one in enumerate(body.pools.problem.classes) if engine.takes(position)]
    several = len(body.pools.problem.classes) > 1
    taken = f", {' + '.join(classes)}" if several and len(classes) < len(body.pools.problem.classes) else ""
    name = f"{count} x {engine.role.value} {engine.gpu} {body.kind_of(engine).name}"
    return PoolPicture(name, f"{rate:.4g} requests/s{taken}", count, engine.gpus, _COLOURS[engine.role])


def binds(context: Context) -> Section | None:
    """Return how much of each limit the chosen engines use."""
    found = bindings(context.plan.body)
    by_engine: dict[str, list[Binding]] = {}
    for one in found:
        by_engine.setdefault(one.engine, []).append(one)
    return Section("binds", "What binds", filled("serving_binds.html.j2", groups=by_engine))


def goodput(context: Context) -> Section | None:
    """Return goodput against rate, as replayed."""
    from markupsafe import Markup

    body: ServingPlan = context.plan.body
    if body.replay is None or not body.replay.curve:
        return None
    curve = body.replay.curve
    chart = Chart(
        "Goodput against rate",
        "requests/s offered",
        "requests/s within all levels",
        (
            Series("offered", tuple((point.rate_per_s, point.rate_per_s) for point in curve), 7),
            Series("goodput", tuple((point.rate_per_s, point.goodput_per_s) for point in curve), 2),
        ),
        (Mark("planned", body.replay.rate_per_s, vertical=True),),
    )
    html = filled("serving_goodput.html.j2", plot=Markup(lines_svg(chart, "goodput")), replay=body.replay)
    return Section("goodput", "Goodput against rate", html)


def latencies(context: Context) -> Section | None:
    """Return the distributions of first-token and per-token times of the replay."""
    from markupsafe import Markup

    body: ServingPlan = context.plan.body
    if body.replay is None or not body.replay.quantiles_s:
        return None
    plots = [
        Markup(_distribution(body, metric, times))
        for metric in (Metric.TTFT, Metric.TPOT)
        if (times := body.replay.quantiles_s.get(metric.value))
    ]
    html = filled("serving_latencies.html.j2", plots=plots, replay=body.replay, policies=body.policies)
    return Section("latencies", "Latencies of the replay", html)


def _distribution(body: ServingPlan, metric: Metric, times: Sequence[float]) -> str:
    shares = [100 * index / (len(times) - 1) for index in range(len(times))]
    points = tuple((1e3 * time, share) for time, share in zip(times, shares, strict=True))
    cut = points[:-1]  # the slowest request of all would squeeze the rest
    marks = tuple(
        Mark(f"p{level.percentile:g} limit", 1e3 * level.limit_s, vertical=True)
        for level in body.levels
        if level.metric is metric and level.limit_s * 1e3 < 3 * cut[-1][0]
    )
    names = {Metric.TTFT: "time to first token", Metric.TPOT: "time per token"}
    chart = Chart(names[metric], f"{names[metric]}, ms", "% of requests", (Series("replay", cut, 0),), marks)
    return lines_svg(chart, metric.value)


def front(context: Context) -> Section | None:
    """Return the Pareto front, where the plan has one."""
    from markupsafe import Markup

    body: ServingPlan = context.plan.body
    if not body.front:
        return None
    name, unit = UNITS[price_goal(body.pools.problem)]
    chart = Chart(
        "Pareto front",
        unit if name == "gpus" else f"{name} ({unit})",
        "requests/s",
        (Series("front", tuple((point.price, point.rate_per_s) for point in body.front), 4, steps=True),),
    )
    rows = [
        {
            "price": point.price,
            "rate": point.rate_per_s,
            "gap": point.gap,
            "engines": " + ".join(
                f"{count} x {engine.name}"
                for engine, count in zip(body.pools.problem.engines, point.pools.counts, strict=True)
                if count
            ),
        }
        for point in body.front
    ]
    html = filled("serving_front.html.j2", plot=Markup(lines_svg(chart, "front")), rows=rows, name=name, unit=unit)
    return Section("front", "Pareto front", html)
