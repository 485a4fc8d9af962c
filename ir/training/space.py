"""Every legal choice of degrees, in one fixed order: solver and checker enumerate with the same generator."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from treadle.ir.training.check import check_cluster, check_experts, check_schedule, check_sequence, check_tensor
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Pipeline, TrainingSpec


@cache
def divisors(number: int) -> tuple[int, ...]:
    """Return the divisors of a positive number, rising."""
    small = [value for value in range(1, int(number**0.5) + 1) if number % value == 0]
    return tuple(sorted({*small, *(number // value for value in small)}))


def candidates(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> Iterator[Degrees]:
    """Yield every legal `Degrees` that uses all GPUs, within the spec's search space.

    Stages never outnumber what can fill them: virtual stages <= layers + 2 (embedding and loss may stand alone).
    """
    for base in _meshes(model, cluster, spec):
        for expert, expert_tensor in _expert_choices(model, spec, base):
            for degrees in _microbatch_choices(model, spec, base, expert, expert_tensor):
                yield from _memory_choices(cluster, spec, degrees)


def _allowed(values: tuple[int, ...], allowed: tuple[int, ...]) -> Iterator[int]:
    return (value for value in values if not allowed or value in allowed)


def _meshes(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> Iterator[Degrees]:
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
        most = space.most_virtual if base.pipeline > 1 else 1
        for virtual in _allowed(tuple(range(1, most + 1)), space.virtual):
            if base.pipeline * virtual > model.layers + 2:
                continue
            schedule = Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B
            found = Degrees(
                base.data,
                base.tensor,
                base.context,
                base.pipeline,
                micro_batch,
                virtual,
                expert,
                expert_tensor,
                zero=0,
                schedule=schedule,
            )
            if not check_schedule(spec, found):
                yield found


def _memory_choices(cluster: ClusterTopology, spec: TrainingSpec, degrees: Degrees) -> Iterator[Degrees]:
    for zero in spec.search.zero:
        if zero and degrees.data * degrees.context == 1:
            continue
        if zero == 3 and degrees.pipeline > 1:
            continue
        for recompute in spec.search.recompute:
            for order in spec.search.order:
                yield Degrees(
                    degrees.data,
                    degrees.tensor,
                    degrees.context,
                    degrees.pipeline,
                    degrees.micro_batch,
                    degrees.virtual,
                    degrees.expert,
                    degrees.expert_tensor,
                    zero,
                    recompute,
                    degrees.schedule,
                    order,
                )
