"""`kubectl get nodes,pods,... -A -o json` as a `Cluster`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from treadle.frontends.kubernetes import rules
from treadle.frontends.kubernetes.backed import BackedResources
from treadle.frontends.kubernetes.budgets import budget_of, pinned_by_budgets
from treadle.frontends.kubernetes.claims import Asked, Claims
from treadle.frontends.kubernetes.documents import Entry, entries_of, entries_of_text, read_entries
from treadle.frontends.kubernetes.gangs import Gangs
from treadle.frontends.kubernetes.objects import Dump, Object, read_dump, reading, top_owner
from treadle.frontends.kubernetes.quantity import amount, parse_quantity
from treadle.frontends.kubernetes.remarks import Remarks
from treadle.frontends.kubernetes.requests import quantities, requests_of
from treadle.frontends.kubernetes.told import tell_nodes, tell_pod, tell_whole
from treadle.frontends.kubernetes.volumes import Attached, limits_attached, met_together, volumes_of
from treadle.ir.cluster.cluster import PENDING, Cluster, DeviceRequest, Devices, Node, Pod, Shape, require_fitting
from treadle.ir.cluster.errors import OverfullNode, UnknownNode, UnsupportedRule
from treadle.ir.cluster.labels import Selector, selects
from treadle.ir.diagnostics import Place

T = TypeVar("T")
_GPU = "nvidia.com/gpu"
_FRACTION = "gpu-fraction"
_RESTART_COST = "treadle.dev/restart-cost"
_WHOLE_DEVICE = 1000
_PODS = 110
"""Pods per node where a node does not say: the kubelet's default."""
_MOST_RESTART_COST = 1_000_000
_NAME_LABELS = (
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
)
"""Labels that only number a workload's pods: rules that select by them are not seen, and identical pods stay so."""
_SYSTEM_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""Priority classes that every cluster has (pkg/apis/scheduling/v1/helpers.go)."""


def load_cluster(path: Path, *more: Path) -> Cluster:
    """Read a dump, in one file or several; raises UnreadableFile, MalformedText, and what `cluster_from` raises."""
    entries = (entry for one in (path, *more) for entry in read_entries(one))
    return _cluster(entries, str(path))


def cluster_from(document: object, file: str, text: str = "") -> Cluster:
    """Build the cluster of a parsed dump; with its `text`, errors name lines.

    Raises:
        NotACluster, MissingField, WrongType, BadQuantity, NegativeAmount, DuplicateName, UnknownNode, CyclicOwners,
        InconsistentCluster, UnsupportedRule, UnsupportedClaim: with the object they concern.
        OverfullNode: pods that run do not fit their node; the dump contradicts itself.
    """
    return _cluster(entries_of_text(text, file) if text else entries_of(document, file), file)


def _cluster(entries: Iterable[Entry], file: str) -> Cluster:
    dump = read_dump(entries, file)
    cluster = _Reader(dump).cluster()
    try:
        require_fitting(cluster)
    except OverfullNode as error:
        node = dump.find("Node", "default", str(error.fields["node"]))
        error.place = node.near("allocatable") if node else None
        raise
    return cluster


class _Reader:
    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.remarks = Remarks()
        self.claims = Claims(dump)
        self.gangs = Gangs(dump)
        self.limited = limits_attached(dump)
        self.backed = BackedResources(dump, self.claims)
        self.fractions = any(_FRACTION in pod.strings("metadata", "annotations") for pod in dump.of("Pod"))
        classes = self.dump.of("PriorityClass")
        self.classes = {
            **_SYSTEM_CLASSES,
            **dict(_each(_class, classes)),
        }
        self.default_priority = next((self.classes[c.name] for c in classes if c.get("globalDefault")), 0)
        self.never = {c.name for c in classes if c.get("preemptionPolicy") == "Never"}
        self.spaces = {item.name: item.strings("metadata", "labels") for item in dump.of("Namespace")}
        self.shapes: dict[str, int] = {}
        self.shape_list: list[Shape] = []

    def cluster(self) -> Cluster:
        """Return the cluster; pods that have ended, or end before they ever ran, are left out."""
        nodes = tuple(_each(self._node, self.dump.of("Node")))
        tell_nodes(self.dump, self.remarks)
        index = {node.name: position for position, node in enumerate(nodes)}
        pods = tuple(_each(lambda item: self._pod(item, index), self._alive()))
        nodes = tuple(self._with_claimed(node) for node in nodes)
        shapes = tuple(self.shape_list)
        budgets = tuple(
            _each(lambda item: budget_of(item, pods, shapes, self.remarks), self.dump.of("PodDisruptionBudget"))
        )
        pods = pinned_by_budgets(pods, shapes, budgets)
        gangs = self.gangs.sized(pods, self.remarks)
        tell_whole(self.dump, self.remarks)
        return Cluster(nodes, shapes, pods, budgets, gangs, self.remarks.lines())

    def _alive(self) -> Iterator[Object]:
        for item in self.dump.of("Pod"):
            with reading(item):
                if item.get("status", "phase") in ("Succeeded", "Failed"):
                    self.gangs.ended(item)
                    self.remarks.add("pods that have ended are left out", item.name)
                elif item.get("metadata", "deletionTimestamp") and not item.get("spec", "nodeName"):
                    self.remarks.add("pods that are deleted before they ever ran are left out", item.name)
                else:
                    yield item

    def _node(self, item: Object) -> Node:
        field = "allocatable" if item.table("status", "allocatable") else "capacity"
        read = quantities(item, item.table("status", field))
        capacity = {name: amount(name, value, up=False) for name, value in read.items()}
        if "pods" not in capacity:
            self.remarks.add(f"nodes that do not say how many pods they take: {_PODS} each", item.name)
            capacity["pods"] = _PODS
        devices = None
        if self.fractions:
            devices = Devices(count, _WHOLE_DEVICE) if (count := capacity.pop(_GPU, 0)) else None
        return Node(
            item.name,
            capacity,
            item.strings("metadata", "labels"),
            rules.taints(item),
            bool(item.get("spec", "unschedulable")),
            devices,
        )

    def _with_claimed(self, node: Node) -> Node:
        """Return the node with the devices that claims may ask for."""
        if not self.dump.of("ResourceSlice"):
            return node
        devices = self.claims.partitions(node.name)
        if devices is not None and node.devices is not None:
            raise UnsupportedRule(place=Place(""), what=f"GPU fractions beside partitions on the node `{node.name}`")
        return replace(
            node, capacity={**node.capacity, **self.claims.capacity(node.name)}, devices=devices or node.devices
        )

    def _pod(self, item: Object, nodes: dict[str, int]) -> Pod:
        where = item.get("spec", "nodeName")
        if where and where not in nodes:
            raise UnknownNode(place=item.near(str(where)), pod=item.name, node=where)
        asked = self.claims.asked(item) if item.get("spec", "resourceClaims") else Asked({})
        owner = top_owner(self.dump, item)
        attached = volumes_of(self.dump, item)
        node = nodes[where] if where else PENDING
        tell_pod(item, attached, self.remarks, limited=self.limited)
        return Pod(
            item.name,
            self._shape(item, owner, asked, attached),
            node,
            pinned=self._pin(item, attached) if node != PENDING else "",
            restart_cost=self._restart_cost(item),
            gang=self.gangs.name_of(item),
            surge=owner[0] in ("Deployment", "ReplicaSet") and not attached.single and self._surges(item, owner),
            device=asked.held if node != PENDING else None,
            gated=bool(item.items("spec", "schedulingGates")),
        )

    def _shape(self, item: Object, owner: tuple[str, str], asked: Asked, attached: Attached) -> int:
        requests = self.backed.exchanged(item, requests_of(item), self.remarks)
        for name, count in asked.requests.items():
            requests[name] = requests.get(name, 0) + count
        device = asked.device
        fraction = item.strings("metadata", "annotations").get(_FRACTION)
        if fraction is not None:
            share = parse_quantity(fraction, item.near(fraction)) * _WHOLE_DEVICE
            if not 0 < share <= _WHOLE_DEVICE:
                raise item.wrong(_FRACTION, fraction, "a share above 0 and up to 1")
            device = DeviceRequest(-(-share.numerator // share.denominator))
        elif self.fractions and (count := requests.pop(_GPU, 0)):
            device = DeviceRequest(_WHOLE_DEVICE, count)
        workload = f"{owner[0]}/{owner[1]}" if owner[0] else ""
        shape = Shape(
            workload or item.name,
            requests,
            item.namespace,
            {k: v for k, v in item.strings("metadata", "labels").items() if k not in _NAME_LABELS},
            self._priority(item),
            rules.node_selector(item),
            met_together(rules.node_affinity(item), attached.terms),
            rules.tolerations(item),
            rules.pod_terms(item, "podAffinity", self._spaces),
            rules.pod_terms(item, "podAntiAffinity", self._spaces),
            rules.spreads(item),
            rules.host_ports(item),
            device,
            workload,
            self._preempts(item),
        )
        return self._known(shape)

    def _known(self, shape: Shape) -> int:
        """Return the index of the shape, a new one if no pod before had it."""
        key = repr(shape)
        if key not in self.shapes:
            self.shapes[key] = len(self.shape_list)
            self.shape_list.append(shape)
        return self.shapes[key]

    def _spaces(self, selector: Selector) -> tuple[str, ...]:
        """Return the namespaces that a selector selects; each has its name as a label."""
        if not self.spaces and any(one.key != _NAME_OF_SPACE for one in selector):
            self.remarks.add("no Namespace is in the dump: selectors of namespaces know only their names")
        names = {*self.spaces, *(pod.namespace for pod in self.dump.of("Pod"))}
        return tuple(
            name for name in sorted(names) if selects(selector, {**self.spaces.get(name, {}), _NAME_OF_SPACE: name})
        )

    def _priority(self, item: Object) -> int:
        if (value := item.get("spec", "priority")) is not None:
            return item.whole("spec.priority", value, least=-(2**31))
        name = item.get("spec", "priorityClassName")
        if name and name not in self.classes:
            fact = f"pods of priority classes that are not listed, which count as priority {self.default_priority}"
            self.remarks.add(fact, f"{item.namespace}/{item.name} ({name})")
        return self.classes.get(str(name), self.default_priority) if name else self.default_priority

    def _preempts(self, item: Object) -> bool:
        policy = item.get("spec", "preemptionPolicy")
        return policy != "Never" if policy else item.get("spec", "priorityClassName") not in self.never

    def _restart_cost(self, item: Object) -> int:
        text = item.strings("metadata", "annotations").get(_RESTART_COST)
        if text is None:
            return 1
        if not text.isdecimal() or not 1 <= int(text) <= _MOST_RESTART_COST:
            raise item.wrong(_RESTART_COST, text, f"a whole number from 1 to {_MOST_RESTART_COST}")
        return int(text)

    def _surges(self, item: Object, owner: tuple[str, str]) -> bool:
        """Whether a Deployment lets a replacement start before the old pod goes; so does one that is not shown."""
        described = self.dump.find("Deployment", item.namespace, owner[1]) if owner[0] == "Deployment" else None
        if described is None:
            return True
        surge = described.get("spec", "strategy", "rollingUpdate", "maxSurge")
        return described.get("spec", "strategy", "type") != "Recreate" and surge not in (0, "0", "0%")

    def _pin(self, item: Object, attached: Attached) -> str:
        annotations = item.strings("metadata", "annotations")
        references = item.items("metadata", "ownerReferences")
        if "kubernetes.io/config.mirror" in annotations:
            return "mirror pod"
        if any(reference.get("kind") in ("DaemonSet", "Node") for reference in references):
            return "DaemonSet"
        if not references:
            return "no controller"
        if annotations.get(_DO_NOT_DISRUPT, "false") != "false":
            return "do-not-disrupt"
        if annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict") == "false":
            return "safe-to-evict: false"
        if item.get("metadata", "deletionTimestamp"):
            return "terminating"
        if attached.unseen:
            return f"volume {attached.unseen} not in the dump"
        return "local volume" if attached.local else ""


def _class(item: Object) -> tuple[str, int]:
    return item.name, item.whole("value", item.get("value") or 0, least=-(2**31))


_DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"
_NAME_OF_SPACE = "kubernetes.io/metadata.name"


def _each(read: Callable[[Object], T], items: Iterable[Object]) -> Iterator[T]:
    for item in items:
        with reading(item):
            yield read(item)
