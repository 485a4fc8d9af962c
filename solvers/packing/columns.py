"""The master of column generation over contents of nodes: a linear program for prices, and its integer form.

Columns are contents (which residents stay, which pods arrive) of nodes that are alike. Rows link them to the pods of
each kind that stay and arrive, from which the levels of the objective follow.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

from treadle.costmodels.node_patterns import Kind, Patterns, right_side
from treadle.ir.cluster.objective import Measure
from treadle.solvers.backend import Limits, Outcome, solve

Floats = NDArray[np.float64]
Content = tuple[tuple[int, int, int], ...]
"""(kind, pods that stay, pods that arrive), sorted by kind."""
Point = tuple[Floats, Floats, Floats]
"""Worth of a stay and of an arrival by kind, multipliers of the earlier levels."""
_BIG = 50.0
"""Cost of missing an earlier level's value while the columns do not suffice."""


class Master:
    """The linear program over known contents; it grows by columns."""

    def __init__(self, found: Patterns, level: Measure, earlier: Sequence[Measure]) -> None:
        self.found = found
        self.level = level
        self.earlier = tuple(earlier)
        self.homes = any(found.offer.residents)
        self.model = mathopt.Model(name="contents")
        self.stay_rows = [self.model.add_linear_constraint(lb=0.0, ub=0.0) for _ in found.kinds if self.homes]
        self.arrive_rows = [self.model.add_linear_constraint(lb=0.0, ub=0.0) for _ in found.kinds]
        self.node_rows = [self.model.add_linear_constraint(ub=float(len(members))) for members in found.members]
        self.level_rows = self._add_levels()
        self.columns: list[dict[Content, mathopt.Variable]] = [{} for _ in found.members]
        self._solver = mathopt.IncrementalSolver(self.model, mathopt.SolverType.GLOP)
        self.value = 0.0

    def _add_levels(self) -> list[mathopt.LinearConstraint]:
        """Add the objective and the earlier levels' rows."""
        sums: list[list[Any]] = [[] for _ in (self.level, *self.earlier)]
        for g, kind in enumerate(self.found.kinds):
            arrives = self.model.add_variable(lb=0.0, ub=float(kind.count))
            self.arrive_rows[g].set_coefficient(arrives, -1.0)
            stays = None
            if self.homes:
                stays = self.model.add_variable(lb=0.0, ub=float(kind.running))
                self.stay_rows[g].set_coefficient(stays, -1.0)
                self.model.add_linear_constraint(stays + arrives <= kind.count)
            self._add_terms(kind, sums, stays, arrives)
        rows: list[mathopt.LinearConstraint] = []
        for terms, one in zip(sums[1:], self.earlier, strict=True):
            over = self.model.add_variable(lb=0.0)
            sums[0].append(_BIG * over)
            rows.append(
                self.model.add_linear_constraint(
                    mathopt.fast_sum([*terms, -over]) <= float(right_side(self.found, one))
                )
            )
        self.model.minimize(mathopt.fast_sum(sums[0]))
        return rows

    def _add_terms(
        self, kind: Kind, sums: list[list[Any]], stays: mathopt.Variable | None, arrives: mathopt.Variable
    ) -> None:
        """Add what a kind contributes to every level; `node_patterns.term` is the exact form."""
        moved = missing = None
        for one, terms in zip((self.level, *self.earlier), sums, strict=True):
            if one.floor is not None and kind.priority < one.floor:
                continue
            present = arrives if stays is None else stays + arrives
            if one.maximize:
                terms.append(-1.0 * present)
            elif stays is None or not kind.running:
                continue
            elif one.name.startswith("disruption"):
                if moved is None:
                    moved = self.model.add_variable(lb=0.0)
                    self.model.add_linear_constraint(moved >= arrives - (kind.count - kind.running))
                terms.append(kind.running - stays + moved)
            else:
                if missing is None:
                    missing = self.model.add_variable(lb=0.0, ub=float(kind.running))
                    self.model.add_linear_constraint(missing >= kind.running - present)
                    self.model.add_linear_constraint(missing <= kind.running - stays)
                gone = kind.restart_cost * (kind.running - stays - missing)
                terms.append(1.0 * missing if one.name == "evicted" else gone)

    def add(self, position: int, content: Content) -> bool:
        """Add a column; return whether it is new."""
        if content in self.columns[position]:
            return False
        variable = self.model.add_variable(lb=0.0)
        for kind, stays, arrives in content:
            if stays:
                self.stay_rows[kind].set_coefficient(variable, float(stays))
            if arrives:
                self.arrive_rows[kind].set_coefficient(variable, float(arrives))
        self.node_rows[position].set_coefficient(variable, 1.0)
        self.columns[position][content] = variable
        return True

    def solve(self, wall_s: float | None = None) -> Point | None:
        """Solve the master, within a wall-clock limit if one is given.

        Returns: its prices, None if it has no optimum (numerical trouble, or no time).
        """
        limit = None if wall_s is None else datetime.timedelta(seconds=max(0.001, wall_s))
        result = self._solver.solve(params=mathopt.SolveParameters(time_limit=limit))
        if result.termination.reason != mathopt.TerminationReason.OPTIMAL:
            return None
        duals = result.dual_values()
        self.value = result.objective_value()
        arrive = np.array([duals[row] for row in self.arrive_rows])
        stay = np.array([duals[row] for row in self.stay_rows]) if self.homes else arrive
        return stay, arrive, np.array([max(0.0, -duals[row]) for row in self.level_rows])

    def solve_whole(self, limits: Limits, hint: Sequence[Sequence[Content]]) -> tuple[Outcome, list[list[Content]]]:
        """Choose whole contents for all nodes by CP-SAT; return the outcome and the contents per group of nodes.

        Args:
            limits: of the solve.
            hint: contents of the incumbent, per group of nodes.
        """
        model = cp_model.CpModel()
        uses = [
            {content: model.new_int_var(0, len(members), "") for content in columns}
            for columns, members in zip(self.columns, self.found.members, strict=True)
        ]
        for choice, members in zip(uses, self.found.members, strict=True):
            model.add(cp_model.LinearExpr.sum(list(choice.values())) <= len(members))
        level, *earlier = self._whole_levels(model, uses)
        for expression, one in zip(earlier, self.earlier, strict=True):
            model.add(expression <= right_side(self.found, one))
        model.minimize(level)
        told = [
            (variable, contents.count(content))
            for choice, contents in zip(uses, hint, strict=True)
            for content, variable in choice.items()
        ]
        outcome = solve(model, limits, hint=told, tuning={"cp_model_probing_level": 0})
        if not outcome.solved:
            return outcome, []
        chosen = [
            [content for content, variable in choice.items() for _ in range(outcome[variable])] for choice in uses
        ]
        return outcome, chosen

    def _whole_levels(
        self, model: cp_model.CpModel, uses: list[dict[Content, cp_model.IntVar]]
    ) -> list[cp_model.LinearExpr | int]:
        kinds = self.found.kinds
        stays: list[list[Any]] = [[] for _ in kinds]
        arrives: list[list[Any]] = [[] for _ in kinds]
        for choice in uses:
            for content, variable in choice.items():
                for number, staying, arriving in content:
                    if staying:
                        stays[number].append(staying * variable)
                    if arriving:
                        arrives[number].append(arriving * variable)
        levels: list[Any] = [0 for _ in (self.level, *self.earlier)]
        for g, kind in enumerate(kinds):
            staying, arriving = sum(stays[g]), sum(arrives[g])
            model.add(staying + arriving <= kind.count)
            moved = model.new_int_var(0, kind.count, "")
            missing = model.new_int_var(0, kind.running, "")
            if self.homes:
                model.add(moved >= arriving - (kind.count - kind.running))
                model.add(missing >= kind.running - staying - arriving)
            for position, one in enumerate((self.level, *self.earlier)):
                if one.floor is not None and kind.priority < one.floor:
                    continue
                if one.maximize:
                    levels[position] -= staying + arriving
                elif one.name.startswith("disruption"):
                    levels[position] += kind.running - staying + moved
                elif one.name == "evicted":
                    levels[position] += missing
                else:
                    levels[position] += kind.restart_cost * (kind.running - staying - missing)
        return levels
