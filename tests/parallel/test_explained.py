"""What binds a training plan, what changes of the cluster do, and what its limits and choices are worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parallel.test_cli import SPEC, write
from treadle.cli.main import main
from treadle.driver.explain_parallel import ParallelExplanation, explain_parallel
from treadle.driver.parallel import Options, plan_parallel, read_problem
from treadle.ir.plan import Plan, to_text


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan under limits: no tensor ranks, 1F1B only."""
    text = SPEC + 'tensor = [1]\npipeline = [2]\nschedule = ["1f1b"]\n'
    return plan_parallel(read_problem(write(tmp_path_factory.mktemp("explained"), text)), Options(top=0)).sealed()


@pytest.fixture(scope="module")
def explanation(plan: Plan) -> ParallelExplanation:
    """Its explanation."""
    return explain_parallel(plan)


def test_shares_add_up_to_the_step(explanation: ParallelExplanation) -> None:
    assert sum(explanation.shares.values()) == pytest.approx(1.0)
    assert explanation.binds in explanation.shares
    assert 0 < explanation.fullest_share <= 1


def test_lifted_limits_and_better_machines_never_lose(plan: Plan, explanation: ParallelExplanation) -> None:
    changes = {change.change: change for change in explanation.changes}
    better = ["products a quarter faster", "no time to launch kernels", "network twice as fast", "any schedule"]
    better += ["a quarter more GPU memory", "links inside a node twice as fast", "any tensor ranks"]
    better += ["any pipeline ranks", "any microbatch"]
    for words in better:
        assert changes[words].step_us <= explanation.step_us * (1 + 1e-9), words
    assert changes["products a quarter faster"].step_us < explanation.step_us
    assert "no pipeline ranks" not in changes
    assert plan.body.degrees.text() == explanation.plan


def test_a_forbidden_choice_never_wins(tmp_path: Path) -> None:
    plan = plan_parallel(read_problem(write(tmp_path)), Options(top=0)).sealed()
    explanation = explain_parallel(plan)
    forbidden = [item for item in explanation.changes if item.change.startswith("no ") and "time" not in item.change]
    assert forbidden
    assert all(not change.plan or change.step_us >= explanation.step_us * (1 - 1e-9) for change in forbidden)


def test_the_command(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.json").write_text(to_text(plan))
    assert main(["explain", str(tmp_path)]) == 0
    lines = capsys.readouterr().out
    assert "tokens/s/GPU" in lines
    assert "any tensor ranks" in lines
    assert main(["explain", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["binds"]


def test_a_kind_without_explanation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parallel", str(write(tmp_path)), "--top", "0", "-o", str(tmp_path / "plan")]) == 0
    assert main(["parallel", str(tmp_path / "plan"), "--lost", "1", "-o", str(tmp_path / "less")]) in (0, 1)
    capsys.readouterr()
    assert main(["explain", str(tmp_path / "less")]) == 2
    assert "plans of kind `replan`; expected kernel, parallel" in capsys.readouterr().err
