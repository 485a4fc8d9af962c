"""Reviews the modes of a kernel: all of them are there, each bound and each reason again, and the choice."""

from __future__ import annotations

from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.tile_traffic import issued_load_bytes
from treadle.frontends.programs.modes import every_mode
from treadle.frontends.programs.rows import ROW_PARTS
from treadle.ir.certificate import ProofKind
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile import claims, warp_claims
from treadle.ir.tile.claims import Refused
from treadle.ir.tile.impossible import impossible, impossible_over_groups
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.modes import LoopBound, Mode, Modes, certificate_of, work_cycles
from treadle.ir.tile.program import TileProgram
from treadle.verification.core import Review


def review_modes(kernel: KernelPlan, machine: Machine | None) -> Review:
    """Review a kernel's comparison of modes; nothing for a kernel without one.

    Codes: TRD591 the modes are others than those of the program, TRD592 a bound, a reason or a figure of a mode does
    not hold, TRD593 the choice or its certificate.
    """
    modes, program = kernel.modes, kernel.program
    if modes is None:
        return Review(0, 0, ())
    if program is None or machine is None:
        return Review(1, 0, (Finding("TRD591", kernel.name, "a loop without a program and a machine has no modes"),))
    options = {key: value for key, value in program.options.items() if key != ROW_PARTS}
    try:
        every = every_mode(program.family, program.shape, options, over_groups=modes.over_groups)
    except TreadleError as error:
        return Review(1, 0, (Finding("TRD591", kernel.name, f"the program has no modes: {error}"),))
    expected = [(own.tile_sizes, own.options.get(ROW_PARTS, 1)) for own in every]
    if expected != [(mode.tile_sizes, mode.row_parts) for mode in modes.modes]:
        message = "the modes are not those of the program's family at its shape"
        counts = (f"{len(expected)} modes", f"{len(modes.modes)} modes")
        return Review(1, 0, (Finding("TRD591", kernel.name, message, *counts),))
    findings = [
        finding
        for own, mode in zip(every, modes.modes, strict=True)
        for finding in _review_mode(own, mode, machine, over_groups=modes.over_groups)
    ]
    findings += _review_choice(kernel, modes, machine)
    on_word = sum(bound.proof is ProofKind.SOLVER for mode in modes.modes for bound in mode.loops)
    return Review(1 + len(every) + 2, on_word, tuple(findings))


def _review_mode(program: TileProgram, mode: Mode, machine: Machine, *, over_groups: bool) -> list[Finding]:
    where = f"mode {mode.words}"
    if mode.loaded_bytes != issued_load_bytes(program):
        right = str(issued_load_bytes(program))
        return [Finding("TRD592", where, "it loads other bytes", right, str(mode.loaded_bytes))]
    loops = (program, *program.siblings)
    if mode.refused:
        reasons = [_reason(loop, machine, over_groups=over_groups) for loop in loops]
        if any(mode.refused in told for told in reasons):
            return []
        return [Finding("TRD592", where, "the reason why it cannot run is not confirmed", found=mode.refused)]
    if len(mode.loops) != len(loops):
        return [Finding("TRD592", where, "it bounds other loops", str(len(loops)), str(len(mode.loops)))]
    findings: list[Finding] = []
    for loop, bound in zip(loops, mode.loops, strict=True):
        try:
            _check_bound(loop, machine, bound, over_groups=over_groups)
        except Refused as refused:
            _, message, right, found = refused.parts
            findings.append(Finding("TRD592", f"{where}, loop {loop.name}", message, right, found))
        except TreadleError as error:
            findings.append(Finding("TRD592", f"{where}, loop {loop.name}", f"it cannot be lowered: {error}"))
    cycles = work_cycles(program, tuple(b.cycles for b in mode.loops), round(machine.value("sm_count")))
    if cycles != mode.bound_cycles:
        findings.append(
            Finding("TRD592", where, "the bound is not that of its loops", str(cycles), str(mode.bound_cycles))
        )
    return findings


def _reason(program: TileProgram, machine: Machine, *, over_groups: bool) -> tuple[str, ...]:
    """Return why a loop cannot run, at first sight and after a walk over the assignments to groups."""
    try:
        if not over_groups:
            return (impossible(lower(program, machine)),)
        warps = lower_warps(program, machine)
        plain = impossible_over_groups(warps, walk=False)
        return (plain or impossible_over_groups(warps, walk=True),)
    except TreadleError as error:
        return (f"{error.code}: {error}",)


def _check_bound(program: TileProgram, machine: Machine, bound: LoopBound, *, over_groups: bool) -> None:
    if over_groups:
        warp_claims.check_interval(lower_warps(program, machine), bound.cycles, bound.proof, bound.evidence)
    else:
        claims.check_interval(lower(program, machine), bound.cycles, bound.proof, bound.evidence)


def _review_choice(kernel: KernelPlan, modes: Modes, machine: Machine) -> list[Finding]:
    """Check that the chosen mode is the kernel's, takes its cycles, and is proven to be what the certificate says."""
    program, best = kernel.program, modes.best
    assert program is not None
    findings: list[Finding] = []
    if (best.tile_sizes, best.row_parts) != (program.tile_sizes, program.options.get(ROW_PARTS, 1)):
        findings.append(Finding("TRD593", kernel.name, "the chosen mode is not the kernel's", found=best.words))
    if modes.over_groups == (kernel.groups is None):
        findings.append(Finding("TRD593", kernel.name, "modes and kernel differ in warp groups"))
        return findings
    plans = [kernel.groups, *(loop.groups for loop in kernel.siblings)]
    schedules = [kernel.schedule, *(loop.schedule for loop in kernel.siblings)]
    intervals = tuple(
        schedule.ii_cycles if plan is None else plan.schedule.schedule.ii_cycles
        for plan, schedule in zip(plans, schedules, strict=True)
    )
    cycles = work_cycles(program, intervals, round(machine.value("sm_count")))
    if best.cycles != cycles:
        findings.append(Finding("TRD593", kernel.name, "the choice takes other cycles", str(cycles), str(best.cycles)))
    again = certificate_of(program.family, modes.certificate.cost_model, modes.modes, modes.chosen)
    if again != modes.certificate:
        message = "the certificate is not the one its modes give"
        findings.append(Finding("TRD593", kernel.name, message, str(again.levels), str(modes.certificate.levels)))
    return findings
