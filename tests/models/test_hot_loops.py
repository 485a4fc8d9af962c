"""Hot loops of models under a workload."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models.conftest import DEPLOYMENTS, EXAMPLES
from treadle.frontends.hf import load_model, parse_model
from treadle.frontends.hot_loops import HOT_SHARE, hot_loops, steps
from treadle.frontends.spec import load_deployment
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.errors import InvalidValue
from treadle.ir.model import ModelGraph, Operator
from treadle.ir.symbolic import evaluate
from treadle.ir.workload import (
    FAMILIES,
    ClusterRequest,
    Deployment,
    HotLoop,
    LengthQuantiles,
    Phase,
    QuantilePoint,
    Workload,
)


def request(prompt: int = 1000, output: int = 200, batch: int = 16) -> Deployment:
    lengths = LengthQuantiles((QuantilePoint(0.5, prompt, output),), "test")
    return Deployment("d", "config.json", Workload(lengths), ClusterRequest("h200"), decode_batch=batch)


def by_name(model: ModelGraph, asked: Deployment) -> dict[str, HotLoop]:
    return {loop.name: loop for loop in hot_loops(model, asked)}


def test_llama_loops(llama: ModelGraph) -> None:
    loops = by_name(llama, request())
    attention = {"heads": 32, "kv_heads": 8, "qk_head_dim": 128, "v_head_dim": 128, "window": 0}
    assert loops["prefill_attention"].shape == {"batch": 1, "seq": 1024, "kv_seq": 1024, "causal": 1, **attention}
    assert loops["decode_attention"].shape == {"batch": 16, "seq": 1, "kv_seq": 1152, **attention}
    assert loops["prefill_qkv"].shape == {"m": 1024, "n": 6144, "k": 4096}
    assert loops["prefill_gate_up"].family == "swiglu"
    assert loops["prefill_gate_up"].shape == {"m": 1024, "n": 14336, "k": 4096}
    assert loops["decode_down"].shape == {"m": 16, "n": 4096, "k": 14336}
    assert loops["prefill_norm"].shape == {"rows": 1024, "columns": 4096}
    assert loops["prefill_norm"].calls == 2 * 32 + 1
    assert loops["decode_logits"].shape == {"m": 16, "n": 128256, "k": 4096}
    assert loops["decode_qkv"].calls == 32


def test_latent_and_expert_loops(deepseek: ModelGraph) -> None:
    loops = by_name(deepseek, request())
    prefill, decode = loops["prefill_attention"].shape, loops["decode_attention"].shape
    assert (prefill["kv_heads"], prefill["qk_head_dim"], prefill["v_head_dim"]) == (128, 192, 128)
    assert (decode["kv_heads"], decode["qk_head_dim"], decode["v_head_dim"]) == (1, 576, 512)
    assert loops["prefill_experts_gate_up"].shape == {"experts": 256, "tokens": 1024, "top_k": 8, "n": 4096, "k": 7168}
    assert loops["prefill_experts_gate_up"].calls == 58
    # Dense and expert layers share their attention loops.
    assert loops["decode_output"].calls == 61
    assert len(loops["decode_output"].operators) == 2


def test_windows_and_chunks() -> None:
    sizes = {
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1024,
    }  # fmt: skip
    mistral = parse_model(json.dumps({"model_type": "mistral", "sliding_window": 300, **sizes}))
    loops = by_name(mistral, request(2000))
    assert loops["prefill_attention"].shape["window"] == 300
    assert loops["decode_attention"].shape["kv_seq"] == 300
    assert by_name(mistral, request(100))["prefill_attention"].shape["window"] == 0
    chunked = parse_model(
        json.dumps(
            {
                "model_type": "llama4_text",
                "attention_chunk_size": 512,
                "num_local_experts": 4,
                "num_experts_per_tok": 1,
                **sizes,
            }
        )
    )
    shapes = [loop.shape for loop in hot_loops(chunked, request(2000)) if loop.family == "attention_fwd"]
    assert sorted((shape["batch"], shape["seq"]) for shape in shapes) == [(1, 2048), (4, 512)]


@pytest.mark.parametrize("folder", DEPLOYMENTS)
def test_every_loop_covers_the_flops_of_its_operators(folder: str) -> None:
    asked = load_deployment(EXAMPLES / folder)
    model = load_model(asked.model_path)
    loops = hot_loops(model, asked)
    assert len({loop.name for loop in loops}) == len(loops)
    assert {loop.phase for loop in loops} == set(Phase)
    for loop in loops:
        values = steps(asked)[loop.phase].values()
        operators = [(name.split(".")[0], operator_of(model, name)) for name in loop.operators]
        if loop.family in ("gemm", "swiglu"):
            flops = sum(model.counts[layer] * evaluate(operator.flops, **values) for layer, operator in operators)
            shape = loop.shape
            assert flops == loop.calls * 2 * shape["m"] * shape["n"] * shape["k"] * (
                2 if loop.family == "swiglu" else 1
            )
        assert set(loop.shape) == set(FAMILIES[loop.family])
        assert decode(HotLoop, encode(loop), file_locator("x")) == loop


def operator_of(model: ModelGraph, name: str) -> Operator:
    layer, operator = name.split(".")
    return model.layer(layer).operator(operator)


def test_cold_operators_have_no_loop(mixtral: ModelGraph) -> None:
    assert 0 < HOT_SHARE < 0.1
    assert not [loop for loop in hot_loops(mixtral, request()) if any("router" in name for name in loop.operators)]


def test_loops_do_not_depend_on_the_trace(llama: ModelGraph, tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n")
    spec = tmp_path / "deployment.toml"
    (tmp_path / "config.json").write_text("{}")
    spec.write_text(
        'model = "config.json"\nworkload = { trace = "t.csv", format = "azure-2023" }\ncluster = { gpu = "h200" }\n'
    )
    asked = load_deployment(spec)
    kept = replace(asked, workload=replace(asked.workload, requests=()))
    assert hot_loops(llama, asked) == hot_loops(llama, kept)


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("gemm", {"m": 1, "n": 1}),
        ("gemm", {"m": 0, "n": 1, "k": 1}),
        ("gemv", {"m": 1}),
        ("gemm", {"m": 1, "n": 1, "k": 1, "b": 1}),
    ],
)
def test_loops_are_valid_once_built(family: str, shape: dict[str, int]) -> None:
    with pytest.raises(InvalidValue):
        HotLoop("x", family, shape, "bfloat16", Phase.PREFILL, 1)
