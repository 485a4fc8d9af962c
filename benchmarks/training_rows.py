"""Published training runs as problems of the training cost model: what the columns say, and how the rest is read.

What a source leaves open is read the same way for all its rows, and said here:

- SC'21 Table 1 gives no microbatch size, Megatron-Bridge and Llama 3 no recomputation (their runs were tuned): the
  fastest that fits the GPU, by the model, is taken.
- vTrain's single-node runs name no recomputation (the column repeats a default of the simulator). Their times need
  218 TFLOP/s of an A100 with it, unfused attention included, and 164 without; the same stack reaches 150 on several
  nodes: they are read as run without.
- Llama 3's TFLOP/s count causal attention: with the whole square, 38 % of the peak at 131,072 tokens would ask for
  fewer FLOP/s of attention products than at 8,192.
- torchtitan without `compile` runs norms, rotations and gates one small kernel at a time, in 32 bits: 40 h elements
  more are moved per token and layer, and every second product's result is kept (7.75 h instead of 6.5 h with the
  layer's input and attention). Since 2025 `compile` covers the loss as well (components/loss.py);
  Megatron-Bridge's providers fuse it (cross_entropy_loss_fusion).
- Megatron-LM since 2022 sums gradients of activations beside the products of those of weights
  (tensor_parallel/layers.py); Llama 3 tells no such overlap.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from treadle.costmodels.training_machine import UnsupportedPrecision, training_gpu, training_gpu_ids
from treadle.costmodels.training_replay import Replay, replay
from treadle.costmodels.training_step import Setting, setting_of
from treadle.frontends.training_runs import NoUsableRun, Run, read_runs
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import TrainingModel, dense_layer
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute, TrainingSpec

GPUS = {
    "A100": "a100",
    "A100-40GB": "a100",
    "A100-80GB": "a100",
    "H100": "h100",
    "H100-80GB": "h100",
    "H100-96GB-HBM2e-500W": "h100-96gb",
    "H200": "h200",
    "B200": "b200",
    "GB200": "gb200",
    "GB300": "gb300",
    "MI300X": "mi300x",
}
"""GPU names of the file -> ids of the calibration; others are reported as left out."""

SOURCES = {
    "single.csv": "vTrain single node",
    "multi.csv": "vTrain multi node",
    "2104.04473": "SC'21 Table 1",
    "2205.05198": "Korthikanti Table 5",
    "2407.21783": "Llama 3 Table 4",
    "llama3_h100_202412": "torchtitan 2024-12",
    "asyncTP": "torchtitan async TP",
    "trainy": "torchtitan H200",
    "Megatron-Bridge": "Megatron-Bridge",
    "llm-foundry": "llm-foundry",
}
"""A word of the source column -> short name."""

_PRECISIONS = {"amp_bf16": "bf16", "": "bf16", "fp8-tensorwise": "fp8", "fp8-rowwise": "fp8"}
_UNSTATED_VIRTUAL = {"Llama 3 Table 4": 8}
"""Interleaved chunks the paper tells in words (arXiv 2407.21783, section 3.3.2: one layer a chunk, 126 = 16 x
8 - 2)."""
_UNSTATED_MICRO_BATCHES = (1, 2, 4, 8, 16)
_UNSTATED_RECOMPUTE = (Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL)
_CLASSIC = ("vTrain", "SC'21", "Korthikanti")
"""Sources before fused attention: GPT layers with biases and dropout, scores in memory, no overlap of gradients."""
_OVERLAPPED = ("Korthikanti", "Megatron-Bridge")
_EAGER_SOURCES, _FUSED_LOSS = ("torchtitan 2024-12",), ("torchtitan H200", "Megatron-Bridge")
_EAGER_MOVED, _EAGER_SAVED = 40, Fraction(5, 4)
_NO_RECOMPUTE = ("vTrain single node",)
_CAUSAL_FLOPS = ("Llama 3 Table 4",)
_NVL72_DOMAIN = 64
"""GPUs of a rack that runs of a power of two take."""
_NEEDED = ("layers", "hidden", "heads", "ffn", "vocab", "seq", "n_gpus", "tp", "pp", "dp", "global_batch")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured run: the problem, what was run, and what was measured."""

    source: str
    group: tuple[str, ...]
    gpu: str
    model: TrainingModel
    cluster: ClusterTopology
    spec: TrainingSpec
    degrees: Degrees
    layout: StageLayout
    measured_s: float
    measured_peak_gib: float | None
    key: str
    """Digest of the row's text, for choosing fit rows."""
    tuned: tuple[Degrees, ...] = ()
    """What may have been run where the source left it open; the fastest that fits is taken."""

    def setting(self) -> Setting:
        """Return the row's problem resolved."""
        return setting_of(self.model, self.cluster, self.spec)

    def predict(self, setting: Setting | None = None) -> Replay:
        """Replay the row, in its setting or one with other constants."""
        setting = setting or self.setting()
        if not self.tuned:
            return replay(setting, self.degrees, self.layout)
        found = [replay(setting, degrees, self.layout) for degrees in self.tuned]
        fitting = [item for item in found if item.peak_bytes <= setting.gpu.memory_bytes]
        return min(fitting or found, key=lambda item: item.step_us)


def source_name(text: str) -> str:
    """Return the short name of a source column."""
    return next((name for word, name in SOURCES.items() if word in text), text[:40] or "unnamed source")


def read(path: Path) -> tuple[list[Row], dict[str, int]]:
    """Return the usable rows, and why and how often others are left out.

    Raises:
        UnreadableFile, NotTrainingRuns, BadRunValue: the file is no such table. NoUsableRun: no row is left.
    """
    rows: list[Row] = []
    skipped: dict[str, int] = defaultdict(int)
    runs = read_runs(path)
    for run in runs:
        result = _reason(run) or _row(run)
        if isinstance(result, str):
            skipped[result] += 1
        else:
            rows.append(result)
    if not rows:
        reasons = ", ".join(f"{why} ({count})" for why, count in skipped.items())
        raise NoUsableRun(rows=len(runs), reasons=reasons, gpus=", ".join(GPUS), place=runs[0].place)
    return rows, dict(skipped)


def fit_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows constants may be fitted on: the fifth of each source with the smallest digests.

    A GPU type whose sources are all below five rows gives the fifth of its rows together.
    """
    by_source: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_source[row.gpu, row.source].append(row)
    chosen: list[Row] = []
    for gpu in dict.fromkeys(gpu for gpu, _ in by_source):
        parts = [members for (kind, _), members in by_source.items() if kind == gpu]
        if all(len(members) < 5 for members in parts):
            parts = [[row for members in parts for row in members]]
        for members in parts:
            chosen.extend(sorted(members, key=lambda row: row.key)[: len(members) // 5])
    return chosen


def even_layout(layers: int, slots: int) -> StageLayout:
    """Return the even split; what is left over goes to the stages in the middle, away from embedding and loss."""
    base, rest = divmod(layers, slots)
    first = (slots - rest + 1) // 2
    return StageLayout(tuple(base + (first <= slot < first + rest) for slot in range(slots)))


def _gpu(run: Run) -> str | None:
    name = run.text("gpu")
    return GPUS.get(name) or next((known for known in training_gpu_ids() if known == name.lower()), None)


def _precision(run: Run) -> str:
    text = run.text("precision").lower()
    return _PRECISIONS.get(text, text)


def _reason(run: Run) -> str | None:
    """Return why a run cannot be predicted, or None."""
    gpu = _gpu(run)
    if gpu is None:
        return f"GPU {run.text('gpu') or 'not named'} has no constants"
    if run.count("ep") > 1 or not _is_dense(run.text("model")):
        return "experts are not in the columns"
    if empty := [name for name in _NEEDED if not run.text(name)]:
        return f"column {empty[0]} is empty"
    try:
        training_gpu(gpu).peak(_precision(run))
    except UnsupportedPrecision:
        return f"{gpu} has no rate for the precision {run.text('precision')}"
    return _misfit(run)


def _misfit(run: Run) -> str | None:
    """Return which of a run's numbers do not go together, or None."""
    degrees = _degrees(run)
    if degrees.gpus != run.whole("n_gpus"):
        return "degrees do not multiply to the GPUs"
    if run.count("hidden") % run.count("heads"):
        return "heads do not divide the hidden size"
    if run.count("global_batch") % (degrees.data * degrees.micro_batch):
        return "batch does not split"
    if run.count("layers") < degrees.slots - 2:
        return "more stages than layers"
    if not _interleaves(degrees, run.count("global_batch")):
        return "interleaving does not split"
    return None if _measured_s(run) else "no time"


def _row(run: Run) -> Row:
    source, degrees = source_name(run.text("source")), _degrees(run)
    names = ("model", "n_gpus", "global_batch", "seq", "gpu", "precision")
    return Row(
        source,
        (source, *(run.text(name) for name in names)),
        _gpu(run) or "",
        _model(run, source),
        _cluster(run),
        _spec(run, source),
        degrees,
        even_layout(run.count("layers"), degrees.slots),
        _measured_s(run) or 0.0,
        _peak(run.text("notes")),
        run.key,
        _tuned(run, degrees),
    )


def _tuned(run: Run, degrees: Degrees) -> tuple[Degrees, ...]:
    """Return what may have been run where the source names no microbatch or no recomputation; nothing if it does."""
    notes, batch = run.text("notes"), run.count("global_batch")
    named = run.text("micro_batch") and not re.search(r"micro-batch size[^;]* not in the table", notes)
    sizes = (degrees.micro_batch,) if named else _UNSTATED_MICRO_BATCHES
    modes = (degrees.recompute,) if run.text("recompute") else tuple(_UNSTATED_RECOMPUTE)
    choices = [
        replace(degrees, micro_batch=size, recompute=mode)
        for size in sizes
        for mode in modes
        if batch % (size * degrees.data) == 0
    ]
    return tuple(choice for choice in choices if _interleaves(choice, batch)) if len(choices) > 1 else ()


def _interleaves(degrees: Degrees, batch: int) -> bool:
    """Whether a run's microbatches go round its virtual stages (all of them do with one per rank)."""
    return degrees.virtual == 1 or (degrees.pipeline > 1 and degrees.microbatches(batch) % degrees.pipeline == 0)


def _is_dense(model: str) -> bool:
    return not re.search(r"deepseek|qwen3_\d+b_a|a\d+b|gpt.?oss|kimi|nemotron|mixtral", model, re.IGNORECASE)


def _measured_s(run: Run) -> float | None:
    """Return the seconds of a step: as published, or of the model FLOP/s (6 per parameter and token, 12 L h s more)."""
    time, rate, parameters = run.number("iter_time_s"), run.number("tflops_per_gpu"), run.number("params")
    if time is not None or rate is None or parameters is None:
        return time
    layers, hidden, seq = (run.count(name) for name in ("layers", "hidden", "seq"))
    attention = 12 * layers * hidden * seq
    if source_name(run.text("source")) in _CAUSAL_FLOPS:
        attention //= 2
    return run.count("global_batch") * seq * (6 * parameters + attention) / (run.count("n_gpus") * rate * 1e12)


def _model(run: Run, source: str) -> TrainingModel:
    classic, name = source.startswith(_CLASSIC), run.text("model")
    hidden, heads = run.count("hidden"), run.count("heads")
    gated = not classic and not name.startswith(("MPT", "GPT"))
    kv_heads = run.whole("kv_heads") or heads
    kind = dense_layer("block", hidden, heads, kv_heads, run.count("ffn"), gated=gated, bias=classic, dropout=classic)
    if source in _EAGER_SOURCES and "compile" not in run.text("notes"):
        moved, saved = _EAGER_MOVED * hidden, int(_EAGER_SAVED * hidden)
        moved, saved = kind.replicated_moved + moved, kind.replicated_saved + saved
        kind = replace(kind, replicated_moved=moved, replicated_saved=saved)
    return TrainingModel(
        name,
        hidden,
        run.count("vocab"),
        (kind,),
        (("block", run.count("layers")),),
        classic or name.startswith("MPT"),
        position_parameters=run.count("seq") * hidden if classic else 0,
    )


def _cluster(run: Run) -> ClusterTopology:
    gpus, per_node = run.count("n_gpus"), run.whole("gpus_per_node") or 8
    network = 0.0
    if found := re.search(r"(\d+)\s?Gbps(?:-per-node| node)", run.text("notes") + run.text("source")):
        network = int(found[1]) / 8 / per_node
    per_node = min(gpus, per_node)
    domain = _NVL72_DOMAIN if "NVL72" in run.text("notes") and per_node == 4 else 0
    groups = (NodeGroup(_gpu(run) or "", -(-gpus // per_node), per_node),)
    return ClusterTopology(groups, network, domain_gpus=min(gpus, domain))


def _spec(run: Run, source: str) -> TrainingSpec:
    classic = source.startswith(_CLASSIC)
    return TrainingSpec(
        run.count("global_batch"),
        run.count("seq"),
        _precision(run),
        gradient_bytes=2 if "vTrain" in source else 4,
        overlap_gradients=not classic,
        fused_attention=not classic,
        fused_loss=source in _FUSED_LOSS,
        dropout=classic,
        sequence_parallel="SP" in run.text("recompute") or not classic,
    )


def _degrees(run: Run) -> Degrees:
    source, recompute, zero = source_name(run.text("source")), run.text("recompute").lower(), run.text("zero")
    mode = Recompute.SELECTIVE if "select" in recompute or "sac" in recompute else Recompute.NONE
    mode = Recompute.FULL if recompute == "full" and source not in _NO_RECOMPUTE else mode
    virtual = run.whole("vpp") or _UNSTATED_VIRTUAL.get(source, 1)
    return Degrees(
        run.count("dp"),
        run.count("tp"),
        run.count("cp"),
        run.count("pp"),
        run.count("micro_batch"),
        virtual,
        zero=_stage(zero),
        recompute=mode,
        schedule=Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B,
        overlap_tensor=source.startswith(_OVERLAPPED) or "async TP" in run.text("notes"),
    )


def _stage(zero: str) -> int:
    """Return the ZeRO stage that the column names, in digits or words; 1 where it is empty."""
    if zero in ("0", "1", "2", "3"):
        return int(zero)
    return 3 if "FSDP shard" in zero or "full" in zero.lower() else 2 if "ZeRO-2" in zero else 1


def _peak(notes: str) -> float | None:
    found = re.search(r"peak mem ([0-9.]+) GiB", notes)
    return float(found[1]) if found else None
