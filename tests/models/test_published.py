"""Parameter counts of published models, and graphs of configurations that other projects ship."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.models.published import PUBLISHED, Published
from treadle.frontends.errors import UnknownArchitecture, UnsupportedModel
from treadle.frontends.families import FAMILIES
from treadle.frontends.hf import load_model, parse_model
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.model import ModelGraph

_TESTED_ELSEWHERE = {
    "deepseek_v32", "gemma4_text", "glm_moe_dsa", "hy_v3", "mimo_v2_flash", "minimax_m3", "ministral", "ministral3",
    "mt5", "nemotron-nas", "qwen2_vl_text", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_vl_text", "step3p7",
}  # fmt: skip
"""Families without an entry of their own in the table: configurations in packages, or defaults below."""


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_parameters_are_the_published_ones(model: Published) -> None:
    graph = parse_model(json.dumps(model.config), name=model.name)
    copied = model.copies * graph.vocab_size * graph.hidden_size
    assert graph.parameters(model.predictors) + copied == pytest.approx(model.total, rel=model.tolerance)
    if model.active:
        # Cards round, and some leave embeddings out of the active count.
        embeddings = graph.vocab_size * graph.hidden_size
        assert model.active * 0.93 <= graph.active_parameters() <= model.active * 1.07 + embeddings


def test_the_table_covers_every_family() -> None:
    covered = {parse_model(json.dumps(model.config)).family for model in PUBLISHED}
    assert set(FAMILIES) - covered <= _TESTED_ELSEWHERE


# Counts that transformers 5.23 gives for the same files, with the tracked bias of each router.
_COUNTED = {
    "Qwen--Qwen3.5-27B": 26_895_998_464,
    "Qwen--Qwen3.5-397B-A17B": 396_346_350_336,
    "Qwen--Qwen3-VL-8B-Instruct": 8_190_735_360,
    "XiaomiMiMo--MiMo-V2-Flash": 308_778_780_864,
    "deepseek-ai--DeepSeek-V3.2": 671_877_944_064,
    "zai-org--GLM-5": 743_911_218_432,
    "zai-org--GLM-5.3": 743_377_019_904,
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31_577_940_288,
    "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-FP8": 120_668_707_840,
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": 549_308_993_536,
    "nvidia--Llama-3_3-Nemotron-Super-49B-v1": 49_867_145_216,
    "nvidia--Gemma-4-31B-IT-NVFP4": 30_697_345_340,
    "google--gemma-4-26B-A4B": 25_233_141_790,
    "stepfun-ai--Step-3.7-Flash": 195_844_508_736,
    "meta-llama--Llama-4-Maverick-17B-128E-Instruct": 400_711_848_960,
    "nvidia--MiniMax-M3-NVFP4": 426_174_572_928,
}


def _folder() -> Path:
    spec = find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        pytest.skip("aiconfigurator-core is not installed")
    return Path(spec.origin).parent / "model_configs"


@pytest.mark.parametrize("name", _COUNTED)
def test_configurations_of_aiconfigurator(name: str) -> None:
    assert load_model(_folder() / f"{name}_config.json").parameters() == _COUNTED[name]


def test_every_configuration_of_aiconfigurator_is_read_or_named() -> None:
    refused: set[str] = set()
    files = [file for file in sorted(_folder().glob("*_config.json")) if "hf_quant" not in file.name]
    for file in files:
        try:
            graph = load_model(file)
        except (UnknownArchitecture, UnsupportedModel) as error:
            refused.add(str(error.fields.get("name") or error.fields["feature"]))
            continue
        assert graph.flops(1, 16) > 2 * graph.flops(1, 1)
    assert refused <= {"deepseek_ref", "deepseek_v4", "`routed_expert_hidden_size`"}
    assert len(files) >= 80


def test_stored_bytes_of_quantized_checkpoints() -> None:
    # hub: 595 GB of safetensors for Kimi-K2.5, 13.8 GB for gpt-oss-20b, 65.3 GB for gpt-oss-120b
    for name, size in (
        ("moonshotai--Kimi-K2.5", 595e9),
        ("openai--gpt-oss-20b", 13.8e9),
        ("openai--gpt-oss-120b", 65.3e9),
    ):
        assert load_model(_folder() / f"{name}_config.json").stored_bytes() == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("model", PUBLISHED[::9], ids=lambda model: model.name)
def test_graphs_survive_plan_files(model: Published) -> None:
    graph = parse_model(json.dumps(model.config))
    data = json.loads(json.dumps(encode(graph)))
    assert decode(ModelGraph, data, file_locator("plan.json")) == graph
