"""Writes the node dump of the four-node example: what `kubectl get nodes,pods -A -o json` would say of such a cluster.

    python examples/make_nodes.py > examples/llama-3.1-70b-h200/nodes.json

Four nodes of eight H200; a monitoring agent on each, and a training job that holds half of the third.
"""

from __future__ import annotations

import json

ALLOCATABLE = {"cpu": "190", "memory": "1900Gi", "pods": "110", "nvidia.com/gpu": "8"}


def node(name: str) -> dict[str, object]:
    """Return a node."""
    labels = {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": "NVIDIA-H200"}
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint]},
        "status": {"allocatable": ALLOCATABLE, "capacity": ALLOCATABLE},
    }


def pod(name: str, where: str, owner: tuple[str, str], requests: dict[str, str]) -> dict[str, object]:
    """Return a running pod."""
    reference = {"apiVersion": "apps/v1", "kind": owner[0], "name": owner[1], "uid": owner[1], "controller": True}
    container = {"name": "main", "image": "example.org/main:1", "resources": {"requests": requests}}
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "ownerReferences": [reference]},
        "spec": {"nodeName": where, "containers": [container], "tolerations": tolerations},
        "status": {"phase": "Running"},
    }


def main() -> None:
    """Print the dump."""
    names = [f"gpu-{index}" for index in range(4)]
    agents = [
        pod(f"agent-{index}", name, ("DaemonSet", "agent"), {"cpu": "1", "memory": "2Gi"})
        for index, name in enumerate(names)
    ]
    job = pod("train-0", names[2], ("StatefulSet", "train"), {"cpu": "32", "memory": "256Gi", "nvidia.com/gpu": "4"})
    items = [*map(node, names), *agents, job]
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1))


if __name__ == "__main__":
    main()
