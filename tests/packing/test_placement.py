"""Every rule of a placement: a legal case, and a planted violation that the checker must find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.packing.builders import HOST, ZONE, app, node, shape
from treadle.ir.certificate import Status
from treadle.ir.cluster.cluster import (
    PENDING,
    Cluster,
    DeviceRequest,
    Devices,
    Gang,
    HostPort,
    Node,
    NodeTerm,
    Pod,
    PodTerm,
    Shape,
    Spread,
)
from treadle.ir.cluster.errors import DuplicateName, InconsistentCluster, NegativeAmount, OverfullNode
from treadle.ir.cluster.labels import Effect, Operator, Requirement, Taint, Toleration
from treadle.ir.cluster.placement import DeviceUse, Placement, check
from treadle.ir.errors import InvalidValue
from treadle.solvers.packing.solve import Options, pack

MIG_STARTS = {"1g": (0, 1, 2, 3, 4, 5, 6), "3g": (0, 4)}


def two(first: Shape, second: Shape | None = None, *, current: tuple[int, int] = (PENDING, PENDING)) -> Cluster:
    shapes = (first,) if second is None else (first, second)
    pods = tuple(Pod(f"p{i}", min(i, len(shapes) - 1), at) for i, at in enumerate(current))
    nodes = (node("n0"), node("n1"), node("n2", zone="b"), Node("bare", {"cpu": 1000}))
    return Cluster(nodes, shapes, pods)


def codes(cluster: Cluster, *nodes: int, devices: tuple[DeviceUse, ...] = ()) -> set[str]:
    return {finding.code for finding in check(cluster, Placement(nodes, devices))}


ANTI = shape("a", anti_affinity=(PodTerm(HOST, app("a")),))
NEAR = shape("a", affinity=(PodTerm(ZONE, app("b")),))
EVEN = shape("a", spreads=(Spread(ZONE, 1, app("a")),))
PORT = shape("a", ports=(HostPort(80),))
PICKY = shape("a", selector=(Requirement(ZONE, Operator.IN, ("b",)),))
NAMED = shape("a", any_of=(NodeTerm(fields=(Requirement("metadata.name", Operator.IN, ("n1",)),)),))


@pytest.mark.parametrize(
    ("cluster", "legal", "illegal", "code"),
    [
        (two(shape("a", 600)), (0, 1), (0, 0), "TRD461"),
        (two(PICKY), (2, PENDING), (0, PENDING), "TRD462"),
        (two(NAMED), (1, 1), (0, 1), "TRD462"),
        (two(shape("a", 1001)), (PENDING, PENDING), (0, PENDING), "TRD462"),
        (two(NEAR, shape("b")), (0, 1), (0, 2), "TRD463"),
        (two(NEAR, shape("b")), (PENDING, 3), (0, PENDING), "TRD463"),
        (two(ANTI), (0, 1), (0, 0), "TRD464"),
        (two(EVEN), (0, 2), (0, 1), "TRD465"),
        (two(EVEN), (0, 2), (0, 3), "TRD465"),
        (two(PORT), (0, 1), (1, 1), "TRD466"),
        (two(PORT, shape("b", ports=(HostPort(80, "UDP"),))), (1, 1), (1, 7), "TRD460"),
    ],
)
def test_planted_violations_are_found(
    cluster: Cluster, legal: tuple[int, ...], illegal: tuple[int, ...], code: str
) -> None:
    assert codes(cluster, *legal) == set()
    assert code in codes(cluster, *illegal)


def test_ports_with_other_addresses_do_not_conflict() -> None:
    ports = [HostPort(80, address=address) for address in ("10.0.0.1", "10.0.0.2", "")]
    assert not ports[0].conflicts(ports[1])
    assert ports[0].conflicts(ports[2])


def test_taints_keep_arrivals_off_but_not_those_who_are_there() -> None:
    tainted = node("n0", taints=(Taint("gpu", "yes", Effect.NO_SCHEDULE),))
    closed = node("n1", unschedulable=True)
    plain, tolerant = shape("a"), shape("b", tolerations=(Toleration("gpu", exists=True),))
    cluster = Cluster((tainted, closed), (plain, tolerant), (Pod("p", 0), Pod("q", 1), Pod("r", 0, node=0)))
    assert codes(cluster, PENDING, 0, 0) == set()
    assert codes(cluster, 0, PENDING, 0) == {"TRD462"}
    assert codes(cluster, 1, PENDING, 0) == {"TRD462"}
    soft = replace(cluster, nodes=(node("n0", taints=(Taint("x", "", Effect.PREFER_NO_SCHEDULE),)), closed))
    assert codes(soft, 0, 0, 0) == set()


def test_rules_between_pods_exempt_those_that_stay() -> None:
    cluster = two(ANTI, current=(0, 0))
    assert codes(cluster, 0, 0) == set()
    assert codes(cluster, 0, 1) == set()
    arriving = two(ANTI, current=(0, PENDING))
    assert codes(arriving, 0, 0) == {"TRD464"}


def test_pinned_pods_stay() -> None:
    cluster = Cluster((node("n0"), node("n1")), (shape("a"),), (Pod("p", 0, node=0, pinned="DaemonSet"),))
    assert codes(cluster, 0) == set()
    assert codes(cluster, 1) == {"TRD467"}
    assert codes(cluster, PENDING) == {"TRD467"}


def test_gangs_stand_whole_and_in_one_domain() -> None:
    nodes = (node("n0", zone="a"), node("n1", zone="a"), node("n2", zone="b"))
    pods = tuple(Pod(f"p{i}", 0, gang="g") for i in range(3))
    cluster = Cluster(nodes, (shape("a"),), pods, gangs=(Gang("g", 2, ZONE),))
    assert codes(cluster, 0, 1, PENDING) == set()
    assert codes(cluster, PENDING, PENDING, PENDING) == set()
    assert codes(cluster, 0, PENDING, PENDING) == {"TRD468"}
    assert codes(cluster, 0, 2, PENDING) == {"TRD468"}
    running = replace(cluster, pods=tuple(replace(pod, node=i) for i, pod in enumerate(pods[:2])) + pods[2:])
    assert codes(running, 0, PENDING, PENDING) == {"TRD468"}


def test_fractions_never_straddle_devices() -> None:
    nodes = (node("n0", devices=Devices(2, 1000)),)
    cluster = Cluster(nodes, (shape("a", 10, device=DeviceRequest(600)),), tuple(Pod(f"p{i}", 0) for i in range(3)))
    fine = (DeviceUse(0, (0,)), DeviceUse(1, (1,)))
    assert codes(cluster, 0, 0, PENDING, devices=fine) == set()
    assert codes(cluster, 0, 0, 0, devices=(*fine, DeviceUse(2, (1,)))) == {"TRD469"}
    assert codes(cluster, 0, 0, PENDING) == {"TRD469"}
    whole = Cluster(nodes, (shape("a", 10, device=DeviceRequest(1000, 2)),), (Pod("p", 0),))
    assert codes(whole, 0, devices=(DeviceUse(0, (0, 1)),)) == set()
    assert codes(whole, 0, devices=(DeviceUse(0, (0, 0)),)) == {"TRD469"}


def test_mig_profiles_need_legal_positions() -> None:
    nodes = (node("n0", devices=Devices(1, 8, "H100", MIG_STARTS)),)
    shapes = (
        shape("a", 10, device=DeviceRequest(4, profile="3g")),
        shape("b", 10, device=DeviceRequest(1, profile="1g")),
    )
    cluster = Cluster(nodes, shapes, (Pod("p", 0), Pod("q", 1)))
    assert codes(cluster, 0, 0, devices=(DeviceUse(0, (0,), 4), DeviceUse(1, (0,), 2))) == set()
    assert codes(cluster, 0, PENDING, devices=(DeviceUse(0, (0,), 2),)) == {"TRD469"}
    assert codes(cluster, 0, 0, devices=(DeviceUse(0, (0,), 0), DeviceUse(1, (0,), 2))) == {"TRD469"}


def test_extended_resources_and_counters_are_capacities() -> None:
    nodes = (Node("n0", {"cpu": 1000, "example.com/fpga": 1, "counters/memory": 8}),)
    shapes = (Shape("a", {"example.com/fpga": 1}), Shape("b", {"counters/memory": 5}))
    cluster = Cluster(nodes, shapes, (Pod("p", 0), Pod("q", 0), Pod("r", 1), Pod("s", 1)))
    assert codes(cluster, 0, PENDING, 0, PENDING) == set()
    assert codes(cluster, 0, 0, PENDING, PENDING) == {"TRD461"}
    assert codes(cluster, 0, PENDING, 0, 0) == {"TRD461"}


def test_placement_needs_one_node_per_pod() -> None:
    assert codes(two(shape("a")), 0) == {"TRD460"}


def test_clusters_are_consistent_once_built() -> None:
    with pytest.raises(DuplicateName):
        Cluster((node("n"), node("n")), (), ())
    with pytest.raises(DuplicateName):
        Cluster((), (shape("a"),), (Pod("p", 0), Pod("p", 0)))
    with pytest.raises(InvalidValue):
        Cluster((), (shape("a"),), (Pod("p", 0, node=3),))
    with pytest.raises(InconsistentCluster):
        Cluster((), (shape("a"),), (Pod("p", 0, gang="none"),))
    with pytest.raises(NegativeAmount):
        Shape("a", {"cpu": -1})
    with pytest.raises(InvalidValue):
        DeviceRequest(0)


def test_overfull_nodes_are_reported() -> None:
    cluster = Cluster((node("n0"),), (shape("a", 600),), (Pod("p", 0, 0), Pod("q", 0, 0)))
    with pytest.raises(OverfullNode, match="n0"):
        pack(cluster)


def test_ports_on_all_addresses_and_on_one() -> None:
    wide, narrow, other = (
        shape(name, ports=(HostPort(80, address=at),)) for name, at in zip("abc", ("", "1", "2"), strict=True)
    )
    cluster = Cluster((node("n0"),), (wide, narrow, other), tuple(Pod(f"p{i}", i) for i in range(3)))
    assert codes(cluster, 0, 0, PENDING) == codes(cluster, 0, PENDING, 0) == {"TRD466"}
    assert codes(cluster, PENDING, 0, 0) == set()
    packed = pack(cluster, Options(deterministic_s=1.0))
    assert packed.placement.nodes == (PENDING, 0, 0)
    assert packed.certificate.status is Status.OPTIMAL


def test_two_pods_with_one_host_port_contradict_each_other() -> None:
    twice = Cluster((node("n0"),), (PORT,), (Pod("p", 0, 0), Pod("q", 0, 0)))
    with pytest.raises(InconsistentCluster, match="port"):
        pack(twice)
