"""Estimates of kernel times over whole arrays of shapes: peak rates, waves over the processors, a few constants.

Every function takes the constants of one machine and arrays (or numbers) of extents, and returns microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from treadle.ir.machine import Machine

Floats = NDArray[np.float64]
Extents = Floats | float | int

GEMM_TILES = ((256, 256), (256, 128), (128, 256), (128, 128), (64, 256), (128, 64), (64, 128), (64, 64))
"""Output tiles (rows, columns) that matrix libraries choose from; the quickest one counts."""

GEMM_SPLITS = (1, 2, 4, 8)
"""Pieces the contracted dimension may be cut into; more than one costs a further kernel floor."""

BLOCK = 128
"""Query rows of one attention instance and keys of one step (FlashAttention-2 and -3)."""

DECODE_ROWS = 64
"""Query heads that one decode instance takes as the rows of its tile."""

SOFTMAX_PASSES = 1.2
"""Softmax of a step in units of its exponentials: maximum, sum, scaling and conversion come on top (joint fit)."""

_SOFTMAX_NORM = 2.0
"""Exponent of the smooth maximum of the products and the softmax of a step."""

GEMM_WAVE_US = 0.6 / (128 * 256)
"""What a wave costs beside its products, per element of the output tile: fill and epilogue (joint fit)."""

_NORM = 2.0
"""Exponent of the smooth maximum of compute and memory time: the two overlap, but not freely near the ridge."""

_STREAMING_NORM = 1.5
"""The same for the instances of decode attention and its stream: they overlap worse."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The constants fitted to measurements, each a figure of the machine file.

    Efficiencies are shares of a peak; `*_instance_us` is what one program instance costs beside its steps, `*_floor_us`
    what a launch costs.
    """

    gemm_efficiency: float
    gemm_floor_us: float
    memory_efficiency: float
    attention_efficiency: float
    attention_instance_us: float
    attention_floor_us: float
    decode_instance_us: float
    decode_floor_us: float


CALIBRATED = tuple(item.name for item in fields(Calibration))
"""Names of the calibrated figures."""


@dataclass(frozen=True, slots=True)
class Constants:
    """What the estimates need of one machine, in microseconds; read once from its figures."""

    processors: float
    bytes_per_us: float
    exp2_per_us: float
    calibration: Calibration

    @staticmethod
    def of(machine: Machine, calibration: Calibration | None = None) -> Constants:
        """Read the figures of a machine; raises MissingFigure.

        Args:
            machine: with or without the calibrated figures.
            calibration: takes the place of the machine's own (a fit in progress).
        """
        return Constants(
            processors=machine.value("sm_count"),
            bytes_per_us=machine.value("memory_bandwidth_sustained_bytes_per_s") / 1e6,
            exp2_per_us=machine.value("mufu_per_cycle") * machine.value("clock_boost_ghz") * 1e3,
            calibration=calibration or Calibration(**{name: machine.value(name) for name in CALIBRATED}),
        )

    def with_calibration(self, calibration: Calibration) -> Constants:
        """Return the same machine with other calibrated constants."""
        return replace(self, calibration=calibration)

    def memory_us(self, size_bytes: Extents) -> Floats:
        """Return the time to stream bytes from device memory."""
        return np.asarray(size_bytes, dtype=np.float64) / (self.bytes_per_us * self.calibration.memory_efficiency)


def gemm_us(
    constants: Constants, m: Extents, n: Extents, k: Extents, flops_per_us: float, operand_bytes: float
) -> Floats:
    """Time of (m, k) @ (k, n): floor + smooth maximum of compute and memory time.

    Compute is counted in whole waves of the quickest output tile and split of k; `flops_per_us` is the machine's peak
    for the dtype, `operand_bytes` the size of an element of the operands (the result has 2 bytes). Operands of one byte
    come with the dynamic quantization of the activations, as serving frameworks run them: a launch that reads (m, k) in
    two bytes twice (largest magnitude, then scaling) and writes it in one.
    """
    m, n, k = _arrays(m, n, k)
    memory = constants.memory_us((m * k + n * k) * operand_bytes + m * n * 2)
    rate = flops_per_us / constants.processors * constants.calibration.gemm_efficiency
    compute = np.full(np.broadcast(m, n, k).shape, np.inf)
    for rows, columns in GEMM_TILES:
        tiles = np.ceil(m / rows) * np.ceil(n / columns)
        step = 2 * rows * columns * k / rate
        ends = GEMM_WAVE_US * rows * columns
        for split in GEMM_SPLITS:
            extra = constants.calibration.gemm_floor_us if split > 1 else 0.0
            waves = np.ceil(tiles * split / constants.processors)
            compute = np.minimum(compute, waves * (step / split + ends) + extra)
    floor = constants.calibration.gemm_floor_us
    quantize = floor + constants.memory_us(m * k * 5) if operand_bytes <= 1 else np.zeros(())
    return floor + quantize + _norm(compute, memory, _NORM)


def grouped_gemm_us(
    constants: Constants,
    groups: Extents,
    rows: Extents,
    n: Extents,
    k: Extents,
    flops_per_us: float,
    operand_bytes: float,
) -> Floats:
    """Time of `groups` products (., k) @ (k, n) that share `rows` rows evenly, each padded to 64 rows."""
    groups, rows, n, k = _arrays(groups, rows, n, k)
    padded = groups * np.ceil(rows / groups / 64) * 64
    compute = 2 * padded * n * k / (flops_per_us * constants.calibration.gemm_efficiency)
    memory = constants.memory_us(groups * n * k * operand_bytes + rows * (k + n) * 2)
    return constants.calibration.gemm_floor_us + _norm(compute, memory, _NORM)


def attention_prefill_us(
    constants: Constants,
    batch: Extents,
    seq: Extents,
    heads: Extents,
    kv_heads: Extents,
    head_dim: Extents,
    flops_per_us: float,
    *,
    v_head_dim: Extents = 0,
    window: Extents = 0,
    kv_seq: Extents = 0,
) -> Floats:
    """Time of causal attention: floor + appending to the cache + the larger of compute and memory time.

    Compute is the work of all instances (128 query rows each, or the rows of a query group where sequences are shorter
    than that) over the processors, at least the longest instance. A step costs its two products and its softmax, which
    overlap in part; an instance costs its prologue and epilogue besides. Serving kernels also copy the new keys and
    values into the cache.
    """
    batch, seq, heads, kv_heads, head_dim = _arrays(batch, seq, heads, kv_heads, head_dim)
    values = np.where(np.asarray(v_head_dim) > 0, v_head_dim, head_dim)
    keys = np.maximum(seq, kv_seq)
    fitted = constants.calibration
    products = 2 * BLOCK * BLOCK * (head_dim + values) / flops_per_us * constants.processors
    softmax = np.asarray(SOFTMAX_PASSES * BLOCK**2 / constants.exp2_per_us)
    step = _norm(products / fitted.attention_efficiency, softmax, _SOFTMAX_NORM)
    blocks = np.ceil(seq / BLOCK)
    rows = np.where(seq < BLOCK, seq * heads / kv_heads, BLOCK * blocks)
    instances = np.where(seq < BLOCK, batch * kv_heads * np.ceil(rows / BLOCK), batch * heads * blocks)
    fill = np.minimum(1.0, rows / BLOCK)
    total, longest = causal_steps(seq, keys, np.asarray(window, dtype=np.float64))
    work = instances * (total / blocks * step + fitted.attention_instance_us * (0.5 + 0.5 * fill))
    alone = longest * step + fitted.attention_instance_us
    compute = np.maximum(work / constants.processors, alone) - 0.5 * fitted.attention_instance_us
    width = head_dim + values
    memory = constants.memory_us(2 * batch * (heads * seq + kv_heads * keys) * width)
    append = constants.memory_us(2 * 2 * batch * kv_heads * seq * width)
    return fitted.attention_floor_us + append + np.maximum(compute, memory)


def attention_decode_us(
    constants: Constants,
    batch: Extents,
    kv_seq: Extents,
    heads: Extents,
    kv_heads: Extents,
    head_dim: Extents,
    *,
    v_head_dim: Extents = 0,
    window: Extents = 0,
    kv_bytes: float = 2.0,
) -> Floats:
    """Time of attention of one query per sequence: floor + streaming the cache + instances beyond the first wave.

    With one key-value head and narrower values (latent attention) the values are part of the keys: streamed once.
    """
    batch, kv_seq, heads, kv_heads, head_dim = _arrays(batch, kv_seq, heads, kv_heads, head_dim)
    narrow = np.asarray(v_head_dim, dtype=np.float64)
    values = np.where(narrow > 0, narrow, head_dim)
    keys = np.where(np.asarray(window) > 0, np.minimum(kv_seq, window), kv_seq)
    width = head_dim + np.where((narrow > 0) & (kv_heads == 1), 0, values)
    moved = batch * kv_heads * keys * width * kv_bytes + batch * heads * (head_dim + values) * 2
    instances = batch * kv_heads * np.ceil(heads / kv_heads / DECODE_ROWS)
    fitted = constants.calibration
    later_waves = np.maximum(0.0, np.ceil(instances / constants.processors) - 1)
    ends = fitted.decode_instance_us * later_waves * np.sqrt(head_dim / BLOCK)
    return fitted.decode_floor_us + _norm(constants.memory_us(moved), ends, _STREAMING_NORM)


def causal_steps(seq: Floats, keys: Floats, window: Floats) -> tuple[Floats, Floats]:
    """Return (steps of all query blocks of a head, steps of the longest block), masks aligned at the end of the keys.

    Block i sees i + 1 + first tiles of keys, or as many as its window covers.
    """
    blocks = np.ceil(seq / BLOCK)
    first = np.ceil((keys - seq) / BLOCK)
    windowed = (window > 0) & (window < keys)
    widest = np.where(windowed, np.ceil((window + BLOCK - 1) / BLOCK), blocks + first)
    rising = np.clip(widest - first, 0, blocks)
    total = rising * (2 * first + rising + 1) / 2 + (blocks - rising) * widest
    return total, np.minimum(blocks + first, widest)


def _norm(first: Floats, second: Floats, exponent: float) -> Floats:
    """Return a value between the maximum (large exponent) and the sum (1) of two times."""
    result: Floats = (first**exponent + second**exponent) ** (1 / exponent)
    return result


def _arrays(*values: Extents) -> tuple[Floats, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in values)
