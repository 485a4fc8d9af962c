"""What `treadle bench` measures: kernels, shapes and goals, the most telling first, since a run has a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Goal = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One program at one shape; `top` candidates of it are measured, for the rank correlation of predictions.

    `goal` is what `treadle.driver.gpu.report.judge` reads. `languages` are what kernels are emitted in; in Gluon
    `gluon_top` candidates, each of which is compiled until its binary keeps its plan. Cases of one `line` are judged
    together: products by the geometric mean of their speedups, others by the worst.
    """

    name: str
    family: str
    shape: dict[str, int]
    switches: dict[str, str | int | bool] = field(default_factory=dict[str, str | int | bool])
    tile_sizes: dict[str, int] = field(default_factory=dict[str, int])
    goal: Goal = field(default_factory=dict[str, Any])
    top: int = 1
    languages: tuple[str, ...] = ("triton", "gluon")
    gluon_top: int = 1
    line: str = ""


def _attention(seq: int, head_dim: int, causal: int, **more: int) -> dict[str, int]:
    """Shapes of FlashAttention-3's benchmark (arXiv 2407.08608): 16k tokens, 2048 columns of heads."""
    heads = 2048 // head_dim
    return {"batch": 16384 // seq, "heads": heads, "seq": seq, "qk_head_dim": head_dim, "causal": causal, **more}


def _square(k: int) -> dict[str, int]:
    return {"m": 8192, "n": 8192, "k": k}


_CUBLAS: Goal = {"speedup": {"cublas": 1.01, "triton_tutorial": 1.13}}
_GEMM = "gemm 8192 x 8192 x {512..16384}"
_BACKWARD = "attention backward, head dimension 128, 8k-16k"
_DECODE = "paged decode, 64 requests, 4k-32k"
_ONLY = ("triton",)


def cases() -> tuple[Case, ...]:
    """Return the cases; goals are what Tawa (arXiv 2510.14719), FlashAttention-3 (arXiv 2407.08608)
    and Twill (arXiv 2512.18134) report on Hopper."""
    decode = {"batch": 64, "heads": 32, "kv_heads": 8, "page_size": 16, "qk_head_dim": 128}
    return (
        Case("gemm 8192x8192x8192", "gemm", _square(8192), goal=_CUBLAS, top=4, gluon_top=4,
             line=_GEMM),
        Case("attention_fwd hd128 16k", "attention_fwd", _attention(16384, 128, 0),
             goal={"tflops": 640, "speedup": {"cudnn": 1.05}}, top=4, gluon_top=4,
             line="attention forward, head dimension 128, 16k"),
        Case("attention_fwd hd128 16k causal", "attention_fwd", _attention(16384, 128, 1),
             goal={"tflops": 600, "speedup": {"cudnn": 1.05}},
             line="attention forward, head dimension 128, 16k, causal"),
        Case("attention_fwd hd64 16k", "attention_fwd", _attention(16384, 64, 0), goal={"tflops": 480},
             line="attention forward, head dimension 64, 16k"),
        Case("attention_bwd hd128 8k", "attention_bwd", _attention(8192, 128, 0), goal={"speedup": {"cudnn": 0.95}},
             line=_BACKWARD),
        Case("attention_paged 64 x 4k", "attention_paged", {**decode, "kv_seq": 4096}, goal={"bandwidth": 0.85}, top=3,
             line=_DECODE),
        Case("gemm_fp8 8192x8192x8192", "gemm_fp8", _square(8192), goal={"speedup": {"cublas": 1.06}},
             line="gemm in fp8"),
        Case("swiglu 8192x14336x4096", "swiglu", {"m": 8192, "n": 14336, "k": 4096},
             goal={"speedup": {"torch_compile": 1.1}}, line="swiglu"),
        Case("grouped_gemm 64 experts, skewed", "grouped_gemm",
             {"experts": 64, "tokens": 8192, "top_k": 6, "n": 1408, "k": 2048},
             goal={"speedup": {"torch_compile": 1.1}}, line="grouped gemm, 64 experts, skewed"),
        *(Case(f"gemm 8192x8192x{k}", "gemm", _square(k), goal=_CUBLAS, line=_GEMM)
          for k in (512, 1024, 2048, 4096, 16384)),
        Case("gemm_persistent 8192x8192x8192", "gemm_persistent", _square(8192), goal=_CUBLAS),
        Case("attention_bwd hd128 16k causal", "attention_bwd", _attention(16384, 128, 1),
             goal={"speedup": {"cudnn": 0.95}}, line=_BACKWARD),
        *(Case(f"attention_paged 64 x {keys // 1024}k", "attention_paged", {**decode, "kv_seq": keys},
               goal={"bandwidth": 0.85}, line=_DECODE) for keys in (8192, 16384, 32768)),
        Case("kmeans_assign 1M x 4096", "kmeans_assign", {"points": 1 << 20, "centroids": 4096, "dimension": 128},
             goal={"speedup": {"torch_compile": 1.1}}),
        Case("rms_norm_gemm 8192x6144x4096", "rms_norm_gemm", {"m": 8192, "n": 6144, "k": 4096}),
        Case("gemm_w4a16 16x14336x4096", "gemm_w4a16", {"m": 16, "n": 14336, "k": 4096}),
        Case("attention_varlen 16 x 4k causal", "attention_varlen",
             {"batch": 16, "tokens": 65536, "heads": 32, "kv_heads": 8, "qk_head_dim": 128}),
        Case("attention_fwd hd256 16k causal", "attention_fwd", _attention(16384, 256, 1)),
        Case("dual_gemm 8192x4096x4096", "dual_gemm", {"m": 8192, "n": 4096, "k": 4096}),
        Case("rms_norm 8192x4096", "rms_norm", {"rows": 8192, "columns": 4096}, languages=_ONLY),
        Case("layer_norm 8192x4096", "layer_norm", {"rows": 8192, "columns": 4096}, languages=_ONLY),
        Case("gemm_fp8 blocks 8192x8192x4096", "gemm_fp8", _square(4096), {"scales": "block"}, languages=_ONLY),
    )  # fmt: skip


def useful_flops(family: str, shape: Mapping[str, int]) -> int:
    """Return the FLOP that a problem needs, however a kernel makes them: products only, half of them under a mask."""
    if family in ("attention_fwd", "attention_bwd"):
        products = 2.5 if family == "attention_bwd" else 1
        pairs = shape["batch"] * shape["heads"] * shape["seq"] * shape["kv_seq"] // (2 if shape["causal"] else 1)
        return int(2 * products * pairs * (shape["qk_head_dim"] + shape["v_head_dim"]))
    if family == "kmeans_assign":
        return 2 * shape["points"] * shape["centroids"] * shape["dimension"]
    if family == "grouped_gemm":
        return 2 * shape["tokens"] * shape["top_k"] * shape["n"] * shape["k"]
    if {"m", "n", "k"} <= shape.keys():
        return 2 * shape["m"] * shape["n"] * shape["k"] * (2 if family in ("swiglu", "dual_gemm") else 1)
    return 0
