"""GPUs that a cluster dump has free: what a serving plan may take without moving anything."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from treadle.frontends.errors import NoGpusThere
from treadle.frontends.kubernetes.cluster import cluster_from
from treadle.ir.cluster.cluster import Cluster, Shape, may_arrive, usage
from treadle.ir.cluster.labels import Toleration
from treadle.ir.diagnostics import Place
from treadle.ir.plan import parse_json, read_text

GPU = "nvidia.com/gpu"
_PRODUCT = "nvidia.com/gpu.product"


@dataclass(frozen=True, slots=True)
class FreeGpus:
    """Free GPUs of one product: its node label (empty: not labelled), and GPUs by node, none of them zero."""

    product: str
    per_node: tuple[int, ...]


def free_gpus(path: Path, machine: str) -> FreeGpus:
    """Return the free GPUs of a type in a dump of `kubectl get nodes,pods -A -o json`.

    Args:
        path: the dump.
        machine: machine id, looked for as a word of the label `nvidia.com/gpu.product`; where no node has that label,
            all GPUs are taken to be of the type.

    Raises:
        NoGpusThere: no node has a free GPU of the type.
        TreadleError: what reading a cluster raises.
    """
    text = read_text(path)
    cluster = cluster_from(parse_json(text, str(path)), str(path), text)
    by_product = _by_product(cluster)
    if set(by_product) == {""}:
        return FreeGpus("", tuple(by_product[""]))
    for product, found in sorted(by_product.items()):
        if machine.lower() in re.split(r"[^a-z0-9]+", product.lower()):
            return FreeGpus(product, tuple(found))
    products = ", ".join(product or "not labelled" for product in sorted(by_product)) or "no free GPU at all"
    raise NoGpusThere(place=Place(str(path)), gpu=machine, found=products)


def _by_product(cluster: Cluster) -> dict[str, list[int]]:
    pod = Shape("engine", {GPU: 1}, tolerations=(Toleration(GPU, exists=True),))
    found: dict[str, list[int]] = defaultdict(list)
    for node, used in zip(cluster.nodes, usage(cluster, cluster.current), strict=True):
        free = node.capacity.get(GPU, 0) - used.get(GPU, 0)
        if free > 0 and not may_arrive(pod, node):
            found[node.labels.get(_PRODUCT, "")].append(free)
    return found
