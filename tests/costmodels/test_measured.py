from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from treadle.costmodels import measured
from treadle.costmodels.errors import MissingTable
from treadle.costmodels.kernel_times import KernelTimes
from treadle.costmodels.machines import load_machine
from treadle.costmodels.measured import SYSTEMS, TableTimes, load_table
from treadle.ir.errors import MissingExtra

tables = pytest.mark.skipif(not measured.available(), reason="the extra `measured` is not installed")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str, package: str | None = None) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(measured, "find_spec", nothing)
    assert not measured.available()
    load_table.cache_clear()
    with pytest.raises(MissingExtra) as caught:
        load_table("h200", "gemm")
    assert "treadle[measured]" in caught.value.next_step


@tables
def test_tables_hold_microseconds() -> None:
    table = load_table("h200", "gemm")
    assert table.system == "h200_sxm"
    assert len(table) > 30000
    assert 1 < float(table.columns["latency_us"].min()) < 10
    assert "latency" not in table.columns


@tables
@pytest.mark.parametrize(
    ("system", "family", "backend", "version"),
    [
        ("mi300x", "gemm", "vllm", ""),
        ("h200", "gem", "vllm", ""),
        ("h200", "gemm", "vlm", ""),
        ("h200", "gemm", "vllm", "0.1"),
    ],
)
def test_missing_tables(system: str, family: str, backend: str, version: str) -> None:
    with pytest.raises(MissingTable) as caught:
        load_table(system, family, backend, version)
    assert caught.value.code == "TRD204"
    assert caught.value.expected


@tables
@pytest.mark.parametrize("family", ["gemm", "context_attention", "generation_attention", "moe", "nccl"])
def test_every_gpu_has_the_tables(family: str) -> None:
    for system in SYSTEMS:
        assert len(load_table(system, family)) > 50


@tables
def test_rows_are_selected_by_value() -> None:
    rows = load_table("h200", "gemm").where(gemm_dtype="bfloat16", m=4096)
    assert set(rows.columns["m"]) == {4096}
    with pytest.raises(MissingTable) as caught:
        rows.where(gemm_dtype="float3")
    assert "bfloat16" in caught.value.expected


@tables
@pytest.mark.parametrize("machine_id", list(SYSTEMS))
def test_measured_points_come_back(machine_id: str) -> None:
    times = TableTimes(load_machine(machine_id))
    rows = measured.gemm_rows(times.table("gemm"), "bfloat16")
    fastest: dict[tuple[int, ...], float] = {}
    for m, n, k, latency in zip(*(rows.columns[name].tolist() for name in ("m", "n", "k", "latency_us")), strict=True):
        fastest[m, n, k] = min(latency, fastest.get((m, n, k), np.inf))
    for (m, n, k), latency in list(fastest.items())[:: len(fastest) // 50]:
        assert times.gemm_us(m, n, k) == pytest.approx(latency, rel=1e-6)


@tables
def test_between_points_times_stay_sensible() -> None:
    times = TableTimes(load_machine("h200"))
    assert times.gemm_us(4096, 4096, 4096) < times.gemm_us(4500, 4500, 4500) < times.gemm_us(5120, 5120, 5120)
    short, middle, long = (times.attention_prefill_us(1, seq, 32, 8, 128) for seq in (2048, 2500, 3072))
    assert short < middle < long
    few, some, many = (times.attention_decode_us(batch, 4000, 32, 8, 128) for batch in (16, 40, 64))
    assert few < some < many
    assert times.attention_prefill_us(1, 512, 32, 8, 128, kv_seq=8192) < times.attention_prefill_us(1, 8192, 32, 8, 128)


@tables
def test_estimates_and_tables_agree_within_reason() -> None:
    for machine_id in SYSTEMS:
        found = TableTimes(load_machine(machine_id))
        assert found.gemm_us(4096, 8192, 4096) == pytest.approx(found.estimate.gemm_us(4096, 8192, 4096), rel=0.4)


@tables
def test_experts_collectives_and_latent_attention() -> None:
    times = TableTimes(load_machine("h200"))
    assert times.moe_us(64, 4096, 14336, 8, 2) < times.moe_us(8192, 4096, 14336, 8, 2)
    with pytest.raises(MissingTable):
        times.moe_us(64, 4000, 14336, 8, 2)
    small, large = (times.collective_us("all_reduce", size, 8) for size in (2**13, 2**28))
    assert 5 < small < 60
    assert 2**28 * 2 * 7 / 8 / large / 1e3 > 300, "bus bandwidth of 8 GPUs in GB/s"
    with pytest.raises(MissingTable):
        times.collective_us("all_dance", 1024, 8)
    latent = TableTimes(load_machine("h200"), "trtllm")
    assert latent.latent_decode_us(8, 4096, 16) < latent.latent_decode_us(64, 4096, 16)
    assert latent.latent_prefill_us(1, 1024, 16) < latent.latent_prefill_us(1, 4096, 16)
    with pytest.raises(MissingTable):
        times.latent_decode_us(8, 4096, 16)


@tables
def test_tables_follow_the_protocol() -> None:
    times: KernelTimes = TableTimes(load_machine("a100"))
    assert times.gemm_us(1, 4096, 4096) > 0
    with pytest.raises(MissingTable):
        TableTimes(load_machine("mi300x")).gemm_us(1, 4096, 4096)
