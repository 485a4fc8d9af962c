import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.costmodels.programs import attention, gemm, load, op, program, tile
from treadle.costmodels import tile_cycles as cycles
from treadle.costmodels.errors import UnsupportedOperation
from treadle.costmodels.lower import MAX_RING_DEPTH, lower, primary
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.frontends import programs
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.program import Memory, OperationKind, TileProgram


def demand(loop: Loop) -> dict[str, int]:
    """Occupied cycles per unit and iteration."""
    return {unit.name: sum(o.occupancy_cycles for o in loop.operations if o.unit == unit.name) for unit in loop.units}


def least_interval(loop: Loop) -> int:
    """The resource bound: every unit has one instance."""
    return max(demand(loop).values())


def delays(loop: Loop, source: str, target: str) -> list[tuple[int, int]]:
    return [(d.delay_cycles, d.distance) for d in loop.dependences if (d.source, d.target) == (source, target)]


@pytest.mark.parametrize(
    ("machine_id", "expected"), [("a100", 4096), ("h100", 2048), ("h200", 2048), ("b200", 1024), ("mi300x", 4096)]
)
def test_anchor_attention_by_hand(machine_id: str, expected: int) -> None:
    assert least_interval(lower(attention(), load_machine(machine_id))) == expected


@pytest.mark.parametrize("sub_tiles", [1, 2])
@pytest.mark.parametrize(("machine_id", "expected"), [("h100", 2048), ("b200", 1024)])
def test_anchor_attention_of_the_library(machine_id: str, expected: int, sub_tiles: int) -> None:
    shape = {"batch": 4, "heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}
    sizes = {"block_m": 128, "block_n": 128, "sub_tiles": sub_tiles}
    loop = lower(programs.build("attention_fwd", shape, sizes), load_machine(machine_id))
    assert least_interval(loop) == expected


def test_blackwell_ties_products_and_exponentials() -> None:
    found = demand(lower(attention(), load_machine("b200")))
    assert found[cycles.TENSOR_CORE] == found[cycles.MUFU] == 1024
    assert found[cycles.SHARED_PORT] == 768
    assert found[cycles.ALU] < 1024
    assert found[cycles.TENSOR_PORT] < 1024


def test_gemm_on_hopper() -> None:
    loop = lower(gemm(), load_machine("h100"))
    assert [o.name for o in loop.operations] == ["a", "b", "acc", "acc.operands"]
    assert [o.name for o in loop.operations if primary(o.name)] == ["a", "b", "acc"]
    load_latency = loop.operation("a").latency_cycles
    assert delays(loop, "a", "acc") == [(load_latency, 0)]
    assert delays(loop, "acc", "acc") == [(1024, 1)], "products into one accumulator follow each other"
    assert delays(loop, "acc", "acc.operands") == delays(loop, "acc.operands", "acc") == [(0, 0)]


def test_rings_hold_until_the_product_is_done() -> None:
    loop = lower(gemm(), load_machine("h100"))
    assert [(ring.name, ring.slot_bytes, ring.memory) for ring in loop.rings] == [
        ("a", 32768, "shared"),
        ("b", 32768, "shared"),
    ]
    for ring in loop.rings:
        (reader,) = ring.readers
        assert reader.operation == "acc"
        assert reader.hold_cycles == loop.operation("acc").latency_cycles
        assert ring.max_depth == min(MAX_RING_DEPTH, 232448 // 32768)


def test_synchronous_products_read_through_registers() -> None:
    loop = lower(gemm(), load_machine("a100"))
    assert [o.name for o in loop.operations] == ["a", "a.to_registers", "b", "b.to_registers", "acc"]
    assert {ring.readers[0].operation for ring in loop.rings} == {"a.to_registers", "b.to_registers"}
    assert loop.operation("b.to_registers").occupancy_cycles == 2 * 32768 // 128
    assert {o.unit for o in loop.operations} == {cycles.LOAD_STORE, cycles.SHARED_PORT, cycles.TENSOR_CORE}


def test_invariants_take_shared_memory() -> None:
    loop = lower(attention(), load_machine("h100"))
    (shared,) = loop.capacities
    assert (shared.memory, shared.capacity_bytes, shared.fixed_bytes) == ("shared", 232448, 128 * 128 * 2)


def test_blackwell_accumulators_live_in_tensor_memory() -> None:
    loop = lower(attention(), load_machine("b200"))
    tensor = {capacity.memory: capacity for capacity in loop.capacities}["tensor"]
    assert (tensor.capacity_bytes, tensor.fixed_bytes) == (262144, 128 * 128 * 4), "the carried accumulator"
    ring = {ring.name: ring for ring in loop.rings}["s"]
    assert ring.memory == "tensor"
    assert {reader.operation for reader in ring.readers} == {"s.to_registers", "o"}, "P overwrites S until O is done"
    assert "p_low.to_tensor" in loop.index
    assert "rescaled.to_tensor" in loop.index
    latency = loop.operation("o.to_registers").latency_cycles
    assert delays(loop, "o.to_registers", "rescaled") == [(latency, 1)]
    assert not delays(loop, "o", "rescaled")


def test_second_operand_from_registers_goes_through_shared_memory() -> None:
    body = program(
        load("a", 128, 128),
        load("w", 128, 128, dtype="int4"),
        op("b", OperationKind.CONVERT, "w", tile(128, 128, dtype="bfloat16")),
        op("acc", OperationKind.MMA, "a b acc@1", tile(128, 128), depth=128),
    )
    loop = lower(body, load_machine("h100"))
    assert {"w.to_registers", "b.to_shared"} <= set(loop.index)
    rings = {ring.name: ring for ring in loop.rings}
    assert rings["b"].producer == "b.to_shared"
    assert rings["b"].slot_bytes == 128 * 128 * 2
    assert rings["w"].slot_bytes == 128 * 128 // 2
    assert not [name for name in lower(body, load_machine("a100")).index if name.endswith("to_shared")]


def test_row_exponentials_leave_the_special_function_unit_on_blackwell() -> None:
    assert lower(attention(), load_machine("b200")).operation("alpha").unit == cycles.ALU
    assert lower(attention(), load_machine("h100")).operation("alpha").unit == cycles.MUFU


def test_stores_and_barriers() -> None:
    body = program(
        load("x", 1, 4096),
        op("wide", OperationKind.CONVERT, "x", tile(1, 4096)),
        op("meet", OperationKind.BARRIER, "wide", tile(1)),
        op("low", OperationKind.CONVERT, "wide", tile(1, 4096, dtype="bfloat16")),
        op("out", OperationKind.STORE, "low", tile(1, 4096, dtype="bfloat16", memory=Memory.GLOBAL)),
    )
    loop = lower(body, load_machine("h200"))
    assert loop.operation("out").unit == cycles.TMA
    assert loop.operation("meet").latency_cycles >= 92
    assert loop.operation("x").occupancy_cycles == 8192 // 64


def test_memory_bound_loads_run_at_the_fair_share() -> None:
    shape = {"batch": 64, "heads": 8, "kv_heads": 8, "kv_seq": 8192, "qk_head_dim": 128}
    machine = load_machine("h200")
    body = programs.build("attention_decode", shape)
    loop = lower(body, machine)
    share = machine.value("memory_bandwidth_sustained_bytes_per_s") / machine.value("clock_boost_ghz") / 1e9 / 132
    assert loop.operation("load_k").occupancy_cycles == pytest.approx(128 * 128 * 2 / share, rel=0.01)
    assert least_interval(loop) == demand(loop)[cycles.TMA]


@pytest.mark.parametrize("machine_id", machine_ids())
def test_missing_dtype_is_a_coded_error(machine_id: str) -> None:
    machine = load_machine(machine_id)
    body = gemm(dtype="float8_e4m3")
    if machine_id != "a100":
        assert lower(body, machine).operation("acc").occupancy_cycles <= 1024
        return
    with pytest.raises(UnsupportedOperation) as caught:
        lower(body, machine)
    assert "float8_e4m3" in str(caught.value)
    assert "bfloat16" in caught.value.expected


def test_mixed_operands_are_refused() -> None:
    body = program(
        load("a", 128, 128),
        load("b", 128, 128, dtype="float16"),
        op("acc", OperationKind.MMA, "a b acc@1", tile(128, 128), depth=128),
    )
    with pytest.raises(UnsupportedOperation):
        lower(body, load_machine("h100"))


def test_tensor_memory_tiles_need_tensor_memory() -> None:
    body = program(
        load("x", 128, 128),
        op("t", OperationKind.ELEMENTWISE, "x", tile(128, 128, memory=Memory.TENSOR)),
        op("r", OperationKind.ELEMENTWISE, "t", tile(128, 128)),
    )
    with pytest.raises(UnsupportedOperation):
        lower(body, load_machine("h100"))
    assert "t.to_registers" in lower(body, load_machine("b200")).index


@pytest.mark.parametrize("machine_id", machine_ids())
@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("attention_fwd", {"batch": 2, "heads": 16, "kv_heads": 4, "seq": 1024, "qk_head_dim": 64, "causal": 1}),
        ("attention_fwd", {"batch": 2, "heads": 16, "seq": 1024, "qk_head_dim": 192, "v_head_dim": 128}),
        ("attention_decode", {"batch": 8, "heads": 32, "kv_heads": 8, "kv_seq": 4096, "qk_head_dim": 128}),
        (
            "attention_decode",
            {"batch": 8, "heads": 128, "kv_heads": 1, "kv_seq": 512, "qk_head_dim": 576, "v_head_dim": 512},
        ),
        ("gemm", {"m": 4096, "n": 4096, "k": 4096}),
        ("grouped_gemm", {"experts": 8, "tokens": 512, "top_k": 2, "n": 4096, "k": 4096}),
        ("swiglu", {"m": 4096, "n": 14336, "k": 4096}),
        ("rms_norm", {"rows": 4096, "columns": 4096}),
    ],
)
def test_library_on_every_machine(machine_id: str, family: str, shape: dict[str, int]) -> None:
    machine = load_machine(machine_id)
    for candidate in programs.candidates(family, shape):
        loop = lower(candidate, machine)
        assert [o.name for o in loop.operations if primary(o.name)] == [o.name for o in candidate.operations]
        assert lower(candidate, machine) == loop, "deterministic"
        assert decode(Loop, encode(loop), file_locator("x")) == loop
        for operation in loop.operations:
            assert 0 < operation.occupancy_cycles <= operation.latency_cycles
        loads = {o.name for o in candidate.operations if o.kind is OperationKind.LOAD}
        assert loads <= {ring.name for ring in loop.rings}


def body_of(m: int, n: int, k: int, steps: list[int]) -> TileProgram:
    """A product followed by a chain of operations on its result."""
    kinds = (OperationKind.ELEMENTWISE, OperationKind.EXP2, OperationKind.CONVERT)
    chain = [op(f"v{i}", kinds[kind], f"acc v{i - 1}" if i else "acc", tile(m, n)) for i, kind in enumerate(steps)]
    return program(load("a", m, k), load("b", n, k), op("acc", OperationKind.MMA, "a b", tile(m, n), depth=k), *chain)


@settings(max_examples=80, deadline=None)
@given(
    machine_id=st.sampled_from(machine_ids()),
    m=st.sampled_from([16, 64, 128]),
    n=st.sampled_from([16, 64, 128]),
    k=st.sampled_from([16, 64, 128]),
    steps=st.lists(st.integers(0, 2), max_size=5),
)
def test_demand_grows_with_the_tile(machine_id: str, m: int, n: int, k: int, steps: list[int]) -> None:
    machine = load_machine(machine_id)
    small, large = (demand(lower(body_of(*size, steps), machine)) for size in ((m, n, k), (2 * m, n, 2 * k)))
    assert set(small) == set(large)
    assert all(small[unit] <= large[unit] for unit in small)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(machine_ids()), st.lists(st.integers(0, 2), max_size=6))
def test_every_dependence_covers_its_producer(machine_id: str, steps: list[int]) -> None:
    loop = lower(body_of(64, 64, 64, steps), load_machine(machine_id))
    for dependence in loop.dependences:
        if not dependence.target.endswith(".operands") and not dependence.source.endswith(".operands"):
            assert dependence.delay_cycles == loop.operation(dependence.source).latency_cycles
