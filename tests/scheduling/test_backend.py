"""The wrapper around OR-Tools: statuses, bounds, hints, limits, duals."""

from __future__ import annotations

from typing import Any

import pytest
from ortools.math_opt.python import mathopt
from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.solvers.backend import Incumbent, Limits, ModelRejected, solve, solve_linear


def knapsack(count: int = 30, *, maximize: bool = True) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    chosen = [model.new_bool_var(f"x{i}") for i in range(count)]
    model.add(sum((37 * i * i % 101 + 5) * x for i, x in enumerate(chosen)) <= 400)
    if maximize:
        model.maximize(sum((53 * i * i % 97 + 7) * x for i, x in enumerate(chosen)))
    return model, chosen


def test_optimal_value_and_bound_agree() -> None:
    model, chosen = knapsack()
    outcome = solve(model)
    assert outcome.status is Status.OPTIMAL
    assert outcome.value == outcome.bound == sum((53 * i * i % 97 + 7) * outcome[x] for i, x in enumerate(chosen))
    assert outcome.report.raw_status == "OPTIMAL"


def test_same_seed_same_answer() -> None:
    answers = [solve(knapsack()[0]) for _ in range(2)]
    assert answers[0].solution == answers[1].solution
    assert answers[0].report.deterministic_time == answers[1].report.deterministic_time


def test_negated_literals_are_read() -> None:
    model = cp_model.CpModel()
    flag = model.new_bool_var("flag")
    model.add(flag == 1)
    outcome = solve(model)
    assert (outcome[flag], outcome[~flag]) == (1, 0)
    assert outcome.value is None
    assert outcome.bound is None


def test_infeasible_is_said() -> None:
    model = cp_model.CpModel()
    number = model.new_int_var(0, 3, "number")
    model.add(number >= 4)
    outcome = solve(model)
    assert outcome.status is Status.INFEASIBLE
    assert not outcome.solved


def test_limit_gives_unknown() -> None:
    model = cp_model.CpModel()
    seats = [[model.new_bool_var("") for _ in range(11)] for _ in range(12)]
    for row in seats:
        model.add(sum(row) == 1)
    for hole in range(11):
        model.add(sum(row[hole] for row in seats) <= 1)
    tuning = {"cp_model_presolve": False, "linearization_level": 0, "symmetry_level": 0}
    outcome = solve(model, Limits(deterministic_s=0.01), tuning=tuning)
    assert outcome.status is Status.UNKNOWN


def test_incumbents_are_told_and_can_stop() -> None:
    seen: list[Incumbent] = []

    def told(incumbent: Incumbent) -> bool:
        seen.append(incumbent)
        return True

    model, chosen = knapsack()
    outcome = solve(model, on_incumbent=told, hint=[(chosen[0], 1)], tuning={"cp_model_presolve": False})
    assert len(seen) >= 1
    assert outcome.solved
    assert seen[0].bound is not None
    assert seen[0].value is not None
    assert seen[0].bound >= seen[0].value


def test_malformed_model_is_refused() -> None:
    model = cp_model.CpModel()
    one = model.new_int_var(-(2**62), 2**62, "one")
    model.add(4 * one <= 2**62)
    with pytest.raises(ModelRejected):
        solve(model)


def linear(*, integer: bool) -> tuple[mathopt.Model, mathopt.Variable, mathopt.LinearConstraint]:
    model = mathopt.Model()
    amount = model.add_variable(lb=0, is_integer=integer)
    rest = model.add_variable(lb=0)
    demand = model.add_linear_constraint(2 * amount + rest >= 5)
    model.minimize(3 * amount + 4 * rest)
    return model, amount, demand


@pytest.mark.parametrize("engine", ["glop", "highs", "pdlp"])
def test_linear_duals_give_the_value(engine: str) -> None:
    model, amount, demand = linear(integer=False)
    outcome = solve_linear(model, engine=engine)
    assert outcome.status is Status.OPTIMAL
    assert outcome[amount] == pytest.approx(2.5, abs=1e-4)
    assert outcome.dual(demand) * 5 == pytest.approx(7.5, abs=1e-4)
    assert outcome.value == pytest.approx(outcome.bound, abs=1e-4)


@pytest.mark.parametrize("engine", ["highs", "scip"])
def test_mixed_integer(engine: str) -> None:
    model, amount, _ = linear(integer=True)
    outcome = solve_linear(model, Limits(wall_s=10, nodes=100), engine=engine)
    assert outcome.status is Status.OPTIMAL
    assert outcome.value == pytest.approx(9.0)
    assert outcome[amount] == pytest.approx(3)


def test_infeasible_linear() -> None:
    model, amount, _ = linear(integer=False)
    model.add_linear_constraint(amount <= -1)
    outcome = solve_linear(model)
    assert outcome.status is Status.INFEASIBLE
    assert not outcome.solved


def test_presolve_that_fails_on_symmetries_is_asked_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """CP-SAT 9.15 loses symmetric terms of an objective and raises; the answer comes without looking for symmetries."""
    search, levels = cp_model.CpSolver.solve, list[int]()

    def failing(solver: cp_model.CpSolver, *given: Any) -> Any:
        levels.append(solver.parameters.symmetry_level)
        if solver.parameters.symmetry_level:
            raise IndexError("absl::container_internal::raw_hash_map<>::at")
        return search(solver, *given)

    monkeypatch.setattr(cp_model.CpSolver, "solve", failing)
    assert solve(knapsack()[0]).status is Status.OPTIMAL
    assert levels == [2, 0]
    monkeypatch.setattr(cp_model.CpSolver, "solve", _always_failing)
    with pytest.raises(IndexError):
        solve(knapsack()[0])


def _always_failing(solver: cp_model.CpSolver, *given: Any) -> Any:
    raise IndexError("at")
