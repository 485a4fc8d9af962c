"""torchtitan: command-line overrides and a configuration function, and back; a PyTorch mesh snippet.

Fields as in `torchtitan/config/configs.py` (2026-08). torchtitan shards parameters over `data_parallel_shard_degree`;
ZeRO stages 1 and 2 become sharding without resharding after forward, stage 0 replication.
"""

from __future__ import annotations

import re

from treadle.codegen.training.errors import NotReadBack
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute

_SCHEDULES = {Pipeline.ONE_F_ONE_B: "1F1B", Pipeline.INTERLEAVED: "Interleaved1F1B"}
_RECOMPUTE = {Recompute.NONE: "none", Recompute.SELECTIVE: "selective", Recompute.FULL: "full"}


def fields(body: ParallelBody) -> dict[str, object]:
    """Return the values of `ParallelismConfig` that the plan decides."""
    degrees = body.degrees
    found: dict[str, object] = {
        "data_parallel_replicate_degree": 1 if degrees.zero else degrees.data,
        "data_parallel_shard_degree": degrees.data if degrees.zero else 1,
        "fsdp_reshard_after_forward": "always" if degrees.zero == 3 else "never",
        "tensor_parallel_degree": degrees.tensor,
        "enable_sequence_parallel": body.spec.sequence_parallel,
        "pipeline_parallel_degree": degrees.pipeline,
        "context_parallel_degree": degrees.context,
        "expert_parallel_degree": degrees.expert,
    }
    if degrees.pipeline > 1:
        found["pipeline_parallel_schedule"] = _SCHEDULES[degrees.schedule]
        found["module_fqns_per_model_part"] = modules(body.layout)
    return found


def modules(layout: StageLayout) -> list[list[str]]:
    """Return the module names of every virtual stage."""
    parts: list[list[str]] = []
    for slot, (start, end) in enumerate(layout.cuts()):
        names = ["tok_embeddings"] if slot == 0 else []
        names += [f"layers.{number}" for number in range(start, end)]
        parts.append(names + (["norm", "output"] if slot == len(layout.layers) - 1 else []))
    return parts


def overrides(body: ParallelBody) -> str:
    """Return command-line overrides, one a line."""
    lines = [
        f"--parallelism.{name}={value}" for name, value in fields(body).items() if name != "module_fqns_per_model_part"
    ]
    lines += [
        f"--training.local_batch_size={body.spec.global_batch // body.degrees.data}",
        f"--training.global_batch_size={body.spec.global_batch}",
        f"--training.seq_len={body.spec.sequence_tokens}",
        f"--activation_checkpoint.mode={_RECOMPUTE[body.degrees.recompute]}",
    ]
    if body.degrees.pipeline > 1:
        lines.append(f"--parallelism.pipeline_parallel_microbatch_size={body.degrees.micro_batch}")
    return "\n".join(lines) + "\n"


def config(body: ParallelBody) -> str:
    """Return a Python module with the configuration's parallelism."""
    values = "".join(f"        {name}={value!r},\n" for name, value in fields(body).items())
    return (
        f'"""Parallelism of `{body.model.name}` on {body.degrees.gpus} GPUs: {body.degrees.text()}."""\n\n'
        "from torchtitan.config import ParallelismConfig\n\n\n"
        "def parallelism() -> ParallelismConfig:\n"
        f"    return ParallelismConfig(\n{values}    )\n"
    )


def parse_overrides(text: str, body: ParallelBody) -> Degrees:
    """Return the degrees that overrides say; ZeRO 1 and 2 are told apart by the plan. Raises NotReadBack."""
    found = dict(re.findall(r"^--[a-z_]+\.([a-z_]+)=(\S+)$", text, re.MULTILINE))
    try:
        replicate, shard = (int(found[f"data_parallel_{kind}_degree"]) for kind in ("replicate", "shard"))
        pipeline = int(found["pipeline_parallel_degree"])
        sharded = body.degrees.zero if body.degrees.zero in (1, 2) else 1
        zero = 0 if replicate > 1 or shard == 1 else 3 if found["fsdp_reshard_after_forward"] == "always" else sharded
        if replicate * shard == 1:
            zero = body.degrees.zero
        schedule = next(
            (kind for kind, word in _SCHEDULES.items() if word == found.get("pipeline_parallel_schedule")),
            Pipeline.ONE_F_ONE_B,
        )
        local = int(found["local_batch_size"])
        micro = int(found["pipeline_parallel_microbatch_size"]) if pipeline > 1 else body.degrees.micro_batch
        if local * replicate * shard != int(found["global_batch_size"]):
            raise NotReadBack(file="torchtitan.args", reason="local and global batch differ")
        return Degrees(
            replicate * shard,
            int(found["tensor_parallel_degree"]),
            int(found["context_parallel_degree"]),
            pipeline,
            micro,
            body.degrees.virtual if schedule is Pipeline.INTERLEAVED else 1,
            int(found["expert_parallel_degree"]),
            body.degrees.expert_tensor,
            zero,
            Recompute(found["mode"]),
            schedule,
            body.degrees.order,
        )
    except (KeyError, ValueError) as error:
        raise NotReadBack(file="torchtitan.args", reason=repr(error)) from None


def mesh_snippet(body: ParallelBody) -> str:
    """Return a PyTorch module: the device mesh of one pipeline stage, and sharding of its blocks."""
    degrees = body.degrees
    replicate, shard = (1, degrees.data) if degrees.zero else (degrees.data, 1)
    reshard = degrees.zero == 3
    return f'''"""Device mesh and sharding of one pipeline stage of `{body.model.name}` ({degrees.text()})."""

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

SIZES = {{"dp_replicate": {replicate}, "dp_shard": {shard * degrees.context}, "tp": {degrees.tensor}}}


def mesh(device: str = "cuda") -> DeviceMesh:
    """Return the mesh of a stage's ranks."""
    return init_device_mesh(device, tuple(SIZES.values()), mesh_dim_names=tuple(SIZES))


def shard(model: torch.nn.Module, blocks: list[torch.nn.Module], on: DeviceMesh) -> torch.nn.Module:
    """Shard every block, then the rest, over the data ranks."""
    data = on["dp_replicate", "dp_shard"]
    for block in blocks:
        fully_shard(block, mesh=data, reshard_after_forward={reshard})
    return fully_shard(model, mesh=data, reshard_after_forward={reshard})
'''
