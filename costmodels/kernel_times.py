"""How long the kernels of a transformer take on one GPU: one protocol, and estimates from a machine's figures.

`KernelTimes` is what planners ask; `RooflineTimes` answers from peak rates and at most eight calibrated constants per
machine (figures named `gemm_*`, `attention_*`, `decode_*`), `treadle.costmodels.measured.TableTimes` from tables of
measurements. All times are microseconds of one launch on one GPU, with operands in device memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Protocol

from treadle.costmodels.errors import UnsupportedOperation
from treadle.costmodels.tile_cycles import tensor_class, tensor_dtypes
from treadle.ir.machine import Machine
from treadle.ir.tile.program import DTYPE_BYTES

GEMM_TILES = ((256, 256), (256, 128), (128, 256), (128, 128), (64, 256), (128, 64), (64, 128), (64, 64))
"""Output tiles (rows, columns) that matrix libraries choose from; the quickest one counts."""

GEMM_SPLITS = (1, 2, 4, 8)
"""Pieces the contracted dimension may be cut into; more than one costs a further kernel floor."""

ATTENTION_ROWS = 128
"""Query rows of one program instance, and keys of one step (FlashAttention-2 and -3)."""

_NORM = 3.0
"""Exponent of the smooth maximum of compute and memory time: the two overlap, but not freely near the ridge."""


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

    def gemm_us(self, m: int, n: int, k: int, dtype: str = "bfloat16") -> float:
        """Return floor + smooth maximum of compute (whole waves of the best tile) and memory time."""
        size = DTYPE_BYTES[dtype]
        memory = self._memory_us((m * k + n * k) * size + m * n * 2, "gemm_memory_efficiency")
        compute = min(self._gemm_compute_us(m, n, k, dtype, tile) for tile in GEMM_TILES)
        floor = self.machine.value("gemm_floor_us")
        return float(floor + (compute**_NORM + memory**_NORM) ** (1 / _NORM))

    def _gemm_compute_us(self, m: int, n: int, k: int, dtype: str, tile: tuple[int, int]) -> float:
        """Time of the waves of one tile shape, at the best split of k."""
        tiles = ceil(m / tile[0]) * ceil(n / tile[1])
        step_us = 2 * tile[0] * tile[1] * k / self._sm_flops_per_us(dtype) / self.machine.value("gemm_efficiency")
        floor = self.machine.value("gemm_floor_us")
        processors = self.machine.value("sm_count")
        return min(
            ceil(tiles * split / processors) * step_us / split + (floor if split > 1 else 0.0) for split in GEMM_SPLITS
        )

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
        """Return floor + the larger of compute and memory time.

        Compute is the work of all instances (128 query rows each, or the rows of a group where sequences are shorter)
        over the processors, at least the longest instance. A step costs its two products and the part of its
        exponentials that does not overlap with them; an instance costs its prologue and epilogue besides.
        """
        keys = max(kv_seq, seq)
        value_dim = v_head_dim or head_dim
        step_us = self._attention_step_us(head_dim, value_dim)
        instance_us = self.machine.value("attention_instance_us")
        blocks = ceil(seq / ATTENTION_ROWS)
        instances, fill = self._instances(batch, seq, heads, kv_heads)
        steps = _causal_steps(seq, keys, window)
        work = instances / blocks * sum(steps) * step_us + instances * instance_us * (0.5 + 0.5 * fill)
        compute = max(work / self.machine.value("sm_count"), max(steps) * step_us + instance_us) - 0.5 * instance_us
        elements = batch * heads * seq * (head_dim + value_dim) + batch * kv_heads * keys * (head_dim + value_dim)
        memory = self._memory_us(2 * elements, "gemm_memory_efficiency")
        return self.machine.value("attention_floor_us") + max(compute, memory)

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
        """Return floor + the time to stream the cache + the cost of instances beyond the first wave.

        With `v_head_dim` 0 values are as wide as keys; with one key-value head and narrower values (latent attention)
        the values are part of the keys and are streamed once.
        """
        keys = min(kv_seq, window) if window else kv_seq
        latent = bool(v_head_dim) and kv_heads == 1
        width = head_dim if latent else head_dim + (v_head_dim or head_dim)
        cache = batch * kv_heads * keys * width * DTYPE_BYTES[kv_dtype]
        ends = batch * heads * (head_dim + (v_head_dim or head_dim)) * 2
        memory = self._memory_us(cache + ends, "decode_memory_efficiency")
        instances = batch * kv_heads * ceil(heads / kv_heads / 64)
        instance_us = self.machine.value("decode_instance_us")
        waves = instances / self.machine.value("sm_count") * (head_dim / ATTENTION_ROWS) ** 0.5
        return float(self.machine.value("decode_floor_us") + memory + instance_us * max(0.0, waves - 1))

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
        local = ceil(experts / expert_parallel)
        rows = max(1, ceil(tokens * top_k / expert_parallel))
        active = min(local, rows)
        width = ceil(inter / tensor_parallel)
        return self._grouped_us(active, rows, 2 * width, hidden, dtype) + self._grouped_us(
            active, rows, hidden, width, dtype
        )

    def _grouped_us(self, groups: int, rows: int, n: int, k: int, dtype: str) -> float:
        """Time of `groups` products that share `rows` rows evenly; each pads its rows to 64."""
        padded = groups * ceil(rows / groups / 64) * 64
        memory = self._memory_us(groups * n * k * DTYPE_BYTES[dtype] + rows * (k + n) * 2, "gemm_memory_efficiency")
        flops = 2 * padded * n * k
        rate = self._sm_flops_per_us(dtype) * self.machine.value("sm_count") * self.machine.value("gemm_efficiency")
        floor = self.machine.value("gemm_floor_us")
        return float(floor + ((flops / rate) ** _NORM + memory**_NORM) ** (1 / _NORM))

    def _attention_step_us(self, head_dim: int, value_dim: int) -> float:
        """Time of one step of 128 query rows and 128 keys on one multiprocessor."""
        area = ATTENTION_ROWS * ATTENTION_ROWS
        products = area * (head_dim + value_dim) * 2 / self._sm_flops_per_us("bfloat16")
        exponentials = area / self.machine.value("mufu_per_cycle") / (self.machine.value("clock_boost_ghz") * 1e3)
        exposed = self.machine.value("attention_exposed_exp2")
        return products / self.machine.value("attention_efficiency") + exposed * exponentials

    def _instances(self, batch: int, seq: int, heads: int, kv_heads: int) -> tuple[int, float]:
        """Return (program instances, share of their rows that is used); short sequences share by query group."""
        if seq >= ATTENTION_ROWS:
            return batch * heads * ceil(seq / ATTENTION_ROWS), 1.0
        rows = seq * heads / kv_heads
        return batch * kv_heads * ceil(rows / ATTENTION_ROWS), min(1.0, rows / ATTENTION_ROWS)

    def _sm_flops_per_us(self, dtype: str) -> float:
        """Peak FLOP of one multiprocessor in a microsecond, from the vendor's peak."""
        kind = tensor_class(dtype)
        if kind is None or dtype not in tensor_dtypes(self.machine):
            raise UnsupportedOperation(
                operation="product",
                program="kernel times",
                what=f"a product of {dtype}",
                machine=self.machine.name,
                expected=f"one of {', '.join(tensor_dtypes(self.machine))}",
            )
        return self.machine.value(f"peak_flops_{kind}") / 1e6 / self.machine.value("sm_count")

    def _memory_us(self, size_bytes: float, efficiency: str) -> float:
        rate = self.machine.value("memory_bandwidth_sustained_bytes_per_s") * self.machine.value(efficiency)
        return size_bytes / rate * 1e6


def _causal_steps(seq: int, keys: int, window: int) -> tuple[float, ...]:
    """Return the steps of 128 keys that each block of 128 queries takes; masks are aligned at the end of the keys."""
    blocks = ceil(seq / ATTENTION_ROWS)
    offset = keys - seq
    widest = ceil((window + ATTENTION_ROWS - 1) / ATTENTION_ROWS) if 0 < window < keys else blocks + keys
    ends = (min((block + 1) * ATTENTION_ROWS, seq) + offset for block in range(blocks))
    return tuple(float(min(ceil(end / ATTENTION_ROWS), widest)) for end in ends)
