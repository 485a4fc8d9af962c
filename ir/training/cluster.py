"""A training cluster: groups of equal nodes, the links between GPUs, and measured collective curves."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue


class DisconnectedTopology(TreadleError):
    """Parts of the cluster that no link joins."""

    code = "TRD151"
    template = "no network joins the {nodes} nodes: {reason}"
    hint = "give `network` above 0 (per GPU, one direction), leave it out for the GPU type's own, or take one node"


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """`nodes` equal nodes of `gpus_per_node` GPUs of one type (an id of the machine data)."""

    gpu: str
    nodes: int
    gpus_per_node: int

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.gpus_per_node < 1:
            raise InvalidValue(message=f"{self.nodes} nodes of {self.gpus_per_node} GPUs; expected at least 1 of 1")

    @property
    def gpus(self) -> int:
        """GPUs of the group."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured bus bandwidth of one collective over one group shape, by message size.

    `sizes_bytes` rises; `busbw_gbytes_per_s` is nccl-tests' busbw.
    """

    operation: str
    ranks: int
    nodes: int
    sizes_bytes: tuple[int, ...]
    busbw_gbytes_per_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.sizes_bytes) != len(self.busbw_gbytes_per_s) or not self.sizes_bytes:
            raise InvalidValue(message=f"curve of {self.operation} has sizes and bandwidths of different number")
        if any(low >= high for low, high in zip(self.sizes_bytes, self.sizes_bytes[1:], strict=False)):
            raise InvalidValue(message=f"curve of {self.operation}: sizes do not rise")
        if min(self.busbw_gbytes_per_s) <= 0:
            raise InvalidValue(message=f"curve of {self.operation}: a bandwidth is not positive")


@dataclass(frozen=True, slots=True)
class ClusterTopology:
    """The cluster. Zero bandwidths mean: take the GPU type's own figure.

    `domain_gpus` GPUs share the fast links (a node, or an NVL72 rack); 0 means a node.
    """

    groups: tuple[NodeGroup, ...]
    network_gbytes_per_s: float = 0.0
    """Per GPU and direction, between domains."""
    links_gbytes_per_s: float = 0.0
    """Per GPU and direction, inside a domain."""
    domain_gpus: int = 0
    curves: tuple[Curve, ...] = ()
    connected: bool = True
    host_gbytes: float = 0.0
    """Host memory per GPU in 10^9 bytes; 0: nothing can be offloaded."""
    host_gbytes_per_s: float = 0.0
    """Between a GPU and its host, per direction; 0: the GPU type's own figure."""
    contention: float = 0.0
    """Share of hidden gradient and parameter traffic by which it slows what runs beside it."""
    rails: bool = False
    """GPU i of every node is on leaf switch i: ranks of another local index are beyond the spine."""
    leaf_nodes: int = 0
    """Nodes that a leaf switch joins (a unit, a pod); 0: all of them."""
    spine_oversubscription: float = 1.0
    """What the leaves can send over what the spine takes."""

    def __post_init__(self) -> None:
        if not self.groups:
            raise InvalidValue(message="the cluster has no nodes")
        rates = self.network_gbytes_per_s, self.links_gbytes_per_s, self.host_gbytes_per_s, self.contention
        if min(*rates, self.domain_gpus, self.host_gbytes) < 0:
            raise InvalidValue(message="a bandwidth, memory or domain size is negative")
        self._require_fabric()
        if not self.connected and self.gpus > self.domain:
            raise DisconnectedTopology(nodes=sum(group.nodes for group in self.groups), reason="`connected` is false")

    def _require_fabric(self) -> None:
        """Refuse leaves that are not there or cut domains in two; raises InvalidValue."""
        if self.leaf_nodes < 0 or self.spine_oversubscription < 1:
            raise InvalidValue(message="leaf_nodes is negative, or spine_oversubscription below 1")
        if self.spine_oversubscription > 1 and not (self.rails or self.leaf_nodes):
            raise InvalidValue(message="spine_oversubscription without rails or leaf_nodes: nothing crosses the spine")
        if not (self.rails or self.leaf_nodes):
            return
        if len({group.gpus_per_node for group in self.groups}) > 1:
            raise InvalidValue(message="rails and leaf_nodes ask for equally many GPUs in every node")
        if self.leaf_gpus % self.domain:
            raise InvalidValue(message=f"a leaf of {self.leaf_gpus} GPUs cuts domains of {self.domain}")

    @property
    def rail_count(self) -> int:
        """Leaf switches beside each other, one for each GPU of a node; 0: a leaf takes all GPUs of its nodes."""
        return self.groups[0].gpus_per_node if self.rails else 0

    @property
    def leaf_gpus(self) -> int:
        """GPUs of the nodes that share leaf switches; 0: those of all nodes do."""
        return self.leaf_nodes * self.groups[0].gpus_per_node

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return sum(group.gpus for group in self.groups)

    @property
    def domain(self) -> int:
        """GPUs that share the fast links."""
        return self.domain_gpus or min(group.gpus_per_node for group in self.groups)

    @property
    def gpu(self) -> str:
        """The GPU type of the first group."""
        return self.groups[0].gpu

    @property
    def mixed(self) -> bool:
        """Whether there are several GPU types."""
        return len({group.gpu for group in self.groups}) > 1

    @property
    def text(self) -> str:
        """Number and type of its GPUs: `64 x h100`, or `16 x h100 + 32 x a100`."""
        if not self.mixed:
            return f"{self.gpus} x {self.gpu}"
        return " + ".join(f"{group.gpus} x {group.gpu}" for group in self.groups)
