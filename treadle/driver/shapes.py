"""Shapes as people write them on the command line: `batch=4 heads=32 seq=16384`."""

from __future__ import annotations

from treadle.ir.diagnostics import Place
from treadle.ir.errors import MalformedText

DEFAULT_SHAPES: dict[str, dict[str, int]] = {
    "attention_fwd": {"batch": 4, "heads": 32, "seq": 16384, "qk_head_dim": 128, "v_head_dim": 128, "causal": 0},
    "attention_decode": {
        "batch": 64,
        "heads": 32,
        "kv_heads": 8,
        "kv_seq": 8192,
        "qk_head_dim": 128,
        "v_head_dim": 128,
    },
    "gemm": {"m": 8192, "n": 8192, "k": 8192},
    "swiglu": {"m": 8192, "n": 14336, "k": 4096},
    "grouped_gemm": {"experts": 64, "tokens": 8192, "top_k": 6, "n": 1408, "k": 2048},
    "rms_norm": {"rows": 8192, "columns": 4096},
    "layer_norm": {"rows": 8192, "columns": 4096},
    "attention_bwd": {"batch": 4, "heads": 32, "seq": 8192, "qk_head_dim": 128, "v_head_dim": 128, "causal": 0},
    "attention_varlen": {
        "batch": 16,
        "tokens": 65536,
        "heads": 32,
        "kv_heads": 8,
        "qk_head_dim": 128,
        "v_head_dim": 128,
        "causal": 1,
    },
    "attention_paged": {
        "batch": 64,
        "heads": 32,
        "kv_heads": 8,
        "kv_seq": 8192,
        "page_size": 16,
        "qk_head_dim": 128,
        "v_head_dim": 128,
    },
    "dual_gemm": {"m": 8192, "n": 4096, "k": 4096},
    "gemm_fp8": {"m": 8192, "n": 8192, "k": 8192},
    "gemm_persistent": {"m": 8192, "n": 8192, "k": 8192},
    "gemm_w4a16": {"m": 16, "n": 14336, "k": 4096, "group": 128},
    "kmeans_assign": {"points": 1048576, "centroids": 4096, "dimension": 128},
    "rms_norm_gemm": {"m": 8192, "n": 6144, "k": 4096},
}
"""Shapes a family is scheduled at when none is given: those of the usual benchmarks (attention: FlashAttention-3)."""


DEFAULT_TILES: dict[str, dict[str, int]] = {
    "attention_fwd": {"block_m": 128, "block_n": 128, "sub_tiles": 2},
}
"""Tile sizes a family is scheduled at when neither shape nor tiles are given: the pair of query sub-tiles of 64 rows
that FlashAttention-3 pipelines. Other families choose among their candidates."""


def tiles_for(family: str, shape: str, tiles: str) -> dict[str, int]:
    """Return the tile sizes that `--tiles` means for a family; empty leaves the choice open."""
    if shape.strip() or tiles.strip():
        return parse_shape(tiles)
    return dict(DEFAULT_TILES.get(family, {}))


def shape_for(family: str, text: str) -> dict[str, int]:
    """Return the shape that `--shape` means for a family; `head_dim` stands for both head dimensions."""
    shape = parse_shape(text) if text.strip() else dict(DEFAULT_SHAPES.get(family, {}))
    both = shape.pop("head_dim", None)
    if both is not None:
        shape = {"qk_head_dim": both, "v_head_dim": both, **shape}
    return shape


def parse_shape(text: str) -> dict[str, int]:
    """Read `key=number` pairs separated by blanks or commas; `k` and `M` are binary thousands (`16k` is 16384).

    Raises:
        MalformedText: with the column of the pair that does not read.
    """
    shape: dict[str, int] = {}
    position = 0
    for pair in text.replace(",", " ").split():
        position = text.index(pair, position)
        key, equals, number = pair.partition("=")
        value = _number(number)
        if not key.isidentifier() or not equals or value is None or key in shape:
            place = Place("--shape", 1, position + 1, text=text)
            what = "is given twice" if key in shape else "is not a `key=number` pair"
            raise MalformedText(place=place, message=f"`{pair}` {what}", expected='pairs such as "batch=4 seq=16k"')
        shape[key] = value
        position += len(pair)
    return shape


def parse_arguments(text: str) -> dict[str, str]:
    """Read `name=type` and `name=value` pairs separated by blanks; types may hold commas, `name=` is no text.

    Raises:
        MalformedText: with the column of the pair that does not read.
    """
    found: dict[str, str] = {}
    for pair in text.split():
        name, equals, word = pair.partition("=")
        if not name.isidentifier() or not equals or name in found:
            place = Place("--arguments", 1, text.index(pair) + 1, text=text)
            what = "is given twice" if name in found else "is not a `name=type` pair"
            raise MalformedText(place=place, message=f"`{pair}` {what}", expected='pairs such as "a=*fp16 BLOCK=128"')
        found[name] = word
    return found


def parse_switches(text: str) -> dict[str, str | int | bool]:
    """Read `key=word` pairs separated by blanks or commas; `true` and `false` are booleans.

    Raises:
        MalformedText: with the column of the pair that does not read.
    """
    switches: dict[str, str | int | bool] = {}
    words: dict[str, str | int | bool] = {"true": True, "false": False}
    position = 0
    for pair in text.replace(",", " ").split():
        position = text.index(pair, position)
        key, equals, word = pair.partition("=")
        if not key.isidentifier() or not equals or not word or key in switches:
            place = Place("--switches", 1, position + 1, text=text)
            what = "is given twice" if key in switches else "is not a `key=word` pair"
            raise MalformedText(place=place, message=f"`{pair}` {what}", expected='pairs such as "scales=block"')
        switches[key] = words.get(word, word)
        position += len(pair)
    return switches


def _number(text: str) -> int | None:
    factor = {"k": 1024, "M": 1024**2}.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    return int(digits) * factor if digits.isascii() and digits.isdigit() and len(digits) <= 12 else None
