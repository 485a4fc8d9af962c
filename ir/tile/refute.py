"""Shows by exhaustive search that a loop has no schedule at an initiation interval: the check behind `enumeration`.

The search looks only at operations on cycles (strongly connected components): everything else can be moved by whole
intervals, and leaving it out only makes a refutation harder. Windows are held by difference constraints within a
component and by units whose instances are taken; the operation with the fewest possible starts is tried next. It uses
no solver, and a limit on the number of tried starts keeps it short.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.cycles import components
from treadle.ir.tile.loop import Loop

MAX_INTERVAL = 4096
"""Beyond it the search, which walks single cycles, is not tried."""


PROBES_PER_NODE = 50
"""Single cycles of a unit looked at per start tried; long operations at long intervals use the limit up sooner."""


def refuted(loop: Loop, ii: int, nodes: int) -> bool:
    """Whether trying at most `nodes` starts proves that the loop has no schedule at interval `ii`.

    False means nothing: either there is a schedule, or the limit was reached.
    """
    if ii > MAX_INTERVAL:
        return False
    search = _Search(loop, ii, nodes)
    return search.windows is None or search.exhausted(search.windows)


@dataclass(slots=True)
class _Windows:
    first: dict[int, int]
    last: dict[int, int]

    def fix(self, vertex: int, start: int) -> _Windows:
        return _Windows({**self.first, vertex: start}, {**self.last, vertex: start})


class _Search:
    def __init__(self, loop: Loop, ii: int, nodes: int) -> None:
        self.loop = loop
        self.ii = ii
        self.nodes = nodes
        self.probes = PROBES_PER_NODE * nodes
        self.successors: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.predecessors: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.counts = {unit.name: unit.count for unit in loop.units if unit.count is not None}
        self.windows = self._initial()
        inside = sorted(self.windows.first) if self.windows else []
        self.limited = [
            v for v in inside if loop.operations[v].unit in self.counts and loop.operations[v].occupancy_cycles
        ]

    def _initial(self) -> _Windows | None:
        """Root windows per component, the rest from the difference constraints; None when these contradict."""
        every = arcs(self.loop)
        parts = components(len(self.loop.operations), [(arc.source, arc.target) for arc in every])
        home = {vertex: number for number, part in enumerate(parts) for vertex in part}
        for arc in every:
            if home[arc.source] == home[arc.target]:
                weight = arc.delay_cycles - self.ii * arc.distance
                self.successors[arc.source].append((arc.target, weight))
                self.predecessors[arc.target].append((arc.source, weight))
        cyclic = sorted((sorted(part) for part in parts if part[0] in self.successors), key=len, reverse=True)
        wide = sum(max([0, *(w for _, w in self.successors[v])]) for v in list(self.successors)) + self.ii
        windows = _Windows({}, {})
        for rank, part in enumerate(cyclic):
            root = next((v for v in part if self.loop.operations[v].unit in self.counts), part[0])
            for vertex in part:
                windows.first[vertex], windows.last[vertex] = -wide, wide
            windows.first[root], windows.last[root] = 0, 0 if rank == 0 else self.ii - 1
        return windows if self._settle(windows, list(windows.first)) else None

    def exhausted(self, windows: _Windows) -> bool:
        """Whether no schedule lies within the windows (False also when the limit is reached)."""
        if not self._propagate(windows):
            return True
        if self.nodes < 0:
            return False
        open_ = [v for v in self.limited if windows.first[v] < windows.last[v]]
        if not open_:
            return False
        vertex = min(open_, key=lambda v: (windows.last[v] - windows.first[v], v))
        for start in range(windows.first[vertex], windows.last[vertex] + 1):
            self.nodes -= 1
            if self.nodes < 0:
                return False
            narrowed = windows.fix(vertex, start)
            if self._settle(narrowed, [vertex]) and not self.exhausted(narrowed):
                return False
        return True

    def _propagate(self, windows: _Windows) -> bool:
        """Narrow windows by units and constraints until nothing changes; False on a contradiction."""
        while True:
            moved = self._avoid_full(windows)
            if moved is None:
                return False
            if not moved:
                return True
            if not self._settle(windows, moved):
                return False

    def _settle(self, windows: _Windows, changed: list[int]) -> bool:
        """Difference constraints to their fixpoint."""
        queue = list(changed)
        while queue:
            vertex = queue.pop()
            if windows.first[vertex] > windows.last[vertex]:
                return False
            for target, weight in self.successors[vertex]:
                if windows.first[vertex] + weight > windows.first[target]:
                    windows.first[target] = windows.first[vertex] + weight
                    queue.append(target)
            for source, weight in self.predecessors[vertex]:
                if windows.last[vertex] - weight < windows.last[source]:
                    windows.last[source] = windows.last[vertex] - weight
                    queue.append(source)
        return True

    def _avoid_full(self, windows: _Windows) -> list[int] | None:
        """Move window ends off cycles whose instances are all taken; None when taken twice or nothing is left."""
        use: dict[tuple[str, int], int] = defaultdict(int)
        for vertex in self.limited:
            if windows.first[vertex] == windows.last[vertex]:
                operation = self.loop.operations[vertex]
                for cycle in range(operation.occupancy_cycles):
                    key = (operation.unit, (windows.first[vertex] + cycle) % self.ii)
                    use[key] += 1
                    if use[key] > self.counts[operation.unit]:
                        return None
        moved: list[int] = []
        for vertex in self.limited:
            first, last = windows.first[vertex], windows.last[vertex]
            if first == last:
                continue
            while first <= last and self._full(use, vertex, first):
                first += 1
            while first <= last and self._full(use, vertex, last):
                last -= 1
            if first > last:
                return None
            if (first, last) != (windows.first[vertex], windows.last[vertex]):
                windows.first[vertex], windows.last[vertex] = first, last
                moved.append(vertex)
        return moved

    def _full(self, use: dict[tuple[str, int], int], vertex: int, start: int) -> bool:
        operation = self.loop.operations[vertex]
        self.probes -= operation.occupancy_cycles
        if self.probes < 0:
            self.nodes = -1  # the limit is reached; a start kept open is always sound
            return False
        taken: dict[int, int] = defaultdict(int)
        for cycle in range(operation.occupancy_cycles):
            slot = (start + cycle) % self.ii
            taken[slot] += 1
            if use[(operation.unit, slot)] + taken[slot] > self.counts[operation.unit]:
                return True
        return False
