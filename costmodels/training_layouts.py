"""The stage layout that goes with given degrees: exact for 1F1B, the best of a declared family for interleaved
schedules.

The family: even shares, with embedding and loss counted as up to two layers and the remainder placed in several ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from treadle.costmodels.training_bounds import Bound, Quick, best_contiguous
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
from treadle.costmodels.training_step import (
    LayerTimer,
    Setting,
    embedding_pass,
    hop_us,
    loss_pass,
    predictor_pass,
    tail_us,
    tied_sum_us,
)
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute


def choices(setting: Setting, degrees: Degrees, quick: Quick) -> list[Bound]:
    """Return the layouts to replay with their bounds, least first: of 1F1B one, otherwise those of the family that fit.

    The bound of 1F1B holds for all its layouts, the others each for their own.
    """
    if degrees.virtual == 1:
        solve = best_mixed if degrees.placement else best_contiguous
        found = solve(setting, degrees, quick.timer)
        return [found] if found.layout else []
    only = degrees.recompute is Recompute.STAGES and Recompute.NONE in setting.spec.search.recompute
    if only and quick.surely_fits(degrees):
        return []
    judge = _Judge(setting, degrees, quick.timer)
    tried = (judge.fitted(layout) for layout in layouts(setting.model.layers, degrees))
    fitting = [layout for layout in tried if layout is not None]
    return sorted((Bound(judge.bound_us(layout), layout) for layout in fitting), key=lambda bound: bound.step_us)


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

    def __init__(self, setting: Setting, degrees: Degrees, timer: LayerTimer) -> None:
        self.setting, self.degrees = setting, degrees
        self.known_tails: dict[tuple[float, float, float, int], float] = {}
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
        more = {name: again_pass(timer, name, degrees).backward_us if partial else 0.0 for name in kinds}
        drop = {name: saved_again(setting, name, degrees) if partial else 0.0 for name in kinds}
        self.more_us, self.drop = (_prefix([item[name] for name in names]) for item in (more, drop))
        self.forward = _prefix([passes[name].forward_us for name in names])
        self.backward = _prefix([passes[name].backward_us for name in names])
        self.dense = _prefix([sizes[name][0] for name in names])
        self.routed = _prefix([sizes[name][1] for name in names])
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
        ranks, last = self.degrees.pipeline, self.degrees.slots - 1
        forward = [self.forward[end] - self.forward[start] for start, end in layout.cuts()]
        backward = [self.backward[end] - self.backward[start] for start, end in layout.cuts()]
        for slot, (count, (start, _)) in enumerate(zip(layout.recomputed, layout.cuts(), strict=False)):
            backward[slot] += self.more_us[start + count] - self.more_us[start]
        forward[0], backward[0] = forward[0] + self.embedding.forward_us, backward[0] + self.embedding.backward_us
        forward[last], backward[last] = forward[last] + self.loss.forward_us, backward[last] + self.loss.backward_us
        tails = self._tails(layout, backward)
        fill = worst = after = 0.0
        for rank in range(ranks):
            mine = self.degrees.slots_of(rank)
            busy = self.microbatches * sum(forward[slot] + backward[slot] for slot in mine)
            if self.degrees.schedule is Pipeline.ZERO_BUBBLE_V:
                worst = max(worst, fill + rank * self.hop + busy + tails[rank])
                fill += forward[rank]
                continue
            after = max(tails[rank], after + backward[rank - 1] + self.hop) if rank else tails[0]
            paths = self._paths(rank, forward, backward, busy, after)
            worst = max(worst, fill + rank * self.hop + busy + after, paths)
            fill += forward[rank]
        return worst

    def _tails(self, layout: StageLayout, backward: list[float]) -> list[float]:
        """Return what every rank does after its last backward."""
        cuts, found = layout.cuts(), list[float]()
        for rank in range(self.degrees.pipeline):
            slots = self.degrees.slots_of(rank)
            mine = [cuts[slot] for slot in slots]
            dense = sum(self.dense[end] - self.dense[start] for start, end in mine)
            routed = sum(self.routed[end] - self.routed[start] for start, end in mine)
            for extra, here in zip((self.size_first, self.size_last), self.ends, strict=True):
                dense, routed = (dense + extra[0], routed + extra[1]) if here == rank else (dense, routed)
            layers = sum(end - start for start, end in mine)
            window = sum(backward[slot] for slot in slots)
            key = (dense, routed, window, layers)
            if key not in self.known_tails:
                self.known_tails[key] = tail_us(self.setting, self.degrees, *key)
            tail = self.known_tails[key]
            found.append(tail + (self.tied_us if (rank == 0) != (rank == self.ends[1]) else 0.0))
        return found

    def _paths(self, rank: int, forward: list[float], backward: list[float], busy: float, after: float) -> float:
        """Return the bound by the ways of the first and the last microbatch."""
        ranks, chunks, total = self.degrees.pipeline, self.degrees.virtual, self.microbatches * self.degrees.virtual
        early = min(total, 2 * (ranks - rank - 1) + (chunks - 1) * ranks + 1)
        cycles, rest = divmod(early, ranks * chunks)
        counts = [cycles * ranks + min(max(rest - chunk * ranks, 0), ranks) for chunk in range(chunks)]
        warm = sum(count * forward[chunk * ranks + rank] for chunk, count in enumerate(counts))
        cool = sum(count * backward[chunk * ranks + rank] for chunk, count in enumerate(counts))
        end = (chunks - 1) * ranks + rank
        around = 2 * (self.degrees.slots - 1 - end) * self.hop
        out = sum(forward) + sum(backward[end + 1 :]) + end * self.hop + around
        home = sum(forward[end + 1 :]) + sum(backward[rank:]) + (end - rank) * self.hop + around + after
        if early < total:
            return out + busy - warm - cool + home
        return max(out + busy - warm + after, home)

    def fitted(self, layout: StageLayout) -> StageLayout | None:
        """Return the layout if every rank's peak fits the memory, or None.

        Where stages have their own numbers of layers that run again, a rank takes the least number per chunk that fits.
        """
        cuts, again = layout.cuts(), [0] * len(layout.layers)
        known: dict[tuple[float, ...], int] = {}
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
        count = next((count for count in range(most) if self._fits(rank, mine, count)), most)
        return count if count < most or self._fits(rank, mine, most) else None

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


def sizes_of(setting: Setting, degrees: Degrees) -> dict[str, tuple[float, float]]:
    """Return the parameters of one layer of each kind on one GPU: outside routed experts, and inside."""
    kinds = dict.fromkeys(setting.model.sequence())
    return {name: stage_parameters(setting.model, degrees, {name: 1}, False, False) for name in kinds}


def _prefix(values: list[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))
