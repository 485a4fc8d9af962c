"""Kubernetes objects of a serving plan: Deployments, LeaderWorkerSets, a DisaggregatedSet, Dynamo, KServe."""

from __future__ import annotations

from typing import Any

from treadle.codegen.serving.engines import vllm_arguments, vllm_environment
from treadle.codegen.serving.pools import PORT, VERSIONS, Pool, disaggregated, label
from treadle.ir.serving.pools import Role

IMAGE = f"vllm/vllm-openai:v{VERSIONS['vllm']}"
DYNAMO_IMAGE = f"nvcr.io/nvidia/ai-dynamo/vllm-runtime:{VERSIONS['dynamo-runtime']}"
"""Dynamo's own image: its components are modules of it, which the plain engine's image does not have."""
_GPU = "nvidia.com/gpu"
_SHM_GIB = 16
Object = dict[str, Any]


def container(pool: Pool, model: str, name: str = "engine") -> Object:
    """Return the container of one pod of an engine; host memory that keeps prefixes is requested."""
    amounts = {_GPU: str(pool.gpus_per_node)}
    asked = {**amounts, "memory": f"{pool.pod_gib + _SHM_GIB}Gi"} if pool.host_gib else amounts
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    environment = vllm_environment(pool)
    built: Object = {
        "name": name,
        "image": IMAGE,
        "command": ["vllm"],
        "args": vllm_arguments(pool, model),
        "ports": [{"containerPort": PORT, "name": "http"}],
        "resources": {"limits": amounts, "requests": asked},
        "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 10},
        "volumeMounts": mounts,
    }
    if environment:
        built["env"] = [{"name": key, "value": value} for key, value in environment.items()]
        mounts.append({"name": "cache", "mountPath": "/cache"})
    return built


def pod_spec(pool: Pool, model: str, name: str = "engine") -> Object:
    """Return the pod of an engine (one of several for an engine over nodes)."""
    spec: Object = {
        "containers": [container(pool, model, name)],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{_SHM_GIB}Gi"}}],
        "tolerations": [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}],
    }
    if vllm_environment(pool):
        size = -(-pool.storage_bytes // pool.nodes >> 30) + 1
        spec["volumes"].append({"name": "cache", "emptyDir": {"sizeLimit": f"{size}Gi"}})
    if pool.product:
        spec["nodeSelector"] = {f"{_GPU}.product": pool.product}
    return spec


def metadata(name: str, namespace: str, **labels: str) -> Object:
    """Return object metadata."""
    data: Object = {"name": name, "labels": {"app.kubernetes.io/managed-by": "treadle", **labels}}
    if namespace:
        data["namespace"] = namespace
    return data


def deployments(pools: tuple[Pool, ...], model: str, served: str, namespace: str) -> list[Object]:
    """Return a Deployment and a Service per pool whose engines stay within a node."""
    found: list[Object] = []
    for pool in pools:
        if pool.nodes > 1:
            continue
        name = label(f"{served}-{pool.name}")
        chosen = {"app": name, "treadle/role": pool.role.value}
        found.append(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata(name, namespace, **chosen),
                "spec": {
                    "replicas": pool.replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": chosen}, "spec": pod_spec(pool, model)},
                },
            }
        )
        found.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata(name, namespace),
                "spec": {"selector": {"app": name}, "ports": [{"port": PORT, "targetPort": PORT, "name": "http"}]},
            }
        )
    return found


def _group(pool: Pool, model: str) -> Object:
    """Return the leader-worker part that LeaderWorkerSet and DisaggregatedSet share."""
    return {
        "replicas": pool.replicas,
        "leaderWorkerTemplate": {
            "size": pool.nodes,
            "workerTemplate": {
                "metadata": {"labels": {"treadle/role": pool.role.value}},
                "spec": pod_spec(pool, model),
            },
        },
    }


def leader_worker_sets(pools: tuple[Pool, ...], model: str, served: str, namespace: str) -> list[Object]:
    """Return a LeaderWorkerSet per pool: also right for engines over several nodes."""
    return [
        {
            "apiVersion": VERSIONS["lws"],
            "kind": "LeaderWorkerSet",
            "metadata": metadata(label(f"{served}-{pool.name}"), namespace),
            "spec": _group(pool, model),
        }
        for pool in pools
    ]


def disaggregated_set(pools: tuple[Pool, ...], model: str, served: str, namespace: str) -> list[Object]:
    """Return one DisaggregatedSet with a role per prefill and decode pool; nothing for aggregated plans."""
    roles = [
        {"name": label(pool.name), "spec": _group(pool, model)} for pool in pools if pool.role is not Role.AGGREGATED
    ]
    if not roles:
        return []
    return [
        {
            "apiVersion": VERSIONS["disaggregatedset"],
            "kind": "DisaggregatedSet",
            "metadata": metadata(label(served), namespace),
            "spec": {"slices": 1, "roles": roles},
        }
    ]


def dynamo_graph(pools: tuple[Pool, ...], model: str, served: str, namespace: str) -> list[Object]:
    """Return the DynamoGraphDeployment (v1beta1): a frontend and a component per pool."""
    components: list[Object] = [
        {
            "name": "frontend",
            "type": "frontend",
            "replicas": 1,
            "podTemplate": {
                "spec": {
                    "containers": [
                        {
                            "name": "main",
                            "image": DYNAMO_IMAGE,
                            "command": ["python3"],
                            "args": ["-m", "dynamo.frontend"],
                        }
                    ]
                }
            },
        }
    ]
    kinds = {Role.AGGREGATED: "worker", Role.PREFILL: "prefill", Role.DECODE: "decode"}
    for pool in pools:
        arguments = ["-m", "dynamo.vllm", "--model", *vllm_arguments(pool, model)[1:]]
        own = {"image": DYNAMO_IMAGE, "command": ["python3"], "args": arguments}
        main = {**container(pool, model, "main"), **own}
        spec = {**pod_spec(pool, model, "main"), "containers": [main]}
        components.append(
            {
                "name": label(pool.name),
                "type": kinds[pool.role],
                "replicas": pool.replicas,
                "podTemplate": {"spec": spec},
            }
        )
        if pool.nodes > 1:
            components[-1]["multinode"] = {"nodeCount": pool.nodes}
    return [
        {
            "apiVersion": VERSIONS["dynamo"],
            "kind": "DynamoGraphDeployment",
            "metadata": metadata(label(served), namespace),
            "spec": {"backendFramework": "vllm", "components": components},
        }
    ]


def kserve_service(pools: tuple[Pool, ...], model: str, served: str, namespace: str) -> list[Object]:
    """Return LLMInferenceServices: one for prefill and decode together, one per aggregated pool."""
    found = [
        _kserve(label(f"{served}-{pool.name}"), namespace, model, pool)
        for pool in pools
        if pool.role is Role.AGGREGATED
    ]
    decode = [pool for pool in pools if pool.role is Role.DECODE]
    prefill = [pool for pool in pools if pool.role is Role.PREFILL]
    for index, pool in enumerate(decode):
        service = _kserve(label(f"{served}-{pool.name}"), namespace, model, pool)
        partner = prefill[min(index, len(prefill) - 1)]
        service["spec"]["prefill"] = {
            "replicas": partner.replicas if index < len(prefill) else 0,
            "parallelism": _parallelism(partner),
            "template": pod_spec(partner, model, "main"),
            **_offloading(partner),
        }
        found.append(service)
    return found


def _kserve(name: str, namespace: str, model: str, pool: Pool) -> Object:
    return {
        "apiVersion": VERSIONS["kserve"],
        "kind": "LLMInferenceService",
        "metadata": metadata(name, namespace),
        "spec": {
            "model": {"uri": f"hf://{model}", "name": model},
            "replicas": pool.replicas,
            "parallelism": _parallelism(pool),
            "template": pod_spec(pool, model, "main"),
            "router": {"route": {}, "gateway": {}, "scheduler": {}},
            **_offloading(pool),
        },
    }


def _offloading(pool: Pool) -> Object:
    return {"kvCacheOffloading": {"cpu": f"{pool.pod_gib}Gi"}} if pool.host_gib else {}


def _parallelism(pool: Pool) -> Object:
    shape = pool.engine.shape
    degrees: Object = {"tensor": shape.tensor, "pipeline": shape.pipeline}
    if shape.expert > 1:
        degrees["expert"] = True
    return degrees


def llm_d_values(pools: tuple[Pool, ...], model: str, served: str) -> Object:
    """Return values of the llm-d modelservice chart: the first pool of each role (the chart has one each)."""
    values: Object = {
        "modelArtifacts": {"name": model, "uri": f"hf://{model}"},
        "accelerator": {"type": "nvidia"},
        "multinode": any(pool.nodes > 1 for pool in pools),
        "fullnameOverride": label(served),
    }
    split = disaggregated(pools)
    for key, role in (("decode", Role.DECODE if split else Role.AGGREGATED), ("prefill", Role.PREFILL)):
        mine = [pool for pool in pools if pool.role is role]
        if not mine:
            values[key] = {"create": False}
            continue
        pool = mine[0]
        values[key] = {
            "create": True,
            "replicas": pool.replicas,
            "parallelism": {"tensor": pool.engine.shape.tensor, "workers": pool.nodes},
            "containers": [
                {
                    "name": "vllm",
                    "image": IMAGE,
                    "modelCommand": "vllmServe",
                    "args": vllm_arguments(pool, model)[2:],
                    "ports": [{"containerPort": PORT}],
                    "resources": container(pool, model)["resources"],
                }
            ],
        }
    return values


def production_stack_values(pools: tuple[Pool, ...], model: str, served: str) -> Object:
    """Return values of the vLLM production-stack chart: a model specification per pool."""
    return {
        "servingEngineSpec": {
            "modelSpec": [
                {
                    "name": label(pool.name),
                    "repository": IMAGE.partition(":")[0],
                    "tag": IMAGE.partition(":")[2],
                    "modelURL": model,
                    "replicaCount": pool.replicas,
                    "requestCPU": 8,
                    "requestMemory": f"{max(64, pool.pod_gib + _SHM_GIB)}Gi",
                    "requestGPU": pool.gpus_per_node,
                    "vllmConfig": {
                        "tensorParallelSize": pool.engine.shape.tensor,
                        "maxNumSeqs": pool.engine.batch,
                        "gpuMemoryUtilization": 0.92,
                        "enableChunkedPrefill": True,
                        "enablePrefixCaching": True,
                        "extraArgs": [
                            f"--max-num-batched-tokens={max(pool.engine.chunk_tokens, pool.engine.batch)}",
                            f"--pipeline-parallel-size={pool.engine.shape.pipeline}",
                        ],
                    },
                    **({"lmcacheConfig": _lmcache(pool)} if pool.host_gib else {}),
                }
                for pool in pools
            ]
        }
    }


def _lmcache(pool: Pool) -> Object:
    return {"enabled": True, "cpuOffloadingBufferSize": str(max(1, pool.host_bytes // 10**9 // pool.engine.gpus))}
