"""Clusters of equal pods: one flow is best at every level."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.ir.certificate import Status
from treadle.ir.cluster.cluster import PENDING, Cluster, Node, Pod, Shape
from treadle.ir.cluster.labels import Operator, Requirement
from treadle.ir.cluster.objective import Objective, Order, Tail
from treadle.ir.cluster.placement import Placement, check
from treadle.solvers.packing.flows import applies, least_cost
from treadle.solvers.packing.problem import assign, build, counts_of
from treadle.solvers.packing.search import evaluate
from treadle.solvers.packing.solve import Options, pack

ZONE_A = (Requirement("zone", Operator.IN, ("a",)),)


@st.composite
def equal_clusters(draw: st.DrawFn) -> Cluster:
    nodes = tuple(
        Node(f"n{k}", {"cpu": draw(st.sampled_from([1000, 2500, 3000]))}, labels={"zone": draw(st.sampled_from("ab"))})
        for k in range(draw(st.integers(1, 3)))
    )
    shapes = tuple(
        Shape(f"s{k}", {"cpu": 1000}, priority=draw(st.integers(0, 2)), selector=draw(st.sampled_from([(), ZONE_A])))
        for k in range(2)
    )
    free = [node.capacity["cpu"] // 1000 for node in nodes]
    pods: list[Pod] = []
    for number in range(draw(st.integers(1, 5))):
        shape = draw(st.integers(0, 1))
        anywhere = not shapes[shape].selector
        wanted = [k for k, node in enumerate(nodes) if free[k] and (anywhere or node.labels["zone"] == "a")]
        node = draw(st.sampled_from([PENDING, *wanted]))
        if node != PENDING:
            free[node] -= 1
        pods.append(Pod(f"p{number}", shape, node, restart_cost=draw(st.integers(1, 3))))
    return Cluster(nodes, shapes, tuple(pods))


@given(equal_clusters(), st.sampled_from(list(Order)))
@settings(max_examples=120, deadline=None)
def test_a_flow_is_the_best_of_all_placements(cluster: Cluster, order: Order) -> None:
    problem = build(cluster, order)
    assert applies(problem, Tail.NOTHING)
    counts = least_cost(problem)
    assert check(cluster, Placement(assign(problem, counts))) == []
    best = min(
        evaluate(problem, counts_of(problem, nodes))
        for nodes in product((PENDING, *range(len(cluster.nodes))), repeat=len(cluster.pods))
        if not check(cluster, Placement(nodes))
    )
    assert evaluate(problem, counts) == best


def test_packing_begins_with_the_flow() -> None:
    """Sixty equal pods on full nodes that only some may use: proven at once, whatever the limit."""
    nodes = tuple(Node(f"n{k}", {"cpu": 8000}, labels={"zone": "ab"[k % 2]}) for k in range(6))
    shapes = (Shape("any", {"cpu": 1000}), Shape("a", {"cpu": 1000}, priority=1, selector=ZONE_A))
    pods = [Pod(f"r{k}", 0, k % 6) for k in range(46)] + [Pod(f"w{k}", 1) for k in range(4)]
    packed = pack(Cluster(nodes, shapes, tuple(pods)), Options(Objective(), deterministic_s=1.0))
    assert PENDING not in packed.placement.nodes[46:]
    assert sum(node == PENDING for node in packed.placement.nodes) == 2
    assert packed.certificate.levels[0].status is Status.OPTIMAL


@pytest.mark.parametrize("other", [{"cpu": 2000}, {}])
def test_other_clusters_are_not_flows(other: dict[str, int]) -> None:
    shapes = (Shape("s", {"cpu": 1000}), Shape("t", other))
    cluster = Cluster((Node("n", {"cpu": 4000}),), shapes, (Pod("p", 0), Pod("q", 1)))
    problem = build(cluster, Order.PLACE_FIRST)
    assert not applies(problem, Tail.NOTHING)
    alone = build(Cluster(cluster.nodes, cluster.shapes[:1], cluster.pods[:1]), Order.PLACE_FIRST)
    assert applies(alone, Tail.NOTHING)
    assert not applies(alone, Tail.NODES)
