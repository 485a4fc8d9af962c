"""Claims for devices (DRA): whole ones as resources, partitions as profiles with legal positions."""

from __future__ import annotations

import copy
from fractions import Fraction
from typing import Any

import pytest

from tests.packing.test_frontends import NODE, OTHERS, POD, changed, dump
from treadle.frontends.kubernetes.cluster import cluster_from
from treadle.frontends.kubernetes.expressions import Device, selects
from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.errors import UnreadableSelector, UnsupportedClaim
from treadle.ir.cluster.objective import Objective
from treadle.ir.cluster.placement import DeviceUse, Placement, check
from treadle.ir.diagnostics import Place
from treadle.solvers.packing.solve import Options, pack

PROFILES = {"1g.10gb": (1, range(7)), "3g.40gb": (4, (0, 4)), "7g.80gb": (8, (0,))}
"""Memory slices and legal first slices on an 80 GB H100 (NVIDIA MIG user guide, supported profiles)."""
SMS = {"1g.10gb": 16, "3g.40gb": 60, "7g.80gb": 132}


def mig_slice(gpus: int = 1, **limits: str) -> dict[str, Any]:
    """A ResourceSlice as the NVIDIA DRA driver publishes partitionable devices."""
    devices, counters = [], []
    for gpu in range(gpus):
        slices = {f"memory-slice-{i}": {"value": "1"} for i in range(8)}
        limit = {"multiprocessors": {"value": "132"}, **{k: {"value": v} for k, v in limits.items()}}
        counters.append({"name": f"gpu-{gpu}", "counters": {**slices, **limit}})
        for profile, (width, starts) in PROFILES.items():
            for start in starts:
                used = {f"memory-slice-{i}": {"value": "1"} for i in range(start, start + width)}
                used |= {name: {"value": "1"} for name in limits}
                consumed = [
                    {"counterSet": f"gpu-{gpu}", "counters": {**used, "multiprocessors": {"value": str(SMS[profile])}}}
                ]
                attributes = {"type": {"string": "mig"}, "profile": {"string": profile}}
                name = f"gpu-{gpu}-mig-{profile.replace('.', '-')}-{start}"
                devices.append({"name": name, "attributes": attributes, "consumesCounters": consumed})
    spec = {"driver": "gpu.nvidia.com", "nodeName": "n1", "pool": {"name": "n1", "generation": 1}}
    return {
        "kind": "ResourceSlice",
        "metadata": {"name": "s"},
        "spec": {**spec, "devices": devices, "sharedCounters": counters},
    }


IS_MIG = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'mig'"
CLASS: dict[str, Any] = {
    "kind": "DeviceClass",
    "metadata": {"name": "mig.nvidia.com"},
    "spec": {"selectors": [{"cel": {"expression": IS_MIG}}]},
}


def claim(name: str, profile: str, device: str = "", **fields: Any) -> dict[str, Any]:
    expression = f"device.attributes['gpu.nvidia.com'].profile == '{profile}'"
    exactly = {"deviceClassName": "mig.nvidia.com", "selectors": [{"cel": {"expression": expression}}], **fields}
    results = [{"driver": "gpu.nvidia.com", "pool": "n1", "device": device}]
    status = {"allocation": {"devices": {"results": results}}} if device else {}
    spec = {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}
    return {"kind": "ResourceClaim", "metadata": {"name": name, "namespace": "web"}, "spec": spec, "status": status}


def pod(name: str, claimed: str, node: str | None = None) -> dict[str, Any]:
    made = changed(POD, "metadata", "name", value=name)
    made["spec"]["nodeName"] = node
    made["spec"]["containers"][0].pop("ports")
    made["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": claimed}]
    return made


def read(*items: dict[str, Any]) -> Cluster:
    large = changed(NODE, "status", "allocatable", value={"cpu": "64", "memory": "256Gi", "pods": "110"})
    return cluster_from(dump(large, CLASS, *items, *OTHERS), "f.json")


def test_partitions_are_profiles_with_positions() -> None:
    running = claim("a", "3g.40gb", "gpu-0-mig-3g-40gb-4")
    cluster = read(mig_slice(), running, claim("b", "1g.10gb"), pod("p", "a", "n1"), pod("q", "b"))
    devices = cluster.nodes[0].devices
    assert devices is not None
    assert (devices.count, devices.slots) == (1, 8)
    assert devices.starts == {"1g.10gb": tuple(range(7)), "3g.40gb": (0, 4), "7g.80gb": (0,)}
    assert cluster.pods[0].device == (0, 4)
    assert not check(cluster, Placement((0, 0), (DeviceUse(0, (0,), 4), DeviceUse(1, (0,), 3))))
    clash = check(cluster, Placement((0, 0), (DeviceUse(0, (0,), 4), DeviceUse(1, (0,), 5))))
    assert [finding.code for finding in clash] == ["TRD469"]


def test_partitions_are_packed_at_legal_positions() -> None:
    names = [f"c{i}" for i in range(9)]
    claims = [claim("big", "3g.40gb"), *(claim(name, "1g.10gb") for name in names)]
    pods = [pod("big", "big"), *(pod(f"p{name}", name) for name in names)]
    cluster = read(mig_slice(2), *claims, *pods)
    packed = pack(cluster, Options(Objective(), deterministic_s=5.0))
    assert not check(cluster, packed.placement)
    placed = sum(node != PENDING for node in packed.placement.nodes)
    assert placed == 10  # 4 slices and 3 or 4 small ones on one device, 7 small ones on the other


def test_whole_devices_are_resources() -> None:
    whole = copy.deepcopy(mig_slice())
    whole["spec"]["sharedCounters"] = []
    whole["spec"]["devices"] = [
        {"name": f"gpu-{i}", "attributes": {"type": {"string": "mig"}, "profile": {"string": "all"}}} for i in range(4)
    ]
    cluster = read(whole, claim("a", "all", count=3), pod("p", "a"))
    (name,) = [name for name in cluster.nodes[0].capacity if name.startswith("dra/")]
    assert cluster.nodes[0].capacity[name] == 4
    assert cluster.shapes[0].requests[name] == 3


def test_older_generations_of_a_pool_are_left_out() -> None:
    new = copy.deepcopy(mig_slice())
    new["metadata"]["name"], new["spec"]["pool"]["generation"] = "t", 2
    new["spec"]["devices"] = new["spec"]["devices"][:7]
    cluster = read(mig_slice(), new, claim("a", "1g.10gb"), pod("p", "a"))
    assert cluster.nodes[0].devices is not None
    assert set(cluster.nodes[0].devices.starts) == {"1g.10gb"}


@pytest.mark.parametrize(
    ("items", "word"),
    [
        ((mig_slice(), pod("p", "gone")), "nor the template"),
        ((mig_slice(), claim("a", "9g"), pod("p", "a")), "no device"),
        ((mig_slice(), claim("a", "1g.10gb", count=2), pod("p", "a")), "at once"),
        ((mig_slice(), claim("a", "1g.10gb", allocationMode="All"), pod("p", "a")), "All"),
        ((mig_slice(), claim("a", "1g.10gb", deviceClassName="x"), pod("p", "a")), "DeviceClass"),
        ((mig_slice(ofa="1"), claim("a", "1g.10gb"), pod("p", "a")), "binds beyond"),
        (
            (mig_slice(), changed(claim("a", "1g.10gb"), "status", value={"reservedFor": [{}, {}]}), pod("p", "a")),
            "shared",
        ),
        (
            (
                mig_slice(),
                changed(claim("a", "x"), "spec", "devices", value={"requests": [{"firstAvailable": []}]}),
                pod("p", "a"),
            ),
            "firstAvailable",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(items: tuple[dict[str, Any], ...], word: str) -> None:
    with pytest.raises(UnsupportedClaim) as caught:
        read(*items)
    assert word in caught.value.render()


def backed(resource: str, **spec: str) -> tuple[dict[str, Any], ...]:
    """A class of three whole devices, and two pods that request one of them as an extended resource, one running."""
    whole = mig_slice()
    whole["spec"] |= {"sharedCounters": [], "devices": [{"name": f"d{i}", "attributes": {}} for i in range(3)]}
    selectors = [{"cel": {"expression": "device.driver == 'gpu.nvidia.com'"}}]
    described = {"kind": "DeviceClass", "metadata": {"name": "whole"}, "spec": {"selectors": selectors, **spec}}
    asks = [{"name": "app", "resources": {"limits": {resource: "2"}}}]
    pods = [changed(changed(POD, "spec", "containers", value=asks), "metadata", "name", value=f"p{i}") for i in (1, 2)]
    return whole, described, pods[0], changed(pods[1], "spec", "nodeName", value=None)


@pytest.mark.parametrize(
    "items",
    [
        backed("example.com/gpu", extendedResourceName="example.com/gpu"),
        backed("deviceclass.resource.kubernetes.io/whole"),
    ],
)
def test_extended_resources_that_a_class_backs_count_as_its_devices(items: tuple[dict[str, Any], ...]) -> None:
    cluster = read(*items)
    assert cluster.shapes[0].requests["dra/gpu.nvidia.com/0"] == 2
    assert cluster.nodes[0].capacity["dra/gpu.nvidia.com/0"] == 3
    assert any("counts as a claim for whole devices" in remark for remark in cluster.remarks)
    assert pack(cluster, Options(deterministic_s=1.0)).placement.nodes == (0, PENDING)


def test_extended_resources_that_nodes_advertise_too_are_told() -> None:
    items = backed("nvidia.com/gpu", extendedResourceName="nvidia.com/gpu")
    cluster = cluster_from(dump(NODE, *items, *OTHERS), "f")
    assert cluster.shapes[0].requests["nvidia.com/gpu"] == 2
    told = [remark for remark in cluster.remarks if "extendedResourceName" in remark]
    assert len(told) == 1
    assert "only what nodes advertise counts: web/p1 (nvidia.com/gpu), web/p2 (nvidia.com/gpu)" in told[0]


H100 = Device(
    "gpu.nvidia.com",
    {("gpu.nvidia.com", "productName"): "H100 80GB", ("d", "flag"): True},
    {("gpu.nvidia.com", "memory"): Fraction(80 * 2**30)},
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("device.driver == 'gpu.nvidia.com'", True),
        ("device.driver == 'x' || device.attributes['d'].flag", True),
        ("!(device.attributes['d'].flag) && device.attributes['none'].such", False),
        ("device.attributes['none'].such == 'x'", False),
        ("device.attributes['none'].such == 'x' || device.driver.startsWith('gpu')", True),
        ("device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0", True),
        ("device.capacity['gpu.nvidia.com'].memory.isLessThan(quantity('80Gi'))", False),
        ("device.attributes['gpu.nvidia.com'].productName.lowerAscii().matches('^h100')", True),
        ("'d' in device.attributes && 'flag' in device.attributes['d']", True),
        ("device.attributes['gpu.nvidia.com']['productName'] in ['A', 'H100 80GB']", True),
    ],
)
def test_selectors(expression: str, expected: bool) -> None:
    assert selects(expression, H100, Place("f")) is expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "device.driver ==",
        "device.magic",
        "device.driver.size() > 2",
        "a ? b : c",
        "(device.driver == 'x'",
        "1 < 'x'",
    ],
)
def test_selectors_beyond_what_is_read(expression: str) -> None:
    with pytest.raises(UnreadableSelector):
        selects(expression, H100, Place("f"))
