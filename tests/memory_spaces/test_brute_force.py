"""Random tiny steps: the solver's plan equals the best of all legal combinations of moves, and the bound holds."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from treadle.costmodels.space_replay import replay
from treadle.ir.layout.errors import DoesNotFit, NoPlacementFound
from treadle.ir.layout.memory_spaces import Space, SpacesProblem, StepBuffer, StepSection
from treadle.ir.layout.space_modes import offered
from treadle.ir.layout.space_plan import SpacesPlan, check, stays
from treadle.ir.layout.space_program import Multipliers, Program, bound_ns
from treadle.solvers.memory_spaces.choices import plan_of
from treadle.solvers.memory_spaces.solve import solve_spaces


def random_problem(seed: int) -> SpacesProblem:
    chance = random.Random(seed)
    sections = 8
    buffers: list[StepBuffer] = []
    for index in range(6):
        kept = chance.random() < 0.3
        uses = tuple(sorted(chance.sample(range(sections), chance.randint(1 if kept else 2, 3))))
        earlier = [b for b, other in enumerate(buffers) if other.kept or other.uses[0] < uses[0]]
        again = not kept and bool(earlier) and chance.random() < 0.6
        buffers.append(
            StepBuffer(
                f"b{index}",
                chance.randint(1, 6),
                uses,
                (uses[0],) if not kept else tuple(use for use in uses if chance.random() < 0.2),
                kept,
                chance.randint(1, 3) if again else None,
                tuple(chance.sample(earlier, min(len(earlier), chance.randint(1, 2)))) if again else (),
            )
        )
    spaces = (
        Space("main", chance.randint(8, 16), 2_000_000_000),
        Space("host", None, None, 1_000_000_000, 500_000_000),
        *((Space("chip", 5, 6_000_000_000),) if chance.random() < 0.5 else ()),
    )
    return SpacesProblem(
        "random", spaces, tuple(StepSection(f"s{i}", chance.randint(1, 5)) for i in range(sections)), tuple(buffers)
    )


def fits(plan: SpacesPlan) -> bool:
    """Whether every space has room by the sum of sizes."""
    problem = plan.problem
    for space, each in enumerate(problem.spaces):
        pieces = [piece for piece in stays(plan) if piece.space == space]
        for section in range(len(problem.sections)):
            live = sum(problem.buffers[p.buffer].size_bytes for p in pieces if p.lower <= section < p.upper)
            if each.capacity_bytes is not None and live > each.capacity_bytes:
                return False
    return True


def legal(plan: SpacesPlan) -> bool:
    """Legal but for offsets: with pieces that are those of the decisions, only overlaps may be found."""
    findings = check(replace(plan, pieces=stays(plan)))
    return all(finding.code in ("TRD441", "TRD442") for finding in findings)


def best_by_enumeration(program: Program) -> int | None:
    options: list[list[tuple[int, ...]]] = []
    for homes, gaps in program.by_buffer.values():
        away = [
            tuple(one for one in each if one >= 0)
            for each in itertools.product(*([(-1, *each) for each in gaps.values()]))
        ]
        options.append([*away, *((one,) for one in homes)])
    returns = [one for one, choice in enumerate(program.choices) if choice.group == -2]
    options += [[(), (one,)] for one in returns]
    total = 1
    for each in options:
        total *= len(each)
    if total > 30_000:
        pytest.skip("too many combinations")
    least: int | None = None
    for picked in itertools.product(*options):
        chosen = np.zeros(len(program.choices))
        chosen[[one for each in picked for one in each]] = 1
        plan = plan_of(program, chosen)
        if fits(plan) and legal(plan):
            step = replay(plan).step_ns
            least = step if least is None else min(least, step)
    return least


@pytest.mark.parametrize("seed", range(120))
def test_equal_to_all_combinations(seed: int) -> None:
    problem = random_problem(seed)
    program = Program(offered(problem))
    best = best_by_enumeration(program)
    if best is None:
        with pytest.raises((DoesNotFit, NoPlacementFound)):
            solve_spaces(problem)
        return
    plan, certificate = solve_spaces(problem)
    level = certificate["step time"]
    assert not check(plan)
    assert level.value == replay(plan).step_ns
    assert level.value == best
    assert level.bound is not None
    assert bound_ns(program, Multipliers()) <= level.bound
