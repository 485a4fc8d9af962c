from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.costmodels.programs import gemm
from treadle.costmodels import tile_traffic as traffic
from treadle.costmodels.lower import lower
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.costmodels.predict import instance_cycles, predict, resident_instances, roofline
from treadle.frontends import programs
from treadle.ir.machine import Machine
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.schedule import Schedule, length_of


def spread(loop: Loop, ii_cycles: int) -> Schedule:
    """Operations one after the other: a legal start of an iteration, good enough to predict from."""
    starts: dict[str, int] = {}
    clock = 0
    for operation in loop.operations:
        starts[operation.name] = clock
        clock += operation.latency_cycles
    depths = {ring.name: min(2, ring.max_depth) for ring in loop.rings}
    return Schedule(loop.name, ii_cycles, starts, length_of(loop, starts), depths)


def predicted(program: TileProgram, machine: Machine, ii_cycles: int) -> dict[str, float]:
    loop = lower(program, machine)
    return {p.name: p.value for p in predict(program, loop, spread(loop, ii_cycles), machine)}


def test_instance_cycles() -> None:
    program = gemm()
    schedule = spread(lower(program, load_machine("h100")), 1024)
    assert instance_cycles(program, schedule) == 1024 * 63 + schedule.length_cycles


def test_roofline_of_a_large_product() -> None:
    program = programs.build("gemm", {"m": 8192, "n": 8192, "k": 8192})
    bound = roofline(program, load_machine("h200"))
    assert bound.binding == "compute"
    assert bound.compute_us == pytest.approx(2 * 8192**3 / 989.4e12 * 1e6)
    assert bound.memory_us == pytest.approx(3 * 8192**2 * 2 / 4.8e12 * 1e6)


def test_roofline_of_decode_is_memory() -> None:
    shape = {"batch": 32, "heads": 32, "kv_heads": 8, "kv_seq": 4096, "qk_head_dim": 128}
    program = programs.build("attention_decode", shape)
    bound = roofline(program, load_machine("h200"))
    cache = 32 * 8 * 4096 * 256 * 2
    assert bound.binding == "memory"
    assert bound.memory_us == pytest.approx((cache + 32 * 32 * 256 * 2) / 4.8e12 * 1e6)


@pytest.mark.parametrize("machine_id", machine_ids())
def test_predictions_are_consistent(machine_id: str) -> None:
    machine = load_machine(machine_id)
    program = programs.build("gemm", {"m": 4096, "n": 4096, "k": 4096})
    found = predicted(program, machine, 2048)
    assert found["time"] > roofline(program, machine).time_us
    assert 0 < found["roofline_share"] < 1
    assert found["throughput"] == pytest.approx(program.flops / found["time"] / 1e6)
    assert found["throughput"] * 1e12 < machine.value("peak_flops_bfloat16")
    assert found["bandwidth"] < machine.value("memory_bandwidth_bytes_per_s")
    assert machine.value("clock_sustained_ghz") <= found["clock"] <= machine.value("clock_boost_ghz")
    assert found["resident_instances"] >= 1


def test_predictions_are_pure() -> None:
    program, machine = gemm(), load_machine("h100")
    loop = lower(program, machine)
    schedule = spread(loop, 1024)
    assert predict(program, loop, schedule, machine) == predict(program, loop, schedule, machine)


@settings(max_examples=40, deadline=None)
@given(instances=st.integers(1, 2000), trips=st.integers(1, 200), ii=st.integers(1024, 5000), more=st.integers(0, 500))
def test_more_work_is_never_faster(instances: int, trips: int, ii: int, more: int) -> None:
    machine = load_machine("h100")
    program = replace(gemm(), instances=instances, trips=trips)
    base = predicted(program, machine, ii)["time"]
    assert predicted(replace(program, instances=instances + more), machine, ii)["time"] >= base
    assert predicted(replace(program, trips=trips + more), machine, ii)["time"] >= base
    assert predicted(program, machine, ii + more)["time"] >= base * (1 - machine.value("clock_boost_ghz") / 10)


def test_waves_are_whole() -> None:
    machine = load_machine("h100")
    one = predicted(replace(gemm(), instances=132), machine, 4096)
    two = predicted(replace(gemm(), instances=133), machine, 4096)
    assert one["resident_instances"] == 1
    assert (one["waves"], two["waves"]) == (1, 2)
    assert two["time"] > 1.9 * (one["time"] - machine.value("kernel_floor_us"))


def test_residency_is_limited_by_memory_and_threads() -> None:
    machine = load_machine("h100")
    program = gemm(64, 64, 64)
    loop = lower(program, machine)
    schedule = spread(loop, 512)
    few = replace(schedule, ring_depths=dict.fromkeys(schedule.ring_depths, 1))
    many = replace(schedule, ring_depths=dict.fromkeys(schedule.ring_depths, 12))
    assert resident_instances(program, loop, few, machine) > resident_instances(program, loop, many, machine) == 1
    assert resident_instances(program, loop, few, machine) > 2
    assert resident_instances(replace(program, warps=16), loop, few, machine) == 2
    assert resident_instances(replace(program, warps=32), loop, few, machine) == 1


@pytest.mark.parametrize(
    ("family", "shape", "loads", "others"),
    [
        ("gemm", {"m": 100, "n": 200, "k": 300}, (100 + 200) * 300, 100 * 200),
        ("swiglu", {"m": 100, "n": 200, "k": 300}, (100 + 400) * 300, 100 * 200),
        ("grouped_gemm", {"experts": 8, "tokens": 2, "top_k": 2, "n": 200, "k": 300}, 4 * 300 + 4 * 200 * 300, 800),
        ("rms_norm", {"rows": 64, "columns": 4096}, 64 * 4096, 64 * 4096),
        (
            "attention_fwd",
            {"batch": 2, "heads": 8, "kv_heads": 2, "seq": 512, "qk_head_dim": 128},
            2 * 2 * 512 * 256,
            2 * 8 * 512 * 256,
        ),
        (
            "attention_decode",
            {"batch": 2, "heads": 16, "kv_heads": 1, "kv_seq": 512, "qk_head_dim": 576, "v_head_dim": 512},
            2 * 512 * 576,
            2 * 16 * (576 + 512),
        ),
    ],
)
def test_compulsory_bytes(family: str, shape: dict[str, int], loads: int, others: int) -> None:
    program = programs.build(family, shape)
    assert traffic.compulsory_load_bytes(program) == 2 * loads
    assert traffic.compulsory_bytes(program) == 2 * (loads + others)


def test_reuse_lifts_the_load_rate_to_the_port() -> None:
    machine = load_machine("h200")
    large = programs.build("gemm", {"m": 8192, "n": 8192, "k": 8192})
    thin = programs.build("gemm", {"m": 16, "n": 8192, "k": 8192})
    assert traffic.load_rate(large, machine) == machine.value("load_port_bytes_per_cycle")
    assert traffic.load_rate(thin, machine) < machine.value("load_port_bytes_per_cycle")
    assert traffic.reuse(gemm()) is None
    assert traffic.load_rate(gemm(), machine) == machine.value("load_port_bytes_per_cycle")


def test_small_tiles_pay_for_loading_more_often() -> None:
    machine = load_machine("h100")
    shape = {"batch": 4, "heads": 32, "kv_heads": 8, "seq": 8192, "qk_head_dim": 128}
    by_rows: dict[int, float] = {}
    for rows in (64, 128):
        sizes = {"block_m": rows, "block_n": 128, "sub_tiles": 1}
        program = programs.build("attention_fwd", shape, sizes)
        by_rows[rows] = predicted(program, machine, 16 * rows)["time"]
    assert by_rows[128] < by_rows[64]


def test_the_clock_falls_with_the_tensor_core() -> None:
    machine = load_machine("h100")
    program = programs.build("gemm", {"m": 8192, "n": 8192, "k": 8192})
    full, half = (predicted(program, machine, ii)["clock"] for ii in (1024, 2048))
    assert full == pytest.approx(machine.value("clock_sustained_ghz"))
    assert full < half < machine.value("clock_boost_ghz")
