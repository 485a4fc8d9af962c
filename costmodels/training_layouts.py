"""The stage layout that goes with given degrees: exact for 1F1B, the best of a declared family for interleaved schedules.

The family: even shares, with embedding and loss counted as up to two layers and the remainder placed in several ways.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

from treadle.costmodels.training_bounds import Bound, Quick, best_contiguous, interleaved
from treadle.costmodels.training_memory import (
    capacity_bytes,
    layer_saved_bytes,
    stage_parameters,
    state_bytes,
    transient_bytes,
)
from treadle.costmodels.training_replay import peak_saved_bytes
from treadle.costmodels.training_step import (
    LayerTimer,
    Setting,
    embedding_pass,
    hop_us,
    loss_pass,
    predictor_pass,
)
from treadle.ir.training.plan import Degrees, StageLayout


def solved(setting: Setting, degrees: Degrees, quick: Quick) -> Bound:
    """Return the bound over all layouts with the layout to replay, or an infinite bound when none fits the memory."""
    if degrees.virtual == 1:
        return best_contiguous(setting, degrees, quick.timer)
    layout = choose(setting, degrees, quick.timer)
    return Bound(interleaved(setting, degrees, quick), layout) if layout else Bound(math.inf)


def choose(setting: Setting, degrees: Degrees, timer: LayerTimer) -> StageLayout | None:
    """Return the layout that fits the memory with the least estimate, or None when none fits."""
    judge = _Judge(setting, degrees, timer)
    ranked = sorted(
        (judge.estimate(layout), number, layout)
        for number, layout in enumerate(layouts(setting.model.layers, degrees))
    )
    return next((layout for _, _, layout in ranked if judge.fits(layout)), None)


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
    """Estimates and memory of layouts of one choice of degrees."""

    def __init__(self, setting: Setting, degrees: Degrees, timer: LayerTimer) -> None:
        self.setting, self.degrees = setting, degrees
        self.microbatches = degrees.microbatches(setting.spec.global_batch)
        model, spec = setting.model, setting.spec
        names = model.sequence()
        kinds = dict.fromkeys(names)
        times = {name: timer.layer(name, degrees).total_us for name in kinds}
        saved = {name: layer_saved_bytes(model.kind(name), spec, degrees, model.hidden) for name in kinds}
        sizes = {name: stage_parameters(model, degrees, {name: 1}, False, False) for name in kinds}
        states = {name: state_bytes(spec, degrees, *size) for name, size in sizes.items()}
        self.time = _prefix([times[name] for name in names])
        self.saved = _prefix([saved[name] for name in names])
        self.state = _prefix([states[name] for name in names])
        self.transient = max(transient_bytes(setting, degrees, {name: 1}, False) for name in kinds)
        self.transient_last = max(transient_bytes(setting, degrees, {name: 1}, True) for name in kinds)
        self.hop = hop_us(setting, degrees)
        self.embedding_us = embedding_pass(setting, degrees).total_us
        end = loss_pass(setting, degrees) + predictor_pass(setting, degrees, timer) * model.predictors
        self.loss_us = end.total_us
        self.extra_saved = saved[names[-1]] * model.predictors
        first = stage_parameters(model, degrees, {}, True, degrees.pipeline == 1)
        last = stage_parameters(model, degrees, {}, degrees.pipeline == 1, True)
        self.state_first, self.state_last = state_bytes(spec, degrees, *first), state_bytes(spec, degrees, *last)

    def estimate(self, layout: StageLayout) -> float:
        """Return the largest over the ranks of the wait for the first chunks before it, and its work."""
        ranks, last = self.degrees.pipeline, self.degrees.slots - 1
        slots = [self.time[end] - self.time[start] for start, end in layout.cuts()]
        slots[0] += self.embedding_us
        slots[last] += self.loss_us
        before = worst = 0.0
        for rank in range(ranks):
            busy = self.microbatches * sum(slots[rank::ranks])
            worst = max(worst, before + busy + 2 * rank * self.hop)
            before += slots[rank]
        return worst

    def fits(self, layout: StageLayout) -> bool:
        """Whether every rank's peak fits the memory."""
        ranks, capacity = self.degrees.pipeline, capacity_bytes(self.setting)
        cuts = layout.cuts()
        for rank in range(ranks):
            mine = cuts[rank::ranks]
            state = sum(self.state[end] - self.state[start] for start, end in mine)
            kept = [self.saved[end] - self.saved[start] for start, end in mine]
            transient = self.transient
            if rank == 0:
                state += self.state_first
            if rank == ranks - 1:
                state, transient = state + self.state_last, self.transient_last
                kept[-1] += self.extra_saved
            room = capacity - state - transient
            if sum(kept) > room or peak_saved_bytes(rank, self.degrees, self.microbatches, tuple(kept)) > room:
                return False
        return True


def _prefix(values: list[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))
