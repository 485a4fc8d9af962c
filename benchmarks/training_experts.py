"""What tables of training runs leave out about models with experts: counts, choices and attention, by model name.

The columns have a model's layers, sizes and the width of an expert (`2880 expert`, `18432 dense/2048 expert`), but not
how many experts there are. Each entry gives the fields of the published `config.json` that the columns lack; together
they are read by the same frontend as any model's.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from treadle.frontends.hf import parse_model
from treadle.frontends.training_model import training_model
from treadle.frontends.training_runs import Run, UnknownExperts
from treadle.ir.training.model import TrainingModel

_LATENT = {
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_layer_freq": 1,
}
_QWEN3 = {"model_type": "qwen3_moe", "num_experts_per_tok": 8, "head_dim": 128, "decoder_sparse_step": 1}
_GPT_OSS = {"model_type": "gpt_oss", "num_experts_per_tok": 4, "head_dim": 64, "sliding_window": 128}
_MIXTRAL = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}

ARCHITECTURES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        r"deepseek.?(v3|r1)",
        {
            "model_type": "deepseek_v3",
            "n_routed_experts": 256,
            "first_k_dense_replace": 3,
            "num_nextn_predict_layers": 1,
            **_LATENT,
        },
    ),
    (
        r"kimi.?k2",
        {
            "model_type": "kimi_k2",
            "n_routed_experts": 384,
            "first_k_dense_replace": 1,
            "num_nextn_predict_layers": 0,
            **_LATENT,
        },
    ),
    (r"gpt.?oss.?120b", {**_GPT_OSS, "num_local_experts": 128}),
    (r"gpt.?oss.?20b", {**_GPT_OSS, "num_local_experts": 32}),
    (r"qwen3.*480b", {**_QWEN3, "num_experts": 160}),
    (r"qwen3.*(30b|235b)", {**_QWEN3, "num_experts": 128}),
    (r"mixtral", _MIXTRAL),
)
"""Pattern of the model's name -> fields of the `config.json` published with it."""
_NAMED = re.compile(r"deepseek|\d+b[_-]?a\d+|gpt.?oss|kimi|nemotron.?3|mixtral|mo?e\b|maverick|scout|dbrx|grok", re.I)
_WIDTH = re.compile(r"(\d+)\s*(dense|expert)?")


def has_experts(run: Run) -> bool:
    """Whether a run's model has experts, by its name, its width or its expert parallelism."""
    parallel = run.text("ep") not in ("", "1")
    return parallel or "expert" in run.text("ffn") or bool(_NAMED.search(run.text("model")))


def expert_model(run: Run) -> TrainingModel:
    """Return the training view of a model with experts; raises UnknownExperts, UnsupportedTrainingLayer."""
    name = run.text("model")
    known = next((fields for pattern, fields in ARCHITECTURES if re.search(pattern, name, re.IGNORECASE)), None)
    widths = {kind or "dense": int(width) for width, kind in _WIDTH.findall(run.text("ffn"))}
    if known is None or not widths:
        raise UnknownExperts(model=name, place=run.place)
    heads, layers = run.count("heads"), run.count("layers")
    fields = {
        "num_hidden_layers": layers,
        "hidden_size": run.count("hidden"),
        "num_attention_heads": heads,
        "num_key_value_heads": run.whole("kv_heads") or heads,
        "vocab_size": run.count("vocab"),
        "intermediate_size": widths.get("dense", widths.get("expert")),
        "moe_intermediate_size": widths.get("expert", widths.get("dense")),
        **known,
    }
    if known["model_type"] == "gpt_oss":
        fields["layer_types"] = [("sliding_attention", "full_attention")[layer % 2] for layer in range(layers)]
    return _parsed(json.dumps(fields), name)


@lru_cache(maxsize=64)
def _parsed(text: str, name: str) -> TrainingModel:
    return training_model(parse_model(text, f"{name}: columns and published config.json", name))
