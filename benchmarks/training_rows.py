"""Published training runs (`measured_training_runs.csv`) as problems of the training cost model."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from treadle.costmodels.training_replay import Replay, replay
from treadle.costmodels.training_step import Setting, setting_of
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import TrainingModel, dense_layer
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute, TrainingSpec

GPUS = {
    "A100": "a100",
    "A100-80GB": "a100",
    "H100": "h100",
    "H100-80GB": "h100",
    "H100-96GB-HBM2e-500W": "h100-96gb",
    "H200": "h200",
}
"""GPU names of the file -> ids of the calibration; others are reported as skipped."""

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

_PRECISIONS = {"amp_bf16": "bf16", "fp8-tensorwise": "fp8", "fp8-rowwise": "fp8"}
_UNSTATED_VIRTUAL = {"Llama 3 Table 4": 8}
"""Interleaved chunks the paper tells in words (arXiv 2407.21783, section 3.3.2: one layer a chunk, 126 = 16 x
8 - 2)."""
_CLASSIC = ("vTrain", "SC'21", "Korthikanti")
"""Sources before fused attention: GPT layers with biases and dropout, scores in memory, no overlap of gradients."""


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

    def setting(self) -> Setting:
        """Return the row's problem resolved."""
        return setting_of(self.model, self.cluster, self.spec)

    def predict(self) -> Replay:
        """Replay the row."""
        return replay(self.setting(), self.degrees, self.layout)


def source_name(text: str) -> str:
    """Return the short name of a source column."""
    return next((name for word, name in SOURCES.items() if word in text), text[:40])


def read(path: Path) -> tuple[list[Row], dict[str, int]]:
    """Return the usable rows, and why and how often others are left out."""
    rows: list[Row] = []
    skipped: dict[str, int] = defaultdict(int)
    with path.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            result = _row(record)
            if isinstance(result, str):
                skipped[result] += 1
            else:
                rows.append(result)
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


def _row(record: dict[str, str]) -> Row | str:
    source = source_name(record["source"])
    if record["gpu"] not in GPUS:
        return f"GPU {record['gpu']} has no constants"
    missing = [name for name in ("layers", "hidden", "heads", "ffn", "vocab", "seq", "dp") if not record[name]]
    if missing:
        return f"column {missing[0]} is empty"
    if (record["ep"] or "1") != "1" or not _is_dense(record["model"]):
        return "experts are not in the columns"
    measured = _measured_s(record)
    if measured is None:
        return "no time"
    precision = _PRECISIONS.get(record["precision"], record["precision"].lower())
    if precision not in ("bf16", "fp16", "fp8"):
        return f"precision {record['precision']}"
    degrees = _degrees(record)
    if int(record["global_batch"]) % (degrees.data * degrees.micro_batch):
        return "batch does not split"
    if int(record["layers"]) < degrees.slots - 2:
        return "more stages than layers"
    group = tuple(record[name] for name in ("model", "n_gpus", "global_batch", "seq", "gpu", "precision"))
    return Row(
        source,
        (source, *group),
        GPUS[record["gpu"]],
        _model(record, source),
        _cluster(record),
        _spec(record, source, precision),
        degrees,
        even_layout(int(record["layers"]), degrees.slots),
        measured,
        _peak(record["notes"]),
        hashlib.sha256(repr(sorted(record.items())).encode()).hexdigest(),
    )


def _is_dense(model: str) -> bool:
    return not re.search(r"deepseek|qwen3_\d+b_a|a\d+b|gpt.?oss|kimi|nemotron|mixtral", model, re.IGNORECASE)


def _measured_s(record: dict[str, str]) -> float | None:
    if record["iter_time_s"]:
        return float(record["iter_time_s"])
    if not record["tflops_per_gpu"]:
        return None
    layers, hidden, seq = (int(record[name]) for name in ("layers", "hidden", "seq"))
    tokens = int(record["global_batch"]) * seq
    flops = tokens * (6 * float(record["params"]) + 12 * layers * hidden * seq)
    return flops / (int(record["n_gpus"]) * float(record["tflops_per_gpu"]) * 1e12)


def _model(record: dict[str, str], source: str) -> TrainingModel:
    classic = source.startswith(_CLASSIC)
    hidden, heads, ffn = (int(record[name]) for name in ("hidden", "heads", "ffn"))
    gated = not classic and not record["model"].startswith("MPT")
    kind = dense_layer(
        "block", hidden, heads, int(record["kv_heads"] or heads), ffn, gated=gated, bias=classic, dropout=classic
    )
    tied = classic or record["model"].startswith("MPT")
    positions = int(record["seq"]) * hidden if classic else 0
    return TrainingModel(
        record["model"],
        hidden,
        int(record["vocab"]),
        (kind,),
        (("block", int(record["layers"])),),
        tied,
        position_parameters=positions,
    )


def _cluster(record: dict[str, str]) -> ClusterTopology:
    gpus, per_node = int(record["n_gpus"]), int(record["gpus_per_node"] or 8)
    network = 0.0
    if found := re.search(r"(\d+)\s?Gbps(?:-per-node| node)", record["notes"] + record["source"]):
        network = int(found[1]) / 8 / per_node
    per_node = min(gpus, per_node)
    return ClusterTopology((NodeGroup(GPUS[record["gpu"]], gpus // per_node, per_node),), network)


def _spec(record: dict[str, str], source: str, precision: str) -> TrainingSpec:
    classic = source.startswith(_CLASSIC)
    return TrainingSpec(
        int(record["global_batch"]),
        int(record["seq"]),
        precision,
        gradient_bytes=2 if "vTrain" in source else 4,
        overlap_gradients=not classic,
        fused_attention=not classic,
        dropout=classic,
        sequence_parallel="SP" in record["recompute"] or not classic,
    )


def _degrees(record: dict[str, str]) -> Degrees:
    recompute = record["recompute"].lower()
    mode = Recompute.SELECTIVE if "select" in recompute or "sac" in recompute else Recompute.NONE
    mode = Recompute.FULL if recompute == "full" else mode
    zero = record["zero"]
    stage = 3 if zero == "3" or "FSDP shard" in zero else 2 if "ZeRO-2" in zero else 1 if zero == "" else int(zero or 0)
    virtual = int(record["vpp"] or _UNSTATED_VIRTUAL.get(source_name(record["source"]), 1))
    return Degrees(
        int(record["dp"]),
        int(record["tp"]),
        int(record["cp"] or 1),
        int(record["pp"]),
        int(record["micro_batch"] or 1),
        virtual,
        zero=stage,
        recompute=mode,
        schedule=Pipeline.INTERLEAVED if virtual > 1 else Pipeline.ONE_F_ONE_B,
    )


def _peak(notes: str) -> float | None:
    found = re.search(r"peak mem ([0-9.]+) GiB", notes)
    return float(found[1]) if found else None
