"""The pods of a serving plan as the API server would list them: what `treadle pack` reads, by file or in one process.

They belong to Deployments; where some engine spans nodes, all belong to LeaderWorkerSets, whose groups stand together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from treadle.codegen.serving.kubernetes import metadata, pod_spec
from treadle.codegen.serving.pools import Pool, label, pools_of
from treadle.ir.serving.plan import ServingPlan
from treadle.ir.serving.pools import GpuPool

Object = dict[str, Any]
GPU_PRODUCT = "nvidia.com/gpu.product"
"""Label by which GPU feature discovery names the product of a node's GPUs."""


def pending_pods(plan: ServingPlan, namespace: str = "") -> list[Object]:
    """Return every pod of the plan, waiting for a node."""
    served, pools = plan.served_name or plan.model, pools_of(plan)
    kind = "LeaderWorkerSet" if any(pool.nodes > 1 for pool in pools) else "Deployment"
    return [
        pod
        for pool in pools
        for replica in range(pool.replicas)
        for pod in _engine(pool, replica, kind, plan.model, served, namespace)
    ]


def _engine(pool: Pool, replica: int, kind: str, model: str, served: str, namespace: str) -> list[Object]:
    owner = label(f"{served}-{pool.name}")
    labels = {"app": owner, "treadle/role": pool.role.value}
    annotations: dict[str, str] = {}
    if kind == "LeaderWorkerSet":
        labels["leaderworkerset.sigs.k8s.io/group-key"] = f"{owner}-{replica}"
        annotations["leaderworkerset.sigs.k8s.io/size"] = str(pool.nodes)
    pods: list[Object] = []
    for worker in range(pool.nodes):
        name = f"{owner}-{replica}" + (f"-{worker}" if pool.nodes > 1 else "")
        data = metadata(name, namespace, **labels)
        if annotations:
            data["annotations"] = annotations
        version = "apps/v1" if kind == "Deployment" else "leaderworkerset.x-k8s.io/v1"
        data["ownerReferences"] = [{"apiVersion": version, "kind": kind, "name": owner, "controller": True}]
        spec = pod_spec(pool, model)
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": data, "spec": spec, "status": {"phase": "Pending"}})
    return pods


def bare_nodes(pools: Sequence[GpuPool]) -> list[Object]:
    """Return empty nodes of the sizes a plan was made for, where no dump names real ones.

    128 cores, 1 TiB and 110 pods each: the usual host of eight GPUs; only GPUs matter to the plan.
    """
    found: list[Object] = []
    for pool in pools:
        for index, gpus in enumerate(pool.nodes):
            amounts = {"cpu": "128", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
            name = f"{label(pool.gpu)}-{index}"
            labels = {"kubernetes.io/hostname": name, GPU_PRODUCT: pool.product or f"NVIDIA-{pool.gpu.upper()}"}
            found.append(
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": name, "labels": labels},
                    "status": {"allocatable": amounts, "capacity": amounts},
                }
            )
    return found


def object_list(items: Sequence[Object]) -> Object:
    """Return objects as one List."""
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}


def list_bytes(items: Sequence[Object]) -> bytes:
    """Return objects as a JSON document, as `kubectl get -o json` prints one."""
    return (json.dumps(object_list(items), indent=1) + "\n").encode()
