"""The line of a sequence grouping: a parallel plan and a batch's lengths -> groups of every round."""

from __future__ import annotations

from pathlib import Path

from treadle.codegen.folder import write_plan
from treadle.codegen.training.grouping_files import grouping_report, groups_text
from treadle.costmodels.training_group_costs import grouping_problem
from treadle.costmodels.training_grouping import grouping_predictions
from treadle.costmodels.training_setting import setting_of
from treadle.driver.versions import versions
from treadle.frontends.sequence_lengths import read_lengths
from treadle.ir.plan import Plan, input_from, load
from treadle.ir.training.elastic import NotElastic
from treadle.ir.training.plan import ParallelBody
from treadle.solvers.sequence_groups.solve import certificate, quick, solve

SEQUENCES = "sequences"
"""Folder inside a plan's that holds the grouping of the batch its specification names."""


def plan_grouping(path: Path, lengths: Path, fast: bool) -> Plan:
    """Return the grouping of a batch, not sealed yet; raises NotElastic, NotLengths, SequenceTooLong."""
    plan = load(path)
    if plan.kind != "parallel":
        raise NotElastic(reason=f"`{path}` holds a plan of kind `{plan.kind}`", expected="a plan of kind `parallel`")
    return group_batch(plan.body, path / "plan.json" if path.is_dir() else path, lengths, fast)


def group_batch(parallel: ParallelBody, document: Path | None, lengths: Path, fast: bool) -> Plan:
    """Return the grouping of a batch on a plan, which stands in `document` when it was written."""
    setting = setting_of(parallel.model, parallel.cluster, parallel.spec)
    problem = grouping_problem(setting, parallel.degrees, parallel.layout, parallel.stages, read_lengths(lengths))
    body = quick(problem) if fast else solve(problem)
    inputs = (*((input_from("plan", document),) if document else ()), input_from("lengths", lengths))
    options = {"fast": fast}
    return Plan("sequence-groups", inputs, options, versions(), body, (certificate(body),), grouping_predictions(body))


def write_grouping(folder: Path, plan: Plan) -> Plan:
    """Write the plan folder: plan, groups, report."""
    files = {"training/groups.csv": groups_text(plan.body).encode(), "report.html": grouping_report(plan)}
    return write_plan(folder, plan, files)
