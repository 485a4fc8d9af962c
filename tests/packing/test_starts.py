"""Searches from several starts: the same result wherever they run, and a certificate of the best bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from benchmarks.packing_instances import Cell, seeds_with_pending
from tests.packing.test_reassignment import random_instance
from tests.packing.test_verb import dump
from treadle.cli.main import main
from treadle.costmodels.packing_claims import recheck
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.cluster.cluster import Cluster
from treadle.ir.cluster.objective import Objective
from treadle.ir.cluster.placement import Placement, check
from treadle.solvers.packing.solve import Options, Packed
from treadle.solvers.packing.solve import pack as pack_once
from treadle.solvers.packing.starts import joined, pack
from treadle.solvers.reassignment.solve import Options as Steps
from treadle.solvers.reassignment.solve import reassign

P = ParamSpec("P")
T = TypeVar("T")


def small() -> Cluster:
    return seeds_with_pending(Cell(4, 8, 1, 100), 1)[0][1]


def test_the_result_does_not_depend_on_where_searches_run() -> None:
    cluster, options = small(), Options(deterministic_s=0.3, starts=3, seed=4)
    here = pack(cluster, options)
    with ThreadPoolExecutor(1) as pool:
        there = pack(cluster, options, executor=pool)
    assert there == here
    assert check(cluster, here.placement) == []
    assert recheck(cluster, here.placement, Objective(), here.certificate).findings == ()


def test_one_of_the_starts_is_the_search_alone() -> None:
    cluster = small()
    alone = pack_once(cluster, Options(deterministic_s=0.3))
    assert pack(cluster, Options(deterministic_s=0.3)) == alone
    several = pack(cluster, Options(deterministic_s=0.3, starts=2))
    for one, other in zip(several.certificate.levels, alone.certificate.levels, strict=True):
        if one.value != other.value:
            assert (one.value > other.value) == one.maximize
            break
        assert one.bound is not None
        assert other.bound is not None
        assert (one.bound <= other.bound) if one.maximize else (one.bound >= other.bound)


def packed(name: str, *levels: tuple[float, float]) -> Packed:
    found = tuple(
        Level(
            str(position),
            "pods",
            value,
            bound,
            Status.OPTIMAL if value == bound else Status.FEASIBLE,
            ProofKind.SOLVER,
            {"by": name},
            position == 0,
        )
        for position, (value, bound) in enumerate(levels)
    )
    return Packed(Placement((len(name),)), Certificate("packing", "x", found))


def test_bounds_are_joined_where_the_values_before_them_agree() -> None:
    best = packed("a", (7, 9), (4, 1), (3, 0))
    worse = packed("bb", (6, 7), (0, 0), (0, 0))
    alike = packed("ccc", (7, 8), (5, 3), (3, 3))
    both = joined([worse, alike, best])
    assert both.placement == best.placement
    assert [(level.value, level.bound, level.evidence["by"]) for level in both.certificate.levels] == [
        (7, 7, "bb"),
        (4, 3, "ccc"),
        (3, 0, "a"),
    ]
    assert [level.status for level in both.certificate.levels] == [Status.OPTIMAL, Status.FEASIBLE, Status.FEASIBLE]


class Breaking(Executor):
    """A pool whose first worker dies, and which takes no more work after that."""

    def __init__(self) -> None:
        self.handed_over = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self.handed_over += 1
        if self.handed_over > 1:
            raise BrokenExecutor("gone")
        failed: Future[T] = Future()
        failed.set_exception(BrokenExecutor("gone"))
        return failed


def test_lost_workers_change_nothing() -> None:
    cluster, options = small(), Options(deterministic_s=0.1, starts=2)
    told: list[str] = []
    assert pack(cluster, options, told.append, Breaking()) == pack(cluster, options)
    assert [line for line in told if "lost" in line] == [
        "a worker was lost; start 1 of 2 is searched here",
        "a worker was lost; start 2 of 2 is searched here",
    ]


def test_reassignments_from_several_seeds_are_never_worse() -> None:
    instance = random_instance(3)
    options = Steps(steps=80, neighbourhoods=1)
    each = [reassign(instance, replace(options, seed=seed)) for seed in range(2)]
    with ProcessPoolExecutor(1) as pool:
        best = reassign(instance, replace(options, starts=2), executor=pool)
    assert best == min(each, key=lambda found: found.cost)


def test_jobs_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(dump(small())))
    command = ["pack", str(path), "--deterministic-seconds", "0.2", "--json"]
    assert main([*command, "--jobs", "2"]) in (0, 3)
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert plan["options"]["starts"] == 2
    assert main([*command, "--executor", "here"]) == 2
    assert "`here` is not an executor" in capsys.readouterr().err
