"""Whether the parts of a deployment bundle belong together: one model, one workload, all engines placed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.deployment import DeploymentBody
from treadle.ir.diagnostics import Finding
from treadle.ir.plan import Plan, load
from treadle.ir.serving.plan import ServingPlan
from treadle.verification.core import Review

GPU = "nvidia.com/gpu"


def review_parts(plan: Plan, folder: Path) -> Review:
    """Compare the parts with the deployment and with each other (TRD429); their own reviewers look inside them."""
    body: DeploymentBody = plan.body
    parts = {name: load(folder / name) for name in plan.parts if (folder / name / "plan.json").is_file()}
    findings = [Finding("TRD429", name, "a part that is not there") for name in plan.parts if name not in parts]
    for name, kind in (("serving", "serving"), ("packing", "packing")):
        if name in parts and parts[name].kind != kind:
            return Review(1, 0, (Finding("TRD429", name, "a part of another kind", kind, parts[name].kind),))
    if "serving" in parts:
        findings += _check_serving(body, plan, parts["serving"])
    if "serving" in parts and "packing" in parts:
        findings += _check_packing(parts["serving"].body, parts["packing"].body)
    return Review(len(plan.parts) * 3, 0, tuple(findings))


def _check_serving(body: DeploymentBody, plan: Plan, part: Plan) -> list[Finding]:
    serving: ServingPlan = part.body
    request = body.request
    specification = [item.sha256 for item in plan.inputs if item.role in ("specification", "model")]
    own = [item.sha256 for item in part.inputs if item.role in ("specification", "model")]
    pairs: list[tuple[str, object, object]] = [
        ("inputs", specification, own),
        ("model", body.model.name, serving.model),
        ("levels", request.service_levels, serving.levels),
        ("cache bytes per token", body.model.kv_bytes_per_token(), serving.kv_bytes_per_token),
    ]
    return [
        Finding("TRD429", f"serving: {what}", "is not that of the deployment", str(expected), str(found))
        for what, expected, found in pairs
        if expected != found
    ]


def _check_packing(serving: ServingPlan, packing: PackingBody) -> list[Finding]:
    """Every engine's GPUs are placed, by pods of the sizes the plan has."""
    wanted: Counter[int] = Counter()
    largest = {pool.gpu: max(pool.nodes) for pool in serving.pools.problem.gpus}
    for engine, count in zip(serving.pools.problem.engines, serving.pools.pools.counts, strict=True):
        nodes = -(-engine.gpus // largest[engine.gpu])
        wanted[engine.gpus // nodes] += count * nodes
    found: Counter[int] = Counter()
    for pod, node in zip(packing.cluster.pods, packing.placement.nodes, strict=True):
        shape = packing.cluster.shapes[pod.shape]
        if shape.labels.get("app.kubernetes.io/managed-by") == "treadle" and node != PENDING and pod.node == PENDING:
            found[shape.requests.get(GPU, 0)] += 1
    if any(found[size] < count for size, count in wanted.items() if count):
        expected, there = (str(dict(sorted(sizes.items()))) for sizes in (wanted, found))
        return [Finding("TRD429", "packing: pods by GPUs", "not every engine has its place", expected, there)]
    return []
