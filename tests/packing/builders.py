"""Small clusters for tests."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

from treadle.ir.cluster.cluster import (
    PENDING,
    Cluster,
    DeviceRequest,
    Devices,
    Gang,
    HostPort,
    Node,
    Pod,
    PodTerm,
    Shape,
    Spread,
)
from treadle.ir.cluster.labels import Effect, Operator, Requirement, Taint
from treadle.ir.cluster.objective import Objective, measure
from treadle.ir.cluster.placement import Placement, check
from treadle.solvers.packing.devices import assign_devices

HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


def node(name: str, cpu: int = 1000, zone: str = "a", **fields: object) -> Node:
    return replace(Node(name, {"cpu": cpu}, {HOST: name, ZONE: zone}), **fields)  # type: ignore[arg-type]  # any field


def shape(name: str, cpu: int = 300, **fields: object) -> Shape:
    return replace(Shape(name, {"cpu": cpu}, labels={"app": name}), **fields)  # type: ignore[arg-type]  # any field


def app(name: str) -> tuple[Requirement, ...]:
    return (Requirement("app", Operator.IN, (name,)),)


def best_by_force(cluster: Cluster, objective: Objective) -> list[int]:
    """Return the best levels (maximized ones negated) over all legal placements."""
    best: list[int] | None = None
    for nodes in product(range(PENDING, len(cluster.nodes)), repeat=len(cluster.pods)):
        devices = assign_devices(cluster, nodes)
        placement = Placement(nodes, devices or ())
        if check(cluster, placement):
            continue
        values = [-m.value if m.maximize else m.value for m in measure(cluster, placement, objective)]
        best = values if best is None or values < best else best
    assert best is not None
    return best


def random_cluster(seed: int, *, rules: bool) -> Cluster:
    """Return a legal cluster of 2..3 nodes and 3..5 pods, some of them running."""
    source = random.Random(seed)
    zones = ("a", "b")
    nodes = tuple(
        node(
            f"n{i}",
            source.randint(4, 10) * 100,
            source.choice(zones),
            taints=(Taint("t", "", Effect.NO_SCHEDULE),) if rules and source.random() < 0.1 else (),
            devices=Devices(source.randint(1, 2), 1000) if rules else None,
        )
        for i in range(source.randint(2, 3))
    )
    shapes = tuple(_random_shape(source, i, rules) for i in range(source.randint(2, 4)))
    gangs = (Gang("g", 2, source.choice(("", ZONE))),) if rules and source.random() < 0.3 else ()
    pods = [Pod(f"p{i}", source.randrange(len(shapes))) for i in range(source.randint(3, 4 if rules else 5))]
    if gangs:
        pods[:2] = [replace(pod, gang="g") for pod in pods[:2]]
    cluster = Cluster(nodes, shapes, tuple(pods), gangs=gangs)
    for index in range(len(pods)):
        if source.random() < 0.6 and not pods[index].gang:
            running = [*pods]
            running[index] = replace(pods[index], node=source.randrange(len(nodes)))
            candidate = replace(cluster, pods=tuple(running))
            devices = assign_devices(candidate, candidate.current)
            claims = [pod.node for pod in running if pod.node != PENDING and shapes[pod.shape].ports]
            if len(claims) > len(set(claims)):
                continue
            if devices is not None and not check(candidate, Placement(candidate.current, devices)):
                pods, cluster = running, candidate
    return cluster


def _random_shape(source: random.Random, index: int, rules: bool) -> Shape:
    made = shape(f"s{index}", source.randint(1, 6) * 100, priority=source.randint(0, 1))
    if not rules:
        return made
    other = app(f"s{source.randint(0, 2)}")
    match source.randint(0, 7):
        case 0:
            return replace(made, anti_affinity=(PodTerm(source.choice((HOST, ZONE)), other),))
        case 1:
            return replace(made, affinity=(PodTerm(source.choice((HOST, ZONE)), other),))
        case 2:
            return replace(made, spreads=(Spread(source.choice((HOST, ZONE)), 1, other),))
        case 3:
            return replace(made, ports=(HostPort(80),))
        case 4:
            return replace(made, device=DeviceRequest(source.choice((300, 500, 700, 1000))))
        case 5:
            return replace(made, device=DeviceRequest(1000, 2))
        case _:
            return made
