"""Programs of several loops, attention backward, quantized and fused products: loops, work, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from treadle.costmodels.lower import lower
from treadle.costmodels.machines import load_machine
from treadle.costmodels.predict import instance_cycles
from treadle.costmodels.tile_traffic import compulsory_bytes, compulsory_load_bytes, issued_load_bytes, reuse
from treadle.driver.kernels import KernelOptions, plan_program, rank_programs
from treadle.frontends import programs
from treadle.frontends.programs.errors import InvalidExtent, InvalidTileSize, UnsupportedHeadDimension
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import OperationKind, TileProgram
from treadle.solvers.backend import Limits
from treadle.verification.kernel import review_kernel

QUICK = KernelOptions(Limits(deterministic_s=0.02))
HEADS = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}


def products(program: TileProgram) -> list[str]:
    return [operation.name for operation in program.operations if operation.kind is OperationKind.MMA]


def test_backward_is_one_loop_of_five_products() -> None:
    program = programs.build("attention_bwd", HEADS, {"sub_tiles": 1})
    assert products(program) == ["scores", "dweights", "dv", "dk", "dq"]
    assert program.repeats == 4  # query heads of one key-value head
    assert program.flops == 10 * 32 * 4096 * 4096 * 128


def test_backward_sub_tiles_make_dq_together() -> None:
    program = programs.build("attention_bwd", HEADS, {"block_m": 64, "block_n": 128, "sub_tiles": 2})
    assert [name for name in products(program) if name.startswith("dq")] == ["dq_step0_0", "dq_0", "dq_step0_1", "dq_1"]
    assert program.flops == programs.build("attention_bwd", HEADS, {"sub_tiles": 1}).flops
    narrow = programs.build("attention_bwd", {**HEADS, "qk_head_dim": 64}, {"sub_tiles": 2})
    assert [name for name in products(narrow) if name.startswith("dq")] == ["dq_step0", "dq"]


def test_a_causal_backward_has_a_loop_for_what_the_diagonal_cuts() -> None:
    program = programs.build("attention_bwd", {**HEADS, "causal": 1}, {"block_m": 64, "block_n": 128})
    (masked,) = program.before
    assert (masked.trips, masked.name) == (2, "attention_bwd_masked")
    full = programs.build("attention_bwd", HEADS, {"block_m": 64, "block_n": 128})
    assert 0.5 < program.flops / full.flops < 0.55


def test_hopper_needs_5120_cycles_per_128_square_of_backward() -> None:
    program = programs.build("attention_bwd", HEADS, {"block_m": 64, "block_n": 128, "sub_tiles": 1})
    plan = plan_program(program, load_machine("h100"), QUICK)
    assert plan.schedule.ii_cycles == 5120 // 2
    assert plan.certificate["ii"].proof.value == "resource"


def test_persistent_instances_share_out_all_tiles() -> None:
    shape = {"m": 8192, "n": 8192, "k": 4096}
    program = programs.build("gemm_persistent", shape, {"block_m": 128, "block_n": 256, "block_k": 64, "repeats": 16})
    assert program.instances * program.repeats == 64 * 32
    assert program.flops == 2 * 8192 * 8192 * 4096
    (stores,) = program.after
    assert stores.trips * 64 == 256
    ranked = rank_programs(programs.candidates("gemm_persistent", shape), load_machine("h200"), QUICK)
    assert ranked[0].program is not None
    assert ranked[0].program.instances <= 132


def test_norm_and_product_are_sibling_loops_or_one() -> None:
    shape = {"m": 4096, "n": 6144, "k": 4096}
    two, one = (programs.build("rms_norm_gemm", shape, options={"form": form}) for form in ("two_loops", "one_loop"))
    assert [loop.name for loop in two.siblings] == ["rms_norm_gemm_squares"]
    assert one.siblings == ()
    assert two.flops == one.flops == 2 * 4096 * 6144 * 4096
    assert issued_load_bytes(two) > issued_load_bytes(one)


def test_four_bit_weights_load_half_a_byte_each() -> None:
    program = programs.build("gemm_w4a16", {"m": 16, "n": 4096, "k": 4096})
    assert program.operation("load_w").result.bytes == program.tile_sizes["block_n"] * program.tile_sizes["block_k"] / 2
    assert program.flops == 2 * 16 * 4096 * 4096
    loads = compulsory_load_bytes(program)
    assert loads is not None
    assert loads < 4096 * 4096 * 0.6


@pytest.mark.parametrize("family", sorted(programs.FAMILIES))
def test_every_family_knows_its_traffic(family: str) -> None:
    from tests.kernels.test_programs import SHAPES

    program = programs.build(family, SHAPES[family])
    assert compulsory_bytes(program) > 0
    repeats = reuse(program)
    assert repeats is not None
    assert repeats >= 1


@pytest.mark.parametrize("family", sorted(programs.FAMILIES))
@pytest.mark.parametrize("machine", ["a100", "h200", "b200", "mi300x"])
def test_every_family_is_scheduled_on_every_machine(family: str, machine: str) -> None:
    """Or refused for a reason: A100 has no 8-bit floats."""
    from tests.kernels.test_programs import SHAPES

    if (family, machine) == ("gemm_fp8", "a100"):
        with pytest.raises(TreadleError, match="float8"):
            lower(programs.build(family, SHAPES[family]), load_machine(machine))
        return
    found = programs.candidates(family, SHAPES[family])
    assert any(fits(program, machine) for program in found), f"no tile sizes of {family} fit {machine}"


def fits(program: TileProgram, machine: str) -> bool:
    """Whether all loops of a program can be scheduled; what cannot fails for memory, a request that no plan meets."""
    try:
        plan = plan_program(program, load_machine(machine), replace(QUICK, limits=Limits(0.002)))
    except TreadleError as error:
        if not error.code.startswith("TRD3"):
            raise
        return False
    return len(plan.siblings) == len(program.siblings)


# --- several loops ----------------------------------------------------------------------------------------------------


def planned() -> KernelPlan:
    program = programs.build("attention_fwd", {**HEADS, "causal": 1}, {"block_m": 128, "block_n": 64})
    return plan_program(program, load_machine("h200"), QUICK)


def test_all_loops_of_a_kernel_are_scheduled_predicted_and_reviewed() -> None:
    plan, machine = planned(), load_machine("h200")
    assert [sibling.loop.name for sibling in plan.siblings] == ["attention_fwd_masked"]
    assert plan.program is not None
    alone = instance_cycles(replace(plan.program, after=()), plan.schedule)
    assert instance_cycles(plan.program, plan.schedule, plan.siblings) > alone
    assert review_kernel(plan, machine, "", None).findings == ()
    data = encode(plan)
    assert decode(KernelPlan, data, file_locator("plan.json")) == plan


def test_a_sibling_schedule_that_is_not_legal_is_found() -> None:
    plan, machine = planned(), load_machine("h200")
    (sibling,) = plan.siblings
    early = replace(sibling.schedule, start_cycles=dict.fromkeys(sibling.schedule.start_cycles, 0))
    spoilt = replace(plan, siblings=(replace(sibling, schedule=early),))
    assert review_kernel(spoilt, machine, "", None).findings


def test_a_kernel_without_its_siblings_schedules_is_refused() -> None:
    with pytest.raises(InvalidValue, match="schedules other loops than its program has"):
        replace(planned(), siblings=())


def test_nests_have_one_level_and_names_of_their_own() -> None:
    program = programs.build("attention_fwd", {**HEADS, "causal": 1})
    (masked,) = program.after
    with pytest.raises(InvalidValue, match="a nest of its own"):
        replace(program, after=(replace(masked, repeats=2),))
    with pytest.raises(InvalidValue, match="two loops of the same name"):
        replace(program, after=(masked, masked))
    with pytest.raises(InvalidValue, match="runs"):
        replace(program, repeats=0)


BAD: list[tuple[type[TreadleError], str, dict[str, Any], dict[str, Any]]] = [
    (InvalidExtent, "attention_varlen", {"batch": 9, "tokens": 8, "heads": 1, "qk_head_dim": 64}, {}),
    (InvalidExtent, "gemm_w4a16", {"m": 1, "n": 1, "k": 96, "group": 48}, {}),
    (InvalidExtent, "attention_bwd", {"heads": 1, "seq": 9, "kv_seq": 8, "qk_head_dim": 64, "causal": 1}, {}),
    (UnsupportedHeadDimension, "attention_bwd", {"heads": 1, "seq": 8, "qk_head_dim": 96}, {}),
    (InvalidTileSize, "attention_bwd", {"heads": 1, "seq": 8, "qk_head_dim": 64}, {"block_n": 16, "sub_tiles": 2}),
    (InvalidTileSize, "gemm_w4a16", {"m": 1, "n": 1, "k": 128}, {"block_k": 64}),
    (InvalidTileSize, "gemm_fp8", {"m": 64, "n": 64, "k": 64}, {"block_k": 16}),
    (InvalidTileSize, "layer_norm", {"rows": 8, "columns": 64}, {"block_rows": 2, "rows_per_instance": 5}),
]


@pytest.mark.parametrize(("error", "family", "shape", "tiles"), BAD)
def test_bad_requests(error: type[TreadleError], family: str, shape: dict[str, Any], tiles: dict[str, Any]) -> None:
    with pytest.raises(error) as caught:
        programs.build(family, shape, tiles)
    assert caught.value.expected


@pytest.mark.parametrize("tiles", [{"block_k": 64}, {"block_n": 256}])
def test_scaled_blocks_are_those_of_the_scales(tiles: dict[str, int]) -> None:
    with pytest.raises(InvalidTileSize, match="of `gemm_fp8`"):
        programs.build("gemm_fp8", {"m": 512, "n": 512, "k": 512}, tiles, {"scales": "block"})
