"""`treadle kernel`: one program at one shape, or one loop file, to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from treadle.codegen.gluon.errors import NotEmittable
from treadle.driver.artifacts import Files, compile_kernels, emit_kernels, report_of, timelines
from treadle.driver.gluon import fit_kernels
from treadle.driver.kernel_groups import further_schedules, simulated, with_groups, with_room_for_groups
from treadle.driver.kernels import KernelOptions, draft_programs, machine_for, plan_program, rank_programs
from treadle.driver.modes import TilesFixed, certified, choose_mode, runs_over_groups
from treadle.driver.spills import refuse_spills, settle
from treadle.driver.versions import versions
from treadle.frontends import programs
from treadle.frontends.hls import read_loop
from treadle.ir.codec import encode
from treadle.ir.machine import Machine
from treadle.ir.plan import Input, Plan, digest, input_from
from treadle.ir.tile.kernel import KernelBody, KernelPlan
from treadle.ir.tile.program import TileProgram
from treadle.solvers.modulo.solve import Options, schedule

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """A program of the library at a shape on a machine."""

    program: str
    machine: str
    shape: dict[str, int] = field(default_factory=dict[str, int])
    tile_sizes: dict[str, int] = field(default_factory=dict[str, int])
    dtype: str = "bfloat16"
    switches: dict[str, str | int | bool] = field(default_factory=dict[str, str | int | bool])


def machine_input(machine: Machine) -> Input:
    """Return the record of a machine description, by the hash of its figures."""
    return Input("machine", machine.id, digest(encode(machine)))


def plan_kernel(request: KernelRequest, options: KernelOptions, tell: Tell) -> tuple[Plan, Files]:
    """Schedule a program's candidates, keep the best `options.top`, emit and compile them.

    Returns: the unsealed plan, and its files.

    Raises:
        TreadleError: unknown program, machine or shape key; nothing fits.
    """
    machine = machine_for(request.machine, options)
    envelope = envelope_of(encode(request), (machine_input(machine),), options)
    if options.modes:
        return with_files(envelope, machine, _best_mode(request, machine, options, tell), options, tell)
    candidates = _candidates(request)
    if options.warps:
        candidates = with_room_for_groups(candidates, machine)
    ranked = _ranked(candidates, machine, options, envelope.expected_id(), tell)
    grouped = [with_groups(kernel, machine, options, tell) for kernel in ranked]
    grouped += further_schedules(grouped[0], options.top - len(grouped), options, tell)
    return with_files(envelope, machine, numbered(grouped), options, tell)


def _ranked(
    candidates: tuple[TileProgram, ...], machine: Machine, options: KernelOptions, plan_id: str, tell: Tell
) -> list[KernelPlan]:
    """Return the best kernels; of those that are compiled here, the best whose binaries spill nothing."""
    if not options.compiled or options.language == "gluon":
        return rank_programs(candidates, machine, options)
    drafts = draft_programs(candidates, machine, options)
    return [settled.kernel for settled in settle(drafts, machine, options, tell, plan_id)]


def _best_mode(request: KernelRequest, machine: Machine, options: KernelOptions, tell: Tell) -> tuple[KernelPlan, ...]:
    """Return the kernel of the best of all tile shapes, and further schedules of it."""
    if request.tile_sizes:
        raise TilesFixed(reason="--tiles gives one")
    if options.language == "gluon":
        raise TilesFixed(reason="--emit gluon changes tiles until the binary keeps its plan")
    chosen = {"dtype": request.dtype, **request.switches}
    program, modes = choose_mode(request.program, request.shape, chosen, machine, options, tell)
    settings = replace(options, warps=runs_over_groups(machine, options))
    kernel = with_groups(plan_program(program, machine, settings), machine, settings, tell)
    kernel = replace(kernel, modes=certified(kernel, modes, machine, options))
    more = further_schedules(kernel, options.top - 1, options, tell)
    return numbered([kernel, *more])


def _candidates(request: KernelRequest) -> tuple[TileProgram, ...]:
    chosen = {"dtype": request.dtype, **request.switches}
    if request.tile_sizes:
        return (programs.build(request.program, request.shape, request.tile_sizes, chosen),)
    return programs.candidates(request.program, request.shape, chosen)


def numbered(kernels: Sequence[KernelPlan]) -> tuple[KernelPlan, ...]:
    """Return the kernels of one program under names of their own: all but the first by their rank."""
    return tuple(
        kernel if rank == 0 else replace(kernel, name=f"{kernel.name}_{rank + 1}")
        for rank, kernel in enumerate(kernels)
    )


def plan_loop(graphml: Path, resources: Path, options: KernelOptions, tell: Tell) -> tuple[Plan, Files]:
    """Schedule a loop file (GraphML with its resource model).

    Returns: the unsealed plan, and its files.
    """
    loop = read_loop(graphml, resources)
    solved = schedule(loop, Options(limits=options.limits), tell, options.earlier.get(loop))
    kernel = KernelPlan(loop.name, loop, solved.schedule, solved.certificate)
    inputs = (input_from("loop", graphml), input_from("resources", resources))
    envelope = envelope_of({}, inputs, options)
    return with_files(envelope, None, (kernel,), options, tell)


def envelope_of(request: Mapping[str, Any], inputs: tuple[Input, ...], options: KernelOptions) -> Plan:
    """Return a kernel plan without its body: what was asked for, from what, with which versions."""
    return Plan("kernel", inputs, {**request, **options.recorded()}, versions(), None)


def with_files(
    envelope: Plan, machine: Machine | None, kernels: tuple[KernelPlan, ...], options: KernelOptions, tell: Tell
) -> tuple[Plan, Files]:
    """Emit and compile kernels where there is a machine, draw them, and put them into the plan."""
    files: Files = {}
    gluon = options.language == "gluon"
    if machine is None and gluon:
        raise NotEmittable(kernel=kernels[0].name, reason="it is a bare loop without a machine")
    if machine is not None and gluon:
        kernels, files = fit_kernels(kernels, machine, options, envelope.expected_id(), tell)
    elif machine is not None:
        kernels, files = emit_kernels(kernels, machine, envelope.expected_id())
    if machine is not None and options.compiled and not gluon:
        kernels, files = compile_kernels(kernels, machine, files, tell)
        refuse_spills(kernels, machine)
    if machine is not None:
        kernels = tuple(simulated(kernel, machine) for kernel in kernels)
    files |= timelines(kernels)
    plan = replace(envelope, body=KernelBody(machine, kernels))
    files["report.html"] = report_of(plan, files)
    return plan, files
