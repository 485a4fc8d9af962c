"""Inputs and float64 references of every family of kernels, at any shape and on any device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

Tensor = torch.Tensor
Shape = Mapping[str, int]
Options = Mapping[str, Any]
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Source:
    """Random tensors of a seed on a device."""

    def __init__(self, seed: int, device: str, dtype: str) -> None:
        self.device = device
        self.dtype = DTYPES[dtype]
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return normal values."""
        values = torch.randn(*shape, generator=self.generator, device=self.device)
        return values.to(self.dtype if dtype is None else dtype)

    def whole(self, below: int, *shape: int) -> Tensor:
        """Return whole numbers from 0, as int32."""
        return torch.randint(below, shape, generator=self.generator, device=self.device).int()


Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Family:
    """How the kernels of a family are tried.

    `inputs` makes the arguments of `launch`; `reference` the results in float64, in the order `launch` returns them;
    `outputs` are the names under which `launch` takes poisoned output tensors; `ragged` changes a shape into a small
    one that no tile divides.
    """

    inputs: Callable[[Source, Shape, Options], Inputs]
    reference: Callable[[Inputs, Shape, Options], tuple[Tensor, ...]]
    outputs: tuple[str, ...]
    ragged: dict[str, int] = field(default_factory=dict[str, int])


def _wide(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


# --- products -------------------------------------------------------------------------------------------------------


def _two(source: Source, shape: Shape, options: Options) -> Inputs:
    return source.normal(shape["m"], shape["k"]), source.normal(shape["n"], shape["k"])


def _three(source: Source, shape: Shape, options: Options) -> Inputs:
    return (*_two(source, shape, options), source.normal(shape["n"], shape["k"]))


def _product(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    a, b = _wide(*inputs)
    return (a @ b.T,)


def _swiglu(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    x, gate, up = _wide(*inputs)
    return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T),)


def _dual(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    x, a, b = _wide(*inputs)
    first, second = x @ a.T, x @ b.T
    combine = options.get("combine", "both")
    return (first, second) if combine == "both" else (first + second if combine == "sum" else first * second,)


def _fp8(source: Source, shape: Shape, options: Options) -> Inputs:
    m, n, k = shape["m"], shape["n"], shape["k"]
    a = source.normal(m, k).to(torch.float8_e4m3fn)
    b = source.normal(n, k).to(torch.float8_e4m3fn)
    scales: tuple[tuple[int, ...], ...] = ((m,), (n,))
    if options.get("scales") == "block":
        blocks = -(-k // 128)
        scales = ((m, blocks), (-(-n // 128), blocks))
    return a, b, *(source.normal(*extents, dtype=torch.float32).exp() for extents in scales)


def _scaled_product(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    a, b, scale_a, scale_b = _wide(*inputs)
    if options.get("scales") == "block":
        columns = a.shape[1]
        scale_a = scale_a.repeat_interleave(128, 1)[:, :columns]
        scale_b = scale_b.repeat_interleave(128, 0)[: b.shape[0]].repeat_interleave(128, 1)[:, :columns]
        return ((a * scale_a) @ (b * scale_b).T,)
    return ((a * scale_a[:, None]) @ (b * scale_b[:, None]).T,)


def _w4a16(source: Source, shape: Shape, options: Options) -> Inputs:
    m, n, k, group = (shape[key] for key in ("m", "n", "k", "group"))
    return source.normal(m, k), source.whole(256, n, k // 2).byte(), source.normal(n, k // group)


def _dequantized_product(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    a, packed, scale = inputs
    n, half, group = packed.shape[0], shape["group"] // 2, shape["group"]
    halves = packed.reshape(n, -1, half)
    values = torch.stack((halves & 15, halves >> 4), 2).reshape(n, -1)
    return (a.double() @ ((values.double() - 8) * scale.double().repeat_interleave(group, 1)).T,)


def _grouped(source: Source, shape: Shape, options: Options) -> Inputs:
    """Skewed routing: the share of expert i is proportional to 1 / (i + 1), some experts get nothing."""
    rows, experts = shape["tokens"] * shape["top_k"], shape["experts"]
    share = 1.0 / torch.arange(1, experts + 1, dtype=torch.float64)
    ends = (share.cumsum(0) / share.sum() * rows).round().int()
    offsets = torch.cat((torch.zeros(1, dtype=torch.int32), ends)).to(source.device)
    return source.normal(rows, shape["k"]), source.normal(experts, shape["n"], shape["k"]), offsets


def _grouped_product(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    a, weight, offsets = inputs
    parts = [a[b:e].double() @ weight[i].double().T for i, (b, e) in enumerate(pairwise(offsets.tolist()))]
    return (torch.cat(parts),)


# --- normalization and k-means --------------------------------------------------------------------------------------


def _rows(source: Source, shape: Shape, options: Options) -> Inputs:
    x, weight = source.normal(shape["rows"], shape["columns"]), source.normal(shape["columns"])
    return (x, source.normal(*x.shape), weight) if options.get("residual") else (x, weight)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-6).rsqrt() * weight


def _rms_norm(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    wide = _wide(*inputs)
    if options.get("residual"):
        total = wide[0] + wide[1]
        return _rms(total, wide[2]), total
    return (_rms(wide[0], wide[1]),)


def _rows_and_bias(source: Source, shape: Shape, options: Options) -> Inputs:
    return (*_rows(source, shape, {}), source.normal(shape["columns"]))


def _layer_norm(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    x, weight, bias = _wide(*inputs)
    return (torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-5),)


def _norm_and_product(source: Source, shape: Shape, options: Options) -> Inputs:
    x, b = _two(source, shape, options)
    return x, source.normal(shape["k"]), b


def _rms_norm_gemm(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    x, weight, b = _wide(*inputs)
    return (_rms(x, weight) @ b.T,)


def _points(source: Source, shape: Shape, options: Options) -> Inputs:
    return source.normal(shape["points"], shape["dimension"]), source.normal(shape["centroids"], shape["dimension"])


def _nearest(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    """Return all squared distances; whoever compares looks up the ones that were chosen."""
    x, centroids = _wide(*inputs)
    return ((x[:, None] - centroids[None]).square().sum(2),)


# --- attention ------------------------------------------------------------------------------------------------------


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Return (out, lse) in float64, of tensors (batch, heads, sequence, head dimension)."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        rows, columns = scores.shape[-2:]
        seen = torch.ones(rows, columns, dtype=torch.bool, device=q.device).tril(columns - rows)
        scores = scores.masked_fill(~seen, -float("inf"))
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def _heads(source: Source, shape: Shape, options: Options) -> Inputs:
    batch, kv_heads = shape["batch"], shape["kv_heads"]
    q = source.normal(batch, shape["heads"], shape["seq"], shape["qk_head_dim"])
    k = source.normal(batch, kv_heads, shape["kv_seq"], shape["qk_head_dim"])
    return q, k, source.normal(batch, kv_heads, shape["kv_seq"], shape["v_head_dim"])


def _attention(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    q, k, v = _wide(*inputs[:3])
    out, lse = attention(q, k, v, bool(shape["causal"]))
    return (out, lse) if options.get("lse") else (out,)


def _with_gradient(source: Source, shape: Shape, options: Options) -> Inputs:
    """The forward pass runs in float32, head by head: its errors stay far below those of 16-bit results."""
    q, k, v = _heads(source, shape, options)
    dout = source.normal(*q.shape[:-1], v.shape[-1])
    out, lse = torch.empty_like(dout), torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    group = q.shape[1] // k.shape[1]
    for index in range(q.shape[0]):
        for head in range(q.shape[1]):
            own = slice(head // group, head // group + 1)
            one, keys = q[index : index + 1, head : head + 1].float(), k[index : index + 1, own].float()
            found, sums = attention(one, keys, v[index : index + 1, own].float(), bool(shape["causal"]))
            out[index, head], lse[index, head] = found[0, 0].to(out.dtype), sums[0, 0]
    return q, k, v, out, dout, lse


def _gradients(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    q, k, v = (tensor.double().requires_grad_() for tensor in inputs[:3])
    out, _ = attention(q, k, v, bool(shape["causal"]))
    return torch.autograd.grad(out, (q, k, v), inputs[4].double())


def _packed(source: Source, shape: Shape, options: Options) -> Inputs:
    """Sequences of different lengths, from a tenth of the mean to nearly twice as much."""
    tokens, batch = shape["tokens"], shape["batch"]
    share = torch.linspace(0.1, 1.9, batch, dtype=torch.float64)
    ends = (share.cumsum(0) / share.sum() * tokens).round().int()
    bounds = torch.cat((torch.zeros(1, dtype=torch.int32), ends)).to(source.device)
    q = source.normal(tokens, shape["heads"], shape["qk_head_dim"])
    k = source.normal(tokens, shape["kv_heads"], shape["qk_head_dim"])
    return q, k, source.normal(tokens, shape["kv_heads"], shape["v_head_dim"]), bounds


def _packed_attention(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    outs: list[Tensor] = []
    sums: list[Tensor] = []
    for begin, end in pairwise(inputs[3].tolist()):
        if end > begin:
            q, k, v = (tensor[begin:end].double().transpose(0, 1)[None] for tensor in inputs[:3])
            out, lse = attention(q, k, v, bool(shape["causal"]))
            outs.append(out[0].transpose(0, 1))
            sums.append(lse[0].transpose(0, 1))
    return (torch.cat(outs), torch.cat(sums)) if options.get("lse") else (torch.cat(outs),)


def _cache(source: Source, shape: Shape, options: Options) -> Inputs:
    batch, heads, kv_heads, keys = (shape[key] for key in ("batch", "heads", "kv_heads", "kv_seq"))
    q = source.normal(batch, heads, shape["qk_head_dim"])
    k = source.normal(batch, kv_heads, keys, shape["qk_head_dim"])
    if shape["latent"]:
        return q, k
    return q, k, source.normal(batch, kv_heads, keys, shape["v_head_dim"])


def _decode(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    q, k = _wide(*inputs[:2])
    v = k[..., : shape["v_head_dim"]] if shape["latent"] else inputs[2].double()
    return (attention(q[:, :, None], k, v, causal=False)[0][:, :, 0],)


def _pages(source: Source, shape: Shape, options: Options) -> Inputs:
    batch, size, heads = shape["batch"], shape["page_size"], shape["kv_heads"]
    each = -(-shape["kv_seq"] // size)
    order = torch.randperm(batch * each, generator=source.generator, device=source.device)
    lengths = torch.full((batch,), shape["kv_seq"], dtype=torch.int32, device=source.device)
    return (
        source.normal(batch, shape["heads"], shape["qk_head_dim"]),
        source.normal(batch * each, size, heads, shape["qk_head_dim"]),
        source.normal(batch * each, size, heads, shape["v_head_dim"]),
        order.int().reshape(batch, each),
        lengths,
    )


def _paged_decode(inputs: Inputs, shape: Shape, options: Options) -> tuple[Tensor, ...]:
    q, k_pages, v_pages, table, lengths = inputs
    rows: list[Tensor] = []
    for index, length in enumerate(lengths.tolist()):
        k, v = (
            pages[table[index].long()].flatten(0, 1)[:length].transpose(0, 1)[None].double()
            for pages in (k_pages, v_pages)
        )
        rows.append(attention(q[index][None, :, None].double(), k, v, causal=False)[0][0, :, 0])
    return (torch.stack(rows),)


_MATRIX = {"m": 391, "n": 520, "k": 272}
"""No tile divides these; rows are multiples of 16 bytes, as copies by TMA need."""
_SEQUENCE = {"batch": 1, "heads": 4, "kv_heads": 2, "seq": 333, "kv_seq": 333}

FAMILIES: dict[str, Family] = {
    "attention_bwd": Family(_with_gradient, _gradients, ("dq", "dk", "dv"), _SEQUENCE),
    "attention_decode": Family(_cache, _decode, ("out",), {"batch": 3, "kv_seq": 333}),
    "attention_fwd": Family(_heads, _attention, ("out", "lse"), _SEQUENCE),
    "attention_paged": Family(_pages, _paged_decode, ("out",), {"batch": 3, "kv_seq": 333}),
    "attention_varlen": Family(_packed, _packed_attention, ("out", "lse"), {"batch": 5, "tokens": 901}),
    "dual_gemm": Family(_three, _dual, ("first_out", "second_out"), _MATRIX),
    "gemm": Family(_two, _product, ("out",), _MATRIX),
    "gemm_fp8": Family(_fp8, _scaled_product, ("out",), _MATRIX),
    "gemm_persistent": Family(_two, _product, ("out",), _MATRIX),
    "gemm_w4a16": Family(_w4a16, _dequantized_product, ("out",), {"m": 13, "n": 520, "k": 768}),
    "grouped_gemm": Family(_grouped, _grouped_product, ("out",), {"tokens": 101, "n": 520, "k": 272}),
    "kmeans_assign": Family(_points, _nearest, ("assigned", "distances"), {"points": 391, "centroids": 333}),
    "layer_norm": Family(_rows_and_bias, _layer_norm, ("out",), {"rows": 37}),
    "rms_norm": Family(_rows, _rms_norm, ("out", "new_residual"), {"rows": 37}),
    "rms_norm_gemm": Family(_norm_and_product, _rms_norm_gemm, ("out",), _MATRIX),
    "swiglu": Family(_three, _swiglu, ("out",), _MATRIX),
}
