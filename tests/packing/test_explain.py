"""What `treadle explain` says about a packing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.costmodels.packing_reasons import fullness, left_out
from treadle.ir.cluster.cluster import PENDING, Cluster, Node, Pod, Shape
from treadle.ir.cluster.labels import Operator, Requirement
from treadle.ir.cluster.placement import Placement

NODES = (Node("n0", {"cpu": 1000}), Node("n1", {"cpu": 1000}, unschedulable=True))


def test_reasons_are_counted_and_the_nearest_node_named() -> None:
    shapes = (Shape("web", {"cpu": 600}), Shape("gpu", {"cpu": 100}, selector=(Requirement("gpu", Operator.EXISTS),)))
    cluster = Cluster(NODES, shapes, (Pod("p", 0), Pod("q", 0), Pod("r", 1)))
    found = left_out(cluster, Placement((0, PENDING, PENDING)))
    assert [(one.shape, one.pods) for one in found] == [("gpu", 1), ("web", 1)]
    assert found[0].reasons == {"the node selector does not match": 1, "the node is unschedulable": 1}
    assert found[1].reasons == {"too little cpu left": 1, "the node is unschedulable": 1}
    assert found[1].nearest == "n0 lacks 200 cpu"
    assert fullness(cluster, Placement((0, PENDING, PENDING)))[0].fullest_percent == 60.0
    assert left_out(cluster, Placement((0, 0, 0))) == ()


def test_the_verb_explains_a_packing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    containers = [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]
    pods = [
        {"kind": "Pod", "metadata": {"name": f"p{i}", "namespace": "default"}, "spec": {"containers": containers}}
        for i in range(3)
    ]
    node = {"kind": "Node", "metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "1", "pods": "10"}}}
    (tmp_path / "cluster.json").write_text(json.dumps({"kind": "List", "items": [node, *pods]}))
    assert main(["pack", str(tmp_path / "cluster.json"), "-o", str(tmp_path / "plan")]) == 0
    capsys.readouterr()
    assert main(["explain", str(tmp_path / "plan")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("left out: 1 x p") == 2
    assert "n lacks 200 cpu" in shown
    assert "one more node like n: +1 pods" in shown
    assert main(["explain", str(tmp_path / "plan"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"][0]["placed"] == 2
