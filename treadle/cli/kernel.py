"""`treadle kernel`: schedule one tile program, or one loop file, and emit the kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from treadle.cli.kernel_list import list_families
from treadle.cli.kernel_report import Spent, report
from treadle.cli.options import JsonFlag, OutputFolder, ResumeFlag
from treadle.cli.output import say
from treadle.codegen.folder import write_plan
from treadle.driver.artifacts import Files
from treadle.driver.kernel import KernelRequest, plan_kernel, plan_loop
from treadle.driver.kernels import KernelOptions, objective_levels
from treadle.driver.modes import TilesFixed
from treadle.driver.own_program import plan_own
from treadle.driver.resume import earlier_schedules
from treadle.driver.shapes import parse_arguments, parse_shape, parse_switches, shape_for, tiles_for
from treadle.frontends.hls import resources_beside
from treadle.frontends.own_program import is_own
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import ExitCode, Place
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import MissingFigure
from treadle.ir.plan import Plan
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import OBJECTIVE
from treadle.verification.core import Review, review_plan


class Language(Enum):
    """What kernels are written in."""

    TRITON = "triton"
    GLUON = "gluon"


DTYPE = "bfloat16"
"""Element type of the library's operands, unless said."""

Program = Annotated[
    str, typer.Argument(help="Program family, FILE.py:NAME, FILE.ttir, or a loop file (.graphml).", metavar="PROGRAM")
]
ProgramOption = Annotated[str, typer.Option("--program", help="The same, as an option.", metavar="NAME")]
MachineName = Annotated[str, typer.Option(help="Machine id or machine file.", metavar="ID")]
Shape = Annotated[str, typer.Option(help='Extents, such as "batch=4 heads=32 seq=16k".')]
Tiles = Annotated[str, typer.Option(help='Tile sizes, such as "block_m=128"; all candidates unless given.')]
Dtype = Annotated[str, typer.Option(help="Element type of the operands.")]
Switches = Annotated[
    str, typer.Option(help='Switches of the family, such as "scales=block" or "lse=true".', metavar="SWITCHES")
]
Arguments = Annotated[
    str, typer.Option(help='Types and constants of a Triton kernel, such as "a=*fp16 m=i32 BLOCK=128".')
]
Resources = Annotated[Path | None, typer.Option(help="Resource model of a loop file.", metavar="FILE")]
Top = Annotated[int, typer.Option(min=1, help="Keep the N best: tile sizes, then other schedules of the best.")]
Limit = Annotated[float, typer.Option(min=0.001, help="Deterministic seconds per question to the solver.")]
Warps = Annotated[
    bool | None,
    typer.Option("--warps/--no-warps", help="Schedule over warp groups (default: if products are asynchronous)."),
]
Objective = Annotated[str, typer.Option(help="Levels after the interval in their order.", metavar="LEVELS")]
Emit = Annotated[
    Language, typer.Option(help="Write kernels in portable triton, or in gluon, one warp group after the other.")
]
ModesFlag = Annotated[
    bool, typer.Option("--modes", help="Choose among all tile shapes and sub-tilings, and certify the choice.")
]
LatencyPercentile = Annotated[
    int | None,
    typer.Option(min=1, max=100, help="Loads as late as this percent of them are (default: the machine's mean)."),
]
ListFlag = Annotated[
    bool, typer.Option("--list", help="List the families, or shape, tiles and switches of PROGRAM, and plan nothing.")
]
CompileFlag = Annotated[bool, typer.Option("--compile/--no-compile", help="Compile to binaries.")]


def command(
    program: Program = "",
    program_option: ProgramOption = "",
    machine: MachineName = "h200",
    shape: Shape = "",
    tiles: Tiles = "",
    dtype: Dtype = DTYPE,
    switches: Switches = "",
    arguments: Arguments = "",
    resources: Resources = None,
    top: Top = 1,
    limit: Limit = 1.0,
    warps: Warps = None,
    objective: Objective = ",".join(OBJECTIVE),
    modes: ModesFlag = False,
    latency_percentile: LatencyPercentile = None,
    emit: Emit = Language.TRITON,
    compiled: CompileFlag = True,
    output: OutputFolder = None,
    resume: ResumeFlag = False,
    listed: ListFlag = False,
    json: JsonFlag = False,
) -> None:
    """Schedule PROGRAM on a machine: its loop (interval, length, ring bytes), and the loop over warp groups (interval,
    traffic, barriers, groups, registers, length), each level with its proof.

    With -o the plan folder holds the schedule, the emitted kernel and its binaries. Exit status 0: proven at every
    level. 3: stopped at a limit. 1: it cannot be done. 2: bad input.
    """
    started = time.perf_counter()
    if listed:
        list_families(program or program_option, as_json=json)
        return
    options = KernelOptions(
        limits=Limits(deterministic_s=limit),
        top=top,
        compiled=compiled and output is not None,
        warps=warps,
        objective=objective_levels(objective),
        language=emit.value,
        modes=modes,
        latency_percentile=latency_percentile,
        earlier=earlier_schedules(output) if resume and output is not None else {},
    )
    if program and program_option and program != program_option:
        raise InvalidValue(message=f"two programs are given: `{program}`, and `{program_option}` by --program")
    request = KernelRequest(program or program_option, machine, {}, {}, dtype, parse_switches(switches))
    try:
        plan, files = _planned(request, shape, tiles, arguments, resources, options)
    except MissingFigure as error:
        error.place = error.place or (Place(machine) if machine.endswith(".toml") else None)
        raise
    review = review_plan(plan.sealed(), None)
    spent = Spent(time.perf_counter() - started, options.spent_s, options.second_s)
    report(plan, review, spent, as_json=json)
    if output is not None:
        _write(plan, files, output)
    raise typer.Exit(_exit_code(plan, review))


def _planned(
    request: KernelRequest, shape: str, tiles: str, arguments: str, resources: Path | None, options: KernelOptions
) -> tuple[Plan, Files]:
    """Plan what a name stands for: a loop file, a program of the user's, or one of the library."""
    name = request.program
    if not name:
        raise InvalidValue(
            message="no program given", hint="`treadle kernel --list` names those of the library; or FILE.py:NAME"
        )
    if options.modes and (name.endswith(".graphml") or is_own(name)):
        raise TilesFixed(reason=f"`{name}` has one")
    given = {"--shape": shape, "--tiles": tiles, "--arguments": arguments, "--switches": request.switches}
    _refuse_idle(name, {**given, "--resources": resources, "--dtype": request.dtype != DTYPE}, options)
    if name.endswith(".graphml"):
        file = Path(name)
        return plan_loop(file, resources or resources_beside(file), options, say)
    if is_own(name):
        return plan_own(name, request.machine, parse_shape(shape), parse_arguments(arguments), options, say)
    sized = replace(request, shape=shape_for(name, shape), tile_sizes=tiles_for(name, shape, tiles))
    return plan_kernel(sized, options, say)


def _refuse_idle(name: str, given: Mapping[str, object], options: KernelOptions) -> None:
    """Refuse options that mean nothing for what `name` stands for, rather than leave them unread."""
    if name.endswith(".graphml"):
        idle = {key: given[key] for key in given if key != "--resources"}
        idle |= {"--warps": options.warps, "--top": options.top > 1, "--latency-percentile": options.latency_percentile}
        idle |= {"--objective": options.objective != OBJECTIVE}
        reason = "a bare loop states its operations, units and times itself"
    elif is_own(name):
        idle = {key: given[key] for key in ("--tiles", "--switches", "--dtype", "--resources")}
        reason = "a program of yours states its tiles and types itself: --shape and --arguments are handed to it"
    else:
        idle = {key: given[key] for key in ("--arguments", "--resources")}
        reason = "a program of the library takes --shape, --tiles, --dtype and --switches"
    if names := [key for key, value in idle.items() if value]:
        raise InvalidValue(message=f"{', '.join(names)} cannot be used with `{name}`: {reason}")


def _write(plan: Plan, files: Files, folder: Path) -> None:
    written = write_plan(folder, plan, files)
    say(f"wrote {folder} ({len(written.artifacts) + 1} files, plan {written.id})")


def _exit_code(plan: Plan, review: Review) -> ExitCode:
    if review.errors:
        return ExitCode.UNMET
    certificates = [kernel.certificate for kernel in plan.body.kernels]
    parts = [part for kernel in plan.body.kernels for part in (kernel, *kernel.siblings)]
    certificates += [part.groups.certificate for part in parts if part.groups is not None]
    proven = all(certificate.status is Status.OPTIMAL for certificate in certificates)
    return ExitCode.DONE if proven else ExitCode.LIMIT
