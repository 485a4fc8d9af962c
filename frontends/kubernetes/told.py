"""What is said of a dump beside the plan: facts that the model does not honour, or takes in one way of several."""

from __future__ import annotations

from treadle.frontends.kubernetes import rules
from treadle.frontends.kubernetes.objects import Dump, Object
from treadle.frontends.kubernetes.remarks import Remarks
from treadle.frontends.kubernetes.volumes import Attached, attaches

_QUIET = (
    "Event",
    "Namespace",
    "Service",
    "EndpointSlice",
    "Endpoints",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "Lease",
)
"""Kinds that say nothing about where pods may stand."""


def tell_nodes(dump: Dump, remarks: Remarks) -> None:
    """Tell nodes that are not ready: what runs there counts as running."""
    for item in dump.of("Node"):
        ready = next((c.get("status") for c in item.items("status", "conditions") if c.get("type") == "Ready"), "True")
        if ready != "True":
            remarks.add("nodes that are not ready; their pods count as running there", item.name)


def tell_pod(item: Object, attached: Attached, remarks: Remarks, *, limited: bool) -> None:
    """Tell what of a pod is not honoured; `limited`: nodes may limit how many volumes they attach."""
    name = f"{item.namespace}/{item.name}"
    bound = bool(item.get("spec", "nodeName"))
    if rules.prefers(item):
        remarks.add("pods with preferences (soft affinity, soft spread), which are no part of the objective", name)
    if rules.compares_taints(item):
        remarks.add("pods with tolerations that compare numbers, which tolerate nothing here", name)
    if limited and attaches(item):
        remarks.add("pods with volumes; how many volumes a node attaches (CSINode) is not kept", name)
    if attached.unseen and not bound:
        remarks.add("waiting pods with volumes that the dump does not show; they may be placed anywhere", name)
    if bound and item.get("metadata", "deletionTimestamp"):
        remarks.add("pods that are terminating; they hold their room and stay", name)
    if not bound and item.get("status", "nominatedNodeName"):
        remarks.add("pods that are nominated for a node; no room is held for them there", name)
    if item.items("spec", "schedulingGates"):
        remarks.add("pods behind scheduling gates; deploy/gates.yaml directs them, no wave binds them", name)


def tell_whole(dump: Dump, remarks: Remarks) -> None:
    """Tell what the dump lacks, and which kinds of it are not read."""
    if not dump.of("PodDisruptionBudget"):
        remarks.add("no PodDisruptionBudget is in the dump: none is respected")
    kinds = sorted((kind, count) for kind, count in dump.unread.items() if kind not in _QUIET)
    if kinds:
        remarks.add(f"kinds that are not read: {', '.join(f'{kind} ({count})' for kind, count in kinds)}")
