"""What the emitted kernels are to torch: the schema of each family as an operator, and the shapes of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from treadle.ir.tile.program import TileProgram

Result = tuple[tuple[int, ...], str]
"""Shape, and element type in torch's name; an empty name is that of the first tensor."""
Results = Callable[..., Sequence[Result]]


@dataclass(frozen=True, slots=True)
class Operator:
    """A kernel's arguments and results: `schema` as `torch.library` writes it, `results` from fake or real tensors."""

    schema: str
    results: Results


def operator_of(program: TileProgram) -> Operator | None:
    """Return the operator of a program's family and options; None for a family whose kernels have none."""
    family, options = program.family, program.options
    if family == "attention_fwd" and options.get("lse"):
        return Operator("(Tensor q, Tensor k, Tensor v, float? scale=None) -> (Tensor, Tensor)", _attention_and_sums)
    if family == "attention_varlen" and options.get("lse"):
        return Operator(f"{_VARLEN} -> (Tensor, Tensor)", _attention_and_sums)
    if family == "attention_decode" and program.shape["latent"]:
        schema = "(Tensor q, Tensor k, Tensor? lengths=None, float? scale=None) -> Tensor"
        return Operator(schema, partial(_latent, program.shape["v_head_dim"]))
    if family == "rms_norm" and options.get("residual"):
        schema = "(Tensor x, Tensor residual, Tensor weight, float epsilon=1e-6) -> (Tensor, Tensor)"
        return Operator(schema, partial(_like, 2))
    if family == "dual_gemm" and options.get("combine") == "both":
        return Operator("(Tensor x, Tensor a, Tensor b) -> (Tensor, Tensor)", _two_products)
    if family == "gemm_fp8":
        schema = "(Tensor a, Tensor b, Tensor scale_a, Tensor scale_b) -> Tensor"
        return Operator(schema, partial(_product_as, str(options["dtype"])))
    return _OPERATORS.get(family)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _product_as(dtype: str, *tensors: Any) -> list[Result]:
    """(m, k) and (n, k) to (m, n)."""
    return [((tensors[0].shape[0], tensors[1].shape[0]), dtype)]


def _product(*tensors: Any) -> list[Result]:
    return _product_as("", *tensors)


def _two_products(*tensors: Any) -> list[Result]:
    return [*_product(*tensors), *_product(*tensors)]


def _product_after_norm(*tensors: Any) -> list[Result]:
    return _product(tensors[0], tensors[2])


def _grouped(*tensors: Any) -> list[Result]:
    return [((tensors[0].shape[0], tensors[1].shape[1]), "")]


def _like(count: int, *tensors: Any) -> list[Result]:
    """Results shaped as the first `count` tensors."""
    return [(_shape(tensor), "") for tensor in tensors[:count]]


def _attention(*tensors: Any) -> list[Result]:
    return [((*_shape(tensors[0])[:-1], tensors[2].shape[-1]), "")]


def _attention_and_sums(*tensors: Any) -> list[Result]:
    return [*_attention(*tensors), (_shape(tensors[0])[:-1], "float32")]


def _latent(v_head_dim: int, *tensors: Any) -> list[Result]:
    return [((*_shape(tensors[0])[:2], v_head_dim), "")]


def _assigned(*tensors: Any) -> list[Result]:
    return [(_shape(tensors[0])[:1], "int32"), (_shape(tensors[0])[:1], "float32")]


_VARLEN = "(Tensor q, Tensor k, Tensor v, Tensor bounds, int? longest=None, float? scale=None, bool check=True)"
_PAGED = (
    "(Tensor q, Tensor k_pages, Tensor v_pages, Tensor block_table, Tensor lengths, float? scale=None, "
    "bool check=True) -> Tensor"
)
_BACKWARD = (
    "(Tensor q, Tensor k, Tensor v, Tensor out, Tensor dout, Tensor lse, float? scale=None) -> (Tensor, Tensor, Tensor)"
)
_DECODE = "(Tensor q, Tensor k, Tensor v, Tensor? lengths=None, float? scale=None) -> Tensor"
_RMS_NORM_GEMM = "(Tensor x, Tensor weight, Tensor b, float epsilon=1e-6) -> Tensor"
_LAYER_NORM = "(Tensor x, Tensor weight, Tensor bias, float epsilon=1e-5) -> Tensor"
_KMEANS = "(Tensor x, Tensor centroids, Tensor? norms=None) -> (Tensor, Tensor)"

_OPERATORS: dict[str, Operator] = {
    "attention_bwd": Operator(_BACKWARD, partial(_like, 3)),
    "attention_decode": Operator(_DECODE, _attention),
    "attention_fwd": Operator("(Tensor q, Tensor k, Tensor v, float? scale=None) -> Tensor", _attention),
    "attention_paged": Operator(_PAGED, _attention),
    "attention_varlen": Operator(f"{_VARLEN} -> Tensor", _attention),
    "dual_gemm": Operator("(Tensor x, Tensor a, Tensor b) -> Tensor", _product),
    "gemm": Operator("(Tensor a, Tensor b) -> Tensor", _product),
    "gemm_persistent": Operator("(Tensor a, Tensor b) -> Tensor", _product),
    "gemm_w4a16": Operator("(Tensor a, Tensor w, Tensor scale) -> Tensor", _product),
    "grouped_gemm": Operator("(Tensor a, Tensor weight, Tensor offsets, bool check=True) -> Tensor", _grouped),
    "kmeans_assign": Operator(_KMEANS, _assigned),
    "layer_norm": Operator(_LAYER_NORM, partial(_like, 1)),
    "rms_norm": Operator("(Tensor x, Tensor weight, float epsilon=1e-6) -> Tensor", partial(_like, 1)),
    "rms_norm_gemm": Operator(_RMS_NORM_GEMM, _product_after_norm),
    "swiglu": Operator("(Tensor x, Tensor gate, Tensor up) -> Tensor", _product),
}
