"""Every legal choice of degrees, in one fixed order: solver and checker enumerate with the same generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from treadle.ir.training.check import check_cluster, check_experts, check_schedule, check_sequence, check_tensor
from treadle.ir.training.check_options import (
    check_context_mode,
    check_offload,
    check_order,
    check_overlap,
    check_recompute,
    check_sharding,
    check_trainer,
)
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.placement import check_placement, placements
from treadle.ir.training.plan import Degrees
from treadle.ir.training.rails import Crossings, crossings
from treadle.ir.training.ranks import Shapes, dense_sizes, expert_sizes, shapes
from treadle.ir.training.spec import ContextMode, Offload, Order, Pipeline, Recompute, Sharding, Trainer, TrainingSpec


@cache
def divisors(number: int) -> tuple[int, ...]:
    """Return the divisors of a positive number, rising."""
    small = [value for value in range(1, int(number**0.5) + 1) if number % value == 0]
    return tuple(sorted({*small, *(number // value for value in small)}))


def candidates(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> Iterator[Degrees]:
    """Yield every legal `Degrees` that uses all GPUs, within the spec's search space.

    Stages never outnumber what can fill them: virtual stages <= layers + 2 (embedding and loss may stand alone).
    """
    space = Space(model, cluster, spec)
    for family in space.families():
        for state, leaves in space.branches(family):
            for leaf in leaves:
                yield leaf.of(state.of(family))


@dataclass(frozen=True, slots=True)
class State:
    """What decides where state and activations are kept."""

    zero: int
    sharding: Sharding
    recompute: Recompute
    offload: Offload

    def of(self, family: Degrees) -> Degrees:
        """Return the family's degrees with these choices."""
        return _with(family, self, Leaf(family.context_mode, family.overlap_tensor, family.order))


@dataclass(frozen=True, slots=True)
class Leaf:
    """What decides how ranks talk to each other."""

    context_mode: ContextMode
    overlap_tensor: bool
    order: Order

    def of(self, branch: Degrees) -> Degrees:
        """Return the branch's degrees with these choices."""
        return _with(branch, State(branch.zero, branch.sharding, branch.recompute, branch.offload), self)


def _with(base: Degrees, state: State, leaf: Leaf) -> Degrees:
    return Degrees(
        base.data,
        base.tensor,
        base.context,
        base.pipeline,
        base.micro_batch,
        base.virtual,
        base.expert,
        base.expert_tensor,
        state.zero,
        state.recompute,
        base.schedule,
        leaf.order,
        state.sharding,
        leaf.context_mode,
        state.offload,
        leaf.overlap_tensor,
        base.placement,
    )


Branches = tuple[tuple[State, tuple[Leaf, ...]], ...]


class Space:
    """The legal choices in three levels.

    A family is degrees, microbatch, chunks and schedule; a branch of it adds a `State`, and a leaf of that a `Leaf`.
    Branches depend on a family's degrees and schedule alone, so they are listed once for all its microbatch sizes.
    """

    def __init__(self, model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> None:
        self.model, self.cluster, self.spec = model, cluster, spec
        self._branches: dict[tuple[object, ...], Branches] = {}
        self._known_leaves: dict[tuple[object, ...], tuple[Leaf, ...]] = {}
        self._known: dict[tuple[object, ...], tuple[State, ...]] = {}

    def families(self) -> Iterator[Degrees]:
        """Yield the families, each as degrees without ZeRO and with every option at its plainest."""
        for base in meshes(self.model, self.cluster, self.spec):
            for expert, expert_tensor in _expert_choices(self.model, self.spec, base):
                for family in _microbatch_choices(self.model, self.spec, base, expert, expert_tensor):
                    for placement in placements(self.cluster, family):
                        placed = replace(family, placement=placement) if placement else family
                        if self.branches(placed):
                            yield placed

    def branches(self, family: Degrees) -> Branches:
        """Return a family's branches in a fixed order, each with its leaves; none without leaves."""
        mesh = (family.data, family.tensor, family.context, family.pipeline, family.expert, family.expert_tensor)
        key = (*mesh, family.schedule, bool(family.placement))
        if key not in self._branches:
            leaves = self._shared_leaves(family, (*mesh, bool(family.placement)))
            with_groups = {order for order in {leaf.order for leaf in leaves} if self._has_groups(family, order)}
            grouped = tuple(leaf for leaf in leaves if leaf.order in with_groups)
            pairs = (
                (state, leaves if state.sharding is Sharding.GLOBAL else grouped) for state in self._remembered(family)
            )
            self._branches[key] = tuple(pair for pair in pairs if pair[1])
        return self._branches[key]

    def size(self, family: Degrees) -> int:
        """Return how many choices a family holds."""
        return sum(len(leaves) for _, leaves in self.branches(family))

    def _shared_leaves(self, family: Degrees, mesh: tuple[object, ...]) -> tuple[Leaf, ...]:
        """Return a family's leaves: the same for all schedules, unless a trainer has a say in it."""
        key = mesh if self.spec.search.trainer is Trainer.ANY else (*mesh, family.schedule)
        if key not in self._known_leaves:
            self._known_leaves[key] = tuple(self._leaves(family))
        return self._known_leaves[key]

    def _has_groups(self, family: Degrees, order: Order) -> bool:
        """Whether data ranks in several domains have several in each; hierarchical groups ask for no more."""
        return not check_sharding(self.cluster, replace(family, zero=1, sharding=Sharding.NODE, order=order))

    def _remembered(self, family: Degrees) -> tuple[State, ...]:
        """Return the states of a family: they hang on whether there are data ranks and stages, and the trainer."""
        key: tuple[object, ...] = (family.data * family.context == 1, family.pipeline == 1)
        if self.spec.search.trainer is not Trainer.ANY:
            key = (*key, family.schedule, family.pipeline * family.context * family.expert == 1)
        if key not in self._known:
            self._known[key] = tuple(self._states(family))
        return self._known[key]

    def _states(self, family: Degrees) -> Iterator[State]:
        """Yield the states that are legal under some rank order."""
        space = self.spec.search
        for zero, sharding in product(space.zero, space.sharding):
            alone = zero and family.data * family.context == 1
            if alone or (zero == 3 and family.pipeline > 1):
                continue
            if sharding is not Sharding.GLOBAL and (not zero or (zero < 3 and sharding is Sharding.HIERARCHICAL)):
                continue
            for recompute, offload in product(self._recompute(), space.offload):
                state = State(zero, sharding, recompute, offload)
                trial = state.of(family)
                refused = check_recompute(self.spec, trial) or check_offload(self.cluster, trial)
                if not refused and not check_trainer(self.spec, trial):
                    yield state

    def _leaves(self, family: Degrees) -> Iterator[Leaf]:
        """Yield context modes and overlap under the orders whose groups differ in shape, the first of each shape."""
        space = self.spec.search
        for order in self._orders(family):
            for mode, overlap in product(space.context_mode, space.overlap_tensor):
                leaf = Leaf(mode, overlap, order)
                trial = leaf.of(family)
                refused = check_context_mode(self.model, self.cluster, trial) or check_overlap(self.spec, trial)
                if not refused and not check_trainer(self.spec, trial):
                    yield leaf

    def _orders(self, family: Degrees) -> Iterator[Order]:
        """Yield the legal orders whose groups differ in shape: others cost the same as the first of their shape."""
        named: set[tuple[str, ...]] = set()
        seen: set[tuple[Shapes, Crossings | None]] = set()
        dense, routed = dense_sizes(family), expert_sizes(family)
        for order in self.spec.search.order:
            used = tuple(name for name in order.dimensions if dense[name] > 1 or routed[name] > 1)
            if used in named:
                continue
            named.add(used)
            ordered = replace(family, order=order)
            refused = check_order(self.model, self.cluster, self.spec, ordered)
            if refused or check_placement(self.cluster, ordered):
                continue
            here = shapes(ordered, self.cluster.domain), crossings(ordered, self.cluster)
            if here not in seen:
                seen.add(here)
                yield order

    def _recompute(self) -> Iterator[Recompute]:
        """Yield the allowed modes that run different modules again, the first of each set."""
        seen: set[frozenset[str]] = set()
        for mode in self.spec.search.recompute:
            modules = mode.modules(self.spec.fused_attention)
            if modules not in seen:
                seen.add(modules)
                yield mode


def _allowed(values: tuple[int, ...], allowed: tuple[int, ...]) -> Iterator[int]:
    return (value for value in values if not allowed or value in allowed)


def meshes(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> Iterator[Degrees]:
    """Yield the legal data, tensor, context and pipeline degrees that use all GPUs, without ZeRO, experts or chunks."""
    space = spec.search
    for tensor in _allowed(divisors(cluster.gpus), space.tensor):
        if any(check_tensor(kind, tensor) for kind in model.kinds):
            continue
        for pipeline in _allowed(divisors(cluster.gpus // tensor), space.pipeline):
            if pipeline > model.layers + 2:
                continue
            for context in _allowed(divisors(cluster.gpus // (tensor * pipeline)), space.context):
                data = cluster.gpus // (tensor * pipeline * context)
                if (space.data and data not in space.data) or spec.global_batch % data:
                    continue
                base = Degrees(data, tensor, context, pipeline, 1, zero=0)
                if not check_cluster(cluster, spec, base) and not check_sequence(spec, base):
                    yield base


def _expert_choices(model: TrainingModel, spec: TrainingSpec, base: Degrees) -> Iterator[tuple[int, int]]:
    counts = [kind.experts.count for kind in model.kinds if kind.experts]
    if not counts:
        yield 1, 1
        return
    for expert in _allowed(divisors(counts[0]), spec.search.expert):
        for expert_tensor in _allowed(divisors(base.tensor), spec.search.expert_tensor):
            trial = Degrees(
                base.data, base.tensor, base.context, base.pipeline, 1, expert=expert, expert_tensor=expert_tensor
            )
            if not check_experts(model, trial):
                yield expert, expert_tensor


def _microbatch_choices(
    model: TrainingModel, spec: TrainingSpec, base: Degrees, expert: int, expert_tensor: int
) -> Iterator[Degrees]:
    space = spec.search
    for micro_batch in _allowed(divisors(spec.global_batch // base.data), space.micro_batch):
        if micro_batch > space.most_micro_batch:
            continue
        for schedule, virtual in _schedules(spec, base.pipeline):
            if base.pipeline * virtual > model.layers + 2:
                continue
            sizes = base.data, base.tensor, base.context, base.pipeline, micro_batch, virtual, expert, expert_tensor
            found = Degrees(*sizes, zero=0, schedule=schedule)
            if not check_schedule(spec, found):
                yield found


def _schedules(spec: TrainingSpec, pipeline: int) -> Iterator[tuple[Pipeline, int]]:
    """Yield the allowed schedules with their chunks per rank."""
    space = spec.search
    for schedule in space.schedule:
        if schedule is Pipeline.INTERLEAVED:
            chunks = range(2, space.most_virtual + 1)
        else:
            chunks = range(2, 3) if schedule is Pipeline.ZERO_BUBBLE_V else range(1, 2)
        if schedule is Pipeline.ONE_F_ONE_B or pipeline > 1:
            yield from ((schedule, virtual) for virtual in _allowed(tuple(chunks), space.virtual))
