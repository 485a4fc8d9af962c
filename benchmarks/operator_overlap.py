"""Overlap within a layer: NanoFlow's setting, a 256-expert model, random loops, and TokenWeave's split.

Run: `python -m benchmarks.operator_overlap --json OUT`. Needs no data: the models' published shapes are below.
"""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from typing import Any

from benchmarks.common import arguments, finish, percentile, table
from treadle.costmodels.machines import load_machine
from treadle.costmodels.operator_loop import in_turn_ns, layer_loop, predictions
from treadle.driver.overlap import OverlapRequest, best_overlap, text_of, what_more_buys
from treadle.frontends.hf import parse_model
from treadle.ir.model import ModelGraph
from treadle.ir.operator.claims import recheck
from treadle.ir.operator.loop import Dependence, Mode, Operator, OperatorLoop, Stream
from treadle.ir.operator.plan import OverlapBody, Step
from treadle.ir.operator.schedule import check
from treadle.ir.operator.waves import Tiling
from treadle.solvers.backend import Limits
from treadle.solvers.overlap.solve import OverlapOptions, schedule
from treadle.solvers.overlap.token_split import brute_force_split, token_split

LLAMA_2_70B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000,
    "max_position_embeddings": 4096, "torch_dtype": "float16", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    "hidden_act": "silu",
}  # fmt: skip
"""The published config.json of Llama-2-70B, as far as it matters."""

DEEPSEEK_V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61, "first_k_dense_replace": 3,
    "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "moe_layer_freq": 1,
    "vocab_size": 129280, "max_position_embeddings": 163840, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "hidden_act": "silu", "scoring_func": "sigmoid", "topk_method": "noaux_tc",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
}  # fmt: skip
"""The published config.json of DeepSeek-V3, in short (fp8 weights, products costed at the bfloat16 rate)."""

SETTINGS = (
    # NanoFlow (arXiv 2408.12757): LLaMA-2-70B, 8 x A100 80GB, dense batch 2048; input 512, output 512 tokens:
    # half of the rows decode with a mean context of 512 + 256 tokens.
    ("llama-2-70b", LLAMA_2_70B, "a100", Step(1024, 768, 2, 512)),
    ("deepseek-v3", DEEPSEEK_V3, "h200", Step(2048, 2048, 1, 1024)),
)

PUBLISHED = {"nanoflow_share_of_optimal": [0.59, 0.72]}
"""Share of the optimum that NanoFlow measures over its models and workloads (arXiv 2408.12757, second-hand)."""

# Column tiles of 128 of Llama-2-70B's four products on one of 8 GPUs, tiles of 128 rows, 132 SMs (H100).
TILING = Tiling(128, 132, (10, 64, 56, 64))


def layer_row(name: str, config: dict[str, Any], machine_id: str, step: Step) -> dict[str, Any]:
    """Plan one layer and return its figures."""
    model = parse_model(json.dumps(config), name=name)
    machine = load_machine(machine_id)
    started = time.perf_counter()
    best, tried = best_overlap(model, machine, OverlapRequest(machine_id, 8, step), lambda _: None)
    seconds = time.perf_counter() - started
    loop = layer_loop(model, machine, 8, step, best.sizes)
    body = OverlapBody(model, machine, 8, step, best.sizes, loop, best.schedule, tried)
    started = time.perf_counter()
    schedule(loop, OverlapRequest(machine_id, 8, step).options)
    once = time.perf_counter() - started
    findings = [*check(loop, best.schedule), *recheck(loop, best.schedule, best.certificate).findings]
    level = best.certificate["period"]
    return {
        "model": name,
        "machine": machine_id,
        "nano_batches": text_of(best.sizes),
        "period_us": best.schedule.period_ns / 1000,
        "bound_us": (level.bound or 0) / 1000,
        "status": level.status.value,
        "proof": level.proof.value,
        "gap": level.gap,
        "seconds_all_sizes": round(seconds, 2),
        "seconds_one_size": round(once, 2),
        "findings": len(findings),
        "tried_us": {sizes: ns / 1000 for sizes, ns in tried.items()},
        "in_turn_us": in_turn_ns(layer_loop(model, machine, 8, step, (256,))) / 1000,
        **{item.name: item.value for item in predictions(body)},
        "with_a_quarter_more_us": {what: ns / 1000 for what, ns in what_more_buys(body).items()},
    }


def published_order_us(model: ModelGraph, step: Step) -> float:
    """Return the period of two equal nano-batches: the sizes NanoFlow starts from, scheduled as well as we can."""
    loop = layer_loop(model, load_machine("a100"), 8, step, (128, 128))
    return schedule(loop)[0].period_ns / 1000


def random_loop(seed: int) -> OperatorLoop:
    """Return a small periodic loop of one or two chains."""
    dice = random.Random(seed)
    operators: list[Operator] = []
    edges: list[Dependence] = []
    for chain in range(dice.randint(1, 2)):
        names = [f"{chain}.{position}" for position in range(dice.randint(1, 2))]
        for name in names:
            modes = [
                Mode(str(number), dice.randint(1, 4), {"a": dice.choice([300, 600, 1000]), "b": dice.choice([0, 500])})
                for number in range(dice.randint(1, 2))
            ]
            operators.append(Operator(name, tuple(modes)))
        edges += [Dependence(source, target) for source, target in pairwise(names)]
        edges.append(Dependence(names[-1], names[0], 1))
    return OperatorLoop(f"random {seed}", (Stream("a"), Stream("b")), tuple(operators), tuple(edges))


def random_loops(count: int) -> dict[str, Any]:
    """Schedule small loops: how many are proven least, and how many of those without a solver's word."""
    options = OverlapOptions(limits=Limits(deterministic_s=2.0))
    proven = checked = findings = 0
    for seed in range(count):
        loop = random_loop(seed)
        found, certificate = schedule(loop, options)
        level = certificate["period"]
        proven += level.status.value == "optimal"
        checked += level.status.value == "optimal" and level.proof.checkable
        findings += len(check(loop, found)) + len(recheck(loop, found, certificate).findings)
    return {"loops": count, "proven": proven, "proven_without_solver": checked, "findings": findings}


def splits() -> dict[str, Any]:
    """Compare the wave-aware split with brute force on every batch from 256 to 32,768 tokens."""
    table_of_waves = [TILING.waves(tokens) for tokens in range(32769)]
    times: list[float] = []
    different = more_waves = 0
    for tokens in range(256, 32769):
        started = time.thread_time()  # other programs on the machine do not count
        found = token_split(TILING, tokens)
        times.append(time.thread_time() - started)
        more_waves += found.waves > table_of_waves[tokens]
        half = tokens // 2
        allowed = table_of_waves[tokens]
        # Brute force over all first parts, most even first, on tabulated waves.
        best = next(n for n in range(half, -1, -1) if table_of_waves[n] + table_of_waves[tokens - n] == allowed)
        different += best != found.first
    sampled = range(256, 32769, 4001)
    different += sum(brute_force_split(TILING, tokens) != token_split(TILING, tokens) for tokens in sampled)
    return {
        "batches": len(times),
        "different_from_brute_force": different,
        "more_waves_than_unsplit": more_waves,
        "milliseconds_median": percentile(times, 0.5) * 1000,
        "milliseconds_largest": max(times) * 1000,
    }


def main() -> None:
    """Run everything and print the table."""
    options = arguments("Overlap within a layer")
    rows = [layer_row(*setting) for setting in SETTINGS]
    header = ("layer", "sizes", "us", "bound", "gap", "in turn", "of optimal", "in turn of optimal", "s per size")
    table(
        header,
        [
            (
                row["model"], row["nano_batches"], row["period_us"], row["bound_us"], row["gap"], row["in_turn_us"],
                row["share_of_optimal"], row["in_turn_share_of_optimal"], row["seconds_one_size"],
            )
            for row in rows
        ],
    )  # fmt: skip
    figures = {
        "published": PUBLISHED,
        "nanoflow_equal_halves_us": published_order_us(
            parse_model(json.dumps(LLAMA_2_70B), name="llama-2-70b"), SETTINGS[0][3]
        ),
        "random_loops": random_loops(500),
        "token_split": splits(),
        "note": NOTE,
    }
    print(json.dumps({name: figures[name] for name in ("random_loops", "token_split")}, indent=1))
    finish("operator_overlap", figures, rows, options.json)


NOTE = (
    "Predictions of treadle's own kernel model, not measurements. Products run at bfloat16 peak x calibrated "
    "efficiency (0.824 on A100): compute alone would give 82 % of the vendor-peak optimum, and with the chosen "
    "sizes the bound over concurrent operators (bound_us) caps LLaMA-2-70B at 71 %, so the 80 % that was aimed at "
    "is out of reach of these sizes in this model. Norms and residuals are repeated on all GPUs; kernel rates are "
    "proportional to the share of SMs; memory bandwidth saturates at 40 % of the SMs (NanoFlow). At most two "
    "nano-batches. Products of fp8 weights are costed at the bfloat16 rate. The gap of the split layers is open "
    "(`feasible`); the checker re-derives the bound. NanoFlow's own pipeline is not replayed here."
)

if __name__ == "__main__":
    main()
