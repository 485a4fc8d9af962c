"""Dynamic resource allocation (resource.k8s.io): what ResourceSlices offer and ResourceClaims ask for.

Devices without counters that the same requests select become one resource per selection: whole devices, counted. Of
partitionable devices (`consumesCounters`) every counter set is one physical device; the counters that its partitions
consume one by one in runs (`memory-slice-0`, `memory-slice-1`, ...) are its slots, so that a partition is a profile
with its legal first slots. Other counters must follow from the slots (checked by a dynamic program), else the claim is
refused: a model that ignored them would promise too much.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from treadle.frontends.kubernetes.documents import Data
from treadle.frontends.kubernetes.expressions import Device, selects
from treadle.frontends.kubernetes.objects import Dump, Object
from treadle.frontends.kubernetes.quantity import parse_quantity
from treadle.ir.cluster.cluster import Amounts, DeviceRequest, Devices
from treadle.ir.cluster.errors import UnsupportedClaim
from treadle.ir.diagnostics import Place

Key = tuple[str, str, str]
"""(driver, pool, device)"""


@dataclass(frozen=True, slots=True)
class Published:
    """A device of a ResourceSlice; `counters` by counter set and name."""

    key: Key
    node: str
    device: Device
    counters: dict[str, dict[str, Fraction]]
    place: Place


@dataclass(frozen=True, slots=True)
class Asked:
    """What a pod's claims ask for, and the device and slot of a partition it holds already."""

    requests: Amounts
    device: DeviceRequest | None = None
    held: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Slots:
    """The slots of one counter set, and the profile and first slot of every partition of it."""

    count: int
    partitions: dict[Key, tuple[str, int, int]]
    """(profile, first slot, slots)"""


class Claims:
    """All slices, classes and claims of a dump."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self._selected: dict[str, frozenset[Key]] = {}
        self._names: dict[frozenset[Key], str] = {}

    @cached_property
    def devices(self) -> dict[Key, Published]:
        """Devices of the newest generation of every pool, those bound to one node."""
        newest: dict[tuple[str, str], int] = {}
        for item in self.dump.of("ResourceSlice"):
            pool = _pool(item)
            newest[pool] = max(newest.get(pool, 0), int(item.get("spec", "pool", "generation") or 0))
        found: dict[Key, Published] = {}
        for item in self.dump.of("ResourceSlice"):
            if int(item.get("spec", "pool", "generation") or 0) == newest[_pool(item)]:
                for data in item.items("spec", "devices"):
                    published = _published(item, data)
                    found[published.key] = published
        return found

    @cached_property
    def _limits(self) -> dict[tuple[str, str, str], dict[str, Fraction]]:
        """Counters by (driver, pool, counter set)."""
        found: dict[tuple[str, str, str], dict[str, Fraction]] = {}
        for item in self.dump.of("ResourceSlice"):
            for data in item.items("spec", "sharedCounters"):
                found[*_pool(item), str(data.get("name"))] = _counters(item, data)
        return found

    def asked(self, pod: Object) -> Asked:
        """Return what the claims of a pod ask for.

        Raises:
            UnsupportedClaim, UnreadableSelector: see `docs/verbs/pack.md`.
        """
        requests: Amounts = {}
        device: DeviceRequest | None = None
        held: tuple[int, int] | None = None
        for data in pod.items("spec", "resourceClaims"):
            spec, allocation = self._claim(pod, data)
            for request in _requests_of(pod, spec):
                selected, count = self._select(pod, request)
                if not any(self.devices[key].counters for key in selected):
                    name = self._resource(pod, selected)
                    requests[name] = requests.get(name, 0) + count
                    continue
                if device is not None:
                    raise _refused(pod, "it asks for partitions of devices more than once")
                device = self._partition(pod, selected, count)
                held = self._held(allocation) if count == 1 else None
        return Asked(requests, device, held)

    def whole_devices(self, pod: Object, device_class: str) -> str:
        """Return the resource that stands for the whole devices of a class; raises UnsupportedClaim."""
        return self._resource(pod, self._select(pod, {"deviceClassName": device_class})[0])

    def capacity(self, node: str) -> Amounts:
        """Return the whole devices of a node by resource; call it after every pod has been read."""
        return {
            name: count
            for selected, name in self._names.items()
            if (count := sum(self.devices[key].node == node for key in selected))
        }

    def partitions(self, node: str) -> Devices | None:
        """Return the partitionable devices of a node."""
        sets = self._sets_of(node)
        if not sets:
            return None
        slots = [self._slots(key) for key in sets]
        starts: list[dict[str, tuple[int, ...]]] = []
        for one in slots:
            found: dict[str, set[int]] = defaultdict(set)
            for profile, first, _ in one.partitions.values():
                found[profile].add(first)
            starts.append({profile: tuple(sorted(first)) for profile, first in sorted(found.items())})
        if any(other != starts[0] for other in starts) or len({one.count for one in slots}) > 1:
            raise UnsupportedClaim(
                place=Place(""), what=f"the node `{node}`", reason="its devices offer different partitions"
            )
        return Devices(len(sets), slots[0].count, sets[0][0], starts[0])

    def _claim(self, pod: Object, data: Data) -> tuple[Data, Data]:
        """Return the spec of a claim of a pod, and its allocation (empty while there is none)."""
        name = data.get("resourceClaimName")
        if name is None:
            statuses = pod.items("status", "resourceClaimStatuses")
            name = next((s.get("resourceClaimName") for s in statuses if s.get("name") == data.get("name")), None)
        claim = next((c for c in self._of("ResourceClaim", pod) if c.name == name), None)
        if claim is not None:
            if len(claim.items("status", "reservedFor")) > 1:
                raise _refused(pod, f"the claim `{name}` is shared by several pods")
            return claim.table("spec"), claim.table("status", "allocation")
        template = data.get("resourceClaimTemplateName")
        for item in self._of("ResourceClaimTemplate", pod):
            if item.name == template:
                return item.table("spec", "spec"), {}
        raise _refused(pod, f"neither the claim `{name}` nor the template `{template}` is in the dump")

    def _of(self, kind: str, pod: Object) -> list[Object]:
        return [item for item in self.dump.of(kind) if item.namespace == pod.namespace]

    def _select(self, pod: Object, request: Data) -> tuple[frozenset[Key], int]:
        """Return the devices that a request selects, and how many of them it asks for."""
        if request.get("allocationMode") not in (None, "ExactCount") or request.get("adminAccess"):
            raise _refused(pod, f"`{request.get('allocationMode') or 'adminAccess'}` is not read")
        name = str(request.get("deviceClassName"))
        described = next((c for c in self.dump.of("DeviceClass") if c.name == name), None)
        if described is None:
            raise _refused(pod, f"the DeviceClass `{name}` is not in the dump")
        selectors = [*described.items("spec", "selectors"), *(request.get("selectors") or [])]
        texts = [str((selector.get("cel") or {}).get("expression", "false")) for selector in selectors]
        key = "\n".join(texts)
        if key not in self._selected:
            self._selected[key] = frozenset(
                one for one, published in self.devices.items()
                if all(selects(text, published.device, pod.place) for text in texts)
            )  # fmt: skip
        if not self._selected[key]:
            raise _refused(pod, f"no device of the dump is of the class `{name}` and its selectors")
        return self._selected[key], int(request.get("count") or 1)

    def _resource(self, pod: Object, selected: frozenset[Key]) -> str:
        """Return the resource that stands for a selection of whole devices; selections must not overlap in part."""
        if selected not in self._names:
            if any(selected & other for other in self._names) or any(self.devices[k].counters for k in selected):
                raise _refused(pod, "its selection overlaps another one in part")
            self._names[selected] = f"dra/{min(selected)[0]}/{len(self._names)}"
        return self._names[selected]

    def _partition(self, pod: Object, selected: frozenset[Key], count: int) -> DeviceRequest:
        kinds: set[tuple[str, int, int]] = set()
        for key in selected:
            if not self.devices[key].counters:
                raise _refused(pod, "it selects whole devices and partitions alike")
            slots = self._slots(self._set_of(key))
            profile, _, width = slots.partitions[key]
            kinds.add((profile, width, slots.count))
        if len({(profile, width) for profile, width, _ in kinds}) > 1:
            raise _refused(pod, "it selects partitions of several sizes")
        profile, width, total = min(kinds)
        if count > 1 and width < total:
            raise _refused(pod, f"it asks for {count} partitions at once")
        return DeviceRequest(width, count, profile)

    def _held(self, allocation: Data) -> tuple[int, int] | None:
        results = (allocation.get("devices") or {}).get("results") or []
        for result in results:
            key = (str(result.get("driver")), str(result.get("pool")), str(result.get("device")))
            if key in self.devices and self.devices[key].counters:
                sets = self._sets_of(self.devices[key].node)
                return sets.index(self._set_of(key)), self._slots(self._set_of(key)).partitions[key][1]
        return None

    def _set_of(self, key: Key) -> tuple[str, str, str]:
        published = self.devices[key]
        if len(published.counters) != 1:
            raise UnsupportedClaim(
                place=published.place, what=f"the device `{key[2]}`", reason="it consumes several counter sets"
            )
        return (key[0], key[1], next(iter(published.counters)))

    def _sets_of(self, node: str) -> list[tuple[str, str, str]]:
        found = {self._set_of(key) for key, one in self.devices.items() if one.node == node and one.counters}
        return sorted(found, key=lambda one: [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in _parts(one[2])])

    @cached_property
    def _known_slots(self) -> dict[tuple[str, str, str], _Slots]:
        return {}

    def _slots(self, counter_set: tuple[str, str, str]) -> _Slots:
        if counter_set not in self._known_slots:
            members = {
                key: one.counters[counter_set[2]]
                for key, one in self.devices.items()
                if key[:2] == counter_set[:2] and counter_set[2] in one.counters
            }
            limits = self._limits.get(counter_set, {})
            self._known_slots[counter_set] = _slots_of(counter_set, members, limits, self.devices)
        return self._known_slots[counter_set]


def _slots_of(
    counter_set: tuple[str, str, str],
    members: dict[Key, dict[str, Fraction]],
    limits: dict[str, Fraction],
    devices: dict[Key, Published],
) -> _Slots:
    """Return the slots of a counter set: counters of one, consumed in runs.

    Raises:
        UnsupportedClaim: the partitions are no runs, or another counter binds beyond the slots.
    """

    def refuse(reason: str) -> UnsupportedClaim:
        return UnsupportedClaim(place=Place(""), what=f"the counter set `{counter_set[2]}`", reason=reason)

    order = sorted(
        (name for name, most in limits.items() if most == 1 and re.search(r"\d+$", name)),
        key=lambda name: (_parts(name)[0], int(_parts(name)[-1])),
    )
    index = {name: position for position, name in enumerate(order)}
    partitions: dict[Key, tuple[str, int, int]] = {}
    for key, consumed in members.items():
        taken = sorted(index[name] for name, amount in consumed.items() if name in index and amount)
        if not taken or taken != list(range(taken[0], taken[-1] + 1)):
            raise refuse(f"the device `{key[2]}` does not consume a run of slots")
        partitions[key] = (_profile(devices[key], len(taken)), taken[0], len(taken))
    for name, most in limits.items():
        if name not in index and _heaviest(partitions, members, name, len(order)) > most:
            raise refuse(f"the counter `{name}` binds beyond the slots")
    return _Slots(len(order), partitions)


def _heaviest(
    partitions: dict[Key, tuple[str, int, int]], members: dict[Key, dict[str, Fraction]], name: str, slots: int
) -> Fraction:
    """Return the most that disjoint partitions consume of a counter together."""
    best = [Fraction(0)] * (slots + 1)
    for end in range(1, slots + 1):
        best[end] = best[end - 1]
        for key, (_, first, width) in partitions.items():
            if first + width == end:
                best[end] = max(best[end], best[first] + members[key].get(name, Fraction(0)))
    return best[slots]


def _profile(published: Published, width: int) -> str:
    """Return the name of a partition's profile: the attribute `profile`, else its type and width."""
    names = {name: value for (_, name), value in published.device.attributes.items()}
    return str(names.get("profile") or f"{names.get('type', 'partition')}-{width}")


def _pool(item: Object) -> tuple[str, str]:
    return str(item.get("spec", "driver")), str(item.get("spec", "pool", "name"))


def _published(item: Object, data: Data) -> Published:
    driver, pool = _pool(item)
    inside: Data = data.get("basic") or data
    attributes = {
        _qualified(name, driver): _attribute(value) for name, value in (inside.get("attributes") or {}).items()
    }
    capacity = {
        _qualified(name, driver): parse_quantity(value["value"] if isinstance(value, dict) else value, item.place)
        for name, value in (inside.get("capacity") or {}).items()
    }
    counters = {str(one.get("counterSet")): _counters(item, one) for one in inside.get("consumesCounters") or []}
    node = str(item.get("spec", "nodeName") or inside.get("nodeName") or "")
    key = (driver, pool, str(data.get("name")))
    return Published(key, node, Device(driver, attributes, capacity), counters, item.place)


def _counters(item: Object, data: Data) -> dict[str, Fraction]:
    return {
        str(name): parse_quantity(value["value"] if isinstance(value, dict) else value, item.place)
        for name, value in (data.get("counters") or {}).items()
    }


def _qualified(name: str, driver: str) -> tuple[str, str]:
    domain, _, plain = name.rpartition("/")
    return domain or driver, plain


def _attribute(value: Any) -> Any:
    """An attribute is one of `string`, `int`, `bool`, `version`."""
    if not isinstance(value, dict):
        return value
    inside = next(iter(value.values()), "")
    return Fraction(inside) if isinstance(inside, int) and not isinstance(inside, bool) else inside


def _requests_of(pod: Object, spec: Data) -> list[Data]:
    devices = spec.get("devices") or {}
    if any(len(one.get("requests") or [0, 0]) > 1 for one in devices.get("constraints") or []):
        raise _refused(pod, "`constraints` between its requests are not read")
    found: list[Data] = []
    for request in devices.get("requests") or []:
        if "firstAvailable" in request:
            raise _refused(pod, "`firstAvailable` is not read")
        found.append(request.get("exactly") or request)
    return found


def _refused(pod: Object, reason: str) -> UnsupportedClaim:
    return UnsupportedClaim(place=pod.place, what=f"the pod `{pod.name}`", reason=reason)


def _parts(name: str) -> list[str]:
    return re.findall(r"\d+|\D+", name) or [""]
