"""The last levels against brute force, and nodes that may be added."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.packing.builders import best_by_force, random_cluster
from treadle.cli.main import main
from treadle.costmodels.packing_claims import recheck
from treadle.frontends.kubernetes.offers import load_offers, with_offers
from treadle.ir.certificate import Status
from treadle.ir.cluster.cluster import Cluster, Node, Pod, Shape
from treadle.ir.cluster.errors import NotAnOffer
from treadle.ir.cluster.objective import Objective, Order, Tail, measure
from treadle.ir.cluster.placement import Placement
from treadle.solvers.packing.solve import Options, pack


@pytest.mark.parametrize("tail", [Tail.NODES, Tail.COST, Tail.STRANDED, Tail.BALANCE])
def test_last_levels_equal_brute_force(tail: Tail) -> None:
    for seed in range(8):
        cluster = random_cluster(seed, rules=False)
        nodes = tuple(
            replace(node, capacity={**node.capacity, "nvidia.com/gpu": 2, "memory": 10}, cost=index + 1)
            for index, node in enumerate(cluster.nodes)
        )
        shapes = tuple(
            replace(s, requests={**s.requests, "memory": 2, **({"nvidia.com/gpu": 1} if index % 2 else {})})
            for index, s in enumerate(cluster.shapes)
        )
        cluster = replace(cluster, nodes=nodes, shapes=shapes)
        objective = Objective(Order.PLACE_FIRST, tail)
        packed = pack(cluster, Options(objective, deterministic_s=2.0))
        values = [int(-level.value if level.maximize else level.value) for level in packed.certificate.levels]
        assert values == best_by_force(cluster, objective), f"seed {seed}"
        assert packed.certificate.status is Status.OPTIMAL
        assert recheck(cluster, packed.placement, objective, packed.certificate).findings == ()


def test_stranded_gpus_and_balance_are_measured() -> None:
    nodes = (Node("a", {"cpu": 1000, "gpu": 4}), Node("b", {"cpu": 1000, "gpu": 4}))
    cluster = Cluster(nodes, (Shape("g", {"cpu": 200, "gpu": 1}), Shape("c", {"cpu": 900})), (Pod("p", 0), Pod("q", 1)))

    def last(tail: Tail, *at: int) -> int:
        return measure(cluster, Placement(at), Objective(tail=tail))[-1].value

    assert last(Tail.STRANDED, 0, 1) == 4
    assert last(Tail.STRANDED, -1, -1) == 0
    assert last(Tail.BALANCE, 0, 1) == 900
    assert last(Tail.BALANCE, 0, -1) == 200


def test_offers_are_bought_at_least_cost(tmp_path: Path) -> None:
    offers = tmp_path / "offers.json"
    small = {"name": "small", "most": 5, "cost": 3, "capacity": {"cpu": "1", "memory": "4Gi"}}
    large = {"name": "large", "most": 2, "cost": 5, "capacity": {"cpu": "2", "memory": "8Gi"}}
    offers.write_text(json.dumps([small, large]))
    cluster = Cluster((), (Shape("a", {"cpu": 900}),), tuple(Pod(f"p{i}", 0) for i in range(3)))
    packed = pack(with_offers(cluster, load_offers(offers)), Options(Objective(tail=Tail.COST)))
    assert [level.value for level in packed.certificate.levels] == [3, 0, 0, 8]
    assert packed.certificate.status is Status.OPTIMAL


@pytest.mark.parametrize(
    "text",
    ['{"name": "x"}', '[{"name": "x"}]', '[{"name": "x", "capacity": {"cpu": "1"}, "cost": 0}]',
     '[{"name": "x", "capacity": {"cpu": "1"}, "most": "many"}]'],
)  # fmt: skip
def test_offers_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "offers.json"
    path.write_text(text)
    with pytest.raises(NotAnOffer):
        load_offers(path)


def test_the_verb_takes_offers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pod = {
        "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]},
    }  # fmt: skip
    node = {"kind": "Node", "metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "pods": "10"}}}
    (tmp_path / "cluster.json").write_text(json.dumps({"kind": "List", "items": [node, pod]}))
    offer = {"name": "big", "cost": 7, "capacity": {"cpu": "4"}}
    (tmp_path / "offers.json").write_text(json.dumps([offer]))
    arguments = ["pack", str(tmp_path / "cluster.json"), "--offer", str(tmp_path / "offers.json")]
    assert main(arguments) == 0
    assert "add 1 x big" in capsys.readouterr().out
