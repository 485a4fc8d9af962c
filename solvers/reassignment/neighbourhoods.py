"""Some machines and processes set free, everything else fixed: the sub-problem in CP-SAT, every rule kept exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.ir.cluster.reassignment import Reassignment
from treadle.solvers.backend import Limits, solve

_TUNING = {"cp_model_probing_level": 0, "linearization_level": 2}
"""Full linear relaxations: knapsacks over few machines close three times as fast with them."""


class Neighbourhood:
    """The processes `free` may stand on any of `machines`; all of them are there now."""

    def __init__(self, instance: Reassignment, at: list[int], machines: Iterable[int], free: Iterable[int]) -> None:
        self.instance = instance
        self.at = at
        self.machines = sorted(machines)
        self.free = sorted(free)
        self.model = cp_model.CpModel()
        self.closed = False
        self.spent_s = 0.0
        self.inside = set(self.free)
        self.fixed_on: dict[int, set[int]] = defaultdict(set)
        """Services of the fixed processes on each machine."""
        self.by_service: dict[int, list[int]] = defaultdict(list)
        for process in self.free:
            self.by_service[instance.processes[process].service].append(process)
        for process, machine in enumerate(at):
            if process not in self.inside:
                self.fixed_on[machine].add(instance.processes[process].service)
        self.stands: dict[tuple[int, int], cp_model.IntVar] = {}
        self._add_stands()
        self._add_conflicts()
        self._add_spread()
        self._add_dependencies()
        self.costs: list[cp_model.LinearExpr | int] = []
        self._add_machines()
        self._add_moves()
        self.model.minimize(sum(self.costs))

    def solve(self, seconds: float, seed: int, wall_s: float | None = None) -> dict[int, int] | None:
        """Return the machine of every free process, at least as good as now; None if nothing was found in time.

        `seconds` are deterministic, so that a busy machine does not make neighbourhoods worse. `closed` says afterwards
        whether nothing better exists, `spent_s` what was spent of them.
        """
        limits = Limits(seconds, wall_s, 1, seed)
        hint = [(variable, int(self.at[p] == m)) for (p, m), variable in self.stands.items()]
        outcome = solve(self.model, limits, hint=hint, tuning=_TUNING)
        self.closed = outcome.status is Status.OPTIMAL
        self.spent_s = outcome.report.deterministic_time
        if not outcome.solved:
            return None
        return {p: m for (p, m), variable in self.stands.items() if outcome[variable]}

    def _add_stands(self) -> None:
        for process in self.free:
            service = self.instance.processes[process].service
            open_to = [m for m in self.machines if service not in self.fixed_on[m]]
            for machine in open_to:
                self.stands[process, machine] = self.model.new_bool_var("")
            self.model.add_exactly_one([self.stands[process, machine] for machine in open_to])

    def _on(self, processes: Iterable[int], machines: Iterable[int]) -> list[cp_model.IntVar]:
        wanted = list(machines)
        return [v for p in processes for m in wanted if (v := self.stands.get((p, m))) is not None]

    def _add_conflicts(self) -> None:
        for processes in self.by_service.values():
            if len(processes) > 1:
                for machine in self.machines:
                    self.model.add_at_most_one(self._on(processes, [machine]))

    def _add_spread(self) -> None:
        """A service keeps to its number of locations: those of fixed processes count, others need a free one."""
        instance = self.instance
        for service, processes in self.by_service.items():
            least = instance.services[service].spread
            if least <= 1:
                continue
            held = {
                instance.machines[self.at[p]].location
                for p, process in enumerate(instance.processes)
                if process.service == service and p not in self.inside
            }
            flags: list[cp_model.IntVar] = []
            for location in sorted({instance.machines[m].location for m in self.machines} - held):
                here = [m for m in self.machines if instance.machines[m].location == location]
                flag = self.model.new_bool_var("")
                self.model.add(cp_model.LinearExpr.sum(self._on(processes, here)) >= flag)
                flags.append(flag)
            if len(held) < least:
                self.model.add(cp_model.LinearExpr.sum(flags) >= least - len(held))

    def _add_dependencies(self) -> None:
        """Where a process stands, one of every service that its own depends on stands in the same neighborhood."""
        machines, services = self.instance.machines, self.instance.services
        near: dict[int, set[int]] = defaultdict(set)
        for machine, present in self.fixed_on.items():
            near[machines[machine].neighborhood] |= present
        for hood in sorted({machines[m].neighborhood for m in self.machines}):
            here = [m for m in self.machines if machines[m].neighborhood == hood]
            fixed = near[hood]
            users = {service for service in {*fixed, *self.by_service} if services[service].depends_on}
            for user in sorted(users):
                for needed in services[user].depends_on:
                    if needed in fixed:
                        continue
                    suppliers = self._on(self.by_service.get(needed, ()), here)
                    if user in fixed:
                        self.model.add_bool_or(suppliers)
                        continue
                    for variable in self._on(self.by_service.get(user, ()), here):
                        self.model.add_bool_or([*suppliers, ~variable])

    def _add_machines(self) -> None:
        instance = self.instance
        count = len(instance.transient)
        base = {m: [0] * count for m in self.machines}
        held = {m: [0] * count for m in self.machines}
        for p, process in enumerate(instance.processes):
            home = instance.initial[p]
            for r, need in enumerate(process.requirement):
                if p not in self.inside and self.at[p] in base:
                    base[self.at[p]][r] += need
                if instance.transient[r] and home in held and (p in self.inside or self.at[p] != home):
                    held[home][r] += need
        for m in self.machines:
            used = [self._used(m, r, base[m][r], held[m][r]) for r in range(count)]
            self._add_balance(m, used)

    def _used(self, m: int, r: int, base: int, held: int) -> cp_model.LinearExpr:
        """Add capacity and load cost of one resource of a machine; return what is used of it."""
        instance, machine = self.instance, self.instance.machines[m]
        here = [(p, v) for p in self.free if (v := self.stands.get((p, m))) is not None]
        needs = [instance.processes[p].requirement[r] for p, _ in here]
        used = cp_model.LinearExpr.weighted_sum([v for _, v in here], needs) + base
        counted = [0 if instance.transient[r] and instance.initial[p] == m else 1 for p, _ in here]
        full = cp_model.LinearExpr.weighted_sum(
            [v for _, v in here], [need * c for need, c in zip(needs, counted, strict=True)]
        )
        self.model.add(full + (base + held) <= machine.capacity[r])
        if instance.load_weights[r]:
            over = self.model.new_int_var(0, max(0, machine.capacity[r] - machine.safety_capacity[r]), "")
            self.model.add(over >= used - machine.safety_capacity[r])
            self.costs.append(instance.load_weights[r] * over)
        return used

    def _add_balance(self, m: int, used: list[cp_model.LinearExpr]) -> None:
        capacity = self.instance.machines[m].capacity
        for balance in self.instance.balances:
            gap = self.model.new_int_var(0, balance.target * capacity[balance.first], "")
            first = balance.target * (capacity[balance.first] - used[balance.first])
            self.model.add(gap >= first - (capacity[balance.second] - used[balance.second]))
            self.costs.append(balance.weight * gap)

    def _add_moves(self) -> None:
        instance = self.instance
        moved: dict[int, list[cp_model.IntVar]] = defaultdict(list)
        elsewhere: dict[int, int] = defaultdict(int)
        for p, process in enumerate(instance.processes):
            if p not in self.inside:
                elsewhere[process.service] += self.at[p] != instance.initial[p]
        for (p, m), variable in self.stands.items():
            home = instance.initial[p]
            if m != home:
                process = instance.processes[p]
                price = instance.process_move_weight * process.move_cost
                self.costs.append(
                    (price + instance.machine_move_weight * instance.machines[home].move_cost[m]) * variable
                )
                moved[process.service].append(variable)
        most = self.model.new_int_var(max(elsewhere.values(), default=0), len(instance.processes), "")
        for service, variables in moved.items():
            self.model.add(most >= cp_model.LinearExpr.sum(variables) + elsewhere[service])
        self.costs.append(instance.service_move_weight * most)
