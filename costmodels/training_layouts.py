"""The stage layout that goes with given degrees: exact for 1F1B, the best of a declared family for interleaved
schedules.

The family: even shares, with embedding and loss counted as up to two layers and the remainder placed in several ways.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.training_bounds import Bound, Quick, best_contiguous
from treadle.costmodels.training_ends import embedding_pass, loss_pass, predictor_pass
from treadle.costmodels.training_memory import (
    capacity_bytes,
    host_bytes,
    host_capacity_bytes,
    layer_saved_bytes,
    stage_parameters,
    state_bytes,
    transient_bytes,
)
from treadle.costmodels.training_mixed import best_mixed
from treadle.costmodels.training_replay import again_pass, peak_saved_bytes, saved_again
from treadle.costmodels.training_room import memory_key
from treadle.costmodels.training_setting import Setting
from treadle.costmodels.training_traffic import hop_us, tail_us, tied_sum_us, traffic_us
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute

Line = NDArray[np.float64]
"""A value for every virtual stage, or for every rank."""


def choices(setting: Setting, degrees: Degrees, quick: Quick, cutoff_us: float = math.inf) -> list[Bound]:
    """Return the layouts to replay with their bounds, least first: of 1F1B one, otherwise those of the family that fit.

    The bound of 1F1B holds for all its layouts, the others each for their own. Of 1F1B, layouts that take as long as
    the cutoff may be left out.
    """
    if degrees.virtual == 1:
        if degrees.placement:
            found = best_mixed(setting, degrees, quick.timer)
        else:
            found = best_contiguous(setting, degrees, quick.timer, cutoff_us)
        return [found] if found.layout else []
    only = degrees.recompute is Recompute.STAGES and Recompute.NONE in setting.spec.search.recompute
    if only and quick.surely_fits(degrees):
        return []
    key = (degrees.micro_batch, *memory_key(degrees))
    if quick.fitting.get(key) == []:
        return []
    judge = _Judge(setting, degrees, quick)
    if key not in quick.fitting:
        tried = (judge.fitted(layout) for layout in layouts(setting.model.layers, degrees))
        quick.fitting[key] = [layout for layout in tried if layout is not None]
    bounds = (Bound(judge.bound_us(layout), layout) for layout in quick.fitting[key])
    return sorted(bounds, key=lambda bound: bound.step_us)


def layouts(layers: int, degrees: Degrees) -> Iterator[StageLayout]:
    """Yield distinct layouts of `layers` over all virtual stages; only the first and the last may be empty.

    Embedding and loss count as up to two layers, and the remainder starts at another slot each time.
    """
    slots = degrees.slots
    seen: set[tuple[int, ...]] = set()
    for first, last in ((0, 1), (0, 0), (1, 1), (0, 2)):
        base, rest = divmod(layers + first + last, slots)
        for start in sorted({(slots - rest) // 2, slots - rest}):
            counts = [base + (start <= slot < start + rest) for slot in range(slots)]
            counts[0] -= first
            counts[-1] -= last
            key = tuple(counts)
            if min(key) < 0 or min(key[1:-1], default=1) < 1 or key in seen:
                continue
            seen.add(key)
            yield StageLayout(key)


class _Judge:
    """Bounds and memory of layouts of one choice of degrees."""

    def __init__(self, setting: Setting, degrees: Degrees, quick: Quick) -> None:
        self.setting, self.degrees, timer = setting, degrees, quick.timer
        self.known_tails: dict[tuple[float, float, float, int], float] = {}
        self.known_traffic, mesh = quick.traffic, (degrees.data, degrees.tensor, degrees.context, degrees.pipeline)
        self.traffic_key = (*mesh, degrees.expert, degrees.expert_tensor, degrees.zero, degrees.sharding, degrees.order)
        self.microbatches = degrees.microbatches(setting.spec.global_batch)
        model, spec = setting.model, setting.spec
        names = model.sequence()
        kinds = dict.fromkeys(names)
        passes = {name: timer.layer(name, degrees) for name in kinds}
        saved = {name: layer_saved_bytes(model.kind(name), spec, degrees, model.hidden) for name in kinds}
        whole = {
            name: layer_saved_bytes(model.kind(name), spec, degrees, model.hidden, Recompute.NONE) for name in kinds
        }
        sizes = sizes_of(setting, degrees)
        hosted = {name: host_bytes(setting, degrees, *size, {name: 1}) for name, size in sizes.items()}
        states = {name: state_bytes(setting, degrees, *size) for name, size in sizes.items()}
        partial = degrees.recompute is Recompute.STAGES
        self.kinds, self.partial = names, partial
        self.falling = len(kinds) == 1 or not degrees.schedule.splits_backward
        """From the first on, no further layer that runs again needs more room (`Tables.again`)."""
        more = {name: again_pass(timer, name, degrees).backward_us if partial else 0.0 for name in kinds}
        drop = {name: saved_again(setting, name, degrees) if partial else 0.0 for name in kinds}
        self.drop = _prefix([drop[name] for name in names])
        more_us = [more[name] for name in names]
        times = [passes[name].forward_us for name in names], [passes[name].backward_us for name in names], more_us
        counted = [sizes[name][0] for name in names], [sizes[name][1] for name in names]
        self.lines = tuple(np.array(_prefix(values)) for values in (*times, *counted))
        self.saved = _prefix([saved[name] for name in names])
        self.whole = _prefix([whole[name] for name in names])
        self.hosted = _prefix([hosted[name] for name in names])
        self.state = _prefix([states[name] for name in names])
        self.transient = max(transient_bytes(setting, degrees, {name: 1}, False) for name in kinds)
        self.transient_last = max(transient_bytes(setting, degrees, {name: 1}, True) for name in kinds)
        self.hop = hop_us(setting, degrees)
        self.embedding = embedding_pass(setting, degrees)
        self.loss = loss_pass(setting, degrees) + predictor_pass(setting, degrees, timer) * model.predictors
        self.extra_saved, self.extra_whole = (item[names[-1]] * model.predictors for item in (saved, whole))
        self.ends = (0, degrees.last_rank)
        both = degrees.last_rank == 0
        first = stage_parameters(model, degrees, {}, True, both)
        last = (0.0, 0.0) if both else stage_parameters(model, degrees, {}, False, True)
        self.size_first, self.size_last, self.tied_us = first, last, tied_sum_us(setting, degrees)
        self.host_first, self.host_last = (host_bytes(setting, degrees, *size, {}) for size in (first, last))
        self.state_first, self.state_last = state_bytes(setting, degrees, *first), state_bytes(setting, degrees, *last)

    def bound_us(self, layout: StageLayout) -> float:
        """Return a bound on this layout's step.

        Of ZB-V, per rank: first chunks before it, its work, and its tail. Of interleaved schedules, the larger of:
        first chunks before it, its work, the way back and the tails on it; and: the way of the first microbatch to the
        rank's first backward, its work in between, and the way of the last microbatch home.
        """
        ranks, hop, microbatches = self.degrees.pipeline, self.hop, self.microbatches
        forward, backward = self._times(layout)
        busy = microbatches * self._summed(forward + backward)
        tails = self._tails(layout, backward)
        entry = np.concatenate(([0.0], forward[: ranks - 1].cumsum())) + hop * np.arange(ranks)
        if self.degrees.schedule is Pipeline.ZERO_BUBBLE_V:
            return float((entry + busy + tails).max())
        after = self._afterwards(tails, backward)
        return float(np.maximum(entry + busy + after, self._paths(forward, backward, busy, after)).max())

    def _times(self, layout: StageLayout) -> tuple[Line, Line]:
        """Return forward and backward of every virtual stage for one microbatch, ends and what runs again included."""
        starts, ends = _edges(layout)
        forward, backward = self.lines[0][ends] - self.lines[0][starts], self.lines[1][ends] - self.lines[1][starts]
        if layout.recomputed:
            again = starts + np.array(layout.recomputed, dtype=np.int64)
            backward += self.lines[2][again] - self.lines[2][starts]
        for slot, item in ((0, self.embedding), (self.degrees.slots - 1, self.loss)):
            forward[slot] += item.forward_us
            backward[slot] += item.backward_us
        return forward, backward

    def _summed(self, values: Line) -> Line:
        """Return the sums over each rank's virtual stages."""
        ranks = self.degrees.pipeline
        if self.degrees.schedule is Pipeline.ZERO_BUBBLE_V:
            return np.asarray(values[:ranks] + values[: ranks - 1 : -1])
        return np.asarray(values.reshape(-1, ranks).sum(axis=0))

    def _tails(self, layout: StageLayout, backward: Line) -> Line:
        """Return what every rank does after its last backward."""
        (starts, ends), last = _edges(layout), self.ends[1]
        dense, routed = (self._summed(line[ends] - line[starts]) for line in self.lines[3:])
        for extra, rank in zip((self.size_first, self.size_last), self.ends, strict=True):
            dense[rank] += extra[0]
            routed[rank] += extra[1]
        layers, windows = self._summed(np.array(layout.layers)), self._summed(backward)
        found: list[float] = []
        for key in zip(dense.tolist(), routed.tolist(), windows.tolist(), layers.tolist(), strict=True):
            if key not in self.known_tails:
                self.known_tails[key] = tail_us(self.setting, self.degrees, *key, self._moved(key[:2]))
            found.append(self.known_tails[key])
        if last:
            found[0], found[last] = found[0] + self.tied_us, found[last] + self.tied_us
        return np.array(found)

    def _moved(self, sizes: tuple[float, float]) -> float:
        """Return the traffic of a rank with so many parameters, outside routed experts and in them."""
        key = (*self.traffic_key, *sizes)
        if key not in self.known_traffic:
            self.known_traffic[key] = traffic_us(self.setting, self.degrees, *sizes)
        return self.known_traffic[key]

    def _afterwards(self, tails: Line, backward: Line) -> Line:
        """Return what comes after every rank's last backward: its tail, or the way back and the tails on it."""
        found, after = list[float](), 0.0
        for rank, (tail, before) in enumerate(zip(tails.tolist(), [0.0, *backward.tolist()], strict=False)):
            after = max(tail, after + before + self.hop) if rank else tail
            found.append(after)
        return np.array(found)

    def _paths(self, forward: Line, backward: Line, busy: Line, after: Line) -> Line:
        """Return the bounds of every rank by the ways of the first and the last microbatch."""
        ranks, chunks, slots = self.degrees.pipeline, self.degrees.virtual, self.degrees.slots
        counts, some_left = _early(ranks, chunks, self.microbatches * chunks)
        warm = (counts * forward.reshape(chunks, ranks)).sum(axis=0)
        cool = (counts * backward.reshape(chunks, ranks)).sum(axis=0)
        ahead, back = (np.concatenate((line[::-1].cumsum()[::-1], [0.0])) for line in (forward, backward))
        rank = np.arange(ranks)
        end = slots - ranks + rank
        around = 2 * (slots - 1 - end) * self.hop
        out = ahead[0] + back[end + 1] + end * self.hop + around
        home = ahead[end + 1] + back[rank] + (end - rank) * self.hop + around + after
        steady = out + busy - warm - cool + home
        return np.asarray(np.where(some_left, steady, np.maximum(out + busy - warm + after, home)))

    def fitted(self, layout: StageLayout) -> StageLayout | None:
        """Return the layout if every rank's peak fits the memory, or None.

        Where stages have their own numbers of layers that run again, a rank takes the least number per chunk that fits.
        """
        cuts, again = layout.cuts(), [0] * len(layout.layers)
        known: dict[tuple[float, ...], int] = {}
        if self.falling and not all(self._ever(rank, cuts) for rank in self.ends):
            return None
        for rank in range(self.degrees.pipeline):
            slots = self.degrees.slots_of(rank)
            mine = [cuts[slot] for slot in slots]
            key = tuple(size for start, end in mine for size in self._sizes(start, end))
            count = self._fewest(rank, mine, known.get(key))
            if count is None:
                return None
            if rank < self.ends[1] and self.degrees.schedule is Pipeline.INTERLEAVED:
                known[key] = count
            for slot, (start, end) in zip(slots, mine, strict=True):
                again[slot] = min(count, end - start)
        return StageLayout(layout.layers, tuple(again)) if self.partial else layout

    def _ever(self, rank: int, cuts: tuple[tuple[int, int], ...]) -> bool:
        """Whether a rank fits when all that may run again does."""
        mine = [cuts[slot] for slot in self.degrees.slots_of(rank)]
        return self._fits(rank, mine, max(end - start for start, end in mine) if self.partial else 0)

    def _fewest(self, rank: int, mine: list[tuple[int, int]], before: int | None) -> int | None:
        """Return the fewest layers per chunk to run again so that the rank fits, or None.

        `before` is what an earlier rank with the same chunks needed: of interleaved schedules a later one holds fewer
        microbatches of each chunk and needs no more.
        """
        if before is not None and rank != self.ends[1]:
            while before and self._fits(rank, mine, before - 1):
                before -= 1
            return before
        most = max(end - start for start, end in mine) if self.partial else 0
        if self._fits(rank, mine, 0):
            return 0
        if not self.falling:
            return next((count for count in range(1, most + 1) if self._fits(rank, mine, count)), None)
        if not most or not self._fits(rank, mine, most):
            return None
        low = 1
        while low < most:
            middle = (low + most) // 2
            low, most = (low, middle) if self._fits(rank, mine, middle) else (middle + 1, most)
        return most

    def _sizes(self, start: int, end: int) -> tuple[float, float, float]:
        """Return state, kept bytes and host bytes of a range of layers."""
        state, saved, hosted = self.state, self.saved, self.hosted
        return state[end] - state[start], saved[end] - saved[start], hosted[end] - hosted[start]

    def _fits(self, rank: int, mine: list[tuple[int, int]], again: int = 0) -> bool:
        def total(prefix: list[float]) -> float:
            return sum(prefix[end] - prefix[start] for start, end in mine)

        state, hosted, transient = total(self.state), total(self.hosted), self.transient
        kept = [self.saved[end] - self.saved[start] for start, end in mine]
        twice: set[str] = set()
        if again:
            runs = [(start, min(start + again, end)) for start, end in mine]
            kept = [size - self.drop[end] + self.drop[start] for size, (start, end) in zip(kept, runs, strict=True)]
            twice = {name for start, end in runs for name in self.kinds[start:end]}
        whole = [self.whole[end] - self.whole[start] for start, end in mine]
        if rank == 0:
            state, hosted = state + self.state_first, hosted + self.host_first
        if rank == self.ends[1]:
            state, hosted, transient = state + self.state_last, hosted + self.host_last, self.transient_last
            kept[-1], whole[-1] = kept[-1] + self.extra_saved, whole[-1] + self.extra_whole
        for name in twice:
            passing = transient_bytes(self.setting, self.degrees, {name: 1}, rank == self.ends[1], (name,))
            transient = max(transient, passing)
        room = capacity_bytes(self.setting) - state - transient
        if sum(kept) > room or (hosted and hosted > host_capacity_bytes(self.setting)):
            return False
        return peak_saved_bytes(rank, self.degrees, self.microbatches, tuple(kept), tuple(whole)) <= room


def _edges(layout: StageLayout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first layer and the layer after the last of every virtual stage."""
    counts = np.array(layout.layers, dtype=np.int64)
    ends: NDArray[np.int64] = np.asarray(counts.cumsum(), dtype=np.int64)
    return np.asarray(ends - counts, dtype=np.int64), ends


@lru_cache(maxsize=4096)
def _early(ranks: int, chunks: int, total: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return how many forwards of each chunk (rows) every rank (columns) runs before its first backward, and whether
    that leaves some of all its forwards."""
    early = np.minimum(total, 2 * (ranks - np.arange(ranks) - 1) + (chunks - 1) * ranks + 1)
    cycles, rest = np.divmod(early, ranks * chunks)
    counts = cycles * ranks + np.clip(rest - np.arange(chunks)[:, None] * ranks, 0, ranks)
    return counts, early < total


def sizes_of(setting: Setting, degrees: Degrees) -> dict[str, tuple[float, float]]:
    """Return the parameters of one layer of each kind on one GPU: outside routed experts, and inside."""
    kinds = dict.fromkeys(setting.model.sequence())
    return {name: stage_parameters(setting.model, degrees, {name: 1}, False, False) for name in kinds}


def _prefix(values: list[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))
