"""Kueue objects (kueue.x-k8s.io/v1beta2) that admit what the plan places, and no more.

A flavor per kind of node, a topology over the domains that gangs ask for, one cluster queue whose quotas are what the
nodes have, and a local queue per namespace that has gangs or jobs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.packing import PackingBody

KUEUE = "kueue.x-k8s.io/v1beta2"
"""Kueue 0.14 and later store this version (config/components/crd/bases)."""
_HOSTNAME = "kubernetes.io/hostname"
_QUEUED = ("Job", "JobSet", "LeaderWorkerSet")
_NAME = "treadle"
_MOST_RESOURCES = 64
_MOST_FLAVORS = 64
_KINDS = ("node.kubernetes.io/instance-type", "nvidia.com/gpu.product", "kubernetes.io/os")
"""Labels by which flavors tell nodes apart, the first that nodes have."""


def queues(body: PackingBody) -> list[dict[str, Any]]:
    """Return the objects; empty where nothing is queued."""
    cluster = body.cluster
    namespaces = sorted(
        {
            cluster.shapes[pod.shape].namespace
            for pod in cluster.pods
            if pod.gang or cluster.shapes[pod.shape].workload.split("/")[0] in _QUEUED
        }
    )
    label = next((key for key in _KINDS if any(key in node.labels for node in cluster.nodes)), "")
    if not namespaces or not label:
        return []
    levels = [*sorted({gang.topology_key for gang in cluster.gangs} - {"", _HOSTNAME}), _HOSTNAME]
    flavors = _flavors(cluster, label)
    return [
        _object("Topology", _NAME, {"levels": [{"nodeLabel": key} for key in levels]}),
        *(
            _object("ResourceFlavor", name, {"nodeLabels": {label: value}, "topologyName": _NAME})
            for value, (name, _) in sorted(flavors.items())
        ),
        _object("ClusterQueue", _NAME, {"namespaceSelector": {}, "resourceGroups": [_group(body, flavors)]}),
        *(_object("LocalQueue", _NAME, {"clusterQueue": _NAME}, space) for space in namespaces),
    ]


def _object(kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": KUEUE, "kind": kind, "metadata": metadata, "spec": spec}


def _flavors(cluster: Cluster, label: str) -> dict[str, tuple[str, list[int]]]:
    """Return name and nodes of every flavor by the label's value, the largest ones if there are too many."""
    nodes: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(cluster.nodes):
        if label in node.labels and not node.optional:
            nodes[node.labels[label]].append(index)
    largest = sorted(nodes, key=lambda value: (-len(nodes[value]), value))[:_MOST_FLAVORS]
    return {value: (_flavor_name(value), nodes[value]) for value in largest}


def _flavor_name(value: str) -> str:
    """Return a DNS label made of a label's value."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in value.lower()).strip("-")
    return f"{_NAME}-{plain or 'node'}"[:63].rstrip("-")


def _group(body: PackingBody, flavors: dict[str, tuple[str, list[int]]]) -> dict[str, Any]:
    """Return the quotas: what the flavor's nodes have beside pods that no queue admits."""
    cluster = body.cluster
    covered = [name for name in cluster.resources if "/" not in name or not name.startswith("dra/")]
    covered = covered[:_MOST_RESOURCES]
    taken: dict[int, Counter[str]] = defaultdict(Counter)
    for pod, node in zip(cluster.pods, body.placement.nodes, strict=True):
        shape = cluster.shapes[pod.shape]
        if node != PENDING and not pod.gang and shape.workload.split("/")[0] not in _QUEUED:
            taken[node].update(shape.requests)
    return {
        "coveredResources": covered,
        "flavors": [
            {
                "name": name,
                "resources": [
                    {
                        "name": resource,
                        "nominalQuota": _quantity(
                            resource,
                            sum(max(0, cluster.nodes[n].capacity.get(resource, 0) - taken[n][resource]) for n in nodes),
                        ),
                    }
                    for resource in covered
                ],
            }
            for name, nodes in (flavors[value] for value in sorted(flavors))
        ],
    }


def _quantity(resource: str, amount: int) -> str:
    return f"{amount}m" if resource == "cpu" and amount % 1000 else str(amount // 1000 if resource == "cpu" else amount)
