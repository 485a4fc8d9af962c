"""Sequence groups against brute force, their checker against altered groups, bounds, inputs, the command."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parallel.problems import problem
from tests.parallel.test_cli import SPEC, write
from treadle.cli.main import main
from treadle.codegen.training.grouping_files import groups_text, parse_groups
from treadle.costmodels.training_group_costs import group_costs
from treadle.costmodels.training_group_rounds import RoundPrices
from treadle.costmodels.training_grouping import (
    bounds_us,
    group_us,
    grouping_predictions,
    one_size_us,
    priced_us,
    rounds_us,
)
from treadle.costmodels.training_layer import LayerTimer
from treadle.frontends.sequence_lengths import read_lengths
from treadle.ir.certificate import ProofKind
from treadle.ir.diagnostics import ExitCode
from treadle.ir.plan import Plan, load
from treadle.ir.training.grouping import (
    Group,
    GroupCosts,
    GroupingBody,
    GroupingProblem,
    NotLengths,
    SequenceTooLong,
    check_grouping,
)
from treadle.ir.training.plan import Degrees
from treadle.solvers.sequence_groups.solve import certificate, prices, quick, round_prices, solve
from treadle.verification.core import review_plan, verify
from treadle.verification.grouping import review_grouping

COSTS = GroupCosts(2000.0, 100.0, 0.004, 200.0, 0.5, 4.0)


def of(lengths: tuple[int, ...], ranks: int = 4, room: int = 1000, costs: GroupCosts = COSTS) -> GroupingProblem:
    sizes = tuple(size for size in (1, 2, 4, 8, 16, 32, 64) if size <= ranks)
    return GroupingProblem(lengths, ranks, room, sizes, 2, costs)


@st.composite
def small(draw: st.DrawFn) -> GroupingProblem:
    ranks = draw(st.sampled_from([1, 2, 4]))
    count = draw(st.integers(1, 5))
    lengths = tuple(draw(st.integers(1, ranks * 1000)) for _ in range(count))
    fixed, step = draw(st.sampled_from([0.0, 2000.0, 50000.0])), draw(st.sampled_from([0.0, 500.0]))
    return of(lengths, ranks, costs=replace(COSTS, fixed_us=fixed, step_us=step))


def least_us(grouping: GroupingProblem) -> float:
    """Return the best time over every set partition into groups, sizes, and partition of the groups into rounds."""
    best = float("inf")
    for parts in partitions(tuple(range(len(grouping.lengths)))):
        for sizes in itertools.product(grouping.sizes, repeat=len(parts)):
            lengths = [[grouping.lengths[number] for number in part] for part in parts]
            held = zip(lengths, sizes, strict=True)
            if any(sum(row) > size * grouping.tokens_per_rank for row, size in held):
                continue
            ends = [group_us(grouping, size, row) for row, size in zip(lengths, sizes, strict=True)]
            for rounds in partitions(tuple(range(len(parts)))):
                if all(sum(sizes[item] for item in groups) <= grouping.ranks for groups in rounds):
                    best = min(best, sum(max(ends[item] for item in groups) for groups in rounds))
    return best


def partitions(items: tuple[int, ...]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for place in range(len(rest)):
            yield [*rest[:place], [items[0], *rest[place]], *rest[place + 1 :]]


@settings(max_examples=60, deadline=None)
@given(small())
def test_bounds_and_groupings_surround_the_optimum(grouping: GroupingProblem) -> None:
    best = least_us(grouping)
    assert max(bounds_us(grouping).values()) <= best * (1 + 1e-9)
    assert priced_us(grouping, prices(grouping)) <= best * (1 + 1e-9)
    assert priced_us(grouping, [float(size) for size in grouping.sizes]) <= best * (1 + 1e-9)
    for body in (quick(grouping), solve(grouping, repacks=40)):
        assert check_grouping(body) == []
        assert sum(rounds_us(body)) >= best * (1 - 1e-9)
    assert sum(rounds_us(solve(grouping, repacks=40))) <= 1.35 * best


@settings(max_examples=150, deadline=None)
@given(small(), st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0.5, 2))
def test_prices_of_rounds_bound_the_optimum(grouping: GroupingProblem, uplifts: list[float], scale: float) -> None:
    """Whatever prices are let pass, no grouping is faster than they add up to; work alone always passes."""
    longs = min(len(uplifts), len(grouping.lengths))
    costs = replace(grouping.costs, quadratic_us=scale * grouping.costs.quadratic_us)
    table = RoundPrices(replace(grouping, costs=costs), longs)
    best = least_us(table.problem)
    assert table.valid(table.least)
    for raised in (np.array(uplifts[:longs]), np.ones(longs), 0.2 * np.array(uplifts[:longs])):
        assert table.bound_us(table.least + raised * (table.most - table.least)) <= best * (1 + 1e-9)
    assert round_prices(table.problem)[1] <= best * (1 + 1e-9)


def three_long() -> GroupingProblem:
    """Three sequences that take four of six ranks each, and many short ones."""
    lengths = (4000, 4000, 4000, *(100 for _ in range(20)))
    return replace(of(lengths, ranks=4, costs=replace(COSTS, quadratic_us=1.0)), ranks=6)


def test_a_round_with_a_long_sequence_leaves_little_to_others() -> None:
    """Two ranks wait for each of the long ones: short sequences fill their memory long before it ends."""
    grouping = three_long()
    table = RoundPrices(grouping, 3)
    alone = group_us(grouping, 4, (4000,))
    assert table.bound_us(table.most) > 0.95 * 3 * alone > 1.3 * max(bounds_us(grouping).values())
    assert table.bound_us(2 * table.most) == 0.0


def test_forged_prices_are_found() -> None:
    body = quick(three_long())
    found = certificate(body)
    plan = Plan("sequence-groups", (), {}, {}, body, (found,), grouping_predictions(body))
    assert review_grouping(plan) == []
    for given_prices in ([], [1e12], ["x"], None, [float("inf")], [1.0] * 99):
        evidence = {"weights": [0.0] * 3, "prices": given_prices}
        forged = replace(found, levels=(replace(found.levels[0], evidence=evidence),))
        codes = {finding.code for finding in review_grouping(replace(plan, certificates=(forged,)))}
        assert codes == {"TRD646"}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6000), min_size=30, max_size=120), st.integers(0, 3))
def test_large_batches_are_legal_and_better_than_one_size(lengths: list[int], seed: int) -> None:
    grouping = of(tuple(lengths), ranks=16, room=1500)
    fast, best = quick(grouping), solve(grouping, repacks=30, seed=seed)
    assert check_grouping(fast) == []
    assert check_grouping(best) == []
    level = certificate(best).levels[0]
    assert level.proof is ProofKind.LP_DUAL
    assert level.value == pytest.approx(sum(rounds_us(best)))
    longest = next(size for size in grouping.sizes if max(lengths) <= size * 1500)
    assert sum(rounds_us(best)) <= one_size_us(grouping, longest) * 1.02


BODY = quick(of((900, 800, 3000, 100, 200, 300, 50, 1700)))
FIRST = BODY.rounds[0][0]
ALTERED: list[tuple[str, Callable[[], GroupingBody]]] = [
    ("TRD642", lambda: replace(BODY, rounds=BODY.rounds[1:])),
    ("TRD642", lambda: replace(BODY, rounds=(*BODY.rounds, (Group(0, 1, (0,)),)))),
    ("TRD642", lambda: replace(BODY, rounds=(*BODY.rounds, (Group(0, 1, (99,)),)))),
    ("TRD643", lambda: replace(BODY, rounds=((replace(FIRST, first=3), *BODY.rounds[0][1:]), *BODY.rounds[1:]))),
    ("TRD643", lambda: replace(BODY, rounds=((replace(FIRST, size=3), *BODY.rounds[0][1:]), *BODY.rounds[1:]))),
    ("TRD644", lambda: replace(BODY, problem=replace(BODY.problem, tokens_per_rank=760))),
]


@pytest.mark.parametrize(("code", "altered"), ALTERED)
def test_altered_groups_are_found(code: str, altered: Callable[[], GroupingBody]) -> None:
    assert check_grouping(BODY) == []
    assert code in {finding.code for finding in check_grouping(altered())}


def test_files_read_back() -> None:
    assert parse_groups(groups_text(BODY)) == BODY.rounds


def test_costs_are_those_of_the_step_model() -> None:
    setting = problem(gpus=8)
    degrees = Degrees(8, 1, 1, 1, 1, zero=1)
    costs = group_costs(setting, degrees, 8.0)
    for tokens in (4096, 8192, 16384, 65536):
        longer = replace(setting, spec=replace(setting.spec, sequence_tokens=tokens))
        wanted = 8 * LayerTimer(longer).layer("block", degrees).total_us
        grouping = GroupingProblem((tokens,), 8, 10**6, (1,), 8, costs)
        assert group_us(grouping, 1, (tokens,)) == pytest.approx(wanted, rel=1e-6 if tokens != 8192 else 0.1)


def test_lengths_are_read(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("100\n\n200\n")
    (tmp_path / "table.csv").write_text("id,tokens\na,7\nb,8\n")
    (tmp_path / "drawn.toml").write_text("[lengths]\ncount = 50\nmedian = 1000\nsigma = 1\nlongest = 4000\n")
    (tmp_path / "shares.toml").write_text("[lengths]\ncount = 9\nshares = [[10, 0.5], [20, 0.5]]\n")
    assert read_lengths(tmp_path / "plain.txt") == (100, 200)
    assert read_lengths(tmp_path / "table.csv") == (7, 8)
    drawn = read_lengths(tmp_path / "drawn.toml")
    assert drawn == read_lengths(tmp_path / "drawn.toml")
    assert len(drawn) == 50
    assert max(drawn) <= 4000
    assert set(read_lengths(tmp_path / "shares.toml")) <= {10, 20}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "", "empty"),
        ("a.txt", "100\nmany\n", "a.txt:2:1"),
        ("a.txt", "100\n0\n", "a.txt:2:1"),
        ("a.csv", "id,words\n1,2\n", "header"),
        ("a.csv", "tokens\n", "no rows"),
        ("a.toml", "[lengths]\ncount = 5\n", "neither"),
        ("a.toml", "[lengths]\ncount = 5\nshares = [[5, -1.0]]\n", "negative"),
    ],
)
def test_bad_lengths(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(NotLengths) as refused:
        read_lengths(tmp_path / name)
    assert said in refused.value.render()


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(SequenceTooLong) as refused:
        of((4001,))
    assert "4,000" in refused.value.next_step


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path, SPEC)
    assert main(["parallel", str(spec), "-o", str(tmp_path / "plan")]) == 0
    (tmp_path / "lengths.toml").write_text("[lengths]\ncount = 64\nmedian = 900\nsigma = 1\nlongest = 8000\n")
    command = ["parallel", str(tmp_path / "plan"), "--sequences", str(tmp_path / "lengths.toml")]
    capsys.readouterr()
    assert main([*command, "-o", str(tmp_path / "groups")]) == 0
    assert "times as fast as groups of one size" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "groups")]) == 0
    plan = load(tmp_path / "groups")
    level = plan.certificates[0].levels[0]
    raised = replace(level, bound=level.value, status=level.status) if level.gap else level
    posed = replace(plan.certificates[0], levels=(replace(raised, value=level.value * 2),))
    found = review_plan(replace(plan, certificates=(posed,)).sealed(), None).findings
    assert {finding.code for finding in found} >= {"TRD645"}
    (tmp_path / "groups" / "training" / "groups.csv").write_text("round\n")
    assert main(["verify", str(tmp_path / "groups")]) == 1
    capsys.readouterr()
    assert main([*command, "--fast", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "sequence-groups"
    (tmp_path / "lengths.toml").write_text("[lengths]\ncount = 1\nmedian = 90000000\nsigma = 0\n")
    assert main(command) == ExitCode.UNMET
    assert main(["parallel", str(spec), "--sequences", str(tmp_path / "lengths.toml")]) == ExitCode.USAGE


def test_a_specification_names_the_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SPEC.replace("[cluster]", 'lengths = "lengths.txt"\n[cluster]').replace(
        "[search]", "[search]\ncontext = [1]"
    )
    spec = write(tmp_path, text)
    (tmp_path / "lengths.txt").write_text("\n".join(["300"] * 20 + ["2000", "900"]))
    assert main(["parallel", str(spec), "-o", str(tmp_path / "plan")]) == 0
    assert "22 sequences, 8,900 tokens (longest 2,000)" in capsys.readouterr().out
    for folder in (tmp_path / "plan", tmp_path / "plan" / "sequences"):
        assert verify(folder).findings == ()
    assert load(tmp_path / "plan" / "sequences").kind == "sequence-groups"
    assert main(["parallel", str(spec)]) == 0
    assert "22 sequences" in capsys.readouterr().out
    assert main(["parallel", str(spec), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "parallel"
    (tmp_path / "lengths.txt").write_text("many\n")
    assert main(["parallel", str(spec)]) == 2
    assert "error TRD640" in capsys.readouterr().err
