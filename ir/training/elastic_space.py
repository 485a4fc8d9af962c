"""Every choice of degrees a re-plan considers, in one fixed order: solver and checker share the generator.

Tensor and expert degrees, ZeRO stage and rank order stay, so shards of a layer keep their form. Free are context
ranks (up to twice or half as many), pipeline ranks (half as many to a quarter more), chunks (one, or as many as
before), microbatch size and recomputation; as many data ranks as the GPUs that are left allow. Data ranks may run
different numbers of microbatches: the fullest one sets the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import gcd

from treadle.ir.training.check import check_experts, check_sequence
from treadle.ir.training.check_options import check_options
from treadle.ir.training.elastic import grain_of, least_count
from treadle.ir.training.plan import Degrees, ParallelBody
from treadle.ir.training.space import divisors
from treadle.ir.training.spec import ContextMode, Offload, Pipeline, Recompute

_MOST_CHANGE = 2
"""Factor by which context ranks may change, and pipeline ranks may shrink."""


def elastic_candidates(body: ParallelBody, gpus: int, even: bool) -> Iterator[Degrees]:
    """Yield every choice for `gpus` GPUs; with `even`, those whose data ranks run equally many microbatches."""
    old, spec = body.degrees, body.spec
    for context in _contexts(body):
        lanes = old.tensor * context
        most = min(body.model.layers + 2, gpus // lanes, old.pipeline + -(-old.pipeline // 4))
        for pipeline in range(-(-old.pipeline // _MOST_CHANGE), most + 1):
            if old.zero == 3 and pipeline > 1:
                break
            for micro_batch in divisors(spec.global_batch):
                if micro_batch > spec.search.most_micro_batch:
                    break
                if spec.search.micro_batch and micro_batch not in spec.search.micro_batch:
                    continue
                base = replace(old, data=1, context=context, pipeline=pipeline, micro_batch=micro_batch, virtual=1)
                base = replace(base, schedule=Pipeline.ONE_F_ONE_B)
                data = _most_data(body, base, gpus // (lanes * pipeline), even)
                if data:
                    yield from _variants(body, replace(base, data=data))


def _contexts(body: ParallelBody) -> Iterator[int]:
    """Yield context degrees near the old one that split the sequence."""
    old = body.degrees.context
    for context in divisors(body.spec.sequence_tokens):
        allowed = not body.spec.search.context or context in body.spec.search.context
        near = old <= _MOST_CHANGE * context and context <= _MOST_CHANGE * old
        changed = replace(body.degrees, context=context)
        if context == old or (near and allowed and not check_sequence(body.spec, changed)):
            yield context


def _most_data(body: ParallelBody, base: Degrees, most: int, even: bool) -> int:
    """Return the most data ranks whose experts tile and whose batch gives each as many microbatches as ranks.

    Expert groups tile the stage when the data ranks are a multiple of what context and tensor ranks leave of a group.
    """
    total, group = body.spec.global_batch // base.micro_batch, base.expert * base.expert_tensor
    grain = group // gcd(group, base.context * base.tensor)
    first = min(most, total // base.pipeline) // grain * grain
    if first < 1 or check_experts(body.model, replace(base, data=grain)):
        return 0
    return next((data for data in range(first, 0, -grain) if not even or total % data == 0), 0)


def _variants(body: ParallelBody, base: Degrees) -> Iterator[Degrees]:
    old = body.degrees
    kinds = {(Pipeline.ONE_F_ONE_B, 1): None}
    if base.pipeline > 1:
        kinds[old.schedule, old.virtual] = None
    for schedule, virtual in kinds:
        for recompute in _modes(body):
            found = replace(base, virtual=virtual, schedule=schedule, recompute=recompute)
            if _enough(body, found) and not (_has_options(found) and _refused(body, found)):
                yield found


def _modes(body: ParallelBody) -> tuple[Recompute, ...]:
    """Return the allowed recomputations that run different modules again; of equal ones what the plan has now."""
    found: dict[frozenset[str], Recompute] = {}
    for mode in body.spec.search.recompute:
        found.setdefault(mode.modules(body.spec.fused_attention), mode)
    now = body.degrees.recompute
    if now in body.spec.search.recompute:
        found[now.modules(body.spec.fused_attention)] = now
    return tuple(found.values())


def _enough(body: ParallelBody, degrees: Degrees) -> bool:
    total, grain = body.spec.global_batch // degrees.micro_batch, grain_of(degrees)
    if degrees.slots > body.model.layers + 2 or total % grain:
        return False
    return total // grain // degrees.data * grain >= least_count(degrees)


def _has_options(degrees: Degrees) -> bool:
    modes = degrees.context_mode, degrees.offload, degrees.overlap_tensor, degrees.recompute
    return modes != (ContextMode.RING, Offload.NONE, False, Recompute.NONE)


def _refused(body: ParallelBody, degrees: Degrees) -> bool:
    return bool(check_options(body.model, body.cluster, body.spec, degrees))


def even_counts(body: ParallelBody, degrees: Degrees) -> tuple[int, ...]:
    """Return the microbatches of every data rank, as even as may be (in whole groups of ranks when interleaved)."""
    grain = grain_of(degrees)
    share, rest = divmod(body.spec.global_batch // degrees.micro_batch // grain, degrees.data)
    return tuple(grain * (share + (number < rest)) for number in range(degrees.data))
