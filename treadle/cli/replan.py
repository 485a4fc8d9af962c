"""`treadle parallel PLAN --lost ...`: how a running plan goes on, what moves, and how often to save."""

from __future__ import annotations

import sys
from pathlib import Path

from treadle.cli.output import level_line, number, print_json, print_table
from treadle.codegen.training.replan_report import happened as in_words
from treadle.driver.replan import Happened, replan_from, write_replan
from treadle.ir.plan import Plan, to_data
from treadle.ir.training.elastic import Recovery, ReplanBody
from treadle.verification.replan import review_replan

_MOST_ROWS = 8


def run(path: Path, happened: Happened, output: Path | None, json: bool) -> None:
    """Re-plan, check, print, and write when a folder is given."""
    plan = replan_from(path, happened).sealed()
    if findings := review_replan(plan):
        raise RuntimeError(f"the re-planner made an illegal plan: {findings[0]}")
    if output is not None:
        plan = write_replan(output, plan)
    if json:
        print_json(to_data(plan))
    else:
        _print(plan, output)


def _print(plan: Plan, output: Path | None) -> None:
    body: ReplanBody = plan.body
    figures = {item.name: item.value for item in plan.predictions}
    counts = sorted(set(body.counts))
    said = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sys.stdout.write(
        f"{body.before.model.name}: {in_words(body)}\n  before: {body.before.degrees.text()}\n"
        f"  now:    {body.degrees.text()}, {said} microbatches a data rank\n"
    )
    for level in plan.certificates[0].levels:
        sys.stdout.write(f"  {level_line(level)}\n")
    source = "ranks that still run" if body.recovery is Recovery.LIVE else "the last checkpoint"
    sys.stdout.write(
        f"  {number(figures['step_time'])} s a step, was {number(figures['step_time_before'])} s\n"
        f"  {len(body.transfers):,} transfers, {figures['migrated']:,.1f} GB from {source}, "
        f"{number(figures['transfer_time'])} s; {number(figures['lost_time'])} s lost in all\n"
        f"  a checkpoint every {body.checkpoints.steps:,} steps ({figures['checkpoint_every']:,.0f} s): "
        f"{body.checkpoints.wasted:.2%} of the time brings no progress\n"
    )
    largest = sorted(body.transfers, key=lambda item: -item.lane_bytes)[:_MOST_ROWS]
    print_table(
        ("largest transfers", "to rank", "pieces", "GB a lane"),
        [
            (
                f"{'checkpoint' if item.source < 0 else f'rank {item.source}'}: {item.part.value}",
                str(item.target),
                f"{item.first}-{item.after - 1}",
                f"{item.lane_bytes / 1e9:.3f}",
            )
            for item in largest
        ],
    )
    if output is not None:
        sys.stdout.write(f"wrote {output}/plan.json, training/transfers.csv, report.html\n")
