"""Static evidence of Gluon kernels: schedules over warp groups, emitted, compiled, set against their machine code.

The rows of `benchmarks.kernel_static` for warp-specialized kernels (those alone: its `--case`).
Per kernel, machine and Triton: registers planned, granted and used by every group, products, waits and signals of one
iteration planned and found, instructions of one iteration beside the issue cycles of the schedule, spills. The warp
program that is printed is checked, and interpreted in numpy under random interleavings against float64. The emitted
text is run on the CPU at a ragged shape (`treadle/driver/gpu/emulator.py`). Speed is not measured here.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kept_rows import SPECIALIZED, kept
from treadle.codegen.gluon.errors import EvidenceMismatch
from treadle.codegen.gluon.evidence import Evidence
from treadle.codegen.gluon.kernel import WarpKernel, warp_kernel
from treadle.codegen.triton.compile import KernelBinary
from treadle.costmodels.machines import load_machine
from treadle.costmodels.warp_facts import facts_of
from treadle.costmodels.warp_interpreter import differences, interpret, reference
from treadle.costmodels.warp_semantics import FamilySemantics
from treadle.driver.gluon import Fitted, fit, for_groups, program_findings
from treadle.driver.gpu.correct import check_kernel, ragged_shape
from treadle.driver.gpu.emulator import emulated_figures
from treadle.driver.kernels import KernelOptions, plan_program
from treadle.frontends import programs
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import Memory
from treadle.solvers.backend import Limits

SQUARE = {"m": 8192, "n": 8192, "k": 8192}
WIDE = {"block_m": 128, "block_n": 256, "block_k": 64}
PAIR = {"block_m": 128, "block_n": 128, "sub_tiles": 2}
LONG = {"batch": 1, "heads": 16, "seq": 16384, "qk_head_dim": 128}
GROUPED = {"batch": 4, "heads": 32, "kv_heads": 8, "seq": 4096}
TRAINED = {"batch": 2, "heads": 16, "seq": 8192, "qk_head_dim": 128}
STEP = {"block_m": 64, "block_n": 64, "sub_tiles": 1}
TWO_STEPS = {"block_m": 64, "block_n": 128, "sub_tiles": 1}
PACKED = {"batch": 16, "tokens": 65536, "heads": 32, "kv_heads": 8, "qk_head_dim": 128}
CACHE = {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 8192, "qk_head_dim": 128}
PIECES = {"block_m": 16, "block_n": 128, "splits": 4}
CLUSTERS = {"points": 1 << 20, "centroids": 4096, "dimension": 128}
Case = tuple[str, dict[str, int], dict[str, int], dict[str, str | int | bool]]
CASES: dict[str, Case] = {
    "gemm": ("gemm", SQUARE, WIDE, {}),
    "gemm fp16": ("gemm", SQUARE, {**WIDE, "block_n": 128}, {"dtype": "float16"}),
    "gemm decode": ("gemm", {"m": 64, "n": 4096, "k": 14336}, {"block_m": 64, "block_n": 128, "block_k": 128}, {}),
    "gemm fp8": ("gemm_fp8", SQUARE, {**WIDE, "block_k": 128}, {}),
    "swiglu": ("swiglu", {"m": 4096, "n": 14336, "k": 4096}, {**WIDE, "block_n": 128}, {}),
    "grouped_gemm": ("grouped_gemm", {"experts": 64, "tokens": 8192, "top_k": 8, "n": 4096, "k": 4096}, WIDE, {}),
    "attention_fwd 16k": ("attention_fwd", LONG, PAIR, {}),
    "attention_fwd causal": ("attention_fwd", {**GROUPED, "qk_head_dim": 128, "causal": 1}, PAIR, {}),
    "attention_fwd hd64": ("attention_fwd", {**GROUPED, "qk_head_dim": 64}, PAIR, {}),
    "attention_fwd 256 rows": ("attention_fwd", LONG, {**PAIR, "block_m": 256}, {}),
    "attention_fwd hd256": ("attention_fwd", {**GROUPED, "qk_head_dim": 256}, {**PAIR, "block_n": 64}, {}),
    "attention_fwd hd64 16k": ("attention_fwd", {**LONG, "heads": 32, "qk_head_dim": 64}, PAIR, {}),
    "attention_varlen": ("attention_varlen", PACKED, PAIR, {"lse": True}),
    "attention_varlen 256 rows": ("attention_varlen", PACKED, {**PAIR, "block_m": 256}, {"lse": True}),
    "attention_bwd": ("attention_bwd", TRAINED, TWO_STEPS, {}),
    "attention_bwd causal": ("attention_bwd", {**TRAINED, "causal": 1}, TWO_STEPS, {}),
    "attention_bwd hd64": ("attention_bwd", {**TRAINED, "qk_head_dim": 64}, STEP, {}),
    "attention_decode": ("attention_decode", CACHE, PIECES, {}),
    "attention_decode 64 keys": ("attention_decode", CACHE, {**PIECES, "block_n": 64}, {}),
    "attention_paged": ("attention_paged", {**CACHE, "page_size": 16}, PIECES, {}),
    "attention_paged 64 keys": ("attention_paged", {**CACHE, "page_size": 16}, {**PIECES, "block_n": 64}, {}),
    "gemm_w4a16": (
        "gemm_w4a16", {"m": 16, "n": 14336, "k": 4096}, {"block_m": 16, "block_n": 128, "block_k": 128}, {}
    ),
    "rms_norm_gemm": (
        "rms_norm_gemm", {"m": 8192, "n": 6144, "k": 4096}, {**WIDE, "block_n": 128}, {"form": "one_loop"}
    ),
    "kmeans_assign": ("kmeans_assign", CLUSTERS, {"block_m": 128, "block_n": 128}, {}),
    "kmeans_assign 64 centroids": ("kmeans_assign", CLUSTERS, {"block_m": 128, "block_n": 64}, {}),
}  # fmt: skip
MACHINES = ("h200", "b200")
ONLY = {
    "attention_bwd causal": "h200",
    "attention_bwd hd64": "h200",
    "attention_fwd 16k": "h200",
    "attention_fwd causal": "h200",
    "attention_fwd hd64": "h200",
    "attention_fwd hd256": "h200",
    "attention_fwd 256 rows": "b200",
    "attention_fwd hd64 16k": "h200",
    "attention_varlen": "h200",
    "attention_varlen 256 rows": "b200",
    "attention_decode": "h200",
    "attention_decode 64 keys": "b200",
    "attention_paged": "h200",
    "attention_paged 64 keys": "b200",
    "kmeans_assign": "h200",
    "kmeans_assign 64 centroids": "b200",
}
"""Cases whose tiles are those of one machine: a warp group of Blackwell takes 128 query rows."""
TRIPS = (1, 2, 5)
"""Iterations that are interpreted; the check covers more."""
SEED = 20261121
OPTIONS = KernelOptions(limits=Limits(deterministic_s=0.2))
"""As of `treadle bench`."""


def gluon_rows(
    pythons: list[str],
    machine_ids: tuple[str, ...] = MACHINES,
    cases: Collection[str] = CASES,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Return a row per case, machine and Triton: the same text for all, none of whose binaries may spill."""
    rows: list[dict[str, Any]] = []
    for machine_id in machine_ids:
        machine = load_machine(machine_id)
        for case in (case for case in CASES if case in cases and ONLY.get(case, machine_id) == machine_id):
            described = CASES[case]
            make = partial(_rows_of, case, described, machine, pythons)
            rows += kept(
                folder, f"gluon {machine_id} {case}", described[0], SPECIALIZED, (str(described), *pythons), make
            )
            print(f"gluon {case} on {machine_id}", file=sys.stderr)
    return rows


def _rows_of(case: str, described: Case, machine: Machine, pythons: list[str]) -> list[dict[str, Any]]:
    family, shape, tiles, options = described
    common = {"case": case, "machine": machine.id, "target": machine.architecture, "language": "gluon"}
    try:
        program = for_groups(programs.build(family, shape, tiles, options), machine)
        planned = plan_program(program, machine, OPTIONS)
        fitted = _fitted(planned, machine, pythons)
    except TreadleError as error:
        return [{**common, "refused": f"{error.code}: {error}", "hint": error.next_step}]
    kernel = warp_kernel(fitted.kernel, machine)
    judged = {**common, **_judged(kernel, fitted)}
    rows = [_compiled(fitted.binary, fitted.evidence)]
    for other in fitted.elsewhere:
        if other.refused or other.binary is None or other.evidence is None:
            rows.append({"refused": other.refused})
        else:
            rows.append(_compiled(other.binary, other.evidence))
    return [{**judged, **row} for row in rows]


def _fitted(planned: KernelPlan, machine: Machine, pythons: list[str]) -> Fitted:
    """Return a kernel that keeps its plan with some Triton: that of the first Python, else that of a further one.

    Raises: as `fit`, for the first Python.
    """
    refusals: list[EvidenceMismatch] = []
    for at, python in enumerate(pythons):
        others = [*pythons[:at], *pythons[at + 1 :]]
        try:
            return fit(planned, machine, OPTIONS, lambda _: None, pythons=[python, *others])
        except EvidenceMismatch as error:
            refusals.append(error)
    raise refusals[0]


def _judged(kernel: WarpKernel, fitted: Fitted) -> dict[str, Any]:
    """Return what does not depend on the compiler: the schedule, the rounds, the checked and interpreted program."""
    facts = facts_of(kernel.program, kernel.machine, kernel.warps, kernel.made)
    findings = program_findings(kernel)
    small = FamilySemantics(kernel.program)
    unequal = 0
    # Kernels pad shorter loops with empty iterations.
    least = max(group.stages for group in kernel.warp_program.groups) - 1
    for trips in sorted({max(trips, least) for trips in (*TRIPS, least + 2)}):
        wanted = reference(facts, trips, small)
        unequal += len(differences(interpret(kernel.warp_program, trips, small, trips), wanted))
    groups = fitted.kernel.groups
    assert groups is not None
    return {
        "tile_sizes": kernel.program.tile_sizes,
        "ii_cycles": kernel.made.schedule.ii_cycles,
        "status": groups.certificate.levels[0].status.value,
        "rounds": len(fitted.kernel.attempts) + 1,
        "attempts": list(fitted.kernel.attempts),
        "room": asdict(groups.room),
        "rings": {b.name: b.slots for b in kernel.warp_program.buffers if b.memory is Memory.SHARED},
        "turns": [turn.name for turn in kernel.warp_program.turns],
        "findings": [str(finding) for finding in findings],
        "interpreted_differences": unequal,
        "emulated": _emulated(kernel, fitted.source),
        "measured": "not measured",
    }


def _emulated(kernel: WarpKernel, source: str) -> dict[str, Any]:
    """Return whether the emitted text computes what it should at a small ragged shape, by torch on the CPU."""
    program = kernel.program
    shape = ragged_shape(program.family, program.shape)
    kept = {"heads": 4, "kv_heads": 2, "experts": 5, "tokens": 101, "top_k": 2}
    shape |= {key: size for key, size in kept.items() if key in shape and program.family != "attention_varlen"}
    options = {"dtype": kernel.dtype, **program.options}
    return emulated_figures(source, lambda m: check_kernel(m, program.family, shape, options, SEED, "cpu"), range(1))


def _compiled(binary: KernelBinary, evidence: Evidence) -> dict[str, Any]:
    """Return what the binary of one Triton shows."""
    return {
        "kernel": binary.kernel,
        "compiler": binary.compiler,
        "registers": binary.registers,
        "spill_bytes": binary.spill_bytes,
        "smem_bytes": binary.smem_bytes,
        "instructions": evidence.counts,
        "groups": [asdict(group) for group in evidence.groups],
        "mismatches": list(evidence.mismatches),
    }


def gluon_figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the totals of `gluon_rows`."""
    compiled = [row for row in rows if "kernel" in row]
    groups = [group for row in compiled for group in row["groups"]]
    computing = [group for group in groups if group["products"]]
    ratios = sorted(group["instructions"] / group["issue_cycles"] for group in computing)
    return {
        "gluon_kernels": len(compiled),
        "gluon_refused": len(rows) - len(compiled),
        "gluon_spilling": sum(row["spill_bytes"] > 0 for row in compiled),
        "gluon_as_planned": sum(not row["mismatches"] for row in compiled),
        "gluon_interpreted_equal": sum(not row["interpreted_differences"] for row in compiled),
        "gluon_emulated_correct": sum(row["emulated"]["correct"] for row in compiled),
        "gluon_program_findings": sum(len(row["findings"]) for row in compiled),
        "gluon_most_rounds": max((row["rounds"] for row in compiled), default=0),
        "gluon_largest_register_difference": max(
            (abs(group["registers_used"] - group["registers_planned"]) for group in computing if not _issues(group)),
            default=0,
        ),
        "gluon_most_registers_beyond_schedule": max(
            (group["registers_used"] - group["registers_scheduled"] for group in computing if not _issues(group)),
            default=0,
        ),
        "gluon_instructions_per_issue_cycle": ratios[len(ratios) // 2] if ratios else 0,
    }


def _issues(group: dict[str, Any]) -> bool:
    """Whether a group only issues products: the compiler needs fewer registers than `setmaxnreg` leaves."""
    return bool(group["registers_planned"] <= 24)
