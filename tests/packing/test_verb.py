"""`treadle pack` end to end: folders, JSON, exit codes; manifests, report; the simulated scheduler; reassignment."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.packing_instances import CELLS, Cell, generate, seeds_with_pending
from treadle.cli.main import main
from treadle.cli.output import level_line
from treadle.costmodels.kube_scheduler import simulate
from treadle.costmodels.packing_bounds import heaviest
from treadle.ir.certificate import Level, ProofKind, Status
from treadle.ir.cluster.cluster import PENDING, Cluster, DeviceRequest, Devices, Node, Pod, Shape
from treadle.ir.cluster.placement import Placement, check
from treadle.ir.cluster.reassignment import check as check_reassignment
from treadle.ir.cluster.reassignment import cost, volume_bound
from treadle.ir.plan import load
from treadle.solvers.packing.bounds import placed_bound, share_weights
from treadle.solvers.packing.solve import Options, pack
from treadle.solvers.reassignment.state import State
from treadle.verification.core import verify


def dump(cluster: Cluster) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for node in cluster.nodes:
        allocatable = {"cpu": f"{node.capacity['cpu']}m", "memory": str(node.capacity["memory"]), "pods": "110"}
        labels = {"kubernetes.io/hostname": node.name}
        items.append(
            {"kind": "Node", "metadata": {"name": node.name, "labels": labels}, "status": {"allocatable": allocatable}}
        )
    for pod in cluster.pods:
        shape = cluster.shapes[pod.shape]
        requests = {"cpu": f"{shape.requests['cpu']}m", "memory": str(shape.requests["memory"])}
        spec: dict[str, Any] = {"priority": shape.priority, "containers": [{"resources": {"requests": requests}}]}
        if pod.node != PENDING:
            spec["nodeName"] = cluster.nodes[pod.node].name
        owner = [{"kind": "ReplicaSet", "name": shape.name, "controller": True}]
        items.append({"kind": "Pod", "metadata": {"name": pod.name, "ownerReferences": owner}, "spec": spec})
    return {"kind": "List", "items": items}


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(dump(seeds_with_pending(Cell(4, 8, 2, 95), 1)[0][1])))
    return path


def test_a_plan_folder_is_written_and_verifies(
    cluster_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan"
    status = main(["pack", str(cluster_file), "-o", str(out), "--compare", "--deterministic-seconds", "2"])
    assert status == 0
    shown = capsys.readouterr().out
    assert "run in the plan" in shown
    assert "default scheduler" in shown
    review = verify(out)
    assert review.findings == ()
    assert review.rederived > 10
    body = load(out).body
    documents = [d for path in out.rglob("*.yaml") for d in yaml.safe_load_all(path.read_text())]
    moved = sum(n not in (PENDING, p.node) for p, n in zip(body.cluster.pods, body.placement.nodes, strict=True))
    assert sum(document["kind"] == "Binding" for document in documents) == moved
    assert {"KubeSchedulerConfiguration", "Component", "Node", "Eviction"} <= {d["kind"] for d in documents}
    assert "<svg" in (out / "report.html").read_text()


def test_json_and_limits(cluster_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["pack", str(cluster_file), "--json", "--deterministic-seconds", "0"])
    assert status == 3
    assert json.loads(capsys.readouterr().out)["kind"] == "packing"
    assert main(["pack", str(cluster_file), "--window", "3s", "--order", "disruption-first"]) == 0


def test_bad_input_and_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert main(["pack", str(bad)]) == 2
    assert "TRD101" in capsys.readouterr().err
    assert main(["pack"]) == 2
    assert main(["pack", str(bad), "--window", "3"]) == 2


def test_the_generator_fills_the_grid() -> None:
    assert len(CELLS) == 96
    cluster = generate(Cell(4, 4, 2, 95), 7)
    assert len(cluster.pods) == 16
    total = sum(cluster.shapes[pod.shape].requests["cpu"] for pod in cluster.pods)
    assert cluster.nodes[0].capacity["cpu"] * 4 * 0.95 >= total * 0.999


def test_the_simulated_scheduler_fills_preempts_and_obeys() -> None:
    nodes = (Node("n0", {"cpu": 1000, "memory": 10}), Node("n1", {"cpu": 1000, "memory": 10}))
    low, high = Shape("low", {"cpu": 600}), Shape("high", {"cpu": 600}, priority=1)
    cluster = Cluster(nodes, (low, high), (Pod("a", 0), Pod("b", 0), Pod("c", 1)))
    simulated = simulate(cluster)
    assert simulated.preempted == 1
    assert simulated.nodes[2] != PENDING
    assert sorted(simulated.nodes[:2])[0] == PENDING
    assert check(cluster, Placement(simulated.nodes)) == []


def test_shares_never_straddle_in_the_bound() -> None:
    nodes = (Node("n0", {"cpu": 100}, devices=Devices(4)),)
    shape = Shape("a", {"cpu": 1}, device=DeviceRequest(600))
    cluster = Cluster(nodes, (shape,), tuple(Pod(f"p{i}", 0) for i in range(6)))
    weights = share_weights(cluster)
    assert heaviest(weights, 1000) <= 1
    assert placed_bound(cluster, 0, None, 0).value == 4
    packed = pack(cluster, Options(deterministic_s=2.0))
    assert packed.certificate.levels[0].value == packed.certificate.levels[0].bound == 4
    assert check(cluster, packed.placement) == []


@pytest.fixture
def roadef(tmp_path: Path) -> tuple[Path, Path]:
    source = random.Random(5)
    machines = "\n".join(f"{i % 2} {i % 3} 100 100 40 40 " + " ".join("02"[i != j] for j in range(5)) for i in range(5))
    processes = "\n".join(f"{i % 6} {source.randint(3, 20)} {source.randint(3, 20)} 1" for i in range(18))
    services = "\n".join("2 0" if i else "1 1 1" for i in range(6))
    model, assignment = tmp_path / "model.txt", tmp_path / "assignment.txt"
    model.write_text(f"2\n1 100\n0 10\n5\n{machines}\n6\n{services}\n18\n{processes}\n1\n0 1 1\n10\n1 10 100\n")
    assignment.write_text(" ".join(str((i % 6 + i // 6) % 5) for i in range(18)))
    return model, assignment


def test_reassignment_improves_and_verifies(
    roadef: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from treadle.frontends.roadef import load_roadef
    from treadle.solvers.reassignment.solve import Options as Steps
    from treadle.solvers.reassignment.solve import reassign

    instance = load_roadef(*roadef)
    assert check_reassignment(instance, instance.initial) == []
    found = reassign(instance, Steps(steps=2000))
    assert check_reassignment(instance, found.assignment) == []
    assert volume_bound(instance) <= found.cost == cost(instance, found.assignment) < cost(instance, instance.initial)
    out = tmp_path / "plan"
    assert main(["pack", "--roadef", *map(str, roadef), "--window", "1s", "-o", str(out)]) in (0, 3)
    assert f"wrote {out}/plan.json, assignment.txt" in capsys.readouterr().out
    assert verify(out).findings == ()
    assert (out / "assignment.txt").read_text().split()


def test_changes_of_cost_are_exact(roadef: tuple[Path, Path]) -> None:
    from treadle.frontends.roadef import load_roadef

    instance = replace(load_roadef(*roadef), service_move_weight=0)
    state, source = State(instance), random.Random(1)
    value = cost(instance, instance.initial)
    for _ in range(60):
        process = source.randrange(18)
        delta, legal = state.shift_deltas(process)
        targets = [m for m in range(5) if legal[m]]
        if targets:
            target = source.choice(targets)
            state.shift(process, target)
            value += int(delta[target])
            now = tuple(int(m) for m in state.at)
            assert cost(instance, now) == value
            assert check_reassignment(instance, now) == []


def test_planted_violations_of_a_reassignment(roadef: tuple[Path, Path]) -> None:
    from treadle.frontends.roadef import load_roadef

    instance = load_roadef(*roadef)

    def codes(*nodes: int) -> set[str]:
        return {finding.code for finding in check_reassignment(instance, nodes)}

    assert codes(0) == {"TRD460"}
    crowded = [0] * 18
    assert {"TRD461", "TRD464", "TRD465"} <= codes(*crowded)
    apart = list(instance.initial)
    for position, process in enumerate(instance.processes):
        if process.service == 1:
            apart[position] = (0, 2, 4)[position // 6]
        if process.service == 0:
            apart[position] = (1, 3, 1)[position // 6]
    assert "TRD463" in codes(*apart)


def test_a_gap_to_nothing_has_no_percentage() -> None:
    level = Level("placed>=0", "pods", 0, 199, Status.FEASIBLE, ProofKind.COUNT, maximize=True)
    assert level_line(level).endswith("feasible, bound 199  [count]")
    assert "gap 50.0%" in level_line(replace(level, value=2, bound=3))
