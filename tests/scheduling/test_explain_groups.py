"""What binds a loop over warp groups, and what single changes would do, each solved again."""

from __future__ import annotations

from dataclasses import replace

from tests.scheduling.warp_loops import two_tiles
from treadle.cli.explain import priced_effect
from treadle.ir.tile.explanation import Alternative, Explanation, Limit
from treadle.ir.tile.kernel import WarpPlan
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.explain import explain_groups
from treadle.solvers.pipeline.solve import Options, schedule

LIMITS = Limits(deterministic_s=0.2)


def explained(warps: WarpLoop, told: list[str] | None = None, **others: WarpLoop) -> Explanation:
    solved = schedule(warps, Options(LIMITS))
    heard: list[str] = [] if told is None else told
    return explain_groups(WarpPlan(warps, solved.schedule, solved.certificate), LIMITS, others, heard.append)


def test_every_change_is_told_and_priced() -> None:
    told: list[str] = []
    warps = two_tiles()
    explanation = explained(warps, told, other=replace(warps, limits=replace(warps.limits, registers_per_group=15)))
    changes = [alternative.change for alternative in explanation.alternatives]
    assert told == [f"two_tiles: {change}" for change in changes]
    assert changes[:3] == ["other", "one group fewer (2)", "half the registers (20 a group)"]
    priced = dict(zip(changes, explanation.alternatives, strict=True))
    assert priced["other"].ii_cycles is None
    assert priced["other"].proven
    fewer = priced["one group fewer (2)"]
    assert fewer.ii_cycles is not None
    assert fewer.ii_cycles >= explanation.ii_cycles
    assert priced["one more slot for `tile`"].ii_cycles == explanation.ii_cycles
    for alternative in explanation.alternatives:
        assert alternative.bound_cycles is None or not alternative.proven
        if alternative.ii_cycles is not None and alternative.bound_cycles is not None:
            assert alternative.bound_cycles <= alternative.ii_cycles


def test_units_that_are_full_together_are_priced_together() -> None:
    warps = two_tiles()
    operations = tuple(
        replace(o, occupancy_cycles=20 if o.unit == "copy" else 10) if o.unit in ("copy", "tensor") else o
        for o in warps.loop.operations
    )
    explanation = explained(replace(warps, loop=replace(warps.loop, operations=operations)))
    assert {binding.name for binding in explanation.bindings if binding.limit is Limit.UNIT} >= {"copy", "tensor"}
    both = next(a for a in explanation.alternatives if " and " in a.change)
    assert both.change.endswith("twice as fast")


def test_an_interval_that_is_not_proven_says_what_it_is_at_least() -> None:
    assert priced_effect(Alternative("x", 90, False, 100, bound_cycles=80)).endswith(
        "-10.0%, not proven least: at least 80"
    )
    assert priced_effect(Alternative("x", 90, True, 100)).endswith("-10.0%")
