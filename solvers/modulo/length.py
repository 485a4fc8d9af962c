"""The second level, least length at the interval, and the third, fewest ring bytes at interval and length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from treadle.ir.certificate import ProofKind, Status
from treadle.ir.proof_log.problem import Problem
from treadle.ir.tile.refutation import cheaper, shorter
from treadle.solvers.backend import Outcome, solve
from treadle.solvers.modulo.bounds import Bound, depth_bounds, length_bounds
from treadle.solvers.modulo.interval import Effort, Progress, depths_of, fits_memory
from treadle.solvers.modulo.model import (
    TUNING,
    Model,
    add_arcs,
    add_full_units,
    add_length,
    add_memories,
    add_one_iteration_units,
    add_rings,
    add_times,
    add_units,
    ring_bytes,
)
from treadle.solvers.modulo.network import Network, heads, tails
from treadle.solvers.modulo.place import normalized, place
from treadle.solvers.refutation.log import logged

LONGEST_LOG_S = 5.0
"""Wall-clock seconds a proof log may take at most; the limit of one question holds too."""
LEAST_LOG_S = 0.05
"""Questions with a smaller limit than this are drafts, and carry no logs."""


@dataclass(frozen=True, slots=True)
class Reached:
    """Starts at one level, the value they reach and the bound proven for it."""

    starts: tuple[int, ...]
    value: int
    bound: Bound


def length_at(network: Network, starts: tuple[int, ...] | list[int]) -> int:
    """Return the length of one iteration."""
    return max(start + latency for start, latency in zip(starts, network.latency, strict=True))


def least_length(network: Network, ii: int, starts: tuple[int, ...], effort: Effort, tell: Progress) -> Reached:
    """Shorten the iteration at interval `ii`: bounds, restarts of the heuristic, then CP-SAT on all operations."""
    bound = length_bounds(network, ii)[0]
    best = starts
    for seed in range(effort.restarts):
        if length_at(network, best) == bound.value:
            break
        found = place(network, ii, seed)
        if found and length_at(network, found) < length_at(network, best) and fits_memory(network, ii, found):
            best = tuple(found)
    value = length_at(network, best)
    if value == bound.value:
        return Reached(best, value, bound)
    tell(f"interval {ii}: length {value}, at least {bound.value}")
    model = whole_model(network, ii, bound.value, value)
    assert model.length is not None
    model.cp.minimize(model.length)
    outcome = _ask(model, effort, best)
    reached = _read(network, model, outcome, best, value, bound)
    return _logged(reached, effort, {"interval": ii}, lambda most: shorter(network.loop, ii, most))


def whole_model(network: Network, ii: int, least: int, most: int) -> Model:
    """Return the model of all operations with a length in [least, most], without an objective."""
    head, tail = heads(network, ii), tails(network, ii)
    assert head is not None
    model = Model(network, ii)
    add_times(model, {vertex: (head[vertex], most - tail[vertex]) for vertex in range(network.size)})
    add_arcs(model, range(len(network.arcs)))
    add_units(model)
    add_full_units(model, turned=False)
    add_one_iteration_units(model)
    add_rings(model)
    add_memories(model)
    add_length(model, least, most)
    return model


def fewest_ring_bytes(
    network: Network, ii: int, starts: tuple[int, ...], length: int, effort: Effort, tell: Progress
) -> Reached:
    """Reduce the bytes of all rings at the given interval and length."""
    least = depth_bounds(network, ii)
    bound = Bound(_bytes(network, least), ProofKind.RECURRENCE, {"interval": ii})
    value = _bytes(network, depths_of(network, ii, starts))
    if value == bound.value:
        return Reached(starts, value, bound)
    tell(f"interval {ii}: {value} ring bytes, at least {bound.value}")
    model = whole_model(network, ii, 0, length)
    model.cp.minimize(ring_bytes(model))
    outcome = _ask(model, effort, starts)
    reached = _read(network, model, outcome, starts, value, bound)
    evidence = {"interval": ii, "length": length_at(network, reached.starts)}
    return _logged(reached, effort, evidence, lambda most: cheaper(network.loop, ii, evidence["length"], most))


def _ask(model: Model, effort: Effort, starts: tuple[int, ...]) -> Outcome:
    hint = [(model.starts[vertex], start) for vertex, start in enumerate(starts)]
    return solve(model.cp, effort.limits, hint=hint, tuning=TUNING)


def _bytes(network: Network, depths: dict[str, int]) -> int:
    return sum(ring.slot_bytes * depths[ring.name] for ring in network.loop.rings)


def _read(
    network: Network, model: Model, outcome: Outcome, before: tuple[int, ...], value: int, bound: Bound
) -> Reached:
    """Return the better of what was there and what the solver found, and the better of the two bounds."""
    starts = before
    if outcome.solved and outcome.value is not None and round(outcome.value) <= value:
        value = round(outcome.value)
        starts = tuple(normalized([outcome[model.starts[vertex]] for vertex in range(network.size)]))
    proven = value if outcome.status is Status.OPTIMAL else _rounded_up(outcome.bound)
    if proven is not None and bound.value < proven <= value:
        basis = {"value": bound.value, "proof": bound.proof.value, "evidence": bound.evidence}
        bound = Bound(proven, ProofKind.SOLVER, {"basis": basis, **outcome.report.evidence()})
    return Reached(starts, value, bound)


def _logged(
    reached: Reached, effort: Effort, evidence: dict[str, int], below: Callable[[int], Problem | None]
) -> Reached:
    """Put a proof log in place of the solver's word where one is found in a short time and is not too long."""
    if reached.bound.proof is not ProofKind.SOLVER or reached.bound.value != reached.value:
        return reached
    refuted = reached.value - 1
    problem = below(refuted)
    limit_s = min(LONGEST_LOG_S, effort.limits.deterministic_s or LONGEST_LOG_S)
    log = None if problem is None or limit_s < LEAST_LOG_S else logged(problem, limit_s)
    if log is None:
        return reached
    return replace(
        reached, bound=Bound(reached.value, ProofKind.PROOF_LOG, {**evidence, "refuted": refuted, "log": log})
    )


def _rounded_up(bound: float | None) -> int | None:
    return None if bound is None else -int(-bound // 1)
