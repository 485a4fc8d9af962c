"""Static evidence of emitted kernels: every family on every machine, scheduled, emitted, compiled - without a GPU.

Run: `python -m benchmarks.kernel_static --json OUT [--python OTHER_PYTHON ...]`. The best program of a family on a
machine is that of the smallest predicted time, as `treadle compile` chooses it. `--python` names further Pythons whose
Triton compiles the same sources. Registers and local memory are read from the binary, instructions from its
disassembly (`cuobjdump` of the Triton wheel; none for AMD). Warp-specialized Gluon kernels follow, each group of theirs
set against its plan (`benchmarks/kernel_static_gluon.py`).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.kernel_static_gluon import MACHINES, gluon_figures, gluon_rows, show
from treadle.codegen.triton.compile import KernelBinary, compile_sources
from treadle.codegen.triton.emit import emit
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.costmodels.predict import registers_per_thread
from treadle.driver.kernels import KernelOptions, rank_programs
from treadle.frontends import programs
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.program import OperationKind

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

MIX = {
    "wgmma": r"\bHGMMA",
    "tcgen05": r"\bUTC[A-Z]*MMA",
    "mma_sync": r"\bHMMA",
    "tma_load": r"\bUTMALDG",
    "async_copy": r"\bLDGSTS",
    "exp2": r"\bMUFU\.EX2",
    "barrier": r"\bBAR\.",
    "local": r"\b(?:STL|LDL)",
}
"""Instruction classes of NVIDIA machine code, by opcode."""

WITHOUT_PRODUCTS = ("merge_kernel", "delta_kernel", "round_kernel", "rms_norm_kernel", "layer_norm_kernel")
"""Kernel functions that use no tensor core."""

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?);")


def disassembler() -> Path | None:
    """Return the `cuobjdump` of the installed Triton, if it has one."""
    specification = find_spec("triton")
    if specification is None or specification.origin is None:
        return None
    path = Path(specification.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return path if path.is_file() else None


def instruction_mix(binary: KernelBinary) -> dict[str, int]:
    """Return how many instructions of each class of `MIX` the binary has, and how many in all; empty without a tool."""
    tool = disassembler()
    if tool is None or binary.suffix != "cubin":
        return {}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.data)
        file.flush()
        run = subprocess.run([str(tool), "-sass", file.name], capture_output=True, text=True, check=False)
    found: Counter[str] = Counter(dict.fromkeys(MIX, 0))
    for line in run.stdout.splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        found["instructions"] += 1
        for name, pattern in MIX.items():
            found[name] += bool(re.search(pattern, match[1]))
    return dict(found)


def best_plans(machine: Machine) -> dict[str, KernelPlan | str]:
    """Return the best plan of every case on a machine, or why there is none."""
    plans: dict[str, KernelPlan | str] = {}
    for case, (family, shape) in CASES.items():
        try:
            plans[case] = rank_programs(programs.candidates(family, shape), machine, KernelOptions())[0]
        except TreadleError as error:
            plans[case] = str(error)
    return plans


def planned_shared_bytes(plan: KernelPlan) -> int:
    """Return the bytes that the rings of the plan's loads take of shared memory."""
    assert plan.program is not None
    loads = {operation.name for operation in plan.program.operations if operation.kind is OperationKind.LOAD}
    return sum(ring.slot_bytes * plan.schedule.ring_depths[ring.name] for ring in plan.loop.rings if ring.name in loads)


def rows_of(machine: Machine, plans: dict[str, KernelPlan | str], pythons: list[str]) -> list[dict[str, Any]]:
    """Compile every plan with every Triton and return one row per kernel function."""
    rows: list[dict[str, Any]] = []
    for case, plan in plans.items():
        if isinstance(plan, str):
            rows.append({"case": case, "machine": machine.id, "target": machine.architecture, "refused": plan})
            continue
        source = emit(plan, machine)
        for python in pythons:
            try:
                binaries = compile_sources({case.replace(" ", "_"): source}, machine.architecture, python=python)
            except TreadleError as error:
                rows.append(
                    {"case": case, "machine": machine.id, "target": machine.architecture, "refused": str(error)}
                )
                continue
            rows += [row_of(case, machine, plan, binary) for found in binaries.values() for binary in found]
    return rows


def row_of(case: str, machine: Machine, plan: KernelPlan, binary: KernelBinary) -> dict[str, Any]:
    """Return the figures of one compiled kernel function."""
    assert plan.program is not None
    return {
        "case": case,
        "kernel": binary.kernel,
        "machine": machine.id,
        "target": binary.target,
        "compiler": binary.compiler,
        "tile_sizes": plan.program.tile_sizes,
        "ii_cycles": plan.schedule.ii_cycles,
        "status": plan.certificate.levels[0].status.value,
        "warps": binary.launch["warps"],
        "planned_registers": registers_per_thread(plan.program, machine),
        "registers": binary.registers,
        "spill_bytes": binary.spill_bytes,
        "smem_bytes": binary.smem_bytes,
        "planned_ring_bytes": planned_shared_bytes(plan),
        "smem_capacity_bytes": int(machine.value("shared_capacity_bytes")),
        "predicted_us": plan.prediction("time").value,
        "instructions": instruction_mix(binary),
    }


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
    )
    rows: list[dict[str, Any]] = []
    for name in chosen.machine or machine_ids():
        machine = load_machine(name)
        rows += rows_of(machine, best_plans(machine), [sys.executable, *chosen.python])
        print(f"{name}: {sum(row['machine'] == name for row in rows)} kernels", file=sys.stderr)
    header = ("case", "machine", "compiler", "tiles", "II", "regs", "spill", "smem", "tensor instr.", "async copies")
    table(header, (_shown(row) for row in rows if "kernel" in row))
    for row in rows:
        if "refused" in row:
            print(f"refused: {row['case']} on {row['machine']}: {row['refused']}")
    wanted = tuple(name for name in MACHINES if name in (chosen.machine or MACHINES))
    specialized = gluon_rows([sys.executable, *chosen.python], wanted)
    show(specialized)
    figures = {**figures_of(rows), **gluon_figures(specialized)}
    print("  ".join(f"{key}: {value}" for key, value in figures.items()))
    finish("kernel_static", figures, [*rows, *specialized], chosen.json)
    return 0


def _shown(row: dict[str, Any]) -> tuple[object, ...]:
    mix = row["instructions"]
    tensor = sum(mix.get(name, 0) for name in ("wgmma", "tcgen05", "mma_sync"))
    copies = sum(mix.get(name, 0) for name in ("tma_load", "async_copy"))
    tiles = "x".join(str(size) for size in row["tile_sizes"].values())
    beside = row["kernel"] in ("merge_kernel", "delta_kernel", "round_kernel")
    name = row["case"] + (f" ({row['kernel'].removesuffix('_kernel')})" if beside else "")
    compiler = row["compiler"].removeprefix("triton ")
    return (
        name, row["machine"], compiler, tiles, row["ii_cycles"], row["registers"], row["spill_bytes"],
        row["smem_bytes"], tensor if mix else "-", copies if mix else "-",
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
