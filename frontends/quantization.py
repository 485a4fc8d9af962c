"""Dtypes of a published model: what `torch_dtype` and `quantization_config` mean for each part."""

from __future__ import annotations

from collections import Counter
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
    "MXFP8": "mxfp8",
    "MXFP4": "mxfp4",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A8_NVFP4_FP8": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "W4A16_AWQ": "int4_g128",
    "W4A16": "int4_g128",
    "INT8": "int8",
    "W8A16": "int8",
}
"""Algorithms of NVIDIA's ModelOpt -> stored dtype."""

_SAMPLES = {
    "attention": ("self_attn.q_proj", "self_attn.o_proj", "linear_attn.in_proj_qkv", "mixer.in_proj"),
    "dense": ("mlp.gate_proj", "mlp.down_proj"),
    "experts": ("mlp.experts.0.gate_proj", "mlp.experts.0.down_proj", "block_sparse_moe.experts.0.w1"),
    "shared": ("mlp.shared_experts.gate_proj", "mlp.shared_expert.gate_proj"),
    "head": ("lm_head",),
}
"""Module names, relative to a decoder layer, that stand for a part when names are matched."""

_QUANTIZED = ("attention", "dense", "experts", "shared")
_LONGEST_PATTERN = 200
_MOST_PATTERNS = 20_000


def precision_of(config: Config, outer: Config) -> Precision:
    """Return the dtypes of a configuration; `outer` is the multimodal table around it, or the same.

    Raises:
        UnknownQuantization: a method whose bytes are not known.
        WrongType: a dtype that is none.
    """
    dtype = _plain_dtype(config, outer)
    base = Precision(dtype, dtype, dtype, dtype, dtype, dtype, dtype)
    for table in (config, outer):
        if table.has("quantization_config"):
            return _quantized(table.section("quantization_config"), base)
    return base


def with_dtypes(precision: Precision, weights: str, cache: str) -> Precision:
    """Return the precision with a dtype for all weights of layers, and one for the cache, where given."""
    if weights:
        precision = replace(precision, attention=weights, dense=weights, experts=weights, shared=weights)
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
    cache = _cache_dtype(table, base.cache)
    if method == "mxfp4":
        return replace(base, experts="mxfp4", cache=cache)
    if table.has("quantized_layers"):
        return replace(base, cache=cache, **_by_module(table.section("quantized_layers")))
    dtype = _weight_dtype(table, method)
    excluded = _exclusions(table)
    return replace(base, cache=cache, **{part: dtype for part in _QUANTIZED if not _excluded(part, excluded)})


def _weight_dtype(table: Config, method: str) -> str:
    if method in ("fp8", "fbgemm_fp8"):
        return "float8_e4m3"
    if method == "modelopt" and table.has("quant_algo"):
        return _algorithm(table, table.word("quant_algo"))
    if method in ("gptq", "awq") and table.has("bits", "w_bit"):
        group = table.integer("group_size", "q_group_size", default=128, least=-1)
        return _from_bits(table, table.integer("bits", "w_bit", most=64), "int", group)
    if method == "compressed-tensors":
        return _compressed(table)
    raise UnknownQuantization(
        method=method,
        place=table.place("quant_method"),
        expected="one of fp8, mxfp4, modelopt, compressed-tensors, gptq, awq",
    )


def _algorithm(table: Config, name: str) -> str:
    if name.upper() not in _ALGORITHMS:
        raise UnknownQuantization(
            method=name, place=table.place("quant_algo"), expected=f"one of {', '.join(_ALGORITHMS)}"
        )
    return _ALGORITHMS[name.upper()]


def _by_module(table: Config) -> dict[str, str]:
    """Return the most frequent algorithm of every part in a list of modules (ModelOpt's mixed precision)."""
    found: dict[str, Counter[str]] = {part: Counter() for part in _QUANTIZED}
    for name in list(table.fields)[:_MOST_PATTERNS]:
        part = _part_of(name)
        if part:
            found[part][_algorithm(table, table.section(name).word("quant_algo"))] += 1
    return {part: counted.most_common(1)[0][0] for part, counted in found.items() if counted}


def _part_of(module: str) -> str:
    for word, part in (
        ("shared_expert", "shared"),
        ("experts", "experts"),
        ("attn", "attention"),
        ("mixer", "attention"),
    ):
        if word in module:
            return part
    return "dense" if "mlp" in module else ""


def _compressed(table: Config) -> str:
    groups = table.section("config_groups")
    name = min(groups.fields, default="")
    weights = groups.section(name).section("weights") if name else table
    kind = weights.word("type", default="int")
    group = weights.integer("group_size", default=0, least=-1)
    return _from_bits(weights, weights.integer("num_bits", most=64), kind, group)


def _from_bits(table: Config, bits: int, kind: str, group: int) -> str:
    if (bits, kind) == (4, "float"):
        return "nvfp4" if group == 16 else "mxfp4"
    if (bits, kind) == (4, "int"):
        return {32: "int4_g32", 128: "int4_g128"}.get(group, "int4")
    known = {(8, "float"): "float8_e4m3", (8, "int"): "int8"}
    if (bits, kind) not in known:
        raise UnknownQuantization(method=f"{bits}-bit {kind}", place=table.place("num_bits"))
    return known[bits, kind]


def _cache_dtype(table: Config, base: str) -> str:
    scheme = table.fields.get("kv_cache_scheme")
    if isinstance(scheme, dict) and scheme.get("num_bits") == 8:
        return "float8_e4m3"
    return "float8_e4m3" if table.fields.get("kv_cache_quant_algo") == "FP8" else base


def _exclusions(table: Config) -> list[str]:
    """Return the patterns of modules left unquantized; simple regular expressions become wildcards."""
    found: list[str] = []
    for name in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers"):
        value = table.fields.get(name)
        if isinstance(value, list):
            words = [item for item in value[:_MOST_PATTERNS] if isinstance(item, str)]
            found += [_wildcard(word) for word in words if len(word) <= _LONGEST_PATTERN]
    return found


def _wildcard(pattern: str) -> str:
    if not pattern.startswith("re:"):
        return pattern
    text = pattern.removeprefix("re:").removeprefix("^").removesuffix("$")
    return text.replace(".*", "*").replace("\\.", ".").replace("\\d+", "*").replace("\\d", "*")


def _excluded(part: str, patterns: list[str]) -> bool:
    """Whether the part's modules are left unquantized in most layers: a pattern with a wildcard, or many names."""
    samples = _SAMPLES[part]
    named = sum(any(pattern.endswith(sample) for sample in samples) for pattern in patterns)
    return named >= 20 or any(
        fnmatchcase(f"model.layers.40.{sample}", pattern)
        for pattern in patterns
        if "*" in pattern
        for sample in samples
    )
