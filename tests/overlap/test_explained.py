"""What binds an overlap plan and a cut, and their report pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.cli.explain_operators import show_operators
from treadle.codegen.report.operators import period_svg
from treadle.codegen.report.page import render
from treadle.driver.explain_operators import explain_operators
from treadle.driver.overlap import SCAN, OverlapRequest, plan_overlap
from treadle.driver.sections import SectionsRequest, plan_sections
from treadle.ir.operator.plan import Step
from treadle.ir.plan import Plan

DENSE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 2, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 1000,
    "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dense model."""
    path = tmp_path_factory.mktemp("dense") / "config.json"
    path.write_text(json.dumps(DENSE))
    return path


@pytest.fixture(scope="module")
def overlap(config: Path) -> Plan:
    """One nano-batch size on a machine without interference data."""
    request = OverlapRequest("mi300x", 4, Step(256, 512, 1, 256), 1, SCAN, sequence_parallel=True)
    return plan_overlap(config, request, lambda _: None).sealed()


@pytest.fixture(scope="module")
def cut(config: Path) -> Plan:
    """One layer on SN40L."""
    return plan_sections(config, SectionsRequest("sn40l", 1, 256, 1)).sealed()


def test_overlap_says_what_binds(overlap: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain_operators(overlap)
    assert set(found.busy) == {"sm", "memory", "link"}
    assert any("worst case" in sentence for sentence in found.binds)
    assert min(found.with_a_quarter_more_us.values()) < found.time_us
    show_operators(found, False)
    assert "25 % more tensor cores" in capsys.readouterr().out
    show_operators(found, True)
    assert json.loads(capsys.readouterr().out)["time_us"] == found.time_us


def test_cut_says_what_binds(cut: Plan) -> None:
    found = explain_operators(cut)
    assert found.with_a_quarter_more_us["memory bandwidth"] <= found.time_us
    assert found.binds


def test_pages(overlap: Plan, cut: Plan) -> None:
    picture = period_svg(overlap.body)
    assert picture.count("<rect") >= len(overlap.body.loop.operators)
    assert "One period of a layer" in render(overlap, {})
    assert "Sections" in render(cut, {})
