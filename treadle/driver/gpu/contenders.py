"""What kernels are measured against, in the same run: vendor libraries, the Triton tutorials, torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from treadle.driver.gpu.families import Inputs, Options, Shape

Call = Callable[..., Any]
"""Computes on the inputs of the kernel."""

WITHOUT: dict[str, str] = {
    "attention_paged": "no library in torch reads a paged cache; the goal is a share of measured bandwidth",
    "attention_varlen": "no dense library call; compare with attention_fwd of the same tokens",
    "gemm_w4a16": "no 4-bit weights in torch without other packages; 16-bit weights stand beside it",
}
"""Families without a contender of the same kind, and why."""


def contenders(family: str, shape: Shape, options: Options, inputs: Inputs = ()) -> dict[str, Call]:
    """Return what stands beside a kernel of the family, by name; each may fail on a GPU or a torch that lacks it.

    Args:
        family: of the kernel.
        shape: its extents.
        options: its options.
        inputs: of one run; where rows of experts end is known to the host, as it is to a model that routes.
    """
    match family:
        case "gemm" | "gemm_persistent":
            return {"cublas": _matmul, "triton_tutorial": _tutorial_matmul}
        case "gemm_fp8" if options.get("scales") != "block":
            return {
                "cublas": partial(_scaled_matmul, str(options["dtype"])),
                "cublas_one_scale": partial(_matmul_of_one_scale, str(options["dtype"])),
            }
        case "gemm_w4a16":
            return {"cublas_16bit": partial(_dense_of, shape["n"])}
        case "swiglu":
            return {"torch_compile": _compiled(_swiglu)}
        case "dual_gemm":
            return {"torch_compile": _compiled(_dual)}
        case "grouped_gemm":
            return {"torch_compile": partial(_compiled(_grouped), _ends(inputs)), "grouped_mm": _grouped_mm}
        case "rms_norm" if not options.get("residual"):
            return {"torch_compile": _compiled(_rms_norm)}
        case "layer_norm":
            return {"torch_compile": _compiled(_layer_norm)}
        case "rms_norm_gemm":
            return {"torch_compile": _compiled(_norm_gemm)}
        case "kmeans_assign":
            return {"torch_compile": _compiled(_nearest)}
        case "attention_fwd":
            return _attention(shape)
        case "attention_bwd":
            return {
                "cudnn": partial(_sdpa_backward, "CUDNN_ATTENTION", bool(shape["causal"])),
                "flash": partial(_sdpa_backward, "FLASH_ATTENTION", bool(shape["causal"])),
            }
        case "attention_decode" if not shape["latent"]:
            return {"flash": _decode}
        case _:
            return {}


def _matmul(a: Any, b: Any) -> Any:
    return torch.matmul(a, b.T)


def _tutorial_matmul(a: Any, b: Any) -> Any:
    from treadle.driver.gpu.tutorials import matmul

    return matmul(a, b)


def _compiled(function: Call) -> Call:
    """Return what torch.compile makes of a function for one shape: sizes are constants, as they are for a kernel."""
    compiled: Call = torch.compile(function, dynamic=False)
    return compiled


def _scaled_matmul(dtype: str, a: Any, b: Any, scale_a: Any, scale_b: Any) -> Any:
    """Scales of rows, sums in the tensor core's own precision: as the kernel's."""
    scaled_mm: Any = vars(torch)["_scaled_mm"]
    return scaled_mm(
        a, b.t(), scale_a=scale_a[:, None], scale_b=scale_b[None, :], out_dtype=getattr(torch, dtype),
        use_fast_accum=True,
    )  # fmt: skip


def _matmul_of_one_scale(dtype: str, a: Any, b: Any, scale_a: Any, scale_b: Any) -> Any:
    """One scale for a whole matrix: less work than the kernel's, and another result."""
    scaled_mm: Any = vars(torch)["_scaled_mm"]
    one_a, one_b = scale_a[:1], scale_b[:1]
    return scaled_mm(a, b.t(), scale_a=one_a, scale_b=one_b, out_dtype=getattr(torch, dtype), use_fast_accum=True)


def _dense_of(n: int, a: Any, w: Any, scale: Any) -> Any:
    weight = _DENSE.get(n)
    if weight is None or weight.shape[1] != a.shape[1]:
        weight = _DENSE[n] = torch.randn(n, a.shape[1], device=a.device, dtype=a.dtype)
    return torch.matmul(a, weight.T)


_DENSE: dict[int, Any] = {}


def _swiglu(x: Any, gate: Any, up: Any) -> Any:
    return F.silu(x @ gate.T) * (x @ up.T)


def _dual(x: Any, a: Any, b: Any) -> Any:
    return x @ a.T, x @ b.T


def _ends(inputs: Inputs) -> tuple[int, ...]:
    """Return where the rows of each expert begin and end."""
    return tuple(inputs[2].tolist()) if len(inputs) > 2 else ()


def _grouped(ends: tuple[int, ...], a: Any, weight: Any, offsets: Any) -> Any:
    return torch.cat([a[begin:end] @ weight[i].T for i, (begin, end) in enumerate(pairwise(ends))])


def _grouped_mm(a: Any, weight: Any, offsets: Any) -> Any:
    grouped_mm: Any = vars(torch)["_grouped_mm"]
    return grouped_mm(a, weight.transpose(1, 2), offs=offsets[1:])


def _rms_norm(x: Any, weight: Any) -> Any:
    return F.rms_norm(x, x.shape[-1:], weight, 1e-6)


def _layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    return F.layer_norm(x, x.shape[-1:], weight, bias)


def _norm_gemm(x: Any, weight: Any, b: Any) -> Any:
    return F.rms_norm(x, x.shape[-1:], weight, 1e-6) @ b.T


def _nearest(x: Any, centroids: Any) -> Any:
    return (centroids.float().square().sum(1) - 2 * (x @ centroids.T).float()).argmin(1)


def _attention(shape: Mapping[str, int]) -> dict[str, Call]:
    causal = bool(shape["causal"])
    found: dict[str, Call] = {
        "cudnn": partial(_sdpa, "CUDNN_ATTENTION", causal),
        "flash": partial(_sdpa, "FLASH_ATTENTION", causal),
    }
    if shape["seq"] == shape["kv_seq"] and shape["qk_head_dim"] == shape["v_head_dim"]:
        found["triton_tutorial"] = partial(_tutorial_attention, causal)
    return found


def _sdpa(backend: str, causal: bool, q: Any, k: Any, v: Any) -> Any:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, backend)):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def _tutorial_attention(causal: bool, q: Any, k: Any, v: Any) -> Any:
    from treadle.driver.gpu.tutorials import attention

    return attention(q, k, v, causal)


_GRAPHS: dict[tuple[str, int], tuple[Any, Any]] = {}
"""Forward passes whose backward is timed, by backend and tensor: the pass itself is not part of the time."""


def _sdpa_backward(backend: str, causal: bool, q: Any, k: Any, v: Any, out: Any, dout: Any, lse: Any) -> Any:
    key = (backend, q.data_ptr())
    if key not in _GRAPHS:
        leaves = tuple(tensor.detach().requires_grad_() for tensor in (q, k, v))
        _GRAPHS[key] = (leaves, _sdpa(backend, causal, *leaves))
    leaves, result = _GRAPHS[key]
    return torch.autograd.grad(result, leaves, dout, retain_graph=True)


def forget_graphs() -> None:
    """Free what backward passes and dense weights keep."""
    _GRAPHS.clear()
    _DENSE.clear()


def _decode(q: Any, k: Any, v: Any) -> Any:
    return _sdpa("FLASH_ATTENTION", False, q[:, :, None], k, v)[:, :, 0]


def inputs_bytes(inputs: Inputs) -> int:
    """Return the bytes of all inputs."""
    return sum(tensor.numel() * tensor.element_size() for tensor in inputs)
