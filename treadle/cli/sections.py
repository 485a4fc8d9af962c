"""`treadle sections CONFIG`: cut a model into sections under the memory and compute of a spatial machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import level_line, number, print_json, print_table
from treadle.codegen.folder import write_plan
from treadle.driver.sections import SectionsRequest, plan_sections
from treadle.ir.plan import Plan, figures, to_data
from treadle.ir.sections.graph import SectionsBody
from treadle.verification.core import review_plan

Config = Annotated[Path, typer.Argument(help="The model's config.json, or its folder.", metavar="CONFIG")]
MachineName = Annotated[str, typer.Option("--machine", help="u280, sn40l, ve2302, or a TOML file.", metavar="ID")]
Batch = Annotated[int, typer.Option("--batch", help="Prompts.", metavar="N")]
Tokens = Annotated[int, typer.Option("--tokens", help="Tokens of each prompt.", metavar="N")]
Layers = Annotated[int | None, typer.Option("--layers", help="Blocks to take; all unless given.", metavar="N")]


def command(
    config: Config,
    machine: MachineName,
    batch: Batch = 1,
    tokens: Tokens = 1024,
    layers: Layers = None,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Cut a model into sections, each run as a fused pipeline, in turn, or streamed, in the least time.

    Exit status 0: proven least. 2: bad input, or a task that fits no mode.
    """
    started = time.perf_counter()
    plan = plan_sections(config, SectionsRequest(machine, batch, tokens, layers))
    plan = write_plan(output, plan, {}) if output is not None else plan.sealed()
    solved_s = time.perf_counter() - started
    review = review_plan(plan, output)
    if json:
        print_json(to_data(plan))
    else:
        _print(plan)
        sys.stdout.write(
            f"  solved in {solved_s:.1f} s; {review.rederived} claims re-derived, {len(review.findings)} findings\n"
        )
    if review.errors:
        raise RuntimeError(f"the planner made an illegal plan: {review.findings[0]}")


def _print(plan: Plan) -> None:
    body: SectionsBody = plan.body
    predicted = {name: item.value for name, item in figures(plan).items()}
    sys.stdout.write(f"{body.graph.name}, {len(body.graph.tasks)} tasks on {body.machine.name}\n")
    for level in plan.certificates[0].levels:
        sys.stdout.write(f"  {level_line(level)}\n")
    rows = [("this cut", number(predicted["time"] / 1000), "")]
    for name, words in (("in_turn", "in turn, all through memory"), ("dataflow", "one fixed pipeline a layer")):
        time_ns = predicted.get(f"{name}_time")
        shown = "does not fit on chip" if time_ns is None else number(time_ns / 1000)
        rows.append((words, shown, "" if time_ns is None else f"{predicted[f'gain_over_{name}']:.2f}x"))
    print_table(("", "us", "gain"), rows)
    print_table(("tasks", "mode", "left on chip"), [*_sections(body)][:SHOWN])
    if len(body.sections) > SHOWN:
        sys.stdout.write(f"  and {len(body.sections) - SHOWN} more sections (--json)\n")


SHOWN = 24
"""Sections printed."""


def _sections(body: SectionsBody) -> list[tuple[str, str, str]]:
    tasks = body.graph.tasks
    return [
        (
            tasks[section.first].name
            + (f" .. {tasks[section.end - 1].name}" if section.end > section.first + 1 else ""),
            section.mode.value,
            ", ".join(section.held) or "-",
        )
        for section in body.sections
    ]
