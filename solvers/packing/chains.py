"""Ejection chains: a waiting pod is let in by moving few others, found by vector arithmetic over all pods and nodes.

A chain of length k moves k pods: `p -> n`, where a pod of n goes to m, where a pod of m goes to l, ... The search works
on single pods; the tiers come one after the other, highest first, and pods of lower tiers are not there while a higher
one is placed (they return to their nodes afterwards as far as there is room).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.objective import Order
from treadle.solvers.packing.problem import Cell, Counts, Group, Problem

Move = tuple[int, int]
"""(pod, node); the node may be `PENDING`."""
WORK_S = 3e-7
"""Deterministic seconds charged per unit of `Board.work`."""
_DEEP_TRIES = 400
_MOST_PODS = 600


class Board:
    """Pods on nodes as arrays; `at` is where a pod stands now, `home` where it ran in the beginning."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.random = random.Random(seed)
        self.work = 0
        self.left: Callable[[], bool] = lambda: True
        """Whether there is time to look further."""
        group_of: list[int] = []
        homes: list[int] = []
        for g, group in enumerate(problem.groups):
            homes += [node for node, count in group.running.items() for _ in range(count)]
            homes += [PENDING] * (group.count - group.run_count)
            group_of += [g] * group.count
        self.group = np.array(group_of, dtype=np.int64)
        self.pods = np.array([pod for group in problem.groups for pod in _running_first(problem, group)])
        self.home = np.array(homes, dtype=np.int64)
        self.priority = np.array([problem.groups[g].priority for g in group_of])
        self.demand = np.array([problem.groups[g].demand for g in group_of], dtype=np.int64).reshape(len(homes), -1)
        self.capacity = np.array(problem.capacity, dtype=np.int64)
        running = np.flatnonzero(self.home >= 0)
        self._read_rules(problem)
        scale = np.maximum(self.capacity.sum(axis=0), 1)
        self.size = (self.demand / scale).sum(axis=1)
        self.at = self.home.copy()
        self.free = self.capacity.copy()
        np.subtract.at(self.free, self.home[running], self.demand[running])

    def _read_rules(self, problem: Problem) -> None:
        """Number the rows of nodes where pods may be: one per kind of rules, more for homes where none may arrive."""
        eligibility = problem.fit.eligibility
        of_group = [eligibility.rule(group.shape) for group in problem.groups]
        rows = list(eligibility.rows)
        rule = [of_group[g] for g in self.group.tolist()]
        special: dict[tuple[int, int], int] = {}
        for pod, home in enumerate(self.home.tolist()):
            if home >= 0 and not rows[rule[pod]][home]:
                key = (rule[pod], home)
                if key not in special:
                    special[key] = len(rows)
                    rows.append(rows[rule[pod]].copy())
                    rows[-1][home] = True
                rule[pod] = special[key]
        self.rule = np.array(rule, dtype=np.int64)
        self.open = np.array(rows, dtype=bool).reshape(len(rows), len(problem.capacity))

    def move(self, moves: list[Move]) -> None:
        """Carry out moves."""
        for pod, node in moves:
            if self.at[pod] >= 0:
                self.free[self.at[pod]] += self.demand[pod]
            if node >= 0:
                self.free[node] -= self.demand[pod]
            self.at[pod] = node

    def counts(self) -> Counts:
        """Return the placement in counts."""
        total: dict[Cell, int] = {}
        for g, node in zip(self.group.tolist(), self.at.tolist(), strict=True):
            if node >= 0:
                total[g, node] = total.get((g, node), 0) + 1
        stays: dict[Cell, int] = {}
        arrives: dict[Cell, int] = {}
        for (g, n), count in total.items():
            kept = min(count, self.problem.groups[g].running.get(n, 0))
            if kept:
                stays[g, n] = kept
            if count > kept:
                arrives[g, n] = count - kept
        return Counts(stays, arrives)

    def load(self, counts: Counts) -> None:
        """Take over a placement in counts."""
        self.at[:] = PENDING
        left = {**counts.stays}
        arriving: dict[int, list[int]] = {}
        for (g, n), count in counts.arrives.items():
            arriving.setdefault(g, []).extend([n] * count)
        for pod, (g, home) in enumerate(zip(self.group.tolist(), self.home.tolist(), strict=True)):
            if home >= 0 and left.get((g, home), 0):
                left[g, home] -= 1
                self.at[pod] = home
        place_first = self.problem.order is Order.PLACE_FIRST
        order = sorted(np.flatnonzero(self.at < 0).tolist(), key=lambda pod: (self.home[pod] >= 0) != place_first)
        for pod in order:
            if targets := arriving.get(int(self.group[pod])):
                self.at[pod] = targets.pop()
        standing = np.flatnonzero(self.at >= 0)
        self.free = self.capacity.copy()
        np.subtract.at(self.free, self.at[standing], self.demand[standing])

    def insert(self, pod: int, movable: NDArray[np.bool_], depth: int) -> bool:
        """Let a pod in by moving at most `depth` others; return whether that was possible."""
        self.work += len(self.at) * (1, 2, 10, 60)[depth]
        chain = (
            self._direct(pod) or (depth >= 1 and self._one(pod, movable)) or (depth >= 2 and self._two(pod, movable))
        )
        chain = chain or (depth >= 3 and self._three(pod, movable))
        if not chain:
            return False
        self.move(chain)
        return True

    def _direct(self, pod: int) -> list[Move] | None:
        fits = (self.free >= self.demand[pod]).all(axis=1) & self.open[self.rule[pod]]
        if not fits.any():
            return None
        home = int(self.home[pod])
        return [(pod, home if home >= 0 and fits[home] else self._tightest(pod, np.flatnonzero(fits)))]

    def _tightest(self, pod: int, nodes: NDArray[np.int64]) -> int:
        rest = ((self.free[nodes] - self.demand[pod]) / np.maximum(self.capacity[nodes], 1)).sum(axis=1)
        return int(nodes[int(rest.argmin())])

    def _fits(self, pods: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (pods, nodes): whether a pod has room on another node than its own."""
        fits: NDArray[np.bool_] = (self.free[None] >= self.demand[pods][:, None]).all(axis=2) & self.open[
            self.rule[pods]
        ]
        fits[np.arange(len(pods)), self.at[pods]] = False
        return fits

    def _making_room(self, pod: int, movable: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the movable pods whose departure makes room for a pod where they are."""
        candidates = np.flatnonzero(movable & (self.at >= 0))
        there = self.at[candidates]
        room = (self.free[there] + self.demand[candidates] >= self.demand[pod]).all(axis=1)
        found: NDArray[np.int64] = candidates[room & self.open[self.rule[pod], there] & (candidates != pod)]
        return found

    def _price(self, pods: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what it costs to move pods, with noise: one that is away already is moved again for nothing."""
        noise = np.array([self.random.random() for _ in range(len(pods))])
        price: NDArray[np.float64] = (self.at[pods] == self.home[pods]) * 2.0 + noise
        return price

    def _sample(self, pods: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pods, or a random sample of them where looking at all would take too long."""
        if len(pods) <= _MOST_PODS:
            return pods
        return np.array(sorted(self.random.sample(pods.tolist(), _MOST_PODS)))

    def _target(self, pod: int, nodes: NDArray[np.int64]) -> int:
        home = int(self.home[pod])
        if home >= 0 and home in nodes:
            return home
        return self._tightest(pod, nodes)

    def _one(self, pod: int, movable: NDArray[np.bool_]) -> list[Move] | None:
        candidates = self._sample(self._making_room(pod, movable))
        if not len(candidates):
            return None
        fits = self._fits(candidates)
        possible = np.flatnonzero(fits.any(axis=1))
        if not len(possible):
            return None
        best = possible[int(self._price(candidates[possible]).argmin())]
        ejected = int(candidates[best])
        return [(ejected, self._target(ejected, np.flatnonzero(fits[best]))), (pod, int(self.at[ejected]))]

    def _two(self, pod: int, movable: NDArray[np.bool_]) -> list[Move] | None:
        return self._pair(pod, movable) or self._relay(pod, movable, self._making_room(pod, movable))

    def _relay(self, pod: int, movable: NDArray[np.bool_], candidates: NDArray[np.int64]) -> list[Move] | None:
        """`first` leaves n for m, where `second` makes room for it and goes where there is room (n included)."""
        candidates, everyone = self._sample(candidates), self._sample(np.flatnonzero(movable & (self.at >= 0)))
        if not len(everyone):
            return None
        fits = self._fits(everyone)
        anywhere = fits.any(axis=1)
        prices = self._price(everyone)
        for first in candidates[np.argsort(self._price(candidates))]:
            if not self.left():
                return None
            node = int(self.at[first])
            there = self.at[everyone]
            room = (self.free[there] + self.demand[everyone] >= self.demand[first]).all(axis=1)
            back = self.free[node] + self.demand[first] - self.demand[pod]
            returns = (back >= self.demand[everyone]).all(axis=1) & self.open[self.rule[everyone], node]
            elsewhere = anywhere & ((fits.sum(axis=1) - fits[:, node]) > 0)
            good = room & self.open[self.rule[first], there] & (there != node) & (returns | elsewhere)
            if not good.any():
                continue
            choice = np.flatnonzero(good)[int(prices[good].argmin())]
            second = int(everyone[choice])
            targets = fits[choice].copy()
            targets[node] = returns[choice]
            return [
                (second, self._target(second, np.flatnonzero(targets))),
                (int(first), int(there[choice])),
                (pod, node),
            ]
        return None

    def _pair(self, pod: int, movable: NDArray[np.bool_]) -> list[Move] | None:
        """Two pods leave one node, each for a place with room."""
        candidates = self._sample(np.flatnonzero(movable & (self.at >= 0)))
        if not len(candidates):
            return None
        fits = self._fits(candidates)
        keep = fits.any(axis=1) & self.open[self.rule[pod], self.at[candidates]]
        candidates, fits = candidates[keep], fits[keep]
        first, second = np.triu_indices(len(candidates), 1)
        same = self.at[candidates[first]] == self.at[candidates[second]]
        first, second = first[same], second[same]
        both = self.demand[candidates[first]] + self.demand[candidates[second]]
        room = (self.free[self.at[candidates[first]]] + both >= self.demand[pod]).all(axis=1)
        first, second = first[room], second[room]
        for position in np.argsort(self._price(candidates[first]) + self._price(candidates[second])).tolist():
            a, b = int(candidates[first[position]]), int(candidates[second[position]])
            target = self._target(a, np.flatnonzero(fits[first[position]]))
            open_to_b = fits[second[position]].copy()
            open_to_b[target] &= bool((self.free[target] - self.demand[a] >= self.demand[b]).all())
            if open_to_b.any():
                return [(a, target), (b, self._target(b, np.flatnonzero(open_to_b))), (pod, int(self.at[a]))]
        return None

    def _three(self, pod: int, movable: NDArray[np.bool_]) -> list[Move] | None:
        """Try some first moves, and let the ejected pod in by a chain of two."""
        candidates = self._making_room(pod, movable)
        order = candidates[np.argsort(self._price(candidates))]
        for first in order[: max(4, _DEEP_TRIES // max(1, len(self.at) // 8))]:
            if not self.left():
                return None
            node = int(self.at[first])
            self.move([(int(first), PENDING), (pod, node)])
            chain = self._one(int(first), movable) or self._two(int(first), movable & (np.arange(len(self.at)) != pod))
            self.move([(pod, PENDING), (int(first), node)])
            if chain and all(mover != pod for mover, _ in chain):
                return [(int(first), PENDING), (pod, node), *chain]
        return None

    def movable(self, tier: int) -> NDArray[np.bool_]:
        """Return the pods that may be moved to let one of this tier in."""
        if self.problem.order is Order.PLACE_FIRST:
            at_least: NDArray[np.bool_] = self.priority >= tier
            return at_least
        equal: NDArray[np.bool_] = self.priority == tier
        return equal


def _running_first(problem: Problem, group: Group) -> list[int]:
    """Return the group's pods in the order the board lists them: by the node they run on, then those that wait."""
    pods = problem.cluster.pods
    return sorted(group.members, key=lambda pod: (pods[pod].node == PENDING, pods[pod].node))


def place_fresh(board: Board, left_out: set[int], rounds: int = 3) -> None:
    """Place pods that all wait, the largest first, then the missed ones by chains; `left_out` come last."""
    everyone = np.flatnonzero(board.at < 0)
    late = np.isin(board.pods[everyone], list(left_out)) if left_out else np.zeros(len(everyone), dtype=bool)
    share = (board.demand / np.maximum(board.capacity.max(axis=0), 1)).max(axis=1)
    order = everyone[np.lexsort((everyone, -board.size[everyone], -share[everyone], late))].tolist()
    missed = [pod for pod in order if not board.insert(pod, board.movable(int(board.priority[pod])), 0)]
    for depth in (1, 2, 2)[:rounds]:
        missed = [pod for pod in missed if not board.insert(pod, board.movable(int(board.priority[pod])), depth)]


def rebuild(board: Board, depth: int, left: Callable[[], bool]) -> None:
    """Place tier by tier: pods that are away try to come home, pods that wait are let in by chains."""
    standing = board.at.copy()
    for tier in board.problem.tiers:
        below = np.flatnonzero((board.priority < tier) & (board.at >= 0))
        board.move([(int(pod), PENDING) for pod in below])
        _settle(board, tier, standing)
        movable = board.movable(tier)
        waiting = np.flatnonzero((board.priority == tier) & (board.at < 0)).tolist()
        waiting.sort(key=lambda pod: board.size[pod] * (0.7 + 0.6 * board.random.random()), reverse=True)
        missed = [pod for pod in waiting if not (left() and board.insert(pod, movable, min(depth, 1)))]
        for pod in sorted(missed, key=lambda pod: board.size[pod]):
            if left():
                board.insert(pod, movable, depth)
    for pod in np.flatnonzero((board.at >= 0) & (board.home >= 0) & (board.at != board.home)).tolist():
        if (board.free[board.home[pod]] >= board.demand[pod]).all():
            board.move([(pod, int(board.home[pod]))])


def _settle(board: Board, tier: int, standing: NDArray[np.int64]) -> None:
    """Put the tier's pods back where they stood, those at home first, as far as there is room."""
    pods = np.flatnonzero((board.priority == tier) & (board.at < 0) & (standing >= 0))
    order = sorted(pods.tolist(), key=lambda pod: (standing[pod] != board.home[pod], board.size[pod]))
    for pod in order:
        node = int(standing[pod])
        if (board.free[node] >= board.demand[pod]).all():
            board.move([(pod, node)])


def shake(board: Board, strength: int) -> None:
    """Take out pods that arrived (anywhere, or on a few nodes) or large ones; let displaced ones go home."""
    if board.random.random() < 0.5:
        _clear(board, board.random.randint(1, 4))
    else:
        _take_out(board, strength)
    displaced = np.flatnonzero((board.home >= 0) & (board.at != board.home)).tolist()
    board.random.shuffle(displaced)
    for pod in displaced:
        if (board.free[board.home[pod]] >= board.demand[pod]).all():
            board.move([(pod, int(board.home[pod]))])


def _clear(board: Board, count: int) -> None:
    """Send away everything that arrived on some nodes where pods have left."""
    left = np.unique(board.home[(board.home >= 0) & (board.at != board.home)]).tolist()
    nodes = board.random.sample(left, min(count, len(left)))
    arrived = np.flatnonzero(np.isin(board.at, nodes) & (board.at != board.home)).tolist()
    board.move([(pod, PENDING) for pod in arrived])


def _take_out(board: Board, strength: int) -> None:
    away = np.flatnonzero((board.at >= 0) & (board.at != board.home)).tolist()
    waiting = bool((board.at < 0).any())
    out = board.random.sample(away, min(strength, len(away)))
    if waiting and board.random.random() < 0.7:
        lowest = np.flatnonzero((board.at >= 0) & (board.priority == board.priority.min())).tolist()
        lowest.sort(key=lambda pod: board.size[pod] * board.random.random(), reverse=True)
        out += lowest[: board.random.randint(1, 2)]
    board.move([(pod, PENDING) for pod in set(out)])
