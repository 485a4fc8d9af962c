"""What binds an overlap plan or a cut into sections, and what more of each figure of the machine would buy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from treadle.costmodels.interference import unknown_pairs
from treadle.costmodels.sections import START, SectionCosts, total_ns
from treadle.driver.overlap import WHAT_IF, what_more_buys
from treadle.ir.operator.plan import OverlapBody
from treadle.ir.operator.schedule import stream_profile
from treadle.ir.plan import Plan
from treadle.ir.sections.graph import SectionsBody
from treadle.solvers.sections.solve import cut


@dataclass(frozen=True, slots=True)
class OperatorExplanation:
    """Time, how busy each resource is, sentences about what binds, and time with a quarter more of a resource."""

    name: str
    time_us: float
    busy: dict[str, float]
    binds: tuple[str, ...]
    with_a_quarter_more_us: dict[str, float]


FULL = 0.97
"""Share of time from which a resource is said to bind."""

SECTION_LEVERS = {
    "compute": "flops_per_unit_per_s",
    "memory bandwidth": "memory_bandwidth_bytes_per_s",
    "memory on chip": "on_chip_bytes",
}


def explain_operators(plan: Plan) -> OperatorExplanation:
    """Explain a plan of kind `overlap` or `sections`; every change is planned again."""
    body: OverlapBody | SectionsBody = plan.body
    return _overlap(body) if isinstance(body, OverlapBody) else _sections(body)


def _overlap(body: OverlapBody) -> OperatorExplanation:
    period = body.schedule.period_ns
    busy = {
        stream.name: sum(
            (high - low) * load for low, high, load in stream_profile(body.loop, body.schedule, stream.name)
        )
        / stream.capacity_milli
        / period
        for stream in body.loop.streams
    }
    binds = [f"{name} is busy {share:.1%} of the period" for name, share in busy.items() if share > FULL]
    chains = {name.partition(".")[0]: 0 for name in body.loop.index}
    for name in body.loop.index:
        chains[name.partition(".")[0]] += body.schedule.mode(body.loop, name).duration_ns
    longest = max(chains, key=lambda chain: chains[chain])
    binds.append(
        f"nano-batch {longest} runs {chains[longest] / period:.1%} of the period, one operator after the other"
    )
    binds += [f"no interference data for {kind}-bound kernels: worst case" for kind in unknown_pairs(body.machine.id)]
    bought = {name: ns / 1000 for name, ns in what_more_buys(body).items()}
    return OperatorExplanation(body.loop.name, period / 1000, busy, tuple(binds), bought)


def _sections(body: SectionsBody) -> OperatorExplanation:
    costs = SectionCosts(body.graph, body.machine)
    time = total_ns(costs, body.sections) or 0
    computing = moving = 0.0
    held = START.held
    slower = {"compute": 0, "memory": 0}
    for section in body.sections:
        base, after = costs.base(section.first, section.end, section.mode), frozenset(section.held)
        moved = costs.moved_bytes(section, held) / costs.rates.bytes_per_ns
        computing, moving = computing + base.compute_ns, moving + moved
        slower["compute" if base.compute_ns >= moved else "memory"] += 1
        held = after
    binds = tuple(f"{count} sections wait for {name}" for name, count in slower.items() if count)
    bought: dict[str, float] = {}
    for name, figure in SECTION_LEVERS.items():
        more = tuple(replace(f, value=f.value * WHAT_IF) if f.name == figure else f for f in body.machine.figures)
        bought[name] = cut(body.graph, replace(body.machine, figures=more))[1]["time"].value / 1000
    return OperatorExplanation(
        body.graph.name, time / 1000, {"compute": computing / time, "memory": moving / time}, binds, bought
    )
