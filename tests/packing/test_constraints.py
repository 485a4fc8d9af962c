"""Every constraint of the model, one by one: a legal placement passes, and the checker rejects a planted violation."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest

from tests.packing.builders import HOST, ZONE, app, node, shape
from treadle.costmodels import migration
from treadle.costmodels.packing_claims import recheck
from treadle.ir.cluster import placement as placements
from treadle.ir.cluster.cluster import (
    PENDING,
    Budget,
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
from treadle.ir.cluster.labels import Effect, Operator, Requirement, Taint, Toleration
from treadle.ir.cluster.migration import Migration, Step, StepKind
from treadle.ir.cluster.objective import Objective, Tail
from treadle.ir.cluster.placement import DeviceUse, Placement, check
from treadle.solvers.packing.solve import Options, pack

AWAY = (PENDING, PENDING)
ONE_OF_TWO = Requirement("disk", Operator.IN, ("ssd",))
MIG = {"1g": tuple(range(7)), "3g": (0, 4)}


@dataclass(frozen=True)
class Case:
    """Two pods on some of four nodes: where they may be, and where the checker must say no."""

    shapes: tuple[Shape, ...]
    legal: tuple[int, int]
    illegal: tuple[int, int]
    code: str
    now: tuple[int, int] = AWAY
    nodes: tuple[Node, ...] = ()
    pinned: str = ""
    gang: Gang | None = None
    legal_devices: tuple[DeviceUse, ...] = ()
    illegal_devices: tuple[DeviceUse, ...] = ()

    def cluster(self) -> Cluster:
        pods = tuple(
            Pod(f"p{i}", min(i, len(self.shapes) - 1), at, pinned=self.pinned if at != PENDING else "",
                gang=self.gang.name if self.gang else "")
            for i, at in enumerate(self.now)
        )  # fmt: skip
        return Cluster(self.nodes or NODES, self.shapes, pods, gangs=(self.gang,) if self.gang else ())


NODES = (
    node("n0", capacity={"cpu": 1000, "memory": 100, "ephemeral-storage": 10, "pods": 1, "vendor.com/fpga": 1}),
    node("n1", labels={HOST: "n1", ZONE: "a", "disk": "ssd"}, taints=(Taint("t", "v", Effect.NO_SCHEDULE),)),
    node("n2", zone="b", unschedulable=True),
    node("n3", zone="b"),
)
TOLERANT = (Toleration("t", False, "v"),)
GPUS = tuple(node(f"g{i}", devices=Devices(2)) for i in range(2))
SLICED = (node("g0", devices=Devices(1, 8, starts=MIG)), node("g1", devices=Devices(1, 8, starts=MIG)))
RACKS = tuple(node(f"r{i}", labels={HOST: f"r{i}", "rack": "ab"[i // 2], "nvlink": str(i)}) for i in range(4))
SMALL, LARGE = DeviceRequest(1, profile="1g"), DeviceRequest(4, profile="3g")


def asks(**amounts: int) -> tuple[Shape, ...]:
    return (Shape("a", {name.replace("__", "/").replace("_", "-"): amount for name, amount in amounts.items()}),)


CASES = {
    "cpu": Case((shape("a", 600),), (0, 3), (3, 3), "TRD461"),
    "memory": Case(asks(memory=60), (0, PENDING), (0, 0), "TRD461"),
    "ephemeral storage": Case(asks(ephemeral_storage=6), (0, PENDING), (0, 0), "TRD461"),
    "pods per node": Case(asks(pods=1), (0, PENDING), (0, 0), "TRD461"),
    "extended resource": Case((Shape("a", {"vendor.com/fpga": 1}),), (0, PENDING), (0, 0), "TRD461"),
    "device counter (DRA)": Case(
        (Shape("a", {"dra/gpu/0": 3}),), (0, 1), (0, 0), "TRD461",
        nodes=tuple(node(f"d{i}", capacity={"dra/gpu/0": 4}) for i in range(2)),
    ),
    "too large for the node": Case((shape("a", 1001),), AWAY, (0, PENDING), "TRD462"),
    "taint": Case((shape("a"),), (0, 3), (1, 3), "TRD462"),
    "toleration of another value": Case(
        (shape("a", tolerations=TOLERANT), shape("b", tolerations=(Toleration("t", False, "w"),))),
        (1, 0), (0, 1), "TRD462",
    ),
    "node selector": Case((shape("a", selector=(ONE_OF_TWO,), tolerations=TOLERANT),), (1, 1), (0, 1), "TRD462"),
    "node affinity by label": Case(
        (shape("a", any_of=(NodeTerm((ONE_OF_TWO,)),), tolerations=TOLERANT),), (1, 1), (3, 1), "TRD462"
    ),
    "node affinity by name": Case(
        (shape("a", any_of=(NodeTerm(fields=(Requirement("metadata.name", Operator.IN, ("n3",)),)),)),),
        (3, 3), (0, 3), "TRD462",
    ),
    "unschedulable node": Case((shape("a"),), (0, 3), (2, 3), "TRD462"),
    "unschedulable node, pod there": Case((shape("a"),), (2, 3), (3, 2), "TRD462", now=(2, 3)),
    "pod affinity": Case(
        (shape("a", affinity=(PodTerm(ZONE, app("b")),)), shape("b", tolerations=TOLERANT)), (0, 1), (0, 3), "TRD463"
    ),
    "pod anti-affinity": Case((shape("a", anti_affinity=(PodTerm(ZONE, app("a")),)),), (0, 3), (3, 3), "TRD464"),
    "anti-affinity of a pod that stays": Case(
        (shape("a", anti_affinity=(PodTerm(ZONE, app("b")),)), shape("b", tolerations=TOLERANT)),
        (0, 3), (0, 1), "TRD464", now=(0, PENDING),
    ),
    "hard topology spread": Case((shape("a", spreads=(Spread(ZONE, 1, app("a")),)),), (0, 3), (3, 3), "TRD465"),
    "host port": Case((shape("a", ports=(HostPort(80),)),), (0, 3), (3, 3), "TRD466"),
    "pinned: DaemonSet": Case((shape("a"),), (0, 3), (3, 3), "TRD467", now=(0, 3), pinned="DaemonSet"),
    "pinned: mirror pod": Case((shape("a"),), (0, 3), (0, PENDING), "TRD467", now=(0, 3), pinned="mirror pod"),
    "pinned: local volume": Case((shape("a"),), (0, 3), (3, 0), "TRD467", now=(0, 3), pinned="local volume"),
    "pinned: do-not-disrupt": Case((shape("a"),), (0, 3), (3, 3), "TRD467", now=(0, 3), pinned="do-not-disrupt"),
    "gang": Case((shape("a"),), (0, 3), (0, PENDING), "TRD468", gang=Gang("g", 2)),
    "gang in one rack": Case((shape("a"),), (0, 1), (1, 2), "TRD468", nodes=RACKS, gang=Gang("g", 2, "rack")),
    "gang in one NVLink domain": Case(
        (shape("a"),), (0, 0), (0, 1), "TRD468", nodes=RACKS, gang=Gang("g", 2, "nvlink")
    ),
    "fractional GPU: a device overfull": Case(
        (shape("a", device=DeviceRequest(600)),), (0, 0), (0, 0), "TRD469", nodes=GPUS,
        legal_devices=(DeviceUse(0, (0,)), DeviceUse(1, (1,))),
        illegal_devices=(DeviceUse(0, (0,)), DeviceUse(1, (0,))),
    ),
    "fractional GPU: no such device": Case(
        (shape("a", device=DeviceRequest(600)),), (0, 0), (0, 0), "TRD469", nodes=GPUS,
        legal_devices=(DeviceUse(0, (0,)), DeviceUse(1, (1,))),
        illegal_devices=(DeviceUse(0, (0,)), DeviceUse(1, (2,))),
    ),
    "whole GPUs": Case(
        (shape("a", device=DeviceRequest(1000, 2)),), (0, 1), (0, 1), "TRD469", nodes=GPUS,
        legal_devices=(DeviceUse(0, (0, 1)), DeviceUse(1, (0, 1))),
        illegal_devices=(DeviceUse(0, (0, 1)), DeviceUse(1, (0, 0))),
    ),
    "MIG: no legal position": Case(
        (shape("a", device=LARGE),), (0, 0), (0, 0), "TRD469", nodes=SLICED,
        legal_devices=(DeviceUse(0, (0,), 0), DeviceUse(1, (0,), 4)),
        illegal_devices=(DeviceUse(0, (0,), 0), DeviceUse(1, (0,), 3)),
    ),
    "MIG: a slot used twice": Case(
        (shape("a", device=LARGE), shape("b", device=SMALL)), (0, 0), (0, 0), "TRD469", nodes=SLICED,
        legal_devices=(DeviceUse(0, (0,), 0), DeviceUse(1, (0,), 4)),
        illegal_devices=(DeviceUse(0, (0,), 0), DeviceUse(1, (0,), 3)),
    ),
    "a node that does not exist": Case((shape("a"),), (0, 3), (0, 9), "TRD460"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_planted_violation_is_rejected(case: Case) -> None:
    cluster = case.cluster()
    assert check(cluster, Placement(case.legal, case.legal_devices)) == []
    assert case.code in {finding.code for finding in check(cluster, Placement(case.illegal, case.illegal_devices))}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_packer_keeps_what_the_checker_checks(case: Case) -> None:
    packed = pack(case.cluster(), Options(deterministic_s=1.0))
    assert check(case.cluster(), packed.placement) == []


def test_every_code_of_the_checker_is_planted() -> None:
    stated = set(re.findall(r"TRD4\d\d", placements.check.__doc__ or ""))
    assert stated == {case.code for case in CASES.values()}


def test_budgets_are_rejected_in_the_replay() -> None:
    pods = tuple(Pod(f"p{i}", 0, 0, surge=False) for i in range(2))
    cluster = Cluster((node("n0"), node("n1")), (shape("a"),), pods, (Budget("b", "default", app("a"), 1),))
    goal = Placement((1, 1))
    steps = tuple(Step(StepKind.MOVE, i, 0, 1) for i in range(2))
    one_by_one = migration.replay(cluster, Migration(((steps[0],), (steps[1],)), 2))
    assert one_by_one.findings == ()
    assert one_by_one.nodes == goal.nodes
    assert {finding.code for finding in migration.replay(cluster, Migration((steps,), 2)).findings} == {"TRD472"}


def test_a_price_of_added_nodes_that_is_not_paid_is_rejected() -> None:
    cluster = Cluster(
        (node("n0", cost=3, optional=True), node("n1", cost=5, optional=True)), (shape("a"),), (Pod("p", 0),)
    )
    objective = Objective(tail=Tail.COST)
    packed = pack(cluster, Options(objective, deterministic_s=1.0))
    levels = packed.certificate.levels
    cheaper = replace(packed.certificate, levels=(*levels[:-1], replace(levels[-1], value=2, bound=2)))
    assert levels[-1].value == 3
    assert {f.code for f in recheck(cluster, packed.placement, objective, cheaper).findings} >= {"TRD475"}
