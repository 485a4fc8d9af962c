"""What kernels should compute, in float64, written without tiles."""

from __future__ import annotations

from itertools import pairwise

import torch


def wide(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.double() for tensor in tensors]


def gemm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = wide(a, b)
    return a @ b.T


def swiglu(x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gemm(x, gate)) * gemm(x, up)


def grouped_gemm(a: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    ends = offsets.tolist()
    return torch.cat([gemm(a[ends[e] : ends[e + 1]], weight[e]) for e in range(weight.shape[0])])


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    x, weight = wide(x, weight)
    return x * (x.pow(2).mean(1, keepdim=True) + epsilon).rsqrt() * weight


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, scale: float | None) -> torch.Tensor:
    q, k, v = wide(q, k, v)
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(~seen, -float("inf"))
    return scores.softmax(-1) @ v


def decode(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor | None, scale: float | None
) -> torch.Tensor:
    rows: list[torch.Tensor] = []
    for index in range(q.shape[0]):
        length = k.shape[2] if lengths is None else int(lengths[index])
        one = slice(index, index + 1)
        if length == 0:
            rows.append(torch.zeros(q.shape[1], v.shape[-1], dtype=torch.float64))
        else:
            rows.append(attention(q[one, :, None], k[one, :, :length], v[one, :, :length], False, scale)[0, :, 0])
    return torch.stack(rows)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float) -> torch.Tensor:
    x, weight, bias = wide(x, weight, bias)
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dout: torch.Tensor, causal: bool, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (out, lse, dq, dk, dv)."""
    q, k, v = (tensor.double().requires_grad_() for tensor in (q, k, v))
    out = attention(q, k, v, causal, scale)
    dq, dk, dv = torch.autograd.grad(out, (q, k, v), dout.double())
    return out.detach(), log_sums(q, k, causal, scale), dq, dk, dv


def log_sums(q: torch.Tensor, k: torch.Tensor, causal: bool, scale: float | None) -> torch.Tensor:
    q, k = (tensor.detach().double() for tensor in (q, k))
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(~seen, -float("inf"))
    return scores.logsumexp(-1)


def varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: list[int], causal: bool) -> torch.Tensor:
    parts: list[torch.Tensor] = []
    for begin, end in pairwise(bounds):
        if end > begin:
            own = [tensor[begin:end].transpose(0, 1)[None] for tensor in (q, k, v)]
            parts.append(attention(own[0], own[1], own[2], causal, None)[0].transpose(0, 1))
    return torch.cat(parts)


def kmeans(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return all squared distances (points, centroids)."""
    return (x.double()[:, None] - centroids.double()[None]).square().sum(2)
