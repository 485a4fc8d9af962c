"""The report: an arrow per move, a box per step, names escaped."""

from __future__ import annotations

from treadle.codegen.kubernetes.drawings import arrows, timeline
from treadle.codegen.kubernetes.report import report
from treadle.ir.certificate import Certificate
from treadle.ir.cluster.cluster import Cluster, Node, Pod, Shape
from treadle.ir.cluster.migration import Migration, Step, StepKind
from treadle.ir.cluster.objective import Objective
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.cluster.placement import Placement


def body() -> PackingBody:
    nodes = tuple(Node(f"n<{i}>", {"cpu": 1000}) for i in range(2))
    cluster = Cluster(nodes, (Shape("a", {"cpu": 500}),), (Pod("p", 0, 0), Pod("q", 0)))
    waves = ((Step(StepKind.MOVE, 0, 0, 1),), (Step(StepKind.BIND, 1, -1, 0),))
    return PackingBody(cluster, Objective(), Placement((1, 0)), Migration(waves, 2))


def test_moves_are_arrows_and_steps_are_boxes() -> None:
    drawn = arrows(body(), {0: 0, 1: 1})
    assert drawn.count("<g>") == 1
    assert "wave 1: p, n&lt;0&gt; to n&lt;1&gt;" in drawn
    assert arrows(body(), {0: 0}) == ""
    steps = timeline(body())
    assert steps.count("<rect") == 2
    assert "wave 2" in steps


def test_the_report_escapes_names() -> None:
    page = report(body(), Certificate("packing", "requests", ())).decode()
    assert "n&lt;0&gt;" in page
    assert "n<0>" not in page
