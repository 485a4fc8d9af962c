"""Mixed lengths in the choice of the plan: attention of the mix, room for the longest, plans compared with groups."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.parallel.problems import dense_model
from treadle.cli.main import main
from treadle.costmodels.training_group_costs import holds_longest, longest_held
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import setting_of
from treadle.driver.parallel import Options, plan_parallel
from treadle.frontends.training import TrainingProblem
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import ExitCode
from treadle.ir.errors import InvalidValue
from treadle.ir.plan import Plan
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import (
    ContextMode,
    Offload,
    Order,
    Pipeline,
    Recompute,
    SearchSpace,
    Sharding,
    TrainingSpec,
)
from treadle.solvers.parallel.explain import NoPlanFits
from treadle.verification.parallel import review_decision, review_enumeration

SPACE = SearchSpace(
    schedule=(Pipeline.ONE_F_ONE_B,),
    recompute=(Recompute.NONE,),
    sharding=(Sharding.GLOBAL,),
    context_mode=(ContextMode.RING,),
    offload=(Offload.NONE,),
    overlap_tensor=(False,),
    order=(Order.DATA_FIRST,),
    tensor=(1, 2),
    zero=(1,),
)
LENGTHS = (*(300 + 37 * number for number in range(24)), 9000, 20000)


def problem(lengths: tuple[int, ...] = LENGTHS) -> TrainingProblem:
    cluster = ClusterTopology((NodeGroup("a100", 2, 4),), 25.0)
    return TrainingProblem(dense_model(), cluster, TrainingSpec(16, 4096, search=SPACE, lengths=lengths), ())


def test_attention_counts_each_sequence_alone() -> None:
    spec = TrainingSpec(16, 4096, lengths=(100, 300))
    assert spec.attended_tokens() == pytest.approx((100**2 + 300**2) / 400)
    assert spec.attended_tokens(200) == pytest.approx((100**2 + 300 * 200) / 400)
    assert TrainingSpec(16, 4096).attended_tokens() == 4096
    assert TrainingSpec(16, 4096).attended_tokens(1000) == 1000
    with pytest.raises(InvalidValue):
        TrainingSpec(16, 4096, lengths=(5, 0))


def test_short_sequences_cost_less_and_rows_of_one_sequence_the_same() -> None:
    degrees, cluster = Degrees(8, 1, 1, 1, 1), problem().cluster

    def layer_us(lengths: tuple[int, ...]) -> float:
        spec = TrainingSpec(16, 4096, lengths=lengths)
        return LayerTimer(setting_of(dense_model(), cluster, spec)).layer("block", degrees).total_us

    assert layer_us((4096,) * 3) == layer_us(())
    assert layer_us((512,) * 8) < layer_us(()) < layer_us((4096, 32768))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_parallel(problem(), Options(3))


def test_plans_are_compared_with_their_sequences_grouped(plan: Plan) -> None:
    body = plan.body
    steps = [item.step_time_us for item in body.grouped]
    assert len(steps) == 4
    assert steps[0] == min(steps)
    step, wide, grouped = plan.certificates[0].levels
    assert step.bound == min([step.value, *(item.step_time_us for item in body.alternatives)])
    assert wide.bound is not None
    assert wide.bound <= step.value
    assert (grouped.bound, grouped.status) == (None, Status.FEASIBLE)
    assert not review_decision(plan)
    setting = setting_of(body.model, body.cluster, body.spec)
    assert not review_enumeration(setting, plan)[1]


FORGED: list[tuple[str, Callable[[Plan], dict[str, object]]]] = [
    ("TRD658", lambda plan: {"grouped": plan.body.grouped[1:]}),
    ("TRD658", lambda plan: {"grouped": ()}),
    ("TRD658", lambda plan: {"grouped": _first(plan, step_time_us=1.0)}),
    ("TRD642", lambda plan: {"grouped": _first(plan, rounds=plan.body.grouped[0].rounds[1:])}),
    ("TRD658", lambda plan: _swapped(plan)),
    ("TRD657", lambda plan: {"spec": replace(plan.body.spec, lengths=(*LENGTHS, 10**8))}),
]


def _first(plan: Plan, **fields: object) -> tuple[object, ...]:
    first, *rest = plan.body.grouped
    return replace(first, **fields), *rest


def _swapped(plan: Plan) -> dict[str, object]:
    """The second best of the plans compared stands for the best."""
    body = plan.body
    grouped = sorted(body.grouped, key=lambda item: -item.step_time_us)
    others = {item.degrees: item for item in body.alternatives}
    setting = setting_of(body.model, body.cluster, body.spec)
    worst = grouped[0]
    played = replay(setting, worst.degrees, worst.layout)
    best = replace(
        others[worst.degrees],
        degrees=body.degrees,
        layout=body.layout,
        step_time_us=replay(setting, body.degrees, body.layout).step_us,
    )
    rest = [others.get(item.degrees, best) for item in grouped[1:]]
    return {
        "degrees": worst.degrees,
        "layout": worst.layout,
        "stages": played.stages,
        "alternatives": tuple(rest),
        "grouped": tuple(grouped),
    }


@pytest.mark.parametrize(("code", "change"), FORGED)
def test_forged_groups_are_found_out(plan: Plan, code: str, change: Callable[[Plan], dict[str, object]]) -> None:
    forged = replace(plan, body=replace(plan.body, **change(plan)))
    assert code in {finding.code for finding in review_decision(forged)}


def test_the_longest_sequence_decides_what_fits() -> None:
    setting = setting_of(*(getattr(problem(), name) for name in ("model", "cluster", "spec")))
    held: dict[Degrees, int] = {}
    for degrees in (Degrees(8, 1, 1, 1, 1, zero=1), Degrees(4, 2, 1, 1, 1, zero=1)):
        stages = replay(setting, degrees, StageLayout((8,))).stages
        held[degrees] = longest_held(setting, degrees, stages)
        for tokens, fits in ((held[degrees], True), (held[degrees] + 1, False)):
            spec = replace(setting.spec, lengths=(tokens,))
            assert holds_longest(replace(setting, spec=spec), degrees, stages) == fits
    longest = max(held.values())
    found = plan_parallel(problem((*LENGTHS, longest)), Options(0)).body
    assert longest <= longest_held(setting, found.degrees, found.stages)


def test_nothing_holds_the_longest() -> None:
    with pytest.raises(NoPlanFits) as caught:
        plan_parallel(problem((*LENGTHS, 10**9)), Options(0))
    assert "a sequence of 1,000,000,000 tokens" in str(caught.value)
    assert "cut sequences at" in str(caught.value.next_step)


def test_the_command_says_how_the_plans_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32000,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "lengths.txt").write_text("\n".join(map(str, LENGTHS)), encoding="utf-8")
    (tmp_path / "training.toml").write_text(
        'model = "config.json"\n[training]\nglobal_batch = 16\nsequence_tokens = 4096\nlengths = "lengths.txt"\n'
        '[cluster]\ngpu = "a100"\nnodes = 2\ngpus_per_node = 4\n'
        '[search]\nschedule = ["1f1b"]\nrecompute = ["none"]\ntensor = [1, 2]\nzero = [1]\n',
        encoding="utf-8",
    )
    assert (
        main(["parallel", str(tmp_path / "training.toml"), "--top", "2", "-o", str(tmp_path / "plan")]) == ExitCode.DONE
    )
    said = capsys.readouterr().out
    assert "grouped_step_time" in said
    assert "with its sequences grouped" in said
    assert main(["verify", str(tmp_path / "plan")]) == ExitCode.DONE
