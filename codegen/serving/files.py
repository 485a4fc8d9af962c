"""All deployment files of a serving plan, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from treadle.codegen.serving import engines, kubernetes
from treadle.codegen.serving.pods import list_bytes, pending_pods
from treadle.codegen.serving.pools import VERSIONS, disaggregated, pools_of
from treadle.ir.serving.plan import ServingPlan


def serving_files(plan: ServingPlan, namespace: str = "") -> Mapping[str, bytes]:
    """Return engine configurations and manifests; every file names the version it is written for."""
    pools, model, served = pools_of(plan), plan.model, plan.served_name or plan.model
    common = (pools, model, served, namespace)
    files: dict[str, bytes] = {}
    for pool in pools:
        files[f"engines/{pool.name}.vllm.yaml"] = yaml_text([engines.vllm_config(pool, model)], "vllm")
        files[f"engines/{pool.name}.sglang.yaml"] = yaml_text([engines.sglang_config(pool, model)], "sglang")
        files[f"engines/{pool.name}.trtllm.yaml"] = yaml_text([engines.trtllm_config(pool, model)], "tensorrt-llm")
    single = kubernetes.deployments(*common)
    if len(single) == 2 * len(pools):
        files["deploy/deployments.yaml"] = yaml_text(single, "vllm")
    chosen = "deployments.yaml" if "deploy/deployments.yaml" in files else "leaderworkersets.yaml"
    files["deploy/kustomization.yaml"] = yaml_text([kustomization(resources=[chosen])], "kustomize")
    files["deploy/pods.json"] = list_bytes(pending_pods(plan, namespace))
    files["deploy/leaderworkersets.yaml"] = yaml_text(kubernetes.leader_worker_sets(*common), "lws")
    files["deploy/dynamo.yaml"] = yaml_text(kubernetes.dynamo_graph(*common), "dynamo")
    files["deploy/kserve.yaml"] = yaml_text(kubernetes.kserve_service(*common), "kserve")
    files["deploy/llm-d.values.yaml"] = yaml_text([kubernetes.llm_d_values(pools, model, served)], "llm-d")
    files["deploy/production-stack.values.yaml"] = yaml_text(
        [kubernetes.production_stack_values(pools, model, served)], "production-stack"
    )
    if disaggregated(pools):
        files["deploy/disaggregatedset.yaml"] = yaml_text(kubernetes.disaggregated_set(*common), "disaggregatedset")
    return files


def kustomization(**fields: Any) -> dict[str, Any]:
    """Return a kustomization of resources and components, for `kubectl apply -k`."""
    return {"apiVersion": VERSIONS["kustomize"], "kind": "Kustomization", **fields}


class _Plain(yaml.SafeDumper):
    """Writes repeated objects in full: aliases are legal YAML, and unwelcome in manifests."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never alias."""
        return True


def yaml_text(documents: list[dict[str, Any]], written_for: str) -> bytes:
    """Return YAML documents under a line that names the version they are written for."""
    head = f"# {written_for}: {VERSIONS[written_for]}\n"
    body: str = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False)
    return (head + body).encode()
