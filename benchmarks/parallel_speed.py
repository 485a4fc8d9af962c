"""Time to find and prove a training plan: three models at scale, and growth with GPUs and layers."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.curves import curve, side_by_side
from treadle.costmodels.training_setting import setting_of
from treadle.frontends.hf import parse_model
from treadle.frontends.training_model import training_model
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.spec import (
    ContextMode,
    Order,
    Pipeline,
    Recompute,
    SearchSpace,
    Sharding,
    TrainingSpec,
)
from treadle.solvers.parallel.solve import certificate, search
from treadle.solvers.stage_layout.solve import StageProblem
from treadle.solvers.stage_layout.solve import solve as solve_layout

_LLAMA = (
    '{{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": {hidden}, '
    '"intermediate_size": {ffn}, '
    '"num_hidden_layers": {layers}, "num_attention_heads": {heads}, "num_key_value_heads": 8, "vocab_size": 128256, '
    '"head_dim": 128, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, '
    '"tie_word_embeddings": false, "torch_dtype": "bfloat16"}}'
)
"""Published configurations of Llama 3.1 (70B: 8192, 28672, 80, 64; 405B: 16384, 53248, 126, 128)."""

_DEEPSEEK = (
    '{{"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 7168, '
    '"intermediate_size": 18432, '
    '"moe_intermediate_size": 2048, "first_k_dense_replace": 3, "moe_layer_freq": 1, "n_routed_experts": {experts}, '
    '"n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "topk_method": "noaux_tc", '
    '"scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 2.5, "num_hidden_layers": {layers}, '
    '"num_attention_heads": 128, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536, '
    '"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280, '
    '"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 163840, "attention_bias": false, '
    '"tie_word_embeddings": false, "torch_dtype": "bfloat16"}}'
)
"""DeepSeek-V3's published configuration, with experts and layers to vary (384 experts: a 1T model of the class)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One problem and the time it is meant to take at most."""

    name: str
    model: TrainingModel
    gpus: int
    batch: int
    sequence: int
    target_s: float | None = None
    space: SearchSpace = SearchSpace()  # noqa: RUF009  (a frozen value)


NAMED = SearchSpace(
    schedule=(Pipeline.ONE_F_ONE_B, Pipeline.INTERLEAVED),
    sharding=(Sharding.GLOBAL,),
    context_mode=(ContextMode.RING,),
    overlap_tensor=(False,),
    order=(Order.DATA_FIRST,),
    recompute=(Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL),
)
"""Degrees with experts and context ranks, virtual stages, recomputation and layout; the rest as trainers have it."""


def llama(hidden: int, ffn: int, layers: int, heads: int) -> TrainingModel:
    """Return a Llama 3.1 model."""
    return training_model(parse_model(_LLAMA.format(hidden=hidden, ffn=ffn, layers=layers, heads=heads)))


def deepseek(experts: int, layers: int) -> TrainingModel:
    """Return a model of DeepSeek-V3's form."""
    return training_model(parse_model(_DEEPSEEK.format(experts=experts, layers=layers)))


def cases(growth: bool) -> list[Case]:
    """Return the problems with targets, and those that show growth."""
    small = llama(8192, 28672, 80, 64)
    found = [
        Case("Llama 70B / 512", small, 512, 1024, 8192, 2.0),
        Case("Llama 405B / 16384", llama(16384, 53248, 126, 128), 16384, 2048, 8192, 10.0),
        Case("DeepSeek-V3 class 1T / 16384", deepseek(384, 61), 16384, 16384, 4096, 60.0, NAMED),
        Case("DeepSeek-V3 class 1T / 16384, every choice", deepseek(384, 61), 16384, 16384, 4096, 60.0),
    ]
    if growth:
        found += [Case(f"70B / {gpus}", small, gpus, 4096, 8192) for gpus in (8, 64, 512, 4096, 32768, 131072)]
        found += [Case(f"70B width, {n} layers / 512", llama(8192, 28672, n, 64), 512, 1024, 8192) for n in (32, 126)]
    return found


def measure(case: Case) -> dict[str, Any]:
    """Solve one case and return its figures."""
    cluster = ClusterTopology((NodeGroup("h100", case.gpus // 8, 8),))
    setting = setting_of(case.model, cluster, TrainingSpec(case.batch, case.sequence, search=case.space))
    start, busy = time.perf_counter(), time.process_time()
    state = search(setting)
    took, busy = time.perf_counter() - start, time.process_time() - busy
    record: dict[str, Any] = {
        "case": case.name,
        "gpus": case.gpus,
        "layers": case.model.layers,
        "parameters": case.model.parameters,
        "seconds": round(took, 3),
        "processor_seconds": round(busy, 3),
        "target_s": case.target_s,
        "candidates": state.total,
        "replayed": len(state.found),
    }
    if state.found:
        closed, wide = certificate(state).levels
        best = state.best
        record |= {"plan": best.degrees.text(), "layout": list(best.layout.layers), "step_s": best.replay.step_us / 1e6}
        record |= {"status": closed.status.value, "gap_any_layout": wide.gap}
    return record


def stage_layouts() -> list[dict[str, Any]]:
    """Solve the stage layout alone: embedding, dense layers before experts, multi-token prediction and loss."""
    rows: list[dict[str, Any]] = []
    for layers in (61, 80, 126, 128):
        for ranks, chunks in ((8, 1), (16, 1), (64, 1), (8, 2), (16, 4), (8, 8), (16, 8), (64, 2)):
            if ranks * chunks > layers + 2:
                continue
            times = (0.7,) * 3 + (1.0,) * (layers - 3)
            start = time.perf_counter()
            _, level = solve_layout(StageProblem(times, ranks, chunks, 0.2, 2.4))
            took = time.perf_counter() - start
            rows.append(
                {
                    "case": f"{layers} layers, {ranks} stages x {chunks}",
                    "seconds": round(took, 4),
                    "status": level.status.value,
                    "busiest_rank": level.value,
                    "target_s": 1.0,
                }
            )
    return rows


def drawn(rows: Sequence[dict[str, Any]]) -> str:
    """Return the time to plan by GPUs and by layers as one SVG."""
    by_gpus = [(row["gpus"], row["seconds"]) for row in rows if row["case"].startswith("70B / ")]
    by_layers = [(row["layers"], row["seconds"]) for row in rows if row["gpus"] == 512 and row["target_s"] is not None]
    by_layers += [(row["layers"], row["seconds"]) for row in rows if row["case"].startswith("70B width")]
    return side_by_side(
        curve("time to plan a 70B model", "GPUs", by_gpus),
        curve("time to plan over 512 GPUs", "layers", sorted(by_layers)),
    )


def main() -> int:
    """Print and write the table."""
    chosen = arguments(
        "speed of the parallel planner",
        growth={"action": "store_true", "help": "also show growth"},
        figure={"type": Path, "default": None, "help": "SVG file to draw the growth into"},
    )
    rows = [measure(case) for case in cases(chosen.growth)]
    table(
        ("case", "seconds", "processor s", "target", "candidates", "replayed", "step s", "gap", "plan"),
        [
            (
                row["case"],
                row["seconds"],
                row["processor_seconds"],
                row["target_s"] or "-",
                row["candidates"],
                row["replayed"],
                row.get("step_s", "-"),
                row.get("gap_any_layout", "-"),
                row.get("plan", "nothing fits"),
            )
            for row in rows
        ],
    )
    layouts = stage_layouts()
    table(
        ("stage layout alone", "seconds", "target", "status"),
        [(row["case"], row["seconds"], row["target_s"], row["status"]) for row in layouts],
    )
    figures = {row["case"]: {"seconds": row["seconds"], "gap": row.get("gap_any_layout")} for row in rows}
    figures |= {row["case"]: {"seconds": row["seconds"], "status": row["status"]} for row in layouts}
    if chosen.figure is not None:
        chosen.figure.write_text(drawn(rows), encoding="utf-8")
    finish("parallel_speed", figures, [*rows, *layouts], chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
