"""Least height of buffer offsets: the live peak as a bound, the skyline search, then CP-SAT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.layout.buffers import BuffersPlan, BuffersProblem, peak_live
from treadle.ir.layout.errors import DoesNotFit, NoPlacementFound
from treadle.solvers.backend import Limits
from treadle.solvers.buffers.model import refute_or_place
from treadle.solvers.buffers.skyline import Ints, Sections, search

Tell = Callable[[str], None]
"""Receives progress in words."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to spend: skyline nodes and CP-SAT deterministic seconds (0: none) per round, and rounds.

    Each round has a seed of its own and half as much again to spend: both searches have heavy tails, so several short
    attempts beat one long one (a deterministic second of CP-SAT is about fifteen on the clock for these models).
    """

    nodes: int = 20_000
    deterministic_s: float = 0.6
    rounds: int = 6
    improvements: int = 6
    seed: int = 0


def solve_buffers(
    problem: BuffersProblem, effort: Effort | None = None, progress: Tell = lambda _: None
) -> tuple[BuffersPlan, Certificate]:
    """Return offsets of the least height found and what is proven of it.

    Raises:
        DoesNotFit: the live peak exceeds the capacity.
        NoPlacementFound: nothing within the capacity at the end of the effort, and no proof that there is nothing.
    """
    effort = effort or Effort()
    peak, clock = peak_live(problem)
    capacity = problem.capacity_bytes
    if capacity is not None and peak > capacity:
        raise DoesNotFit(need=peak, unit="bytes", where=f"at clock {clock}", capacity=capacity)
    sections = Sections.of(problem)
    plan = _first(problem, sections, capacity, effort, progress)
    plan = _lower(plan, sections, peak, effort, progress)
    return plan, certificate_of(plan)


def certificate_of(plan: BuffersPlan) -> Certificate:
    """State the height against the live peak."""
    peak, clock = peak_live(plan.problem)
    height = plan.height_bytes
    status = Status.OPTIMAL if height == peak else Status.FEASIBLE
    level = Level("height", "bytes", height, peak, status, ProofKind.CAPACITY, {"clock": clock})
    return Certificate("buffers", "lifetimes and sizes as given", (level,))


def _first(
    problem: BuffersProblem,
    sections: Sections,
    capacity: int | None,
    effort: Effort,
    progress: Tell,
) -> BuffersPlan:
    stacked = BuffersPlan(problem, _stack(sections))
    if capacity is None or stacked.height_bytes <= capacity:
        return stacked
    for turn in range(effort.rounds):
        growth = 1.5**turn
        scaled = replace(
            effort,
            nodes=int(effort.nodes * growth),
            deterministic_s=effort.deterministic_s * growth,
            seed=effort.seed + turn,
        )
        offsets, refuted = _attempt(sections, capacity, scaled)
        if offsets is not None:
            return BuffersPlan(problem, offsets)
        if refuted:
            raise DoesNotFit(need=f"more than {capacity}", unit="bytes", where="(search refuted it)", capacity=capacity)
        progress(f"round {turn + 1}: nothing within {capacity} bytes yet; greedy needs {stacked.height_bytes}")
    raise NoPlacementFound(
        capacity=capacity,
        unit="bytes",
        effort=f"{effort.rounds} rounds",
        best=f"{stacked.height_bytes} bytes are enough",
    )


def _attempt(sections: Sections, limit: int, effort: Effort) -> tuple[tuple[int, ...] | None, bool]:
    """Search one limit; returns offsets, and whether it is refuted."""
    if sections.live.size > SEARCHED:
        return None, False
    searched = search(sections, limit, effort.nodes, effort.seed)
    if searched.offsets is not None or searched.refuted or not effort.deterministic_s:
        return searched.offsets, searched.refuted
    status, offsets = refute_or_place(
        sections, limit, Limits(deterministic_s=effort.deterministic_s, seed=effort.seed + 2)
    )
    return offsets, status is Status.INFEASIBLE


def _lower(plan: BuffersPlan, sections: Sections, peak: int, effort: Effort, progress: Tell) -> BuffersPlan:
    """Bring the height down to the bound, halving the distance while the search succeeds."""
    if sections.live.size > SEARCHED:
        return plan
    low = peak
    for _ in range(effort.improvements):
        if plan.height_bytes <= peak or low >= plan.height_bytes:
            return plan
        target = low
        searched = search(sections, target, effort.nodes // 2, effort.seed)
        if searched.offsets is None:
            low = (low + plan.height_bytes) // 2
            continue
        plan = BuffersPlan(plan.problem, searched.offsets)
        progress(f"height {plan.height_bytes} bytes, bound {peak}")
    return plan


SEARCHED = 2_000_000
"""Buffers x sections beyond which the greedy placement stands: a node of the search copies all of them."""


def _stack(sections: Sections) -> tuple[int, ...]:
    """First fit in four orders (size, area, area over sections, lifetime, largest first); the lowest is kept."""
    sizes, widths = sections.sizes.astype(float), sections.width.astype(float)
    keys = (sizes, widths * sizes, (sections.last - sections.first) * sizes, widths)
    placed = [_first_fit(sections, np.argsort(-key, kind="stable")) for key in keys]
    best = min(placed, key=lambda offsets: int((offsets + sections.sizes).max()))
    return tuple(best.tolist())


def _first_fit(sections: Sections, order: NDArray[np.intp]) -> Ints:
    """Place buffers in an order, each at the lowest offset that is free over its lifetime."""
    first, last, sizes = sections.first[order], sections.last[order], sections.sizes[order]
    begins, ends = np.zeros(len(order), np.int64), np.zeros(len(order), np.int64)
    for index in range(len(order)):
        meets = np.flatnonzero((first[:index] < last[index]) & (last[:index] > first[index]))
        meets = meets[np.argsort(begins[meets], kind="stable")]
        floors = np.concatenate(([0], np.maximum.accumulate(ends[meets])))
        ceilings = np.concatenate((begins[meets], [_FAR]))
        begins[index] = floors[np.argmax(ceilings - floors >= sizes[index])]
        ends[index] = begins[index] + sizes[index]
    offsets = np.zeros(len(order), np.int64)
    offsets[order] = begins
    return offsets


_FAR = np.int64(1 << 60)
