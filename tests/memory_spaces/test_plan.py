"""Plans of a traced step: verified, refused when damaged, and the errors of the command."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from treadle.cli.layout import app
from treadle.ir.layout.memory_spaces import Space, SpacesProblem, StepBuffer, StepSection
from treadle.ir.layout.space_modes import GapMode, Way
from treadle.ir.layout.space_plan import Home, Move, Return, SpacesPlan, check, stays
from treadle.ir.plan import Plan, load
from treadle.solvers.memory_spaces.solve import solve_spaces
from treadle.verification.core import review_plan

TINY = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 768,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
}  # fmt: skip

PROBLEM = SpacesProblem(
    "five kernels",
    (Space("memory", 10, 1_000_000_000), Space("host", None, None, 2_000_000_000, 2_000_000_000),
     Space("chip", 3, 4_000_000_000)),
    tuple(StepSection(f"k{i}", 9) for i in range(6)),
    (
        StepBuffer("weight", 4, (0, 5), (), kept=True),
        StepBuffer("early", 4, (0, 5), (0,), rerun_ns=7, rerun_from=(0,)),
        StepBuffer("late", 4, (2, 3), (2,)),
        StepBuffer("scratch", 2, (1, 2), (1,)),
    ),
)  # fmt: skip
"""Eleven or more bytes in kernel 2; `early` has to leave, or `scratch` to be on chip."""


def test_the_relaxation_is_tight_here() -> None:
    plan, certificate = solve_spaces(PROBLEM)
    assert not check(plan)
    assert certificate["step time"].value == 54


def placed(plan: SpacesPlan) -> SpacesPlan:
    """Give stays the offsets 0, 4, 8, ... by buffer: no two buffers overlap."""
    return replace(plan, pieces=tuple(replace(piece, offset_bytes=0) for piece in stays(plan)))


MOVED = Move(1, 0, GapMode(Way.COPY, 1, 1, 4))
DAMAGES: list[tuple[str, dict[str, Any]]] = [
    ("TRD700", {"moves": (Move(1, 2, MOVED.mode),)}),
    ("TRD700", {"moves": (Move(9, 0, MOVED.mode),)}),
    ("TRD700", {"moves": (MOVED, MOVED)}),
    ("TRD700", {"moves": (replace(MOVED, mode=replace(MOVED.mode, space=2)),)}),
    ("TRD700", {"moves": (replace(MOVED, mode=replace(MOVED.mode, out_until=4)),)}),
    ("TRD700", {"moves": (replace(MOVED, mode=replace(MOVED.mode, in_from=5)),)}),
    ("TRD701", {"moves": (Move(2, 2, GapMode(Way.RERUN, 0, 2, 3)),)}),
    ("TRD701", {"moves": (Move(1, 0, GapMode(Way.RERUN, 0, 0, 6)),)}),
    ("TRD701", {"returns": (Return(3, 1),)}),
    ("TRD701", {"returns": (Return(3, 4), Return(3, 4))}),
    ("TRD702", {"moves": (Move(0, 0, GapMode(Way.COPY, 1, 1, 4)),)}),
    ("TRD703", {"homes": (Home(0, 2),)}),
    ("TRD703", {"homes": (Home(3, 1),)}),
    ("TRD703", {"homes": (Home(3, 2), Home(3, 2))}),
    ("TRD703", {"homes": (Home(1, 2),), "moves": (MOVED,)}),
    ("TRD442", {"homes": (Home(1, 2),)}),
    ("TRD441", {}),
]


@pytest.mark.parametrize(("code", "damage"), DAMAGES)
def test_damage_is_found(code: str, damage: dict[str, Any]) -> None:
    plan = SpacesPlan(PROBLEM, **damage)
    with suppress(AssertionError, IndexError):  # stays follow from legal moves only
        plan = placed(plan)
    assert code in {finding.code for finding in check(plan)}


def test_stays_are_those_of_the_decisions() -> None:
    plan, _ = solve_spaces(PROBLEM)
    assert [finding.code for finding in check(replace(plan, pieces=plan.pieces[1:]))] == ["TRD704"]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["buffers", *arguments])


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("step")
    (folder / "config.json").write_text(json.dumps(TINY))
    arguments = ("--machine", "h100", "--tokens", "2048", "--capacity", "66000000", "-o", str(folder / "plan"))
    result = run(str(folder / "config.json"), *arguments)
    assert result.exit_code in (0, 3), result.output
    assert "copied" in result.output
    return folder / "plan"


def test_a_step_that_does_not_fit_is_planned(planned: Path) -> None:
    body: SpacesPlan = load(planned).body
    assert body.moves
    trace = json.loads((planned / "timeline.json").read_text())["traceEvents"]
    assert {"to host", "from host"} <= {e["args"]["name"] for e in trace if e["ph"] == "M"}
    assert len((planned / "moves.csv").read_text().splitlines()) == 1 + len(body.moves) + len(body.returns)


def test_verify_rederives_and_finds_forged_figures(planned: Path) -> None:
    plan = load(planned)
    assert not review_plan(plan, planned).findings
    body: SpacesPlan = plan.body
    level = plan.certificates[0]["step time"]
    doubled: dict[str, Any] = dict(level.evidence["multipliers"])
    doubled["memory"] = [[space, section, 4 * weight] for space, section, weight in doubled["memory"]]
    for forged in (
        replace(plan, body=replace(body, moves=body.moves[1:])),
        replace(plan, certificates=(_with(plan, value=level.value - 1, bound=level.value - 2),)),
        replace(plan, certificates=(_with(plan, bound=level.value),)),
        replace(plan, certificates=(_with(plan, bound=level.bound, evidence={"multipliers": doubled}),)),
        replace(plan, certificates=(_with(plan, evidence={}),)),
        replace(plan, predictions=(replace(plan.predictions[0], value=1.0),)),
    ):
        assert review_plan(forged.sealed(), None).errors


def _with(plan: Plan, **changes: Any) -> Any:
    certificate = plan.certificates[0]
    return replace(certificate, levels=(replace(certificate.levels[0], **changes),))


def test_errors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    file = str(tmp_path / "config.json")
    tight = run(file, "--machine", "h100", "--tokens", "64", "--capacity", "1000000")
    assert "TRD340" in repr(tight.exception) or tight.exception.code == "TRD340"
    assert run(file, "--host-memory", "5").exit_code == 2
    (tmp_path / "spaces.toml").write_text('[[space]]\nname = "ssd"\nout_bytes_per_s = 1\n')
    broken = run(file, "--machine", "h100", "--spaces", str(tmp_path / "spaces.toml"))
    assert "copies in one direction only" in str(broken.exception)
