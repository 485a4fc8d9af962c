"""Stage layouts where stages have different GPU types: exact for the system of inequalities, boundary by boundary.

A *boundary* says how many layers each node group of the placement takes together. With it fixed, what stands before and
behind a rank is known again, and the dynamic programs for equal stages apply with every group's own tables. Boundaries
come in the order of a bound that needs two sums; the search ends where that bound cannot win.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate, combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.training_bounds import Bound, best_of
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_setting import Setting
from treadle.costmodels.training_tables import Matrix, Tables
from treadle.ir.training.placement import stage_groups
from treadle.ir.training.plan import Degrees, StageLayout

Boundary = tuple[tuple[int, int], ...]
"""Per block of stages of one group: its first layer, and the layer after its last."""


class Blocks:
    """The tables of every block of stages, and what does not hang on the boundary."""

    def __init__(self, setting: Setting, degrees: Degrees, timer: LayerTimer) -> None:
        groups = stage_groups(setting.cluster, degrees)
        self.parts = [Tables(setting.part(group), degrees, timer.of_group(group)) for group in degrees.placement]
        self.of_rank = [degrees.placement.index(group) for group in groups]
        self.ranks = [groups.count(group) for group in degrees.placement]
        self.hop = max(part.hop for part in self.parts)
        self._allowed: dict[int, NDArray[np.bool_]] = {}

    def allowed(self, rank: int) -> NDArray[np.bool_]:
        """Return which ranges of layers a rank may hold, wherever the boundary is."""
        if rank not in self._allowed:
            self._allowed[rank] = self.parts[self.of_rank[rank]].allowed(rank)
        return self._allowed[rank]

    @cached_property
    def ordered(self) -> list[tuple[float, Boundary]]:
        """All boundaries, each with a bound, the least first.

        Per block, averaged over its ranks: the first microbatch arrives, all are worked on, the last one returns.
        """
        layers, blocks = self.parts[0].setting.model.layers, len(self.parts)
        least = [ranks - (block == 0) - (block == blocks - 1) for block, ranks in enumerate(self.ranks)]
        found: list[tuple[float, Boundary]] = []
        for cuts in combinations(range(layers + blocks - 1), blocks - 1):
            edges = [0, *(cut - place for place, cut in enumerate(cuts)), layers]
            boundary = tuple(pairwise(edges))
            if all(end - start >= few for (start, end), few in zip(boundary, least, strict=True)):
                found.append((self._bound_us(boundary), boundary))
        return sorted(found)

    def _bound_us(self, boundary: Boundary) -> float:
        worst, before = 0.0, self.parts[0].embedding.forward_us + self.parts[0].embedding.backward_us
        for block, (part, (start, end)) in enumerate(zip(self.parts, boundary, strict=True)):
            passed = float(part.forward[start, end] + part.backward[start, end])
            work = passed + float(part.weight[start, end] if part.split else 0.0)
            arrived = before if block else 0.0
            worst = max(worst, arrived + part.microbatches * work / self.ranks[block])
            before += passed
        return worst


class MixedTables(Tables):
    """The tables of a placement with its boundary fixed: each rank asks its own group's."""

    def __init__(self, setting: Setting, degrees: Degrees, blocks: Blocks, boundary: Boundary) -> None:
        self.setting, self.degrees, self.blocks, self.boundary = setting, degrees, blocks, boundary
        first = blocks.parts[0]
        self.microbatches, self.hop, self.split = first.microbatches, blocks.hop, first.split
        self.rows, self.columns = first.rows, first.columns
        pairs = list(zip(blocks.parts, boundary, strict=True))
        self._forward = list(accumulate((float(part.forward[cut]) for part, cut in pairs), initial=0.0))
        self._backward = list(accumulate((float(part.backward[cut]) for part, cut in pairs), initial=0.0))

    def window(self, rank: int) -> tuple[Tables, slice, slice]:
        """Return these tables, whole."""
        size = self.setting.model.layers + 1
        return self, slice(0, size), slice(0, size)

    def _part(self, rank: int) -> tuple[int, Tables]:
        block = self.blocks.of_rank[rank]
        return block, self.blocks.parts[block]

    def times(self, rank: int) -> tuple[Matrix, Matrix]:
        """Return forward and backward time of one microbatch on the rank, for every range of layers."""
        return self._part(rank)[1].times(rank)

    def again(self, rank: int) -> Matrix:
        """Return how many first layers of every range run again."""
        return self._part(rank)[1].again(rank)

    def weights(self, rank: int) -> Matrix:
        """Return the time of one microbatch's weight gradients that run apart, for every range of layers."""
        return self._part(rank)[1].weights(rank)

    def tail(self, rank: int) -> tuple[Matrix, float]:
        """Return the rank's own tail, and the least tail of the first rank."""
        return self._part(rank)[1].tail(rank)[0], self.blocks.parts[0].tail(0)[1]

    def before(self, rank: int) -> tuple[Matrix, Matrix]:
        """Return forward and backward of one microbatch on the ranks before, hops included, per first layer."""
        if rank == 0:
            return np.zeros((1, 1)), np.zeros((1, 1))
        block, part = self._part(rank)
        start, entry, hops = self.boundary[block][0], self.blocks.parts[0].embedding, self.hop * rank
        forward = self._forward[block] + part.forward[start, :][:, None] + entry.forward_us + hops
        return forward, self._backward[block] + part.backward[start, :][:, None] + entry.backward_us + hops

    def behind(self, rank: int) -> Matrix:
        """Return a microbatch's way through the ranks after and back, hops included, per layer after the last."""
        after = self.degrees.pipeline - 1 - rank
        if after == 0:
            return np.zeros((1, 1))
        block, part = self._part(rank)
        end, loss = self.boundary[block][1], self.blocks.parts[-1].loss
        rest = self._forward[-1] - self._forward[block + 1] + self._backward[-1] - self._backward[block + 1]
        inside = part.forward[:, end] + part.backward[:, end]
        return np.asarray(inside[None, :] + rest + loss.total_us + 2 * self.hop * after)

    def allowed(self, rank: int) -> NDArray[np.bool_]:
        """Return which ranges of layers a rank may hold inside its block."""
        start, end = self.boundary[self._part(rank)[0]]
        return np.asarray(self.blocks.allowed(rank) & (self.rows >= start) & (self.columns <= end))


def boundary_of(blocks: Blocks, layout: StageLayout) -> Boundary:
    """Return the boundary of a layout."""
    counts = [0] * len(blocks.parts)
    for rank, count in enumerate(layout.layers):
        counts[blocks.of_rank[rank]] += count
    return tuple(pairwise(accumulate(counts, initial=0)))


def best_mixed(setting: Setting, degrees: Degrees, timer: LayerTimer) -> Bound:
    """Return what `best_contiguous` does, for stages of several types."""
    blocks, best = Blocks(setting, degrees, timer), Bound(math.inf)
    for bound, boundary in blocks.ordered:
        if bound >= best.step_us:
            break
        found = best_of(MixedTables(setting, degrees, blocks, boundary))
        if found.layout is not None and found.step_us < best.step_us:
            best = found
    return best


def best_mixed_with_tails(
    setting: Setting,
    degrees: Degrees,
    blocks: Blocks,
    known: Bound,
    search: Callable[[Tables, float], Bound],
) -> Bound:
    """Return the best over all boundaries of a search that takes tables and a cutoff.

    Args:
        setting: the problem.
        degrees: the choices, with a placement.
        blocks: of these degrees.
        known: a cutoff, with a layout where one reaches it.
        search: returns what is below the cutoff, or the cutoff without a layout.
    """
    best = known
    for bound, boundary in blocks.ordered:
        if bound >= best.step_us:
            break
        tables = MixedTables(setting, degrees, blocks, boundary)
        if best_of(tables).step_us < best.step_us:
            found = search(tables, best.step_us)
            best = found if found.layout is not None else best
    return best
