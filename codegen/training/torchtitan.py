"""torchtitan: command-line overrides and a configuration function, and back.

Fields as in `torchtitan/config/configs.py` (2026-08). torchtitan shares parameters over `data_parallel_shard_degree`;
ZeRO stages 1 and 2 become sharing without resharding after forward, stage 0 copies. ZB-H1 has no name there and comes
as a schedule file.
"""

from __future__ import annotations

import ast
import re

from treadle.codegen.training.errors import NotReadBack
from treadle.codegen.training.mesh import data_split
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute, Sharding

_SCHEDULES = {
    Pipeline.ONE_F_ONE_B: "1F1B",
    Pipeline.INTERLEAVED: "Interleaved1F1B",
    Pipeline.ZERO_BUBBLE: "PipelineScheduleMulti",
    Pipeline.ZERO_BUBBLE_V: "ZBVZeroBubble",
}
_RECOMPUTE = {Recompute.NONE: "none", Recompute.SELECTIVE: "selective", Recompute.FULL: "full"}
SCHEDULE_FILE = "schedule.csv"


def fields(body: ParallelBody) -> dict[str, object]:
    """Return the values of `ParallelismConfig` that the plan decides."""
    degrees = body.degrees
    copies, shared = data_split(degrees, body.cluster.domain)
    found: dict[str, object] = {
        "data_parallel_replicate_degree": copies,
        "data_parallel_shard_degree": shared,
        "fsdp_reshard_after_forward": "always" if degrees.zero == 3 else "never",
        "tensor_parallel_degree": degrees.tensor,
        "enable_sequence_parallel": body.spec.sequence_parallel,
        "enable_async_tensor_parallel": degrees.overlap_tensor,
        "pipeline_parallel_degree": degrees.pipeline,
        "context_parallel_degree": degrees.context,
        "expert_parallel_degree": degrees.expert,
    }
    if degrees.pipeline > 1:
        found["pipeline_parallel_schedule"] = _SCHEDULES[degrees.schedule]
        if degrees.schedule is Pipeline.ZERO_BUBBLE:
            found["pipeline_parallel_schedule_csv"] = SCHEDULE_FILE
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


def parse_config(text: str) -> dict[str, object]:
    """Return the keyword arguments of the configuration function; raises NotReadBack."""
    try:
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        return {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in calls[0].keywords}
    except (SyntaxError, ValueError, IndexError) as error:
        raise NotReadBack(file="torchtitan_config.py", reason=repr(error)) from None


def parse_overrides(text: str, body: ParallelBody) -> Degrees:
    """Return the degrees that overrides say.

    What torchtitan cannot say is taken from the plan: ZeRO 1 against 2, expert-tensor ranks, chunks per rank. Raises
    NotReadBack.
    """
    found = dict(re.findall(r"^--[a-z_]+\.([a-z_]+)=(\S+)$", text, re.MULTILINE))
    plan = body.degrees
    try:
        copies, shared = (int(found[f"data_parallel_{kind}_degree"]) for kind in ("replicate", "shard"))
        pipeline = int(found["pipeline_parallel_degree"])
        schedule = _schedule(found.get("pipeline_parallel_schedule", "1F1B"))
        local, total = int(found["local_batch_size"]), int(found["global_batch_size"])
        if local * copies * shared != total:
            raise NotReadBack(file="torchtitan.args", reason="local and global batch differ")
        return Degrees(
            copies * shared,
            int(found["tensor_parallel_degree"]),
            int(found["context_parallel_degree"]),
            pipeline,
            int(found["pipeline_parallel_microbatch_size"]) if pipeline > 1 else plan.micro_batch,
            plan.virtual if schedule in (Pipeline.INTERLEAVED, Pipeline.ZERO_BUBBLE_V) else 1,
            int(found["expert_parallel_degree"]),
            plan.expert_tensor,
            _zero(plan, copies, shared, found["fsdp_reshard_after_forward"]),
            Recompute(found["mode"]),
            schedule,
            plan.order,
            plan.sharding if (copies, shared) == data_split(plan, body.cluster.domain) else Sharding.GLOBAL,
            plan.context_mode,
            plan.offload,
            found["enable_async_tensor_parallel"] == "True",
        )
    except (KeyError, ValueError) as error:
        raise NotReadBack(file="torchtitan.args", reason=repr(error)) from None


def _schedule(word: str) -> Pipeline:
    for kind, name in _SCHEDULES.items():
        if name == word:
            return kind
    raise NotReadBack(file="torchtitan.args", reason=f"no schedule `{word}`")


def _zero(plan: Degrees, copies: int, shared: int, reshard: str) -> int:
    """Return the ZeRO stage: nothing shared is stage 0, resharding is stage 3, the rest is the plan's 1 or 2."""
    if copies * shared == 1 or (plan.zero and shared == 1 and plan.data == 1):
        return plan.zero
    if shared == 1 and copies > 1 and plan.sharding is Sharding.GLOBAL:
        return 0
    if reshard == "always":
        return 3
    return plan.zero if plan.zero in (1, 2) else 1
