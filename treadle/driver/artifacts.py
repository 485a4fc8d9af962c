"""Kernel plans to files: emitted source, binaries with what launchers need, timelines - and the compiled records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from treadle.codegen.group_timeline import by_groups
from treadle.codegen.report import ReviewFigures, render
from treadle.codegen.svg_timeline import standalone_svg
from treadle.codegen.timeline import timeline_json
from treadle.codegen.triton.compile import KernelBinary, compile_sources
from treadle.codegen.triton.emit import emit
from treadle.frontends.programs import FAMILIES
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelPlan
from treadle.verification.core import review_plan

Files = dict[str, bytes]
Kernels = tuple[KernelPlan, ...]


def emit_kernels(kernels: Sequence[KernelPlan], machine: Machine, plan_id: str) -> tuple[Kernels, Files]:
    """Emit the kernels of library programs; return them with the path of their source, and the files."""
    emitted: list[KernelPlan] = []
    files: Files = {}
    for kernel in kernels:
        if kernel.program is not None and kernel.program.family in FAMILIES:
            source = emit(kernel, machine, plan_id)
            kernel = replace(kernel, source=f"kernels/{kernel.name}.py")
            files[kernel.source] = source.encode()
        emitted.append(kernel)
    return tuple(emitted), files


def compile_kernels(
    kernels: Sequence[KernelPlan], machine: Machine, files: Files, tell: Callable[[str], None]
) -> tuple[Kernels, Files]:
    """Compile emitted kernels for the machine's architecture.

    Args:
        kernels: with the path of their source.
        machine: whose architecture is compiled for.
        files: the emitted sources by path.
        tell: called with a line of progress.

    Returns: the kernels with their compiled records, and all files by path relative to the plan folder.

    Raises:
        MissingExtra: no compiler is installed. CompilationFailed: it refuses a kernel. UnsupportedTarget.
    """
    sources = {kernel.name: files[kernel.source].decode() for kernel in kernels if kernel.source}
    tell(f"compiling {len(sources)} kernels for {machine.architecture}")
    binaries = compile_sources(sources, machine.architecture)
    compiled: list[KernelPlan] = []
    written = dict(files)
    for kernel in kernels:
        recorded, added = with_binaries(kernel, binaries.get(kernel.name, ()))
        written |= added
        compiled.append(recorded)
    return tuple(compiled), written


def with_binaries(kernel: KernelPlan, binaries: Sequence[KernelBinary]) -> tuple[KernelPlan, Files]:
    """Return the kernel with the records of its binaries, and their files by path."""
    found, files = _binary_files(kernel.name, binaries)
    return replace(kernel, compiled=tuple(binary.record(path) for binary, path in found)), files


def _binary_files(name: str, binaries: Sequence[KernelBinary]) -> tuple[list[tuple[KernelBinary, str]], Files]:
    found: list[tuple[KernelBinary, str]] = []
    files: Files = {}
    for binary in binaries:
        stem = f"kernels/{name}.{binary.kernel}.{binary.target}"
        files[f"{stem}.{binary.suffix}"] = binary.data
        files[f"{stem}.json"] = binary.sidecar().encode()
        found.append((binary, f"{stem}.{binary.suffix}"))
    return found, files


def timelines(kernels: Sequence[KernelPlan]) -> Files:
    """Return a Perfetto trace of every kernel's schedule; over warp groups also one by group, and its picture."""
    files = {f"timelines/{kernel.name}.json": timeline_json(kernel).encode() for kernel in kernels}
    for kernel in kernels:
        if kernel.groups is not None:
            drawn = by_groups(kernel)
            files[f"timelines/{kernel.name}.groups.json"] = timeline_json(drawn).encode()
            files[f"timelines/{kernel.name}.groups.svg"] = standalone_svg(drawn).encode()
    return files


def report_of(plan: Plan, files: Files) -> bytes:
    """Return the page of an unsealed plan, with its emitted sources and what verification says of it."""
    sealed = plan.sealed()
    review = review_plan(sealed, None)
    sources = {Path(path).stem: data.decode() for path, data in files.items() if path.endswith(".py")}
    figures = ReviewFigures(review.rederived, review.on_solver_word, review.findings)
    return render(sealed, sources, figures).encode()
