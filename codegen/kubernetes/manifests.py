"""A packing plan as files for `kubectl` and `kustomize`.

`waves/NN-b-bind.yaml` holds v1 Bindings and `waves/NN-c-evict.yaml` policy/v1 Evictions, in the order to apply them;
pods behind a scheduling gate cannot be bound and have their node selectors in `gates.yaml`;
`component/` is a kustomize component that keeps every workload on the nodes the plan gives it; `scheduler.yaml` makes
the default scheduler prefer full nodes, for those who follow the plan softly; `kueue.yaml` admits what the plan places;
`evictions.csv` lists every pod that leaves its node.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from typing import Any

import yaml

from treadle.codegen.kubernetes.queues import queues
from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.migration import Migration, Step, StepKind
from treadle.ir.cluster.packing import PackingBody

_HOSTNAME = "kubernetes.io/hostname"
_TEMPLATED = ("Deployment", "StatefulSet", "ReplicaSet", "Job", "LeaderWorkerSet")
_API = {"Job": "batch/v1", "LeaderWorkerSet": "leaderworkerset.x-k8s.io/v1"}


def manifests(body: PackingBody) -> dict[str, bytes]:
    """Return the files by path relative to the plan folder."""
    files: dict[str, list[dict[str, Any]]] = {}
    for number, wave in enumerate(body.migration.waves, start=1):
        if cordoned := _nodes(body.cluster, wave, StepKind.CORDON):
            files[f"deploy/waves/{number:02d}-a-cordon.yaml"] = [_cordon(name, True) for name in cordoned]
        binds = [_binding(body.cluster, step) for step in wave if _binds(body.cluster, step)]
        evictions = [
            _eviction(body.cluster, step)
            for step in wave
            if step.kind in (StepKind.EVICT, StepKind.STOP, StepKind.MOVE)
        ]
        if binds:
            files[f"deploy/waves/{number:02d}-b-bind.yaml"] = binds
        if evictions:
            files[f"deploy/waves/{number:02d}-c-evict.yaml"] = evictions
        if freed := _nodes(body.cluster, wave, StepKind.UNCORDON):
            files[f"deploy/waves/{number:02d}-d-uncordon.yaml"] = [_cordon(name, False) for name in freed]
    files |= _component(body)
    files["deploy/scheduler.yaml"] = [_scheduler()]
    files["deploy/gates.yaml"] = _gated(body)
    files["deploy/kueue.yaml"] = queues(body)
    written = {path: _dump(documents) for path, documents in sorted(files.items()) if documents}
    return {**written, "deploy/evictions.csv": _evictions(body)}


def _dump(documents: list[dict[str, Any]]) -> bytes:
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True).encode()


def _nodes(cluster: Cluster, wave: tuple[Step, ...], kind: StepKind) -> list[str]:
    return [cluster.nodes[step.target].name for step in wave if step.kind is kind]


def _cordon(node: str, unschedulable: bool) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "spec": {"unschedulable": unschedulable}}


def _metadata(cluster: Cluster, pod: int) -> dict[str, str]:
    return {"name": cluster.pods[pod].name, "namespace": cluster.shapes[cluster.pods[pod].shape].namespace}


def _binds(cluster: Cluster, step: Step) -> bool:
    """Whether a step is a Binding: the API server refuses them for pods behind a scheduling gate."""
    return step.kind is StepKind.MOVE or (step.kind is StepKind.BIND and not cluster.pods[step.pod].gated)


def _binding(cluster: Cluster, step: Step) -> dict[str, Any]:
    """A Binding; for a moved pod it names the replica that replaces it by the replaced one (see docs/verbs/pack.md)."""
    target = {"apiVersion": "v1", "kind": "Node", "name": cluster.nodes[step.target].name}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": _metadata(cluster, step.pod), "target": target}


def _eviction(cluster: Cluster, step: Step) -> dict[str, Any]:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": _metadata(cluster, step.pod)}


def _evictions(body: PackingBody) -> bytes:
    """Every pod that leaves its node, in order: a list for tools that evict by themselves."""
    cluster, out = body.cluster, io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["wave", "namespace", "pod", "priority", "node", "reason", "target"])
    for number, wave in enumerate(body.migration.waves, start=1):
        for step in wave:
            if step.kind in (StepKind.EVICT, StepKind.STOP, StepKind.MOVE):
                named = _metadata(cluster, step.pod)
                reason = "temporary move" if step.temporary else step.kind.value
                target = cluster.nodes[step.target].name if step.target != PENDING else ""
                source = cluster.nodes[step.source].name
                writer.writerow(
                    [number, named["namespace"], named["name"], cluster.priority(step.pod), source, reason, target]
                )
    return out.getvalue().encode()


def _component(body: PackingBody) -> dict[str, list[dict[str, Any]]]:
    """A strategic-merge patch per workload: its pods may stand only on the planned nodes."""
    cluster = body.cluster
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for pod, node in zip(cluster.pods, body.placement.nodes, strict=True):
        shape = cluster.shapes[pod.shape]
        if node != PENDING and shape.workload.split("/")[0] in _TEMPLATED:
            wanted[shape.namespace, shape.workload].add(
                cluster.nodes[node].labels.get(_HOSTNAME, cluster.nodes[node].name)
            )
    patches: list[str] = []
    files: dict[str, list[dict[str, Any]]] = {}
    for (namespace, workload), names in sorted(wanted.items()):
        kind, name = workload.split("/", 1)
        path = f"{namespace}-{kind.lower()}-{name}.yaml"
        files[f"deploy/component/{path}"] = [_affinity_patch(kind, name, namespace, sorted(names))]
        patches.append(path)
    if patches:
        files["deploy/component/kustomization.yaml"] = [
            {
                "apiVersion": "kustomize.config.k8s.io/v1alpha1",
                "kind": "Component",
                "patches": [{"path": path} for path in patches],
            }
        ]
    return files


def _affinity_patch(kind: str, name: str, namespace: str, nodes: list[str]) -> dict[str, Any]:
    inside = {"spec": {"affinity": {"nodeAffinity": _required(nodes)}}}
    template = (
        {"leaderWorkerTemplate": {"workerTemplate": inside}} if kind == "LeaderWorkerSet" else {"template": inside}
    )
    return {
        "apiVersion": _API.get(kind, "apps/v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": template,
    }


def _required(nodes: list[str]) -> dict[str, Any]:
    expression = {"key": _HOSTNAME, "operator": "In", "values": nodes}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    }


def _gated(body: PackingBody) -> list[dict[str, Any]]:
    """For pods behind a scheduling gate: the node selector to add before the gate is lifted (KEP-3838)."""
    cluster = body.cluster
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _metadata(cluster, index),
            "spec": {"nodeSelector": {_HOSTNAME: cluster.nodes[node].labels.get(_HOSTNAME, cluster.nodes[node].name)}},
        }
        for index, (pod, node) in enumerate(zip(cluster.pods, body.placement.nodes, strict=True))
        if pod.gated and pod.node == PENDING and node != PENDING
    ]


def _scheduler() -> dict[str, Any]:
    strategy = {"type": "MostAllocated", "resources": [{"name": name, "weight": 1} for name in ("cpu", "memory")]}
    fit = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "NodeResourcesFitArgs",
        "scoringStrategy": strategy,
    }
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [
            {"schedulerName": "default-scheduler", "pluginConfig": [{"name": "NodeResourcesFit", "args": fit}]}
        ],
    }


def summary(cluster: Cluster, migration: Migration) -> dict[str, int]:
    """Return how many steps of each kind the migration has."""
    counts = {kind.value: 0 for kind in StepKind}
    for wave in migration.waves:
        for step in wave:
            counts[step.kind.value] += 1
    return counts
