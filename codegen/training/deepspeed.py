"""A DeepSpeed configuration for plans without pipeline and context ranks, and back."""

from __future__ import annotations

import json
from dataclasses import replace

from treadle.codegen.training.errors import NotReadBack
from treadle.ir.training.plan import Degrees, ParallelBody
from treadle.ir.training.ranks import shapes
from treadle.ir.training.spec import Offload, Sharding


def config(body: ParallelBody) -> str:
    """Return the JSON configuration."""
    degrees, spec = body.degrees, body.spec
    zero: dict[str, object] = {"stage": degrees.zero, "overlap_comm": spec.overlap_gradients}
    if degrees.sharding is Sharding.HIERARCHICAL:
        zero["zero_hpz_partition_size"] = shapes(degrees, body.cluster.domain).replicas
    if degrees.offload.optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    document: dict[str, object] = {
        "train_batch_size": spec.global_batch,
        "train_micro_batch_size_per_gpu": degrees.micro_batch,
        "gradient_accumulation_steps": degrees.microbatches(spec.global_batch),
        "zero_optimization": zero,
        "fp16" if spec.precision == "fp16" else "bf16": {"enabled": True},
    }
    if degrees.tensor > 1:
        document["tensor_parallel"] = {"autotp_size": degrees.tensor}
    return json.dumps(document, indent=1) + "\n"


def parse(text: str, body: ParallelBody) -> Degrees:
    """Return the degrees that a configuration says; recomputation is set in code and taken from the plan."""
    try:
        document = json.loads(text)
        micro = document["train_micro_batch_size_per_gpu"]
        data = document["train_batch_size"] // (micro * document["gradient_accumulation_steps"])
        tensor = document.get("tensor_parallel", {}).get("autotp_size", 1)
        zero = document["zero_optimization"]
        return replace(
            body.degrees,
            data=data,
            tensor=tensor,
            context=1,
            pipeline=1,
            micro_batch=micro,
            zero=zero["stage"],
            sharding=Sharding.HIERARCHICAL if "zero_hpz_partition_size" in zero else Sharding.GLOBAL,
            offload=Offload.OPTIMIZER if "offload_optimizer" in zero else Offload.NONE,
        )
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise NotReadBack(file="deepspeed.json", reason=repr(error)) from None
