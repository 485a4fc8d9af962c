"""The parts that `treadle compile` adds to kernels: a serving plan, and its pods packed onto the nodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from treadle.codegen.folder import write_plan
from treadle.codegen.serving.bundle import bundle_files
from treadle.codegen.serving.files import serving_files
from treadle.codegen.serving.pods import bare_nodes, list_bytes, pending_pods
from treadle.driver.artifacts import report_of
from treadle.driver.pack import Job, plan_packing, write_packing
from treadle.frontends.kubernetes.cluster import cluster_from
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.plan import Input, Plan, parse_json, read_text
from treadle.ir.serving.errors import NoRoomForEngines
from treadle.ir.serving.plan import ServingPlan
from treadle.ir.workload import Deployment
from treadle.solvers.packing.solve import Options

SERVING = "serving"
PACKING = "packing"
CLUSTER = "deploy/cluster.json"
"""Where the serving plan's folder keeps nodes and pods together, ready for `treadle pack`."""


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part of a bundle: its plan and its folder."""

    plan: Plan
    folder: Path


def write_serving(folder: Path, plan: Plan, deployment: Deployment) -> Part:
    """Write the folder of a serving plan: engine configurations, manifests, and the cluster with its pods."""
    body: ServingPlan = plan.body
    files = dict(serving_files(body, deployment.cluster.namespace))
    files[CLUSTER] = cluster_document(body, deployment)
    files["report.html"] = report_of(plan, {})
    return Part(write_plan(folder, plan, files), folder)


def cluster_document(body: ServingPlan, deployment: Deployment) -> bytes:
    """Return the nodes of the specification (bare ones where it names no dump) with the plan's pods, as one List."""
    pods = pending_pods(body, deployment.cluster.namespace)
    path = deployment.cluster.nodes_path
    if not path:
        return list_bytes([*bare_nodes(body.pools.problem.gpus), *pods])
    dump = parse_json(read_text(Path(path)), path)
    return list_bytes([*dump["items"], *pods])


def pack_serving(folder: Path, serving: Part, options: Options, tell: Callable[[str], None]) -> Part:
    """Pack the pods of a serving plan onto its nodes and write the packing plan.

    Raises:
        NoRoomForEngines: some pod finds no node, for lack of something other than GPUs.
        TreadleError: what packing raises.
    """
    text = read_text(serving.folder / CLUSTER)
    digest = hashlib.sha256(text.encode()).hexdigest()
    job = Job(cluster_from(json.loads(text), CLUSTER, text), (Input("cluster", CLUSTER, digest),))
    plan = plan_packing(job, options, tell)
    _require_placed(plan.body, serving.plan.body)
    return Part(write_packing(folder, plan), folder)


def _require_placed(packing: PackingBody, serving: ServingPlan) -> None:
    names = {pod["metadata"]["name"] for pod in pending_pods(serving)}
    left = [
        pod.name
        for pod, node in zip(packing.cluster.pods, packing.placement.nodes, strict=True)
        if node == PENDING and pod.name in names
    ]
    if left:
        raise NoRoomForEngines(count=len(left), total=len(names), first=left[0])


def serving_line(body: ServingPlan) -> str:
    """Return the pools of a plan in a line."""
    pairs = zip(body.pools.problem.engines, body.pools.pools.counts, strict=True)
    pools = [f"{count} {engine.role.value} {engine.gpu} x {engine.gpus}" for engine, count in pairs if count]
    return f"{' + '.join(pools)}: {body.pools.gpus_used} GPUs, {float(body.pools.rate_per_s):.4g} requests/s"


def packing_line(body: PackingBody) -> str:
    """Return what the packing does in a line."""
    used = {node for pod, node in zip(body.cluster.pods, body.placement.nodes, strict=True) if pod.node == PENDING}
    placed = sum(
        pod.node == PENDING and node != PENDING
        for pod, node in zip(body.cluster.pods, body.placement.nodes, strict=True)
    )
    moved = sum(
        pod.node not in (PENDING, node) for pod, node in zip(body.cluster.pods, body.placement.nodes, strict=True)
    )
    nodes = len(used - {PENDING})
    return f"{placed} pods on {nodes} of {len(body.cluster.nodes)} nodes, {moved} others moved"


def top_level(packing: Part) -> dict[str, bytes]:
    """Return the bundle's own deployment files."""
    return bundle_files(packing.plan.body, SERVING)
