import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.costmodels import tile_cycles as cycles
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.ir.machine import Machine

MACHINES = [load_machine(machine_id) for machine_id in machine_ids()]
every_machine = pytest.mark.parametrize("machine", MACHINES, ids=[machine.id for machine in MACHINES])


def bfloat16_mma(machine: Machine, m: int, n: int, k: int) -> cycles.Cost:
    rate = cycles.tensor_rate(machine, "bfloat16")
    assert rate
    return cycles.mma(machine, (m, n), k, rate)


@pytest.mark.parametrize(
    ("machine_id", "expected"), [("a100", 2048), ("h100", 1024), ("h200", 1024), ("b200", 512), ("mi300x", 2048)]
)
def test_anchor_product_of_128(machine_id: str, expected: int) -> None:
    cost = bfloat16_mma(load_machine(machine_id), 128, 128, 128)
    assert (cost.unit, cost.occupancy_cycles) == (cycles.TENSOR_CORE, expected)


@pytest.mark.parametrize(("depth", "expected"), [(64, 559), (128, 900)])
def test_anchor_measured_latency_on_blackwell(depth: int, expected: int) -> None:
    assert bfloat16_mma(load_machine("b200"), 128, 128, depth).latency_cycles == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("columns", "expected"), [(256, 128), (128, 64)])
def test_anchor_measured_wgmma(columns: int, expected: int) -> None:
    machine = load_machine("h100")
    assert bfloat16_mma(machine, 64, columns, 16).occupancy_cycles == expected
    assert machine.value(f"wgmma_m64n{columns}k16_cycles") == expected


@pytest.mark.parametrize("machine_id", ["a100", "h100", "h200", "b200"])
def test_anchor_exponentials_of_128_by_128(machine_id: str) -> None:
    assert cycles.exp2(load_machine(machine_id), 128 * 128).occupancy_cycles == 1024


def test_anchor_measured_exponentials_on_blackwell() -> None:
    assert cycles.exp2(load_machine("b200"), 128 * 128).latency_cycles == pytest.approx(1140, rel=0.1)


@pytest.mark.parametrize(("kib", "expected"), [(16, 556), (32, 652), (64, 844)])
def test_anchor_measured_loads_on_blackwell(kib: int, expected: int) -> None:
    machine = load_machine("b200")
    cost = cycles.load(machine, kib * 1024, machine.value("load_port_bytes_per_cycle"))
    assert cost.latency_cycles == pytest.approx(expected, abs=2)
    assert cost.occupancy_cycles == pytest.approx(max(30, 6 * kib), abs=1)


def test_anchor_measured_tensor_memory() -> None:
    machine = load_machine("b200")
    assert cycles.tensor_load(machine, 128 * 128 * 4).occupancy_cycles == 256
    store = cycles.tensor_store(machine, 128 * 128 * 4)
    assert store.occupancy_cycles == pytest.approx(48, abs=1)
    assert store.latency_cycles == pytest.approx(96, abs=1)


def test_anchor_reductions_on_blackwell() -> None:
    """Measured pipe occupancy of a row maximum of 128 x 128 is 304 cycles, its latency 461."""
    cost = cycles.reduce(load_machine("b200"), 128 * 128)
    assert cost.occupancy_cycles == pytest.approx(304, rel=0.2)
    assert cost.latency_cycles < 461


def test_float8_is_twice_as_fast() -> None:
    machine = load_machine("h100")
    rate = cycles.tensor_rate(machine, "float8_e4m3")
    assert rate
    assert cycles.mma(machine, (128, 128), 128, rate).occupancy_cycles == 512


def test_dtypes_a_machine_lacks() -> None:
    assert cycles.tensor_rate(load_machine("a100"), "float8_e4m3") is None
    assert cycles.tensor_rate(load_machine("h100"), "int4") is None
    assert "float8_e4m3" in cycles.tensor_dtypes(load_machine("mi300x"))
    assert "float8_e4m3" not in cycles.tensor_dtypes(load_machine("a100"))


def test_short_tiles_pay_for_whole_instructions() -> None:
    machine = load_machine("h100")
    assert bfloat16_mma(machine, 16, 128, 128) == bfloat16_mma(machine, 64, 128, 128)
    assert bfloat16_mma(load_machine("a100"), 16, 128, 128).occupancy_cycles == 256


def test_operand_reads_per_instruction() -> None:
    """FlashAttention-4's count for one 128 x 128 step on B200: 768 cycles, 512 for Q K^T and 256 for P V."""
    b200, h100 = load_machine("b200"), load_machine("h100")
    block = 128 * 128 * 2
    both = cycles.mma_operand_reads(b200, (128, 128), block, block)
    alone = cycles.mma_operand_reads(b200, (128, 128), 0, block)
    assert cycles.shared_access(b200, both).occupancy_cycles == 512
    assert cycles.shared_access(b200, alone).occupancy_cycles == 256
    assert cycles.mma_operand_reads(h100, (128, 128), block, block) == 3 * block


@every_machine
@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 256), n=st.integers(1, 256), k=st.integers(1, 256), more=st.tuples(*[st.integers(0, 64)] * 3))
def test_cycles_grow_with_the_tile(machine: Machine, m: int, n: int, k: int, more: tuple[int, int, int]) -> None:
    small, large = (m, n, k), (m + more[0], n + more[1], k + more[2])
    few, many = m * n, large[0] * large[1]
    pairs = [(bfloat16_mma(machine, *small), bfloat16_mma(machine, *large))]
    for cost in (cycles.exp2, cycles.elementwise, cycles.convert, cycles.reduce, cycles.shared_access):
        pairs.append((cost(machine, few), cost(machine, many)))
    pairs.append((cycles.load(machine, few, 32.0), cycles.load(machine, many, 32.0)))
    pairs.append((cycles.store(machine, few, 32.0), cycles.store(machine, many, 32.0)))
    for less, more_cost in pairs:
        assert less.unit == more_cost.unit
        assert 0 < less.occupancy_cycles <= more_cost.occupancy_cycles
        assert less.occupancy_cycles <= less.latency_cycles <= more_cost.latency_cycles


@every_machine
@given(elements=st.integers(1, 10**5), work=st.integers(1, 8))
def test_work_multiplies(machine: Machine, elements: int, work: int) -> None:
    once, often = cycles.elementwise(machine, elements), cycles.elementwise(machine, elements, work)
    assert once.occupancy_cycles * work >= often.occupancy_cycles > (once.occupancy_cycles - 1) * work
