"""Node types that may be added: a JSON list of offers, each with its capacity, price and how many there may be.

`[{"name": "c5.4xlarge", "most": 10, "cost": 68, "capacity": {"cpu": "16", "memory": "32Gi"}, "labels": {...},
"taints": [...]}]`; `cost` is in any one whole unit (cents per hour), `capacity` in Kubernetes quantities.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from treadle.frontends.kubernetes import rules
from treadle.frontends.kubernetes.objects import Object, reading
from treadle.frontends.kubernetes.quantity import amount
from treadle.frontends.kubernetes.requests import quantities
from treadle.ir.cluster.cluster import Cluster, Node
from treadle.ir.cluster.errors import NotAnOffer
from treadle.ir.diagnostics import Place
from treadle.ir.plan import parse_json, read_text

LABEL = "treadle.dev/offer"
_MOST = 1000
_PODS = 110
"""Pods per node where an offer does not say: the kubelet's default."""


def load_offers(path: Path) -> tuple[Node, ...]:
    """Read offers as optional nodes.

    Raises:
        NotAnOffer, WrongType, BadQuantity, NegativeAmount: with the offer they concern.
    """
    document = parse_json(read_text(path), str(path))
    if not isinstance(document, list):
        raise NotAnOffer(place=Place(str(path)), reason="the file is no list")
    nodes: list[Node] = []
    for index, data in enumerate(document):
        place = Place(str(path), path=f"[{index}]")
        if not isinstance(data, dict) or not data.get("name") or not isinstance(data.get("capacity"), dict):
            raise NotAnOffer(place=place, reason="`name` or `capacity` is missing")
        most, cost = data.get("most", 10), data.get("cost", 1)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in (most, cost)):
            raise NotAnOffer(place=place, reason="`most` and `cost` are whole numbers")
        if not 1 <= most <= _MOST or cost < 1:
            raise NotAnOffer(place=place, reason=f"`most` is 1 to {_MOST} and `cost` at least 1")
        nodes += _nodes(str(data["name"]), most, cost, data, place)
    return tuple(nodes)


def _nodes(name: str, most: int, cost: int, data: dict[str, object], place: Place) -> list[Node]:
    item = Object({"metadata": {"name": name}, "spec": {"taints": data.get("taints")}, **data}, place)
    with reading(item):
        capacity = {
            key: amount(key, value, up=False) for key, value in quantities(item, item.table("capacity")).items()
        }
        capacity.setdefault("pods", _PODS)
        labels = {**item.strings("labels"), LABEL: name}
        return [
            Node(f"{name}-{number}", capacity, labels, rules.taints(item), cost=cost, optional=True)
            for number in range(1, most + 1)
        ]


def with_offers(cluster: Cluster, offers: tuple[Node, ...]) -> Cluster:
    """Return the cluster with nodes that may be added."""
    return replace(cluster, nodes=(*cluster.nodes, *offers))
