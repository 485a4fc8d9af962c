"""Where every pod stands, and what makes that legal.

Rules that Kubernetes applies only while it schedules bind a pod only where it *arrives* (the placement puts it on a
node it is not on now). Capacity, devices and pins bind always.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

from treadle.ir.cluster.cluster import PENDING, Cluster, Node, PodTerm, Shape, Spread, may_arrive, usage
from treadle.ir.cluster.labels import repelled_by, selects
from treadle.ir.diagnostics import Finding


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """The devices of its node that a pod uses, and the first slot where slots have positions."""

    pod: int
    devices: tuple[int, ...]
    start: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Node index of every pod (`PENDING`: none), and devices of the pods that ask for shares of them."""

    nodes: tuple[int, ...]
    devices: tuple[DeviceUse, ...] = ()


def check(cluster: Cluster, placement: Placement) -> list[Finding]:
    """Return every reason why the placement is not legal; an empty list means legal.

    Codes: TRD460 form, TRD461 capacity, TRD462 node not allowed, TRD463 affinity, TRD464 anti-affinity, TRD465 spread,
    TRD466 ports, TRD467 pinned, TRD468 gang, TRD469 devices.
    """
    form = _check_form(cluster, placement)
    if form:
        return form
    standing = _Standing(cluster, placement)
    return [
        *_check_capacity(cluster, placement),
        *_check_nodes(standing),
        *_check_pins(standing),
        *_check_affinity(standing),
        *_check_anti_affinity(standing),
        *_check_spread(standing),
        *_check_ports(standing),
        *_check_gangs(standing),
        *_check_devices(standing),
    ]


def domain_of(node: Node, topology_key: str) -> str | None:
    """Return the node's topology domain; every node is its own domain of `kubernetes.io/hostname`."""
    if topology_key == "kubernetes.io/hostname":
        return node.labels.get(topology_key, node.name)
    return node.labels.get(topology_key)


def counts_in_spread(spread: Spread, shape: Shape, node: Node) -> bool:
    """Whether the node takes part in the constraint (`nodeAffinityPolicy`, `nodeTaintsPolicy`, topology key)."""
    if domain_of(node, spread.topology_key) is None:
        return False
    if spread.honor_affinity and not _affine(shape, node):
        return False
    return not spread.honor_taints or repelled_by(node.taints, shape.tolerations) is None


def term_selects(term: PodTerm, other: Shape) -> bool:
    """Whether the term of a pod (anti-)affinity means pods of the other shape."""
    return (not term.namespaces or other.namespace in term.namespaces) and selects(term.selector, other.labels)


def _affine(shape: Shape, node: Node) -> bool:
    bare = Shape(shape.name, {}, selector=shape.selector, any_of=shape.any_of)
    return not may_arrive(bare, Node(node.name, {}, node.labels))


class _Standing:
    """The placement indexed by shape and node, arrivals apart from stays."""

    def __init__(self, cluster: Cluster, placement: Placement) -> None:
        self.cluster = cluster
        self.placement = placement
        self.stays: list[Counter[int]] = [Counter() for _ in cluster.shapes]
        self.arrives: list[Counter[int]] = [Counter() for _ in cluster.shapes]
        for pod, node in zip(cluster.pods, placement.nodes, strict=True):
            if node != PENDING:
                (self.stays if node == pod.node else self.arrives)[pod.shape][node] += 1

    def by_domain(self, counts: Counter[int], key: str) -> Counter[str | None]:
        """Return pods per topology domain."""
        found: Counter[str | None] = Counter()
        for node, count in counts.items():
            found[domain_of(self.cluster.nodes[node], key)] += count
        return found

    def matched(self, term: PodTerm) -> tuple[Counter[str | None], Counter[str | None]]:
        """Return (staying, arriving) pods per domain that the term selects."""
        stays: Counter[str | None] = Counter()
        arrives: Counter[str | None] = Counter()
        for index, shape in enumerate(self.cluster.shapes):
            if term_selects(term, shape):
                stays.update(self.by_domain(self.stays[index], term.topology_key))
                arrives.update(self.by_domain(self.arrives[index], term.topology_key))
        return stays, arrives

    def arrivals(self) -> Iterator[tuple[int, int]]:
        """Yield (shape, node) of every kind of arrival."""
        for shape, counts in enumerate(self.arrives):
            for node in counts:
                yield shape, node


def _check_form(cluster: Cluster, placement: Placement) -> list[Finding]:
    if len(placement.nodes) != len(cluster.pods):
        expected, found = str(len(cluster.pods)), str(len(placement.nodes))
        return [Finding("TRD460", "placement", "one node per pod", expected, found)]
    return [
        Finding("TRD460", pod.name, "there is no such node", f"{PENDING} to {len(cluster.nodes) - 1}", str(node))
        for pod, node in zip(cluster.pods, placement.nodes, strict=True)
        if not PENDING <= node < len(cluster.nodes)
    ]


def _check_capacity(cluster: Cluster, placement: Placement) -> list[Finding]:
    return [
        Finding("TRD461", node.name, f"{name} is overfull", f"<= {node.capacity.get(name, 0)}", str(amount))
        for node, used in zip(cluster.nodes, usage(cluster, placement.nodes), strict=True)
        for name, amount in sorted(used.items())
        if amount > node.capacity.get(name, 0)
    ]


def _check_nodes(standing: _Standing) -> list[Finding]:
    findings: list[Finding] = []
    for shape_index, node_index in standing.arrivals():
        shape, node = standing.cluster.shapes[shape_index], standing.cluster.nodes[node_index]
        if reason := may_arrive(shape, node):
            findings.append(Finding("TRD462", f"{shape.name} on {node.name}", reason))
    return findings


def _check_pins(standing: _Standing) -> list[Finding]:
    nodes = standing.cluster.nodes
    return [
        Finding("TRD467", pod.name, f"pinned ({pod.pinned}) and moved", nodes[pod.node].name, _name(standing, node))
        for pod, node in zip(standing.cluster.pods, standing.placement.nodes, strict=True)
        if pod.pinned and pod.node not in (PENDING, node)
    ]


def _check_affinity(standing: _Standing) -> list[Finding]:
    findings: list[Finding] = []
    for index, shape in enumerate(standing.cluster.shapes):
        for term in shape.affinity:
            stays, arrives = standing.matched(term)
            open_domains = {domain for domain, count in stays.items() if count}
            if not open_domains and len([d for d, count in arrives.items() if count]) == 1:
                open_domains = set(arrives)
            for domain, count in standing.by_domain(standing.arrives[index], term.topology_key).items():
                alone = term_selects(term, shape) and count == 1 and not open_domains and sum(arrives.values()) == 1
                if count and (domain is None or domain not in open_domains) and not alone:
                    where = f"{shape.name} in {term.topology_key}={domain}"
                    findings.append(Finding("TRD463", where, "no pod that its affinity asks for is there"))
    return findings


def _check_anti_affinity(standing: _Standing) -> list[Finding]:
    findings: list[Finding] = []
    for index, shape in enumerate(standing.cluster.shapes):
        for term in shape.anti_affinity:
            stays, arrives = standing.matched(term)
            own_stays = standing.by_domain(standing.stays[index], term.topology_key)
            own_arrives = standing.by_domain(standing.arrives[index], term.topology_key)
            itself = int(term_selects(term, shape))
            for domain in sorted({*own_stays, *own_arrives} - {None}, key=str):
                others = stays[domain] + arrives[domain]
                if (own_arrives[domain] and others > itself) or (own_stays[domain] and arrives[domain]):
                    where = f"{shape.name} in {term.topology_key}={domain}"
                    findings.append(Finding("TRD464", where, "shares the domain with a pod it must avoid"))
    return findings


def _check_spread(standing: _Standing) -> list[Finding]:
    findings: list[Finding] = []
    for index, shape in enumerate(standing.cluster.shapes):
        for spread in shape.spreads:
            arrivals = standing.by_domain(standing.arrives[index], spread.topology_key)
            if not arrivals:
                continue
            counts = spread_counts(standing.cluster, standing.placement.nodes, shape, spread)
            least = min(counts.values(), default=0) if len(counts) >= spread.min_domains else 0
            for domain in sorted(arrivals, key=str):
                skew = counts.get(domain or "", 0) - least
                if domain is None or skew > spread.max_skew:
                    where = f"{shape.name} in {spread.topology_key}={domain}"
                    findings.append(Finding("TRD465", where, "skewed", f"<= {spread.max_skew}", str(skew)))
    return findings


def spread_counts(cluster: Cluster, nodes: tuple[int, ...], shape: Shape, spread: Spread) -> dict[str, int]:
    """Return the pods that the constraint counts, per domain that takes part in it."""
    domains = [
        domain_of(node, spread.topology_key) if counts_in_spread(spread, shape, node) else None
        for node in cluster.nodes
    ]
    counted = [
        other.namespace == shape.namespace and selects(spread.selector, other.labels) for other in cluster.shapes
    ]
    counts = {domain: 0 for domain in domains if domain is not None}
    for pod, node in zip(cluster.pods, nodes, strict=True):
        if node != PENDING and counted[pod.shape] and (domain := domains[node]) is not None:
            counts[domain] += 1
    return counts


def _check_ports(standing: _Standing) -> list[Finding]:
    claims: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    shapes = standing.cluster.shapes
    for pod, node in zip(standing.cluster.pods, standing.placement.nodes, strict=True):
        if node != PENDING and shapes[pod.shape].ports:
            claims[node].append((pod.shape, node != pod.node))
    findings: list[Finding] = []
    for node, pods in sorted(claims.items()):
        for (one, one_arrives), (other, other_arrives) in combinations(pods, 2):
            if (one_arrives or other_arrives) and ports_conflict(shapes[one], shapes[other]):
                where = standing.cluster.nodes[node].name
                findings.append(
                    Finding("TRD466", where, f"{shapes[one].name} and {shapes[other].name} claim one host port")
                )
    return findings


def ports_conflict(one: Shape, other: Shape) -> bool:
    """Whether pods of the two shapes cannot share a node because of host ports."""
    return any(a.conflicts(b) for a in one.ports for b in other.ports)


def _check_gangs(standing: _Standing) -> list[Finding]:
    findings: list[Finding] = []
    members: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for pod, node in zip(standing.cluster.pods, standing.placement.nodes, strict=True):
        if pod.gang:
            members[pod.gang].append((pod.node, node))
    for gang in standing.cluster.gangs:
        if all(node == before for before, node in members[gang.name]):
            continue
        placed = [node for _, node in members[gang.name] if node != PENDING]
        if placed and len(placed) < gang.minimum:
            expected = f">= {gang.minimum} or 0"
            findings.append(Finding("TRD468", gang.name, "a gang stands in part", expected, str(len(placed))))
        if gang.topology_key:
            domains = {domain_of(standing.cluster.nodes[node], gang.topology_key) for node in placed}
            if len(domains) > 1 or None in domains:
                where = f"more than one {gang.topology_key}"
                findings.append(Finding("TRD468", gang.name, where, "1", str(len(domains))))
    return findings


def _check_devices(standing: _Standing) -> list[Finding]:
    cluster, uses = standing.cluster, {use.pod: use for use in standing.placement.devices}
    findings: list[Finding] = []
    filled: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for index, (pod, node) in enumerate(zip(cluster.pods, standing.placement.nodes, strict=True)):
        request = cluster.shapes[pod.shape].device
        if request is None or node == PENDING:
            continue
        devices, use = cluster.nodes[node].devices, uses.get(index)
        if devices is None or use is None or len(set(use.devices)) != request.count:
            findings.append(Finding("TRD469", pod.name, "has not the devices it asks for", str(request.count)))
            continue
        starts = devices.starts.get(request.profile, (0,)) if request.profile else (0,)
        if use.start not in starts or not set(use.devices) <= set(range(devices.count)):
            findings.append(Finding("TRD469", pod.name, "no legal position", str(starts), str(use.start)))
        for device in use.devices:
            filled[node, device].append((use.start, request.slots, index))
    for (node, device), parts in sorted(filled.items()):
        findings.extend(_overfull_device(cluster, node, device, parts))
    return findings


def _overfull_device(cluster: Cluster, node: int, device: int, parts: list[tuple[int, int, int]]) -> list[Finding]:
    devices, where = cluster.nodes[node].devices, f"{cluster.nodes[node].name}, device {device}"
    if devices is None:
        return []
    total = sum(slots for _, slots, _ in parts)
    if total > devices.slots:
        return [Finding("TRD469", where, "the device is overfull", f"<= {devices.slots}", str(total))]
    if not devices.starts:
        return []
    ordered = sorted(parts)
    return [
        Finding("TRD469", where, "two pods share a slot", f">= {start + slots}", str(after))
        for (start, slots, _), (after, _, _) in pairwise(ordered)
        if after < start + slots
    ]


def _name(standing: _Standing, node: int) -> str:
    return "pending" if node == PENDING else standing.cluster.nodes[node].name
