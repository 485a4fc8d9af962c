"""Whether some stage layout of given degrees may fit the memory: sums over ranks and kinds of layers, no search.

For the layers of one kind alone, and for all layers at the least any kind needs, the ranks together must have room.
Whatever this refuses does not fit; what it lets pass may still not.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import lru_cache

from treadle.costmodels.training_memory import (
    layer_saved_bytes,
    stage_capacities,
    stage_parameters,
    state_bytes,
    transient_bytes,
)
from treadle.costmodels.training_step import Setting
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Pipeline, Recompute, Sharding


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
        self._known: dict[tuple[object, ...], tuple[tuple[Need, ...], Ends]] = {}
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

    def _needs(self, degrees: Degrees) -> tuple[tuple[Need, ...], Ends]:
        """Return the needs of all layers together (the least of any kind) and of each kind, and the ends."""
        mesh = (degrees.data, degrees.tensor, degrees.context, degrees.pipeline, degrees.expert, degrees.expert_tensor)
        order = degrees.order if degrees.sharding is not Sharding.GLOBAL else None
        key: tuple[object, ...] = (*mesh, degrees.micro_batch, degrees.zero, degrees.sharding, degrees.recompute, order)
        key = (*key, degrees.offload, degrees.context_mode)
        if key not in self._known:
            kinds = [self._of_kind(degrees, name, count) for name, count in self._counts.items()]
            least = Need(
                self.setting.model.layers,
                min(kind.state for kind in kinds),
                min(kind.kept for kind in kinds),
                min(kind.whole for kind in kinds),
                min(kind.transient for kind in kinds),
            )
            self._known[key] = (least, *kinds), self._ends(degrees)
        return self._known[key]

    def _of_kind(self, degrees: Degrees, name: str, count: int) -> Need:
        setting, model = self.setting, self.setting.model
        state = state_bytes(setting, degrees, *stage_parameters(model, degrees, {name: 1}, False, False))
        kind, spec = model.kind(name), setting.spec
        kept = layer_saved_bytes(kind, spec, degrees, model.hidden)
        whole = layer_saved_bytes(kind, spec, degrees, model.hidden, Recompute.NONE)
        return Need(count, state, kept, whole, transient_bytes(setting, degrees, {name: 1}, False))

    def _ends(self, degrees: Degrees) -> Ends:
        setting, model, alone = self.setting, self.setting.model, degrees.last_rank == 0
        first = stage_parameters(model, degrees, {}, True, alone)
        last = (0.0, 0.0) if alone else stage_parameters(model, degrees, {}, False, True)
        at_first, at_last = state_bytes(setting, degrees, *first), state_bytes(setting, degrees, *last)
        return Ends(at_first, at_last, transient_bytes(setting, degrees, {}, True))


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
