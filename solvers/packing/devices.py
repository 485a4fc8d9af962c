"""Puts the pods of a node on its devices: exact for what fits, by depth-first search with the largest pods first."""

from __future__ import annotations

from collections import defaultdict

from treadle.ir.cluster.cluster import PENDING, Cluster, Devices
from treadle.ir.cluster.placement import DeviceUse

_TRIES = 20_000


def assign_devices(cluster: Cluster, nodes: tuple[int, ...]) -> tuple[DeviceUse, ...] | None:
    """Return the devices of every placed pod that asks for some, or None if some node cannot hold its pods.

    Pods that stay keep the device they are known to be on.
    """
    on_node: dict[int, list[int]] = defaultdict(list)
    for pod, node in enumerate(nodes):
        if node != PENDING and cluster.shapes[cluster.pods[pod].shape].device is not None:
            on_node[node].append(pod)
    uses: list[DeviceUse] = []
    for node, pods in sorted(on_node.items()):
        devices = cluster.nodes[node].devices
        found = _Filling(cluster, devices, node, pods).run() if devices is not None else None
        if found is None:
            return None
        uses += found
    return tuple(sorted(uses, key=lambda use: use.pod))


class _Filling:
    def __init__(self, cluster: Cluster, devices: Devices, node: int, pods: list[int]) -> None:
        self.cluster = cluster
        self.devices = devices
        self.taken: list[set[int]] = [set() for _ in range(devices.count)]
        self.free = [devices.slots] * devices.count
        self.uses: list[DeviceUse] = []
        self.tries = 0
        known = [pod for pod in pods if cluster.pods[pod].device is not None and cluster.pods[pod].node == node]
        self.fits = all(self._put_known(pod) for pod in known)
        self.rest = sorted((pod for pod in pods if pod not in known), key=self._rank)

    def run(self) -> list[DeviceUse] | None:
        """Return the uses of all pods of the node, or None."""
        return self.uses if self.fits and self._place(0) else None

    def _rank(self, pod: int) -> tuple[int, int, int]:
        request = self.cluster.shapes[self.cluster.pods[pod].shape].device
        return (-(request.count if request else 0), -(request.slots if request else 0), pod)

    def _put_known(self, pod: int) -> bool:
        device = self.cluster.pods[pod].device or (0, 0)
        request = self.cluster.shapes[self.cluster.pods[pod].shape].device
        if request is None:
            return False
        return self._put(pod, (device[0],), device[1], request.slots, bool(request.profile))

    def _place(self, position: int) -> bool:
        if position == len(self.rest):
            return True
        self.tries += 1
        if self.tries > _TRIES:
            return False
        pod = self.rest[position]
        request = self.cluster.shapes[self.cluster.pods[pod].shape].device
        if request is None:
            return False
        for chosen, start in self._choices(request.slots, request.count, request.profile):
            if self._put(pod, chosen, start, request.slots, bool(request.profile)):
                if self._place(position + 1):
                    return True
                self._take(request.slots, bool(request.profile))
        return False

    def _choices(self, slots: int, count: int, profile: str) -> list[tuple[tuple[int, ...], int]]:
        """Return sets of devices to try, the fullest first; devices in the same state once."""
        starts = self.devices.starts.get(profile, ()) if profile else (0,)
        order = sorted((d for d in range(self.devices.count) if self.free[d] >= slots), key=lambda d: (self.free[d], d))
        if count > 1:
            return [(tuple(order[:count]), 0)] if len(order) >= count else []
        seen: set[tuple[int, frozenset[int]]] = set()
        found: list[tuple[tuple[int, ...], int]] = []
        for device in order:
            state = (self.free[device], frozenset(self.taken[device]))
            if state not in seen:
                seen.add(state)
                found += [((device,), start) for start in starts]
        return found

    def _put(self, pod: int, chosen: tuple[int, ...], start: int, slots: int, positioned: bool) -> bool:
        span = set(range(start, start + slots)) if positioned else set[int]()
        if any(self.free[device] < slots or self.taken[device] & span for device in chosen):
            return False
        for device in chosen:
            self.free[device] -= slots
            self.taken[device] |= span
        self.uses.append(DeviceUse(pod, chosen, start))
        return True

    def _take(self, slots: int, positioned: bool) -> None:
        use = self.uses.pop()
        for device in use.devices:
            self.free[device] += slots
            if positioned:
                self.taken[device] -= set(range(use.start, use.start + slots))
