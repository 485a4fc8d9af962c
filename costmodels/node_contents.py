"""The most valuable contents of every node at given prices: a knapsack in several resources, for all nodes at once.

Labels (node, room left, value) grow pod kind by pod kind. A label is dropped when what it can still gain, bounded by
one-dimensional fractional knapsacks over mixtures of the resources, does not beat the best known contents. Where more
labels remain than memory allows, the most hopeless ones go, and their bound stays in the result: `upper` never lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_SAFE = 1e-6
"""Added to bounds in floating point before they are rounded down to whole prices."""
_SLOPES = 5


@dataclass(frozen=True, slots=True)
class Offer:
    """What may stand on nodes, and what it is worth there (whole prices).

    `residents[n]` lists the kinds that run on node n now, one entry per pod; each is worth `stay`, any other pod of
    the kind `arrive`.
    """

    capacity: Integers
    """(nodes, resources)"""
    weights: Integers
    """(kinds, resources)"""
    counts: Integers
    """Pods of each kind."""
    allowed: Flags
    """(kinds, nodes): where pods of a kind may arrive."""
    residents: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """Per node: an upper bound, the best value found, and contents as (kind, stays) pairs, the best one first.

    `upper == value` unless labels were dropped for memory. No contents: nothing beats what was known.
    """

    upper: Integers
    value: Integers
    chosen: tuple[tuple[tuple[tuple[int, bool], ...], ...], ...]
    work: int
    """Labels made: what the search cost."""


def best_contents(
    offer: Offer,
    stay: Integers,
    arrive: Integers,
    lower: Integers,
    most_labels: int,
    go_on: Callable[[], bool] | None = None,
) -> Contents:
    """Return the most valuable contents of all nodes, looking only for more than `lower`.

    When `go_on` says no, the labels that are left are dropped as if memory had run out.
    """
    return _Search(offer, stay, arrive, lower, most_labels).run(go_on or (lambda: True))


class _Search:
    def __init__(self, offer: Offer, stay: Integers, arrive: Integers, lower: Integers, most_labels: int) -> None:
        self.offer = offer
        self.stay = stay
        self.arrive = arrive
        self.best = np.maximum(lower, 0)
        self.dropped = self.best.copy()
        self.most_labels = most_labels
        nodes, resources = offer.capacity.shape
        self.node = np.arange(nodes)
        self.rest = offer.capacity.copy()
        self.value = np.zeros(nodes, dtype=np.int64)
        self.trace = np.full(nodes, -1, dtype=np.int64)
        self.parents: list[Integers] = []
        self.items: list[Integers] = []
        self.traced = 0
        self._flat: tuple[Integers, Integers] | None = None
        self.winners: list[list[int]] = [[] for _ in range(nodes)]
        self.mixtures = self._mixtures(resources)
        self.sizes = offer.weights @ self.mixtures
        kinds = np.flatnonzero((arrive > 0) & (offer.counts > 0) & offer.allowed.any(axis=1))
        density = arrive[kinds] / np.maximum(self.sizes[kinds].max(axis=1), 1e-9)
        self.kinds = kinds[np.argsort(-density, kind="stable")]

    def _mixtures(self, resources: int) -> Floats:
        """Return (resources, mixtures): weights that turn demands into one size; one node has about size 1."""
        scale = 1.0 / np.maximum(self.offer.capacity.max(axis=0, initial=1), 1)
        pure = [np.eye(resources)[r] for r in range(resources)]
        mixed = [
            share * pure[a] + (1 - share) * pure[b]
            for a in range(resources)
            for b in range(a + 1, resources)
            for share in (0.25, 0.5, 0.75)
        ]
        return np.stack([vector * scale for vector in [*pure, *mixed]], axis=1)

    def run(self, go_on: Callable[[], bool]) -> Contents:
        """Seat residents, then admit kind by kind."""
        self._seat_residents()
        for position, kind in enumerate(self.kinds.tolist()):
            if not go_on():
                self.most_labels = 0
            self._prune(self._gains(position))
            if not len(self.node):
                break
            self._admit(kind, position)
        upper = np.maximum(self.best, self.dropped)
        chosen = tuple(self._read(n) for n in range(len(self.best)))
        return Contents(upper, self.best, chosen, self.traced)

    def _seat_residents(self) -> None:
        """Decide pod by pod which residents stay, on all nodes at once."""
        residents = self.offer.residents
        slots = max((len(inside) for inside in residents), default=0)
        prices = self._slopes()
        arrivals = self._arrivals_at(prices)
        kept = np.maximum(0.0, self.stay[:, None] - self.offer.weights @ prices)
        kept = np.concatenate([kept, np.zeros((1, prices.shape[1]))])
        later = np.array([kept[list(inside)].sum(axis=0) for inside in residents])
        for slot in range(slots):
            who = np.array([inside[slot] if slot < len(inside) else -1 for inside in residents], dtype=np.int64)
            here = who[self.node]
            able = np.flatnonzero(here >= 0)
            staying = here[able]
            rest = self.rest[able] - self.offer.weights[staying]
            fits = (rest >= 0).all(axis=1)
            able, staying, rest = able[fits], staying[fits], rest[fits]
            self._append(
                self.node[able], rest, self.value[able] + self.stay[staying], self.trace[able], 2 * staying + 1
            )
            later -= kept[who]
            self._prune((self.rest @ prices + later[self.node] + arrivals).min(axis=1))

    def _slopes(self) -> Floats:
        """Return (resources, prices): resource prices at which bounds on everything together are taken."""
        worth = np.maximum(self.stay, self.arrive).astype(float)
        columns: list[Floats] = []
        for m in range(self.mixtures.shape[1]):
            density = worth / np.maximum(self.sizes[:, m], 1e-9)
            for level in np.quantile(density, np.linspace(0.2, 1.0, _SLOPES)) if len(density) else ():
                columns.append(self.mixtures[:, m] * level)
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.mixtures), 1))

    def _arrivals_at(self, prices: Floats) -> Floats:
        kinds = self.kinds
        gain = np.maximum(0.0, self.arrive[kinds][:, None] - self.offer.weights[kinds] @ prices)
        total: Floats = (gain * self.offer.counts[kinds][:, None]).sum(axis=0)
        return total

    def _append(self, node: Integers, rest: Integers, value: Integers, parent: Integers, item: Integers) -> None:
        trace = self.traced + np.arange(len(node))
        self.parents.append(parent)
        self.items.append(item)
        self.traced += len(node)
        self.node = np.concatenate([self.node, node])
        self.rest = np.concatenate([self.rest, rest])
        self.value = np.concatenate([self.value, value])
        self.trace = np.concatenate([self.trace, trace])
        self._note(node, value, trace)

    def _note(self, node: Integers, value: Integers, trace: Integers) -> None:
        """Take over contents that are the best of their node."""
        better = np.flatnonzero(value > self.best[node])
        if not len(better):
            return
        order = better[np.lexsort((trace[better], value[better]))]
        self.best[node[order]] = value[order]
        for n, winner in dict(zip(node[order].tolist(), trace[order].tolist(), strict=True)).items():
            self.winners[n].append(winner)

    def _gains(self, position: int) -> Floats:
        """Return what each label can still gain from the kinds from `position` on."""
        gains = np.full(len(self.node), np.inf)
        kinds = self.kinds[position:]
        worth = self.arrive[kinds] * self.offer.counts[kinds]
        for m in range(self.mixtures.shape[1]):
            sizes = self.sizes[kinds, m]
            order = np.argsort(-self.arrive[kinds] / np.maximum(sizes, 1e-12), kind="stable")
            size = np.concatenate([[0.0], np.cumsum((sizes * self.offer.counts[kinds])[order])])
            value = np.concatenate([[0.0], np.cumsum(worth[order])])
            np.minimum(gains, np.interp(self.rest @ self.mixtures[:, m], size, value), out=gains)
        return gains

    def _prune(self, gains: Floats) -> None:
        hope = np.floor(self.value + gains + _SAFE).astype(np.int64)
        keep = np.flatnonzero(hope > self.best[self.node])
        if len(keep) > self.most_labels:
            order = np.argsort(-(hope - self.best[self.node])[keep], kind="stable")
            lost = keep[order[self.most_labels :]]
            np.maximum.at(self.dropped, self.node[lost], hope[lost])
            keep = np.sort(keep[order[: self.most_labels]])
        self.node, self.rest = self.node[keep], self.rest[keep]
        self.value, self.trace = self.value[keep], self.trace[keep]

    def _admit(self, kind: int, position: int) -> None:
        """Let up to all pods of a kind arrive at every label."""
        weight, worth = self.offer.weights[kind], int(self.arrive[kind])
        open_to = self.offer.allowed[kind][self.node]
        node, rest, value, trace = self.node[open_to], self.rest[open_to], self.value[open_to], self.trace[open_to]
        for _ in range(int(self.offer.counts[kind])):
            fits = (rest >= weight).all(axis=1)
            if not fits.any():
                return
            node, rest, value, parent = node[fits], rest[fits] - weight, value[fits] + worth, trace[fits]
            trace = self.traced + np.arange(len(node))
            self._append(node, rest, value, parent, np.full(len(node), 2 * kind))

    def _read(self, n: int) -> tuple[tuple[tuple[int, bool], ...], ...]:
        if not self.winners[n]:
            return ()
        if self._flat is None:
            self._flat = (np.concatenate(self.parents), np.concatenate(self.items))
        parents, items = self._flat
        found: list[tuple[tuple[int, bool], ...]] = []
        for winner in reversed(self.winners[n]):
            at, chosen = winner, list[tuple[int, bool]]()
            while at >= 0:
                item = int(items[at])
                chosen.append((item // 2, bool(item % 2)))
                at = int(parents[at])
            found.append(tuple(chosen))
        return tuple(found)
