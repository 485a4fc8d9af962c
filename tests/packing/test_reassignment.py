"""Neighbourhoods of a reassignment: legal, never worse, and exact on instances small enough to enumerate."""

from __future__ import annotations

import random
from itertools import product

import pytest

from treadle.ir.cluster.reassignment import Balance, Machine, Process, Reassignment, Service, check, cost
from treadle.solvers.reassignment.neighbourhoods import Neighbourhood
from treadle.solvers.reassignment.solve import Options, reassign


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
