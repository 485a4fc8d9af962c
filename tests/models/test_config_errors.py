"""Configurations that are wrong: one located, coded message each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models.test_model import TINY
from treadle.frontends.hf import load_model, parse_model
from treadle.frontends.located import json_place, toml_place
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.errors import UnreadableFile

EXPERTS = {"model_type": "deepseek_v3", "num_experts_per_tok": 2, "n_routed_experts": 4, "moe_intermediate_size": 8}


@pytest.mark.parametrize(
    ("change", "code", "field", "says"),
    [
        ({"hidden_size": None}, "TRD103", "", "hidden_size"),
        ({"hidden_size": "8"}, "TRD104", "hidden_size", "whole number"),
        ({"hidden_size": 8.0}, "TRD104", "hidden_size", "whole number"),
        ({"hidden_size": True}, "TRD104", "hidden_size", "whole number"),
        ({"hidden_size": -8}, "TRD104", "hidden_size", "from 1"),
        ({"vocab_size": 10**30}, "TRD104", "vocab_size", "from 1"),
        ({"num_hidden_layers": 10**6}, "TRD104", "num_hidden_layers", "4096"),
        ({"num_key_value_heads": 3}, "TRD104", "num_key_value_heads", "divisor"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3}, "TRD104", "num_attention_heads", "divisor"),
        ({"attention_bias": "yes"}, "TRD104", "attention_bias", "true or false"),
        ({"hidden_act": 3}, "TRD104", "hidden_act", "text"),
        ({"torch_dtype": "bf16"}, "TRD104", "torch_dtype", "bfloat16"),
        ({"model_type": "lama"}, "TRD121", "model_type", "llama"),
        ({"model_type": "bert"}, "TRD121", "model_type", "nearest known"),
        ({"quantization_config": {"quant_method": "hqq"}}, "TRD123", "quant_method", "hqq"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "TRD123", "quantization_config", "3-bit"),
        ({"quantization_config": []}, "TRD104", "quantization_config", "table"),
        ({"model_type": "gemma2", "layer_types": ["full"] * 2}, "TRD104", "layer_types", "`full`"),
        ({"model_type": "gemma2", "layer_types": ["full_attention"]}, "TRD104", "layer_types", "2 layers"),
        ({"model_type": "gemma4_text", "num_kv_shared_layers": 1}, "TRD122", "num_kv_shared_layers", "gemma4"),
        (
            {"model_type": "nemotron_h", "hybrid_override_pattern": "MX"},
            "TRD104",
            "hybrid_override_pattern",
            "2 letters",
        ),
        (EXPERTS, "TRD103", "", "kv_lora_rank"),
        ({"text_config": 3}, "TRD104", "text_config", "table"),
    ],
)
def test_wrong_fields(change: dict[str, Any], code: str, field: str, says: str) -> None:
    text = json.dumps({**TINY, **change}, indent=1)
    with pytest.raises(TreadleError) as caught:
        parse_model(text, "m/config.json")
    error = caught.value
    assert error.code == code, error.render()
    assert says in error.render()
    assert error.exit_code is ExitCode.USAGE
    assert error.place is not None
    assert error.place.file == "m/config.json"
    if field:
        assert f'"{field}"' in text.splitlines()[error.place.line - 1]


@pytest.mark.parametrize(
    "text", ["", "{", '{"model_type": "llama",}', "[]", "3", "nul", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_damaged_json(text: str) -> None:
    with pytest.raises(TreadleError) as caught:
        parse_model(text, "config.json")
    assert caught.value.code == "TRD101"


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile):
        load_model(tmp_path / "config.json")
    with pytest.raises(UnreadableFile):
        load_model(tmp_path)


def test_unknown_dtype_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(TINY))
    assert load_model(file, weight_dtype="float8_e4m3").stored_bytes() < load_model(file).stored_bytes()
    with pytest.raises(TreadleError, match="fp8"):
        load_model(file, weight_dtype="fp8")


def test_infinity_in_published_files_is_read() -> None:
    assert parse_model(json.dumps({**TINY, "time_step_limit": [0.0, float("inf")]})).block_count == 2


def test_places_in_json() -> None:
    text = '{\n "a": 1,\n "b": [1, {"c": 2, "a": 5}],\n "d": {"a": 3, "e": [[1], [2, 3]]}\n}'
    places = {
        ("a",): (2, 2), ("b", 1, "a"): (3, 20), ("d", "a"): (4, 8), ("d", "e", 1, 1): (4, 31), ("z",): (0, 0),
        ("d", "z"): (4, 2),
    }  # fmt: skip
    for steps, (line, column) in places.items():
        place = json_place(text, "f", steps)
        assert (place.line, place.column) == (line, column)


def test_places_in_toml() -> None:
    text = 'model = "x"\nload = { trace = "t", rate = "1" }\n[cluster]\ngpu = "h"\n[a.b]\nc = { d = { e = 1 } }\n'
    places = {
        ("model",): (1, 1), ("load", "rate"): (2, 23), ("cluster", "gpu"): (4, 1), ("cluster", "z"): (3, 1),
        ("a", "b", "c", "d", "e"): (6, 13), ("z",): (0, 0),
    }  # fmt: skip
    for steps, (line, column) in places.items():
        place = toml_place(text, "f", steps)
        assert (place.line, place.column) == (line, column)
