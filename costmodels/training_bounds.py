"""Bounds on the step time that hold for every stage layout of given degrees; derivations in docs/design/parallel.md.

`Quick` needs a few sums. `best_contiguous` is exact for the system of inequalities over all 1F1B layouts: a dynamic
program over ranks and layers, with memory as a constraint; its layout is the one the replay times. Both are for solver
and checker.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.collectives import Group
from treadle.costmodels.training_ends import embedding_pass, loss_pass, predictor_pass
from treadle.costmodels.training_factors import even_factor, mixed_factor, split_factor
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_memory import (
    stage_parameters,
)
from treadle.costmodels.training_replay import again_pass
from treadle.costmodels.training_room import Room, layer_counts
from treadle.costmodels.training_setting import Pass, Setting
from treadle.costmodels.training_tables import Tables, tail_linear
from treadle.costmodels.training_traffic import hop_us, tensor_group
from treadle.ir.training.placement import stage_groups
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.rails import Crossings, crossings
from treadle.ir.training.ranks import shapes
from treadle.ir.training.space import Leaf
from treadle.ir.training.spec import ContextMode, Pipeline, Recompute, Trainer

Trait = tuple[int | ContextMode | Crossings | None, ...]
"""Shapes of groups, exchange and overlap: what of a leaf decides the times of one microbatch."""
Speaking = tuple[frozenset[Trait], tuple[Leaf, ...]]
"""The traits of some leaves, and a leaf of each."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound in microseconds, and a layout when one was solved; infinite when no layout fits the memory."""

    step_us: float
    layout: StageLayout | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Times of everything for one microbatch."""

    work_us: float
    least_us: float
    """Of the cheapest layer."""
    hop_us: float
    early_share: float
    """Least share of forward and input gradients in the time of anything."""
    forward_share: float
    """Greatest share of the forward in the time of anything."""
    least_forward_us: float
    """Forward of the quickest layer."""
    backward_us: float
    """All backwards, which may hide gradient traffic."""
    parts_us: tuple[float, ...] = ()
    """The layers of each kind, embedding, loss, predictors; their sum is the work."""
    again_us: float = 0.0
    """Least that running one layer again adds, where every stage has its own number of them."""


class Quick:
    """Quick bounds of one problem, remembered per choice of the degrees they depend on."""

    def __init__(self, setting: Setting, timer: LayerTimer) -> None:
        self.setting, self.timer = setting, timer
        self._room, self._layers = Room(setting), setting.model.layers
        self._work: dict[tuple[object, ...], Load] = {}
        self._tails: dict[tuple[object, ...], tuple[float, float]] = {}
        self._groups: dict[int, Quick] = {}
        self._domain = setting.cluster.domain
        self._known_ends: dict[tuple[int, int, Group], tuple[Pass, ...]] = {}
        self._speakers: dict[tuple[object, ...], Speaking] = {}
        self.fitting: dict[tuple[object, ...], list[StageLayout]] = {}
        """Layouts of several chunks that fit, by what the need for memory hangs on."""
        self.traffic: dict[tuple[object, ...], float] = {}
        """Of a rank's gradients and parameters after its last backward, by what it hangs on."""

    def limited(self, setting: Setting) -> Quick:
        """Return the same for another memory limit; what is known about times is shared."""
        found = copy(self)
        found.setting, found._room, found.fitting = setting, self._room.limited(setting), {}
        return found

    def bound_us(self, degrees: Degrees) -> float:
        """Return a bound for all layouts from the total work; only the fixed part of the tail is charged after it."""
        if degrees.placement:
            return self._mixed_us(degrees)
        load = self.load(degrees)
        return self._bound_us(degrees, load, self._after_us(degrees, load))

    def _mixed_us(self, degrees: Degrees) -> float:
        """Return a bound for stages of several types: each layer counts what it costs least, weighed by type.

        With weights of one over what a type takes for everything, slow ranks pay as much as fast ones.
        """
        groups = stage_groups(self.setting.cluster, degrees)
        loads = {group: self._of_group(group).load(degrees) for group in degrees.placement}
        targets = {group: 1 / load.work_us for group, load in loads.items()}
        kinds = zip(*(loads[group].parts_us for group in degrees.placement), strict=True)
        weights = [targets[group] for group in degrees.placement]
        work = sum(min(weight * time for weight, time in zip(weights, kind, strict=True)) for kind in kinds)
        split = degrees.schedule is Pipeline.ZERO_BUBBLE
        early = min(load.early_share for load in loads.values()) if split else 1.0
        forward = max(load.forward_share for load in loads.values())
        factor = mixed_factor(tuple(targets[group] for group in groups), self._microbatches(degrees), early, forward)
        return float(factor * work) + min(gpu.constants.step_us for gpu, _ in self.setting.parts)

    def _of_group(self, group: int) -> Quick:
        if group not in self._groups:
            timer = self.timer.of_group(group)
            self._groups[group] = Quick(timer.setting, timer)
        return self._groups[group]

    def branch_us(self, branch: Degrees, leaves: tuple[Leaf, ...]) -> float:
        """Return a bound for all leaves of a branch; with the plainest state, one for all states of a family."""
        if branch.placement:
            return min(self._mixed_us(leaf.of(branch)) for leaf in leaves)
        return self._bound_us(branch, self._least_load(branch, leaves))

    def _least_load(self, branch: Degrees, leaves: tuple[Leaf, ...]) -> Load:
        """Return the least of every time over the leaves of a branch."""
        traits, speakers = self._speaking(branch, leaves)
        key = ("branch", self._alike(branch), traits)
        if key not in self._work:
            loads = [self.load(leaf.of(branch)) for leaf in speakers]
            self._work[key] = Load(
                min(item.work_us for item in loads),
                min(item.least_us for item in loads),
                min(item.hop_us for item in loads),
                min(item.early_share for item in loads),
                max(item.forward_share for item in loads),
                min(item.least_forward_us for item in loads),
                max(item.backward_us for item in loads),
                again_us=min(item.again_us for item in loads),
            )
        return self._work[key]

    def _speaking(self, branch: Degrees, leaves: tuple[Leaf, ...]) -> Speaking:
        """Return what of the leaves decides the times, and one leaf of each kind that speaks for the others.

        Overlap only hides time, so leaves without it are left out where there are any with it.
        """
        mesh = (branch.data, branch.tensor, branch.context, branch.pipeline, branch.expert, branch.expert_tensor)
        said = None if self.setting.spec.search.trainer is Trainer.ANY else branch.schedule
        key = (*mesh, branch.zero == 3, branch.sharding, len(leaves), said)
        if key not in self._speakers:
            quick = [leaf for leaf in leaves if leaf.overlap_tensor] or leaves
            speakers = {self._trait(leaf.of(branch)): leaf for leaf in reversed(quick)}
            self._speakers[key] = frozenset(speakers), tuple(speakers.values())
        return self._speakers[key]

    def _bound_us(self, degrees: Degrees, load: Load, after_us: float = 0.0) -> float:
        """Return the largest of three bounds: the pipeline's fill and work; the mean over ranks of work, waiting and
        tail (`after_us`); and the fullest rank's even share of layers, rounded up, for every microbatch."""
        microbatches, ranks = degrees.microbatches(self.setting.spec.global_batch), degrees.pipeline
        fixed, waits = self.setting.gpu.constants.step_us, 0.0
        if degrees.schedule is Pipeline.INTERLEAVED:
            waits = sum(interleaved_waits(self.setting, degrees, load.least_us, load.hop_us))
        elif degrees.schedule is Pipeline.ZERO_BUBBLE_V:
            share = max(0, self.setting.model.layers // degrees.slots - 1)
            waits = (load.hop_us + share * load.least_forward_us) * ranks * (ranks - 1) / 2
        work = load.work_us
        if degrees.recompute is Recompute.STAGES:
            work += load.again_us * self._room.least_again(degrees)
        mean = (microbatches * work + waits) / ranks + fixed + after_us
        factor = 0.0
        if degrees.schedule is Pipeline.ONE_F_ONE_B:
            factor = even_factor(ranks, microbatches)
        elif degrees.schedule is Pipeline.ZERO_BUBBLE:
            factor = split_factor(ranks, microbatches, load.early_share, load.forward_share)
        fullest = microbatches * -(-self._layers // ranks) * load.least_us
        return max(mean, factor * work + fixed, fullest + fixed)

    def _after_us(self, degrees: Degrees, load: Load) -> float:
        """Return the mean over ranks of what tails take at least beyond their fixed part."""
        mesh = (degrees.data, degrees.tensor, degrees.context, degrees.pipeline, degrees.expert, degrees.expert_tensor)
        key = (*mesh, degrees.zero, degrees.sharding, degrees.offload.optimizer, degrees.order)
        if key not in self._tails:
            model = self.setting.model
            dense, routed = stage_parameters(model, degrees, layer_counts(self.setting), True, True)
            linear = tail_linear(self.setting, degrees)
            moved = linear[3] * dense + linear[4] * routed
            self._tails[key] = linear[1] * dense + linear[2] * routed - moved, moved
        update, moved = self._tails[key]
        shown = moved
        if self.setting.spec.overlap_gradients:
            shown = max(moved / (self._layers + 1), moved - load.backward_us)
        return (update + shown) / degrees.pipeline

    def load(self, degrees: Degrees) -> Load:
        """Return the times of everything for one microbatch."""
        key = (self._alike(degrees), self._trait(degrees))
        if key not in self._work:
            setting, model = self.setting, self.setting.model
            ends = self._ends(degrees)
            times = {name: self.timer.layer(name, degrees) for name, _ in model.order}
            kinds = [times[name].total_us * count for name, count in layer_counts(setting).items()]
            parts = (*kinds, *(item.total_us for item in ends))
            total = sum(parts)
            share = min(1 - item.weight_us / item.total_us for item in (*ends, *times.values()))
            most = max(item.forward_us / item.total_us for item in (*ends, *times.values()))
            least = min(item.total_us for item in times.values())
            first = min(item.forward_us for item in times.values())
            backward = sum(times[name].backward_us * count for name, count in model.order)
            backward += sum(item.backward_us for item in ends)
            again = 0.0
            if degrees.recompute is Recompute.STAGES:
                more = {name: again_pass(self.timer, name, degrees).backward_us for name in times}
                again, backward = min(more.values()), backward + sum(more[name] * count for name, count in model.order)
            self._work[key] = Load(total, least, hop_us(setting, degrees), share, most, first, backward, parts, again)
        return self._work[key]

    def _ends(self, degrees: Degrees) -> tuple[Pass, ...]:
        """Return the times of embedding, loss and, where there are any, predictors."""
        model = self.setting.model
        if model.predictors:
            predictors = predictor_pass(self.setting, degrees, self.timer) * model.predictors
            return *self._plain_ends(degrees), predictors
        return self._plain_ends(degrees)

    def _plain_ends(self, degrees: Degrees) -> tuple[Pass, ...]:
        group = tensor_group(degrees, self.setting.cluster)
        key = degrees.context, degrees.micro_batch, group
        if key not in self._known_ends:
            self._known_ends[key] = embedding_pass(self.setting, degrees), loss_pass(self.setting, degrees)
        return self._known_ends[key]

    @staticmethod
    def _alike(degrees: Degrees) -> tuple[object, ...]:
        """Return what decides the times of one microbatch beside the leaf; the number of ranks is not in it."""
        sizes = degrees.tensor, degrees.context, degrees.micro_batch, degrees.expert, degrees.expert_tensor
        gathered = (degrees.data, degrees.sharding) if degrees.zero == 3 else ()
        return (*sizes, degrees.pipeline > 1, degrees.recompute, degrees.offload.activations, *gathered)

    def _trait(self, degrees: Degrees) -> Trait:
        """Return the trait of a leaf's degrees."""
        here = shapes(degrees, self._domain)
        gathered = (here.replicas, here.copies) if degrees.zero == 3 else ()
        groups = here.tensor, here.context, here.expert, here.hop_crosses
        far = crossings(degrees, self.setting.cluster)
        return (*groups, degrees.context_mode, degrees.overlap_tensor, far, *gathered)

    def may_fit(self, degrees: Degrees) -> bool:
        """Whether some layout may fit the memory."""
        return self._room.may_fit(degrees)

    def surely_fits(self, degrees: Degrees) -> bool:
        """Whether all declared layouts of several chunks fit the memory, whatever they are, with nothing run again."""
        return self._room.surely_fits(degrees)

    def _microbatches(self, degrees: Degrees) -> int:
        return degrees.microbatches(self.setting.spec.global_batch)


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


def best_contiguous(setting: Setting, degrees: Degrees, timer: LayerTimer, cutoff_us: float = math.inf) -> Bound:
    """Return the least value of the largest inequality over all 1F1B layouts that fit the memory, and such a layout.

    Layouts that take as long as the cutoff may be left out.
    Matrices are over (first layer, layer after the last). O(p L^2) elementary operations.
    """
    return best_of(Tables(setting, degrees, timer, cutoff_us))


def best_of(tables: Tables) -> Bound:
    """Return the least value of the largest inequality of these tables, and its layout."""
    ranks, layers = tables.degrees.pipeline, tables.setting.model.layers
    after = np.full(layers + 1, np.inf)
    after[layers] = 0.0
    choices: list[NDArray[np.int64]] = []
    for rank in reversed(range(ranks)):
        view, rows, columns = tables.window(rank)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return Bound(math.inf)
        value = np.maximum(view.inequality(rank), after[None, columns])
        value[~view.allowed(rank)] = np.inf
        choice = np.zeros(layers + 1, dtype=np.int64)
        choice[rows] = value.argmin(axis=1) + columns.start
        choices.append(choice)
        after = np.full(layers + 1, np.inf)
        after[rows] = value.min(axis=1)
        if not np.isfinite(after).any():
            return Bound(math.inf)
    if not math.isfinite(after[0]):
        return Bound(math.inf)
    counts: list[int] = []
    at = 0
    for choice in reversed(choices):
        counts.append(int(choice[at]) - at)
        at = int(choice[at])
    return Bound(float(after[0]), layout_of(tables, tuple(counts)))


def layout_of(tables: Tables, counts: tuple[int, ...]) -> StageLayout:
    """Return the layout of so many layers per rank, with how many of them run again where every rank has its number."""
    if tables.degrees.recompute is not Recompute.STAGES:
        return StageLayout(counts)
    again: list[int] = []
    for rank, (start, end) in enumerate(StageLayout(counts).cuts()):
        view, rows, columns = tables.window(rank)
        again.append(int(view.again(rank)[start - rows.start, end - columns.start]))
    return StageLayout(counts, tuple(again))


def says_less(setting: Setting, degrees: Degrees, layout: StageLayout) -> bool:
    """Whether a layout runs nothing again where stages may: the plan without recomputation, where that is a choice."""
    if degrees.recompute is not Recompute.STAGES or any(layout.recomputed):
        return False
    return Recompute.NONE in setting.spec.search.recompute
