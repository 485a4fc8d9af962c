"""A binary that spills registers sends its hot loop back to the solver, without the tile sizes that spilled."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.driver.artifacts import Files, Kernels, compile_kernels, emit_kernels
from treadle.driver.kernels import KernelOptions, NoProgramFits, plan_hot_loop
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.workload import HotLoop

ROUNDS = 5
"""How often a hot loop may come back."""


def without_spills(
    kernels: Kernels,
    files: Files,
    loops: Sequence[HotLoop],
    machine: Machine,
    plan_id: str,
    options: KernelOptions,
) -> tuple[Kernels, Files, dict[str, tuple[str, ...]]]:
    """Replace kernels whose binaries spill by the next best programs that do not.

    Returns: the kernels, all files, and by kernel what was given up and why. Where every program spills, or the
    rounds are used up, the first one stays and its spills stay in the plan.
    """
    hot = {loop.name: loop for loop in loops}
    best = {kernel.name: kernel for kernel in kernels}
    written = dict(files)
    rejected: dict[str, tuple[str, ...]] = {}
    for kernel in kernels:
        tried: list[KernelPlan] = []
        current, added = kernel, dict[str, bytes]()
        while spilled(current) and len(tried) < ROUNDS:
            tried.append(current)
            sizes = [other.program.tile_sizes for other in tried if other.program]
            try:
                following = plan_hot_loop(hot[kernel.name], machine, options, sizes)[0]
            except NoProgramFits:
                break
            emitted, sources = emit_kernels((following,), machine, plan_id)
            (current,), added = compile_kernels(emitted, machine, sources, lambda _: None)
        if tried and not spilled(current):
            best[kernel.name] = current
            written = {path: data for path, data in written.items() if not _belongs(path, kernel.name)} | added
            rejected[kernel.name] = tuple(_reason(other) for other in tried)
    return tuple(best[kernel.name] for kernel in kernels), written, rejected


def spilled(kernel: KernelPlan) -> int:
    """Return the most bytes per thread that a binary of the kernel spills."""
    return max((binary.spill_bytes for binary in kernel.compiled), default=0)


def _belongs(path: str, name: str) -> bool:
    return path.startswith((f"kernels/{name}.", f"timelines/{name}."))


def _reason(kernel: KernelPlan) -> str:
    sizes = kernel.program.tile_sizes if kernel.program else {}
    return f"{' '.join(f'{key}={value}' for key, value in sizes.items())}: spills {spilled(kernel)} bytes a thread"
