"""`treadle kernel`: schedule one tile program, or one loop file, and emit the kernel."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from treadle.cli.options import JsonFlag, OutputFolder, ResumeFlag
from treadle.cli.output import console, level_line, number, print_json, say
from treadle.codegen.folder import write_plan
from treadle.codegen.group_timeline import group_names
from treadle.driver.artifacts import Files
from treadle.driver.kernel import KernelRequest, plan_kernel, plan_loop
from treadle.driver.kernels import KernelOptions, objective_levels
from treadle.driver.own_program import plan_own
from treadle.driver.resume import earlier_schedules
from treadle.driver.shapes import parse_arguments, parse_shape, parse_switches, shape_for, tiles_for
from treadle.frontends.hls import resources_beside
from treadle.frontends.own_program import is_own
from treadle.ir.certificate import Certificate, Status
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode
from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelPlan, WarpPlan
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warp_claims import value_of
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import OBJECTIVE
from treadle.verification.core import Review, review_plan


class Language(Enum):
    """What kernels are written in."""

    TRITON = "triton"
    GLUON = "gluon"


def command(
    program: Annotated[
        str,
        typer.Argument(help="Program family, FILE.py:NAME, FILE.ttir, or a loop file (.graphml).", metavar="PROGRAM"),
    ] = "",
    program_option: Annotated[str, typer.Option("--program", help="The same, as an option.", metavar="NAME")] = "",
    machine: Annotated[str, typer.Option(help="Machine id or machine file.", metavar="ID")] = "h200",
    shape: Annotated[str, typer.Option(help='Extents, such as "batch=4 heads=32 seq=16k".')] = "",
    tiles: Annotated[str, typer.Option(help='Tile sizes, such as "block_m=128"; all candidates unless given.')] = "",
    dtype: Annotated[str, typer.Option(help="Element type of the operands.")] = "bfloat16",
    switches: Annotated[
        str, typer.Option(help='Switches of the family, such as "scales=block" or "lse=true".', metavar="SWITCHES")
    ] = "",
    arguments: Annotated[
        str, typer.Option(help='Types and constants of a Triton kernel, such as "a=*fp16 m=i32 BLOCK=128".')
    ] = "",
    resources: Annotated[Path | None, typer.Option(help="Resource model of a loop file.", metavar="FILE")] = None,
    top: Annotated[int, typer.Option(min=1, help="Keep the N best: tile sizes, then other schedules of the best.")] = 1,
    limit: Annotated[float, typer.Option(min=0.001, help="Deterministic seconds per question to the solver.")] = 1.0,
    warps: Annotated[
        bool | None,
        typer.Option("--warps/--no-warps", help="Schedule over warp groups (default: if products are asynchronous)."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="Levels after the interval in their order.", metavar="LEVELS")
    ] = ",".join(OBJECTIVE),
    emit: Annotated[
        Language, typer.Option(help="Write kernels in portable triton, or in gluon, one warp group after the other.")
    ] = Language.TRITON,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile to binaries.")] = True,
    output: OutputFolder = None,
    resume: ResumeFlag = False,
    json: JsonFlag = False,
) -> None:
    """Schedule PROGRAM on a machine: its loop (interval, length, ring bytes), and the loop over warp groups (interval,
    traffic, barriers, groups, registers, length), each level with its proof.

    With -o the plan folder holds the schedule, the emitted kernel and its binaries. Exit status 0: proven at every
    level. 3: stopped at a limit. 1: it cannot be done. 2: bad input.
    """
    name = program or program_option
    if not name:
        raise InvalidValue(message="no program given", hint="such as `treadle kernel attention_fwd --machine h200`")
    started = time.perf_counter()
    earlier = earlier_schedules(output) if resume and output is not None else {}
    wanted = compiled and output is not None
    options = KernelOptions(
        limits=Limits(deterministic_s=limit),
        top=top,
        compiled=wanted,
        warps=warps,
        objective=objective_levels(objective),
        language=emit.value,
        earlier=earlier,
    )
    if name.endswith(".graphml"):
        file = Path(name)
        plan, files = plan_loop(file, resources or resources_beside(file), options, _tell)
    elif is_own(name):
        plan, files = plan_own(name, machine, parse_shape(shape), parse_arguments(arguments), options, _tell)
    else:
        request = KernelRequest(
            name, machine, shape_for(name, shape), tiles_for(name, shape, tiles), dtype, parse_switches(switches)
        )
        plan, files = plan_kernel(request, options, _tell)
    solved = time.perf_counter() - started
    review = review_plan(plan.sealed(), None)
    _report(plan, review, solved, options.spent_s, json)
    if output is not None:
        _write(plan, files, output)
    raise typer.Exit(_exit_code(plan, review))


def _tell(line: str) -> None:
    say(line)


def _report(plan: Plan, review: Review, seconds: float, spent_s: dict[str, float], as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "plan": plan.id or plan.expected_id(),
                "kernels": [_kernel_data(kernel) for kernel in plan.body.kernels],
                **_kernel_data(plan.body.kernels[0]),
                "seconds": round(seconds, 4),
                "solve_seconds": {name: round(spent, 4) for name, spent in spent_s.items()},
                "findings": encode(review.findings),
            }
        )
        return
    for kernel in plan.body.kernels:
        _print_kernel(kernel, plan.body.machine)
    over = f", warp groups in {sum(spent_s.values()):.2f} s" if spent_s else ""
    console().print(f"solved in {seconds:.2f} s{over}; {review.rederived} claims re-derived, {review.verdict}")
    for finding in review.findings:
        console().print(str(finding), markup=False)


def _kernel_data(kernel: KernelPlan) -> dict[str, object]:
    """With warp groups the figures are those of the loop over them; those of the loop alone are under `loop`."""
    alone = _schedule_data(kernel.schedule, kernel.certificate)
    groups: dict[str, object] = {}
    if kernel.groups is not None:
        made = kernel.groups.schedule
        groups = {
            **_schedule_data(made.schedule, kernel.groups.certificate),
            "groups": made.groups,
            "group_names": list(group_names(kernel.groups)),
            "registers": list(made.registers),
            "loop": alone,
        }
    return {
        "name": kernel.name,
        **(groups or alone),
        "without_groups_because": kernel.groupless,
        "predictions": encode(kernel.predictions),
        "tile_sizes": kernel.program.tile_sizes if kernel.program else None,
    }


def _schedule_data(schedule: Schedule, certificate: Certificate) -> dict[str, object]:
    return {
        "ii_cycles": schedule.ii_cycles,
        "length_cycles": schedule.length_cycles,
        "status": certificate.status.value,
        "levels": [{**encode(level), "gap": level.gap} for level in certificate.levels],
        "ring_depths": schedule.ring_depths,
        "start_cycles": schedule.start_cycles,
    }


def _print_kernel(kernel: KernelPlan, machine: Machine | None) -> None:
    out = console()
    sizes = " ".join(f"{key}={value}" for key, value in kernel.program.tile_sizes.items()) if kernel.program else ""
    out.print(f"{kernel.name}{f' on {machine.name}' if machine else ''}{f'  ({sizes})' if sizes else ''}", markup=False)
    for level in kernel.certificate.levels:
        out.print("  " + level_line(level), markup=False)
    if kernel.groups is not None:
        _print_groups(kernel.groups)
    elif kernel.groupless:
        out.print(f"  no warp groups: {kernel.groupless}", markup=False)
    if kernel.predictions:
        time_us, rate = kernel.prediction("time").value, kernel.prediction("throughput").value
        share = kernel.prediction("roofline_share").value
        work = f", {number(rate)} TFLOP/s" if rate else ""
        out.print(f"  predicted {number(time_us)} us{work}, {share:.0%} of the roofline", markup=False)
    for binary in kernel.compiled:
        out.print(
            f"  {binary.binary}: {binary.registers} registers, {binary.spill_bytes} B spilled, "
            f"{number(binary.smem_bytes)} B shared",
            markup=False,
        )


def _print_groups(plan: WarpPlan) -> None:
    out = console()
    out.print("  over warp groups", markup=False)
    for level in plan.certificate.levels:
        out.print("  " + level_line(level), markup=False)
    certified = {level.name for level in plan.certificate.levels}
    for name in (name for name in OBJECTIVE if name not in certified):
        out.print(f"  {name:<22}{number(value_of(plan.warps, plan.schedule, name)):>12}", markup=False)
    for group, name in enumerate(group_names(plan)):
        inside = [operation for operation, home in plan.schedule.groups.items() if home == group]
        out.print(f"    {name} ({plan.schedule.registers[group]} registers): {', '.join(inside)}", markup=False)


def _write(plan: Plan, files: Files, folder: Path) -> None:
    written = write_plan(folder, plan, files)
    say(f"wrote {folder} ({len(written.artifacts) + 1} files, plan {written.id})")


def _exit_code(plan: Plan, review: Review) -> ExitCode:
    if review.errors:
        return ExitCode.UNMET
    certificates = [kernel.certificate for kernel in plan.body.kernels]
    certificates += [kernel.groups.certificate for kernel in plan.body.kernels if kernel.groups is not None]
    proven = all(certificate.status is Status.OPTIMAL for certificate in certificates)
    return ExitCode.DONE if proven else ExitCode.LIMIT
