"""The one door to OR-Tools: CP-SAT models, and linear and mixed-integer models through MathOpt.

Answers leave in treadle's words (`Status`), with the raw word kept in the report. Runs are deterministic by default:
one worker, a fixed seed and a limit in deterministic time; a wall-clock limit is for people who ask for one.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol, cast

from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model
from ortools.util.python.solve_interrupter import SolveInterrupter

from treadle.ir.certificate import Status
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.solvers.interruption import requested, run_stoppable

VERSION = version("ortools")
"""Recorded with every answer: statuses and bounds are those of this version."""


class ModelRejected(TreadleError):
    """The solver refuses a model as malformed: a defect of treadle, never of the user's input."""

    code = "TRD309"
    template = "{solver} refuses the model: {reason}"
    hint = "please report this with the command and its inputs"
    exit_code = ExitCode.INTERNAL


class Indexed(Protocol):
    """A CP-SAT variable, or a literal (negated ones have a negative index)."""

    @property
    def index(self) -> int:
        """Position in the model."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop, and how to search.

    `deterministic_s` is CP-SAT's own machine-independent clock (about a second on a fast core); None is no limit.
    MathOpt solvers have no such clock: they obey `wall_s` and, for mixed-integer models, `nodes`.
    """

    deterministic_s: float | None = 10.0
    wall_s: float | None = None
    workers: int = 1
    seed: int = 0
    nodes: int | None = None


@dataclass(frozen=True, slots=True)
class SolverReport:
    """Who answered and how: raw status, limits, and the time it took (`deterministic_time` is 0 for MathOpt)."""

    solver: str
    version: str
    limits: Limits
    raw_status: str
    wall_s: float = 0.0
    deterministic_time: float = 0.0

    def evidence(self) -> dict[str, Any]:
        """Return what a certificate of kind `solver` records; times are left out, since they vary from run to run."""
        return {
            "solver": self.solver,
            "version": self.version,
            "seed": self.limits.seed,
            "workers": self.limits.workers,
            "raw_status": self.raw_status,
        }


@dataclass(frozen=True, slots=True)
class Incumbent:
    """A solution on the way: objective value and bound (None without an objective), and every variable's value."""

    value: float | None
    bound: float | None
    wall_s: float
    solution: tuple[int, ...]

    def __getitem__(self, variable: Indexed) -> int:
        return _value_of(self.solution, variable)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answer of CP-SAT. `value` and `bound` are None without an objective or without a solution."""

    status: Status
    value: float | None
    bound: float | None
    report: SolverReport
    solution: tuple[int, ...] = ()

    @property
    def solved(self) -> bool:
        """Whether there is a solution to read."""
        return self.status in (Status.OPTIMAL, Status.FEASIBLE)

    def __getitem__(self, variable: Indexed) -> int:
        """Return the value of a variable or a (negated) literal in the solution."""
        return _value_of(self.solution, variable)


_CP_STATUS = {
    "OPTIMAL": Status.OPTIMAL,
    "FEASIBLE": Status.FEASIBLE,
    "INFEASIBLE": Status.INFEASIBLE,
    "UNKNOWN": Status.UNKNOWN,
}


def solve(
    model: cp_model.CpModel,
    limits: Limits | None = None,
    *,
    hint: Iterable[tuple[cp_model.IntVar, int]] = (),
    on_incumbent: Callable[[Incumbent], bool | None] | None = None,
    tuning: Mapping[str, bool | int | float] | None = None,
) -> Outcome:
    """Solve a CP-SAT model.

    Args:
        model: with or without an objective; its hints are replaced by `hint` when that is not empty.
        limits: deterministic by default.
        hint: values to try first; wrong or partial ones cost nothing but time.
        on_incumbent: called for every better solution; returning True stops the search.
        tuning: further CP-SAT parameters by name (`linearization_level`, `symmetry_level`, ...).

    Returns: the outcome; a request to end (`interruption`) ends the search with the best solution so far, and a search
        that has not begun by then is `UNKNOWN`.

    Raises:
        ModelRejected: the model is malformed.
    """
    limits = limits or Limits()
    if requested():
        return Outcome(Status.UNKNOWN, None, None, SolverReport("CP-SAT", VERSION, limits, "NOT_STARTED"))
    pairs = list(hint)
    if pairs:
        cast(Any, model).clear_hints()  # without annotations in 9.15
        for variable, value in pairs:
            model.add_hint(variable, value)
    solver = _cp_solver(limits, tuning or {})
    watcher = _Watcher(model, on_incumbent) if on_incumbent else None
    status = _searched(model, solver, watcher)
    if status.name not in _CP_STATUS:
        raise ModelRejected(solver="CP-SAT", reason=model.validate() or status.name)
    response = solver.response_proto
    found = status.name in ("OPTIMAL", "FEASIBLE")
    counted = model.has_objective()
    return Outcome(
        status=_CP_STATUS[status.name],
        value=solver.objective_value if counted and found else None,
        bound=solver.best_objective_bound if counted and status.name != "INFEASIBLE" else None,
        report=SolverReport(
            solver="CP-SAT",
            version=VERSION,
            limits=limits,
            raw_status=status.name,
            wall_s=solver.wall_time,
            deterministic_time=response.deterministic_time,
        ),
        solution=tuple(response.solution) if found else (),
    )


def _searched(model: cp_model.CpModel, solver: cp_model.CpSolver, watcher: _Watcher | None) -> cp_model.CpSolverStatus:
    """Run the search; once more without symmetries where presolve fails on them (9.15: `raw_hash_map::at`)."""
    try:
        return run_stoppable(lambda: solver.solve(model, watcher), solver.stop_search)
    except IndexError:
        if solver.parameters.symmetry_level == 0:
            raise
        solver.parameters.symmetry_level = 0
        return run_stoppable(lambda: solver.solve(model, watcher), solver.stop_search)


def _cp_solver(limits: Limits, tuning: Mapping[str, bool | int | float]) -> cp_model.CpSolver:
    solver = cp_model.CpSolver()
    solver.parameters.catch_sigint_signal = False  # its handler (9.15) aborts the process; see interruption.py
    solver.parameters.num_workers = limits.workers
    solver.parameters.random_seed = limits.seed
    if limits.deterministic_s is not None:
        solver.parameters.max_deterministic_time = limits.deterministic_s
    if limits.wall_s is not None:
        solver.parameters.max_time_in_seconds = limits.wall_s
    for name, value in tuning.items():
        setattr(solver.parameters, name, value)
    return solver


class _Watcher(cp_model.CpSolverSolutionCallback):
    def __init__(self, model: cp_model.CpModel, told: Callable[[Incumbent], bool | None]) -> None:
        super().__init__()
        self._counted = model.has_objective()
        self._told = told

    def on_solution_callback(self) -> None:
        incumbent = Incumbent(
            value=self.objective_value if self._counted else None,
            bound=self.best_objective_bound if self._counted else None,
            wall_s=self.wall_time,
            solution=tuple(self.response_proto.solution),
        )
        if self._told(incumbent):
            self.stop_search()


def _value_of(solution: tuple[int, ...], variable: Indexed) -> int:
    index = variable.index
    return solution[index] if index >= 0 else 1 - solution[-index - 1]


@dataclass(frozen=True, slots=True)
class LinearOutcome:
    """Answer of a linear or mixed-integer solver.

    `variables` by variable id; `duals` by constraint id and `reduced_costs` by variable id for linear models solved to
    the end (floating point: round them to rationals and recompute the bound before it goes into a certificate).
    """

    status: Status
    value: float | None
    bound: float | None
    report: SolverReport
    variables: dict[int, float] = field(default_factory=dict[int, float])
    duals: dict[int, float] = field(default_factory=dict[int, float])
    reduced_costs: dict[int, float] = field(default_factory=dict[int, float])

    @property
    def solved(self) -> bool:
        """Whether there is a solution to read."""
        return self.status in (Status.OPTIMAL, Status.FEASIBLE)

    def __getitem__(self, variable: mathopt.Variable) -> float:
        """Return the value of a variable in the solution."""
        return self.variables[variable.id]

    def dual(self, constraint: mathopt.LinearConstraint) -> float:
        """Return the dual value of a constraint."""
        return self.duals[constraint.id]


_LINEAR_STATUS = {
    mathopt.TerminationReason.OPTIMAL: Status.OPTIMAL,
    mathopt.TerminationReason.FEASIBLE: Status.FEASIBLE,
    mathopt.TerminationReason.INFEASIBLE: Status.INFEASIBLE,
}
_ENGINES = {
    "glop": mathopt.SolverType.GLOP,
    "highs": mathopt.SolverType.HIGHS,
    "pdlp": mathopt.SolverType.PDLP,
    "scip": mathopt.SolverType.GSCIP,
}
# What each engine accepts of the common parameters (9.15); others answer with an error.
_SEEDED = {"glop", "highs", "scip"}
_THREADED = {"glop", "pdlp", "scip"}


def solve_linear(model: mathopt.Model, limits: Limits | None = None, *, engine: str = "glop") -> LinearOutcome:
    """Solve a linear or mixed-integer MathOpt model.

    Args:
        model: the MathOpt model.
        limits: `wall_s` and `nodes` apply; `deterministic_s` does not.
        engine: `glop` (simplex), `pdlp` (first order), `highs` or `scip` (mixed-integer, `highs` also linear).

    Raises:
        ModelRejected: the engine refuses the model.
    """
    limits = limits or Limits()
    try:
        result = _run_linear(model, engine, _linear_parameters(limits, engine))
    except (ValueError, AttributeError, RuntimeError) as error:  # 9.15 raises AttributeError for a failed status
        raise ModelRejected(solver=engine, reason=str(error)) from error
    found = bool(result.solutions) and result.has_primal_feasible_solution()
    dual = bool(result.solutions) and result.has_dual_feasible_solution()
    status = _LINEAR_STATUS.get(result.termination.reason, Status.UNKNOWN)
    if status is Status.UNKNOWN and found:
        status = Status.FEASIBLE
    return LinearOutcome(
        status=status,
        value=result.objective_value() if found else None,
        bound=_finite(result.termination.objective_bounds.dual_bound),
        report=_linear_report(limits, engine, result),
        variables={variable.id: value for variable, value in result.variable_values().items()} if found else {},
        duals={constraint.id: value for constraint, value in result.dual_values().items()} if dual else {},
        reduced_costs={variable.id: value for variable, value in result.reduced_costs().items()} if dual else {},
    )


def _run_linear(model: mathopt.Model, engine: str, parameters: mathopt.SolveParameters) -> mathopt.SolveResult:
    if engine == "scip":  # 9.15 prints errors of its own when it is given an interrupter
        return mathopt.solve(model, _ENGINES[engine], params=parameters)
    interrupter = SolveInterrupter()
    return run_stoppable(
        lambda: mathopt.solve(model, _ENGINES[engine], params=parameters, interrupter=interrupter),
        interrupter.interrupt,
    )


def _linear_parameters(limits: Limits, engine: str) -> mathopt.SolveParameters:
    parameters = mathopt.SolveParameters(
        time_limit=None if limits.wall_s is None else datetime.timedelta(seconds=limits.wall_s),
        random_seed=limits.seed if engine in _SEEDED else None,
        threads=limits.workers if engine in _THREADED else None,
        node_limit=limits.nodes if engine in ("highs", "scip") else None,
        relative_gap_tolerance=0.0 if engine in ("highs", "scip") else None,
    )
    if engine == "highs" and limits.workers == 1:
        parameters.highs.string_options["parallel"] = "off"
    return parameters


def _linear_report(limits: Limits, engine: str, result: mathopt.SolveResult) -> SolverReport:
    return SolverReport(
        solver=engine,
        version=VERSION,
        limits=limits,
        raw_status=result.termination.reason.name,
        wall_s=result.solve_stats.solve_time.total_seconds(),
        deterministic_time=0.0,
    )


def _finite(bound: float) -> float | None:
    return bound if abs(bound) != float("inf") else None
