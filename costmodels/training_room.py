"""Whether some stage layout of given degrees may fit the memory: sums over ranks and kinds of layers, no search.

For the layers of one kind alone, and for all layers at the least any kind needs, the ranks together must have room.
Whatever this refuses does not fit; what it lets pass may still not.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache

from treadle.costmodels.training_memory import (
    layer_saved_bytes,
    stage_capacities,
    stage_parameters,
    state_bytes,
    transient_bytes,
)
from treadle.costmodels.training_setting import Setting
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import ContextMode, Pipeline, Recompute, Sharding


@dataclass(frozen=True, slots=True)
class Need:
    """What each of `count` layers takes at least, in bytes, and what comes and goes where there is one."""

    count: int
    state: float
    kept: float
    whole: float
    """Between backward and weight gradients."""
    transient: float


@dataclass(frozen=True, slots=True)
class Ends:
    """What the first and the last rank hold besides layers."""

    first_state: float
    last_state: float
    last_transient: float


def layer_counts(setting: Setting) -> dict[str, int]:
    """Return how many layers of each kind the model has."""
    kinds = dict.fromkeys((name for name, _ in setting.model.order), 0)
    for name, count in setting.model.order:
        kinds[name] += count
    return kinds


class Room:
    """The memory of one problem, remembered per choice of the degrees it depends on."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self._counts = setting, layer_counts(setting)
        self._known_states: dict[tuple[object, ...], tuple[tuple[float, ...], float, float]] = {}
        self._known_saved: dict[tuple[object, ...], tuple[tuple[tuple[float, float, float], ...], float]] = {}
        self._capacity = stage_capacities(setting, Degrees(1, 1, 1, 1, 1))[0]

    def limited(self, setting: Setting) -> Room:
        """Return the same with another memory limit; what is known about sizes is shared."""
        found = copy(self)
        found.setting, found._capacity = setting, stage_capacities(setting, Degrees(1, 1, 1, 1, 1))[0]
        return found

    def may_fit(self, degrees: Degrees) -> bool:
        """Whether the ranks have room for the layers."""
        needs, ends = self._needs(degrees)
        ranks, capacities = degrees.pipeline, [self._capacity] * degrees.pipeline
        if degrees.placement:
            capacities = stage_capacities(self.setting, degrees)
        everything = sum(need.count * (need.state + need.kept) for need in needs[1:])
        if ends.first_state + ends.last_state + everything > sum(capacities):
            return False
        last = degrees.last_rank
        rooms = list(capacities)
        rooms[0] -= ends.first_state
        rooms[last] -= ends.last_state
        if rooms[0] < 0 or rooms[last] < ends.last_transient:
            return False
        microbatches = degrees.microbatches(self.setting.spec.global_batch)
        if degrees.virtual > 1:
            return _chunks_fit(degrees, microbatches, self.setting.model.layers, needs, rooms[0])
        held = _held(ranks, degrees.schedule, min(microbatches, ranks))
        return all(_layers_fit(need, held, rooms, last, ends.last_transient) for need in needs)

    def least_again(self, degrees: Degrees) -> float:
        """Return how many layers run again at least, over all ranks, where every stage has its own number of them.

        Each rank takes layers until it is full; every further layer needs room that layers which run again must free:
        its own bytes over what one of them frees. Chunks are not looked at.
        """
        if degrees.placement:
            return 0.0
        needs, ends = self._needs(replace(degrees, recompute=Recompute.NONE))
        freed = max(need.kept for need in needs) - min(need.kept for need in self._needs(degrees)[0])
        least, layers, last = needs[0], self.setting.model.layers, degrees.last_rank
        share, most = layers // degrees.slots, (layers + 2) // degrees.slots + 1
        free, slope = 0.0, math.inf
        for rank, (before, after, other, largest) in enumerate(self._counted(degrees)):
            room = self._capacity - (ends.first_state if rank == 0 else 0.0)
            room -= ends.last_state + ends.last_transient if rank == last else least.transient
            one = least.state + before * least.kept + after * least.whole
            taken = max(0.0, room - other * share * least.kept) / one
            free += min(taken, float(degrees.virtual * most)) if degrees.virtual > 1 else taken
            slope = min(slope, one / (largest * freed) if largest * freed > 0 else math.inf)
        missing = max(0.0, layers - free)
        return min(missing * slope, float(layers)) if missing else 0.0

    def surely_fits(self, degrees: Degrees) -> bool:
        """Whether every declared layout of several chunks fits with nothing run again: each rank at its fullest."""
        needs, ends = self._needs(replace(degrees, recompute=Recompute.NONE))
        most = degrees.virtual * ((self.setting.model.layers + 2) // degrees.slots + 1)
        held = max(degrees.microbatches(self.setting.spec.global_batch), 1)
        if degrees.schedule is Pipeline.INTERLEAVED:
            held = min(held, max(largest for *_, largest in self._counted(degrees)) + 2 * degrees.pipeline)
        else:
            held = min(held, 2 * degrees.pipeline)
        one = max(need.state + held * max(need.kept, need.whole) for need in needs)
        passing = max(ends.last_transient, *(need.transient for need in needs))
        spare = 0.0 if not self.setting.model.predictors else held * max(max(need.kept, need.whole) for need in needs)
        spare *= self.setting.model.predictors
        return ends.first_state + ends.last_state + most * one + passing + spare <= self._capacity

    def _counted(self, degrees: Degrees) -> tuple[tuple[int, int, int, int], ...]:
        """Return per rank how many microbatches each layer holds at least, before and after its backward; how many
        chunks' microbatches are held beyond that; and how many microbatches a layer holds at most."""
        ranks, chunks = degrees.pipeline, degrees.virtual
        microbatches = degrees.microbatches(self.setting.spec.global_batch)
        if chunks == 1:
            held = _held(ranks, degrees.schedule, min(microbatches, ranks))
            return tuple((before, after, 0, before) for before, after in held)
        return _chunks_held(ranks, chunks, degrees.schedule, min(microbatches, 4 * ranks))

    def _needs(self, degrees: Degrees) -> tuple[tuple[Need, ...], Ends]:
        """Return the needs of all layers together (the least of any kind) and of each kind, and the ends."""
        states, first, last = self._states(degrees)
        saved, logits = self._saved(degrees)
        kinds = [
            Need(count, state, kept, whole, passing)
            for count, state, (kept, whole, passing) in zip(self._counts.values(), states, saved, strict=True)
        ]
        if len(kinds) > 1:
            least = [min(item) for item in zip(*map(_sizes, kinds), strict=True)]
            return (Need(self.setting.model.layers, *least), *kinds), Ends(first, last, logits)
        return (kinds[0], kinds[0]), Ends(first, last, logits)

    def _states(self, degrees: Degrees) -> tuple[tuple[float, ...], float, float]:
        """Return the state of a layer of each kind, and of what the first and the last rank hold besides."""
        ranks = degrees.data * degrees.context
        sizes = ranks, degrees.tensor, degrees.expert, degrees.expert_tensor, degrees.last_rank == 0
        key: tuple[object, ...] = (*sizes, degrees.zero, degrees.offload, degrees.sharding)
        if degrees.sharding is not Sharding.GLOBAL:
            key = (*key, degrees.order, degrees.context, degrees.pipeline)
        if key not in self._known_states:
            setting, model, alone = self.setting, self.setting.model, degrees.last_rank == 0
            sums = [stage_parameters(model, degrees, {name: 1}, False, False) for name in self._counts]
            first = stage_parameters(model, degrees, {}, True, alone)
            last = (0.0, 0.0) if alone else stage_parameters(model, degrees, {}, False, True)
            found = tuple(state_bytes(setting, degrees, *size) for size in (*sums, first, last))
            self._known_states[key] = found[:-2], found[-2], found[-1]
        return self._known_states[key]

    def _saved(self, degrees: Degrees) -> tuple[tuple[tuple[float, float, float], ...], float]:
        """Return what a layer of each kind keeps and brings (kept, whole, transient), and the last rank's transient."""
        sizes = degrees.tensor, degrees.context, degrees.micro_batch, degrees.expert, degrees.expert_tensor
        key = (*sizes, degrees.recompute, degrees.offload, degrees.context_mode, degrees.zero == 3)
        if key not in self._known_saved:
            setting, model, spec = self.setting, self.setting.model, self.setting.spec
            found: list[tuple[float, float, float]] = []
            for name in self._counts:
                kind = model.kind(name)
                least = Recompute.FULL if degrees.recompute is Recompute.STAGES else None
                kept = layer_saved_bytes(kind, spec, degrees, model.hidden, least)
                whole = layer_saved_bytes(kind, spec, degrees, model.hidden, Recompute.NONE)
                found.append((kept, whole, transient_bytes(setting, degrees, {name: 1}, False)))
            self._known_saved[key] = tuple(found), transient_bytes(setting, degrees, {}, True)
        return self._known_saved[key]


def memory_key(degrees: Degrees) -> tuple[object, ...]:
    """Return what the need for memory hangs on, but for the microbatch: what ranks exchange and when does not count.

    Only a ring in both directions has buffers of its own, and groups inside a domain need the order.
    """
    mesh = degrees.data, degrees.tensor, degrees.context, degrees.pipeline, degrees.expert, degrees.expert_tensor
    kept = degrees.zero, degrees.sharding, degrees.recompute, degrees.offload, degrees.schedule, degrees.virtual
    order = None if degrees.sharding is Sharding.GLOBAL else degrees.order
    return (*mesh, *kept, order, degrees.context_mode is ContextMode.BIDIRECTIONAL, degrees.placement)


def _sizes(need: Need) -> tuple[float, float, float, float]:
    return need.state, need.kept, need.whole, need.transient


def _layers_fit(
    need: Need, held: tuple[tuple[int, int], ...], rooms: list[float], last: int, last_transient: float
) -> bool:
    """Whether ranks that hold so many microbatches before and after their backward have room for these layers."""
    total = 0
    for rank in reversed(range(len(rooms))):
        before, after = held[rank]
        passing = max(need.transient, last_transient) if rank == last else need.transient
        room = (rooms[rank] - passing) / (need.state + before * need.kept + after * need.whole)
        total += max(0, int(min(room, need.count)))
        if total >= need.count:
            return True
    return False


@lru_cache(maxsize=4096)
def _held(ranks: int, schedule: Pipeline, microbatches: int) -> tuple[tuple[int, int], ...]:
    """Return how many microbatches each rank holds at least, before and after their backward."""
    if schedule is Pipeline.ONE_F_ONE_B:
        return tuple((min(microbatches, ranks - rank), 0) for rank in range(ranks))
    return tuple((max(0, microbatches - rank - 1), min(microbatches, rank + 1)) for rank in range(ranks))


@lru_cache(maxsize=4096)
def _chunks_held(
    ranks: int, chunks: int, schedule: Pipeline, microbatches: int
) -> tuple[tuple[int, int, int, int], ...]:
    """Return what `Room._counted` does for several chunks, when a rank has run its first forwards and no backward.

    A layer more than the even share may stand in any chunk; the first and the last chunk may have fewer than the share:
    where they have what is held beyond is left out.
    """
    found: list[tuple[int, int, int, int]] = []
    for rank in range(ranks):
        if schedule is Pipeline.ZERO_BUBBLE_V:
            counts = [2 * ranks - rank - 1, rank + 1]
        else:
            early = min(microbatches * chunks, 2 * (ranks - rank - 1) + (chunks - 1) * ranks + 1)
            cycles, rest = divmod(early, ranks * chunks)
            counts = [cycles * ranks + min(max(rest - chunk * ranks, 0), ranks) for chunk in range(chunks)]
        fewest = min(counts)
        ends = rank in (0, ranks - 1)
        found.append((fewest, 0, 0 if ends else sum(counts) - chunks * fewest, max(counts)))
    return tuple(found)


def _chunks_fit(degrees: Degrees, microbatches: int, layers: int, needs: tuple[Need, ...], room: float) -> bool:
    """Whether the first rank may hold its chunks: the declared layouts give it the even share, less one layer in its
    first chunk (and two in the last chunk, where that is its own).

    Of one kind it has at least what other kinds leave over; each of their layers holds at most `most` microbatches.
    """
    share, ranks = layers // degrees.slots, degrees.pipeline
    if degrees.schedule is Pipeline.ZERO_BUBBLE_V:
        most = 2 * ranks - 1
        held, count = most * max(0, share - 1), 2 * share - 3
    else:
        total = min(microbatches * degrees.virtual, 2 * (ranks - 1) + (degrees.virtual - 1) * ranks + 1)
        most = -(-total // (ranks * degrees.virtual)) * ranks
        held, count = max(0, total * share - most), degrees.virtual * share - 1
    for need in needs:
        others = layers - need.count
        state, kept = max(0, count - others) * need.state, max(0, held - others * most) * need.kept
        passing = need.transient if count > others else 0.0
        if state + kept + passing > room:
            return False
    return True
