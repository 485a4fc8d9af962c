"""Vector packing, rescheduling of virtual machines, task graphs, projects: against brute force, and planted faults."""

from __future__ import annotations

import random
from itertools import product

import pytest

import treadle
from treadle.ir.certificate import ProofKind, Status
from treadle.ir.cluster import projects, task_graphs, vector_packing, vm_rescheduling
from treadle.ir.cluster.errors import InconsistentCluster, NoSchedule
from treadle.ir.cluster.projects import Activity, Downtime, Project
from treadle.ir.cluster.task_graphs import Run, TaskGraph, Transfer
from treadle.ir.cluster.vector_packing import VectorPacking
from treadle.ir.cluster.vm_rescheduling import VirtualMachines
from treadle.ir.errors import InvalidValue
from treadle.solvers.projects.serial import serial_schedule
from treadle.solvers.task_graphs.solve import heft
from treadle.solvers.vector_packing.solve import prices_bound
from treadle.solvers.vm_rescheduling.search import search


def vectors(seed: int, count: int) -> VectorPacking:
    source = random.Random(seed)
    return VectorPacking(tuple((source.randint(1, 7), source.randint(1, 7)) for _ in range(count)), (10, 10))


@pytest.mark.parametrize("seed", range(6))
def test_vector_packing_equals_brute_force(seed: int) -> None:
    instance = vectors(seed, 5)
    packed = treadle.pack_vectors(instance)
    assert vector_packing.check(instance, packed.bins) == []
    legal = (bins for bins in product(range(5), repeat=5) if not vector_packing.check(instance, bins))
    best = min(len(set(bins)) for bins in legal)
    level = packed.certificate.levels[0]
    assert len(set(packed.bins)) == level.value == best
    assert level.bound is not None
    assert level.bound <= best


def test_vector_packing_bounds_by_prices_are_recomputed() -> None:
    found = 0
    for seed in range(12):
        instance = vectors(seed, 14)
        level = treadle.pack_vectors(instance, deterministic_s=1.0).certificate.levels[0]
        if "prices" in level.evidence:
            prices = {tuple(size): price for size, price in level.evidence["prices"]}
            assert prices_bound(instance, prices, level.evidence["unit"]) == level.bound
            doubled = {size: 2 * price for size, price in prices.items()}
            assert prices_bound(instance, doubled, level.evidence["unit"]) <= level.value
            found += 1
    assert found


def test_vector_packing_finds_planted_faults() -> None:
    instance = VectorPacking(((6, 1), (6, 1), (1, 9)), (10, 10))
    assert vector_packing.check(instance, (0, 1, 0)) == []
    assert {f.code for f in vector_packing.check(instance, (0, 0, 1))} == {"TRD461"}
    assert {f.code for f in vector_packing.check(instance, (0, 1))} == {"TRD460"}
    with pytest.raises(InvalidValue):
        VectorPacking(((11, 1),), (10, 10))


def machines(seed: int) -> VirtualMachines:
    source = random.Random(seed)
    sizes = tuple((source.choice((2, 4, 6)), source.choice((2, 4))) for _ in range(5))
    while True:
        at = tuple(source.randrange(3) for _ in sizes)
        instance = VirtualMachines(((16, 12), (12, 12), (16, 8)), sizes, at, source.randint(0, 3), 8, ((0, 1),))
        if not vm_rescheduling.check(instance, at):
            return instance


@pytest.mark.parametrize("seed", range(15))
def test_rescheduling_equals_brute_force(seed: int) -> None:
    instance = machines(seed)
    found = treadle.reschedule_vms(instance)
    assert vm_rescheduling.check(instance, found.at) == []
    legal = (at for at in product(range(3), repeat=5) if not vm_rescheduling.check(instance, at))
    assert vm_rescheduling.fragments(instance, found.at) == min(vm_rescheduling.fragments(instance, at) for at in legal)
    assert found.certificate.status is Status.OPTIMAL
    assert vm_rescheduling.fragment_rate(instance, found.at) <= vm_rescheduling.fragment_rate(instance, instance.at)


@pytest.mark.parametrize("seed", range(15))
def test_the_search_of_large_instances_equals_brute_force(seed: int) -> None:
    """Three hosts are one neighbourhood, so that the search alone has to find the best."""
    instance = machines(seed)
    at = search(instance, 0, 1.0, seed)
    assert vm_rescheduling.check(instance, at) == []
    legal = [at for at in product(range(3), repeat=5) if not vm_rescheduling.check(instance, at)]
    best = min(vm_rescheduling.fragments(instance, one) for one in legal)
    assert vm_rescheduling.fragments(instance, at) == best >= vm_rescheduling.fragments_bound(instance)


def test_many_machines_are_rescheduled_within_the_limit() -> None:
    source = random.Random(3)
    free = [[64, 256] for _ in range(40)]
    sizes: list[tuple[int, int]] = []
    at: list[int] = []
    for _ in range(220):
        size, host = source.choice([(2, 4), (4, 8), (8, 32), (16, 32)]), source.randrange(40)
        if all(asked <= there for asked, there in zip(size, free[host], strict=True)):
            free[host] = [there - asked for asked, there in zip(size, free[host], strict=True)]
            sizes.append(size)
            at.append(host)
    apart = ((0, 1, 2),) if len({at[0], at[1], at[2]}) == 3 else ()
    instance = VirtualMachines(((64, 256),) * 40, tuple(sizes), tuple(at), 10, apart=apart)
    found = treadle.reschedule_vms(instance, deterministic_s=0.5)
    assert vm_rescheduling.check(instance, found.at) == []
    before, after = (vm_rescheduling.fragments(instance, one) for one in (instance.at, found.at))
    bound = found.certificate.levels[0].bound
    assert bound is not None
    assert 0 < vm_rescheduling.fragments_bound(instance) <= bound <= after < 0.8 * before


def test_rescheduling_finds_planted_faults() -> None:
    instance = VirtualMachines(((8, 8), (8, 8)), ((4, 4), (4, 4), (4, 4)), (0, 0, 1), 1, 8, ((0, 2),))
    assert vm_rescheduling.check(instance, (0, 0, 1)) == []
    assert {f.code for f in vm_rescheduling.check(instance, (1, 0, 0))} == {"TRD467"}
    assert {f.code for f in vm_rescheduling.check(instance, (0, 0, 0))} == {"TRD461", "TRD464"}
    assert {f.code for f in vm_rescheduling.check(instance, (0, 2, 1))} == {"TRD460"}
    with pytest.raises(InconsistentCluster):
        treadle.reschedule_vms(VirtualMachines(((2, 2),), ((4, 4),), (0,), 1))
    with pytest.raises(InvalidValue):
        VirtualMachines(((2, 2),), ((4, 4),), (1,), 1)


def graph(seed: int) -> TaskGraph:
    source = random.Random(seed)
    times = tuple((source.randint(1, 5), source.randint(1, 5)) for _ in range(4))
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4) if source.random() < 0.5]
    return TaskGraph(times, tuple(Transfer(a, b, source.randint(0, 4)) for a, b in pairs))


def best_makespan(one: TaskGraph) -> int:
    """Every processor and every order of tasks, each as early as it can be."""
    best = 10**9
    orders = [order for order in product(range(4), repeat=4) if len(set(order)) == 4]
    for where in product(range(2), repeat=4):
        for order in orders:
            place = {task: position for position, task in enumerate(order)}
            if any(place[t.source] > place[t.target] for t in one.transfers):
                continue
            free, ends = [0, 0], dict[int, int]()
            for task in order:
                data = [
                    ends[t.source] + t.time * (where[t.source] != where[task])
                    for t in one.transfers
                    if t.target == task
                ]
                ends[task] = max([free[where[task]], *data]) + one.times[task][where[task]]
                free[where[task]] = ends[task]
            best = min(best, max(ends.values()))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_task_graphs_equal_brute_force_and_never_lose_to_heft(seed: int) -> None:
    one = graph(seed)
    found = treadle.schedule_tasks(one)
    assert task_graphs.check(one, found.runs) == []
    assert task_graphs.check(one, heft(one)) == []
    assert task_graphs.makespan(one, found.runs) == best_makespan(one) <= found.heft_makespan
    assert found.certificate.status is Status.OPTIMAL


def test_heft_gives_the_published_example() -> None:
    """Figure 1 and table 1 of Topcuoglu et al. (2002): HEFT's schedule has length 80."""
    times = (
        (14, 16, 9), (13, 19, 18), (11, 13, 19), (13, 8, 17), (12, 13, 10),
        (13, 16, 9), (7, 15, 11), (5, 11, 14), (18, 12, 20), (21, 7, 16),
    )  # fmt: skip
    data = {
        (1, 2): 18, (1, 3): 12, (1, 4): 9, (1, 5): 11, (1, 6): 14, (2, 8): 19, (2, 9): 16, (3, 7): 23,
        (4, 8): 27, (4, 9): 23, (5, 9): 13, (6, 8): 15, (7, 10): 17, (8, 10): 11, (9, 10): 13,
    }  # fmt: skip
    published = TaskGraph(times, tuple(Transfer(a - 1, b - 1, time) for (a, b), time in data.items()))
    assert task_graphs.makespan(published, heft(published)) == 80
    found = treadle.schedule_tasks(published, deterministic_s=4.0)
    assert found.heft_makespan == 80
    assert found.certificate.levels[0].value < 80


def test_task_graphs_find_planted_faults() -> None:
    one = TaskGraph(((2, 3), (2, 3)), (Transfer(0, 1, 4),))
    assert task_graphs.check(one, (Run(0, 0), Run(0, 2))) == []
    assert {f.code for f in task_graphs.check(one, (Run(0, 0), Run(1, 5)))} == {"TRD463"}
    assert {f.code for f in task_graphs.check(one, (Run(0, 0), Run(0, 1)))} == {"TRD461", "TRD463"}
    assert {f.code for f in task_graphs.check(one, (Run(0, 0),))} == {"TRD460"}
    with pytest.raises(InvalidValue, match="cycle"):
        TaskGraph(((1,), (1,)), (Transfer(0, 1, 0), Transfer(1, 0, 0)))


def project(seed: int) -> Project:
    source = random.Random(seed)
    activities = tuple(
        Activity(
            source.randint(1, 3),
            {"crew": source.randint(1, 2)},
            tuple(b for b in range(number) if source.random() < 0.3),
            source.randint(0, 2),
            9,
        )
        for number in range(4)
    )
    return Project(activities, {"crew": 3}, (Downtime("crew", 2, 4, 2), Downtime("crew", 3, 5, 1)))


@pytest.mark.parametrize("seed", range(5))
def test_projects_equal_brute_force(seed: int) -> None:
    one = project(seed)
    legal = [starts for starts in product(range(10), repeat=4) if not projects.check(one, starts)]
    if not legal:
        with pytest.raises(NoSchedule, match="contradict"):
            treadle.schedule_project(one)
        return
    found = treadle.schedule_project(one)
    assert projects.check(one, found.starts) == []
    assert found.certificate.levels[0].value == min(projects.makespan(one, starts) for starts in legal)


def test_projects_find_planted_faults() -> None:
    one = Project(
        (Activity(2, {"crew": 2}), Activity(1, {"crew": 1}, (0,), 0, 9)), {"crew": 2}, (Downtime("crew", 2, 4, 2),)
    )
    assert projects.check(one, (0, 4)) == []
    assert {f.code for f in projects.check(one, (0, 2))} == {"TRD461"}
    assert {f.code for f in projects.check(one, (4, 5))} == {"TRD461", "TRD463"}
    assert {f.code for f in projects.check(one, (0, 9))} == {"TRD462"}
    assert {f.code for f in projects.check(one, (0,))} == {"TRD460"}
    with pytest.raises(InvalidValue):
        Project((Activity(1, {"crane": 1}),), {"crew": 2})


def large_project(count: int, deadline: int | None = None, *, unit: int = 1) -> Project:
    """Three scarce resources with downtime of their own, releases, and chains; `unit`: how fine time is."""
    source = random.Random(7)
    kinds = ("crew", "crane", "dock")
    activities = tuple(
        Activity(
            unit * source.randint(1, 10),
            {kind: source.randint(0, 5) for kind in kinds},
            tuple(sorted({source.randrange(max(0, n - 12), n) for _ in range(source.randint(0, 2))})) if n else (),
            unit * source.choice((0, 0, 15)),
            deadline,
        )
        for n in range(count)
    )
    gaps = (Downtime(kind, unit * t, unit * (t + 6), source.randint(2, 8)) for kind in kinds for t in range(9, 199, 38))
    return Project(activities, dict.fromkeys(kinds, 8), tuple(gaps))


@pytest.mark.parametrize("unit", [1, 1000])
def test_sixty_activities_end_within_the_limit_with_a_bound(unit: int) -> None:
    one = large_project(60, unit=unit)
    found = treadle.schedule_project(one, 0.3)
    level = found.certificate.levels[0]
    assert projects.check(one, found.starts) == []
    assert level.value == projects.makespan(one, found.starts)
    assert level.bound is not None
    assert projects.time_bound(one) <= level.bound <= level.value <= 1.35 * level.bound
    assert treadle.schedule_project(one, 0.3) == found


def test_a_schedule_is_there_without_any_search() -> None:
    one = large_project(60)
    found = treadle.schedule_project(one, 0.0)
    assert projects.check(one, found.starts) == []
    assert found.certificate.levels[0].proof is ProofKind.RECURRENCE
    with pytest.raises(NoSchedule, match=r"none found in time|contradict"):
        treadle.schedule_project(large_project(60, 100), 0.0)


@pytest.mark.parametrize("seed", range(12))
def test_bounds_and_orders_keep_to_the_best_schedule(seed: int) -> None:
    one = project(seed)
    legal = [starts for starts in product(range(10), repeat=4) if not projects.check(one, starts)]
    known = serial_schedule(one)
    if known is not None:
        assert projects.check(one, known) == []
    if legal:
        best = min(projects.makespan(one, starts) for starts in legal)
        assert projects.time_bound(one) <= best
        assert known is None or best <= projects.makespan(one, known)
        assert all(map(int.__le__, projects.earliest_starts(one), (min(s) for s in zip(*legal, strict=True))))
    else:
        assert known is None


def test_bounds_count_downtime_and_tails() -> None:
    work = tuple(Activity(2, {"crew": 2}) for _ in range(3))
    assert projects.time_bound(Project(work, {"crew": 2})) == 6
    assert projects.time_bound(Project(work, {"crew": 2}, (Downtime("crew", 2, 5, 2),))) == 9
    assert projects.time_bound(Project((*work, Activity(4, {}, (0, 1, 2))), {"crew": 2})) == 10
    late = Activity(2, {"crew": 2}, release=1)
    assert projects.earliest_starts(Project((late,), {"crew": 2}, (Downtime("crew", 2, 5, 1),))) == [5]


def test_activities_that_wait_for_each_other_have_no_schedule() -> None:
    with pytest.raises(NoSchedule, match="contradict"):
        treadle.schedule_project(Project((Activity(1, after=(1,)), Activity(1, after=(0,))), {}))
