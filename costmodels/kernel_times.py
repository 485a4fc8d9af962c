"""How long the kernels of a transformer take on one GPU: one protocol, and estimates from a machine's figures.

`KernelTimes` is what planners ask; `RooflineTimes` answers from peak rates and at most eight calibrated constants per
machine, `treadle.costmodels.measured.TableTimes` from tables of measurements. All times are microseconds of one launch
on one GPU, operands in device memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Protocol

from treadle.costmodels import kernel_estimates as estimates
from treadle.costmodels.errors import UnsupportedOperation
from treadle.costmodels.kernel_estimates import Constants
from treadle.costmodels.tile_cycles import tensor_class, tensor_dtypes, tensor_rate
from treadle.ir.machine import Machine
from treadle.ir.tile.program import DTYPE_BYTES


class KernelTimes(Protocol):
    """Times of the kernels of one GPU in microseconds."""

    def gemm_us(self, m: int, n: int, k: int, dtype: str = "bfloat16") -> float:
        """Return the time of (m, k) @ (k, n); `dtype` is that of both operands, the result has 2 bytes."""
        ...

    def attention_prefill_us(
        self, batch: int, seq: int, heads: int, kv_heads: int, head_dim: int, *, window: int = 0, kv_seq: int = 0
    ) -> float:
        """Return the time of causal attention of `seq` new queries over `kv_seq` keys (0: as many as queries)."""
        ...

    def attention_decode_us(
        self, batch: int, kv_seq: int, heads: int, kv_heads: int, head_dim: int, *, window: int = 0
    ) -> float:
        """Return the time of attention of one new query per sequence over `kv_seq` cached keys."""
        ...

    def latent_prefill_us(self, batch: int, seq: int, heads: int) -> float:
        """Return the time of causal multi-head latent attention of DeepSeek shape (head dimensions 192 and 128)."""
        ...

    def latent_decode_us(self, batch: int, kv_seq: int, heads: int) -> float:
        """Return the time of absorbed latent attention (576 and 512) of one new query per sequence."""
        ...

    def moe_us(
        self,
        tokens: int,
        hidden: int,
        inter: int,
        experts: int,
        top_k: int,
        *,
        tensor_parallel: int = 1,
        expert_parallel: int = 1,
        dtype: str = "bfloat16",
    ) -> float:
        """Return the time of a gated expert layer: `tokens` of all ranks, `inter` of one expert before sharding."""
        ...


@dataclass(frozen=True, slots=True)
class RooflineTimes:
    """Estimates from a machine's figures; raises MissingFigure where one is not there."""

    machine: Machine
    constants: Constants = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "constants", Constants.of(self.machine))

    def gemm_us(self, m: int, n: int, k: int, dtype: str = "bfloat16") -> float:
        """Return the time of (m, k) @ (k, n)."""
        return float(estimates.gemm_us(self.constants, m, n, k, flops_per_us(self.machine, dtype), DTYPE_BYTES[dtype]))

    def attention_prefill_us(
        self,
        batch: int,
        seq: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        window: int = 0,
        kv_seq: int = 0,
        v_head_dim: int = 0,
    ) -> float:
        """Return the time of causal attention; `v_head_dim` 0 is that of the keys."""
        return float(
            estimates.attention_prefill_us(
                self.constants,
                batch,
                seq,
                heads,
                kv_heads,
                head_dim,
                flops_per_us(self.machine, "bfloat16"),
                v_head_dim=v_head_dim,
                window=window,
                kv_seq=kv_seq,
            )
        )

    def attention_decode_us(
        self,
        batch: int,
        kv_seq: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        window: int = 0,
        v_head_dim: int = 0,
        kv_dtype: str = "bfloat16",
    ) -> float:
        """Return the time of decode attention; with one key-value head and narrower values those are read once."""
        return float(
            estimates.attention_decode_us(
                self.constants,
                batch,
                kv_seq,
                heads,
                kv_heads,
                head_dim,
                v_head_dim=v_head_dim,
                window=window,
                kv_bytes=DTYPE_BYTES[kv_dtype],
            )
        )

    def latent_prefill_us(self, batch: int, seq: int, heads: int) -> float:
        """Return the time of latent attention over a whole sequence."""
        return self.attention_prefill_us(batch, seq, heads, heads, 192, v_head_dim=128)

    def latent_decode_us(self, batch: int, kv_seq: int, heads: int) -> float:
        """Return the time of absorbed latent attention."""
        return self.attention_decode_us(batch, kv_seq, heads, 1, 576, v_head_dim=512)

    def moe_us(
        self,
        tokens: int,
        hidden: int,
        inter: int,
        experts: int,
        top_k: int,
        *,
        tensor_parallel: int = 1,
        expert_parallel: int = 1,
        dtype: str = "bfloat16",
    ) -> float:
        """Return the time of the two grouped products of a rank's experts under evenly spread routing."""
        rows = max(1, ceil(tokens * top_k / expert_parallel))
        active = min(ceil(experts / expert_parallel), rows)
        width = ceil(inter / tensor_parallel)
        rate, size = flops_per_us(self.machine, dtype), DTYPE_BYTES[dtype]
        up = estimates.grouped_gemm_us(self.constants, active, rows, 2 * width, hidden, rate, size)
        down = estimates.grouped_gemm_us(self.constants, active, rows, hidden, width, rate, size)
        return float(up + down)


def flops_per_us(machine: Machine, dtype: str) -> float:
    """Return the vendor's dense peak for operands of `dtype`; raises UnsupportedOperation."""
    if not tensor_rate(machine, dtype):
        raise UnsupportedOperation(
            operation="product",
            program="kernel times",
            what=f"a product of {dtype}",
            machine=machine.name,
            expected=f"one of {', '.join(tensor_dtypes(machine))}",
        )
    return machine.value(f"peak_flops_{tensor_class(dtype)}") / 1e6
