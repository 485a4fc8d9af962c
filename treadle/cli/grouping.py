"""`treadle parallel PLAN --sequences LENGTHS`: which context groups a batch of mixed lengths runs on."""

from __future__ import annotations

import sys
from pathlib import Path

from treadle.cli.output import level_line, number, print_json, print_table
from treadle.costmodels.training_grouping import rounds_us
from treadle.driver.grouping import plan_grouping, write_grouping
from treadle.ir.plan import Plan, to_data
from treadle.ir.training.grouping import GroupingBody
from treadle.verification.grouping import review_grouping

_MOST_ROWS = 16


def run(path: Path, lengths: Path, fast: bool, output: Path | None, json: bool) -> None:
    """Group, check, print, and write when a folder is given."""
    finish(plan_grouping(path, lengths, fast), output, json)


def finish(plan: Plan, output: Path | None, json: bool, *, quiet: bool = False) -> None:
    """Check, print, and write when a folder is given."""
    plan = plan.sealed()
    if findings := review_grouping(plan):
        raise RuntimeError(f"an illegal grouping was made: {findings[0]}")
    if output is not None:
        plan = write_grouping(output, plan)
    if json:
        print_json(to_data(plan))
    elif not quiet:
        _print(plan, output)


def _print(plan: Plan, output: Path | None) -> None:
    body: GroupingBody = plan.body
    problem, figures = body.problem, {item.name: item.value for item in plan.predictions}
    sys.stdout.write(
        f"{len(problem.lengths)} sequences, {sum(problem.lengths):,} tokens (longest {max(problem.lengths):,}) on "
        f"{problem.ranks} ranks of {problem.tokens_per_rank:,} tokens\n"
    )
    for level in plan.certificates[0].levels:
        sys.stdout.write(f"  {level_line(level)}\n")
    saved = figures["one_group_size"] / figures["batch_time"]
    sys.stdout.write(
        f"  {number(figures['batch_time'])} s a batch, {saved:.2f} times as fast as groups of one size "
        f"({number(figures['one_group_size'])} s); ranks busy {figures['ranks_busy']:.1%}\n"
    )
    rows = [
        (str(place), " ".join(f"{group.size}" for group in groups), f"{us / 1e3:.1f}")
        for place, (groups, us) in enumerate(zip(body.rounds, rounds_us(body), strict=True))
    ]
    print_table(("round", "group sizes", "ms"), rows[:_MOST_ROWS])
    if output is not None:
        sys.stdout.write(f"wrote {output}/plan.json, training/groups.csv, report.html\n")
