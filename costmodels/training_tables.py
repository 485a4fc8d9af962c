"""Times and memory of every range of layers on every rank of given degrees, for the bounds over layouts."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.training_ends import embedding_pass, loss_pass, predictor_pass
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_memory import (
    capacity_bytes,
    host_bytes,
    host_capacity_bytes,
    layer_saved_bytes,
    stage_parameters,
    state_bytes,
)
from treadle.costmodels.training_memory import transient_bytes as transient_of
from treadle.costmodels.training_replay import again_pass, saved_again
from treadle.costmodels.training_schedules import holdings, settled
from treadle.costmodels.training_setting import Pass, Setting
from treadle.costmodels.training_traffic import hop_us, tail_us, tied_sum_us, traffic_us
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Offload, Recompute

Matrix = NDArray[np.float64]


_ROUNDED = 1e-12
"""Part of the room left free, so that sums in another order fit too."""
_SQUARE = ("forward", "backward", "weight", "saved", "whole")
"""What `Tables` has for every first layer and layer after the last."""


class Tables:
    """Prefix sums of one choice of degrees, and the matrices over (first layer, layer after the last).

    With a cutoff, ranges whose work alone takes as long are not asked how many of their layers run again: they may be
    refused as if they did not fit.
    """

    def __init__(self, setting: Setting, degrees: Degrees, timer: LayerTimer, cutoff_us: float = math.inf) -> None:
        self.setting, self.degrees = setting, degrees
        self.microbatches = degrees.microbatches(setting.spec.global_batch)
        model, spec = setting.model, setting.spec
        names = model.sequence()
        self.split = degrees.schedule.splits_backward
        passes = {name: self._apart(timer.layer(name, degrees)) for name in dict.fromkeys(names)}
        self.forward = self._between([passes[name].forward_us for name in names])
        self.backward = self._between([passes[name].backward_us for name in names])
        self.weight = self._between([passes[name].weight_us for name in names])
        saved = {name: layer_saved_bytes(model.kind(name), spec, degrees, model.hidden) for name in passes}
        self.saved = self._between([saved[name] for name in names])
        self.extra_saved = saved[names[-1]] * model.predictors
        whole = {
            name: layer_saved_bytes(model.kind(name), spec, degrees, model.hidden, Recompute.NONE) for name in passes
        }
        self.whole = self._between([whole[name] for name in names])
        self.extra_whole = whole[names[-1]] * model.predictors
        self.presence = {name: self._between([float(item == name) for item in names]) for name in passes}
        self.hop = hop_us(setting, degrees)
        self.embedding = embedding_pass(setting, degrees)
        self.loss = self._apart(
            loss_pass(setting, degrees) + predictor_pass(setting, degrees, timer) * model.predictors
        )
        self.tied = tied_sum_us(setting, degrees)
        size = len(names) + 1
        self.rows = np.arange(size)[:, None]
        self.columns = np.arange(size)[None, :]
        self.passed = self.forward[0, :][:, None], self.backward[0, :][:, None]
        self.coming = (self.forward[:, -1] + self.backward[:, -1])[None, :]
        self._linear = tail_linear(setting, degrees)
        self.partial = degrees.recompute is Recompute.STAGES
        more = {name: again_pass(timer, name, degrees).backward_us if self.partial else 0.0 for name in passes}
        drop = {name: saved_again(setting, name, degrees) if self.partial else 0.0 for name in passes}
        self.more_us, self.drop = (np.cumsum([0.0, *(item[name] for name in names)]) for item in (more, drop))
        self.until = {name: np.cumsum([0.0, *(float(item == name) for item in names)]) for name in passes}
        self.cutoff_us = cutoff_us
        self._views: dict[int, tuple[Tables, slice, slice]] = {}
        self._times: dict[int, tuple[Matrix, Matrix]] = {}
        self._again: dict[int, Matrix] = {}
        self._fixed: dict[int, tuple[Matrix, Matrix, NDArray[np.bool_]]] = {}
        self._transients: dict[tuple[str, bool, bool], float] = {}
        self._sizes: dict[tuple[bool, bool], tuple[Matrix, Matrix]] = {}
        self._tails: dict[tuple[int, ...], tuple[Matrix, float]] = {}

    def window(self, rank: int) -> tuple[Tables, slice, slice]:
        """Return the tables of the ranges a rank can have at all, and those first layers and layers after the last.

        Every rank between the ends has a layer, so the ranks before and after take at least one each.
        """
        if rank not in self._views:
            self._views[rank] = self._window(rank)
        return self._views[rank]

    def _most_layers(self) -> int:
        """Return how many layers a rank runs at the most below the cutoff."""
        layers = self.setting.model.layers
        if not math.isfinite(self.cutoff_us):
            return layers
        least = float((self.forward + self.backward)[np.arange(layers), np.arange(1, layers + 1)].min())
        return min(layers, int(self.cutoff_us / (self.microbatches * least)))

    def _window(self, rank: int) -> tuple[Tables, slice, slice]:
        layers, last = self.setting.model.layers, self.degrees.pipeline - 1
        most = self._most_layers()
        low, high = max(0, rank - 1, layers - (last - rank + 1) * most), layers - max(0, last - rank)
        start = slice(low, max(low, min(0 if rank == 0 else high, rank * most) + 1))
        low = max(layers if rank == last else rank, layers - (last - rank) * most)
        end = slice(low, max(low, min(layers - max(0, last - 1 - rank), (rank + 1) * most) + 1))
        view = copy(self)
        for name in _SQUARE:
            setattr(view, name, getattr(self, name)[start, end])
        view.presence = {name: item[start, end] for name, item in self.presence.items()}
        view.passed = self.passed[0][start], self.passed[1][start]
        view.coming, view.rows, view.columns = self.coming[:, end], self.rows[start], self.columns[:, end]
        view._sizes, view._tails, view._again, view._fixed, view._times = {}, {}, {}, {}, {}
        return view, start, end

    @staticmethod
    def _between(values: list[float]) -> Matrix:
        prefix = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(prefix[None, :] - prefix[:, None])

    def _apart(self, item: Pass) -> Pass:
        """Return a pass whose backward leaves weight gradients out where the schedule does."""
        if self.split:
            return Pass(item.forward_us, item.backward_us - item.weight_us, item.weight_us)
        return Pass(item.forward_us, item.backward_us)

    def _ends(self, rank: int) -> tuple[bool, bool]:
        return rank == 0, rank == self.degrees.pipeline - 1

    def times(self, rank: int) -> tuple[Matrix, Matrix]:
        """Return forward and backward time of one microbatch on the rank, for every range of layers."""
        if rank not in self._times:
            self._times[rank] = self._both(rank)
        return self._times[rank]

    def _both(self, rank: int) -> tuple[Matrix, Matrix]:
        first, last = self._ends(rank)
        forward = self.forward + (self.embedding.forward_us if first else 0) + (self.loss.forward_us if last else 0)
        backward = self.backward + (self.embedding.backward_us if first else 0)
        if self.partial:
            after = self.rows + self.again(rank).astype(np.int64)
            backward = backward + self.more_us[after] - self.more_us[self.rows]
        return forward, backward + (self.loss.backward_us if last else 0)

    def again(self, rank: int) -> Matrix:
        """Return how many first layers of every range run again: the fewest with which it fits, or none if none do.

        Running more of them again is never faster, so the fewest are best for every inequality.
        """
        if rank not in self._again:
            layers = self.columns - self.rows
            found = np.zeros(layers.shape)
            least_us = self.microbatches * (self.forward + self.backward)
            open_ranges = (layers > 0) & ~self._fits(rank, found) & (least_us < self.cutoff_us)
            if len(self.presence) == 1 or not self.split:
                found = self._bisected(rank, open_ranges)
                open_ranges = np.zeros_like(open_ranges)
            for count in range(1, int(layers.max()) + 1):
                here = open_ranges & (layers >= count)
                if not here.any():
                    break
                fits = here & self._fits(rank, np.where(here, count, 0.0))
                found[fits] = count
                open_ranges &= ~fits
            self._again[rank] = found
        return self._again[rank]

    def _bisected(self, rank: int, open_ranges: NDArray[np.bool_]) -> Matrix:
        """Return what `again` does where more of them never need more room.

        What one more frees is held at least once, and no less than what it brings while it runs. Between a backward and
        its weight gradients it is held whole: then only layers of one kind are alike from the first on.
        """
        found = np.zeros(open_ranges.shape)
        places = np.nonzero(open_ranges)
        if places[0].size:
            found[places] = _Ranges(self, rank, places).fewest()
        return found

    def weights(self, rank: int) -> Matrix:
        """Return the time of one microbatch's weight gradients that run apart, for every range of layers."""
        return self.weight + (self.loss.weight_us if self._ends(rank)[1] else 0)

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
        tail, tail_first = self.tail(rank)
        return np.asarray(self.until_last_backward(rank) + np.maximum(tail, self.before(rank)[1] + tail_first))

    def before(self, rank: int) -> tuple[Matrix, Matrix]:
        """Return forward and backward of one microbatch on the ranks before, hops included, per first layer."""
        if rank == 0:
            return np.zeros((1, 1)), np.zeros((1, 1))
        forward, backward = self.passed
        entry, hops = self.embedding, self.hop * rank
        return forward + entry.forward_us + hops, backward + entry.backward_us + hops

    def behind(self, rank: int) -> Matrix:
        """Return a microbatch's way through the ranks after and back, hops included, per layer after the last."""
        if self._ends(rank)[1]:
            return np.zeros((1, 1))
        return np.asarray(self.coming + self.loss.total_us + 2 * self.hop * (self.degrees.pipeline - 1 - rank))

    def until_last_backward(self, rank: int) -> Matrix:
        """Return the least time at which the rank's last backward ends, for every range of layers."""
        forward, backward = self.times(rank)
        ranks, microbatches = self.degrees.pipeline, self.microbatches
        behind, fill = self.behind(rank), self.before(rank)[0]
        ahead = min(microbatches, ranks - rank) - 1
        warm = np.maximum(0.0, behind - ahead * forward)
        weights = self.weights(rank)
        cool = np.maximum(0.0, behind - ahead * (backward + weights))
        work = forward + backward
        # With no steady phase the two idle times are the same one.
        idle = warm + cool if microbatches > ahead + 1 else np.maximum(warm, cool)
        flow = microbatches * work + idle + max(0, microbatches - 1 - rank) * weights
        rounds, rest = divmod(microbatches - 1, ahead + 1)
        trips = rest * forward + (rounds + 1) * (work + behind)
        return np.asarray(fill + np.maximum(flow, trips))

    def tail(self, rank: int) -> tuple[Matrix, float]:
        """Return the rank's own tail, and the least tail of the first rank; all ranks but the ends have the same.

        At the ends a sum over a tied embedding is part of it.
        """
        ends = self._ends(rank)
        key = (*ends, rank) if self.partial else ends
        if key not in self._tails:
            self._tails[key] = self._tail(rank, *ends)
        tail, least = self._tails[key]
        if self.split:
            tail = tail + min(self.microbatches, rank + 1) * self.weights(rank)
        return tail, least

    def _tail(self, rank: int, first: bool, last: bool) -> tuple[Matrix, float]:
        backward = self.times(rank)[1] + self.weights(rank)
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
        least = 0 if first or last else 1
        again = self.again(rank) if self.partial else None
        return np.asarray(self._fits(rank, again) & (self.columns - self.rows >= least))

    def _fits(self, rank: int, again: Matrix | None) -> NDArray[np.bool_]:
        """Return which ranges fit the memory when so many of their first layers run again."""
        states, transient, hosted = self.unchanged(rank)
        need = states + self._held(rank, again)
        if again is not None:
            after = self.rows + again.astype(np.int64)
            for name, until in self.until.items():
                size = self.transient(name, self._ends(rank)[1], twice=True)
                transient = np.maximum(transient, np.where(until[after] > until[self.rows], size, 0.0))
        return np.asarray((need + transient <= capacity_bytes(self.setting)) & hosted)

    def unchanged(self, rank: int) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
        """Return what of a rank's memory does not change with what runs again: states, transients, room of the host."""
        if rank not in self._fixed:
            setting, degrees, last = self.setting, self.degrees, self._ends(rank)[1]
            dense, routed = self._parameters(rank)
            states = dense * state_bytes(setting, degrees, 1.0, 0.0) + routed * state_bytes(setting, degrees, 0.0, 1.0)
            transient = np.full_like(states, transient_of(setting, degrees, {}, last))
            for name, presence in self.presence.items():
                transient = np.maximum(transient, np.where(presence > 0, self.transient(name, last, twice=False), 0.0))
            hosted = np.ones_like(states, dtype=np.bool_)
            if degrees.offload is not Offload.NONE:
                hosted = np.asarray(self._hosted(dense, routed) <= host_capacity_bytes(setting))
            self._fixed[rank] = states, transient, hosted
        return self._fixed[rank]

    def transient(self, name: str, last: bool, *, twice: bool) -> float:
        """Return what comes and goes where a rank has a layer of a kind, and where such a layer runs again."""
        key = name, last, twice
        if key not in self._transients:
            self._transients[key] = transient_of(self.setting, self.degrees, {name: 1}, last, (name,) if twice else ())
        return self._transients[key]

    def _held(self, rank: int, again: Matrix | None) -> Matrix:
        """Return the most activation bytes at once, for every range of layers."""
        last = self._ends(rank)[1]
        saved = self.saved + (self.extra_saved if last else 0.0)
        if again is not None:
            saved = saved - (self.drop[self.rows + again.astype(np.int64)] - self.drop[self.rows])
        sets = self.held_sets(rank)
        if not self.split:
            return np.asarray(sets[0][0] * saved)
        whole = self.whole + (self.extra_whole if last else 0.0)
        return np.asarray(np.max([kept * saved + later * whole for kept, later in sets], axis=0))

    def held_sets(self, rank: int) -> list[tuple[float, float]]:
        """Return the sets of microbatches a rank holds at once: before their backward, and until weight gradients."""
        if not self.split:
            return [(float(min(self.microbatches, self.degrees.pipeline - rank)), 0.0)]
        count = settled(self.degrees, self.microbatches)
        return [
            (few, many) for few, many in holdings(rank, self.degrees.pipeline, 1, self.degrees.schedule, count).tolist()
        ]

    def _hosted(self, dense: Matrix, routed: Matrix) -> Matrix:
        """Return the bytes in the host's memory, for every range of layers."""
        setting, degrees = self.setting, self.degrees
        total = dense * host_bytes(setting, degrees, 1.0, 0.0, {}) + routed * host_bytes(setting, degrees, 0.0, 1.0, {})
        for name, presence in self.presence.items():
            total = total + presence * host_bytes(setting, degrees, 0.0, 0.0, {name: 1})
        return np.asarray(total)


class _Ranges:
    """Some ranges of layers of a rank, one after the other: how many of their first layers run again at the fewest."""

    def __init__(self, tables: Tables, rank: int, places: tuple[NDArray[np.int64], ...]) -> None:
        self._tables, last = tables, rank == tables.degrees.pipeline - 1
        self._starts = np.broadcast_to(tables.rows, tables.saved.shape)[places]
        self._most = np.broadcast_to(tables.columns, tables.saved.shape)[places] - self._starts
        states, transient, hosted = tables.unchanged(rank)
        self._transient, self._hosted = transient[places], hosted[places]
        self._room = capacity_bytes(tables.setting) - states[places]
        self._saved = tables.saved[places] + (tables.extra_saved if last else 0.0)
        self._whole = tables.whole[places] + (tables.extra_whole if last else 0.0)
        self._brings = {name: tables.transient(name, last, twice=True) for name in tables.until}
        self._sets = tables.held_sets(rank)

    def fewest(self) -> NDArray[np.int64]:
        """Return the fewest of every range with which it fits, 0 where none do."""
        everyone = np.arange(self._most.size)
        here = everyone[self._fits(everyone, self._most)]
        brought = np.maximum(self._transient, max(self._brings.values()))[here]
        low = np.maximum(1, self._least(here, self._transient[here]) - 1)
        high = np.minimum(self._most[here], np.maximum(low, self._least(here, brought) + 1))
        while (low < high).any():
            middle = (low + high) // 2
            enough = self._fits(here, middle)
            high, low = np.where(enough, middle, high), np.where(enough, low, np.minimum(middle + 1, high))
        found = np.zeros_like(self._most)
        found[here] = high
        return found

    def _least(self, here: NDArray[np.int64], passing: Matrix) -> NDArray[np.int64]:
        """Return, but for rounding, how many must run again to free what is needed when so much comes and goes."""
        drop, starts, needed = self._tables.drop, self._starts[here], np.zeros(len(here))
        for few, many in self._sets:
            if few:
                room = self._room[here] - passing - many * self._whole[here]
                needed = np.maximum(needed, self._saved[here] - room / few)
        return np.asarray(np.minimum(np.searchsorted(drop, drop[starts] + needed) - starts, self._most[here]))

    def _fits(self, here: NDArray[np.int64], again: NDArray[np.int64]) -> NDArray[np.bool_]:
        starts = self._starts[here]
        after = starts + again
        kept = self._saved[here] - (self._tables.drop[after] - self._tables.drop[starts])
        held = np.max([few * kept + many * self._whole[here] for few, many in self._sets], axis=0)
        passing = self._transient[here]
        for name, until in self._tables.until.items():
            passing = np.maximum(passing, np.where(until[after] > until[starts], self._brings[name], 0.0))
        return np.asarray((held + passing <= self._room[here] * (1 - _ROUNDED)) & self._hosted[here])


def tail_linear(setting: Setting, degrees: Degrees) -> tuple[float, float, float, float, float]:
    """Return (fixed, per dense parameter, per routed parameter) of the unoverlapped tail, and the traffic's share.

    The tail is affine in the parameters but for collectives: their latency is left out, and a measured curve runs at
    its best rate for all sizes; still a bound.
    """
    curves = tuple(
        replace(item, sizes_bytes=(1,), busbw_gbytes_per_s=(max(item.busbw_gbytes_per_s),))
        for item in setting.links.curves
    )
    links = replace(setting.links, latency_us=0.0, curves=curves, meeting_us=0.0)
    plain = replace(setting, links=links, spec=replace(setting.spec, overlap_gradients=False))
    unit = 1e9
    fixed = tail_us(plain, degrees, 0.0, 0.0, 0.0, 1)
    dense = (tail_us(plain, degrees, unit, 0.0, 0.0, 1) - fixed) / unit
    routed = (tail_us(plain, degrees, 0.0, unit, 0.0, 1) - fixed) / unit
    moved = traffic_us(plain, degrees, unit, 0.0) / unit, traffic_us(plain, degrees, 0.0, unit) / unit
    return fixed, dense, routed, *moved
