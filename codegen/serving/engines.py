"""Engine configurations: vLLM (`--config`), SGLang (`--config`) and TensorRT-LLM (`trtllm-serve --config`)."""

from __future__ import annotations

from typing import Any

from treadle.codegen.serving.pools import PORT, Pool
from treadle.ir.serving.pools import Role

MEMORY_SHARE = 0.92
"""Share of GPU memory the plan counts with."""


def vllm_config(pool: Pool, model: str) -> dict[str, Any]:
    """Return the long flags of `vllm serve` 0.24; keys are flags without dashes in front."""
    engine = pool.engine
    config: dict[str, Any] = {
        "model": model,
        "port": PORT,
        "tensor-parallel-size": engine.shape.tensor,
        "pipeline-parallel-size": engine.shape.pipeline,
        "max-num-seqs": sequences(pool),
        "max-num-batched-tokens": max(engine.chunk_tokens, sequences(pool)),
        "gpu-memory-utilization": MEMORY_SHARE,
        "enable-chunked-prefill": True,
        "enable-prefix-caching": True,
    }
    if engine.shape.expert > 1:
        config["enable-expert-parallel"] = True
    if pool.role is not Role.AGGREGATED:
        config["kv-transfer-config"] = _connector(pool)
    elif pool.host_gib:
        config["kv-offloading-size"] = pool.host_gib
        config["kv-offloading-backend"] = "lmcache" if pool.storage_bytes else "native"
    return config


def _connector(pool: Pool) -> dict[str, Any]:
    """Return the connector of a prefill or decode engine, beside one that keeps prefixes in host memory."""
    role = "kv_producer" if pool.role is Role.PREFILL else "kv_consumer"
    transfer: dict[str, Any] = {"kv_connector": "NixlConnector", "kv_role": role}
    if not pool.host_gib:
        return transfer
    size = {"cpu_bytes_to_use": pool.host_gib << 30}
    kept = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": size}
    both = {"connectors": [transfer, kept]}
    return {"kv_connector": "MultiConnector", "kv_role": "kv_both", "kv_connector_extra_config": both}


def vllm_environment(pool: Pool) -> dict[str, str]:
    """Return environment variables that no flag stands for: LMCache's disk, for tiers behind host memory."""
    if pool.role is not Role.AGGREGATED or not pool.storage_bytes:
        return {}
    size = max(1, pool.storage_bytes // 10**9 // pool.engine.gpus)
    return {"LMCACHE_LOCAL_DISK": "file:///cache/", "LMCACHE_MAX_LOCAL_DISK_SIZE": str(size)}


def sglang_config(pool: Pool, model: str) -> dict[str, Any]:
    """Return the arguments of `sglang.launch_server` 0.5."""
    engine = pool.engine
    config: dict[str, Any] = {
        "model-path": model,
        "port": PORT,
        "tensor-parallel-size": engine.shape.tensor,
        "pipeline-parallel-size": engine.shape.pipeline,
        "max-running-requests": sequences(pool),
        "chunked-prefill-size": max(engine.chunk_tokens, 512),
        "mem-fraction-static": MEMORY_SHARE - 0.04,
    }
    if engine.shape.expert > 1:
        config["expert-parallel-size"] = engine.shape.expert
    if pool.host_gib:
        config["enable-hierarchical-cache"] = True
        config["hicache-size"] = max(1, pool.host_bytes // 10**9 // pool.engine.gpus)
        if pool.storage_bytes:
            config["hicache-storage-backend"] = "file"
    if pool.role is not Role.AGGREGATED:
        config["disaggregation-mode"] = pool.role.value
        config["disaggregation-transfer-backend"] = "nixl"
    return config


def trtllm_config(pool: Pool, model: str) -> dict[str, Any]:
    """Return the options of `trtllm-serve --config` 1.3; the model is its positional argument."""
    engine = pool.engine
    config: dict[str, Any] = {
        "tensor_parallel_size": engine.shape.tensor,
        "pipeline_parallel_size": engine.shape.pipeline,
        "max_batch_size": sequences(pool),
        "max_num_tokens": max(engine.chunk_tokens, sequences(pool)),
        "enable_chunked_prefill": True,
        "kv_cache_config": {"free_gpu_memory_fraction": MEMORY_SHARE, "enable_block_reuse": True},
    }
    if pool.host_gib:
        config["kv_cache_config"]["host_cache_size"] = pool.host_gib << 30
    if engine.shape.expert > 1:
        config["moe_expert_parallel_size"] = engine.shape.expert
    if pool.role is not Role.AGGREGATED:
        config["cache_transceiver_config"] = {"backend": "NIXL"}
    if pool.role is Role.PREFILL:
        config["disable_overlap_scheduler"] = True
    return config


def sequences(pool: Pool) -> int:
    """Return the sequences an engine may run: the planned batch; prefill engines hold what waits for transfer."""
    return 64 if pool.role is Role.PREFILL else pool.engine.batch


def vllm_arguments(pool: Pool, model: str) -> list[str]:
    """Return the same settings as arguments of the container."""
    import json

    arguments = ["serve", model]
    for key, value in vllm_config(pool, model).items():
        if key == "model":
            continue
        if value is True:
            arguments.append(f"--{key}")
        else:
            arguments += [f"--{key}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return arguments
