"""Time of collectives over groups of GPUs: measured curves where the cluster has them, latency and volume elsewhere.

A group of n ranks has g of them inside each fast domain (a node, or an NVL72 rack). Volumes are those of
bandwidth-optimal algorithms (Thakur et al. 2005; nccl-tests PERFORMANCE.md): all-gather and reduce-scatter S (n-1)/n,
all-reduce twice that. Across domains a collective runs in two levels: inside over the fast links, by the measured curve
of that size where there is one, then 1/g of the buffer per rank over the network.

Leaf switches and spine: rings and trees pass the spine where neighbours stand on different rails (NCCL_CROSS_NIC), and
once per m domains where m domains of the group share leaves; where share s of the ranks crosses a spine oversubscribed
o to 1, each gets 1 / max(1, o s) of its rate. Sends and all-to-alls change rails inside the node, over the fast links
(PXN, on by default since NCCL 2.12: NVIDIA, "Doubling all2all performance with NCCL 2.12"), so only leaves count.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import ceil, log2

from treadle.ir.training.cluster import Curve


@dataclass(frozen=True, slots=True)
class Links:
    """What collectives run over. Bandwidths are per GPU and direction, in bytes per microsecond (= MB/s)."""

    fast_bytes_per_us: float
    slow_bytes_per_us: float
    latency_us: float
    curves: tuple[Curve, ...] = ()
    meeting_us: float = 0.0
    """Added to a measured curve: benchmarks call collectives back to back, a step's ranks arrive apart."""
    rails: bool = False
    """Traffic to another local index changes rails inside the node."""
    spine_oversubscription: float = 1.0

    def between(self, spine_share: float) -> float:
        """Return the rate between domains when such a share of the ranks sends through the spine."""
        return self.slow_bytes_per_us / max(1.0, self.spine_oversubscription * spine_share)


@dataclass(frozen=True, slots=True)
class Group:
    """`ranks` GPUs, `inside` of them in each domain."""

    ranks: int
    inside: int
    leaf: int = 0
    """Domains of the group on the same leaf switches; 0: all."""
    aligned: bool = True
    """Whether ranks that take each other's place in the next domain stand on the same rail."""

    @property
    def leaf_share(self) -> float:
        """Share of the ranks whose neighbour in the next domain is on other leaf switches."""
        return 1 / self.leaf if 0 < self.leaf < self.domains else 0.0

    @property
    def spine_share(self) -> float:
        """Share of the ranks whose neighbour in a ring or tree between domains is beyond the spine."""
        return self.leaf_share if self.aligned else 1.0

    @property
    def domains(self) -> int:
        """Domains that the group spans."""
        return -(-self.ranks // self.inside)


def group_of(ranks: int, stride: int, domain: int) -> Group:
    """Return the group of `ranks` GPUs that stand `stride` apart in the rank order, in domains of `domain` GPUs."""
    inside = min(ranks, max(1, domain // stride))
    while ranks % inside:
        inside -= 1
    return Group(ranks, inside)


def all_reduce_us(size_bytes: float, group: Group, links: Links) -> float:
    """Return the time to sum a buffer of `size_bytes` on every rank of the group."""
    if group.ranks == 1:
        return 0.0
    measured = _measured("all_reduce", size_bytes, group, links)
    if measured is not None:
        return measured
    return _one_way_us(size_bytes, group, links, "reduce_scatter") + _one_way_us(size_bytes, group, links, "all_gather")


def gather_us(size_bytes: float, group: Group, links: Links, operation: str = "all_gather") -> float:
    """Return the time of an all-gather or reduce-scatter whose whole buffer has `size_bytes`."""
    if group.ranks == 1:
        return 0.0
    measured = _measured(operation, size_bytes, group, links)
    return _one_way_us(size_bytes, group, links, operation) if measured is None else measured


def all_to_all_us(sent_bytes: float, group: Group, links: Links) -> float:
    """Return the time in which every rank sends `sent_bytes`, spread evenly over the group (itself included).

    The parts inside and outside the domain travel at the same time.
    """
    if group.ranks == 1:
        return 0.0
    measured = _measured("alltoall", sent_bytes, group, links)
    if measured is not None:
        return measured
    part = sent_bytes / group.ranks
    near, far = part * (group.inside - 1), part * (group.ranks - group.inside)
    beyond = part * (group.ranks - min(group.ranks, group.inside * (group.leaf or group.domains)))
    if links.rails:
        near += far * (1 - 1 / group.inside if group.aligned else 1.0)
    outside = max(far, beyond * links.spine_oversubscription) / links.slow_bytes_per_us
    return max(near / links.fast_bytes_per_us, outside) + links.latency_us


def send_us(size_bytes: float, crosses: bool, links: Links, spine_share: float = 0.0) -> float:
    """Return the time to send a buffer to one neighbour, across domains (a share of them across leaves) or inside."""
    return size_bytes / (links.between(spine_share) if crosses else links.fast_bytes_per_us) + links.latency_us


def _one_way_us(size_bytes: float, group: Group, links: Links, operation: str) -> float:
    """Return the time of a gather or scatter: inside the domains, then 1/g of the buffer per rank between them."""
    inside, domains = group.inside, group.domains
    time = 0.0
    if inside > 1:
        measured = _measured(operation, size_bytes, Group(inside, inside), links)
        nominal = size_bytes * (inside - 1) / inside / links.fast_bytes_per_us + links.latency_us / 2
        time = nominal if measured is None else measured
    if domains > 1:
        time += size_bytes / inside * (domains - 1) / domains / links.between(group.spine_share)
        time += links.latency_us * ceil(log2(domains)) / 2
    return time


def _measured(operation: str, size_bytes: float, group: Group, links: Links) -> float | None:
    """Return the time by a measured curve of exactly this operation and group shape, or None.

    Measurements run over whole nodes, so they say nothing of groups that change rails.
    """
    if not group.aligned and group.domains > 1:
        return None
    for curve in links.curves:
        if (curve.operation, curve.ranks, curve.nodes) == (operation, group.ranks, group.domains):
            factor = bus_factor(operation, group.ranks)
            return links.meeting_us + size_bytes * factor / (interpolate(curve, size_bytes) * 1000.0)
    return None


def bus_factor(operation: str, ranks: int) -> float:
    """Return the share of the buffer that crosses each rank's links: nccl-tests' bus over algorithm bandwidth."""
    return (2.0 if operation == "all_reduce" else 1.0) * (ranks - 1) / ranks


def interpolate(curve: Curve, size_bytes: float) -> float:
    """Return the bus bandwidth in GB/s at a size: linear in time between measured sizes.

    Below the smallest size the time is that of the smallest; above the largest the bandwidth is that of the largest.
    """
    sizes, rates = curve.sizes_bytes, curve.busbw_gbytes_per_s
    position = bisect_left(sizes, size_bytes)
    if position == 0:
        return rates[0] * max(size_bytes, 1) / sizes[0]
    if position == len(sizes):
        return rates[-1]
    low, high = sizes[position - 1], sizes[position]
    times = low / rates[position - 1], high / rates[position]
    share = (size_bytes - low) / (high - low)
    return size_bytes / (times[0] + share * (times[1] - times[0]))
