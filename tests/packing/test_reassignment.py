"""Neighbourhoods of a reassignment: legal, never worse, and exact on instances small enough to enumerate."""

from __future__ import annotations

import random
from itertools import permutations, product

import numpy as np
import pytest

from treadle.ir.cluster.reassignment import Balance, Machine, Process, Reassignment, Service, check, cost
from treadle.solvers.assignment import least_cost_assignment
from treadle.solvers.backend import ModelRejected
from treadle.solvers.reassignment.matchings import Matchings
from treadle.solvers.reassignment.neighbourhoods import Neighbourhood
from treadle.solvers.reassignment.solve import Options, reassign
from treadle.solvers.reassignment.state import State


def random_instance(seed: int) -> Reassignment:
    """Three machines, five processes in three services, every rule present; the initial assignment is legal."""
    source = random.Random(seed)
    while True:
        machines = tuple(
            Machine(
                source.randint(0, 1),
                source.randint(0, 1),
                (source.randint(8, 14), source.randint(8, 14)),
                (source.randint(3, 7), source.randint(3, 7)),
                tuple(0 if m == k else source.randint(1, 3) for k in range(3)),
            )
            for m in range(3)
        )
        services = (Service(1, ()), Service(source.randint(1, 2), ()), Service(1, (source.randint(0, 1),)))
        processes = tuple(
            Process(service, (source.randint(1, 5), source.randint(1, 5)), source.randint(1, 4))
            for service in (0, 0, 1, 1, 2)
        )
        balances = (Balance(0, 1, 2, 3),)
        initial = tuple(source.randrange(3) for _ in processes)
        instance = Reassignment((True, False), (5, 7), machines, services, processes, balances, 1, 2, 1, initial)
        if not check(instance, initial):
            return instance


@pytest.mark.parametrize("seed", range(12))
def test_neighbourhoods_of_everything_equal_enumeration(seed: int) -> None:
    instance = random_instance(seed)
    whole = Neighbourhood(instance, list(instance.initial), range(3), range(5))
    found = whole.solve(5.0, 0)
    assert found is not None
    assignment = tuple(found[p] for p in range(5))
    assert check(instance, assignment) == []
    legal = [one for one in product(range(3), repeat=5) if not check(instance, one)]
    assert cost(instance, assignment) == min(cost(instance, one) for one in legal)


@pytest.mark.parametrize("seed", range(4))
def test_searches_are_legal_and_repeat(seed: int) -> None:
    instance = random_instance(seed)
    options = Options(steps=200, neighbourhoods=3, seed=seed)
    first, second = reassign(instance, options), reassign(instance, options)
    assert first == second
    assert check(instance, first.assignment) == []
    assert first.cost <= cost(instance, instance.initial)


@pytest.mark.parametrize("temperature", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(10))
def test_matchings_keep_every_rule_and_tell_the_change_of_cost(seed: int, temperature: float) -> None:
    instance = random_instance(seed)
    state = State(instance)
    matchings = Matchings(instance, state, np.random.default_rng(seed))
    value, moved = cost(instance, instance.initial), 0
    for _ in range(60):
        change = matchings.step(temperature)
        value += change
        moved += change != 0
        now = tuple(int(machine) for machine in state.at)
        assert check(instance, now) == []
        assert cost(instance, now) == value
        assert change <= 0 or temperature
    assert value < cost(instance, instance.initial) or not moved or temperature


def test_matchings_find_a_cycle_that_no_swap_finds() -> None:
    """Three processes of three services on three machines, each of which only the next one's machine suits."""
    machines = tuple(Machine(m, m, (9,), (m + 1,), (0, 0, 0)) for m in range(3))
    processes = tuple(Process(p, (need,), 0) for p, need in enumerate((2, 3, 1)))
    services = (Service(1, ()),) * 3
    instance = Reassignment((False,), (100,), machines, services, processes, (), 1, 0, 1, (0, 1, 2))
    matchings = Matchings(instance, State(instance), np.random.default_rng(0))
    assert cost(instance, instance.initial) == 200
    for _ in range(20):
        matchings.step(0.0)
    assert tuple(matchings.state.at) == (1, 2, 0)
    assert cost(instance, (1, 2, 0)) == 0


@pytest.mark.parametrize("seed", range(6))
def test_assignments_cost_the_least(seed: int) -> None:
    source = np.random.default_rng(seed)
    costs = source.integers(-50, 10**9, (5, 5))
    allowed = source.random((5, 5)) < 0.6
    np.fill_diagonal(allowed, val=True)
    columns = least_cost_assignment(costs, allowed)
    legal = [one for one in permutations(range(5)) if all(allowed[range(5), list(one)])]
    least = min(int(costs[range(5), list(one)].sum()) for one in legal)
    assert allowed[range(5), columns].all()
    assert int(costs[range(5), columns].sum()) == least


def test_impossible_assignments_are_refused() -> None:
    with pytest.raises(ModelRejected):
        least_cost_assignment(np.zeros((2, 2), dtype=np.int64), np.array([[True, False], [True, False]]))
