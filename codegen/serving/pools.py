"""The pools of a serving plan as the emitters see them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from treadle.ir.serving.plan import ServingPlan
from treadle.ir.serving.pools import Engine, Role
from treadle.ir.workload import BLOCK_TOKENS

PORT = 8000
"""Port on which every engine serves."""

VERSIONS = {
    "vllm": "0.24.0",
    "sglang": "0.5.14",
    "tensorrt-llm": "1.3.0rc20",
    "dynamo": "nvidia.com/v1beta1",
    "dynamo-runtime": "1.4.0",
    "lws": "leaderworkerset.x-k8s.io/v1",
    "disaggregatedset": "disaggregatedset.x-k8s.io/v1",
    "kserve": "serving.kserve.io/v1alpha2",
    "kustomize": "kustomize.config.k8s.io/v1beta1",
    "llm-d": "llm-d-modelservice (2026-04)",
    "production-stack": "vllm production-stack (2026)",
}
"""Versions that the files are written for."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Replicas of one engine, with the names its files carry."""

    name: str
    role: Role
    replicas: int
    engine: Engine
    nodes: int
    """Nodes that one engine spans."""
    product: str = ""
    """Label of the GPUs it must run on; empty: any."""
    host_bytes: int = 0
    """Host memory that keeps prefixes of one engine: its first cache tier."""
    storage_bytes: int = 0
    """What further tiers keep of it."""

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one pod of the engine."""
        return self.engine.gpus // self.nodes

    @property
    def host_gib(self) -> int:
        """Host memory of one engine in whole GiB, at least one where there is any."""
        return max(1, self.host_bytes >> 30) if self.host_bytes else 0

    @property
    def pod_gib(self) -> int:
        """Host memory of one pod in whole GiB, rounded up."""
        return -(-self.host_gib // self.nodes)


def pools_of(plan: ServingPlan) -> tuple[Pool, ...]:
    """Return the pools with engines, named by role and shape."""
    largest = {pool.gpu: max(pool.nodes) for pool in plan.pools.problem.gpus}
    products = {pool.gpu: pool.product for pool in plan.pools.problem.gpus}
    found: list[Pool] = []
    for engine, count in zip(plan.pools.problem.engines, plan.pools.pools.counts, strict=True):
        if count:
            name = _name(plan, engine)
            nodes = -(-engine.gpus // largest[engine.gpu])
            tiers = [int(blocks * BLOCK_TOKENS * plan.kv_bytes_per_token) for blocks in engine.cache_blocks[1:]]
            product, host = products[engine.gpu], sum(tiers[:1])
            found.append(Pool(name, engine.role, count, engine, nodes, product, host, sum(tiers[1:])))
    return tuple(found)


def _name(plan: ServingPlan, engine: Engine) -> str:
    """Return role, GPU type and shape, and the classes of requests where it takes only some."""
    parts = [engine.role.value, engine.gpu, plan.kind_of(engine).name]
    if engine.serves:
        parts.append("-".join(plan.pools.problem.classes[position].name for position in engine.serves))
    return label("-".join(parts))


def label(text: str) -> str:
    """Return a text as a Kubernetes name: lower case, digits and dashes, at most 50 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50].strip("-") or "model"


def disaggregated(pools: tuple[Pool, ...]) -> bool:
    """Whether the plan separates prefill and decode."""
    return any(pool.role is Role.PREFILL for pool in pools)
