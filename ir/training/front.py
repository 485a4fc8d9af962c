"""The front of time, memory and GPUs: for every part of the cluster and memory limit, the fastest plan.

Parts have the same share of every node group's nodes. Limits start at what the search allows; each next one is the
largest multiple of `MEMORY_STEP` below the last plan's peak, until nothing fits. So between two limits no plan is
passed over but those less than a step apart in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import gcd

from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.plan import Degrees, FrontStep, ParallelBody, StageLayout
from treadle.ir.training.space import divisors
from treadle.ir.training.spec import TrainingSpec

MEMORY_STEP = 4 * 2**30


@dataclass(frozen=True, slots=True)
class FrontPlan:
    """A plan on the front."""

    gpus: int
    degrees: Degrees
    layout: StageLayout
    step_time_us: float
    peak_memory_bytes: int


def parts_of(cluster: ClusterTopology) -> tuple[ClusterTopology, ...]:
    """Return the cluster and its parts, the largest first."""
    common = gcd(*(group.nodes for group in cluster.groups))
    return tuple(
        replace(cluster, groups=tuple(replace(group, nodes=group.nodes // share) for group in cluster.groups))
        for share in divisors(common)
    )


def limited(spec: TrainingSpec, most_memory: int) -> TrainingSpec:
    """Return the job with a memory limit."""
    return replace(spec, search=replace(spec.search, most_memory=most_memory))


def next_limit(peak_bytes: int) -> int:
    """Return the limit after a plan with this peak; 0 when there is none."""
    return (peak_bytes - 1) // MEMORY_STEP * MEMORY_STEP


def front(steps: Iterable[FrontStep]) -> tuple[FrontPlan, ...]:
    """Return the plans of which no other is as good in time, memory and GPUs and better in one; fastest first."""
    plans = [
        FrontPlan(step.gpus, step.degrees, step.layout, step.step_time_us, step.peak_memory_bytes)
        for step in steps
        if step.degrees is not None and step.layout is not None
    ]
    plans.sort(key=lambda one: (one.step_time_us, one.gpus, one.peak_memory_bytes))
    kept: list[FrontPlan] = []
    for plan in plans:
        if not any(one.gpus <= plan.gpus and one.peak_memory_bytes <= plan.peak_memory_bytes for one in kept):
            kept.append(plan)
    return tuple(kept)


def body_of(body: ParallelBody, step: FrontStep) -> ParallelBody:
    """Return the problem that a step answers, with the step's plan in place of the body's where it has one."""
    for cluster in parts_of(body.cluster):
        if cluster.gpus == step.gpus:
            spec = limited(body.spec, step.most_memory)
            placed = {} if step.degrees is None else {"degrees": step.degrees, "layout": step.layout}
            return replace(body, cluster=cluster, spec=spec, stages=(), alternatives=(), steps=(), **placed)  # type: ignore[arg-type]  # fields of these types
    raise KeyError(step.gpus)
