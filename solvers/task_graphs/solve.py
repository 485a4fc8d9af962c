"""HEFT (upward ranks, earliest finish with insertion) as baseline, then optional intervals in CP-SAT."""

from __future__ import annotations

from dataclasses import dataclass

from ortools.sat.python import cp_model

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.task_graphs import Run, TaskGraph, makespan, path_bound
from treadle.solvers.backend import Limits, solve


@dataclass(frozen=True, slots=True)
class ScheduledTasks:
    """The schedule, HEFT's makespan beside it, and how good the schedule is."""

    runs: tuple[Run, ...]
    heft_makespan: int
    certificate: Certificate


def schedule_tasks(graph: TaskGraph, deterministic_s: float = 10.0, seed: int = 0) -> ScheduledTasks:
    """Return a schedule that is never longer than HEFT's."""
    runs = heft(graph)
    baseline, floor = makespan(graph, runs), path_bound(graph)
    bound, proof, evidence = floor, ProofKind.RECURRENCE, dict[str, object]()
    if baseline > floor:
        model, variables = _model(graph, floor, baseline)
        hint = [(pair[task], value) for pair in variables[:1] for task, value in enumerate(r.start for r in runs)]
        hint += [
            (flag, int(runs[task].processor == processor))
            for task, flags in enumerate(variables[1])
            for processor, flag in enumerate(flags)
        ]
        outcome = solve(model, Limits(deterministic_s, seed=seed), hint=hint)
        if outcome.solved:
            starts, flags = variables
            found = tuple(
                Run(next(p for p, flag in enumerate(flags[task]) if outcome[flag]), outcome[start])
                for task, start in enumerate(starts)
            )
            runs = found if makespan(graph, found) < baseline else runs
        if outcome.bound is not None and round(outcome.bound) > floor:
            bound, proof, evidence = round(outcome.bound), ProofKind.SOLVER, outcome.report.evidence()
    value = makespan(graph, runs)
    status = Status.OPTIMAL if value == bound else Status.FEASIBLE
    level = Level("makespan", "time units", value, bound, status, proof, evidence)
    return ScheduledTasks(runs, baseline, Certificate("task-graph", "heft-model/1", (level,)))


def heft(graph: TaskGraph) -> tuple[Run, ...]:
    """Return the schedule of Topcuoglu et al. (2002): highest upward rank first, earliest finish, gaps are filled."""
    processors = len(graph.times[0]) if graph.times else 0
    rank = [0] * len(graph.times)  # times the number of processors: whole, so that ties are ties
    for task in reversed(graph.order):
        after = (one.time * processors + rank[one.target] for one in graph.transfers if one.source == task)
        rank[task] = sum(graph.times[task]) + max(after, default=0)
    place = {task: position for position, task in enumerate(graph.order)}
    runs: dict[int, Run] = {}
    busy: list[list[tuple[int, int]]] = [[] for _ in range(processors)]
    for task in sorted(range(len(rank)), key=lambda task: (-rank[task], place[task])):
        choices = [_earliest(graph, task, processor, runs, busy[processor]) for processor in range(processors)]
        end, start, processor = min((start + graph.times[task][p], start, p) for p, start in enumerate(choices))
        runs[task] = Run(processor, start)
        if end > start:
            busy[processor] = sorted([*busy[processor], (start, end)])
    return tuple(runs[task] for task in range(len(rank)))


def _earliest(graph: TaskGraph, task: int, processor: int, runs: dict[int, Run], busy: list[tuple[int, int]]) -> int:
    ready = 0
    for one in graph.transfers:
        if one.target == task:
            run = runs[one.source]
            ready = max(
                ready, run.start + graph.times[one.source][run.processor] + one.time * (run.processor != processor)
            )
    need = graph.times[task][processor]
    for start, end in busy:
        if ready + need <= start:
            break
        ready = max(ready, end)
    return ready


def _model(
    graph: TaskGraph, floor: int, horizon: int
) -> tuple[cp_model.CpModel, tuple[list[cp_model.IntVar], list[list[cp_model.IntVar]]]]:
    model = cp_model.CpModel()
    tasks = range(len(graph.times))
    starts = [model.new_int_var(0, horizon, "") for _ in tasks]
    ends = [model.new_int_var(0, horizon, "") for _ in tasks]
    flags = [[model.new_bool_var("") for _ in graph.times[task]] for task in tasks]
    queues: list[list[cp_model.IntervalVar]] = [[] for _ in graph.times[0]]
    for task in tasks:
        model.add_exactly_one(flags[task])
        model.add(ends[task] == starts[task] + cp_model.LinearExpr.weighted_sum(flags[task], graph.times[task]))
        for processor, flag in enumerate(flags[task]):
            size = graph.times[task][processor]
            if size:
                queues[processor].append(model.new_optional_fixed_size_interval_var(starts[task], size, flag, ""))
    for queue in queues:
        model.add_no_overlap(queue)
    for one in graph.transfers:
        model.add(starts[one.target] >= ends[one.source])
        if one.time:
            for here, there in zip(flags[one.source], flags[one.target], strict=True):
                model.add(starts[one.target] >= ends[one.source] + one.time).only_enforce_if(here, ~there)
    last = model.new_int_var(floor, horizon, "")
    model.add_max_equality(last, ends)
    model.minimize(last)
    return model, (starts, flags)
