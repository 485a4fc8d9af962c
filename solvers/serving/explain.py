"""What single changes would do to a serving plan: the same program with one thing different, each solved and proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from treadle.costmodels.engine_candidates import all_candidates, setting_of
from treadle.ir.errors import Unmet
from treadle.ir.serving.binding import Binding, bindings
from treadle.ir.serving.plan import KindOfEngine, ServingPlan
from treadle.ir.serving.pools import GpuPool, Objective, PoolsProblem, Role
from treadle.ir.serving.units import UNITS
from treadle.ir.workload import ServiceLevel
from treadle.solvers.serving.nearest import level_text
from treadle.solvers.serving.solve import solve_pools


@dataclass(frozen=True, slots=True)
class Change:
    """A change in words, the plan's best value under it (None: nothing meets the levels then), and whether proven."""

    change: str
    value: float | None
    proven: bool


@dataclass(frozen=True, slots=True)
class ServingExplanation:
    """The plan's value, what binds it, and what single changes would do."""

    name: str
    unit: str
    value: float
    maximising: bool
    bindings: tuple[Binding, ...]
    changes: tuple[Change, ...]


def explain_serving(plan: ServingPlan) -> ServingExplanation:
    """Solve the plan's program again under each single change; margins stay, nothing is replayed."""
    problem = plan.pools.problem
    maximising = problem.objective is Objective.MOST_REQUESTS
    value = float(plan.pools.rate_per_s if maximising else plan.pools.price)
    changes = tuple(_change(words, plan, edit, maximising) for words, edit in _edits(plan))
    name, unit = UNITS[problem.objective]
    return ServingExplanation(name, unit, value, maximising, bindings(plan), changes)


Edit = Callable[[ServingPlan], tuple[ServingPlan, PoolsProblem]]


def _edits(plan: ServingPlan) -> list[tuple[str, Edit]]:
    levels = list(dict.fromkeys(level for stream in plan.all_streams for level in stream.levels))
    found: list[tuple[str, Edit]] = [
        (f"{level_text(replace(level, limit_s=level.limit_s * 1.25))} (25 % later)", _relaxing(level))
        for level in levels
    ]
    faster: list[tuple[str, Callable[[KindOfEngine], KindOfEngine]]] = [
        ("steps 10 % faster", lambda kind: replace(kind, profile=kind.profile.faster(1 / 0.9))),
        ("a quarter more KV cache", lambda kind: replace(kind, kv_tokens=kind.kv_tokens * 5 // 4)),
        ("twice the network", lambda kind: replace(kind, link_bytes_per_s=2 * kind.link_bytes_per_s)),
    ]
    found += [(words, _with_kinds(edit)) for words, edit in faster]
    if plan.pools.problem.objective is Objective.MOST_REQUESTS:
        found += [(f"one node more of {pool.gpu}", _with_node(pool, 1)) for pool in plan.pools.problem.gpus]
    else:
        found.append(("10 % more requests", _with_rate(1.1)))
    roles = {engine.role for engine in plan.pools.problem.engines}
    if len(roles) > 1:
        found.append(("engines for both phases only", _with_roles((Role.AGGREGATED,))))
        found.append(("prefill and decode engines only", _with_roles((Role.PREFILL, Role.DECODE))))
    if len(plan.pools.problem.classes) > 1:
        found.append(("no pools by length", _one_stream))
    return found


def _change(words: str, plan: ServingPlan, edit: Edit, maximising: bool) -> Change:
    try:
        _, problem = edit(plan)
        pools, certificate = solve_pools(problem)
    except Unmet:
        return Change(words, None, True)
    value = float(pools.rate_per_s if maximising else pools.price)
    return Change(words, value or None, certificate.levels[0].gap == 0)


def _again(plan: ServingPlan) -> tuple[ServingPlan, PoolsProblem]:
    """Derive the candidates of a changed plan."""
    engines = all_candidates(plan.kinds, plan.all_streams, setting_of(plan))
    return plan, replace(plan.pools.problem, engines=engines)


def _relaxing(level: ServiceLevel) -> Edit:
    def edited(levels: tuple[ServiceLevel, ...]) -> tuple[ServiceLevel, ...]:
        return tuple(replace(one, limit_s=one.limit_s * 1.25) if one == level else one for one in levels)

    def edit(plan: ServingPlan) -> tuple[ServingPlan, PoolsProblem]:
        streams = tuple(replace(stream, levels=edited(stream.levels)) for stream in plan.streams)
        return _again(replace(plan, levels=edited(plan.levels), streams=streams))

    return edit


def _with_kinds(change: Callable[[KindOfEngine], KindOfEngine]) -> Edit:
    return lambda plan: _again(replace(plan, kinds=tuple(map(change, plan.kinds))))


def _with_roles(roles: tuple[Role, ...]) -> Edit:
    return lambda plan: _again(replace(plan, roles=roles))


def _with_rate(factor: float) -> Edit:
    def edit(plan: ServingPlan) -> tuple[ServingPlan, PoolsProblem]:
        problem = plan.pools.problem
        return plan, replace(problem, rate_per_s=float(f"{problem.rate_per_s * factor:.9g}"))

    return edit


def _with_node(pool: GpuPool, more: int) -> Edit:
    def edit(plan: ServingPlan) -> tuple[ServingPlan, PoolsProblem]:
        larger = replace(pool, nodes=pool.nodes + (max(pool.nodes),) * more)
        gpus = tuple(larger if one.gpu == pool.gpu else one for one in plan.pools.problem.gpus)
        return plan, replace(plan.pools.problem, gpus=gpus)

    return edit


def _one_stream(plan: ServingPlan) -> tuple[ServingPlan, PoolsProblem]:
    """Keep only engines that take every class."""
    problem = plan.pools.problem
    whole = [stream for stream in plan.streams if len(stream.classes) == len(problem.classes)]
    return plan, replace(problem, engines=all_candidates(plan.kinds, whole, setting_of(plan)))
