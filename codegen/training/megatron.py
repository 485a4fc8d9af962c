"""Megatron-LM arguments and Megatron-Bridge provider arguments, and back.

Names as in `megatron/training/arguments.py` and `megatron/core/transformer/transformer_config.py` (2026-08). The
layout string:
`E` embedding, `t` a decoder layer, `m` multi-token prediction, `L` loss, `|` between virtual stages, `*n` repeats.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

from treadle.codegen.training.errors import NotReadBack
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.ranks import shapes
from treadle.ir.training.spec import ContextMode, Offload, Order, Pipeline, Recompute, Sharding
from treadle.ir.training.trainers import block_of

_CONTEXT = {
    ContextMode.RING: "p2p",
    ContextMode.ALL_TO_ALL: "a2a",
    ContextMode.HIERARCHICAL: "a2a+p2p",
}
_MODULES = {"core": "core_attn", "mlp": "mlp", "norm": "layernorm"}
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
    values += _context_arguments(body) + _recompute_arguments(body)
    return [*(f"--{name} {_shown(value)}" for name, value in values), *(f"--{flag}" for flag in _flags(body))]


def copies_of(body: ParallelBody) -> int:
    """Return how many copies of the shared state there are (`num_distributed_optimizer_instances`)."""
    degrees = body.degrees
    if degrees.sharding is not Sharding.NODE:
        return 1
    return degrees.data * degrees.context // shapes(degrees, body.cluster.domain).replicas


def _context_arguments(body: ParallelBody) -> list[tuple[str, object]]:
    degrees = body.degrees
    values: list[tuple[str, object]] = []
    if degrees.context > 1:
        values.append(("cp-comm-type", _CONTEXT[degrees.context_mode]))
    if degrees.context_mode is ContextMode.HIERARCHICAL:
        inside = shapes(degrees, body.cluster.domain).context
        values.append(("hierarchical-context-parallel-sizes", f"{inside} {degrees.context // inside}"))
    if degrees.zero == 3:
        values.append(("data-parallel-sharding-strategy", "optim_grads_params"))
    if copies_of(body) > 1:
        values.append(("num-distributed-optimizer-instances", copies_of(body)))
    return values


def _recompute_arguments(body: ParallelBody) -> list[tuple[str, object]]:
    recompute = body.degrees.recompute
    if recompute is Recompute.NONE:
        return []
    if recompute is Recompute.FULL:
        return [("recompute-granularity", "full"), ("recompute-method", "uniform"), ("recompute-num-layers", 1)]
    if recompute is Recompute.STAGES:
        most = block_of(body.layout) or 0
        return [("recompute-granularity", "full"), ("recompute-method", "block"), ("recompute-num-layers", most)]
    return [("recompute-granularity", "selective"), ("recompute-modules", " ".join(_modules(body)))]


def _modules(body: ParallelBody) -> list[str]:
    """Return the modules that run again, in Megatron's words; `moe` beside `mlp` where layers have experts."""
    modules = body.degrees.recompute.modules(body.spec.fused_attention)
    found = [word for name, word in _MODULES.items() if name in modules]
    return found + (["moe"] if "mlp" in modules and any(kind.experts for kind in body.model.kinds) else [])


def _flags(body: ParallelBody) -> list[str]:
    degrees, spec = body.degrees, body.spec
    flags = [
        ("sequence-parallel", spec.sequence_parallel and degrees.tensor > 1),
        ("use-distributed-optimizer", degrees.zero in (1, 2)),
        ("use-megatron-fsdp", degrees.zero == 3),
        ("use-tp-pp-dp-mapping", degrees.order is Order.PIPELINE_FIRST),
        ("overlap-grad-reduce", spec.overlap_gradients),
        ("overlap-param-gather", spec.overlap_gradients and degrees.zero > 0),
        ("tp-comm-overlap", degrees.overlap_tensor),
        ("optimizer-cpu-offload", degrees.offload.optimizer),
        ("fp16" if spec.precision == "fp16" else "bf16", True),
    ]
    return [name for name, wanted in flags if wanted]


def _recompute(granularity: str, modules: list[str], body: ParallelBody) -> Recompute:
    """Return the mode that a granularity and its modules say, among those that run the same modules again."""
    if granularity != "selective":
        return Recompute(granularity)
    words = frozenset(name for name, word in _MODULES.items() if word in modules)
    same = [mode for mode in Recompute if mode.modules(body.spec.fused_attention) == words]
    if not same:
        raise NotReadBack(file="megatron arguments", reason=f"no recomputation of {' '.join(modules)}")
    return body.degrees.recompute if body.degrees.recompute in same else same[0]


def _with_block(
    degrees: Degrees, layout: StageLayout | None, method: str, layers: int, body: ParallelBody
) -> tuple[Degrees, StageLayout | None]:
    """Return what is said with `--recompute-method block`: the first layers of every virtual stage run again."""
    if method != "block":
        return degrees, layout
    layout = layout or StageLayout((body.model.layers,))
    again = tuple(min(layers, count) for count in layout.layers)
    return replace(degrees, recompute=Recompute.STAGES), StageLayout(layout.layers, again)


def _shown(value: object) -> str:
    text = str(value)
    return text if " " in text and "|" not in text else shlex.quote(text)


def script(body: ParallelBody) -> str:
    """Return a shell file that sets `PARALLEL_ARGS`."""
    lines = "\n".join(f"  {argument}" for argument in arguments(body))
    return f"# {body.degrees.text()}; {body.degrees.gpus} GPUs\nPARALLEL_ARGS=(\n{lines}\n)\n"


def parse_script(text: str, body: ParallelBody) -> tuple[Degrees, StageLayout | None]:
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
    mode = found.get("cp-comm-type", ["p2p"])[0]
    copies = number("num-distributed-optimizer-instances") if "num-distributed-optimizer-instances" in found else 1
    method = found.get("recompute-method", ["uniform"])[0]
    degrees = Degrees(
        body.degrees.gpus // (tensor * pipeline * context),
        tensor,
        context,
        pipeline,
        number("micro-batch-size"),
        virtual,
        number("expert-model-parallel-size"),
        number("expert-tensor-parallel-size"),
        zero,
        _recompute(granularity, found.get("recompute-modules", []), body),
        Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B,
        Order.PIPELINE_FIRST if "use-tp-pp-dp-mapping" in found else Order.DATA_FIRST,
        _sharding(copies, body),
        _context_mode(mode),
        Offload.OPTIMIZER if "optimizer-cpu-offload" in found else Offload.NONE,
        "tp-comm-overlap" in found,
    )
    again = number("recompute-num-layers") if method == "block" else 0
    return _with_block(degrees, layout, method, again, body)


def _sharding(copies: int, body: ParallelBody) -> Sharding:
    if copies == 1:
        return Sharding.GLOBAL
    if copies != copies_of(body):
        raise NotReadBack(file="megatron arguments", reason=f"{copies} copies of the shared state")
    return Sharding.NODE


def _context_mode(word: str) -> ContextMode:
    for mode, name in _CONTEXT.items():
        if name == word:
            return mode
    raise NotReadBack(file="megatron arguments", reason=f"no way `{word}` of context parallelism")


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
        "cp_comm_type": _CONTEXT[degrees.context_mode],
        "tp_comm_overlap": degrees.overlap_tensor,
    }
    for name, value in (*_recompute_arguments(body), *_context_arguments(body)):
        key = name.replace("-", "_")
        if key in ("recompute_modules", "hierarchical_context_parallel_sizes"):
            provider[key] = [int(item) if item.isdigit() else item for item in str(value).split()]
        elif key.startswith("recompute"):
            provider[key] = value
    if degrees.pipeline > 1:
        provider["pipeline_model_parallel_layout"] = layout_text(body.layout, body.model.predictors)
    sharded = degrees.zero in (1, 2)
    document = {
        "model": provider,
        "train": {"micro_batch_size": degrees.micro_batch, "global_batch_size": spec.global_batch},
        "optimizer": {"use_distributed_optimizer": sharded, "optimizer_cpu_offload": degrees.offload.optimizer},
        "ddp": {
            "use_distributed_optimizer": sharded,
            "use_megatron_fsdp": degrees.zero == 3,
            "num_distributed_optimizer_instances": copies_of(body),
            "overlap_grad_reduce": spec.overlap_gradients,
            "overlap_param_gather": spec.overlap_gradients and degrees.zero > 0,
        },
        "dist": {"use_tp_pp_dp_mapping": degrees.order is Order.PIPELINE_FIRST},
    }
    return json.dumps(document, indent=1) + "\n"


def parse_bridge(text: str, body: ParallelBody) -> tuple[Degrees, StageLayout | None]:
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
            body.degrees.gpus // (tensor * context * pipeline),
            tensor,
            context,
            pipeline,
            document["train"]["micro_batch_size"],
            virtual,
            model["expert_model_parallel_size"],
            model["expert_tensor_parallel_size"],
            zero,
            _recompute(model.get("recompute_granularity", "none"), model.get("recompute_modules", []), body),
            Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B,
            Order.PIPELINE_FIRST if document["dist"]["use_tp_pp_dp_mapping"] else Order.DATA_FIRST,
            _sharding(document["ddp"]["num_distributed_optimizer_instances"], body),
            _context_mode(model["cp_comm_type"]),
            Offload.OPTIMIZER if document["optimizer"]["optimizer_cpu_offload"] else Offload.NONE,
            bool(model["tp_comm_overlap"]),
        )
        method, again = model.get("recompute_method", "uniform"), int(model.get("recompute_num_layers", 0))
    except (ValueError, KeyError, TypeError) as error:
        raise NotReadBack(file="megatron_bridge.json", reason=repr(error)) from None
    return _with_block(degrees, layout, method, again, body)
