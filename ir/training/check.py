"""What makes a parallel plan legal, whatever it costs: divisibility, schedules, layouts.

Codes: TRD430 GPU count, TRD431 tensor split, TRD432 sequence split, TRD433 experts, TRD434 batch, TRD435 schedule,
TRD436 layout, TRD437 empty stage, TRD438 domain, TRD439 ZeRO, TRD623 recomputed layers per stage.
"""

from __future__ import annotations

from treadle.ir.diagnostics import Finding
from treadle.ir.training.check_options import check_options
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import LayerKind, Shard, TrainingModel
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute, TrainingSpec


def check(
    model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec, degrees: Degrees, layout: StageLayout
) -> list[Finding]:
    """Return every reason why the plan is not legal; an empty list means legal."""
    return [
        *check_cluster(cluster, spec, degrees),
        *(finding for kind in model.kinds for finding in check_tensor(kind, degrees.tensor)),
        *check_sequence(spec, degrees),
        *check_experts(model, degrees),
        *check_batch(spec, degrees),
        *check_schedule(spec, degrees),
        *check_options(model, cluster, spec, degrees),
        *check_layout(model, degrees, layout),
    ]


def check_cluster(cluster: ClusterTopology, spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """GPU count, and tensor parallelism inside the fast links where the spec wants that."""
    findings: list[Finding] = []
    if degrees.gpus > cluster.gpus:
        findings.append(
            Finding("TRD430", "degrees", "more GPUs than the cluster has", f"<= {cluster.gpus}", str(degrees.gpus))
        )
    outside = degrees.tensor > cluster.domain or cluster.domain % degrees.tensor
    if spec.search.tensor_inside_domain and outside:
        expected = f"a divisor of {cluster.domain}"
        findings.append(
            Finding("TRD438", "degrees.tensor", "tensor group crosses a domain", expected, str(degrees.tensor))
        )
    if degrees.zero == 3 and degrees.pipeline > 1:
        findings.append(Finding("TRD439", "degrees.zero", "ZeRO-3 with pipeline stages", "pipeline 1 or zero <= 2"))
    return findings


def check_tensor(kind: LayerKind, tensor: int) -> list[Finding]:
    """Heads, key-value heads (split or replicated whole) and split features divide by the tensor degree."""
    findings: list[Finding] = []

    def refuse(what: str, size: int) -> None:
        expected = f"a divisor of {size}"
        findings.append(Finding("TRD431", kind.name, f"{what} do not split", expected, str(tensor)))

    if kind.attention and kind.attention.heads % tensor:
        refuse("attention heads", kind.attention.heads)
    elif kind.attention and kind.attention.kv_heads % tensor and tensor % kind.attention.kv_heads:
        refuse("key-value heads", kind.attention.kv_heads)
    for product in kind.products:
        size = {Shard.COLUMN: product.outputs, Shard.ROW: product.inputs, Shard.NONE: tensor}[product.shard]
        if size % tensor:
            refuse(f"features of `{product.name}`", size)
    return findings


def check_sequence(spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """Context ranks take two chunks each (balanced causal ring), and sequence parallelism splits what they hold."""
    parts = degrees.tensor if spec.sequence_parallel else 1
    parts *= 2 * degrees.context if degrees.context > 1 else 1
    if spec.sequence_tokens % parts:
        found = f"{spec.sequence_tokens} over {parts}"
        return [Finding("TRD432", "degrees.context", "sequence does not split", "a divisor of the sequence", found)]
    return []


def check_experts(model: TrainingModel, degrees: Degrees) -> list[Finding]:
    """Expert ranks divide the experts, and expert groups tile the data, context and tensor ranks of a stage."""
    counts = {kind.experts.count for kind in model.kinds if kind.experts}
    group = degrees.expert * degrees.expert_tensor
    findings: list[Finding] = []
    if not counts and group > 1:
        findings.append(Finding("TRD433", "degrees.expert", "expert ranks without experts", "1", str(degrees.expert)))
    for count in counts:
        if count % degrees.expert:
            expected = f"a divisor of {count}"
            findings.append(Finding("TRD433", "degrees.expert", "experts do not split", expected, str(degrees.expert)))
    ranks = degrees.data * degrees.context * degrees.tensor
    if ranks % group:
        findings.append(
            Finding(
                "TRD433", "degrees.expert", "expert group does not tile the stage", f"a divisor of {ranks}", str(group)
            )
        )
    for kind in model.kinds:
        products = kind.experts.products if kind.experts else ()
        if any(product.shard is Shard.COLUMN and product.outputs % degrees.expert_tensor for product in products):
            findings.append(Finding("TRD433", kind.name, "expert features do not split over expert-tensor ranks"))
    return findings


def check_batch(spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """The global batch is a whole number of microbatches on every data rank."""
    step = degrees.data * degrees.micro_batch
    if spec.global_batch % step:
        found = f"{degrees.data} x {degrees.micro_batch}"
        return [Finding("TRD434", "degrees.data", "batch does not split", f"a divisor of {spec.global_batch}", found)]
    return []


def check_schedule(spec: TrainingSpec, degrees: Degrees) -> list[Finding]:
    """A pipeline needs as many microbatches as ranks (a V twice as many); interleaving needs a multiple, and chunks."""
    findings: list[Finding] = []
    count, schedule = degrees.microbatches(spec.global_batch), degrees.schedule
    chunks = {Pipeline.INTERLEAVED: degrees.virtual > 1, Pipeline.ZERO_BUBBLE_V: degrees.virtual == 2}
    if not chunks.get(schedule, degrees.virtual == 1):
        expected = "interleaved with several chunks, zb-v with two, the others with one"
        findings.append(Finding("TRD435", "degrees.schedule", "chunks and schedule differ", expected))
    if schedule is Pipeline.INTERLEAVED and (degrees.pipeline == 1 or count % degrees.pipeline):
        expected = f"a multiple of {degrees.pipeline} microbatches, pipeline > 1"
        findings.append(Finding("TRD435", "degrees.virtual", "interleaving is not possible", expected, str(count)))
    if schedule.splits_backward and degrees.pipeline == 1:
        findings.append(Finding("TRD435", "degrees.schedule", "zero bubble without stages", "pipeline > 1"))
    least = 2 * degrees.pipeline if schedule is Pipeline.ZERO_BUBBLE_V else degrees.pipeline
    if count < least:
        findings.append(Finding("TRD435", "degrees.pipeline", "too few microbatches", f">= {least}", str(count)))
    return findings


def check_layout(model: TrainingModel, degrees: Degrees, layout: StageLayout) -> list[Finding]:
    """One count per virtual stage, all layers once, no empty stage between the first and the last."""
    findings: list[Finding] = []
    if len(layout.layers) != degrees.slots:
        findings.append(Finding("TRD436", "layout", "number of stages", str(degrees.slots), str(len(layout.layers))))
    if sum(layout.layers) != model.layers:
        findings.append(Finding("TRD436", "layout", "number of layers", str(model.layers), str(sum(layout.layers))))
    for slot, count in enumerate(layout.layers[1:-1], start=1):
        if count == 0:
            findings.append(Finding("TRD437", f"layout[{slot}]", "stage without layers"))
    if (degrees.recompute is Recompute.STAGES) != bool(layout.recomputed):
        expected = "a count per stage with `recompute=stages`, none without"
        findings.append(
            Finding("TRD623", "layout.recomputed", "recomputed layers", expected, str(list(layout.recomputed)))
        )
    return findings
