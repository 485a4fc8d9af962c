"""Re-plans against brute force, their checker against altered plans, checkpoints against simulation, the command."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parallel.problems import problem, problems
from tests.parallel.test_cli import SPEC, write
from treadle.cli.main import main
from treadle.codegen.training.replan_files import parse_transfers, read_replan_back, replan_files
from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_elastic import best_steps, daly_us, expected_us, old_setting, padded
from treadle.costmodels.training_keeping import Keeping, kept_bound
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.plan import Plan, load
from treadle.ir.training.check_replan import check_replan
from treadle.ir.training.elastic import Event, NothingLeft, Recovery, ReplanBody, SlowNode, Terms, seats_left
from treadle.ir.training.elastic_space import elastic_candidates, even_counts
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.spec import Sharding
from treadle.solvers.parallel.solve import search
from treadle.solvers.replanning.seats import seating
from treadle.solvers.replanning.solve import replan
from treadle.verification.core import review_plan

MIRRORED = Terms(mirrored=True)


def planned(setting: Setting) -> ParallelBody | None:
    state = search(setting, 1)
    if not state.found or state.best.degrees.sharding is not Sharding.GLOBAL:
        return None
    degrees, layout = state.best.degrees, state.best.layout
    if degrees.tensor > 1 and degrees.order.dimensions[0] != "tp":
        return None
    return ParallelBody(setting.model, setting.cluster, setting.spec, degrees, layout, state.best.replay.stages)


def fixed(degrees: Degrees, layout: tuple[int, ...], gpus: int, batch: int = 32) -> ParallelBody:
    setting = problem(gpus=gpus, batch=batch)
    stages = replay(setting, degrees, StageLayout(layout)).stages
    return ParallelBody(setting.model, setting.cluster, setting.spec, degrees, StageLayout(layout), stages)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(problems(), st.booleans(), st.data())
def test_replans_are_legal_and_fastest(setting: Setting, mirrored: bool, data: st.DataObject) -> None:
    before = planned(setting)
    nodes = sum(group.nodes for group in setting.cluster.groups)
    if before is None or nodes < 2:
        return
    lost = data.draw(st.integers(0, nodes - 1))
    try:
        found = replan(before, Event((lost,)), Terms(mirrored=mirrored))
    except NothingLeft:
        assert not _steps_of_all(before, (lost,))
        return
    assert check_replan(found.body) == []
    assert found.step_us == pytest.approx(min(_steps_of_all(before, (lost,))), rel=1e-9)
    assert found.certificate.levels[0].bound == found.step_us


def _steps_of_all(before: ParallelBody, lost: tuple[int, ...]) -> list[float]:
    """Replay every choice with each of its solved layouts."""
    setting = old_setting(before)
    timer = LayerTimer(setting)
    gpus = len(seats_left(before, lost)) * max(4, before.degrees.tensor)
    steps: list[float] = []
    for degrees in elastic_candidates(before, gpus, even=False):
        even = padded(setting, degrees, even_counts(before, degrees))
        for option in choices(even, degrees, Quick(even, timer)):
            if option.layout is not None:
                steps.append(replay(even, degrees, option.layout).step_us)
    return steps


@pytest.mark.parametrize(
    ("old", "layout", "new", "cut"),
    [
        (Degrees(4, 2, 1, 2, 1, zero=1), (4, 4), Degrees(3, 2, 1, 2, 1, zero=1), (4, 4)),
        (Degrees(4, 2, 1, 2, 1, zero=1), (4, 4), Degrees(2, 2, 1, 3, 1, zero=1), (3, 3, 2)),
        (Degrees(16, 1, 1, 1, 1, zero=3), (8,), Degrees(11, 1, 1, 1, 1, zero=3), (8,)),
        (Degrees(8, 1, 1, 2, 1, zero=0), (5, 3), Degrees(12, 1, 1, 1, 1, zero=0), (8,)),
    ],
)
def test_seats_keep_the_most_bytes(old: Degrees, layout: tuple[int, ...], new: Degrees, cut: tuple[int, ...]) -> None:
    before = fixed(old, layout, 16)
    keeping = Keeping(before, new, StageLayout(cut))
    seats = seats_left(before, (1,))
    found = seating(keeping, seats)
    best = max(
        sum(keeping.kept(seat, block) for block, seat in enumerate(chosen))
        for chosen in itertools.permutations(seats, keeping.blocks)
    )
    assert found.kept_bytes == best
    assert kept_bound(keeping, seats, found.seat_prices, found.block_prices) == best
    cheaper = [max(0, price - 1) for price in found.seat_prices]
    if any(price > 0 for price in found.seat_prices):
        assert kept_bound(keeping, seats, cheaper, found.block_prices) is None


@pytest.fixture(scope="module")
def body() -> ReplanBody:
    before = fixed(Degrees(4, 2, 1, 2, 1, zero=1), (4, 4), 16)
    found = replan(before, Event((2,)), MIRRORED).body
    assert found.recovery is Recovery.LIVE
    assert len(found.transfers) > 4
    return found


ALTERED: list[tuple[str, Callable[[ReplanBody], dict[str, Any]]]] = [
    ("TRD632", lambda body: {"seats": (2, *body.seats[1:])}),
    ("TRD632", lambda body: {"seats": (body.seats[1], *body.seats[1:])}),
    ("TRD633", lambda body: {"counts": (body.counts[0] + 1, *body.counts[1:])}),
    ("TRD634", lambda body: {"transfers": body.transfers[1:]}),
    ("TRD634", lambda body: {"transfers": (*body.transfers, body.transfers[0])}),
    ("TRD634", lambda body: {"transfers": (replace(body.transfers[0], source=8), *body.transfers[1:])}),
    ("TRD634", lambda body: {"transfers": (replace(body.transfers[0], start=1), *body.transfers[1:])}),
    ("TRD635", lambda body: {"terms": Terms()}),
    ("TRD635", lambda body: {"recovery": Recovery.CHECKPOINT}),
]


@pytest.mark.parametrize(("code", "change"), ALTERED)
def test_altered_replans_are_found(body: ReplanBody, code: str, change: Callable[[ReplanBody], dict[str, Any]]) -> None:
    assert check_replan(body) == []
    findings = check_replan(replace(body, **change(body)))
    assert code in {finding.code for finding in findings}


def test_without_a_copy_all_comes_from_the_checkpoint() -> None:
    before = fixed(Degrees(4, 2, 1, 2, 1, zero=1), (4, 4), 16)
    found = replan(before, Event((2,)), Terms()).body
    assert found.recovery is Recovery.CHECKPOINT
    assert {item.source for item in found.transfers} == {-1}
    copies = fixed(Degrees(4, 2, 1, 2, 1, zero=0), (4, 4), 16)
    assert replan(copies, Event((2,)), Terms()).body.recovery is Recovery.LIVE


def test_slow_nodes_run_less_or_not_at_all() -> None:
    before = fixed(Degrees(16, 1, 1, 1, 1, zero=0), (8,), 16, batch=960)
    space = replace(before.spec.search, micro_batch=(1,), context=(1,))
    before = replace(before, spec=replace(before.spec, search=space))
    kept = replan(before, Event(slow=(SlowNode(1, 1.2),)), Terms())
    assert check_replan(kept.body) == []
    block = kept.body.seats.index(1)
    assert kept.body.counts[4 * block] < kept.body.counts[4 * block - 4]
    assert kept.step_us < 1.1 * kept.before_us
    gone = replan(before, Event(slow=(SlowNode(1, 100.0),)), Terms())
    assert 1 not in gone.body.seats
    assert gone.certificate.levels[0].gap


def test_a_limit_on_migration_is_kept_or_refused() -> None:
    before = fixed(Degrees(4, 2, 1, 2, 1, zero=0), (4, 4), 16)
    free = replan(before, Event((2,)), Terms()).body
    with pytest.raises(NothingLeft) as refused:
        replan(before, Event((2,)), Terms(most_migrated_bytes=1))
    assert "--most-migrated" in refused.value.next_step
    limit = max(1, free.migrated_bytes - 1)
    try:
        assert replan(before, Event((2,)), Terms(most_migrated_bytes=limit)).body.migrated_bytes <= limit
    except NothingLeft:
        assert float(refused.value.next_step.split()[-1].removesuffix("GB")) * 1e9 > limit - 1e6


def test_files_read_back(body: ReplanBody) -> None:
    contents = {path: data.decode() for path, data in replan_files(body).items()}
    assert read_replan_back(body, contents) == []
    text = contents["training/transfers.csv"]
    assert parse_transfers(text) == body.transfers
    altered = {"training/transfers.csv": text.replace(",own", ",mirror", 1)}
    assert [finding.code for finding in read_replan_back(body, altered)] == ["TRD428"]


@given(st.floats(0.1, 50), st.floats(0.1, 500), st.floats(1e3, 1e6))
def test_best_steps_against_all(step: float, write_us: float, mtbf: float) -> None:
    best = best_steps(step, write_us, mtbf)

    def cost(steps: int) -> float:
        return expected_us(steps * step, write_us, 0.0, mtbf) / steps

    assert cost(best) <= min(cost(steps) for steps in range(1, min(4000, 3 * best + 10))) * (1 + 1e-9)


def test_expected_time_against_simulation() -> None:
    chance = random.Random(7)
    work, write_us, restart, mtbf = 30.0, 5.0, 8.0, 60.0
    total, runs = 0.0, 20000
    for _ in range(runs):
        left = False
        while not left:
            failure = chance.expovariate(1 / mtbf)
            if failure >= work + write_us:
                total += work + write_us
                left = True
                continue
            total += failure
            while (again := chance.expovariate(1 / mtbf)) < restart:
                total += again
            total += restart
    exact = mtbf * math.expm1((work + write_us) / mtbf) * math.exp(restart / mtbf)
    assert expected_us(work, write_us, restart, mtbf) == pytest.approx(exact)
    assert total / runs == pytest.approx(exact, rel=0.02)


def test_daly_is_near_the_optimum() -> None:
    best = best_steps(1.0, 60.0, 86400.0)
    assert daly_us(60.0, 86400.0) == pytest.approx(best, rel=0.01)
    assert daly_us(10.0, 4.0) == 4.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("replan")
    spec = SPEC.replace("nodes = 2", "nodes = 4").replace(
        "[search]", "[search]\nzero = [1]\ndata = [8]\npipeline = [2]"
    )
    assert main(["parallel", str(write(made, spec)), "-o", str(made / "plan")]) == 0
    return made / "plan"


def test_command_writes_a_plan_that_verifies(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "re"
    assert main(["parallel", str(folder), "--lost", "1", "--mirrored", "-o", str(target)]) == 0
    assert "transfers" in capsys.readouterr().out
    assert main(["verify", str(target)]) == 0
    plan = load(target)
    assert review_plan(plan, target).findings == ()
    step, moved, saving = plan.certificates[0].levels
    faster = replace(step, bound=step.value, value=step.value)
    assert _codes(plan, replace(faster, value=step.value * 0.9, bound=step.value * 0.9), moved, saving) == {"TRD637"}
    prices = {"seats": [0] * 3, "blocks": [0] * len(moved.evidence["blocks"])}
    assert _codes(plan, step, replace(moved, evidence=prices), saving) == {"TRD637"}
    (target / "training" / "transfers.csv").write_text("from,to\n")
    assert main(["verify", str(target)]) == 1


def _codes(plan: Plan, *levels: Any) -> set[str]:
    certificate = replace(plan.certificates[0], levels=levels)
    return {finding.code for finding in review_plan(replace(plan, certificates=(certificate,)).sealed(), None).findings}


@pytest.mark.parametrize(
    ("options", "code", "status"),
    [
        (["--lost", "4"], "TRD630", ExitCode.USAGE),
        (["--lost", "0-3"], "TRD631", ExitCode.UNMET),
        (["--lost", "one"], "TRD006", ExitCode.USAGE),
        (["--slow", "1"], "TRD006", ExitCode.USAGE),
        (["--slow", "1=0.5"], "TRD006", ExitCode.USAGE),
        (["--lost", "1", "--slow", "1=2"], "TRD006", ExitCode.USAGE),
        (["--lost", "1", "--most-migrated", "3 apples"], "TRD105", ExitCode.USAGE),
        (["--lost", "1", "--most-migrated", "1B"], "TRD631", ExitCode.UNMET),
    ],
)
def test_bad_requests(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: str, status: ExitCode
) -> None:
    assert main(["parallel", str(folder), *options]) == status
    message = capsys.readouterr().err
    assert f"error {code}" in message
    assert "Traceback" not in message


def test_other_plans_and_specifications_are_refused(folder: Path, tmp_path: Path) -> None:
    assert main(["parallel", str(folder.parent / "training.toml"), "--lost", "1"]) == ExitCode.USAGE
    before = fixed(Degrees(4, 2, 1, 2, 1, zero=1), (4, 4), 16)
    odd = replace(before, degrees=replace(before.degrees, sharding=Sharding.NODE))
    with pytest.raises(TreadleError, match="cannot re-plan"):
        replan(odd, Event((1,)), Terms())
