"""The program of a step in MathOpt, over cells of sections: occupancy and link work as running sums.

A choice enters the sum of a space where it begins and leaves it where it ends, so that its column has a few entries
however long its gap is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.math_opt.python import mathopt

from treadle.ir.layout.space_program import SCALE, Link, Multipliers, Occupied, Program
from treadle.solvers.backend import Limits, LinearOutcome, solve_linear

Floats = NDArray[np.float64]
Window = tuple[Link, int, int]
"""Link, first and last section."""

CELLS = 600
"""Cells of a long step; a shorter one has a cell a section."""

SPREAD = 64
"""The longest section and the largest buffer are this many units of the model: tolerances are absolute."""


@dataclass(frozen=True, slots=True)
class Solution:
    """Value of every choice (0 where it was left out), time of every section, and the solver's outcome."""

    chosen: Floats
    times_ns: Floats
    outcome: LinearOutcome


class StepModel:
    """The program over the choices `kept`; those of `taken` are made.

    `safe` judges a cell by the most a choice takes in any of its sections, otherwise by its fullest section.
    """

    def __init__(
        self,
        program: Program,
        *,
        safe: bool = False,
        whole: bool = False,
        kept: Iterable[int] | None = None,
        taken: Iterable[int] = (),
    ) -> None:
        self.program, self.safe = program, safe
        self.kept = sorted(range(len(program.choices)) if kept is None else kept)
        sections = len(program.problem.sections)
        self.starts = np.unique(np.linspace(0, sections, min(sections, CELLS) + 1).astype(int))
        self.base_ns = np.add.reduceat(np.array(program.problem.base_ns, dtype=np.float64), self.starts[:-1])
        self.unit_ns = max(1.0, max(program.problem.base_ns) / SPREAD)
        self.unit_bytes = max(1.0, max(buffer.size_bytes for buffer in program.problem.buffers) / SPREAD)
        self.model = mathopt.Model(name="memory spaces")
        made = set(taken)
        self.chosen = {one: self.model.add_variable(lb=float(one in made), ub=1, is_integer=whole) for one in self.kept}
        self.gained: list[Any] = [self.model.add_variable(lb=0) for _ in self.base_ns]
        self.savings = {
            section: self.model.add_variable(lb=0, ub=program.saving_row(section, 0)[0] / self.unit_ns)
            for section in program.saving_sections
        }
        self._exclusive()
        self.need_rows = {position: row for position in range(len(program.needs)) if (row := self._need(position))}
        self.saving_rows = {
            (section, row): self._saving(section, row)
            for section in self.savings
            for row in range(1, 1 + len(program.problem.spaces))
        }
        self.memory_rows = {
            (space, section): row
            for space, each in enumerate(program.problem.spaces)
            if each.capacity_bytes is not None
            for section, row in self._memory(space)
        }
        self.link_rows = {link: self._link(link) for link in self._links()}
        reruns = [(program.choices[one].rerun_ns / self.unit_ns) * x for one, x in self.chosen.items()]
        total: Any = sum(reruns) + sum(self.gained) - sum(self.savings.values())
        self.model.minimize(total)

    def cell(self, section: int) -> int:
        """Return the cell of a section."""
        return int(np.searchsorted(self.starts, section, side="right")) - 1

    def _exclusive(self) -> None:
        for homes, gaps in self.program.by_buffer.values():
            at_home = [self.chosen[one] for one in homes if one in self.chosen]
            for options in [*gaps.values(), *([()] if homes else [])]:
                picked = [*at_home, *(self.chosen[one] for one in options if one in self.chosen)]
                if len(picked) > 1:
                    self.model.add_linear_constraint(sum(picked) <= 1)

    def _need(self, position: int) -> Any:
        need = self.program.needs[position]
        if need.choice not in self.chosen:
            return None
        left = [self.chosen[one] for one in (need.choice, *need.without) if one in self.chosen]
        left += [-self.chosen[one] for one in need.by if one in self.chosen]
        total: Any = sum(left)
        return self.model.add_linear_constraint(total <= need.limit)

    def _saving(self, section: int, row: int) -> Any:
        limit, parts = self.program.saving_row(section, row)
        left: Any = self.savings[section]
        left -= sum((ns / self.unit_ns) * self.chosen[one] for one, ns in parts.items() if one in self.chosen)
        return self.model.add_linear_constraint(left <= limit / self.unit_ns)

    def _memory(self, space: int) -> list[tuple[int, Any]]:
        """Add the running sum of a space; returns the fullest section of every cell with its row."""
        room = np.array(
            [self.program.capacity(space, section) or 0 for section in range(len(self.program.problem.sections))]
        )
        samples = [
            int(low + np.argmin(room[low:high])) for low, high in zip(self.starts[:-1], self.starts[1:], strict=True)
        ]
        steps: list[list[Any]] = [[] for _ in samples]
        for one, variable in self.chosen.items():
            for span in self.program.choices[one].occupied:
                if span.space == space and (cells := self._cells(span, samples)):
                    steps[cells[0]].append((span.size_bytes / self.unit_bytes) * variable)
                    if cells[1] < len(samples):
                        steps[cells[1]].append((-span.size_bytes / self.unit_bytes) * variable)
        before: Any = 0
        rows: list[tuple[int, Any]] = []
        for sample, step in zip(samples, steps, strict=True):
            amount: Any = self.model.add_variable(lb=-float("inf"))
            self.model.add_linear_constraint(amount - before - sum(step) == 0)
            rows.append((sample, self.model.add_linear_constraint(amount <= room[sample] / self.unit_bytes)))
            before = amount
        return rows

    def _cells(self, span: Occupied, samples: list[int]) -> tuple[int, int] | None:
        """Return the cells [first, last) that a span counts in."""
        if not self.safe:
            first, last = np.searchsorted(samples, [span.low, span.high + 1])
        elif span.size_bytes > 0:
            first, last = self.cell(span.low), self.cell(span.high) + 1
        else:
            first = int(np.searchsorted(self.starts, span.low))
            last = int(np.searchsorted(self.starts, span.high + 1, side="right")) - 1
        return (int(first), int(last)) if first < last else None

    def _links(self) -> list[Link]:
        return sorted({copy.link for one in self.kept for copy in self.program.choices[one].copies})

    def _link(self, link: Link) -> list[Any]:
        """Add what a link has done by the end of each cell: no more than is released, no less than is due."""
        count = len(self.base_ns)
        released: list[list[Any]] = [[] for _ in range(count)]
        due: list[list[Any]] = [[] for _ in range(count)]
        for one, variable in self.chosen.items():
            for copy in self.program.choices[one].copies:
                if copy.link == link:
                    released[self.cell(copy.release)].append((copy.duration_ns / self.unit_ns) * variable)
                    due[self.cell(copy.deadline)].append((copy.duration_ns / self.unit_ns) * variable)
        reruns = self._reruns()
        rows: list[Any] = []
        before: Any = 0
        open_before: Any = 0
        due_before: Any = 0
        for cell in range(count):
            done: Any = self.model.add_variable(lb=0)
            opened: Any = self.model.add_variable(lb=0)
            wanted: Any = self.model.add_variable(lb=0)
            self.model.add_linear_constraint(opened - open_before - sum(released[cell]) == 0)
            self.model.add_linear_constraint(wanted - due_before - sum(due[cell]) == 0)
            self.model.add_linear_constraint(done - opened <= 0)
            self.model.add_linear_constraint(wanted - done <= 0)
            given: Any = done - before - self.gained[cell] - sum(reruns[cell])
            rows.append(self.model.add_linear_constraint(given <= self.base_ns[cell] / self.unit_ns))
            before, open_before, due_before = done, opened, wanted
        return rows

    def _reruns(self) -> list[list[Any]]:
        """Terms that lengthen each cell beside stalls: reruns, less savings."""
        terms: list[list[Any]] = [[] for _ in self.base_ns]
        for one, variable in self.chosen.items():
            if ns := self.program.choices[one].rerun_ns:
                terms[self.cell(self.program.choices[one].rerun_at)].append((ns / self.unit_ns) * variable)
        for section, variable in self.savings.items():
            terms[self.cell(section)].append(-variable)
        return terms

    def add_window(self, window: Window) -> None:
        """Add that copies within a window take no longer than the window."""
        link, low, high = window
        first, last = self.cell(low), self.cell(high)
        reruns = self._reruns()
        left: list[Any] = []
        for one, variable in self.chosen.items():
            busy = sum(
                copy.duration_ns
                for copy in self.program.choices[one].copies
                if copy.link == link and low <= copy.release and copy.deadline <= high
            )
            if busy:
                left.append((busy / self.unit_ns) * variable)
        left += [-each for each in self.gained[first : last + 1]]
        left += [-term for cell in range(first, last + 1) for term in reruns[cell]]
        limit = sum(self.program.problem.base_ns[low : high + 1])
        total: Any = sum(left)
        self.model.add_linear_constraint(total <= limit / self.unit_ns)

    def solve(self, limits: Limits, engine: str) -> Solution:
        """Solve with the rows so far."""
        outcome = solve_linear(self.model, limits, engine=engine)
        chosen, times = np.zeros(len(self.program.choices)), np.array(self.program.problem.base_ns, dtype=np.float64)
        if outcome.solved:
            for one, variable in self.chosen.items():
                chosen[one] = outcome[variable]
                times[self.program.choices[one].rerun_at] += self.program.choices[one].rerun_ns * chosen[one]
            for section, variable in self.savings.items():
                times[section] -= outcome[variable] * self.unit_ns
            times[self.starts[1:] - 1] += [outcome[variable] * self.unit_ns for variable in self.gained]
        return Solution(chosen, times, outcome)

    def multipliers(self, outcome: LinearOutcome) -> Multipliers:
        """Return the duals of the relaxation as whole numbers, with the prices of a section kept within 1."""

        def weight(row: Any, unit: float = 1.0) -> int:
            return max(0, round(-outcome.dual(row) * unit * SCALE))

        prices = {link: [weight(row) for row in rows] for link, rows in self.link_rows.items()}
        most = max([SCALE, *(sum(each) for each in zip(*prices.values(), strict=True))])
        return Multipliers(
            tuple(
                (*key, each)
                for key, row in self.memory_rows.items()
                if (each := weight(row, self.unit_ns / self.unit_bytes))
            ),
            tuple(
                (*link, int(self.starts[cell]), int(self.starts[cell + 1]) - 1, each * SCALE // most)
                for link, row in prices.items()
                for cell, each in enumerate(row)
                if each
            ),
            tuple((p, each) for p, row in self.need_rows.items() if (each := weight(row, self.unit_ns))),
            tuple((*key, each) for key, row in self.saving_rows.items() if (each := weight(row))),
        )

    def reduced_ns(self, outcome: LinearOutcome) -> Floats:
        """Return the reduced cost of every choice in the relaxation, in ns."""
        return np.array([outcome.reduced_costs.get(self.chosen[one].id, 0.0) * self.unit_ns for one in self.kept])
