"""Legality of what is chosen besides degrees: recomputation, sharding group, context mode, offload, rank order.

Codes: TRD615 recomputation, TRD616 sharding group, TRD617 context mode, TRD618 rank order, TRD619 offload, TRD620
overlap, TRD621 not sayable in the trainer that was asked for. Choices that name the same thing as another one (a
sharding group of everything, a ring of two in both directions) are refused, so that each plan has one name.
"""

from __future__ import annotations

from treadle.ir.diagnostics import Finding
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import AttentionCore, TrainingModel
from treadle.ir.training.placement import check_placement
from treadle.ir.training.plan import Degrees
from treadle.ir.training.ranks import same_stages, shapes
from treadle.ir.training.spec import ContextMode, Offload, Recompute, Sharding, Trainer, TrainingSpec
from treadle.ir.training.trainers import unsaid


def check_options(
    model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec, degrees: Degrees
) -> list[Finding]:
    """Return every reason why the options do not go with the degrees."""
    return [
        *check_recompute(spec, degrees),
        *check_sharding(cluster, degrees),
        *check_context_mode(model, cluster, degrees),
        *check_order(model, cluster, spec, degrees),
        *check_placement(cluster, degrees),
        *check_offload(cluster, degrees),
        *check_overlap(spec, degrees),
        *check_trainer(spec, degrees),
    ]


def check_recompute(spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """A fused attention runs its core again by itself."""
    if spec.fused_attention and "core" in degrees.recompute.modules(True):
        where = degrees.recompute.value
        return [Finding("TRD615", "degrees.recompute", "a fused attention keeps no scores", "without `core`", where)]
    return []


def check_sharding(cluster: ClusterTopology, degrees: Degrees) -> list[Finding]:
    """Groups inside a domain need ZeRO, and data ranks in several domains with several in each."""
    if degrees.sharding is Sharding.GLOBAL:
        return []
    findings: list[Finding] = []
    inside, ranks = shapes(degrees, cluster.domain).replicas, degrees.data * degrees.context
    if degrees.zero == 0 or not 1 < inside < ranks:
        found = f"zero {degrees.zero}, {inside} of {ranks} data ranks in a domain"
        expected = "ZeRO, and data ranks in several domains with several in each"
        findings.append(Finding("TRD616", "degrees.sharding", "no group inside the domain", expected, found))
    if degrees.sharding is Sharding.HIERARCHICAL and degrees.zero != 3:
        findings.append(Finding("TRD616", "degrees.sharding", "weights are not shared", "zero 3", str(degrees.zero)))
    return findings


def check_context_mode(model: TrainingModel, cluster: ClusterTopology, degrees: Degrees) -> list[Finding]:
    """Exchanges of heads need heads and key-value heads that split; a second level needs both levels."""
    mode, context = degrees.context_mode, degrees.context
    if mode is ContextMode.RING:
        return []
    if context == 1:
        return [Finding("TRD617", "degrees.context_mode", "exchange without context ranks", "ring", mode.value)]
    inside = shapes(degrees, cluster.domain).context
    wanted, fits = {
        ContextMode.BIDIRECTIONAL: ("at least 3 context ranks", context > 2),
        ContextMode.ALL_TO_ALL: ("at least 2 context ranks", True),
        ContextMode.HIERARCHICAL: ("context ranks in several domains, several in each", 1 < inside < context),
    }[mode]
    if not fits:
        found = f"{context} context ranks, {inside} in a domain"
        return [Finding("TRD617", "degrees.context_mode", f"no {mode.value} exchange", wanted, found)]
    exchanged = {ContextMode.ALL_TO_ALL: context, ContextMode.HIERARCHICAL: inside}.get(mode, 1)
    cores = [kind.attention for kind in model.kinds if kind.attention]
    return [finding for core in cores for finding in _check_heads(core, degrees.tensor, exchanged)]


def _check_heads(core: AttentionCore, tensor: int, ranks: int) -> list[Finding]:
    """Heads of a tensor rank split over the exchanging ranks; key-value heads split, or are repeated a whole number."""
    findings: list[Finding] = []
    heads, keys = max(1, core.heads // tensor), max(1, core.kv_heads // tensor)
    if heads % ranks:
        findings.append(Finding("TRD617", "degrees.context", "heads do not split", f"a divisor of {heads}", str(ranks)))
    elif keys % ranks and ranks % keys:
        expected = f"a divisor or multiple of {keys}"
        findings.append(Finding("TRD617", "degrees.context", "key-value heads do not split", expected, str(ranks)))
    return findings


def check_order(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """Tensor ranks stay inside a domain under the order, and experts keep the stages of the dense layers."""
    findings: list[Finding] = []
    wanted = degrees.tensor if spec.search.tensor_inside_domain else 1
    if wanted > 1 and shapes(degrees, cluster.domain).tensor < wanted:
        findings.append(
            Finding("TRD618", "degrees.order", "tensor group crosses a domain", "tensor ranks further inside")
        )
    if any(kind.experts for kind in model.kinds) and not same_stages(degrees):
        findings.append(Finding("TRD618", "degrees.order", "experts would cut the ranks into other stages", "pp last"))
    return findings


def check_offload(cluster: ClusterTopology, degrees: Degrees) -> list[Finding]:
    """Offload needs host memory; activations leave only whole layers, without stages and recomputation."""
    findings: list[Finding] = []
    if degrees.offload is not Offload.NONE and not cluster.host_gbytes:
        findings.append(Finding("TRD619", "degrees.offload", "the hosts' memory is not known", "cluster.host_gbytes"))
    if degrees.offload.activations and (degrees.pipeline > 1 or degrees.recompute is not Recompute.NONE):
        expected = "pipeline 1 and recompute none"
        findings.append(Finding("TRD619", "degrees.offload", "activations are offloaded layer by layer", expected))
    return findings


def check_overlap(spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """Overlap of tensor traffic splits the sequence-parallel gathers and scatters."""
    if degrees.overlap_tensor and (degrees.tensor == 1 or not spec.sequence_parallel):
        expected = "tensor > 1 and sequence parallelism"
        return [Finding("TRD620", "degrees.overlap_tensor", "no tensor traffic to overlap", expected)]
    return []


def check_trainer(spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """The trainer that the spec asks for can say the plan."""
    trainer = spec.search.trainer
    if trainer is Trainer.ANY:
        return []
    return [Finding("TRD621", trainer.value, reason) for reason in unsaid(trainer, degrees)]
