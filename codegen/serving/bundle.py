"""Files that tie a serving plan to the nodes of a packing plan: one `kubectl apply -k deploy` for both."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from treadle.codegen.serving.files import kustomization, yaml_text
from treadle.codegen.serving.pools import VERSIONS
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.packing import PackingBody

_HOSTNAME = "kubernetes.io/hostname"


def bundle_files(packing: PackingBody, serving: str, packed: str) -> dict[str, bytes]:
    """Return the top-level `deploy/`: the serving plan's manifests, kept on the nodes that the packing chose.

    Args:
        packing: where the pods go.
        serving: folder of the serving plan in the bundle.
        packed: folder of the packing plan.

    Returns: `deploy/kustomization.yaml`, and patches for groups that the packing's own component has none for.
    """
    patches = _group_patches(packing)
    fields: dict[str, Any] = {"resources": [f"../{serving}/deploy"]}
    if _has_component(packing):
        fields["components"] = [f"../{packed}/deploy/component"]
    files = {f"deploy/{name}": yaml_text([patch], "lws") for name, patch in patches.items()}
    if patches:
        fields["patches"] = [{"path": name} for name in sorted(patches)]
    return {**files, "deploy/kustomization.yaml": yaml_text([kustomization(**fields)], "kustomize")}


def _has_component(packing: PackingBody) -> bool:
    """Whether the packing wrote a kustomize component: it does for workloads with a pod template of their own."""
    placed = zip(packing.cluster.pods, packing.placement.nodes, strict=True)
    return any(
        node != PENDING and packing.cluster.shapes[pod.shape].workload.startswith("Deployment/") for pod, node in placed
    )


def _group_patches(packing: PackingBody) -> dict[str, dict[str, Any]]:
    """Return a patch per LeaderWorkerSet: its pods may stand only on the nodes planned for it."""
    cluster = packing.cluster
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for pod, node in zip(cluster.pods, packing.placement.nodes, strict=True):
        kind, _, name = cluster.shapes[pod.shape].workload.partition("/")
        if kind == "LeaderWorkerSet" and node != PENDING:
            host = cluster.nodes[node]
            wanted[cluster.shapes[pod.shape].namespace, name].add(host.labels.get(_HOSTNAME, host.name))
    return {
        f"{namespace}-{name}.yaml": _patch(namespace, name, sorted(hosts))
        for (namespace, name), hosts in sorted(wanted.items())
    }


def _patch(namespace: str, name: str, hosts: list[str]) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": _HOSTNAME, "operator": "In", "values": hosts}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    template = {"spec": {"affinity": {"nodeAffinity": required}}}
    return {
        "apiVersion": VERSIONS["lws"],
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"leaderWorkerTemplate": {"workerTemplate": template}},
    }
