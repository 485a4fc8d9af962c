"""The CP-SAT model of a packing: some nodes are free, the others stand as in a given placement.

Variables and families are those of docs/design/packing.md. The whole problem is the model with every node free.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ortools.sat.python import cp_model

from treadle.ir.cluster.objective import Order, Tail
from treadle.solvers.backend import Outcome
from treadle.solvers.packing.problem import Cell, Counts, Problem
from treadle.solvers.packing.rules import add_rules
from treadle.solvers.packing.tails import tail_level

Expression = cp_model.LinearExpr | int


class PackingModel:
    """Variables `stays[g, n]` and `arrives[g, n]` for free nodes, constants elsewhere, and the objective's levels."""

    def __init__(
        self,
        problem: Problem,
        free: Iterable[int],
        base: Counts,
        tail: Tail = Tail.NOTHING,
        frozen_tier: int | None = None,
    ) -> None:
        self.problem = problem
        self.free = tuple(free)
        self.base = base
        self.tail = tail
        self.frozen_tier = frozen_tier
        self.model = cp_model.CpModel()
        self.stays: dict[Cell, cp_model.IntVar] = {}
        self.arrives: dict[Cell, cp_model.IntVar] = {}
        self.fixed_stays: dict[int, int] = defaultdict(int)
        self.fixed_arrives: dict[int, int] = defaultdict(int)
        self._count_fixed()
        self._add_counts()
        self._add_capacity()
        self._add_supply()
        if problem.ruled:
            add_rules(self)
        self.levels = self._levels()

    def _count_fixed(self) -> None:
        inside = set(self.free)
        for (g, n), count in self.base.stays.items():
            if n not in inside:
                self.fixed_stays[g] += count
        for (g, n), count in self.base.arrives.items():
            if n not in inside:
                self.fixed_arrives[g] += count

    def available(self, g: int) -> int:
        """Return how many pods of the group are not on fixed nodes."""
        return self.problem.groups[g].count - self.fixed_stays[g] - self.fixed_arrives[g]

    def _add_counts(self) -> None:
        new = self.model.new_int_var
        for g, group in enumerate(self.problem.groups):
            available = self.available(g)
            if not available:
                continue
            frozen = self.frozen_tier is not None and group.priority >= self.frozen_tier
            waiting = available - sum(group.running.get(n, 0) for n in self.free) if frozen else available
            for n in self.free:
                if now := group.running.get(n, 0):
                    self.stays[g, n] = new(now if frozen else 0, now, f"s{g}_{n}")
                if (room := min(waiting, self.problem.fit[g].get(n, 0))) > 0:
                    self.arrives[g, n] = new(0, room, f"a{g}_{n}")

    def _add_capacity(self) -> None:
        loads: dict[int, list[tuple[cp_model.IntVar, int]]] = defaultdict(list)
        for cells in (self.stays, self.arrives):
            for (g, n), variable in cells.items():
                loads[n].append((variable, g))
        for n, load in loads.items():
            variables = [variable for variable, _ in load]
            for r, capacity in enumerate(self.problem.capacity[n]):
                weights = [self.problem.groups[g].demand[r] for _, g in load]
                if sum(w * v.domain.max() for w, v in zip(weights, variables, strict=True)) > capacity:
                    self.model.add(cp_model.LinearExpr.weighted_sum(variables, weights) <= capacity)

    def _add_supply(self) -> None:
        self.of_group: dict[int, tuple[list[cp_model.IntVar], list[cp_model.IntVar]]] = {}
        for g in range(len(self.problem.groups)):
            self.of_group[g] = ([], [])
        for position, cells in enumerate((self.stays, self.arrives)):
            for (g, _), variable in cells.items():
                self.of_group[g][position].append(variable)
        for g, (stays, arrives) in self.of_group.items():
            if arrives:
                self.model.add(cp_model.LinearExpr.sum([*stays, *arrives]) <= self.available(g))

    def add_departure_cuts(self) -> None:
        """Say what follows from the capacities: pods that do not fit beside a node's pods come only where some leave.

        For a node with free room f and waiting groups B of which no pod fits into f, with z = "some pod leaves": per
        resource, arrivals of B <= z f + what leaves; and arrivals of B <= c times departures, where c is the largest
        ratio that the sizes allow. Linear relaxations see neither.
        """
        waiting = [g for g, group in enumerate(self.problem.groups) if group.count > group.run_count]
        by_node: dict[int, list[int]] = defaultdict(list)
        for g, n in self.stays:
            by_node[n].append(g)
        for n, leaving in by_node.items():
            free = self._room_beside(n)
            blocked = [g for g in waiting if (g, n) in self.arrives and not self._fits(g, free)]
            if blocked:
                self._cut_node(n, leaving, blocked, free)

    def _room_beside(self, n: int) -> list[int]:
        return [
            capacity - sum(group.demand[r] * group.running.get(n, 0) for group in self.problem.groups)
            for r, capacity in enumerate(self.problem.capacity[n])
        ]

    def _fits(self, g: int, room: list[int]) -> bool:
        return all(amount <= free for amount, free in zip(self.problem.groups[g].demand, room, strict=True))

    def _cut_node(self, n: int, leaving: list[int], blocked: list[int], free: list[int]) -> None:
        groups = self.problem.groups
        arrivals = [self.arrives[g, n] for g in blocked]
        departures = sum(groups[g].running[n] - self.stays[g, n] for g in leaving)
        some = self.model.new_bool_var(f"z{n}")
        self.model.add(departures >= some)
        for variable in arrivals:
            self.model.add(variable == 0).only_enforce_if(~some)
        ratio = 0.0
        for r, room in enumerate(free):
            gone = sum(groups[g].demand[r] * (groups[g].running[n] - self.stays[g, n]) for g in leaving)
            self.model.add(
                cp_model.LinearExpr.weighted_sum(arrivals, [groups[g].demand[r] for g in blocked]) <= gone + room * some
            )
        most = sum(groups[g].running[n] for g in leaving)
        for k in range(1, most + 1):
            fit = min(
                (room + k * max(groups[g].demand[r] for g in leaving)) // least
                for r, room in enumerate(free)
                if (least := min(groups[g].demand[r] for g in blocked))
            )
            ratio = max(ratio, fit / k)
        whole = -(-int(ratio * 1000) // 1000)
        if whole <= 3:
            self.model.add(cp_model.LinearExpr.sum(arrivals) <= whole * departures)

    def _levels(self) -> list[tuple[str, Expression, bool]]:
        """Return (name, expression, maximize) per level, most important first."""
        tiers = self.problem.tiers
        if self.problem.order is Order.PLACE_FIRST:
            lost = self._lost()
            levels = [(f"placed>={tier}", self._placed(tier), True) for tier in tiers]
            levels += [("evicted", sum(lost.values()), False), ("moved", self._moved(lost), False)]
        else:
            levels = [
                level
                for tier in tiers
                for level in (
                    (f"placed>={tier}", self._placed(tier), True),
                    (f"disruption>={tier}", self._disruption(tier), False),
                )
            ]
        if self.tail is not Tail.NOTHING:
            levels.append((self.tail.value, tail_level(self), False))
        return levels

    def _placed(self, tier: int) -> Expression:
        variables: list[cp_model.IntVar] = []
        constant = sum(count for priority, count in self.problem.pinned_placed.items() if priority >= tier)
        for g, group in enumerate(self.problem.groups):
            if group.priority >= tier:
                variables += [*self.of_group[g][0], *self.of_group[g][1]]
                constant += self.fixed_stays[g] + self.fixed_arrives[g]
        return cp_model.LinearExpr.sum(variables) + constant

    def _lost(self) -> dict[int, Expression]:
        """Return e_g >= r_g - placed, for groups that may lose replicas."""
        lost: dict[int, Expression] = {}
        for g, group in enumerate(self.problem.groups):
            fixed = self.fixed_stays[g] + self.fixed_arrives[g]
            if group.run_count <= fixed:
                continue
            variable = self.model.new_int_var(0, group.run_count - fixed, f"e{g}")
            self.model.add(variable + sum(self.of_group[g][0]) + sum(self.of_group[g][1]) >= group.run_count - fixed)
            lost[g] = variable
        return lost

    def _moved(self, lost: dict[int, Expression]) -> Expression:
        terms: list[Expression] = []
        for g, group in enumerate(self.problem.groups):
            displaced = group.run_count - self.fixed_stays[g] - sum(self.of_group[g][0])
            terms.append(group.restart_cost * (displaced - lost.get(g, 0)))
        return sum(terms)

    def _disruption(self, tier: int) -> Expression:
        terms: list[Expression] = []
        for g, group in enumerate(self.problem.groups):
            if group.priority < tier or not group.run_count:
                continue
            stays, _ = self.of_group[g]
            terms.append(group.run_count - self.fixed_stays[g] - sum(stays))
            terms.append(self._moved_of(g))
        return sum(terms)

    def _moved_of(self, g: int) -> Expression:
        """Return m_g >= arrivals - waiting."""
        if not hasattr(self, "_moves"):
            self._moves: dict[int, Expression] = {}
        if g not in self._moves:
            group, arrives = self.problem.groups[g], self.of_group[g][1]
            waiting = group.count - group.run_count - self.fixed_arrives[g]
            if not arrives:
                self._moves[g] = max(0, -waiting)
            else:
                variable = self.model.new_int_var(max(0, -waiting), group.count, f"m{g}")
                self.model.add(variable >= cp_model.LinearExpr.sum(arrives) - waiting)
                self._moves[g] = variable
        return self._moves[g]

    def hint(self, counts: Counts) -> list[tuple[cp_model.IntVar, int]]:
        """Return the values of the count variables in a placement."""
        return [
            (variable, held.get(cell, 0))
            for cells, held in ((self.stays, counts.stays), (self.arrives, counts.arrives))
            for cell, variable in cells.items()
        ]

    def read(self, outcome: Outcome) -> Counts:
        """Return the placement of an outcome, fixed nodes included; a twin that arrives where one left has stayed."""
        inside = set(self.free)
        stays = {cell: count for cell, count in self.base.stays.items() if cell[1] not in inside}
        arrives = {cell: count for cell, count in self.base.arrives.items() if cell[1] not in inside}
        total: dict[Cell, int] = defaultdict(int)
        for cells in (self.stays, self.arrives):
            for cell, variable in cells.items():
                total[cell] += outcome[variable]
        for (g, n), count in total.items():
            kept = min(count, self.problem.groups[g].running.get(n, 0))
            if kept:
                stays[g, n] = kept
            if count > kept:
                arrives[g, n] = count - kept
        return Counts(stays, arrives)
