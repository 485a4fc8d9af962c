"""Gangs of a dump: which pods run together or not at all, how many of them, and within which topology domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from treadle.frontends.kubernetes import rules
from treadle.frontends.kubernetes.objects import Dump, Object
from treadle.frontends.kubernetes.remarks import Remarks
from treadle.ir.cluster.cluster import Gang, Pod
from treadle.ir.cluster.errors import UnsupportedRule


class Gangs:
    """The gangs that pods name; pods that have ended no longer count towards a minimum."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self._known: dict[str, Gang] = {}
        self._ended: Counter[str] = Counter()

    def name_of(self, pod: Object) -> str:
        """Return the name of a pod's gang with its namespace, an empty string for none."""
        name, size, topology = rules.gang(pod)
        if not name:
            return ""
        full = f"{pod.namespace}/{name}"
        if full not in self._known:
            least, key = self._stated(pod, name)
            self._known[full] = Gang(full, size if least is None else least, topology or key)
        return full if self._known[full].minimum >= 0 else ""

    def ended(self, pod: Object) -> None:
        """Count a pod that has ended."""
        if name := self.name_of(pod):
            self._ended[name] += 1

    def sized(self, pods: Sequence[Pod], remarks: Remarks) -> tuple[Gang, ...]:
        """Return the gangs of the pods; without a stated minimum a gang needs all its pods."""
        sizes = Counter(pod.gang for pod in pods if pod.gang)
        found: list[Gang] = []
        for name, size in sizes.items():
            gang = self._known[name]
            minimum = max(1, gang.minimum - self._ended[name]) if gang.minimum else size
            if minimum > size:
                remarks.add(
                    "gangs with fewer pods in the dump than they need; they stay as they are",
                    f"{name} ({size} of {minimum})",
                )
            found.append(replace(gang, minimum=minimum))
        return tuple(found)

    def _stated(self, pod: Object, name: str) -> tuple[int | None, str]:
        """Return the minimum and the topology key of a group: None if the dump does not say, -1 for no gang at all."""
        reference = pod.table("spec", "workloadRef")
        if reference:
            return self._of_workload(pod, reference), ""
        group = self.dump.find("PodGroup", pod.namespace, name)
        if group is None:
            return None, ""
        if group.get("spec", "schedulingPolicy", "basic") is not None:
            return _NO_GANG, ""
        least = group.get("spec", "minMember") or group.get("spec", "policy", "gang", "minCount")
        least = least or group.get("spec", "schedulingPolicy", "gang", "minCount") or 0
        if group.get("spec", "networkTopology", "mode") == "hard":
            raise UnsupportedRule(
                place=group.near("networkTopology"),
                what="`networkTopology` of a PodGroup (its HyperNodes are no labels)",
            )
        keys = [str(one.get("key")) for one in group.items("spec", "schedulingConstraints", "topology")]
        if len(keys) > 1:
            raise UnsupportedRule(place=group.near("topology"), what="more than one topology of a PodGroup")
        return group.whole("spec.minMember", least) or None, keys[0] if keys else ""

    def _of_workload(self, pod: Object, reference: dict[str, object]) -> int | None:
        """Return the minimum of a group of a Workload (scheduling.k8s.io), as `_stated` does."""
        workload = self.dump.find("Workload", pod.namespace, str(reference.get("name")))
        for group in workload.items("spec", "podGroups") if workload else []:
            if workload and group.get("name") == reference.get("podGroup"):
                gang = (group.get("policy") or {}).get("gang")
                return _NO_GANG if gang is None else workload.whole("policy.gang.minCount", gang.get("minCount") or 0)
        return None


_NO_GANG = -1
