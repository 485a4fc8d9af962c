"""`treadle pack CLUSTER.json`: which pods fit where, what must move for it, and in which order."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import level_line, print_json, say
from treadle.driver.executors import opened, starts
from treadle.driver.pack import (
    Job,
    add_offers,
    added_nodes,
    compare,
    plan_packing,
    plan_reassignment,
    read_dump,
    read_live,
    read_openb,
    write_packing,
    write_reassignment,
)
from treadle.ir.certificate import Status
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.objective import Objective, Order, Tail
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode
from treadle.ir.plan import Plan, to_data
from treadle.ir.units import parse_quantity
from treadle.solvers.packing.solve import Options
from treadle.solvers.reassignment import solve as reassignment
from treadle.verification.core import review_plan

Dump = Annotated[
    list[Path] | None,
    typer.Argument(help="`kubectl get nodes,pods,... -A -o json`, in one file or several.", metavar="CLUSTER.json..."),
]
Openb = Annotated[
    tuple[Path, Path] | None, typer.Option("--openb", help="Node and pod lists.", metavar="NODES.csv PODS.csv")
]
Roadef = Annotated[
    tuple[Path, Path] | None, typer.Option("--roadef", help="Machine reassignment.", metavar="MODEL.txt ASSIGNMENT.txt")
]
OrderOption = Annotated[Order, typer.Option("--order", help="Place everything first, or tier by tier as published.")]
TailOption = Annotated[Tail, typer.Option("--then", help="What counts last.")]
Window = Annotated[
    str | None, typer.Option(help="Stop after so much wall-clock time (`10s`); else a deterministic limit.")
]
Limit = Annotated[float, typer.Option("--deterministic-seconds", help="Deterministic search limit.", min=0.0)]
Workers = Annotated[int, typer.Option(help="Solver threads; more than one is not repeatable.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the search.", min=0)]
Offer = Annotated[Path | None, typer.Option("--offer", help="Node types that may be added, with prices (JSON).")]
Live = Annotated[bool, typer.Option("--live", help="Read the cluster of the kubeconfig (extra `live`).")]
Context = Annotated[str | None, typer.Option(help="With --live: the kubeconfig's context.", metavar="NAME")]
Jobs = Annotated[int, typer.Option(help="Search from so many seeds, in local processes.", min=1, max=1024, metavar="N")]
Place = Annotated[str, typer.Option("--executor", help="Search on a Dask cluster.", metavar="dask://HOST:PORT")]
Compare = Annotated[bool, typer.Option("--compare", help="Also say what the default scheduler would do.")]


_MOST_OUTAGES = 10


def command(
    cluster: Dump = None,
    openb: Openb = None,
    roadef: Roadef = None,
    output: OutputFolder = None,
    json: JsonFlag = False,
    order: OrderOption = Order.PLACE_FIRST,
    then: TailOption = Tail.NOTHING,
    window: Window = None,
    deterministic_seconds: Limit = 20.0,
    workers: Workers = 1,
    seed: Seed = 0,
    compare_default: Compare = False,
    offer: Offer = None,
    live: Live = False,
    context: Context = None,
    jobs: Jobs = 1,
    executor: Place = "",
) -> None:
    """Place pods as well as can be, say how far from the best that is, and order the steps to get there.

    Exit status 0: proven best. 3: stopped at a limit, with a plan and a gap. 2: bad input. 1: no legal order of steps.
    """
    if sum(bool(source) for source in (cluster, openb, roadef)) + live != 1:
        raise typer.BadParameter("give one of CLUSTER.json, --live, --openb or --roadef")
    window_s = float(parse_quantity(window, "time")) if window else None
    where = (jobs, executor)
    if roadef is not None:
        _reassign(roadef, reassignment.Options(window_s=window_s, seed=seed), where, output, json)
        return
    job = read_live(context, say) if live else read_openb(*openb) if openb else read_dump(*(cluster or ()))
    for remark in job.cluster.remarks:
        say(f"note: {remark}")
    if offer is not None:
        job, then = add_offers(job, offer), Tail.COST if then is Tail.NOTHING else then
    options = Options(Objective(order, then), deterministic_seconds, window_s, workers, seed)
    with opened(*where) as (pool, parts):
        plan = plan_packing(job, replace(options, starts=starts(parts)), say, pool).sealed()
    _require_clean(plan)
    if output is not None:
        plan = write_packing(output, plan)
    baseline = compare(job.cluster, plan.body.placement, seed) if compare_default else {}
    if json:
        print_json({**to_data(plan), **({"comparison": baseline} if baseline else {})})
    else:
        _print(job, plan, baseline, output)
    if plan.certificates[0].status is not Status.OPTIMAL:
        raise typer.Exit(ExitCode.LIMIT)


def _reassign(
    files: tuple[Path, Path], options: reassignment.Options, where: tuple[int, str], output: Path | None, as_json: bool
) -> None:
    with opened(*where) as (pool, parts):
        plan = plan_reassignment(*files, replace(options, starts=starts(parts)), pool).sealed()
    _require_clean(plan)
    if output is not None:
        plan = write_reassignment(output, plan)
    if as_json:
        print_json(to_data(plan))
    else:
        typer.echo(level_line(plan.certificates[0].levels[0]))
        if output is not None:
            typer.echo(f"wrote {output}/plan.json, assignment.txt")
    if plan.certificates[0].status is not Status.OPTIMAL:
        raise typer.Exit(ExitCode.LIMIT)


def _require_clean(plan: Plan) -> None:
    """A plan with findings is a defect of the solver; it never leaves the house."""
    review = review_plan(plan, None)
    if review.errors:
        raise RuntimeError(f"the packer made an illegal plan: {review.findings[0]}")


def _print(job: Job, plan: Plan, baseline: dict[str, Any], output: Path | None) -> None:
    body: PackingBody = plan.body
    out = sys.stdout
    pods, placed = len(job.cluster.pods), sum(node != PENDING for node in body.placement.nodes)
    running = sum(pod.node != PENDING for pod in job.cluster.pods)
    out.write(f"{len(job.cluster.nodes)} nodes, {pods} pods: {running} run now, {placed} run in the plan\n")
    for level in plan.certificates[0].levels:
        out.write(f"  {level_line(level)}\n")
    for name, count in sorted(added_nodes(body).items()):
        out.write(f"  add {count} x {name}\n")
    steps = body.migration
    out.write(
        f"  {len(steps.waves)} waves (at least {steps.wave_bound}), {steps.temporary_moves} temporary moves, "
        f"{len(steps.outages)} outages (together at least {steps.detour_bound})\n"
    )
    for pod in steps.outages[:_MOST_OUTAGES]:
        out.write(f"  outage  {job.cluster.pods[pod].name}, priority {job.cluster.priority(pod)}\n")
    if len(steps.outages) > _MOST_OUTAGES:
        out.write(f"  and {len(steps.outages) - _MOST_OUTAGES} more; price of all outages {steps.outage_price}\n")
    for name, value in baseline.items():
        out.write(f"  {name.replace('_', ' '):<22}{encode(value):>12}\n")
    if output is not None:
        out.write(f"wrote {output}/plan.json, deploy/, report.html\n")
