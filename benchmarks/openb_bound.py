"""A certified upper bound on GPU allocation: no placement of a list fills more of the devices.

Devices are filled by patterns of pods (Gilmore and Gomory), all nodes share one CPU and one memory volume. With prices
y >= 0 per shape and l >= 0 per resource, no device is worth more than mu = max over patterns of
sum(slots - y - l.demand), so no placement fills more slots than `devices mu + sum count y + l.volume`. The prices come
from a linear program; the bound is recomputed from them in exact rationals.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

from ortools.math_opt.python import mathopt

from treadle.costmodels.packing_bounds import heaviest
from treadle.ir.cluster.cluster import Cluster
from treadle.solvers.backend import Limits, solve_linear

_ROUNDS = 60
_WHOLE = 1000
_RESOURCES = ("cpu", "memory")
Pattern = tuple[tuple[int, int], ...]
"""(shape, copies) on one device; a pod of several devices counts as so many parts."""


def allocation_bound(cluster: Cluster) -> Fraction:
    """Return an upper bound on the filled slots of all devices."""
    return _Bound(cluster).run()


class _Bound:
    def __init__(self, cluster: Cluster) -> None:
        counts = Counter(pod.shape for pod in cluster.pods)
        self.parts: dict[int, tuple[int, int, tuple[Fraction, ...]]] = {}
        """Per shape with devices: slots per device, number of parts, demand of one part."""
        for shape, count in counts.items():
            described = cluster.shapes[shape]
            if described.device:
                devices = described.device.count
                demand = tuple(Fraction(described.requests.get(name, 0), devices) for name in _RESOURCES)
                self.parts[shape] = (described.device.slots, count * devices, demand)
        self.devices = sum(node.devices.count for node in cluster.nodes if node.devices)
        self.volume = tuple(sum(node.capacity.get(name, 0) for node in cluster.nodes) for name in _RESOURCES)

    def run(self) -> Fraction:
        """Generate patterns until no better one turns up; return the best bound on the way."""
        patterns: list[Pattern] = [((shape, _WHOLE // slots),) for shape, (slots, _, _) in self.parts.items()]
        best = Fraction(self.devices * _WHOLE)
        for _ in range(_ROUNDS):
            shapes, resources = self._prices(patterns)
            worth = {
                shape: slots
                - shapes[shape]
                - sum(price * amount for price, amount in zip(resources, demand, strict=True))
                for shape, (slots, _, demand) in self.parts.items()
            }
            leading: dict[int, int] = {}
            for shape, (slots, _, _) in self.parts.items():
                if worth[shape] > 0 and worth[shape] > worth.get(leading.get(slots, -1), Fraction(0)):
                    leading[slots] = shape
            values = {slots: worth[shape] for slots, shape in leading.items()}
            device = heaviest(values, _WHOLE) if values else Fraction(0)
            bound = self.devices * device + sum(
                (count * shapes[shape] for shape, (_, count, _) in self.parts.items()), Fraction(0)
            )
            bound += sum((price * amount for price, amount in zip(resources, self.volume, strict=True)), Fraction(0))
            best = min(best, bound)
            pattern = tuple((leading[slots], copies) for slots, copies in sorted(_filling(values).items()))
            if not pattern or pattern in patterns:
                break
            patterns.append(pattern)
        return best

    def _prices(self, patterns: list[Pattern]) -> tuple[dict[int, Fraction], list[Fraction]]:
        """Solve the linear program over the patterns; return prices of shapes and resources, not negative."""
        model = mathopt.Model(name="allocation")
        uses = [model.add_variable(lb=0.0) for _ in patterns]
        inside: dict[int, list[Any]] = {shape: [] for shape in self.parts}
        volume: list[list[Any]] = [[] for _ in _RESOURCES]
        filled: list[Any] = []
        for pattern, use in zip(patterns, uses, strict=True):
            for shape, copies in pattern:
                slots, _, demand = self.parts[shape]
                inside[shape].append(copies * use)
                filled.append(slots * copies * use)
                for position, amount in enumerate(demand):
                    volume[position].append(float(copies * amount / max(1, self.volume[position])) * use)
        rows = {s: model.add_linear_constraint(mathopt.fast_sum(inside[s]) <= self.parts[s][1]) for s in inside}
        model.add_linear_constraint(mathopt.fast_sum(uses) <= self.devices)
        resource_rows = [model.add_linear_constraint(mathopt.fast_sum(terms) <= 1.0) for terms in volume]
        model.maximize(mathopt.fast_sum(filled))
        outcome = solve_linear(model, Limits(deterministic_s=None))
        shapes = {s: _rational(outcome.duals.get(row.id, 0.0)) for s, row in rows.items()}
        resources = [
            _rational(outcome.duals.get(row.id, 0.0)) / max(1, self.volume[position])
            for position, row in enumerate(resource_rows)
        ]
        return shapes, resources


def _rational(dual: float) -> Fraction:
    return max(Fraction(0), Fraction(dual).limit_denominator(10**6))


def _filling(values: dict[int, Fraction]) -> dict[int, int]:
    """Return the heaviest pattern of one device: copies by slots."""
    best = [0.0] * (_WHOLE + 1)
    took = [0] * (_WHOLE + 1)
    for room in range(1, _WHOLE + 1):
        best[room], took[room] = best[room - 1], 0
        for slots, value in values.items():
            if slots <= room and best[room - slots] + float(value) > best[room] + 1e-9:
                best[room], took[room] = best[room - slots] + float(value), slots
    found: Counter[int] = Counter()
    room = _WHOLE
    while room:
        found[took[room]] += bool(took[room])
        room -= took[room] or 1
    return {slots: copies for slots, copies in found.items() if copies}
