"""A cluster as the packer sees it: nodes, pod shapes, pods, budgets and gangs.

Amounts are integers in the unit Kubernetes schedules with: milli-cores for `cpu`, bytes for `memory` and
`ephemeral-storage`, whole units for `pods` and extended resources.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from treadle.ir.cluster.errors import (
    DuplicateName,
    InconsistentCluster,
    NegativeAmount,
    OverfullNode,
)
from treadle.ir.cluster.labels import Selector, Taint, Toleration, repelled_by, selects
from treadle.ir.errors import InvalidValue

Amounts = dict[str, int]
"""Amount by resource name; a missing name is zero."""

PENDING = -1
"""Node index of a pod that has no node."""


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """One alternative of a node affinity: requirements on labels and on the node's name."""

    labels: Selector = ()
    fields: Selector = ()


@dataclass(frozen=True, slots=True)
class PodTerm:
    """A required pod affinity or anti-affinity: other pods, in the same `topology_key` domain."""

    topology_key: str
    selector: Selector
    namespaces: tuple[str, ...] = ()
    """Namespaces of the other pods; empty means every namespace."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A hard topology spread constraint (`whenUnsatisfiable: DoNotSchedule`)."""

    topology_key: str
    max_skew: int
    selector: Selector
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that a pod claims; the empty address means every address."""

    number: int
    protocol: str = "TCP"
    address: str = ""

    def conflicts(self, other: HostPort) -> bool:
        """Whether two pods with these ports cannot share a node."""
        same = self.number == other.number and self.protocol == other.protocol
        return same and (self.address == other.address or not self.address or not other.address)


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A share of node devices: `count` devices of which `slots` each are needed.

    `profile` names a MIG profile: then one device is divided, and the slots must begin at a legal start.
    """

    slots: int
    count: int = 1
    profile: str = ""

    def __post_init__(self) -> None:
        if self.slots < 1 or self.count < 1:
            raise InvalidValue(message=f"a device request of {self.count} x {self.slots} slots")


@dataclass(frozen=True, slots=True)
class Devices:
    """The divisible devices of a node: `count` alike, of `slots` each.

    `starts` gives, for every profile the devices offer, the legal first slots; without it slots are interchangeable.
    """

    count: int
    slots: int = 1000
    model: str = ""
    starts: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything that identical pods share. `any_of` are alternatives of the node affinity (empty: no affinity)."""

    name: str
    requests: Amounts
    namespace: str = "default"
    labels: dict[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    selector: Selector = ()
    any_of: tuple[NodeTerm, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[PodTerm, ...] = ()
    anti_affinity: tuple[PodTerm, ...] = ()
    spreads: tuple[Spread, ...] = ()
    ports: tuple[HostPort, ...] = ()
    device: DeviceRequest | None = None
    workload: str = ""
    """The object whose template the pods come from, as `Kind/name`."""
    preempts: bool = True
    """Whether the default scheduler removes pods of lower priority for them (`preemptionPolicy`)."""

    def __post_init__(self) -> None:
        _refuse_negative(f"shape `{self.name}`", self.requests)


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster; `capacity` is what pods may request of it (allocatable)."""

    name: str
    capacity: Amounts
    labels: dict[str, str] = field(default_factory=dict[str, str])
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    devices: Devices | None = None
    cost: int = 0
    """Price of using the node, in any one unit (autoscaling: only nodes that may be added have one)."""
    optional: bool = False
    """Whether the node does not exist yet and may be added."""

    def __post_init__(self) -> None:
        _refuse_negative(f"node `{self.name}`", self.capacity)


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod: its shape, where it runs (node index or `PENDING`), and what moving it means."""

    name: str
    shape: int
    node: int = PENDING
    pinned: str = ""
    """Why the pod must stay as it is (`DaemonSet`, `mirror`, `local volume`, ...); empty: it may move."""
    restart_cost: int = 1
    gang: str = ""
    surge: bool = True
    """Whether a replacement may start before the old pod goes (else it is stopped first)."""
    device: tuple[int, int] | None = None
    """For a divided device: (device, first slot) it runs on."""
    gated: bool = False
    """Whether a scheduling gate keeps the pod from being bound."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A pod disruption budget: of the pods selected, so many may be down at once beyond those already down."""

    name: str
    namespace: str
    selector: Selector
    disruptions_allowed: int


@dataclass(frozen=True, slots=True)
class Gang:
    """Pods that run together or not at all: `minimum` of them, within one `topology_key` domain if that is set."""

    name: str
    minimum: int
    topology_key: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes, pods and their rules; consistent once built."""

    nodes: tuple[Node, ...]
    shapes: tuple[Shape, ...]
    pods: tuple[Pod, ...]
    budgets: tuple[Budget, ...] = ()
    gangs: tuple[Gang, ...] = ()
    remarks: tuple[str, ...] = ()
    """What the input says that the model does not honour, and what is taken instead."""

    def __post_init__(self) -> None:
        _refuse_duplicates("node", (node.name for node in self.nodes))
        shapes = self.shapes
        _refuse_duplicates("pod", (f"{shapes[pod.shape].namespace}/{pod.name}" for pod in self.pods))
        _refuse_duplicates("gang", (gang.name for gang in self.gangs))
        gangs = {gang.name for gang in self.gangs}
        for pod in self.pods:
            if not 0 <= pod.shape < len(self.shapes) or not PENDING <= pod.node < len(self.nodes):
                raise InvalidValue(message=f"pod `{pod.name}` points at shape {pod.shape}, node {pod.node}")
            if pod.gang and pod.gang not in gangs:
                raise InconsistentCluster(message=f"pod `{pod.name}` is of the gang `{pod.gang}`, which is not listed")

    @property
    def current(self) -> tuple[int, ...]:
        """Node of every pod now."""
        return tuple(pod.node for pod in self.pods)

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of all resources that some pod requests, sorted."""
        return tuple(sorted({name for shape in self.shapes for name, amount in shape.requests.items() if amount}))

    @property
    def tiers(self) -> tuple[int, ...]:
        """Distinct priorities of the pods, highest first."""
        return tuple(sorted({self.shapes[pod.shape].priority for pod in self.pods}, reverse=True))

    def priority(self, pod: int) -> int:
        """Return the priority of a pod by index."""
        return self.shapes[self.pods[pod].shape].priority


def usage(cluster: Cluster, nodes: Iterable[int]) -> list[Amounts]:
    """Return what the pods request of every node when pod `i` is on the node `nodes[i]`."""
    used: list[Amounts] = [{} for _ in cluster.nodes]
    for pod, node in zip(cluster.pods, nodes, strict=True):
        if node == PENDING:
            continue
        there = used[node]
        for name, amount in cluster.shapes[pod.shape].requests.items():
            there[name] = there.get(name, 0) + amount
    return used


def require_fitting(cluster: Cluster) -> None:
    """Raise OverfullNode if the pods that run now request more than their node has."""
    for index, (node, used) in enumerate(zip(cluster.nodes, usage(cluster, cluster.current), strict=True)):
        for name, amount in used.items():
            if amount > (there := node.capacity.get(name, 0)):
                raise OverfullNode(
                    node=node.name, resource=name, found=shown(name, amount), capacity=shown(name, there),
                    pods=_largest(cluster, index, name),
                )  # fmt: skip


def shown(name: str, amount: int) -> str:
    """Return an amount as Kubernetes writes it: milli-cores with their unit, large amounts of bytes in Mi."""
    if name == "cpu":
        return f"{amount}m"
    in_bytes = name in ("memory", "ephemeral-storage") or name.startswith("hugepages-")
    return f"{amount / 2**20:.6g}Mi" if in_bytes and amount >= 2**20 else str(amount)


def _largest(cluster: Cluster, node: int, name: str) -> str:
    """Return the three pods on a node that request most of a resource."""
    there = [pod for pod in cluster.pods if pod.node == node and cluster.shapes[pod.shape].requests.get(name)]
    there.sort(key=lambda pod: (-cluster.shapes[pod.shape].requests[name], pod.name))
    named = [f"{pod.name} ({shown(name, cluster.shapes[pod.shape].requests[name])})" for pod in there[:3]]
    return ", ".join(named) + (f" and {len(there) - 3} more" if len(there) > 3 else "")


def may_arrive(shape: Shape, node: Node) -> str:
    """Return why a pod of the shape may not be scheduled onto the node by itself, or an empty string.

    Looks at what concerns only the two: unschedulable, taints, selector, node affinity, devices, and size.
    """
    if node.unschedulable and not any(t.exists and t.key in ("", _CORDON) for t in shape.tolerations):
        return "the node is unschedulable"
    if taint := repelled_by(node.taints, shape.tolerations):
        return f"the taint {taint.key}={taint.value}:{taint.effect.value} is not tolerated"
    if not selects(shape.selector, node.labels):
        return "the node selector does not match"
    if shape.any_of and not any(_term_matches(term, node) for term in shape.any_of):
        return "the node affinity does not match"
    for name, amount in shape.requests.items():
        if amount > node.capacity.get(name, 0):
            return f"{name}: {shown(name, amount)} requested, {shown(name, node.capacity.get(name, 0))} there"
    return _devices_fit(shape, node)


_CORDON = "node.kubernetes.io/unschedulable"


def _term_matches(term: NodeTerm, node: Node) -> bool:
    if not term.labels and not term.fields:
        return False
    return selects(term.labels, node.labels) and selects(term.fields, {"metadata.name": node.name})


def _devices_fit(shape: Shape, node: Node) -> str:
    request = shape.device
    if request is None:
        return ""
    devices = node.devices
    if devices is None or request.count > devices.count or request.slots > devices.slots:
        return "the node has no such devices"
    if request.profile and request.profile not in devices.starts:
        return f"the devices do not offer the profile {request.profile}"
    if not request.profile and devices.starts:
        return "the devices are divided by profiles"
    return ""


def _refuse_duplicates(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DuplicateName(kind=kind, name=name)
        seen.add(name)


def _refuse_negative(what: str, amounts: Amounts) -> None:
    for name, amount in amounts.items():
        if amount < 0:
            raise NegativeAmount(what=f"{name} of {what}", found=amount)
