"""Small schemas of the emitted fields, written for the tests: a fresh clone checks every file without the big ones."""

from __future__ import annotations

from typing import Any

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
COUNT = {"type": "integer", "minimum": 0}
DEGREE = {"type": "integer", "minimum": 1}


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an object schema without other properties."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


CONTAINER = closed(
    {"name": NAME, "image": {"type": "string", "pattern": "^[^:]+:.+$"}},
    {
        "command": {"type": "array", "items": {"type": "string"}},
        "args": {"type": "array", "items": {"type": "string"}},
        "ports": {"type": "array"},
        "resources": closed(
            {
                "limits": closed({"nvidia.com/gpu": {"type": "string", "pattern": "^[1-9][0-9]*$"}}),
                "requests": closed(
                    {"nvidia.com/gpu": {"type": "string"}}, {"memory": {"type": "string", "pattern": "^[0-9]+Gi$"}}
                ),
            }
        ),
        "env": {"type": "array", "items": closed({"name": {"type": "string"}, "value": {"type": "string"}})},
        "readinessProbe": {"type": "object"},
        "volumeMounts": {"type": "array"},
    },
)
POD = closed(
    {"containers": {"type": "array", "items": CONTAINER, "minItems": 1}},
    {"volumes": {"type": "array"}, "tolerations": {"type": "array"}, "nodeSelector": {"type": "object"}},
)
MAIN_POD = {
    **POD,
    "properties": {
        **POD["properties"],
        "containers": {
            **POD["properties"]["containers"],
            "contains": {"properties": {"name": {"const": "main"}}, "required": ["name", "image"]},
        },
    },
}
"""Dynamo and KServe fill in the container of this name."""
META = closed({"name": NAME, "labels": {"type": "object"}}, {"namespace": NAME})
TEMPLATE = closed({"metadata": {"type": "object"}, "spec": POD})
GROUP = closed({"replicas": DEGREE, "leaderWorkerTemplate": closed({"size": DEGREE, "workerTemplate": TEMPLATE})})


def kind(api_version: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a Kubernetes object."""
    return closed({"apiVersion": {"const": api_version}, "kind": {"const": name}, "metadata": META, "spec": spec})


OFFLOADING = closed({"cpu": {"type": "string", "pattern": "^[0-9]+Gi$"}})
PARALLELISM = closed({"tensor": DEGREE, "pipeline": DEGREE}, {"expert": {"type": "boolean"}})
KINDS: dict[str, dict[str, Any]] = {
    "Deployment": kind(
        "apps/v1",
        "Deployment",
        closed({"replicas": DEGREE, "selector": {"type": "object"}, "template": TEMPLATE}),
    ),
    "Kustomization": closed(
        {"apiVersion": {"const": "kustomize.config.k8s.io/v1beta1"}, "kind": {"const": "Kustomization"}},
        {"resources": {"type": "array"}, "components": {"type": "array"}, "patches": {"type": "array"}},
    ),
    "List": closed(
        {"apiVersion": {"const": "v1"}, "kind": {"const": "List"}, "items": {"type": "array", "minItems": 1}}
    ),
    "Service": kind("v1", "Service", closed({"selector": {"type": "object"}, "ports": {"type": "array"}})),
    "LeaderWorkerSet": kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", GROUP),
    "DisaggregatedSet": kind(
        "disaggregatedset.x-k8s.io/v1",
        "DisaggregatedSet",
        closed(
            {
                "slices": DEGREE,
                "roles": {"type": "array", "minItems": 2, "items": closed({"name": NAME, "spec": GROUP})},
            }
        ),
    ),
    "DynamoGraphDeployment": kind(
        "nvidia.com/v1beta1",
        "DynamoGraphDeployment",
        closed(
            {
                "backendFramework": {"enum": ["sglang", "vllm", "trtllm"]},
                "components": {
                    "type": "array",
                    "minItems": 2,
                    "maxItems": 25,
                    "items": closed(
                        {
                            "name": {
                                "type": "string",
                                "pattern": "^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$",
                                "maxLength": 63,
                            },
                            "type": {"enum": ["frontend", "worker", "prefill", "decode"]},
                            "replicas": DEGREE,
                            "podTemplate": closed({"spec": MAIN_POD}),
                        },
                        {"multinode": closed({"nodeCount": {"type": "integer", "minimum": 2}})},
                    ),
                },
            }
        ),
    ),
    "LLMInferenceService": kind(
        "serving.kserve.io/v1alpha2",
        "LLMInferenceService",
        closed(
            {
                "model": closed({"uri": {"type": "string"}, "name": {"type": "string"}}),
                "replicas": DEGREE,
                "parallelism": PARALLELISM,
                "template": MAIN_POD,
                "router": {"type": "object"},
            },
            {
                "prefill": closed(
                    {"replicas": COUNT, "parallelism": PARALLELISM, "template": MAIN_POD},
                    {"kvCacheOffloading": OFFLOADING},
                ),
                "kvCacheOffloading": OFFLOADING,
            },
        ),
    ),
}
ENGINES: dict[str, dict[str, Any]] = {
    "vllm": closed(
        {
            "model": {"type": "string"},
            "port": DEGREE,
            "tensor-parallel-size": DEGREE,
            "pipeline-parallel-size": DEGREE,
            "max-num-seqs": DEGREE,
            "max-num-batched-tokens": DEGREE,
            "gpu-memory-utilization": {"type": "number", "maximum": 1},
            "enable-chunked-prefill": {"type": "boolean"},
            "enable-prefix-caching": {"type": "boolean"},
        },
        {
            "enable-expert-parallel": {"type": "boolean"},
            "kv-transfer-config": closed(
                {"kv_connector": {"type": "string"}, "kv_role": {"enum": ["kv_producer", "kv_consumer", "kv_both"]}},
                {"kv_connector_extra_config": {"type": "object"}},
            ),
            "kv-offloading-size": DEGREE,
            "kv-offloading-backend": {"enum": ["native", "lmcache"]},
        },
    ),
    "sglang": closed(
        {
            "model-path": {"type": "string"},
            "port": DEGREE,
            "tensor-parallel-size": DEGREE,
            "pipeline-parallel-size": DEGREE,
            "max-running-requests": DEGREE,
            "chunked-prefill-size": DEGREE,
            "mem-fraction-static": {"type": "number", "maximum": 1},
        },
        {
            "expert-parallel-size": DEGREE,
            "disaggregation-mode": {"enum": ["prefill", "decode"]},
            "disaggregation-transfer-backend": {"enum": ["nixl", "mooncake"]},
            "enable-hierarchical-cache": {"const": True},
            "hicache-size": DEGREE,
            "hicache-storage-backend": {"enum": ["file", "nixl", "mooncake"]},
        },
    ),
    "trtllm": closed(
        {
            "tensor_parallel_size": DEGREE,
            "pipeline_parallel_size": DEGREE,
            "max_batch_size": DEGREE,
            "max_num_tokens": DEGREE,
            "enable_chunked_prefill": {"type": "boolean"},
            "kv_cache_config": {"type": "object"},
        },
        {
            "moe_expert_parallel_size": DEGREE,
            "cache_transceiver_config": {"type": "object"},
            "disable_overlap_scheduler": {"type": "boolean"},
        },
    ),
}
