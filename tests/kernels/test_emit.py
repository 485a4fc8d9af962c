"""Emitted sources: golden files, determinism, schedule order, pipelining depth, and what cannot be emitted."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernels.plans import AMPERE, HOPPER, plan_of, tiny
from treadle.codegen.triton.emit import emit, pipeline_depth, schedule_order, templated_families
from treadle.codegen.triton.errors import ForeignSchedule, NoProgram, NoTemplate
from treadle.frontends import programs
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.loop import Capacity

GOLDEN = Path(__file__).parent / "golden"

CASES: dict[str, KernelPlan] = {
    "attention_decode": tiny(
        "attention_decode",
        {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 2048, "qk_head_dim": 128},
        {"block_m": 16, "block_n": 128, "splits": 4},
    ),
    "attention_decode_latent": tiny(
        "attention_decode",
        {"batch": 8, "heads": 128, "kv_heads": 1, "kv_seq": 2048, "qk_head_dim": 576, "v_head_dim": 512},
        {"block_m": 64, "block_n": 64, "splits": 1},
    ),
    "attention_fwd": tiny(
        "attention_fwd",
        {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128, "causal": 1},
        {"block_m": 128, "block_n": 128, "sub_tiles": 2},
    ),
    "attention_fwd_latent": tiny(
        "attention_fwd",
        {"heads": 128, "seq": 4096, "qk_head_dim": 192, "v_head_dim": 128},
        {"block_m": 128, "block_n": 64, "sub_tiles": 1},
        {"dtype": "float16"},
    ),
    "gemm": tiny("gemm", {"m": 4096, "n": 6144, "k": 4096}, {"block_m": 128, "block_n": 256, "block_k": 64}),
    "grouped_gemm": tiny(
        "grouped_gemm",
        {"experts": 8, "tokens": 4096, "top_k": 2, "n": 14336, "k": 4096},
        {"block_m": 128, "block_n": 128, "block_k": 64},
    ),
    "rms_norm": tiny(
        "rms_norm", {"rows": 4096, "columns": 4096}, {"block_rows": 1, "rows_per_instance": 8}, {"residual": True}
    ),
    "swiglu": tiny("swiglu", {"m": 4096, "n": 14336, "k": 4096}, {"block_m": 128, "block_n": 128, "block_k": 64}),
    "attention_bwd": tiny(
        "attention_bwd",
        {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128, "causal": 1},
        {"block_m": 64, "block_n": 128, "sub_tiles": 1},
    ),
    "attention_bwd_sub_tiled": tiny(
        "attention_bwd",
        {"heads": 32, "seq": 4096, "qk_head_dim": 128},
        {"block_m": 64, "block_n": 128, "sub_tiles": 2},
    ),
    "attention_paged": tiny(
        "attention_paged",
        {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 2048, "page_size": 16, "qk_head_dim": 128},
        {"block_m": 16, "block_n": 128, "splits": 4},
    ),
    "attention_varlen": tiny(
        "attention_varlen",
        {"batch": 16, "tokens": 16384, "heads": 32, "kv_heads": 8, "qk_head_dim": 128},
        {"block_m": 128, "block_n": 64, "sub_tiles": 1},
        {"lse": True},
    ),
    "dual_gemm": tiny("dual_gemm", {"m": 4096, "n": 4096, "k": 4096}, {"block_m": 128, "block_n": 128, "block_k": 64}),
    "gemm_fp8": tiny("gemm_fp8", {"m": 4096, "n": 6144, "k": 4096}, {"block_m": 128, "block_n": 256, "block_k": 128}),
    "gemm_fp8_blocks": tiny(
        "gemm_fp8",
        {"m": 4096, "n": 6144, "k": 4096},
        {"block_m": 128, "block_n": 128, "block_k": 128},
        {"scales": "block"},
    ),
    "gemm_persistent": tiny(
        "gemm_persistent",
        {"m": 4096, "n": 6144, "k": 4096},
        {"block_m": 128, "block_n": 256, "block_k": 64, "repeats": 6},
    ),
    "gemm_w4a16": tiny("gemm_w4a16", {"m": 32, "n": 6144, "k": 4096}, {"block_m": 32, "block_n": 128, "block_k": 128}),
    "kmeans_assign": tiny(
        "kmeans_assign", {"points": 1 << 20, "centroids": 4096, "dimension": 128}, {"block_m": 128, "block_n": 128}
    ),
    "layer_norm": tiny("layer_norm", {"rows": 4096, "columns": 4000}, {"block_rows": 1, "rows_per_instance": 8}),
    "rms_norm_gemm": tiny(
        "rms_norm_gemm", {"m": 4096, "n": 6144, "k": 4096}, {"block_m": 128, "block_n": 256, "block_k": 64}
    ),
    "rms_norm_gemm_one_loop": tiny(
        "rms_norm_gemm",
        {"m": 4096, "n": 6144, "k": 4096},
        {"block_m": 128, "block_n": 256, "block_k": 64},
        {"form": "one_loop"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """Rewrite the files with TREADLE_ACCEPT=1, and read the difference before committing it."""
    found = emit(CASES[name], HOPPER, "0123456789abcdef")
    path = GOLDEN / f"{name}.golden"
    if os.environ.get("TREADLE_ACCEPT") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


def test_golden_files_cover_every_family() -> None:
    assert {plan.program.family for plan in CASES.values() if plan.program} == set(programs.FAMILIES)
    assert set(templated_families()) == set(programs.FAMILIES)


@pytest.mark.parametrize("name", CASES)
def test_sources_are_formatted_and_import_only_triton(name: str, tmp_path: Path) -> None:
    source = emit(CASES[name], HOPPER)
    tree = ast.parse(source)
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {alias.name.split(".")[0] for node in top for alias in node.names} == {"triton"}
    path = tmp_path / "kernel.py"
    path.write_text(source)
    for command in (["format", "--check"], ["check", "--select", "E,F,W"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout


def test_emitting_needs_neither_triton_nor_torch() -> None:
    program = (
        "import sys\n"
        "sys.modules['triton'] = sys.modules['torch'] = None\n"
        "from tests.kernels.plans import HOPPER, tiny\n"
        "from treadle.codegen.triton.emit import emit\n"
        "print(len(emit(tiny('gemm', {'m': 1, 'n': 16, 'k': 16}, {}), HOPPER)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 1000


def test_the_same_plan_gives_the_same_text() -> None:
    for plan in CASES.values():
        assert emit(plan, HOPPER, "x") == emit(plan, HOPPER, "x")


def test_the_loop_body_follows_the_schedule() -> None:
    plan = CASES["attention_fwd"]
    starts = plan.schedule.start_cycles
    late = replace(plan, schedule=replace(plan.schedule, start_cycles={**starts, "scores_0": starts["scores_0"] + 50}))
    assert plan.program is not None
    assert schedule_order(plan, plan.program).index("scores_0") < schedule_order(plan, plan.program).index("scores_1")
    assert schedule_order(late, plan.program)[-1] == "scores_0"
    text = emit(plan, HOPPER)
    assert text.index("        scores_0 = ") < text.index("        scores_1 = ")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_ring_depth_becomes_pipelining_depth(depth: int) -> None:
    """Asynchronous products need a slot of their own in Triton's count."""
    plan = plan_of(programs.build("gemm", {"m": 256, "n": 256, "k": 256}), depth)
    assert f"NUM_STAGES = {max(2, depth)}\n" in emit(plan, HOPPER)
    assert f"NUM_STAGES = {depth + 1}\n" in emit(plan, AMPERE)
    assert f"NUM_STAGES = {depth + 1}\n" in emit(plan)


def test_pipelining_depth_stays_within_shared_memory() -> None:
    plan = plan_of(programs.build("gemm", {"m": 256, "n": 256, "k": 256}), depth=8)
    slot_bytes = sum(ring.slot_bytes for ring in plan.loop.rings)
    capacities = (Capacity("shared", 100 + 3 * slot_bytes, 100),)
    tight = replace(plan, loop=replace(plan.loop, capacities=capacities))
    assert plan.program is not None
    assert pipeline_depth(plan.program, tight, HOPPER) == 3


def test_a_bare_loop_has_no_code() -> None:
    with pytest.raises(NoProgram, match="bare loop"):
        emit(replace(CASES["gemm"], program=None))


def test_an_unknown_family_has_no_template() -> None:
    program = CASES["gemm"].program
    assert program is not None
    with pytest.raises(NoTemplate, match="family `conv`") as caught:
        emit(replace(CASES["gemm"], program=replace(program, family="conv")))
    assert "gemm" in caught.value.expected


def test_a_schedule_of_another_loop_is_refused() -> None:
    plan = CASES["gemm"]
    foreign = replace(plan.schedule, start_cycles={"acc": 0, "load_a": 0})
    with pytest.raises(ForeignSchedule, match="`load_b`"):
        emit(replace(plan, schedule=foreign))


def test_a_program_with_other_operations_than_its_template_is_refused() -> None:
    plan = CASES["gemm"]
    assert plan.program is not None
    operations = plan.program.operations
    fewer = replace(plan.program, operations=operations[:2])
    with pytest.raises(ForeignSchedule, match="`acc`"):
        emit(replace(plan, program=fewer))
