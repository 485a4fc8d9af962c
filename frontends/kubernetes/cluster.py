"""`kubectl get nodes,pods,... -A -o json` as a `Cluster`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from treadle.frontends.kubernetes import rules
from treadle.frontends.kubernetes.claims import Asked, Claims
from treadle.frontends.kubernetes.objects import Dump, Object, read_dump, reading, top_owner
from treadle.frontends.kubernetes.quantity import amount, parse_quantity
from treadle.ir.cluster.cluster import (
    PENDING,
    Amounts,
    Budget,
    Cluster,
    DeviceRequest,
    Devices,
    Gang,
    Node,
    Pod,
    Shape,
    require_fitting,
)
from treadle.ir.cluster.errors import InconsistentCluster, UnknownNode, UnsupportedRule
from treadle.ir.cluster.labels import selects
from treadle.ir.diagnostics import Place
from treadle.ir.plan import parse_json, read_text

T = TypeVar("T")
_GPU = "nvidia.com/gpu"
_FRACTION = "gpu-fraction"
_WHOLE_DEVICE = 1000
_NAME_LABELS = (
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
)
"""Labels that only number a workload's pods: rules that select by them are not seen, and identical pods stay so."""


def load_cluster(path: Path) -> Cluster:
    """Read a dump; see `cluster_from` for what is raised, and UnreadableFile, MalformedText for the file itself."""
    text = read_text(path)
    return cluster_from(parse_json(text, str(path)), str(path), text)


def cluster_from(document: object, file: str, text: str = "") -> Cluster:
    """Build the cluster of a parsed dump.

    Raises:
        NotACluster, WrongType, BadQuantity, NegativeAmount, DuplicateName, UnknownNode, CyclicOwners, UnsupportedRule:
            with the object they concern.
        OverfullNode: pods that run do not fit their node; the dump contradicts itself.
    """
    reader = _Reader(read_dump(document, file, text))
    cluster = reader.cluster()
    require_fitting(cluster)
    return cluster


class _Reader:
    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.claims = Claims(dump)
        self.fractions = any(_FRACTION in pod.strings("metadata", "annotations") for pod in dump.of("Pod"))
        classes = self.dump.of("PriorityClass")
        self.classes = dict(_each(lambda item: (item.name, int(item.get("value") or 0)), classes))
        self.default_priority = next((self.classes[c.name] for c in classes if c.get("globalDefault")), 0)
        self.shapes: dict[str, int] = {}
        self.shape_list: list[Shape] = []
        self.gangs: dict[str, Gang] = {}

    def cluster(self) -> Cluster:
        """Return the cluster; pods that have ended are left out."""
        nodes = tuple(_each(self._node, self.dump.of("Node")))
        index = {node.name: position for position, node in enumerate(nodes)}
        alive = [item for item in self.dump.of("Pod") if item.get("status", "phase") not in ("Succeeded", "Failed")]
        pods = tuple(_each(lambda item: self._pod(item, index), alive))
        nodes = tuple(self._with_claimed(node) for node in nodes)
        budgets = tuple(_each(self._budget, self.dump.of("PodDisruptionBudget")))
        shapes = tuple(self.shape_list)
        pods = tuple(_pin_by_budget(pod, shapes, budgets) for pod in pods)
        return Cluster(nodes, shapes, pods, budgets, tuple(self._sized(gang, pods) for gang in self.gangs.values()))

    def _node(self, item: Object) -> Node:
        capacity = self._amounts(
            item, item.table("status", "allocatable") or item.table("status", "capacity"), up=False
        )
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
            raise UnknownNode(place=item.place, pod=item.name, node=where)
        asked = self.claims.asked(item) if item.get("spec", "resourceClaims") else Asked({})
        owner = top_owner(self.dump, item)
        node = nodes[where] if where else PENDING
        return Pod(
            item.name,
            self._shape(item, owner, asked),
            node,
            pinned=self._pin(item) if node != PENDING else "",
            gang=self._gang(item),
            surge=owner[0] in ("Deployment", "ReplicaSet"),
            device=asked.held if node != PENDING else None,
        )

    def _shape(self, item: Object, owner: tuple[str, str], asked: Asked) -> int:
        requests = {**self._requests(item), **asked.requests}
        device = asked.device
        fraction = item.strings("metadata", "annotations").get(_FRACTION)
        if fraction is not None:
            share = parse_quantity(fraction, item.place) * _WHOLE_DEVICE
            device = DeviceRequest(max(1, -(-share.numerator // share.denominator)))
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
            rules.node_affinity(item),
            rules.tolerations(item),
            rules.pod_terms(item, "podAffinity"),
            rules.pod_terms(item, "podAntiAffinity"),
            rules.spreads(item),
            rules.host_ports(item),
            device,
            workload,
        )
        return self._known(shape)

    def _known(self, shape: Shape) -> int:
        """Return the index of the shape, a new one if no pod before had it."""
        key = repr(shape)
        if key not in self.shapes:
            self.shapes[key] = len(self.shape_list)
            self.shape_list.append(shape)
        return self.shapes[key]

    def _priority(self, item: Object) -> int:
        if (value := item.get("spec", "priority")) is not None:
            if not isinstance(value, int) or isinstance(value, bool):
                raise item.wrong("spec.priority", value, "an integer")
            return value
        name = item.get("spec", "priorityClassName")
        return self.classes.get(str(name), self.default_priority) if name else self.default_priority

    def _requests(self, item: Object) -> Amounts:
        """Effective requests: containers and sidecars together, or the largest init container beside its sidecars."""
        main: dict[str, Fraction] = {}
        for container in item.items("spec", "containers"):
            _add(main, self._quantities(item, container))
        sidecars: dict[str, Fraction] = {}
        peak: dict[str, Fraction] = {}
        for container in item.items("spec", "initContainers"):
            asked = self._quantities(item, container)
            if container.get("restartPolicy") == "Always":
                _add(sidecars, asked)
                candidate = dict(sidecars)
            else:
                candidate = dict(sidecars)
                _add(candidate, asked)
            peak = {
                name: max(peak.get(name, Fraction(0)), candidate.get(name, Fraction(0))) for name in {*peak, *candidate}
            }
        _add(main, sidecars)
        total = {name: max(main.get(name, Fraction(0)), peak.get(name, Fraction(0))) for name in {*main, *peak}}
        total |= self._read(item, item.table("spec", "resources", "requests"))
        _add(total, self._read(item, item.table("spec", "overhead")))
        return {**{name: amount(name, value, up=True) for name, value in sorted(total.items()) if value}, "pods": 1}

    def _quantities(self, item: Object, container: dict[str, object]) -> dict[str, Fraction]:
        """A container's requests; a limit without a request is also the request, as the API server fills it in."""
        resources = container.get("resources") or {}
        if not isinstance(resources, dict):
            raise item.wrong("resources", resources, "a table of fields")
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        return self._read(item, asked, str(container.get("name", "")))

    def _read(self, item: Object, amounts: dict[str, object], container: str = "") -> dict[str, Fraction]:
        inside = f"container `{container}`, " if container else ""
        return {
            name: parse_quantity(text, replace(item.place, path=f"{item.place.path}: {inside}{name}"))
            for name, text in amounts.items()
        }

    def _amounts(self, item: Object, amounts: dict[str, object], *, up: bool) -> Amounts:
        return {name: amount(name, value, up=up) for name, value in self._read(item, amounts).items()}

    def _pin(self, item: Object) -> str:
        annotations = item.strings("metadata", "annotations")
        references = item.items("metadata", "ownerReferences")
        volumes = item.items("spec", "volumes")
        if "kubernetes.io/config.mirror" in annotations:
            return "mirror pod"
        if any(reference.get("kind") in ("DaemonSet", "Node") for reference in references):
            return "DaemonSet"
        if not references:
            return "no controller"
        if annotations.get("karpenter.sh/do-not-disrupt") == "true":
            return "do-not-disrupt"
        if annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict") == "false":
            return "safe-to-evict: false"
        if item.get("metadata", "deletionTimestamp"):
            return "terminating"
        if any(self._is_local(item, volume) for volume in volumes):
            return "local volume"
        return ""

    def _is_local(self, item: Object, volume: dict[str, object]) -> bool:
        """A claim is local if its volume is bound to nodes, or if the dump does not show the volume."""
        claim = volume.get("persistentVolumeClaim")
        if not isinstance(claim, dict):
            return False
        bound = self.dump.find("PersistentVolumeClaim", item.namespace, str(claim.get("claimName")))
        shown = self.dump.find("PersistentVolume", "default", str(bound.get("spec", "volumeName"))) if bound else None
        return shown is None or shown.get("spec", "nodeAffinity") is not None

    def _gang(self, item: Object) -> str:
        name, size, topology = rules.gang(item)
        if not name:
            return ""
        full = f"{item.namespace}/{name}"
        if full not in self.gangs:
            least, key = self._minimum(item.namespace, name)
            self.gangs[full] = Gang(full, least or size, topology or key)
        return full

    def _minimum(self, namespace: str, name: str) -> tuple[int, str]:
        """Return the minimum and the topology key of a PodGroup; 0 and an empty one if the dump does not show it."""
        group = self.dump.find("PodGroup", namespace, name)
        if group is None:
            return 0, ""
        least = group.get("spec", "minMember") or group.get("spec", "policy", "gang", "minCount") or 0
        if not isinstance(least, int) or isinstance(least, bool) or least < 0:
            raise group.wrong("spec.minMember", least, "a whole number")
        if group.get("spec", "networkTopology", "mode") == "hard":
            raise UnsupportedRule(
                place=group.place, what="`networkTopology` of a PodGroup (its HyperNodes are no labels)"
            )
        keys = [str(one.get("key")) for one in group.items("spec", "schedulingConstraints", "topology")]
        if len(keys) > 1:
            raise UnsupportedRule(place=group.place, what="more than one topology of a PodGroup")
        return least, keys[0] if keys else ""

    def _sized(self, gang: Gang, pods: tuple[Pod, ...]) -> Gang:
        """A gang without a stated minimum needs all its pods; one that can never stand is a contradiction."""
        size = sum(pod.gang == gang.name for pod in pods)
        if gang.minimum > size:
            raise InconsistentCluster(
                message=f"the gang `{gang.name}` needs {gang.minimum} pods, and the dump has {size}", place=Place("")
            )
        return replace(gang, minimum=gang.minimum or size)

    def _budget(self, item: Object) -> Budget:
        allowed = item.get("status", "disruptionsAllowed")
        if not isinstance(allowed, int):
            raise item.wrong("status.disruptionsAllowed", allowed, "an integer")
        return Budget(
            item.name, item.namespace, rules.label_selector(item, item.get("spec", "selector")), max(0, allowed)
        )


def _pin_by_budget(pod: Pod, shapes: tuple[Shape, ...], budgets: tuple[Budget, ...]) -> Pod:
    """A pod that runs and whose budget allows no disruption stays, unless a replacement may start first."""
    if pod.node == PENDING or pod.pinned or pod.surge:
        return pod
    shape = shapes[pod.shape]
    for budget in budgets:
        if (
            not budget.disruptions_allowed
            and budget.namespace == shape.namespace
            and selects(budget.selector, shape.labels)
        ):
            return replace(pod, pinned=f"budget {budget.name}")
    return pod


def _each(read: Callable[[Object], T], items: Iterable[Object]) -> Iterator[T]:
    for item in items:
        with reading(item):
            yield read(item)


def _add(total: dict[str, Fraction], more: dict[str, Fraction]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, Fraction(0)) + value
