"""Extended resources that a DeviceClass backs (KEP-5004): the scheduler writes the claims of pods that request them.

Where no node advertises such a resource, a request for it counts as a claim for so many devices of the class. Where
some node does (a device plugin), only what nodes advertise counts, and that is told.
"""

from __future__ import annotations

from treadle.frontends.kubernetes.claims import Claims
from treadle.frontends.kubernetes.objects import Dump, Object
from treadle.frontends.kubernetes.remarks import Remarks
from treadle.ir.cluster.cluster import Amounts

_IMPLICIT = "deviceclass.resource.kubernetes.io/"


class BackedResources:
    """The extended resources of a dump's DeviceClasses."""

    def __init__(self, dump: Dump, claims: Claims) -> None:
        self._claims = claims
        self._classes: dict[str, str] = {}
        for item in dump.of("DeviceClass"):
            self._classes[_IMPLICIT + item.name] = item.name
            if name := item.get("spec", "extendedResourceName"):
                self._classes[str(name)] = item.name
        self._advertised = {
            name
            for item in (dump.of("Node") if self._classes else ())
            for field in ("allocatable", "capacity")
            for name, amount in item.table("status", field).items()
            if str(amount) != "0"
        }

    def exchanged(self, pod: Object, requests: Amounts, remarks: Remarks) -> Amounts:
        """Return the requests, those for backed resources as devices of their class.

        Raises:
            UnsupportedClaim: the class selects partitions, overlaps another selection in part, or selects nothing.
        """
        made: Amounts = {}
        for name, count in requests.items():
            found = name
            if name in self._classes and name in self._advertised:
                remarks.add(
                    "pods that request what a DeviceClass backs (`extendedResourceName`) and nodes advertise too; only "
                    "what nodes advertise counts",
                    f"{pod.namespace}/{pod.name} ({name})",
                )
            elif name in self._classes:
                remarks.add(
                    "pods that request what a DeviceClass backs (`extendedResourceName`); it counts as a claim for "
                    "whole devices of the class",
                    f"{pod.namespace}/{pod.name} ({name})",
                )
                found = self._claims.whole_devices(pod, self._classes[name])
            made[found] = made.get(found, 0) + count
        return made
