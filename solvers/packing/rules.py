"""Rules between pods as constraints on counts: affinity, anti-affinity, spread, gangs, budgets, devices.

Each family says exactly what its check in `ir/cluster/placement.py` says: narrower constraints would make false proofs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ortools.sat.python import cp_model

from treadle.costmodels.migration import budgets_by_shape
from treadle.ir.cluster.cluster import PENDING, Gang, PodTerm, Shape, Spread
from treadle.ir.cluster.labels import selects
from treadle.ir.cluster.placement import counts_in_spread, domain_of, term_selects

if TYPE_CHECKING:
    from treadle.solvers.packing.model import PackingModel

Sum = cp_model.LinearExpr | int


def add_rules(packing: PackingModel) -> None:
    """Add every family that the cluster's pods need."""
    rules = _Rules(packing)
    for index, shape in enumerate(packing.problem.cluster.shapes):
        for term in shape.anti_affinity:
            rules.anti_affinity(index, term)
        for term in shape.affinity:
            rules.affinity(index, term)
        for spread in shape.spreads:
            rules.spread(index, spread)
    for gang in packing.problem.cluster.gangs:
        rules.gang(gang)
    rules.budgets()
    for n in packing.free:
        rules.devices(n)


class _Rules:
    def __init__(self, packing: PackingModel) -> None:
        self.packing = packing
        self.model = packing.model
        self.problem = packing.problem
        self.cluster = packing.problem.cluster
        self.shape_of = [group.shape for group in self.problem.groups]
        inside = set(packing.free)
        self.fixed_stays: Counter[tuple[int, int]] = Counter()
        self.fixed_arrives: Counter[tuple[int, int]] = Counter()
        for pod in self.cluster.pods:
            if pod.pinned and pod.node != PENDING:
                self.fixed_stays[pod.shape, pod.node] += 1
        for cells, into in ((packing.base.stays, self.fixed_stays), (packing.base.arrives, self.fixed_arrives)):
            for (g, n), count in cells.items():
                if n not in inside:
                    into[self.shape_of[g], n] += count

    def stays(self, shapes: set[int], nodes: set[int]) -> Sum:
        """Return the pods of the shapes that stay on the nodes."""
        return self._sum(self.packing.stays, self.fixed_stays, shapes, nodes)

    def arrives(self, shapes: set[int], nodes: set[int]) -> Sum:
        """Return the pods of the shapes that arrive on the nodes."""
        return self._sum(self.packing.arrives, self.fixed_arrives, shapes, nodes)

    def _sum(
        self,
        cells: dict[tuple[int, int], cp_model.IntVar],
        fixed: Counter[tuple[int, int]],
        shapes: set[int],
        nodes: set[int],
    ) -> Sum:
        constant = sum(count for (shape, n), count in fixed.items() if shape in shapes and n in nodes)
        variables = [v for (g, n), v in cells.items() if self.shape_of[g] in shapes and n in nodes]
        return cp_model.LinearExpr.sum(variables) + constant if variables else constant

    def _domains(self, key: str, counts: Callable[[int], bool] = lambda _: True) -> dict[str, set[int]]:
        found: dict[str, set[int]] = defaultdict(set)
        for n, node in enumerate(self.cluster.nodes):
            domain = domain_of(node, key)
            if domain is not None and counts(n):
                found[domain].add(n)
        return dict(found)

    def _matched(self, wanted: Callable[[Shape], bool]) -> set[int]:
        return {index for index, shape in enumerate(self.cluster.shapes) if wanted(shape)}

    def _positive(self, amount: Sum) -> cp_model.IntVar | bool:
        """Return a literal that is true whenever the amount is positive."""
        if isinstance(amount, int):
            return amount > 0
        literal = self.model.new_bool_var("")
        self.model.add(amount <= 0).only_enforce_if(~literal)
        return literal

    def _if(self, literal: cp_model.LiteralT | bool, constraint: cp_model.BoundedLinearExpression | bool) -> None:
        if literal is False or constraint is True:
            return
        if isinstance(constraint, bool):
            if literal is True:
                return  # two pods that stand now contradict each other: `check` lets them stand
            self.model.add_bool_or([~literal]) if not isinstance(literal, bool) else None
            return
        added = self.model.add(constraint)
        if not isinstance(literal, bool):
            added.only_enforce_if(literal)

    def anti_affinity(self, shape: int, term: PodTerm) -> None:
        """No arrival beside a pod to avoid, and no such pod arrives beside one that stays."""
        others = self._matched(lambda other: term_selects(term, other))
        itself = int(shape in others)
        for nodes in self._touched(self._domains(term.topology_key)):
            arrives = self.arrives({shape}, nodes)
            self._if(self._positive(arrives), self.stays(others, nodes) + self.arrives(others, nodes) <= itself)
            self._if(self._positive(self.stays({shape}, nodes)), self.arrives(others, nodes) <= 0)

    def affinity(self, shape: int, term: PodTerm) -> None:
        """Arrivals only where a matching pod stays; if none stays anywhere, where all matching ones arrive."""
        others = self._matched(lambda other: term_selects(term, other))
        domains = self._domains(term.topology_key)
        everywhere = set(range(len(self.cluster.nodes)))
        self._forbid(shape, everywhere.difference(*domains.values()))
        for nodes in domains.values():
            arrives = self._positive(self.arrives({shape}, nodes))
            if arrives is False:
                continue
            beside, together = self.model.new_bool_var(""), self.model.new_bool_var("")
            self._if(beside, self.stays(others, nodes) >= 1)
            self._if(together, self.stays(others, everywhere) <= 0)
            self._if(together, self.arrives(others, nodes) >= 1)
            self._if(together, self.arrives(others, everywhere - nodes) <= 0)
            self.model.add_bool_or([beside, together] if arrives is True else [beside, together, ~arrives])

    def spread(self, shape: int, spread: Spread) -> None:
        """Where a pod arrives, its domain is at most `max_skew` above the emptiest one."""
        description = self.cluster.shapes[shape]
        counted = self._matched(
            lambda other: other.namespace == description.namespace and selects(spread.selector, other.labels)
        )
        nodes = self.cluster.nodes
        domains = self._domains(spread.topology_key, lambda n: counts_in_spread(spread, description, nodes[n]))
        self._forbid(
            shape, set(range(len(nodes))) - set().union(*domains.values()) if domains else set(range(len(nodes)))
        )
        totals = {name: self.stays(counted, at) + self.arrives(counted, at) for name, at in domains.items()}
        least: Sum = 0
        if len(domains) >= spread.min_domains:
            variable = self.model.new_int_var(0, len(self.cluster.pods), "")
            for total in totals.values():
                self.model.add(total >= variable)
            least = variable
        for name, at in domains.items():
            arrives = self.arrives({shape}, at)
            self._if(self._positive(arrives), totals[name] <= least + spread.max_skew)

    def gang(self, gang: Gang) -> None:
        """As it is now, or nothing, or at least the minimum - in one domain where the gang asks for it."""
        groups = [g for g, group in enumerate(self.problem.groups) if group.gang == gang.name]
        variables = [
            v for cells in (self.packing.stays, self.packing.arrives) for (g, _), v in cells.items() if g in groups
        ]
        if not variables:
            return
        fixed = sum(self.packing.fixed_stays[g] + self.packing.fixed_arrives[g] for g in groups)
        total = cp_model.LinearExpr.sum(variables) + fixed
        same, none, full = (self.model.new_bool_var("") for _ in range(3))
        self.model.add_bool_or([same, none, full])
        now = {cell: count for cell in self.packing.stays if (count := self.problem.groups[cell[0]].running[cell[1]])}
        for cells in (self.packing.stays, self.packing.arrives):
            for (g, n), variable in cells.items():
                if g in groups:
                    kept = now[g, n] if cells is self.packing.stays else 0
                    self.model.add(variable == kept).only_enforce_if(same)
        self.model.add(total == 0).only_enforce_if(none)
        self.model.add(total >= gang.minimum).only_enforce_if(full)
        if gang.topology_key:
            self._one_domain(gang, groups, full)

    def _one_domain(self, gang: Gang, groups: list[int], full: cp_model.IntVar) -> None:
        domains = self._domains(gang.topology_key)
        chosen = {name: self.model.new_bool_var("") for name in domains}
        self.model.add(cp_model.LinearExpr.sum([*chosen.values(), 0]) == 1).only_enforce_if(full)
        held = {
            (g, n) for cells in (self.packing.base.stays, self.packing.base.arrives) for (g, n) in cells if g in groups
        }
        for n, node in enumerate(self.cluster.nodes):
            literal = chosen.get(domain_of(node, gang.topology_key) or "")
            here = [
                v
                for cells in (self.packing.stays, self.packing.arrives)
                for (g, m), v in cells.items()
                if m == n and g in groups
            ]
            for variable in here:
                constraint = self.model.add(variable == 0)
                constraint.only_enforce_if([full] if literal is None else [full, ~literal])
            if not here and n not in self.packing.free and any(m == n for _, m in held):
                self.model.add_bool_or([~full] if literal is None else [~full, literal])

    def budgets(self) -> None:
        """So many pods of a budget stand at the end that no more than allowed were lost."""
        budgets_of = budgets_by_shape(self.cluster)
        for position, budget in enumerate(self.cluster.budgets):
            shapes = {shape for shape, budgets in budgets_of.items() if position in budgets}
            running = sum(pod.shape in shapes and pod.node != PENDING for pod in self.cluster.pods)
            everywhere = set(range(len(self.cluster.nodes)))
            standing = self.stays(shapes, everywhere) + self.arrives(shapes, everywhere)
            if not isinstance(standing, int):
                self.model.add(standing >= running - budget.disruptions_allowed)

    def devices(self, n: int) -> None:
        """Every device of a node holds what is put on it, at legal positions."""
        devices = self.cluster.nodes[n].devices
        if devices is None:
            return
        loads: list[list[tuple[Sum, int, int]]] = [[] for _ in range(devices.count)]
        for g, group in enumerate(self.problem.groups):
            request = self.cluster.shapes[group.shape].device
            cells = [c[g, n] for c in (self.packing.stays, self.packing.arrives) if (g, n) in c]
            if request is None or not cells:
                continue
            total = cp_model.LinearExpr.sum(cells)
            starts = devices.starts.get(request.profile, ()) if request.profile else (-1,)
            uses: list[cp_model.IntVar] = []
            for device in range(devices.count):
                for start in starts:
                    most = devices.slots // request.slots if start < 0 else 1
                    variable = self.model.new_int_var(0, min(most, group.count), "")
                    if request.count > 1:
                        self.model.add(variable <= total)
                    loads[device].append((variable, request.slots, start))
                    uses.append(variable)
            self.model.add(cp_model.LinearExpr.sum(uses) == request.count * total)
        self._fill_devices(n, devices.slots, loads)

    def _fill_devices(self, n: int, slots: int, loads: list[list[tuple[Sum, int, int]]]) -> None:
        for pod in self.cluster.pods:
            request = self.cluster.shapes[pod.shape].device
            if pod.node == n and pod.pinned and request and pod.device is not None:
                loads[pod.device[0]].append((1, request.slots, pod.device[1] if request.profile else -1))
        for load in loads:
            self.model.add(_weighted(load) <= slots) if load else None
            if any(start >= 0 for _, _, start in load):
                for slot in range(slots):
                    covering = [amount for amount, width, start in load if start <= slot < start + width]
                    if len(covering) > 1:
                        self.model.add(_total(covering) <= 1)

    def _forbid(self, shape: int, nodes: set[int]) -> None:
        for (g, n), variable in self.packing.arrives.items():
            if self.shape_of[g] == shape and n in nodes:
                self.model.add(variable == 0)

    def _touched(self, domains: dict[str, set[int]]) -> Iterable[set[int]]:
        free = set(self.packing.free)
        return [nodes for nodes in domains.values() if nodes & free]


def _weighted(load: list[tuple[Sum, int, int]]) -> cp_model.LinearExpr:
    return _total([width * amount for amount, width, _ in load])


def _total(amounts: list[Sum]) -> cp_model.LinearExpr:
    return cp_model.LinearExpr.sum(amounts)
