"""Global batches that a search space can split: why one cannot, and the nearest that can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm

from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.plan import Degrees
from treadle.ir.training.space import Space, meshes
from treadle.ir.training.spec import Pipeline, TrainingSpec

_MOST_TRIALS = 256
"""Batches tried in each direction; the nearest multiples come first, and the first nearly always is legal."""


@dataclass(frozen=True, slots=True)
class NearestBatches:
    """What the allowed degrees ask of a batch.

    `data_ranks` are the data degrees that the GPUs and the allowed values leave, rising; `below` and `above` the
    nearest legal batches, 0 where there is none.
    """

    data_ranks: tuple[int, ...]
    below: int
    above: int


def nearest_batches(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> NearestBatches | None:
    """Return the legal batches around one that no choice of degrees splits; memory has no say here.

    None for a batch with a legal choice, and where no batch has one.
    """
    if _legal(model, cluster, spec, spec.global_batch):
        return None
    open_meshes = tuple(meshes(model, cluster, replace(spec, global_batch=cluster.gpus)))  # all degrees divide that
    if not open_meshes or not _legal(model, cluster, spec, _splits_always(cluster, spec)):
        return None
    steps = {step for mesh in open_meshes for step in _steps(mesh, spec)}
    batch = spec.global_batch
    below = sorted({low for unit, least in steps if (low := batch // unit * unit) >= least}, reverse=True)
    above = sorted({max((batch // unit + 1) * unit, least) for unit, least in steps})

    def first(values: list[int]) -> int:
        return next((value for value in values[:_MOST_TRIALS] if _legal(model, cluster, spec, value)), 0)

    return NearestBatches(tuple(sorted({mesh.data for mesh in open_meshes})), first(below), first(above))


def _legal(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec, batch: int) -> bool:
    families = Space(model, cluster, replace(spec, global_batch=batch)).families()
    return next(families, None) is not None


def _micro_batches(spec: TrainingSpec) -> tuple[int, ...]:
    allowed = spec.search.micro_batch or (1,)
    return tuple(size for size in allowed if size <= spec.search.most_micro_batch)


def _splits_always(cluster: ClusterTopology, spec: TrainingSpec) -> int:
    """Return a batch that every data degree, microbatch and schedule splits."""
    return 2 * cluster.gpus**2 * lcm(*_micro_batches(spec))


def _steps(mesh: Degrees, spec: TrainingSpec) -> list[tuple[int, int]]:
    """Return for each microbatch and schedule of a mesh what its batches are multiples of, and the least of them."""
    found: list[tuple[int, int]] = []
    for micro_batch in _micro_batches(spec):
        step = mesh.data * micro_batch
        for schedule in spec.search.schedule:
            if schedule is Pipeline.INTERLEAVED:
                found.append((step * mesh.pipeline, step * mesh.pipeline))
            else:
                stages = 2 if schedule is Pipeline.ZERO_BUBBLE_V else 1
                found.append((step, step * mesh.pipeline * stages))
    return found
