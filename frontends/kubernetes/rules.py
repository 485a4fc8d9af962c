"""Scheduling rules of nodes and pods: selectors, taints, affinity, spread, ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.frontends.kubernetes.documents import Data
from treadle.frontends.kubernetes.objects import Object
from treadle.ir.cluster.cluster import HostPort, NodeTerm, PodTerm, Spread
from treadle.ir.cluster.labels import Effect, Operator, Requirement, Selector, Taint, Toleration

_GROUP_LABELS = (
    "pod-group.scheduling.sigs.k8s.io",
    "pod-group.scheduling.sigs.k8s.io/name",
    "scheduling.x-k8s.io/pod-group",
    "kueue.x-k8s.io/pod-group-name",
)
_GROUP_ANNOTATIONS = ("scheduling.k8s.io/group-name", "scheduling.volcano.sh/group-name", "pod-group-name")
_GROUP_SIZES = ("kueue.x-k8s.io/pod-group-total-count",)
_TOPOLOGY_ANNOTATIONS = (
    "kueue.x-k8s.io/podset-required-topology",
    "kai.scheduler/topology-required-placement",
    "leaderworkerset.sigs.k8s.io/exclusive-topology",
    "alpha.jobset.sigs.k8s.io/exclusive-topology",
)
_JOBSET = "jobset.sigs.k8s.io/jobset-name"
_LWS_SIZE = "leaderworkerset.sigs.k8s.io/size"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

Spaces = Callable[[Selector], tuple[str, ...]]
"""Selector of namespaces -> their names."""


def taints(node: Object) -> tuple[Taint, ...]:
    """Return a node's taints; the one that `unschedulable` puts there is left to that field."""
    found = [
        Taint(str(taint.get("key", "")), str(taint.get("value") or ""), _effect(node, taint.get("effect")))
        for taint in node.items("spec", "taints")
    ]
    return tuple(taint for taint in found if taint.key != "node.kubernetes.io/unschedulable")


def tolerations(pod: Object) -> tuple[Toleration, ...]:
    """Return a pod's tolerations; those that compare numbers (`Gt`, `Lt`) are left out: they tolerate nothing here."""
    return tuple(
        Toleration(
            str(item.get("key") or ""),
            item.get("operator") == "Exists",
            str(item.get("value") or ""),
            _effect(pod, item["effect"]) if item.get("effect") else None,
        )
        for item in pod.items("spec", "tolerations")
        if item.get("operator") in (None, "", "Equal", "Exists")
    )


def compares_taints(pod: Object) -> bool:
    """Whether a toleration compares numbers, which is not read."""
    return any(item.get("operator") not in (None, "", "Equal", "Exists") for item in pod.items("spec", "tolerations"))


def prefers(pod: Object) -> bool:
    """Whether the pod has soft rules: preferred affinities, or spread that may be broken."""
    kinds = ("nodeAffinity", "podAffinity", "podAntiAffinity")
    soft = any(pod.items("spec", "affinity", kind, _PREFERRED) for kind in kinds)
    spreads_softly = any(
        item.get("whenUnsatisfiable") == "ScheduleAnyway" for item in pod.items("spec", "topologySpreadConstraints")
    )
    return soft or spreads_softly


def node_selector(pod: Object) -> Selector:
    """Return `spec.nodeSelector` as requirements."""
    return equals(pod.strings("spec", "nodeSelector"))


def node_affinity(pod: Object) -> tuple[NodeTerm, ...]:
    """Return the alternatives of the required node affinity."""
    return node_terms(pod, pod.items("spec", "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms"))


def node_terms(item: Object, terms: list[Data]) -> tuple[NodeTerm, ...]:
    """Return `nodeSelectorTerms`, of pods or of volumes."""
    return tuple(
        NodeTerm(_requirements(item, term.get("matchExpressions")), _requirements(item, term.get("matchFields")))
        for term in terms
    )


def pod_terms(pod: Object, field: str, spaces: Spaces) -> tuple[PodTerm, ...]:
    """Return the required terms of `podAffinity` or `podAntiAffinity`; `spaces` finds namespaces by their labels."""
    return tuple(
        PodTerm(
            str(term.get("topologyKey")),
            label_selector(pod, term.get("labelSelector")) + _own_labels(pod, term),
            _namespaces(pod, term, spaces),
        )
        for term in pod.items("spec", "affinity", field, _REQUIRED)
    )


def _namespaces(pod: Object, term: Data, spaces: Spaces) -> tuple[str, ...]:
    """Return the namespaces of a term: those it names and those it selects, else the pod's own; all of them are ()."""
    named, selector = tuple(map(str, term.get("namespaces") or [])), term.get("namespaceSelector")
    if selector == {}:
        return ()
    if selector is None:
        return named or (pod.namespace,)
    found = {*named, *spaces(label_selector(pod, selector))}
    return tuple(sorted(found)) or (_NOWHERE,)


_NOWHERE = "/"
"""No namespace has this name."""


def spreads(pod: Object) -> tuple[Spread, ...]:
    """Return the hard topology spread constraints."""
    return tuple(
        Spread(
            str(item.get("topologyKey")),
            _from_one(pod, "maxSkew", item.get("maxSkew")),
            label_selector(pod, item.get("labelSelector")) + _own_labels(pod, item),
            _from_one(pod, "minDomains", item.get("minDomains")),
            item.get("nodeAffinityPolicy", "Honor") == "Honor",
            item.get("nodeTaintsPolicy", "Ignore") == "Honor",
        )
        for item in pod.items("spec", "topologySpreadConstraints")
        if item.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
    )


def _from_one(pod: Object, field: str, value: Any) -> int:
    """Return a whole number from one on; an absent one is one."""
    if value is None:
        return 1
    return pod.whole(f"topologySpreadConstraints.{field}", value, least=1)


def host_ports(pod: Object) -> tuple[HostPort, ...]:
    """Return the ports of the node that containers and sidecars claim."""
    ports: list[HostPort] = []
    sidecars = [one for one in pod.items("spec", "initContainers") if one.get("restartPolicy") == "Always"]
    for container in [*pod.items("spec", "containers"), *sidecars]:
        for port in container.get("ports") or []:
            if number := port.get("hostPort"):
                address = str(port.get("hostIP") or "")
                ports.append(
                    HostPort(int(number), str(port.get("protocol") or "TCP"), "" if address == "0.0.0.0" else address)
                )
    return tuple(ports)


def gang(pod: Object) -> tuple[str, int, str]:
    """Return the gang of a pod: name ("" for none), number of pods if the pod says (else 0), required topology key.

    PodGroups of scheduler-plugins, Volcano, KAI and Kueue by label or annotation; groups of a Workload
    (`scheduling.k8s.io`) by reference; the replicas of a LeaderWorkerSet; a JobSet (with an exclusive topology: each of
    its jobs).
    """
    labels, annotations = pod.strings("metadata", "labels"), pod.strings("metadata", "annotations")
    topology = next((annotations[key] for key in _TOPOLOGY_ANNOTATIONS if key in annotations), "")
    name = next((labels[key] for key in _GROUP_LABELS if key in labels), "")
    name = name or next((annotations[key] for key in _GROUP_ANNOTATIONS if key in annotations), "")
    name = name or str(pod.get("spec", "schedulingGroup", "podGroupName") or "")
    if name:
        return name, _size(pod, annotations, *_GROUP_SIZES), topology
    if reference := pod.table("spec", "workloadRef"):
        parts = [reference.get(field) for field in ("name", "podGroup", "podGroupReplicaKey")]
        return "/".join(str(part) for part in parts if part), 0, topology
    if "leaderworkerset.sigs.k8s.io/group-key" in labels:
        return labels["leaderworkerset.sigs.k8s.io/group-key"], _size(pod, annotations, _LWS_SIZE), topology
    if _JOBSET in labels:
        job = labels.get("jobset.sigs.k8s.io/job-key", "") if topology else ""
        return f"{labels[_JOBSET]}/{job}" if job else labels[_JOBSET], 0, topology
    return "", 0, ""


def _size(pod: Object, annotations: dict[str, str], *keys: str) -> int:
    for key in keys:
        if key in annotations:
            if not annotations[key].isdecimal():
                raise pod.wrong(key, annotations[key], "a whole number")
            return int(annotations[key])
    return 0


def label_selector(item: Object, selector: Any) -> Selector:
    """Return a LabelSelector as requirements; an absent one selects nothing."""
    if selector is None:
        return (Requirement("", Operator.EXISTS),)
    if not isinstance(selector, dict):
        raise item.wrong("labelSelector", selector, "a table of fields")
    labels = {str(key): str(value) for key, value in (selector.get("matchLabels") or {}).items()}
    return equals(labels) + _requirements(item, selector.get("matchExpressions"))


def equals(labels: dict[str, str]) -> Selector:
    """Return requirements that ask for exactly these labels."""
    return tuple(Requirement(key, Operator.IN, (value,)) for key, value in sorted(labels.items()))


def _own_labels(pod: Object, item: Data) -> Selector:
    """`matchLabelKeys`, `mismatchLabelKeys`: the pod's own values of these labels, or other ones."""
    own = pod.strings("metadata", "labels")
    others = [key for key in item.get("mismatchLabelKeys") or [] if key in own]
    unlike = tuple(Requirement(key, Operator.NOT_IN, (own[key],)) for key in others)
    return equals({key: own[key] for key in item.get("matchLabelKeys") or [] if key in own}) + unlike


def _requirements(item: Object, expressions: Any) -> Selector:
    if expressions is None:
        return ()
    if not isinstance(expressions, list):
        raise item.wrong("matchExpressions", expressions, "a list")
    found: list[Requirement] = []
    for expression in expressions:
        operators = {operator.value: operator for operator in Operator}
        if expression.get("operator") not in operators:
            raise item.wrong("operator", expression.get("operator"), f"one of {', '.join(operators)}")
        values = tuple(str(value) for value in expression.get("values") or [])
        found.append(Requirement(str(expression.get("key")), operators[expression["operator"]], values))
    return tuple(found)


def _effect(item: Object, word: Any) -> Effect:
    try:
        return Effect(word)
    except ValueError:
        raise item.wrong("effect", word, f"one of {', '.join(e.value for e in Effect)}") from None
