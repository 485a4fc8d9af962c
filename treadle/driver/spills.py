"""Registers decide after prediction: of the candidates, the fastest predicted whose binaries spill none is the kernel.

A binary that spills goes back: the next candidate is scheduled in full, emitted and compiled, at most `ROUNDS` times;
after `NEAREST` of them those that plan the fewest registers come first.
What was given up is written into the kernel's `attempts`; where every candidate spills, the kernel is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from treadle.codegen.triton.compile import KernelBinary, compile_sources
from treadle.codegen.triton.emit import emit
from treadle.costmodels.predict import registers_per_thread
from treadle.driver.artifacts import Files, Kernels, with_binaries
from treadle.driver.kernels import KernelOptions, draft_hot_loop, plan_program
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.workload import HotLoop

ROUNDS = 5
"""How often a kernel may come back after its first binary."""
NEAREST = 3
"""Binaries that may spill before the candidates that plan the fewest registers come first."""


class EverythingSpills(TreadleError):
    """A kernel whose binaries spill registers at all tile sizes that may be tried."""

    code = "TRD675"
    template = "kernel `{kernel}` spills registers on {machine}: {reasons}"
    hint = "choose smaller tiles with --tiles; --no-compile writes the source without a binary"
    exit_code = ExitCode.UNMET


@dataclass(frozen=True, slots=True)
class Settled:
    """A compiled kernel: its source, and its binaries by compiler, up to the first compiler with which it spills."""

    kernel: KernelPlan
    source: str
    binaries: tuple[tuple[KernelBinary, ...], ...]


def settle(
    drafts: Sequence[KernelPlan],
    machine: Machine,
    options: KernelOptions,
    tell: Callable[[str], None],
    plan_id: str = "",
    pythons: Sequence[str] = (sys.executable,),
) -> list[Settled]:
    """Return the first `options.top` drafts whose binaries spill nothing, scheduled in full.

    Args:
        drafts: quick plans, best first; names, phase and calls are kept.
        machine: whose architecture is compiled for.
        options: of the full schedule.
        tell: called with a line for each draft that is given up.
        plan_id: for the header of the source.
        pythons: whose Tritons compile; with none of them may it spill.

    Raises:
        EverythingSpills: none is found with `ROUNDS` drafts given up.
        MissingExtra, CompilationFailed, UnsupportedTarget.
    """
    attempts: list[str] = []
    settled: list[Settled] = []
    waiting = list(drafts)
    while waiting:
        if len(attempts) == NEAREST and not settled:
            waiting.sort(key=lambda draft: _planned_registers(draft, machine))
        draft = waiting.pop(0)
        found = _compiled(_in_full(draft, machine, options), machine, plan_id, pythons)
        most = max(binary.spill_bytes for binaries in found.binaries for binary in binaries)
        if most:
            attempts.append(f"{_sizes(draft)} spills {most} bytes a thread")
            tell(f"{draft.name}: {attempts[-1]}; the next candidate")
        else:
            settled.append(replace(found, kernel=replace(found.kernel, attempts=tuple(attempts))))
        if len(settled) == options.top or len(attempts) > ROUNDS:
            break
    if not settled:
        raise EverythingSpills(kernel=drafts[0].name, machine=machine.id, reasons="; ".join(attempts))
    return settled


def without_spills(
    kernels: Kernels, files: Files, loops: Sequence[HotLoop], machine: Machine, options: KernelOptions, plan_id: str
) -> tuple[Kernels, Files, dict[str, str]]:
    """Replace compiled kernels of hot loops whose binaries spill by the next best whose do not.

    Returns: the kernels that are left, all files, and by kernel why it is refused.
    """
    hot = {loop.name: loop for loop in loops}
    kept: list[KernelPlan] = []
    written, refused = dict(files), dict[str, str]()
    for kernel in kernels:
        if not spilled(kernel):
            kept.append(kernel)
            continue
        written = {path: data for path, data in written.items() if not path.startswith(f"kernels/{kernel.name}.")}
        drafts = draft_hot_loop(hot[kernel.name], machine, options)
        try:
            (settled,) = settle(drafts, machine, replace(options, top=1), lambda _: None, plan_id)
        except EverythingSpills as error:
            refused[kernel.name] = f"{error.code}: {error}"
            continue
        better = replace(settled.kernel, source=f"kernels/{kernel.name}.py")
        better, added = with_binaries(better, settled.binaries[0])
        kept.append(better)
        written |= {**added, better.source: settled.source.encode()}
    return tuple(kept), written, refused


def refuse_spills(kernels: Sequence[KernelPlan], machine: Machine) -> None:
    """Raise EverythingSpills where a binary of a kernel spills: of one whose tiles are given, or chosen by bounds."""
    for kernel in kernels:
        if most := spilled(kernel):
            reason = f"{_sizes(kernel)} spills {most} bytes a thread"
            raise EverythingSpills(kernel=kernel.name, machine=machine.id, reasons=reason)


def spilled(kernel: KernelPlan) -> int:
    """Return the most bytes per thread that a binary of the kernel spills."""
    return max((binary.spill_bytes for binary in kernel.compiled), default=0)


def _in_full(draft: KernelPlan, machine: Machine, options: KernelOptions) -> KernelPlan:
    """Return a draft scheduled with all of the options' limits, under the draft's name."""
    assert draft.program is not None
    kernel = plan_program(draft.program, machine, options)
    return replace(kernel, name=draft.name, calls=draft.calls, phase=draft.phase)


def _compiled(kernel: KernelPlan, machine: Machine, plan_id: str, pythons: Sequence[str]) -> Settled:
    source = emit(kernel, machine, plan_id)
    made: list[tuple[KernelBinary, ...]] = []
    for python in pythons:
        made.append(compile_sources({kernel.name: source}, machine.architecture, python=python)[kernel.name])
        if any(binary.spill_bytes for binary in made[-1]):
            break
    return Settled(kernel, source, tuple(made))


def _planned_registers(draft: KernelPlan, machine: Machine) -> int:
    assert draft.program is not None
    return registers_per_thread(draft.program, machine)


def _sizes(kernel: KernelPlan) -> str:
    program = kernel.program
    return " ".join(f"{key}={value}" for key, value in program.tile_sizes.items()) if program else "its loop"
