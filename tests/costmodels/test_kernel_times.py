import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.costmodels.errors import UnsupportedOperation
from treadle.costmodels.kernel_estimates import causal_steps
from treadle.costmodels.kernel_times import KernelTimes, RooflineTimes
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.ir.machine import Machine, MissingFigure

TIMES = {machine_id: RooflineTimes(load_machine(machine_id)) for machine_id in machine_ids()}
machines = st.sampled_from(machine_ids())
extents = st.integers(1, 20000)


@settings(max_examples=150, deadline=None)
@given(machines, extents, extents, extents)
def test_products_take_at_least_the_roofline(machine_id: str, m: int, n: int, k: int) -> None:
    times = TIMES[machine_id]
    machine = times.machine
    found = times.gemm_us(m, n, k)
    assert found > 2 * m * n * k / machine.value("peak_flops_bfloat16") * 1e6
    assert found > 2 * (m * k + n * k + m * n) / machine.value("memory_bandwidth_bytes_per_s") * 1e6
    assert found > machine.value("gemm_floor_us")


@settings(max_examples=150, deadline=None)
@given(machines, extents, extents, extents, st.integers(0, 5000))
def test_products_grow(machine_id: str, m: int, n: int, k: int, more: int) -> None:
    gemm = TIMES[machine_id].gemm_us
    base = gemm(m, n, k)
    assert gemm(m + more, n, k) >= base
    assert gemm(m, n + more, k) >= base
    assert gemm(m, n, k + more) >= base


@settings(max_examples=150, deadline=None)
@given(
    machines,
    st.integers(1, 64),
    st.integers(1, 8192),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([64, 128, 256]),
)
def test_attention_grows(machine_id: str, batch: int, seq: int, kv_heads: int, group: int, head_dim: int) -> None:
    times = TIMES[machine_id]
    heads = kv_heads * group
    decode = times.attention_decode_us(batch, seq, heads, kv_heads, head_dim)
    assert times.attention_decode_us(batch, 2 * seq, heads, kv_heads, head_dim) >= decode
    assert times.attention_decode_us(2 * batch, seq, heads, kv_heads, head_dim) >= decode
    prefill = times.attention_prefill_us(batch, seq, heads, kv_heads, head_dim)
    assert times.attention_prefill_us(2 * batch, seq, heads, kv_heads, head_dim) >= prefill
    assert times.attention_prefill_us(batch, seq, heads, kv_heads, head_dim, kv_seq=2 * seq) >= prefill
    assert times.attention_prefill_us(batch, seq, heads, kv_heads, head_dim, window=256) <= prefill * 1.0001


def test_causal_steps_are_counted_exactly() -> None:
    """Against a plain count over the blocks, for one head on one processor's worth of constants."""
    for seq in (1, 127, 128, 129, 1000, 4096):
        for before in (0, 128, 1024):
            for window in (0, 128, 1000):
                keys = seq + before
                blocks = -(-seq // 128)
                widest = -(-(window + 127) // 128) if 0 < window < keys else 10**9
                steps = [min(block + 1 + before // 128, widest) for block in range(blocks)]
                total, longest = causal_steps(
                    np.array(seq, dtype=np.float64),
                    np.array(keys, dtype=np.float64),
                    np.array(window, dtype=np.float64),
                )
                assert (float(total), float(longest)) == (sum(steps), max(steps))


def test_float8_products() -> None:
    times = TIMES["h200"]
    assert times.gemm_us(8192, 16384, 16384, "float8_e4m3") < times.gemm_us(8192, 16384, 16384)
    with pytest.raises(UnsupportedOperation):
        TIMES["a100"].gemm_us(128, 128, 128, "float8_e4m3")


def test_experts() -> None:
    moe = TIMES["h200"].moe_us
    whole = moe(4096, 4096, 14336, 8, 2)
    assert moe(4096, 4096, 14336, 8, 2, tensor_parallel=2) < whole
    assert moe(4096, 4096, 14336, 8, 2, expert_parallel=4) < whole
    assert moe(8192, 4096, 14336, 8, 2) > whole
    flops = 2 * 4096 * 2 * 3 * 4096 * 14336
    assert whole > flops / 989.4e12 * 1e6


def test_latent_attention_reads_the_cache_once() -> None:
    times = TIMES["h200"]
    cache_us = 64 * 8192 * 576 * 2 / 4.3e12 * 1e6
    assert cache_us < times.latent_decode_us(64, 8192, 16) < 2 * cache_us + 30
    assert times.latent_prefill_us(1, 4096, 128) > 0


def test_estimates_follow_the_protocol() -> None:
    times: KernelTimes = TIMES["h100"]
    assert times.gemm_us(1, 1, 1) > 0


def test_a_machine_without_calibration_is_a_coded_error() -> None:
    machine = load_machine("h100")
    figures = tuple(figure for figure in machine.figures if figure.name != "gemm_efficiency")
    bare = Machine("bare", "Bare", "nobody", "sm_90", figures)
    with pytest.raises(MissingFigure) as caught:
        RooflineTimes(bare)
    assert "gemm_efficiency" in str(caught.value)
