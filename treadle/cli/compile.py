"""`treadle compile`: a deployment specification to a plan folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treadle.cli.options import JsonFlag, ResumeFlag
from treadle.cli.output import console, number, print_json, print_table, say
from treadle.driver.bundle import SERVING
from treadle.driver.compile import BundleOptions, Compiled, compile_deployment
from treadle.driver.kernels import KernelOptions
from treadle.driver.resume import earlier_schedules
from treadle.ir.certificate import Status
from treadle.ir.codec import encode
from treadle.ir.deployment import DeploymentBody
from treadle.ir.diagnostics import ExitCode
from treadle.ir.plan import Plan
from treadle.solvers.backend import Limits


def command(
    specification: Annotated[Path, typer.Argument(help="deployment.toml", metavar="SPECIFICATION")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Plan folder to write.", metavar="FOLDER")],
    limit: Annotated[float, typer.Option(min=0.001, help="Deterministic seconds per question to the solver.")] = 1.0,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile kernels to binaries.")] = True,
    serving: Annotated[bool, typer.Option("--serving/--no-serving", help="Plan engine pools and pack pods.")] = True,
    roofline: Annotated[bool, typer.Option("--roofline", help="Accept estimated step times.")] = False,
    resume: ResumeFlag = False,
    json: JsonFlag = False,
) -> None:
    """Compile SPECIFICATION: kernels for its hot loops, engine pools, pods packed onto the nodes, one checked bundle.

    Exit status 0: every kernel proven, the serving plan proven and replayed within its levels, nothing found. 1: a hot
    loop has no kernel, the levels cannot be met, or verification found something. 2: bad input. 3: stopped at a limit,
    or the replay misses a level.
    """
    earlier = earlier_schedules(output) if resume else {}
    options = KernelOptions(limits=Limits(deterministic_s=limit), compiled=compiled, earlier=earlier)
    done = compile_deployment(specification, output, options, _say_phase, BundleOptions(serving, roofline))
    body: DeploymentBody = done.plan.body
    if json:
        print_json(_data(done, output))
    else:
        _print(done, body, output)
    raise typer.Exit(_exit_code(done, body))


def _say_phase(phase: str, result: str, seconds: float) -> None:
    say(f"{phase:<10} {result}  {seconds:.1f} s")


def _print(done: Compiled, body: DeploymentBody, folder: Path) -> None:
    header = (
        "kernel",
        "calls",
        "interval",
        "bound by",
        "length",
        "predicted us",
        "TFLOP/s",
        "of roofline",
        "registers",
    )
    rows: list[tuple[str, ...]] = []
    for kernel in body.kernels:
        interval = kernel.certificate["ii"]
        rows.append(
            (
                kernel.name,
                str(kernel.calls),
                f"{number(interval.value)} {interval.status.value}",
                str(interval.evidence.get("unit", interval.proof.value)),
                number(kernel.schedule.length_cycles),
                number(kernel.prediction("time").value),
                number(kernel.prediction("throughput").value),
                f"{kernel.prediction('roofline_share').value:.0%}",
                "/".join(str(binary.registers) for binary in kernel.compiled) or "-",
            )
        )
    print_table(header, rows)
    out = console()
    for name, reason in body.refused.items():
        out.print(f"no kernel for {name}: {reason}", markup=False)
    for finding in done.review.findings:
        out.print(str(finding), markup=False)
    apply = f"   Apply it: kubectl apply -k {folder}/deploy" if SERVING in done.parts else ""
    out.print(
        f"\n{folder} written. Open it: treadle show {folder}   Check it: treadle verify {folder}{apply}", markup=False
    )


def _data(done: Compiled, folder: Path) -> dict[str, object]:
    body: DeploymentBody = done.plan.body
    return {
        "plan": done.plan.id,
        "folder": str(folder),
        "model": {
            "name": body.model.name,
            "parameters": body.model.parameters(),
            "weight_bytes": body.model.stored_bytes(),
        },
        "kernels": [
            {
                "name": kernel.name,
                "ii_cycles": kernel.schedule.ii_cycles,
                "status": kernel.certificate.status.value,
                "proofs": {level.name: level.proof.value for level in kernel.certificate.levels},
                "predictions": encode(kernel.predictions),
                "compiled": encode(kernel.compiled),
            }
            for kernel in body.kernels
        ],
        "parts": {name: _part(plan) for name, plan in done.parts.items()},
        "refused": body.refused,
        "rederived": done.review.rederived,
        "on_solver_word": done.review.on_solver_word,
        "findings": encode(done.review.findings),
        "seconds": {phase: round(seconds, 3) for phase, seconds in done.seconds.items()},
    }


def _part(plan: Plan) -> dict[str, object]:
    """Return a part's figures."""
    return {
        "plan": plan.id,
        "kind": plan.kind,
        "levels": [{**encode(level), "gap": level.gap} for one in plan.certificates for level in one.levels],
        "predictions": encode(plan.predictions),
    }


def _exit_code(done: Compiled, body: DeploymentBody) -> ExitCode:
    if done.review.errors or body.refused:
        return ExitCode.UNMET
    proven = all(kernel.certificate.status is Status.OPTIMAL for kernel in body.kernels)
    for plan in done.parts.values():
        proven &= all(one.status is Status.OPTIMAL for one in plan.certificates)
    return ExitCode.DONE if proven and _replayed(done) else ExitCode.LIMIT


def _replayed(done: Compiled) -> bool:
    """Whether the replay of the serving part meets its levels; true without one."""
    plan = done.parts.get(SERVING)
    return plan is None or plan.body.replay is None or bool(plan.body.replay.met)
