"""Rooflines and serving memory of model graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from treadle.costmodels.layers import (
    UnsupportedDtype,
    forward_cost,
    forward_costs,
    layer_cost,
    layer_costs,
    operator_cost,
    rates,
    ridge_tokens,
)
from treadle.costmodels.machines import load_machine
from treadle.costmodels.model_memory import activation_bytes, cache_bytes, serving_memory, weight_bytes
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import MissingFigure
from treadle.ir.model import ModelGraph, Step

PREFILL, DECODE = Step(1, 2048, 2048), Step(64, 1, 1152)


def test_roofline_of_one_product(llama: ModelGraph) -> None:
    machine = load_machine("h200")
    operator = llama.layer("attention_dense").operator("qkv")
    cost = operator_cost(operator, PREFILL, rates(machine))
    assert cost.flops == 2 * 2048 * 6144 * 4096
    assert cost.bytes == 2 * (6144 * 4096 + 2048 * (4096 + 6144))
    assert cost.seconds == pytest.approx(cost.flops / machine.value("peak_flops_bfloat16"))
    assert cost.bound == "compute"
    assert operator_cost(operator, DECODE, rates(machine)).bound == "memory"
    assert cost.intensity == pytest.approx(cost.flops / cost.bytes)


def test_costs_add_up(llama: ModelGraph) -> None:
    machine = load_machine("h200")
    whole = forward_cost(llama, DECODE, machine)
    assert whole.flops == pytest.approx(llama.flops(64, 1, 1152))
    assert whole.bytes == pytest.approx(llama.bytes(64, 1, 1152), rel=1e-9)
    parts = sum(count * cost.seconds for _, count, cost in forward_costs(llama, DECODE, rates(machine)))
    assert whole.seconds == pytest.approx(parts)
    layer = llama.layer("attention_dense")
    assert layer_cost(layer, DECODE, rates(machine)).seconds == pytest.approx(
        sum(cost.seconds for cost in layer_costs(layer, DECODE, rates(machine)).values())
    )
    assert whole.bound == "memory"
    assert whole.seconds == pytest.approx(whole.bytes / machine.value("memory_bandwidth_bytes_per_s"), rel=1e-6)


def test_sustained_rates_are_slower(llama: ModelGraph) -> None:
    machine = load_machine("h200")
    assert forward_cost(llama, PREFILL, machine, sustained=True).seconds > forward_cost(llama, PREFILL, machine).seconds


def test_narrow_weights_run_at_their_rate_where_the_machine_has_one(deepseek: ModelGraph) -> None:
    operator = deepseek.layer("latent_attention_dense").operator("gate_up")
    on_h200 = operator_cost(operator, PREFILL, rates(load_machine("h200")))
    on_a100 = operator_cost(operator, PREFILL, rates(load_machine("a100")))
    assert on_h200.compute_s == pytest.approx(on_h200.flops / 1.9789e15)
    assert on_a100.compute_s == pytest.approx(on_a100.flops / 3.12e14)


def test_missing_figures_and_dtypes_are_errors(llama: ModelGraph) -> None:
    machine = load_machine("h200")
    bare = replace(machine, figures=tuple(f for f in machine.figures if not f.name.startswith("memory_bandwidth")))
    with pytest.raises(MissingFigure):
        rates(bare)
    odd = replace(llama, dtype="int4")
    with pytest.raises(UnsupportedDtype, match="int4"):
        list(forward_costs(odd, PREFILL, rates(machine)))


def test_ridge(llama: ModelGraph) -> None:
    machine_rates = rates(load_machine("h200"))
    operator = llama.layer("attention_dense").operator("down")
    batch = ridge_tokens(operator, machine_rates)
    assert batch is not None
    assert operator_cost(operator, Step(batch, 1, 1), machine_rates).bound == "compute"
    assert operator_cost(operator, Step(batch - 1, 1, 1), machine_rates).bound == "memory"
    assert ridge_tokens(llama.layer("attention_dense").operator("norm"), machine_rates) is None


def test_serving_memory_of_one_gpu_is_the_graphs(llama: ModelGraph, deepseek: ModelGraph) -> None:
    for model in (llama, deepseek):
        memory = serving_memory(model, sequences=3, tokens=100, step_tokens=64)
        assert memory.weight_bytes == model.stored_bytes()
        assert memory.cache_bytes == 3 * model.kv_bytes(100)
        assert memory.total_bytes > memory.weight_bytes + memory.cache_bytes


def test_sharding(llama: ModelGraph, deepseek: ModelGraph, mixtral: ModelGraph) -> None:
    assert weight_bytes(llama, 8) == pytest.approx(llama.stored_bytes() / 8, rel=1e-3)
    # Eight key-value heads: sixteen GPUs repeat them.
    assert cache_bytes(llama, 100, 8) == cache_bytes(llama, 100, 16) == llama.kv_bytes(100) // 8
    # The latent is whole on every GPU.
    assert cache_bytes(deepseek, 100, 8) == deepseek.kv_bytes(100)
    assert weight_bytes(mixtral, 1, 8) < weight_bytes(mixtral) / 4
    with pytest.raises(InvalidValue):
        serving_memory(llama, sequences=0, tokens=1, step_tokens=1)


def test_activations_of_a_dense_layer(llama: ModelGraph) -> None:
    # The feed-forward's peak: the residual stream, the normed input, gate and up (2 x 14336), and their product.
    tokens = 512
    least = tokens * 2 * (4096 + 28672 + 14336)
    assert activation_bytes(llama, tokens) == pytest.approx(least, rel=0.15)
    assert activation_bytes(llama, tokens, tensor=8) < activation_bytes(llama, tokens) / 3
