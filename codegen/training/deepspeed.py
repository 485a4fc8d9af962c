"""A DeepSpeed configuration for plans without pipeline and context ranks, and back."""

from __future__ import annotations

import json

from treadle.codegen.training.errors import NotReadBack
from treadle.ir.training.plan import Degrees, ParallelBody


def applies(degrees: Degrees) -> bool:
    """Whether DeepSpeed's JSON can say the plan: its pipeline and sequence ranks are set in code, not in the file."""
    return degrees.pipeline == degrees.context == degrees.expert == 1


def config(body: ParallelBody) -> str:
    """Return the JSON configuration."""
    degrees, spec = body.degrees, body.spec
    document: dict[str, object] = {
        "train_batch_size": spec.global_batch,
        "train_micro_batch_size_per_gpu": degrees.micro_batch,
        "gradient_accumulation_steps": degrees.microbatches(spec.global_batch),
        "zero_optimization": {"stage": degrees.zero, "overlap_comm": spec.overlap_gradients},
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
        zero = document["zero_optimization"]["stage"]
        return Degrees(data, tensor, 1, 1, micro, zero=zero, recompute=body.degrees.recompute, order=body.degrees.order)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise NotReadBack(file="deepspeed.json", reason=repr(error)) from None
