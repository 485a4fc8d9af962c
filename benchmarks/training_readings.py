"""How a row of published runs is read as a problem of the training cost model, source by source.

What a source leaves open is read the same way for all its rows, and said here:

- SC'21 Table 1 gives no microbatch size, Megatron-Bridge and Llama 3 no recomputation (their runs were tuned): the
  fastest that fits the GPU, by the model, is taken.
- vTrain's single-node runs name no recomputation (the column repeats a default of the simulator). Their times need
  218 TFLOP/s of an A100 with it, unfused attention included, and 164 without; the same stack reaches 150 on several
  nodes: they are read as run without.
- Trainers pad the vocabulary to whole tiles (Megatron-LM, make-vocab-size-divisible-by: 128). vTrain's single-node runs
  were not padded: without tensor ranks their loss takes 3 to 7 times what it takes on two. Its runs on several nodes
  were: told without padding, all seven of one tensor rank are 3 to 7 % too slow, more where the last stage decides.
- PyTorch's FSDP recomputes without re-entrance, which stops at the last tensor needed (`early_stop`); Megatron-LM runs
  whole layers again.
- Megatron-Bridge leaves out the chunks per rank of some runs: where layers split evenly, the fastest number that fits
  is taken, as for recomputation. LLAMA3_70B of 4 stages and 8 microbatches is 4 % faster than with 16 and five chunks;
  in one chunk its bubble alone would cost 38 %.
- Llama 3's TFLOP/s count causal attention: with the whole square, 38 % of the peak at 131,072 tokens would ask for
  fewer FLOP/s of attention products than at 8,192.
- torchtitan without `compile` runs norms, rotations and gates one small kernel at a time, in 32 bits: 40 h elements
  more are moved per token and layer, and every second product's result is kept (7.75 h instead of 6.5 h with the
  layer's input and attention). Since 2025 `compile` covers the loss as well (components/loss.py); Megatron-Bridge's
  providers fuse it (cross_entropy_loss_fusion). Its selective recomputation runs every second product again: keys,
  output and one of the two wide ones (models/llama3/infra/parallelize.py); its attention is PyTorch's
  FlashAttention-2 on every GPU, 335 of 989 TFLOP/s on Hopper (arXiv 2307.08691, section 4.1).
- Megatron-LM since 2022 sums gradients of activations beside the products of those of weights
  (tensor_parallel/layers.py); Llama 3 tells no such overlap.
- A degree or a microbatch that is not named is 1 or, for data ranks, what is left of the GPUs. Whether an MLP is gated
  is what the parameters say, or, where they are not named, the model's name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from benchmarks.training_experts import expert_model, has_experts
from treadle.costmodels.training_machine import training_gpu_ids
from treadle.frontends.training_runs import Run, RunGpuUnknown, RunMisfit, RunWithoutValue
from treadle.ir.diagnostics import closest
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import LayerKind, Product, Shard, TrainingModel, dense_layer
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Pipeline, Recompute, TrainingSpec

GPUS = {
    "A100": "a100",
    "A100-40GB": "a100-40gb",
    "A100-80GB": "a100",
    "H100": "h100",
    "H100-80GB": "h100",
    "H100-96GB-HBM2e-500W": "h100-96gb",
    "H200": "h200",
    "B200": "b200",
    "B300": "b300",
    "GB200": "gb200",
    "GB300": "gb300",
    "MI300X": "mi300x",
}
"""GPU names of the file -> ids of the calibration."""
_SPELLED = re.compile(r"(?:nvidia |amd |instinct )*(a100|h100|h200|gb200|gb300|b200|b300|mi300x)(.*)")
_SAME = re.compile(r"[- _]*((sxm|sxm4|sxm5|80 ?gb|141 ?gb|180 ?gb|192 ?gb|hgx|dgx|hbm3e?|hbm2e)[- _]*)*")
"""Words after a GPU's name that name the same part; with any other (PCIe, NVL, 64GB) it is not known."""
_SMALL = re.compile(r"[- _]*((sxm|sxm4)[- _]*)*40 ?gb[- _]*((sxm|sxm4)[- _]*)*")

SOURCES = {
    "single.csv": "vTrain single node",
    "multi.csv": "vTrain multi node",
    "2104.04473": "SC'21 Table 1",
    "2205.05198": "Korthikanti Table 5",
    "2407.21783": "Llama 3 Table 4",
    "llama3_h100_202412": "torchtitan 2024-12",
    "asyncTP": "torchtitan async TP",
    "trainy": "torchtitan H200",
    "torchtitan": "torchtitan",
    "Megatron-Bridge": "Megatron-Bridge",
    "llm-foundry": "llm-foundry",
}
"""A word of the source column -> short name."""
EXPERTS = ", experts"
"""Ends the name of a source's runs of models with experts, which are counted apart."""

_PRECISIONS = (
    (r"mx.?fp8", "mxfp8"),
    (r"fp4|float4", "nvfp4"),
    (r"fp8|float8|e4m3", "fp8"),
    (r"bf16|bfloat16|^$", "bf16"),
    (r"fp16|float16|half", "fp16"),
)
_UNSTATED_VIRTUAL = {"Llama 3 Table 4": 8}
"""Interleaved chunks the paper tells in words (arXiv 2407.21783, section 3.3.2: one layer a chunk, 126 = 16 x
8 - 2)."""
_UNSTATED_CHUNKS, _MOST_CHUNKS = ("Megatron-Bridge",), 8
UNSTATED_MICRO_BATCHES = (1, 2, 4, 8, 16)
UNSTATED_RECOMPUTE = (Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL)
_RECOMPUTED = (
    (r"^(none|no|off|false|0)$", Recompute.NONE),
    (r"select|sac|attn|attention|core|mlp|partial", Recompute.SELECTIVE),
    (r"full|uniform|true|yes|remat", Recompute.FULL),
)
_CLASSIC = ("vTrain", "SC'21", "Korthikanti")
"""Sources before fused attention: GPT layers with biases and dropout, scores in memory, no overlap of gradients."""
_OVERLAPPED = ("Korthikanti", "Megatron-Bridge")
_EAGER_SOURCES, _FUSED_LOSS = ("torchtitan 2024-12",), ("torchtitan H200", "torchtitan async TP", "Megatron-Bridge")
_EAGER_MOVED, _EAGER_SAVED = 40, Fraction(5, 4)
_NO_RECOMPUTE = ("vTrain single node",)
_UNPADDED, _PADDED_TO = ("vTrain single node",), 128
_CAUSAL_FLOPS = ("Llama 3 Table 4",)
_UNGATED = re.compile(r"mpt|gpt(?!.?oss)|opt|bloom|falcon|pythia|mt-?nlg|turing|nemotron.?4|megatron", re.IGNORECASE)
_SHORT_ATTENTION, _SHORT_ATTENTION_GPUS = 335 / 989, ("h100", "h200")
_NVL72_DOMAIN = 64
"""GPUs of a rack that runs of a power of two take."""
_NEEDED = ("layers", "hidden", "heads", "ffn", "vocab", "seq", "n_gpus", "global_batch")


def source_name(text: str) -> str:
    """Return the short name of a source column."""
    return next((name for word, name in SOURCES.items() if word in text), text[:40] or "unnamed source")


def gpu_of(run: Run) -> str:
    """Return the id of a run's GPU type; raises RunGpuUnknown."""
    name = run.text("gpu")
    if name in GPUS:
        return GPUS[name]
    if name.lower() in training_gpu_ids():
        return name.lower()
    if found := _SPELLED.fullmatch(name.lower()):
        if _SAME.fullmatch(found[2]):
            return found[1]
        if found[1] == "a100" and _SMALL.fullmatch(found[2]):
            return "a100-40gb"
    raise RunGpuUnknown(gpu=name or "not named", place=run.place, hint=closest(name, tuple(GPUS)))


def check_values(run: Run) -> None:
    """Raise RunWithoutValue, BadRunValue where a number that is needed is empty or no number."""
    for name in _NEEDED:
        if not run.text(name):
            raise RunWithoutValue(column=name, place=run.place)
        if name != "ffn" or not has_experts(run):
            run.whole(name)


def precision_of(run: Run) -> str:
    """Return a run's precision as the cost model names it, or the cell itself where it is none of them."""
    text = run.text("precision").lower()
    return next((name for pattern, name in _PRECISIONS if re.search(pattern, text)), text)


def measured_s(run: Run) -> float:
    """Return the seconds of a step: as published, or of the model FLOP/s (6 per parameter and token, 12 L h s more).

    Raises RunWithoutValue.
    """
    time, rate, parameters = run.number("iter_time_s"), run.number("tflops_per_gpu"), run.number("params")
    if time is not None:
        return time
    if rate is None or parameters is None:
        raise RunWithoutValue(column="iter_time_s" if rate is None else "params", place=run.place)
    layers, hidden, seq = (run.count(name) for name in ("layers", "hidden", "seq"))
    attention = 12 * layers * hidden * seq
    if source_name(run.text("source")) in _CAUSAL_FLOPS:
        attention //= 2
    return run.count("global_batch") * seq * (6 * parameters + attention) / (run.count("n_gpus") * rate * 1e12)


def peak_gib(run: Run) -> float | None:
    """Return the published peak of the memory."""
    found = re.search(r"peak mem ([0-9.]+) GiB", run.text("notes"))
    return float(found[1]) if found else None


def model_of(run: Run, source: str) -> TrainingModel:
    """Return a run's model; raises UnknownExperts, UnsupportedTrainingLayer."""
    if has_experts(run):
        return expert_model(run)
    classic, name, hidden = source.startswith(_CLASSIC), run.text("model"), run.count("hidden")
    model = TrainingModel(
        name,
        hidden,
        _vocabulary(run, source),
        (_kind(run, classic, gated=False),),
        (("block", run.count("layers")),),
        classic or name.startswith("MPT"),
        position_parameters=run.count("seq") * hidden if classic else 0,
    )
    if not classic and _is_gated(run, model):
        model = replace(model, kinds=(_kind(run, classic, gated=True),))
    if source.startswith("torchtitan"):
        eager = source in _EAGER_SOURCES and "compile" not in run.text("notes")
        model = replace(model, kinds=(_torchtitan_kind(model.kinds[0], hidden, eager),))
    return model


def _kind(run: Run, classic: bool, *, gated: bool) -> LayerKind:
    heads = run.count("heads")
    sizes = run.count("hidden"), heads, run.whole("kv_heads") or heads, run.count("ffn")
    return dense_layer("block", *sizes, gated=gated, bias=classic, dropout=classic)


def _is_gated(run: Run, plain: TrainingModel) -> bool:
    """Whether the MLP has a gate: with one the parameters are nearer, or, where they are not named, by the name."""
    counted = run.number("params")
    if counted is None:
        return not _UNGATED.match(run.text("model"))
    gate = run.count("layers") * run.count("hidden") * run.count("ffn")
    return abs(plain.parameters + gate - counted) < abs(plain.parameters - counted)


def _torchtitan_kind(kind: LayerKind, hidden: int, eager: bool) -> LayerKind:
    """Return a layer with every product apart, of which selective recomputation runs every second one again."""
    core = kind.attention
    assert core is not None
    kv, (qkv, proj, up, down) = core.kv_heads * core.qk_head_dim, kind.products
    queries = Product("q", hidden, qkv.outputs - 2 * kv, Shard.COLUMN)
    keys, values = (Product(name, hidden, kv, Shard.COLUMN) for name in ("k", "v"))
    wide = (Product("gate", hidden, up.outputs // 2, Shard.COLUMN), Product("up", hidden, up.outputs // 2, up.shard))
    products = (queries, keys, values, proj, *wide, down)
    kind = replace(kind, products=products, recomputed=("k", "proj", "up"))
    if not eager:
        return kind
    moved, saved = _EAGER_MOVED * hidden, int(_EAGER_SAVED * hidden)
    return replace(kind, replicated_moved=kind.replicated_moved + moved, replicated_saved=kind.replicated_saved + saved)


def _vocabulary(run: Run, source: str) -> int:
    vocabulary = run.count("vocab")
    return vocabulary if source in _UNPADDED else -(-vocabulary // _PADDED_TO) * _PADDED_TO


def cluster_of(run: Run) -> ClusterTopology:
    """Return the machines of a run."""
    gpus, per_node = run.count("n_gpus"), run.whole("gpus_per_node") or 8
    network = 0.0
    if found := re.search(r"(\d+)\s?Gbps(?:-per-node| node)", run.text("notes") + run.text("source")):
        network = int(found[1]) / 8 / per_node
    per_node = min(gpus, per_node)
    domain = _NVL72_DOMAIN if "NVL72" in run.text("notes") and per_node == 4 else 0
    groups = (NodeGroup(gpu_of(run), -(-gpus // per_node), per_node),)
    return ClusterTopology(groups, network, domain_gpus=min(gpus, domain))


def attention_share(run: Run, source: str) -> float:
    """Return the share of the peak that the source's attention reaches on the GPU; 0: that of the GPU type."""
    return _SHORT_ATTENTION if source.startswith("torchtitan") and gpu_of(run) in _SHORT_ATTENTION_GPUS else 0.0


def spec_of(run: Run, source: str) -> TrainingSpec:
    """Return the job of a run."""
    classic = source.startswith(_CLASSIC)
    return TrainingSpec(
        run.count("global_batch"),
        run.count("seq"),
        precision_of(run),
        gradient_bytes=2 if "vTrain" in source else 4,
        overlap_gradients=not classic,
        fused_attention=not classic,
        fused_loss=source.startswith(_FUSED_LOSS),
        early_stop=_stage(run.text("zero")) == 3 and "Megatron" not in run.text("source"),
        dropout=classic,
        sequence_parallel="SP" in run.text("recompute") or not classic,
    )


def recompute_of(run: Run, source: str) -> Recompute | None:
    """Return what a run computes again; None where the source does not say, or not in words that are known."""
    text = run.text("recompute").lower()
    found = next((mode for pattern, mode in _RECOMPUTED if re.search(pattern, text)), None) if text else None
    return Recompute.NONE if found is Recompute.FULL and source in _NO_RECOMPUTE else found


def degrees_of(run: Run, source: str) -> Degrees:
    """Return the degrees of a run; raises RunMisfit where data ranks are not named and the GPUs do not split."""
    virtual = run.whole("vpp") or _UNSTATED_VIRTUAL.get(source, 1)
    rest = run.count("tp") * run.count("cp") * run.count("pp")
    if not run.text("dp") and run.count("n_gpus") % rest:
        raise RunMisfit(what="GPUs do not split by the degrees", place=run.place)
    return Degrees(
        run.whole("dp") or run.count("n_gpus") // rest,
        run.count("tp"),
        run.count("cp"),
        run.count("pp"),
        run.count("micro_batch"),
        virtual,
        run.count("ep"),
        zero=_stage(run.text("zero")),
        recompute=recompute_of(run, source) or Recompute.NONE,
        schedule=schedule_of(virtual),
        overlap_tensor=source.startswith(_OVERLAPPED) or "async TP" in run.text("notes"),
    )


def schedule_of(virtual: int) -> Pipeline:
    """Return the schedule of a number of chunks per rank."""
    return Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B


def unstated_chunks(run: Run, source: str) -> tuple[int, ...]:
    """Return the numbers of equal chunks per rank that may have been run where the source leaves them out."""
    if run.text("vpp") or run.count("pp") == 1 or not source.startswith(_UNSTATED_CHUNKS):
        return ()
    per_rank, rest = divmod(run.count("layers"), run.count("pp"))
    return (1,) if rest else tuple(v for v in range(1, _MOST_CHUNKS + 1) if per_rank % v == 0)


def _stage(zero: str) -> int:
    """Return the ZeRO stage that the column names, in digits or words; 1 where it is empty or says neither."""
    if found := re.fullmatch(r"([0-3])|.*zero[-_ ]?([0-3]).*|.*stage[-_ ]?([0-3]).*", zero.lower()):
        return int(next(group for group in found.groups() if group))
    return 3 if re.search(r"fsdp|full|shard", zero.lower()) else 1
