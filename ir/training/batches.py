"""Global batches that a search space can split: why one cannot, and the nearest that can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.plan import Degrees
from treadle.ir.training.space import Space, meshes
from treadle.ir.training.spec import Pipeline, TrainingSpec


@dataclass(frozen=True, slots=True)
class NearestBatches:
    """What the allowed degrees ask of a batch.

    `data_ranks` are the data degrees that GPUs, allowed values and trainer leave, rising; `below` and `above` the
    nearest legal batches, 0 where there is none.
    """

    data_ranks: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True, slots=True)
class _Choice:
    """A mesh, schedule and microbatch: its batches are the multiples of `unit` from `least` on."""

    mesh: Degrees
    schedule: Pipeline
    micro_batch: int
    unit: int
    least: int

    def below(self, batch: int) -> int:
        """Return the greatest such batch up to `batch`, or 0."""
        size = batch // self.unit * self.unit
        return size if size >= self.least else 0

    def above(self, batch: int) -> int:
        """Return the least such batch above `batch`."""
        return max((batch // self.unit + 1) * self.unit, self.least)


def nearest_batches(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> NearestBatches | None:
    """Return the legal batches around one that no choice of degrees splits; memory has no say here.

    None for a batch with a legal choice, and where no batch has one.
    """
    if _legal(model, cluster, spec):
        return None
    batch, every = spec.global_batch, _choices(model, cluster, spec)
    illegal = {(item.mesh, item.schedule) for item in every if item.below(batch) == batch}  # for another reason
    choices = [item for item in every if (item.mesh, item.schedule) not in illegal]
    known: dict[tuple[Degrees, Pipeline], bool] = {}

    def first(sizes: list[tuple[int, _Choice]]) -> int:
        for size, choice in sizes:
            key = choice.mesh, choice.schedule
            if key not in known:
                known[key] = _legal(model, cluster, _narrowed(spec, choice, size))
            if known[key]:
                return size
        return 0

    above = first(sorted(((item.above(batch), item) for item in choices), key=lambda pair: pair[0]))
    if not above:
        return None
    lower = [(size, item) for item in choices if (size := item.below(batch))]
    below = first(sorted(lower, key=lambda pair: -pair[0]))
    return NearestBatches(tuple(sorted({item.mesh.data for item in choices})), below, above)


def _legal(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> bool:
    return next(Space(model, cluster, spec).families(), None) is not None


def _choices(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> list[_Choice]:
    """Return what the allowed degrees ask of a batch; the rest of the rules is not looked at."""
    found: list[_Choice] = []
    micro_batches = [size for size in spec.search.micro_batch or (1,) if size <= spec.search.most_micro_batch]
    anything = replace(spec, global_batch=cluster.gpus)  # every data degree divides that
    for mesh, schedule in product(meshes(model, cluster, anything), spec.search.schedule):
        rounds = {Pipeline.INTERLEAVED: mesh.pipeline}.get(schedule, 1)
        least = {Pipeline.ZERO_BUBBLE_V: 2 * mesh.pipeline}.get(schedule, mesh.pipeline)
        for size in micro_batches:
            step = mesh.data * size
            found.append(_Choice(mesh, schedule, size, step * rounds, step * least))
    return found


def _narrowed(spec: TrainingSpec, choice: _Choice, batch: int) -> TrainingSpec:
    """Return the job with another batch and this choice alone."""
    mesh = choice.mesh
    search = replace(
        spec.search,
        data=(mesh.data,),
        tensor=(mesh.tensor,),
        context=(mesh.context,),
        pipeline=(mesh.pipeline,),
        micro_batch=(choice.micro_batch,),
        schedule=(choice.schedule,),
    )
    return replace(spec, global_batch=batch, search=search)
