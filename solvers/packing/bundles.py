"""Fresh placements with shared devices: fractions are bundled into whole devices first, then everything is packed.

Pods that ask for a share of one device are put together by best fit (the largest first; among equal fits the bundle
with the least CPU), so that what is placed on nodes asks for whole devices only. Where devices are short, the pods
that need most of them are left out first: that leaves out the fewest pods.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np
from ortools.sat.python import cp_model

from treadle.ir.cluster.cluster import PENDING, Cluster, DeviceRequest, Pod, Shape, may_arrive
from treadle.ir.cluster.objective import Order
from treadle.solvers.backend import Limits, solve
from treadle.solvers.packing.bounds import share_patterns
from treadle.solvers.packing.chains import Board, place_fresh
from treadle.solvers.packing.matchings import Matchings
from treadle.solvers.packing.problem import build

_BUNDLING_S = 5.0
"""Deterministic seconds for choosing patterns of shares."""

_MATCHINGS, _CYCLE = 8_000, 2_000
"""Steps of matchings at most, and of one kind."""
_GATHERED = ((200.0, 300.0), (90.0, 150.0))
"""Worth of gathered room and price of putting a bundle out, by kind."""


@dataclass(frozen=True, slots=True)
class Bundled:
    """A cluster of bundles; `members[i]` are the pods (of the original cluster) in bundle i."""

    cluster: Cluster
    members: tuple[tuple[int, ...], ...]


def applies(cluster: Cluster) -> bool:
    """Whether bundling helps: shares of devices without positions, nothing running, no rules between pods."""
    shares = any(shape.device and shape.device.slots % _whole(cluster) for shape in cluster.shapes)
    ruled = any(s.affinity or s.anti_affinity or s.spreads or s.ports for s in cluster.shapes)
    profiles = any(shape.device and shape.device.profile for shape in cluster.shapes)
    return shares and not ruled and not profiles and not cluster.gangs and all(p.node == PENDING for p in cluster.pods)


def _whole(cluster: Cluster) -> int:
    return max((node.devices.slots for node in cluster.nodes if node.devices), default=1)


def fresh_nodes(cluster: Cluster, seed: int) -> tuple[int, ...]:
    """Return a node for every pod (or `PENDING`), by bundles."""
    bundled = bundle(cluster)
    problem, out = build(bundled.cluster, Order.PLACE_FIRST), _left_out(bundled)
    board = Board(problem, seed)
    place_fresh(board, out)
    _match(board, Matchings(board, problem.tiers, None, seed), len(out))
    nodes = [PENDING] * len(cluster.pods)
    for position, at in zip(board.pods.tolist(), board.at.tolist(), strict=True):
        for pod in bundled.members[position]:
            nodes[pod] = at
    _add_singles(cluster, nodes)
    return tuple(nodes)


def _match(board: Board, search: Matchings, least: int) -> None:
    """Let in what waits by matchings, until no more than `least` wait; the board ends as it was at its best."""
    best, fewest = board.at.copy(), int((board.at < 0).sum())
    for number in range(_MATCHINGS):
        if fewest <= least or not board.left():
            break
        gather, exchange = _GATHERED[number // _CYCLE % len(_GATHERED)]
        search.step(0.0, gather, exchange)
        if (waiting := int((board.at < 0).sum())) < fewest:
            best, fewest = board.at.copy(), waiting
    back = np.flatnonzero(best != board.at)
    board.move([(pod, PENDING) for pod in back.tolist()])
    board.move([(pod, int(best[pod])) for pod in back.tolist()])


def bundle(cluster: Cluster) -> Bundled:
    """Put shares of devices together to whole devices."""
    whole = _whole(cluster)
    shares: dict[tuple[object, ...], list[int]] = defaultdict(list)
    members: list[tuple[int, ...]] = []
    for index, pod in enumerate(cluster.pods):
        shape = cluster.shapes[pod.shape]
        if shape.device and shape.device.slots < whole:
            shares[shape.selector, shape.any_of, shape.tolerations, shape.priority].append(index)
        else:
            members.append((index,))
    for pods in shares.values():
        members += _fewest(cluster, pods, whole)
    shapes: dict[str, int] = {}
    listed: list[Shape] = []
    made: list[Pod] = []
    for number, inside in enumerate(members):
        shape = _sum(cluster, inside, whole)
        if (key := repr(shape)) not in shapes:
            shapes[key] = len(listed)
            listed.append(shape)
        made.append(Pod(f"bundle-{number}", shapes[key]))
    return Bundled(Cluster(cluster.nodes, tuple(listed), tuple(made)), tuple(members))


def _sum(cluster: Cluster, inside: tuple[int, ...], whole: int) -> Shape:
    first = cluster.shapes[cluster.pods[inside[0]].shape]
    if len(inside) == 1 and not (first.device and first.device.slots < whole):
        return replace(first, name="bundle", labels={})
    requests: dict[str, int] = {}
    for pod in inside:
        for name, amount in cluster.shapes[cluster.pods[pod].shape].requests.items():
            requests[name] = requests.get(name, 0) + amount
    return replace(first, name="bundle", labels={}, requests=requests, device=DeviceRequest(whole))


def _fewest(cluster: Cluster, pods: list[int], whole: int) -> list[tuple[int, ...]]:
    """Return as few bundles as can be found: patterns of the configuration LP, or best fit if they are no fewer."""
    simple = _best_fit(cluster, pods, whole)
    counts = Counter(_slots(cluster, pod) for pod in pods)
    _, patterns = share_patterns(counts, whole)
    known = {tuple(sorted(Counter(_slots(cluster, pod) for pod in inside).items())) for inside in simple}
    patterns += [dict(pattern) for pattern in sorted(known) if dict(pattern) not in patterns]
    model = cp_model.CpModel()
    uses = [model.new_int_var(0, len(pods), "") for _ in patterns]
    for size, count in counts.items():
        covering = [(pattern[size], use) for pattern, use in zip(patterns, uses, strict=True) if size in pattern]
        model.add(sum(amount * use for amount, use in covering) >= count)
    total = cp_model.LinearExpr.sum(uses)
    model.add(total < len(simple))
    model.minimize(total)
    outcome = solve(model, Limits(_BUNDLING_S))
    if not outcome.solved:
        return simple
    wanted = [pattern for pattern, use in zip(patterns, uses, strict=True) for _ in range(outcome[use])]
    return _filled(cluster, pods, wanted)


def _filled(cluster: Cluster, pods: list[int], patterns: list[dict[int, int]]) -> list[tuple[int, ...]]:
    """Return bundles of the patterns, the pods with most CPU going where least is so far."""
    waiting: dict[int, list[int]] = defaultdict(list)
    for pod in sorted(pods, key=lambda pod: cluster.shapes[cluster.pods[pod].shape].requests.get("cpu", 0)):
        waiting[_slots(cluster, pod)].append(pod)
    bundles: list[list[int]] = [[] for _ in patterns]
    load = [0] * len(patterns)
    for size in sorted(waiting, reverse=True):
        places = [number for number, pattern in enumerate(patterns) for _ in range(pattern.get(size, 0))]
        for number in sorted(places, key=lambda number: load[number]):
            if waiting[size]:
                pod = waiting[size].pop()
                bundles[number].append(pod)
                load[number] += cluster.shapes[cluster.pods[pod].shape].requests.get("cpu", 0)
    return [tuple(inside) for inside in bundles if inside]


def _best_fit(cluster: Cluster, pods: list[int], whole: int) -> list[tuple[int, ...]]:
    """Return bundles by best fit decreasing."""

    def rank(pod: int) -> tuple[int, int]:
        shape = cluster.shapes[cluster.pods[pod].shape]
        return (-(shape.device.slots if shape.device else 0), -shape.requests.get("cpu", 0))

    by_rest: dict[int, list[tuple[int, int]]] = defaultdict(list)
    bundles: list[list[int]] = []
    for pod in sorted(pods, key=rank):
        slots, cpu = -rank(pod)[0], -rank(pod)[1]
        rest = min((r for r, waiting in by_rest.items() if r >= slots and waiting), default=-1)
        if rest < 0:
            bundles.append([pod])
            by_rest[whole - slots].append((cpu, len(bundles) - 1))
            continue
        load, number = min(by_rest[rest])
        by_rest[rest].remove((load, number))
        bundles[number].append(pod)
        by_rest[rest - slots].append((load + cpu, number))
    return [tuple(inside) for inside in bundles]


def _left_out(bundled: Bundled) -> set[int]:
    """Return the bundles to leave out at first: those with most devices per pod, until the devices suffice."""
    have = sum(node.devices.count for node in bundled.cluster.nodes if node.devices)
    asked = [_devices(bundled.cluster.shapes[pod.shape]) for pod in bundled.cluster.pods]
    out: set[int] = set()
    short = sum(asked) - have
    for index in sorted(range(len(asked)), key=lambda i: (-asked[i] / len(bundled.members[i]), i)):
        if short <= 0:
            break
        if asked[index]:
            out.add(index)
            short -= asked[index]
    return out


def _devices(shape: Shape) -> int:
    return shape.device.count if shape.device else 0


def _add_singles(cluster: Cluster, nodes: list[int]) -> None:
    """Let pods of bundles that found no place in one by one, where a device has room left."""
    free = [dict(node.capacity) for node in cluster.nodes]
    slots: list[list[int]] = [
        [node.devices.slots] * node.devices.count if node.devices else [] for node in cluster.nodes
    ]
    order = sorted(range(len(nodes)), key=lambda p: -_slots(cluster, p))
    for pod in order:
        if nodes[pod] != PENDING:
            _use(cluster, pod, nodes[pod], free, slots)
    for pod in sorted((p for p in order if nodes[p] == PENDING), key=lambda p: _slots(cluster, p)):
        shape = cluster.shapes[cluster.pods[pod].shape]
        request = shape.device
        for node in range(len(cluster.nodes)):
            room = all(free[node].get(name, 0) >= amount for name, amount in shape.requests.items())
            shared = request is None or sum(s >= request.slots for s in slots[node]) >= request.count
            if room and shared and not may_arrive(shape, cluster.nodes[node]):
                nodes[pod] = node
                _use(cluster, pod, node, free, slots)
                break


def _slots(cluster: Cluster, pod: int) -> int:
    request = cluster.shapes[cluster.pods[pod].shape].device
    return request.slots * request.count if request else 0


def _use(cluster: Cluster, pod: int, node: int, free: list[dict[str, int]], slots: list[list[int]]) -> None:
    shape = cluster.shapes[cluster.pods[pod].shape]
    for name, amount in shape.requests.items():
        free[node][name] = free[node].get(name, 0) - amount
    if shape.device:
        wanted = shape.device.slots
        order = sorted((d for d, left in enumerate(slots[node]) if left >= wanted), key=lambda d: (slots[node][d], d))
        for device in order[: shape.device.count]:
            slots[node][device] -= wanted
