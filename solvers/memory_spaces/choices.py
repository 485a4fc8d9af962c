"""Choices of the program as plans, and plans as choices."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from treadle.ir.layout.space_plan import Home, Move, Return, SpacesPlan
from treadle.ir.layout.space_program import HOME, RETURN, Program


def closed(program: Program, kept: Iterable[int]) -> set[int]:
    """Add what the choices need: returns that reruns start from, last moves of kept buffers."""
    found = set(kept)
    by_choice: dict[int, list[int]] = {}
    for need in program.needs:
        by_choice.setdefault(need.choice, []).extend(need.by)
    ahead = list(found)
    while ahead:
        for other in by_choice.get(ahead.pop(), ()):
            if other not in found:
                found.add(other)
                ahead.append(other)
    return found


def plan_of(program: Program, chosen: NDArray[np.float64]) -> SpacesPlan:
    """Return the decisions of a whole solution, without offsets."""
    taken = [program.choices[position] for position in np.flatnonzero(chosen > 0.5)]
    given = program.offered
    gaps = [(given.gaps[one.group], one.option) for one in taken if one.group not in (HOME, RETURN)]
    return SpacesPlan(
        program.problem,
        tuple(Move(gap.buffer, gap.before, gap.modes[option]) for gap, option in gaps),
        tuple(Home(*given.homes[one.option]) for one in taken if one.group == HOME),
        tuple(Return(*given.returns[one.option]) for one in taken if one.group == RETURN),
    )


def taken_of(program: Program, plan: SpacesPlan) -> set[int]:
    """Return the choices that a plan of the program makes."""
    gaps = {(gap.buffer, gap.before): position for position, gap in enumerate(program.offered.gaps)}
    homes = {key: option for option, key in enumerate(program.offered.homes)}
    returns = {key: option for option, key in enumerate(program.offered.returns)}
    taken: set[int] = set()
    for move in plan.moves:
        position = gaps[move.buffer, move.before]
        taken.add(program.at[position, program.offered.gaps[position].modes.index(move.mode)])
    taken |= {program.at[HOME, homes[each.buffer, each.space]] for each in plan.homes}
    return taken | {program.at[RETURN, returns[each.buffer, each.section]] for each in plan.returns}
