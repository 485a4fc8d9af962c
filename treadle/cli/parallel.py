"""`treadle parallel SPEC.toml`: how to cut a model over a cluster, and the proof; `parallel PLAN`: how it goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from treadle.cli.grouping import finish as finish_grouping
from treadle.cli.grouping import run as run_grouping
from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import level_line, number, print_json, print_table, say
from treadle.cli.replan import run as run_replan
from treadle.driver.grouping import SEQUENCES, group_batch
from treadle.driver.parallel import Options, Workers, plan_parallel, read_problem, write_parallel
from treadle.driver.replan import Happened
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import ExitCode
from treadle.ir.errors import InvalidValue
from treadle.ir.plan import Plan, to_data
from treadle.ir.training.front import front
from treadle.ir.training.plan import ParallelBody
from treadle.verification.parallel import review_decision

Spec = Annotated[Path, typer.Argument(help="Training specification, or a plan to go on with.", metavar="SPEC|PLAN")]
Top = Annotated[int, typer.Option(help="How many other plans to keep, with why each loses.", min=0, max=100)]
Pareto = Annotated[bool, typer.Option("--pareto", help="Also the front of time, memory and GPUs.")]
Jobs = Annotated[int, typer.Option(help="Local processes to search with.", min=1, max=1024, metavar="N")]
Place = Annotated[str, typer.Option("--executor", help="Search on a Dask cluster.", metavar="dask://HOST:PORT")]
Lost = Annotated[str, typer.Option(help="PLAN: nodes that are lost, from 0 in rank order.", metavar="3,17-19")]
Slow = Annotated[str, typer.Option(help="PLAN: nodes that are slow, and how many times as long.", metavar="5=1.5")]
Most = Annotated[str, typer.Option(help="PLAN: most bytes to migrate.", metavar="500GB")]
Mirrored = Annotated[bool, typer.Option("--mirrored", help="PLAN: sharded state is mirrored in the next node's host.")]
Even = Annotated[bool, typer.Option("--even", help="PLAN: equally many microbatches on all data ranks.")]
Storage = Annotated[str, typer.Option(help="PLAN: rate of the checkpoint storage per node.", metavar="1GB/s")]
Failures = Annotated[str, typer.Option(help="PLAN: time between failures of one node.", metavar="6334h")]
Restart = Annotated[str, typer.Option(help="PLAN: from failure to first step, state apart.", metavar="5min")]

Sequences = Annotated[Path | None, typer.Option(help="PLAN: lengths of a batch to group.", metavar="LENGTHS")]
Fast = Annotated[bool, typer.Option("--fast", help="PLAN: group in tens of milliseconds.")]


def command(
    spec: Spec,
    output: OutputFolder = None,
    json: JsonFlag = False,
    top: Top = 5,
    pareto: Pareto = False,
    jobs: Jobs = 1,
    executor: Place = "",
    lost: Lost = "",
    slow: Slow = "",
    most_migrated: Most = "",
    mirrored: Mirrored = False,
    even: Even = False,
    storage: Storage = "",
    node_mtbf: Failures = "",
    restart: Restart = "",
    sequences: Sequences = None,
    fast: Fast = False,
) -> None:
    """Find the fastest legal cut of a model over a cluster that fits the memory, and prove it.

    With -o the plan folder holds the plan, the trainers' files and a report. Exit status 0: proven best over all
    legal degrees. 1: nothing fits (with a smallest conflicting set). 2: bad input.

    Given a PLAN folder it says how that plan goes on: after nodes are lost or slow, which bytes move, and how often to
    save; or, with --sequences, on which context groups a batch of mixed lengths runs.
    """
    happened = Happened(lost, slow, most_migrated, mirrored, even, storage, node_mtbf, restart)
    if spec.is_dir() or spec.suffix == ".json":
        if sequences is not None:
            run_grouping(spec, sequences, fast, output, json)
        else:
            run_replan(spec, happened, output, json)
        return
    if happened.asked or sequences is not None:
        raise InvalidValue(
            message=f"`{spec}` is no plan to go on with", expected="a plan folder before --lost, --slow, --sequences"
        )
    problem = read_problem(spec)
    plan = plan_parallel(problem, Options(top, pareto), say, Workers(jobs, executor)).sealed()
    if findings := review_decision(plan):
        raise RuntimeError(f"the planner made an illegal plan: {findings[0]}")
    if output is not None:
        plan = write_parallel(output, plan)
    if json:
        print_json(to_data(plan))
    else:
        _print(plan, output)
    if problem.lengths is not None and not (json and output is None):
        document, folder = (output / "plan.json", output / SEQUENCES) if output else (None, None)
        finish_grouping(group_batch(plan.body, document, problem.lengths, fast), folder, False, quiet=json)
    if plan.certificates[0].levels[0].status is not Status.OPTIMAL and not plan.body.grouped:
        raise typer.Exit(ExitCode.LIMIT)


def _again(body: ParallelBody) -> str:
    """Return the line that says how many layers of every virtual stage run again, where they differ."""
    counts = body.layout.recomputed
    return f"  of these run again:       {' '.join(map(str, counts))}\n" if counts else ""


def _print(plan: Plan, output: Path | None) -> None:
    body: ParallelBody = plan.body
    figures = {item.name: item for item in plan.predictions}
    sys.stdout.write(
        f"{body.model.name}: {body.model.parameters / 1e9:.1f} B parameters, {body.model.layers} layers, on "
        f"{body.cluster.text}\n  {body.degrees.text()}\n"
    )
    for level in plan.certificates[0].levels:
        sys.stdout.write(f"  {level_line(level)}\n")
    sys.stdout.write(
        f"  {number(figures['step_time'].value)} s a step, {number(figures['tokens_per_gpu'].value)} tokens/s/GPU, "
        f"peak {figures['peak_memory'].value:.1f} of {figures['capacity'].value:.1f} GiB\n"
        f"  layers per virtual stage: {' '.join(map(str, body.layout.layers))}\n" + _again(body)
    )
    print_table(
        ("other plans", "step s", "peak GiB", "why it loses"),
        [
            (
                item.degrees.text(),
                f"{item.step_time_us / 1e6:.4f}",
                f"{item.peak_memory_bytes / 2**30:.1f}",
                item.reason,
            )
            for item in body.alternatives
        ],
    )
    if body.steps:
        print_table(
            ("front: GPUs", "step s", "peak GiB", "plan"),
            [
                (
                    str(item.gpus),
                    f"{item.step_time_us / 1e6:.4f}",
                    f"{item.peak_memory_bytes / 2**30:.1f}",
                    item.degrees.text(),
                )
                for item in front(body.steps)
            ],
        )
    if output is not None:
        sys.stdout.write(f"wrote {output}/plan.json, training/, report.html\n")
