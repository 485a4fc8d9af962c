"""The line of `treadle parallel`: spec -> search -> plan -> files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from treadle.codegen.folder import write_plan
from treadle.codegen.training.files import files
from treadle.codegen.training.report import report
from treadle.costmodels.training_breakdown import figures_of
from treadle.costmodels.training_replay import Replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.driver.executors import opened
from treadle.driver.versions import versions
from treadle.frontends.training import TrainingProblem, load_training
from treadle.ir.codec import encode
from treadle.ir.plan import Plan, Prediction, input_from
from treadle.ir.training.plan import ParallelBody
from treadle.solvers.parallel.explain import explain
from treadle.solvers.parallel.front import front_steps
from treadle.solvers.parallel.grouped import grouped_alternatives, grouped_plans
from treadle.solvers.parallel.solve import alternatives, certificate, search


@dataclass(frozen=True, slots=True)
class Options:
    """How a plan is searched: how many alternatives are timed and kept."""

    top: int = 5
    pareto: bool = False
    """Also the front of time, memory and GPUs."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Where the search runs: local processes, or the address of a Dask cluster. No plan depends on it."""

    jobs: int = 1
    executor: str = ""


def read_problem(path: Path) -> TrainingProblem:
    """Read a training specification; raises the coded errors of its parts."""
    return load_training(path)


def setting_for(problem: TrainingProblem) -> Setting:
    """Resolve GPU type and links; raises UnknownTrainingGpu, UnsupportedPrecision."""
    return setting_of(problem.model, problem.cluster, problem.spec)


def plan_parallel(
    problem: TrainingProblem,
    options: Options,
    progress: Callable[[str], None] | None = None,
    workers: Workers | None = None,
) -> Plan:
    """Return the best plan, not sealed yet; raises NoPlanFits with a smallest conflicting set."""
    setting, workers = setting_for(problem), workers or Workers()
    with opened(workers.jobs, workers.executor) as (executor, parts):
        state = search(setting, options.top + 1, progress, executor, parts)
        steps = front_steps(setting, progress, executor) if options.pareto and state.found else ()
    if not state.found:
        raise explain(setting, state.most_tokens)
    best, others = state.best, alternatives(state, options.top)
    grouped = grouped_plans(setting, state, options.top + 1) if problem.spec.lengths else []
    if grouped:
        best, others = grouped[0].found, grouped_alternatives(grouped)
    body = ParallelBody(
        problem.model,
        problem.cluster,
        problem.spec,
        best.degrees,
        best.layout,
        best.replay.stages,
        others,
        steps,
        tuple(item.plan for item in grouped),
    )
    return Plan(
        "parallel",
        tuple(input_from(role, path) for role, path in problem.files),
        encode(options),
        versions(),
        body,
        (certificate(state, best, grouped[0].plan.step_time_us if grouped else None),),
        predictions(setting, body, best.replay),
    )


def predictions(setting: Setting, body: ParallelBody, played: Replay) -> tuple[Prediction, ...]:
    """Return the figures people ask for."""
    return tuple(Prediction(name, *value) for name, value in figures_of(setting, body, played).items())


def write_parallel(folder: Path, plan: Plan) -> Plan:
    """Write the plan folder: plan, trainer files, report."""
    return write_plan(folder, plan, {**files(plan.body), "report.html": report(plan.body, plan.certificates[0])})
