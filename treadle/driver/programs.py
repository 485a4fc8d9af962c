"""Programs of the library at the shapes of a model: `td.programs.attention_fwd(model, seq=16384)`."""

from __future__ import annotations

from dataclasses import dataclass, field

from treadle.frontends import programs
from treadle.ir.errors import UnknownName
from treadle.ir.model import Attention, Gemm, ModelGraph
from treadle.ir.tile.program import TileProgram


@dataclass(frozen=True, slots=True)
class ProgramRequest:
    """A program family at a shape; tile sizes are left open and chosen by predicted time."""

    family: str
    shape: dict[str, int]
    dtype: str = "bfloat16"
    name: str = field(default="")

    def candidates(self) -> tuple[TileProgram, ...]:
        """Return the programs of different tile sizes; raises as `treadle.frontends.programs.candidates`."""
        return programs.candidates(self.family, self.shape, {"dtype": self.dtype})


def attention_fwd(model: ModelGraph, seq: int, batch: int = 1, kv_seq: int | None = None) -> ProgramRequest:
    """Return prefill attention of the model's first attention layer.

    Args:
        model: the model graph.
        seq: query tokens per sequence.
        batch: sequences.
        kv_seq: keys per sequence; `seq` unless given.

    Raises:
        UnknownName: the model has no attention.
    """
    detail = _attention(model)
    shape = {
        "batch": batch,
        "heads": detail.heads,
        "kv_heads": detail.kv_heads,
        "seq": seq,
        "kv_seq": kv_seq or seq,
        "qk_head_dim": detail.qk_head_dim,
        "v_head_dim": detail.v_head_dim,
        "causal": int(detail.causal),
    }
    return ProgramRequest("attention_fwd", shape, model.dtype)


def attention_decode(model: ModelGraph, kv_seq: int, batch: int) -> ProgramRequest:
    """Return decode attention of the model's first attention layer: one new token for each of `batch` sequences."""
    detail = _attention(model)
    shape = {
        "batch": batch,
        "heads": detail.heads,
        "kv_heads": detail.kv_heads,
        "kv_seq": kv_seq,
        "qk_head_dim": detail.qk_head_dim,
        "v_head_dim": detail.v_head_dim,
    }
    return ProgramRequest("attention_decode", shape, model.dtype)


def linear(model: ModelGraph, operator: str, tokens: int) -> ProgramRequest:
    """Return the product of a linear operator of the model, by operator name, for `tokens` rows.

    Raises:
        UnknownName: no layer has a linear operator of that name.
    """
    found = {
        item.name: item.detail for layer in model.layers for item in layer.operators if isinstance(item.detail, Gemm)
    }
    if operator not in found:
        raise UnknownName(kind="linear operator", name=operator, expected=f"one of {', '.join(found)}")
    return ProgramRequest("gemm", {"m": tokens, "n": found[operator].n, "k": found[operator].k}, model.dtype)


def gemm(m: int, n: int, k: int, dtype: str = "bfloat16") -> ProgramRequest:
    """Return the product (m, k) x (k, n)."""
    return ProgramRequest("gemm", {"m": m, "n": n, "k": k}, dtype)


def _attention(model: ModelGraph) -> Attention:
    for layer in model.layers:
        for operator in layer.operators:
            if isinstance(operator.detail, Attention) and not operator.detail.cross:
                return operator.detail
    raise UnknownName(kind="operator", name="attention", expected="a model with attention layers")
