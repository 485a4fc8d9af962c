"""Kernel plans to files: emitted source, binaries with what launchers need, timelines - and the compiled records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from treadle.codegen.timeline import timeline_json
from treadle.codegen.triton.compile import TARGETS, KernelBinary, compile_sources
from treadle.codegen.triton.emit import emit
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan

Files = dict[str, bytes]


def emit_sources(kernels: Sequence[KernelPlan], machine: Machine, plan_id: str) -> dict[str, str]:
    """Return the emitted module of every kernel that has a program, by kernel name."""
    return {kernel.name: emit(kernel, machine, plan_id) for kernel in kernels if kernel.program is not None}


def compile_kernels(
    kernels: Sequence[KernelPlan], machine: Machine, plan_id: str, tell: Callable[[str], None]
) -> tuple[tuple[KernelPlan, ...], Files]:
    """Emit and compile kernels for the machine's architecture.

    Returns: the kernels with their compiled records, and the files by path relative to the plan folder.

    Raises:
        MissingExtra: no compiler is installed. CompilationFailed: it refuses a kernel.
    """
    sources = emit_sources(kernels, machine, plan_id)
    tell(f"compiling {len(sources)} kernels for {machine.architecture}")
    binaries = compile_sources(sources, machine.architecture) if machine.architecture in TARGETS else {}
    files: Files = {f"kernels/{name}.py": text.encode() for name, text in sources.items()}
    compiled: list[KernelPlan] = []
    for kernel in kernels:
        found, written = _binary_files(kernel.name, binaries.get(kernel.name, ()))
        files |= written
        compiled.append(_recorded(kernel, found))
    return tuple(compiled), files


def _recorded(kernel: KernelPlan, binaries: Sequence[tuple[KernelBinary, str]]) -> KernelPlan:
    """Return the kernel with the records of its binaries."""
    source = f"kernels/{kernel.name}.py"
    return replace(kernel, compiled=tuple(binary.record(source, path) for binary, path in binaries))


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
    """Return a Perfetto trace of every kernel's schedule."""
    return {f"timelines/{kernel.name}.json": timeline_json(kernel).encode() for kernel in kernels}
