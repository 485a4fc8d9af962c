"""Files that tie a serving plan to the nodes of a packing plan: one `kubectl apply -k deploy` for both."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from treadle.codegen.serving.files import kustomization, yaml_text
from treadle.codegen.serving.pools import VERSIONS
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.packing import PackingBody

_HOSTNAME = "kubernetes.io/hostname"
_MANAGED = "app.kubernetes.io/managed-by"
_VERSIONS = {"Deployment": "apps/v1", "LeaderWorkerSet": VERSIONS["lws"]}


def bundle_files(packing: PackingBody, serving: str) -> dict[str, bytes]:
    """Return the top-level `deploy/`: the serving plan's manifests, kept on the nodes that the packing chose.

    Args:
        packing: where the pods go.
        serving: folder of the serving plan in the bundle.

    Returns: `deploy/kustomization.yaml` and a patch per workload; what else runs in the cluster is left alone (the
    packing plan's own files say what would move).
    """
    patches = _patches(packing)
    fields: dict[str, Any] = {"resources": [f"../{serving}/deploy"]}
    if patches:
        fields["patches"] = [{"path": name} for name in sorted(patches)]
    files = {f"deploy/{name}": yaml_text([patch], "kustomize") for name, patch in patches.items()}
    return {**files, "deploy/kustomization.yaml": yaml_text([kustomization(**fields)], "kustomize")}


def _patches(packing: PackingBody) -> dict[str, dict[str, Any]]:
    """Return a patch per workload of the serving plan: its pods may stand only on the nodes planned for it."""
    cluster = packing.cluster
    wanted: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for pod, node in zip(cluster.pods, packing.placement.nodes, strict=True):
        shape = cluster.shapes[pod.shape]
        kind, _, name = shape.workload.partition("/")
        if shape.labels.get(_MANAGED) == "treadle" and pod.node == PENDING and node != PENDING and kind in _VERSIONS:
            host = cluster.nodes[node]
            wanted[shape.namespace, kind, name].add(host.labels.get(_HOSTNAME, host.name))
    return {
        f"{name}.yaml": _patch(namespace, kind, name, sorted(hosts))
        for (namespace, kind, name), hosts in sorted(wanted.items())
    }


def _patch(namespace: str, kind: str, name: str, hosts: list[str]) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": _HOSTNAME, "operator": "In", "values": hosts}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    template = {"spec": {"affinity": {"nodeAffinity": required}}}
    grouped = kind == "LeaderWorkerSet"
    return {
        "apiVersion": _VERSIONS[kind],
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"leaderWorkerTemplate": {"workerTemplate": template}} if grouped else {"template": template},
    }
