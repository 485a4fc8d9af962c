"""Megatron-LM arguments and Megatron-Bridge provider arguments, and back.

Names as in `megatron/training/arguments.py` and `megatron/core/transformer/transformer_config.py` (2026-08). The
layout string:
`E` embedding, `t` a decoder layer, `m` multi-token prediction, `L` loss, `|` between virtual stages, `*n` repeats.
"""

from __future__ import annotations

import json
import re
import shlex

from treadle.codegen.training.errors import NotReadBack
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.spec import Order, Pipeline, Recompute

_TOKEN = re.compile(r"([EtmL])(?:\*(\d+))?")


def layout_text(layout: StageLayout, predictors: int) -> str:
    """Return the `--pipeline-model-parallel-layout` string."""
    parts: list[str] = []
    for slot, count in enumerate(layout.layers):
        part = "E" if slot == 0 else ""
        part += "t" * count if count < 4 else f"t*{count}"
        if slot == len(layout.layers) - 1:
            part += "m" * predictors + "L"
        parts.append(part)
    return "|".join(parts)


def parse_layout(text: str) -> tuple[StageLayout, int]:
    """Return the layout and the number of predictors that a layout string says; raises NotReadBack."""
    counts: list[int] = []
    predictors = 0
    for part in text.split("|"):
        if _TOKEN.sub("", part):
            raise NotReadBack(file="layout", reason=f"`{part}` is not a stage")
        tokens = [(match[1], int(match[2] or 1)) for match in _TOKEN.finditer(part)]
        counts.append(sum(count for letter, count in tokens if letter == "t"))
        predictors += sum(count for letter, count in tokens if letter == "m")
    return StageLayout(tuple(counts)), predictors


def arguments(body: ParallelBody) -> list[str]:
    """Return the command-line arguments of `pretrain_gpt.py` that the plan decides."""
    degrees, spec = body.degrees, body.spec
    values: list[tuple[str, object]] = [
        ("tensor-model-parallel-size", degrees.tensor),
        ("pipeline-model-parallel-size", degrees.pipeline),
        ("context-parallel-size", degrees.context),
        ("expert-model-parallel-size", degrees.expert),
        ("expert-tensor-parallel-size", degrees.expert_tensor),
        ("micro-batch-size", degrees.micro_batch),
        ("global-batch-size", spec.global_batch),
        ("seq-length", spec.sequence_tokens),
    ]
    if degrees.pipeline > 1:
        values.append(("pipeline-model-parallel-layout", layout_text(body.layout, body.model.predictors)))
    flags: list[str] = []
    if spec.sequence_parallel and degrees.tensor > 1:
        flags.append("sequence-parallel")
    if degrees.zero in (1, 2):
        flags.append("use-distributed-optimizer")
    if degrees.zero == 3:
        flags.append("use-megatron-fsdp")
        values.append(("data-parallel-sharding-strategy", "optim_grads_params"))
    if degrees.order is Order.PIPELINE_FIRST:
        flags.append("use-tp-pp-dp-mapping")
    if spec.overlap_gradients:
        flags.append("overlap-grad-reduce")
        flags += ["overlap-param-gather"] if degrees.zero else []
    flags += [spec.precision] if spec.precision in ("bf16", "fp16") else ["bf16"]
    if degrees.recompute is Recompute.FULL:
        values += [("recompute-granularity", "full"), ("recompute-method", "uniform"), ("recompute-num-layers", 1)]
    elif degrees.recompute is Recompute.SELECTIVE:
        values.append(("recompute-granularity", "selective"))
        modules = "core_attn mlp" if spec.fused_attention else "core_attn"
        values.append(("recompute-modules", modules + (" moe" if degrees.expert > 1 else "")))
    return [*(f"--{name} {_shown(value)}" for name, value in values), *(f"--{flag}" for flag in flags)]


def _shown(value: object) -> str:
    text = str(value)
    return text if " " in text and "|" not in text else shlex.quote(text)


def script(body: ParallelBody) -> str:
    """Return a shell file that sets `PARALLEL_ARGS`."""
    lines = "\n".join(f"  {argument}" for argument in arguments(body))
    return f"# {body.degrees.text()}; {body.degrees.gpus} GPUs\nPARALLEL_ARGS=(\n{lines}\n)\n"


def parse_script(text: str, gpus: int) -> tuple[Degrees, StageLayout | None]:
    """Return degrees and layout that a script says; raises NotReadBack."""
    inside = re.search(r"PARALLEL_ARGS=\(\n(.*)\n\)", text, re.DOTALL)
    if inside is None:
        raise NotReadBack(file="megatron_args.sh", reason="no PARALLEL_ARGS")
    words = shlex.split(inside[1])
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            found[name] = []
        else:
            found[name].append(word)

    def number(key: str) -> int:
        if not found.get(key) or not found[key][0].isdigit():
            raise NotReadBack(file="megatron_args.sh", reason=f"--{key} is missing or no number")
        return int(found[key][0])

    layout = (
        parse_layout(found["pipeline-model-parallel-layout"][0])[0]
        if "pipeline-model-parallel-layout" in found
        else None
    )
    tensor, pipeline = number("tensor-model-parallel-size"), number("pipeline-model-parallel-size")
    context = number("context-parallel-size")
    virtual = len(layout.layers) // pipeline if layout else 1
    zero = 3 if "use-megatron-fsdp" in found else 1 if "use-distributed-optimizer" in found else 0
    granularity = found.get("recompute-granularity", ["none"])[0]
    return Degrees(
        gpus // (tensor * pipeline * context),
        tensor,
        context,
        pipeline,
        number("micro-batch-size"),
        virtual,
        number("expert-model-parallel-size"),
        number("expert-tensor-parallel-size"),
        zero,
        Recompute(granularity),
        Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B,
        Order.PIPELINE_FIRST if "use-tp-pp-dp-mapping" in found else Order.DATA_FIRST,
    ), layout


def bridge(body: ParallelBody) -> str:
    """Return Megatron-Bridge keyword arguments as JSON: for the model provider, the optimizer and the
    data-parallel wrapper."""
    degrees, spec = body.degrees, body.spec
    provider: dict[str, object] = {
        "tensor_model_parallel_size": degrees.tensor,
        "pipeline_model_parallel_size": degrees.pipeline,
        "virtual_pipeline_model_parallel_size": degrees.virtual if degrees.virtual > 1 else None,
        "context_parallel_size": degrees.context,
        "expert_model_parallel_size": degrees.expert,
        "expert_tensor_parallel_size": degrees.expert_tensor,
        "sequence_parallel": spec.sequence_parallel and degrees.tensor > 1,
        "recompute_granularity": None if degrees.recompute is Recompute.NONE else degrees.recompute.value,
    }
    if degrees.recompute is Recompute.FULL:
        provider |= {"recompute_method": "uniform", "recompute_num_layers": 1}
    if degrees.pipeline > 1:
        provider["pipeline_model_parallel_layout"] = layout_text(body.layout, body.model.predictors)
    sharded = degrees.zero in (1, 2)
    document = {
        "model": provider,
        "train": {"micro_batch_size": degrees.micro_batch, "global_batch_size": spec.global_batch},
        "optimizer": {"use_distributed_optimizer": sharded},
        "ddp": {
            "use_distributed_optimizer": sharded,
            "use_megatron_fsdp": degrees.zero == 3,
            "overlap_grad_reduce": spec.overlap_gradients,
            "overlap_param_gather": spec.overlap_gradients and degrees.zero > 0,
        },
        "dist": {"use_tp_pp_dp_mapping": degrees.order is Order.PIPELINE_FIRST},
    }
    return json.dumps(document, indent=1) + "\n"


def parse_bridge(text: str, gpus: int) -> tuple[Degrees, StageLayout | None]:
    """Return degrees and layout of Bridge arguments; raises NotReadBack."""
    try:
        document = json.loads(text)
        model = document["model"]
        tensor, context, pipeline = (
            int(model[f"{name}_parallel_size"]) for name in ("tensor_model", "context", "pipeline_model")
        )
        layout = parse_layout(model["pipeline_model_parallel_layout"])[0] if pipeline > 1 else None
        virtual = model["virtual_pipeline_model_parallel_size"] or 1
        zero = 3 if document["ddp"]["use_megatron_fsdp"] else int(document["optimizer"]["use_distributed_optimizer"])
        degrees = Degrees(
            gpus // (tensor * context * pipeline),
            tensor,
            context,
            pipeline,
            document["train"]["micro_batch_size"],
            virtual,
            model["expert_model_parallel_size"],
            model["expert_tensor_parallel_size"],
            zero,
            Recompute(model["recompute_granularity"] or "none"),
            Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B,
            Order.PIPELINE_FIRST if document["dist"]["use_tp_pp_dp_mapping"] else Order.DATA_FIRST,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise NotReadBack(file="megatron_bridge.json", reason=repr(error)) from None
    return degrees, layout
