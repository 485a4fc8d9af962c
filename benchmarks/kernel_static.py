"""Static evidence of emitted kernels: every family on every machine, scheduled, emitted, compiled - without a GPU.

Run: `python -m benchmarks.kernel_static --json OUT [--python OTHER_PYTHON ...]`. The best program of a family on a
machine is that of the smallest predicted time, as `treadle compile` chooses it. `--python` names further Pythons whose
Triton compiles the same sources. Registers and local memory are read from the binary, instructions from its
disassembly (`cuobjdump` of the Triton wheel; none for AMD). Warp-specialized Gluon kernels are in the same table, each
group of theirs set against its plan (`benchmarks/kernel_static_gluon.py`). `--kept FOLDER` lets a stopped run go on.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.kept_rows import PORTABLE, kept
from benchmarks.kernel_static_gluon import CASES as GLUON_CASES
from benchmarks.kernel_static_gluon import MACHINES, gluon_figures, gluon_rows
from treadle.codegen.gluon.machine_code import count, disassemble, group_loops
from treadle.codegen.triton.compile import KernelBinary
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.costmodels.predict import registers_per_thread
from treadle.driver.kernels import KernelOptions, draft_programs
from treadle.driver.spills import settle
from treadle.frontends import programs
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import OperationKind
from treadle.solvers.backend import Limits

CASES: dict[str, tuple[str, dict[str, int]]] = {
    "attention_fwd": ("attention_fwd", {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128, "causal": 1}),
    "attention_fwd 16k": ("attention_fwd", {"batch": 1, "heads": 32, "seq": 16384, "qk_head_dim": 128}),
    "attention_fwd hd64": ("attention_fwd", {"heads": 32, "kv_heads": 8, "seq": 8192, "qk_head_dim": 64, "causal": 1}),
    "attention_fwd latent": (
        "attention_fwd",
        {"heads": 128, "seq": 4096, "qk_head_dim": 192, "v_head_dim": 128, "causal": 1},
    ),
    "attention_decode": (
        "attention_decode",
        {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 4096, "qk_head_dim": 128},
    ),
    "attention_decode latent": (
        "attention_decode",
        {"batch": 64, "heads": 128, "kv_heads": 1, "kv_seq": 4096, "qk_head_dim": 576, "v_head_dim": 512},
    ),
    "gemm prefill": ("gemm", {"m": 4096, "n": 6144, "k": 4096}),
    "gemm square": ("gemm", {"m": 8192, "n": 8192, "k": 8192}),
    "gemm decode": ("gemm", {"m": 64, "n": 4096, "k": 14336}),
    "swiglu prefill": ("swiglu", {"m": 4096, "n": 14336, "k": 4096}),
    "swiglu decode": ("swiglu", {"m": 64, "n": 14336, "k": 4096}),
    "grouped_gemm": ("grouped_gemm", {"experts": 8, "tokens": 4096, "top_k": 2, "n": 14336, "k": 4096}),
    "rms_norm": ("rms_norm", {"rows": 4096, "columns": 4096}),
    "layer_norm": ("layer_norm", {"rows": 4096, "columns": 4096}),
    "attention_bwd": ("attention_bwd", {"batch": 2, "heads": 16, "seq": 8192, "qk_head_dim": 128, "causal": 1}),
    "attention_bwd hd64": ("attention_bwd", {"batch": 2, "heads": 32, "kv_heads": 8, "seq": 8192, "qk_head_dim": 64}),
    "attention_varlen": (
        "attention_varlen",
        {"batch": 16, "tokens": 65536, "heads": 32, "kv_heads": 8, "qk_head_dim": 128},
    ),
    "attention_paged": (
        "attention_paged",
        {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 8192, "page_size": 16, "qk_head_dim": 128},
    ),
    "gemm_persistent": ("gemm_persistent", {"m": 8192, "n": 8192, "k": 8192}),
    "gemm_fp8": ("gemm_fp8", {"m": 8192, "n": 8192, "k": 8192}),
    "gemm_w4a16 decode": ("gemm_w4a16", {"m": 16, "n": 14336, "k": 4096}),
    "dual_gemm": ("dual_gemm", {"m": 8192, "n": 4096, "k": 4096}),
    "rms_norm_gemm": ("rms_norm_gemm", {"m": 4096, "n": 6144, "k": 4096}),
    "kmeans_assign": ("kmeans_assign", {"points": 1 << 20, "centroids": 4096, "dimension": 128}),
}
"""Hot loops of Llama 3.1 8B, Mixtral 8x7B and DeepSeek-V3, and the sizes kernel papers report."""

OPTIONS = KernelOptions(Limits(deterministic_s=0.2))
"""As of `treadle bench`."""
WITHOUT_PRODUCTS = ("merge_kernel", "delta_kernel", "round_kernel", "rms_norm_kernel", "layer_norm_kernel")
"""Kernel functions that use no tensor core."""


def instruction_mix(binary: KernelBinary) -> tuple[dict[str, int], dict[str, int]]:
    """Return instructions by class, and those of one iteration (of the loop with the most products, else instructions).

    Both are empty without a disassembler, and for AMD.
    """
    code = disassemble(binary.data) if binary.suffix == "cubin" else ()
    if not code:
        return {}, {}
    loops = [loop.counts for loop in group_loops(code)]
    products = ("wgmma", "tcgen05", "mma_sync")
    steady = max(loops, key=lambda c: (sum(c[name] for name in products), c["instructions"]), default={})
    return count(code), dict(steady)


def planned_shared_bytes(plan: KernelPlan) -> int:
    """Return the bytes that the rings of the plan's loads take of shared memory."""
    assert plan.program is not None
    loads = {operation.name for operation in plan.program.operations if operation.kind is OperationKind.LOAD}
    return sum(ring.slot_bytes * plan.schedule.ring_depths[ring.name] for ring in plan.loop.rings if ring.name in loads)


def rows_of(case: str, machine: Machine, pythons: list[str]) -> list[dict[str, Any]]:
    """Return a row per kernel function and Triton of the best program whose binaries spill with none of them."""
    family, shape = CASES[case]
    common = {"case": case, "machine": machine.id, "target": machine.architecture, "language": "triton"}
    try:
        drafts = draft_programs(programs.candidates(family, shape), machine, OPTIONS)
        (settled,) = settle(drafts, machine, OPTIONS, lambda _: None, pythons=pythons)
    except TreadleError as error:
        return [{**common, "refused": f"{error.code}: {error}", "hint": error.next_step}]
    return [row_of(case, machine, settled.kernel, binary) for found in settled.binaries for binary in found]


def row_of(case: str, machine: Machine, plan: KernelPlan, binary: KernelBinary) -> dict[str, Any]:
    """Return the figures of one compiled kernel function."""
    assert plan.program is not None
    mix, iteration = instruction_mix(binary)
    return {
        "case": case,
        "language": "triton",
        "kernel": binary.kernel,
        "machine": machine.id,
        "target": binary.target,
        "compiler": binary.compiler,
        "tile_sizes": plan.program.tile_sizes,
        "ii_cycles": plan.schedule.ii_cycles,
        "status": plan.certificate.levels[0].status.value,
        "rounds": len(plan.attempts) + 1,
        "attempts": list(plan.attempts),
        "warps": binary.launch["warps"],
        "planned_registers": registers_per_thread(plan.program, machine),
        "registers": binary.registers,
        "spill_bytes": binary.spill_bytes,
        "smem_bytes": binary.smem_bytes,
        "planned_ring_bytes": planned_shared_bytes(plan),
        "smem_capacity_bytes": int(machine.value("shared_capacity_bytes")),
        "predicted_us": plan.prediction("time").value,
        "instructions": mix,
        "iteration": iteration,
        "measured": "not measured",
    }


HEADER = (
    "case", "machine", "language", "compiler", "tiles", "II", "group", "regs planned", "used", "spill", "smem",
    "bar.sync", "products", "copies", "exp2", "instructions", "issue cycles", "mismatches",
)  # fmt: skip
"""Products, barriers and instructions are those of one iteration; copies and exponentials of the whole kernel."""


def figures_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the totals: kernels compiled, refused, spilling, too large, and with the expected instructions."""
    compiled = [row for row in rows if "kernel" in row]
    products = [row for row in compiled if row["kernel"] not in WITHOUT_PRODUCTS]
    expected = {"sm_80": "mma_sync", "sm_90": "wgmma", "sm_100": "tcgen05"}
    with_mix = [row for row in products if row["instructions"]]
    return {
        "kernels": len(compiled),
        "refused": len(rows) - len(compiled),
        "spilling": sum(row["spill_bytes"] > 0 for row in compiled),
        "most_rounds": max((row["rounds"] for row in compiled), default=0),
        "over_shared_capacity": sum(row["smem_bytes"] > row["smem_capacity_bytes"] for row in compiled),
        "products_disassembled": len(with_mix),
        "products_on_the_newest_tensor_instructions": sum(
            row["instructions"][expected[row["target"]]] > 0 for row in with_mix
        ),
    }


def main() -> int:
    """Run the benchmark."""
    chosen = arguments(
        "Registers, spills, shared memory and instructions of every emitted kernel.",
        python={"action": "append", "default": [], "help": "a further Python with another Triton"},
        machine={"action": "append", "default": [], "help": "only this machine"},
        case={"action": "append", "default": [], "help": "only this Gluon kernel, and no portable one"},
        kept={"type": Path, "help": "folder of rows that a stopped run goes on with"},
    )
    rows: list[dict[str, Any]] = []
    pythons = [sys.executable, *chosen.python]
    for name in [] if chosen.case else chosen.machine or machine_ids():
        machine = load_machine(name)
        for case, (family, shape) in CASES.items():
            make = partial(rows_of, case, machine, pythons)
            rows += kept(chosen.kept, f"triton {name} {case}", family, PORTABLE, (str(shape), *pythons), make)
            print(f"triton {case} on {name}", file=sys.stderr)
    wanted = tuple(name for name in MACHINES if name in (chosen.machine or MACHINES))
    specialized = gluon_rows(pythons, wanted, chosen.case or GLUON_CASES, chosen.kept)
    table(HEADER, (line for row in [*rows, *specialized] for line in shown(row)))
    for row in [*rows, *specialized]:
        if "refused" in row:
            print(f"refused: {row['case']} on {row['machine']} ({row['language']}): {row['refused']}")
    figures = {**figures_of(rows), **gluon_figures(specialized)}
    print("  ".join(f"{key}: {value}" for key, value in figures.items()))
    finish("kernel_static", figures, [*rows, *specialized], chosen.json)
    return 0


def shown(row: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return the lines of a row in the table: one, and for Gluon one a group of warps."""
    if "kernel" not in row:
        return []
    mix, tiles = row["instructions"], "x".join(str(size) for size in row["tile_sizes"].values())
    beside = row["kernel"] in WITHOUT_PRODUCTS[:3]
    name = row["case"] + (f" ({row['kernel'].removesuffix('_kernel')})" if beside else "")
    head = (name, row["machine"], row["language"], row["compiler"].removeprefix("triton "), tiles, row["ii_cycles"])
    whole = (row["spill_bytes"], row["smem_bytes"])
    copies = sum(mix.get(kind, 0) for kind in ("tma_load", "async_copy"))
    if "groups" not in row:
        one = row["iteration"]
        products = sum(one.get(kind, 0) for kind in ("wgmma", "tcgen05", "mma_sync")) if one else "-"
        return [(
            *head, "", row["planned_registers"], row["registers"], *whole, one.get("barrier", "-"), products,
            copies if mix else "-", mix.get("exp2", "-"), one.get("instructions", "-"), "-", "",
        )]  # fmt: skip
    return [
        (
            *head, group["group"], group["registers_planned"], group["registers_used"], *whole, group["barriers"],
            f"{group['products']}/{group['products_planned']}", copies, mix["exp2"], group["instructions"],
            group["issue_cycles"], len(row["mismatches"]) or "as planned",
        )
        for group in row["groups"]
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
