"""The simulated default scheduler: what it places is legal, and it knows gates, ports, spread and who may preempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packing.builders import HOST, ZONE, app, node, random_cluster, shape
from treadle.costmodels.kube_scheduler import simulate
from treadle.ir.cluster.cluster import PENDING, Cluster, HostPort, Pod, PodTerm, Spread
from treadle.ir.cluster.placement import Placement, check


@pytest.mark.parametrize("seed", range(40))
def test_what_is_scheduled_is_legal(seed: int) -> None:
    cluster = random_cluster(seed, rules=True)
    shapes = tuple(replace(one, priority=0, device=None) for one in cluster.shapes)
    plain = replace(cluster, shapes=shapes, pods=tuple(replace(pod, gang="") for pod in cluster.pods), gangs=())
    if check(plain, Placement(plain.current)):
        pytest.skip("the cluster contradicts itself without its devices")
    assert check(plain, Placement(simulate(plain, seed=seed).nodes)) == []


def placed(cluster: Cluster) -> list[bool]:
    return [at != PENDING for at in simulate(cluster).nodes]


def test_pods_behind_gates_wait() -> None:
    assert placed(Cluster((node("n"),), (shape("a"),), (Pod("p", 0, gated=True), Pod("q", 0)))) == [False, True]


def test_only_pods_that_may_preempt_do() -> None:
    shapes = (shape("low", 900), shape("high", 900, priority=1), shape("never", 900, priority=2, preempts=False))
    cluster = Cluster((node("n"),), shapes, (Pod("p", 0, 0), Pod("q", 2)))
    assert placed(cluster) == [True, False]
    assert placed(replace(cluster, pods=(Pod("p", 0, 0), Pod("q", 1)))) == [False, True]


def test_ports_spread_and_affinity_filter() -> None:
    nodes = (node("n0", zone="a"), node("n1", zone="b"))
    port = shape("a", ports=(HostPort(80),))
    assert placed(Cluster(nodes, (port,), tuple(Pod(f"p{i}", 0) for i in range(3)))) == [True, True, False]
    even = shape("a", spreads=(Spread(ZONE, 1, app("a")),))
    tight = (nodes[0], replace(nodes[1], unschedulable=True))
    assert sum(placed(Cluster(tight, (even,), tuple(Pod(f"p{i}", 0) for i in range(3))))) == 1
    near = shape("a", affinity=(PodTerm(HOST, app("b")),))
    assert placed(Cluster(nodes, (near, shape("b")), (Pod("p", 0), Pod("q", 1)))) == [False, True]
    assert placed(Cluster(nodes, (near, shape("b")), (Pod("q", 1), Pod("p", 0)))) == [True, True]
    alone = shape("a", affinity=(PodTerm(HOST, app("a")),))
    assert len(set(simulate(Cluster(nodes, (alone,), (Pod("p", 0), Pod("q", 0)))).nodes)) == 1
    apart = shape("b", anti_affinity=(PodTerm(ZONE, app("a")),))
    avoided = Cluster(nodes, (shape("a"), apart), (Pod("q", 1, 0), Pod("r", 1, 1), Pod("p", 0)))
    assert placed(avoided) == [True, True, False]
