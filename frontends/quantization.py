"""Dtypes of a published model: what `torch_dtype` and `quantization_config` mean for each part."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase

from treadle.frontends.config import Config
from treadle.frontends.errors import UnknownQuantization
from treadle.frontends.lowering import Precision

_PLAIN = {"bfloat16": "bfloat16", "float16": "float16", "float32": "float32", "auto": "bfloat16"}

_ALGORITHMS = {
    "FP8": "float8_e4m3",
    "FP8_PB_WO": "float8_e4m3",
    "FP8_PER_CHANNEL_PER_TOKEN": "float8_e4m3",
    "NVFP4": "nvfp4",
    "W4A16_AWQ": "int4",
    "W4A16": "int4",
    "INT8": "int8",
}

_SAMPLES = {
    "attention": ("self_attn.q_proj", "self_attn.o_proj", "attention"),
    "dense": ("mlp.gate_proj", "mlp.down_proj"),
    "experts": ("mlp.experts.0.gate_proj", "mlp.experts.0.down_proj", "block_sparse_moe.experts.0.w1"),
    "head": ("lm_head",),
}
"""Module names, relative to a decoder layer, that stand for a part when exclusions are matched."""


def precision_of(config: Config, outer: Config) -> Precision:
    """Return the dtypes of a configuration; `outer` is the multimodal table around it, or the same.

    Raises:
        UnknownQuantization: a method whose bytes are not known.
    """
    dtype = _plain_dtype(config, outer)
    base = Precision(dtype, dtype, dtype, dtype, dtype, dtype)
    for table in (config, outer):
        if table.has("quantization_config"):
            return _quantized(table.section("quantization_config"), base)
    return base


def with_dtypes(precision: Precision, weights: str, cache: str) -> Precision:
    """Return the precision with a dtype for all weights of layers, and one for the cache, where given."""
    if weights:
        precision = replace(precision, attention=weights, dense=weights, experts=weights)
    return replace(precision, cache=cache) if cache else precision


def _plain_dtype(config: Config, outer: Config) -> str:
    for table in (config, outer):
        for name in ("dtype", "torch_dtype"):
            if table.has(name):
                word = table.word(name).removeprefix("torch.")
                if word not in _PLAIN:
                    raise table.wrong(name, "not a known dtype", f"one of {', '.join(_PLAIN)}")
                return _PLAIN[word]
    return "bfloat16"


def _quantized(table: Config, base: Precision) -> Precision:
    method = table.word("quant_method", default="modelopt")
    if method == "mxfp4":
        return replace(base, experts="mxfp4")
    dtype = _weight_dtype(table, method)
    excluded = _exclusions(table)
    parts = {part: dtype for part in ("attention", "dense", "experts") if not _excluded(part, excluded)}
    if "attention" not in parts and "dense" in parts and _mentions(excluded, "mlp"):
        parts.pop("dense")
    return replace(base, cache=_cache_dtype(table, base.cache), **parts)


def _weight_dtype(table: Config, method: str) -> str:
    if method in ("fp8", "fbgemm_fp8"):
        return "float8_e4m3"
    if method == "modelopt" and table.has("quant_algo"):
        algorithm = table.word("quant_algo").upper()
        if algorithm in _ALGORITHMS:
            return _ALGORITHMS[algorithm]
        raise UnknownQuantization(method=algorithm, place=table.place("quant_algo"), expected=", ".join(_ALGORITHMS))
    if method in ("gptq", "awq") and table.has("bits", "w_bit"):
        return _from_bits(table, table.integer("bits", "w_bit", most=64), "int", 0)
    if method == "compressed-tensors":
        return _compressed(table)
    raise UnknownQuantization(
        method=method,
        place=table.place("quant_method"),
        expected="one of fp8, mxfp4, modelopt, compressed-tensors, gptq, awq",
    )


def _compressed(table: Config) -> str:
    groups = table.section("config_groups")
    name = min(groups.fields, default="")
    weights = groups.section(name).section("weights") if name else table
    kind = weights.word("type", default="int")
    return _from_bits(weights, weights.integer("num_bits", most=64), kind, weights.integer("group_size", default=0))


def _from_bits(table: Config, bits: int, kind: str, group: int) -> str:
    known = {(8, "float"): "float8_e4m3", (8, "int"): "int8", (4, "int"): "int4"}
    if (bits, kind) == (4, "float"):
        return "nvfp4" if group == 16 else "mxfp4"
    if (bits, kind) not in known:
        raise UnknownQuantization(method=f"{bits}-bit {kind}", place=table.place("num_bits"))
    return known[bits, kind]


def _cache_dtype(table: Config, base: str) -> str:
    if table.has("kv_cache_scheme"):
        scheme = table.fields["kv_cache_scheme"]
        return "float8_e4m3" if isinstance(scheme, dict) and scheme.get("num_bits") == 8 else base
    return "float8_e4m3" if table.fields.get("kv_cache_quant_algo") == "FP8" else base


def _exclusions(table: Config) -> list[str]:
    found: list[str] = []
    for name in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers"):
        value = table.fields.get(name)
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, str)][:5000]
    return found


def _mentions(patterns: list[str], word: str) -> bool:
    return any(re.search(rf"\.{word}(\*|$|\.\*)", pattern) for pattern in patterns)


def _excluded(part: str, patterns: list[str]) -> bool:
    """Whether the part's modules are left unquantized in most layers: a pattern with a wildcard, or many names."""
    samples = _SAMPLES[part]
    named = sum(any(pattern.endswith(sample) for sample in samples) for pattern in patterns)
    general = any(
        "*" in pattern and any(fnmatchcase(f"model.layers.40.{sample}", pattern) for sample in samples)
        for pattern in patterns
    )
    return general or named >= 20
