"""Bounds on the step time that hold for every stage layout of given degrees; derivations in docs/design/parallel.md.

`quick` needs a few sums. `best_contiguous` is exact for the system of inequalities over all 1F1B layouts: a dynamic
program
over ranks and layers, with memory as a constraint; its layout is the one the replay times. Both are for solver and
checker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.training_memory import capacity_bytes, layer_saved_bytes, stage_parameters, state_bytes
from treadle.costmodels.training_memory import transient_bytes as transient_of
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

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound in microseconds, and a layout when one was solved; infinite when no layout fits the memory."""

    step_us: float
    layout: StageLayout | None = None


@lru_cache(maxsize=65536)
def even_factor(ranks: int, microbatches: int) -> float:
    """Return K such that the step is at least K times the time of all layers for one microbatch, whatever the cut.

    m >= p + 1: (m + p - 1) / p. Fewer microbatches: r / (r - 1) with r = (m / (m - 1))^p, from fill and work alone.
    """
    if ranks == 1:
        return float(microbatches)
    if microbatches > ranks:
        return (microbatches + ranks - 1) / ranks
    if microbatches == 1:
        return 1.0
    ratio = (microbatches / (microbatches - 1)) ** ranks
    return ratio / (ratio - 1)


class Quick:
    """Quick bounds of one problem, remembered per choice of the degrees they depend on."""

    def __init__(self, setting: Setting, timer: LayerTimer) -> None:
        self.setting, self.timer = setting, timer
        self._work: dict[tuple[object, ...], tuple[float, float, float]] = {}
        self._state: dict[tuple[object, ...], float] = {}

    def bound_us(self, degrees: Degrees) -> float:
        """Return a bound for all layouts from the total work; only the fixed part of the tail is charged after it.

        Layers are whole: some rank runs the even share of them, rounded up, for every microbatch.
        """
        work, least, hop = self.work(degrees)
        microbatches = degrees.microbatches(self.setting.spec.global_batch)
        fixed = self.setting.gpu.constants.step_us
        fullest = microbatches * -(-self.setting.model.layers // degrees.pipeline) * least
        if degrees.virtual == 1:
            return max(fullest, even_factor(degrees.pipeline, microbatches) * work) + fixed
        waits = interleaved_waits(self.setting, degrees, least, hop)
        return max(fullest, (microbatches * work + sum(waits)) / degrees.pipeline) + fixed

    def work(self, degrees: Degrees) -> tuple[float, float, float]:
        """Return the time of everything for one microbatch, of the cheapest layer, and of a hop."""
        mesh = (degrees.data, degrees.tensor, degrees.context, degrees.pipeline, degrees.micro_batch, degrees.expert)
        key = (*mesh, degrees.expert_tensor, degrees.recompute, degrees.zero == 3, degrees.order)
        if key not in self._work:
            setting, model = self.setting, self.setting.model
            ends = embedding_pass(setting, degrees).total_us + loss_pass(setting, degrees).total_us
            if model.predictors:
                ends += predictor_pass(setting, degrees, self.timer).total_us * model.predictors
            times = {name: self.timer.layer(name, degrees).total_us for name, _ in model.order}
            total = sum(times[name] * count for name, count in model.order) + ends
            self._work[key] = total, min(times.values()), hop_us(setting, degrees)
        return self._work[key]

    def may_fit(self, degrees: Degrees) -> bool:
        """Whether weights, optimizer and one microbatch's activations, spread evenly over the ranks, fit at all."""
        mesh = (degrees.data, degrees.tensor, degrees.context, degrees.pipeline, degrees.expert, degrees.expert_tensor)
        key = (*mesh, degrees.zero)
        setting, model = self.setting, self.setting.model
        if key not in self._state:
            kinds = dict.fromkeys((name for name, _ in model.order), 0)
            for name, count in model.order:
                kinds[name] += count
            dense, routed = stage_parameters(model, degrees, kinds, True, True)
            self._state[key] = state_bytes(setting.spec, degrees, dense, routed)
        return self._state[key] <= degrees.pipeline * capacity_bytes(setting)


def interleaved_waits(setting: Setting, degrees: Degrees, least_us: float, hop: float) -> list[float]:
    """Return what each rank waits at least, before its first forward and after its last backward.

    A microbatch passes the first chunks of the ranks before: with the even share of layers, rounded down (the first
    rank may hold two fewer), forward on the way in and backward on the way out.
    """
    share = max(1, setting.model.layers // degrees.slots)
    first = max(0, share - 2) * least_us
    return [
        (first + (rank - 1) * share * least_us if rank else 0.0) + 2 * rank * hop for rank in range(degrees.pipeline)
    ]


def best_contiguous(setting: Setting, degrees: Degrees, timer: LayerTimer) -> Bound:
    """Return the least value of the largest inequality over all 1F1B layouts that fit the memory, and such a layout.

    Matrices are over (first layer, layer after the last). O(p L^2) elementary operations.
    """
    tables = Tables(setting, degrees, timer)
    ranks, layers = degrees.pipeline, setting.model.layers
    after = np.full(layers + 1, np.inf)
    after[layers] = 0.0
    choices: list[NDArray[np.int64]] = []
    for rank in reversed(range(ranks)):
        value = np.maximum(tables.inequality(rank), after[None, :])
        value[~tables.allowed(rank)] = np.inf
        choices.append(value.argmin(axis=1))
        after = value.min(axis=1)
    if not math.isfinite(after[0]):
        return Bound(math.inf)
    counts: list[int] = []
    at = 0
    for choice in reversed(choices):
        counts.append(int(choice[at]) - at)
        at = int(choice[at])
    return Bound(float(after[0]), StageLayout(tuple(counts)))


class Tables:
    """Prefix sums of one choice of degrees, and the matrices over (first layer, layer after the last)."""

    def __init__(self, setting: Setting, degrees: Degrees, timer: LayerTimer) -> None:
        self.setting, self.degrees = setting, degrees
        self.microbatches = degrees.microbatches(setting.spec.global_batch)
        model, spec = setting.model, setting.spec
        names = model.sequence()
        passes = {name: timer.layer(name, degrees) for name in dict.fromkeys(names)}
        self.forward = self._between([passes[name].forward_us for name in names])
        self.backward = self._between([passes[name].backward_us for name in names])
        saved = {name: layer_saved_bytes(model.kind(name), spec, degrees, model.hidden) for name in passes}
        self.saved = self._between([saved[name] for name in names])
        self.extra_saved = saved[names[-1]] * model.predictors
        self.presence = {name: self._between([float(item == name) for item in names]) for name in passes}
        self.hop = hop_us(setting, degrees)
        self.embedding = embedding_pass(setting, degrees)
        self.loss = loss_pass(setting, degrees) + predictor_pass(setting, degrees, timer) * model.predictors
        self.tied = tied_sum_us(setting, degrees)
        size = len(names) + 1
        self.rows = np.arange(size)[:, None]
        self.columns = np.arange(size)[None, :]
        self._linear = _tail_linear(setting, degrees)
        self._sizes: dict[tuple[bool, bool], tuple[Matrix, Matrix]] = {}
        self._tails: dict[tuple[bool, bool], tuple[Matrix, float]] = {}

    @staticmethod
    def _between(values: list[float]) -> Matrix:
        prefix = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(prefix[None, :] - prefix[:, None])

    def _ends(self, rank: int) -> tuple[bool, bool]:
        return rank == 0, rank == self.degrees.pipeline - 1

    def times(self, rank: int) -> tuple[Matrix, Matrix]:
        """Return forward and backward time of one microbatch on the rank, for every range of layers."""
        first, last = self._ends(rank)
        forward = self.forward + (self.embedding.forward_us if first else 0) + (self.loss.forward_us if last else 0)
        backward = self.backward + (self.embedding.backward_us if first else 0)
        return forward, backward + (self.loss.backward_us if last else 0)

    def _parameters(self, rank: int) -> tuple[Matrix, Matrix]:
        ends = self._ends(rank)
        if ends not in self._sizes:
            self._sizes[ends] = self._counted(*ends)
        return self._sizes[ends]

    def _counted(self, first: bool, last: bool) -> tuple[Matrix, Matrix]:
        dense, routed = stage_parameters(self.setting.model, self.degrees, {}, first, last)
        totals = [np.full_like(self.saved, dense), np.full_like(self.saved, routed)]
        for name, presence in self.presence.items():
            one = stage_parameters(self.setting.model, self.degrees, {name: 1}, False, False)
            for position in range(2):
                totals[position] += presence * one[position]
        return totals[0], totals[1]

    def inequality(self, rank: int) -> Matrix:
        """Return the right-hand side of the rank's inequality for every range of layers."""
        head = 0.0 if rank == 0 else 1.0
        hop = self.hop if self.degrees.pipeline > 1 else 0.0
        drain = head * (self.backward[0, :][:, None] + self.embedding.backward_us + hop * rank)
        tail, tail_first = self.tail(rank)
        return np.asarray(self.until_last_backward(rank) + np.maximum(tail, drain + tail_first))

    def until_last_backward(self, rank: int) -> Matrix:
        """Return the least time at which the rank's last backward ends, for every range of layers."""
        first, last = self._ends(rank)
        forward, backward = self.times(rank)
        ranks, microbatches, hop = (
            self.degrees.pipeline,
            self.microbatches,
            self.hop if self.degrees.pipeline > 1 else 0.0,
        )
        total = self.forward[:, -1] + self.backward[:, -1]
        behind = total[None, :] + (0.0 if last else self.loss.total_us) + 2 * hop * (ranks - 1 - rank)
        behind = behind * (0.0 if last else 1.0)
        head = 0.0 if first else 1.0
        fill = head * (self.forward[0, :][:, None] + self.embedding.forward_us + hop * rank)
        ahead = min(microbatches, ranks - rank) - 1
        warm = np.maximum(0.0, behind - ahead * forward)
        cool = np.maximum(0.0, behind - ahead * backward)
        work = forward + backward
        # With no steady phase the two idle times are the same one.
        idle = warm + cool if microbatches > ahead + 1 else np.maximum(warm, cool)
        flow = microbatches * work + idle
        rounds, rest = divmod(microbatches - 1, ahead + 1)
        trips = rest * forward + (rounds + 1) * (work + behind)
        return np.asarray(fill + np.maximum(flow, trips))

    def tail(self, rank: int) -> tuple[Matrix, float]:
        """Return the rank's own tail, and the least tail of the first rank; all ranks but the ends have the same."""
        ends = self._ends(rank)
        if ends not in self._tails:
            self._tails[ends] = self._tail(rank, *ends)
        return self._tails[ends]

    def _tail(self, rank: int, first: bool, last: bool) -> tuple[Matrix, float]:
        _, backward = self.times(rank)
        dense, routed = self._parameters(rank)
        count = self.columns - self.rows
        traffic_dense = self._linear
        tail = traffic_dense[0] + traffic_dense[1] * dense + traffic_dense[2] * routed
        if self.setting.spec.overlap_gradients:
            moved = traffic_dense[3] * dense + traffic_dense[4] * routed
            shown = np.maximum(moved / np.maximum(1, count), moved - backward)
            tail = tail - moved + shown
        return tail + (self.tied if first or last else 0.0), traffic_dense[0] + (self.tied if first else 0.0)

    def allowed(self, rank: int) -> NDArray[np.bool_]:
        """Return which ranges of layers a rank may hold: not empty between the ends, and within its memory."""
        first, last = self._ends(rank)
        dense, routed = self._parameters(rank)
        unit = (
            state_bytes(self.setting.spec, self.degrees, 1.0, 0.0),
            state_bytes(self.setting.spec, self.degrees, 0.0, 1.0),
        )
        held = min(self.microbatches, self.degrees.pipeline - rank)
        saved = self.saved + (self.extra_saved if last else 0.0)
        need = dense * unit[0] + routed * unit[1] + held * saved
        transient = np.zeros_like(need)
        for name, presence in self.presence.items():
            size = transient_of(self.setting, self.degrees, {name: 1}, last)
            transient = np.maximum(transient, np.where(presence > 0, size, 0.0))
        transient = np.maximum(transient, transient_of(self.setting, self.degrees, {}, last))
        least = 0 if first or last else 1
        fits = need + transient <= capacity_bytes(self.setting)
        return np.asarray(fits & (self.columns - self.rows >= least))


def _tail_linear(setting: Setting, degrees: Degrees) -> tuple[float, float, float, float, float]:
    """Return (fixed, per dense parameter, per routed parameter) of the unoverlapped tail, and the traffic's share.

    The tail is affine in the parameters but for the latency of collectives, which is left out: still a bound.
    """
    links = replace(setting.links, latency_us=0.0)
    plain = replace(setting, links=links, spec=replace(setting.spec, overlap_gradients=False))
    unit = 1e9
    fixed = tail_us(plain, degrees, 0.0, 0.0, 0.0, 1)
    dense = (tail_us(plain, degrees, unit, 0.0, 0.0, 1) - fixed) / unit
    routed = (tail_us(plain, degrees, 0.0, unit, 0.0, 1) - fixed) / unit
    moved = replace(plain, spec=replace(plain.spec, optimizer_bytes=0))
    still = (tail_us(_without_links(moved), degrees, unit, 0.0, 0.0, 1) - fixed) / unit
    still_routed = (tail_us(_without_links(moved), degrees, 0.0, unit, 0.0, 1) - fixed) / unit
    base = (tail_us(moved, degrees, unit, 0.0, 0.0, 1) - fixed) / unit
    base_routed = (tail_us(moved, degrees, 0.0, unit, 0.0, 1) - fixed) / unit
    return fixed, dense, routed, base - still, base_routed - still_routed


def _without_links(setting: Setting) -> Setting:
    return replace(setting, links=replace(setting.links, fast_bytes_per_us=math.inf, slow_bytes_per_us=math.inf))
