"""The packer's line: cluster -> placement -> checked -> migration -> replayed -> files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treadle import __version__
from treadle.codegen.folder import write_plan
from treadle.codegen.kubernetes.manifests import manifests
from treadle.codegen.kubernetes.report import report
from treadle.costmodels import migration as replays
from treadle.costmodels.kube_scheduler import simulate
from treadle.costmodels.migration import budgets_by_shape
from treadle.frontends.kubernetes.cluster import cluster_from, load_cluster
from treadle.frontends.kubernetes.live import fetch, kubeconfig_get
from treadle.frontends.kubernetes.offers import LABEL, load_offers, with_offers
from treadle.frontends.openb import load_openb
from treadle.frontends.roadef import load_roadef
from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.errors import NoLegalOrder
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.cluster.placement import Placement
from treadle.ir.cluster.reassignment import ReassignmentBody
from treadle.ir.codec import encode
from treadle.ir.plan import Input, Plan, Prediction, input_from
from treadle.solvers.backend import VERSION
from treadle.solvers.packing.migrate import order
from treadle.solvers.packing.solve import Options
from treadle.solvers.packing.starts import pack
from treadle.solvers.reassignment import solve as reassignment


@dataclass(frozen=True, slots=True)
class Job:
    """A cluster and the files it came from."""

    cluster: Cluster
    inputs: tuple[Input, ...]


def read_dump(*paths: Path) -> Job:
    """Read a `kubectl get ... -o json` dump, in one file or several."""
    return Job(load_cluster(*paths), tuple(input_from("cluster", path) for path in paths))


def read_live(context: str | None, tell: Callable[[str], None]) -> Job:
    """Read the cluster of the kubeconfig; raises NoClient, UnreachableCluster, and what a dump raises."""
    document = fetch(kubeconfig_get(context), tell)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    where = f"live:{context or 'current-context'}"
    return Job(cluster_from(document, where), (Input("cluster", where, digest),))


def read_openb(nodes: Path, pods: Path) -> Job:
    """Read a pair of openb lists."""
    return Job(load_openb(nodes, pods), (input_from("nodes", nodes), input_from("pods", pods)))


def add_offers(job: Job, path: Path) -> Job:
    """Return the job with nodes that may be added."""
    return Job(with_offers(job.cluster, load_offers(path)), (*job.inputs, input_from("offers", path)))


def added_nodes(body: PackingBody) -> Counter[str]:
    """Return how many nodes of every offer the plan uses."""
    used = {node for node in body.placement.nodes if node != PENDING and body.cluster.nodes[node].optional}
    return Counter(body.cluster.nodes[node].labels[LABEL] for node in used)


def plan_packing(
    job: Job, options: Options, progress: Callable[[str], None] | None = None, executor: Executor | None = None
) -> Plan:
    """Pack a cluster and order the way there; the plan is not sealed yet.

    `executor` runs `options.starts` searches side by side.

    Raises:
        OverfullNode, NoLegalOrder: from the solver.
    """
    packed = pack(job.cluster, options, progress, executor)
    try:
        steps = order(job.cluster, packed.placement)
    except NoLegalOrder:
        careful = _pin_budgets(job.cluster)
        packed = pack(careful, options, progress, executor)
        steps = order(job.cluster, packed.placement)
        job = Job(careful, job.inputs)
    body = PackingBody(job.cluster, options.objective, packed.placement, steps)
    return Plan(
        "packing",
        job.inputs,
        encode(replace(options)),
        {"treadle": __version__, "ortools": VERSION},
        body,
        (packed.certificate,),
        _predictions(body),
    )


def _pin_budgets(cluster: Cluster) -> Cluster:
    """Pin the pods of every disruption budget: what is left to move can always be ordered."""
    budgets_of = budgets_by_shape(cluster)
    pods = tuple(
        replace(pod, pinned=pod.pinned or "disruption budget")
        if pod.node != PENDING and budgets_of.get(pod.shape)
        else pod
        for pod in cluster.pods
    )
    return replace(cluster, pods=pods)


def write_packing(folder: Path, plan: Plan) -> Plan:
    """Write the plan folder: plan, manifests, report."""
    body: PackingBody = plan.body
    files = {**manifests(body), "report.html": report(body, plan.certificates[0])}
    return write_plan(folder, plan, files)


def compare(cluster: Cluster, placement: Placement, seed: int = 0) -> dict[str, Any]:
    """Return what the default scheduler (simulated) would place of the pending pods, beside the plan."""
    simulated = simulate(cluster, seed=seed)
    return {
        "running_now": _placed(cluster.current),
        "default_scheduler": _placed(simulated.nodes),
        "default_scheduler_preempted": simulated.preempted,
        "plan": _placed(placement.nodes),
    }


def _placed(nodes: tuple[int, ...]) -> int:
    return sum(node != PENDING for node in nodes)


def _predictions(body: PackingBody) -> tuple[Prediction, ...]:
    played = replays.replay(body.cluster, body.migration)
    return (
        Prediction("placed", _placed(body.placement.nodes), "pods"),
        Prediction("waves", len(body.migration.waves), "waves"),
        Prediction("temporary_moves", played.temporary_moves, "moves"),
        Prediction("outages", len(played.outages), "pods"),
    )


def plan_reassignment(
    model: Path, assignment: Path, options: reassignment.Options, executor: Executor | None = None
) -> Plan:
    """Reassign the processes of a ROADEF 2012 instance; the plan is not sealed yet.

    `executor` runs `options.starts` searches side by side.
    """
    instance = load_roadef(model, assignment)
    found = reassignment.reassign(instance, options, None, executor)
    return Plan(
        "reassignment",
        (input_from("model", model), input_from("assignment", assignment)),
        encode(options),
        {"treadle": __version__},
        ReassignmentBody(instance, found.assignment),
        (found.certificate,),
        (Prediction("cost", found.cost, "points"),),
    )


def write_reassignment(folder: Path, plan: Plan) -> Plan:
    """Write the plan folder, with the assignment in the challenge's form."""
    text = " ".join(map(str, plan.body.assignment)) + "\n"
    return write_plan(folder, plan, {"assignment.txt": text.encode()})
