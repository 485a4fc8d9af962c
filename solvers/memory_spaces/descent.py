"""Descent from whole choices: another way through one gap at a time, kept where the replay is shorter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.space_replay import replay
from treadle.ir.layout.space_plan import SpacesPlan
from treadle.ir.layout.space_program import HOME, RETURN, Program
from treadle.solvers.memory_spaces.choices import plan_of, taken_of


def descend(program: Program, plan: SpacesPlan, trials: int) -> SpacesPlan:
    """Return the best plan after at most `trials` replays; needs and capacities hold all the way."""
    state = _State(program, taken_of(program, plan))
    best = replay(plan).step_ns
    improved = True
    while improved and trials > 0:
        improved = False
        for options in state.alternatives():
            now = next((one for one in options if one in state.taken), None)
            for other in [None, *options] if now is not None else options:
                if other == now or trials <= 0 or not state.swap(now, other):
                    continue
                trials -= 1
                step = replay(state.plan()).step_ns
                if step < best:
                    best, now, improved = step, other, True
                else:
                    state.swap(other, now, always=True)
    return state.plan()


class _State:
    """Choices made, and the bytes that are left in every section of every space with a capacity."""

    def __init__(self, program: Program, taken: set[int]) -> None:
        self.program, self.taken = program, taken
        sections = range(len(program.problem.sections))
        self.room: dict[int, NDArray[np.int64]] = {
            space: np.array([program.capacity(space, section) for section in sections], dtype=np.int64)
            for space, each in enumerate(program.problem.spaces)
            if each.capacity_bytes is not None
        }
        for one in taken:
            self._occupy(one, 1)
        self.needs: dict[int, list[int]] = {}
        for position, need in enumerate(program.needs):
            for one in (need.choice, *need.without, *need.by):
                self.needs.setdefault(one, []).append(position)

    def alternatives(self) -> list[tuple[int, ...]]:
        """Return the options of every gap that is moved through, the longest work first; then homes and returns."""
        options = [each for _, gaps in self.program.by_buffer.values() for each in gaps.values()]
        used = [each for each in options if not self.taken.isdisjoint(each)]
        used.sort(key=lambda each: -max(self._work(one) for one in each if one in self.taken))
        singles = [(one,) for one in sorted(self.taken) if self.program.choices[one].group in (HOME, RETURN)]
        return [*used, *singles]

    def _work(self, one: int) -> int:
        choice = self.program.choices[one]
        return choice.rerun_ns + sum(copy.duration_ns for copy in choice.copies)

    def plan(self) -> SpacesPlan:
        """Return the choices as a plan without offsets."""
        chosen = np.zeros(len(self.program.choices))
        chosen[sorted(self.taken)] = 1
        return plan_of(self.program, chosen)

    def swap(self, old: int | None, new: int | None, always: bool = False) -> bool:
        """Replace a choice (None: staying); takes it back and returns False where it breaks a capacity or a need."""
        self._put(old, -1)
        self._put(new, 1)
        if always or (self._fits() and self._needs_hold(old, new)):
            return True
        self._put(new, -1)
        self._put(old, 1)
        return False

    def _put(self, one: int | None, sign: int) -> None:
        if one is not None:
            self._occupy(one, sign)
            (self.taken.add if sign > 0 else self.taken.discard)(one)

    def _occupy(self, one: int, sign: int) -> None:
        for span in self.program.choices[one].occupied:
            if span.space in self.room:
                self.room[span.space][span.low : span.high + 1] -= sign * span.size_bytes

    def _fits(self) -> bool:
        return all(int(each.min()) >= 0 for each in self.room.values())

    def _needs_hold(self, *changed: int | None) -> bool:
        for one in changed:
            for position in self.needs.get(-1 if one is None else one, ()):
                need = self.program.needs[position]
                left = (need.choice in self.taken) + sum(other in self.taken for other in need.without)
                if left - sum(other in self.taken for other in need.by) > need.limit:
                    return False
        return True
