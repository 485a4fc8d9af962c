"""The level of exposed waits: what it counts, that it equals exhaustive search, and that its claims are checked."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.warp_oracle import compare, expected_rank, random_warps
from tests.scheduling.warp_loops import two_tiles
from treadle.driver.kernels import objective_levels
from treadle.ir.certificate import ProofKind
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.assignments import classes
from treadle.ir.tile.exhaustive_warps import TooLarge
from treadle.ir.tile.stays import homes_of
from treadle.ir.tile.warp_claims import recheck_warps, value_of
from treadle.ir.tile.warps import WarpLoop, exposed_waits
from treadle.solvers.pipeline.solve import LEVELS, Options, schedule


def apart() -> WarpLoop:
    """Two tiles whose products may be in a group of their own, beside which nothing is synchronous."""
    warps = two_tiles(registers_per_group=120, most_groups=4)
    issues = tuple(replace(issue, synchronous=not issue.operation.startswith("mma")) for issue in warps.issues)
    crossings = tuple(replace(crossing, bytes=0, delay_cycles=0) for crossing in warps.crossings)
    limits = replace(warps.limits, registers_of_file=400)
    return replace(warps, issues=issues, crossings=crossings, limits=limits)


def test_waits_count_beside_synchronous_work_alone() -> None:
    warps = apart()
    together = {"load": 0, "mma_a": 1, "soft_a": 1, "mma_b": 2, "soft_b": 2}
    assert exposed_waits(warps, together) == 2
    assert exposed_waits(warps, {**together, "mma_b": 3}) == 1
    assert exposed_waits(warps, {**together, "mma_a": 3, "mma_b": 3}) == 0
    assert exposed_waits(warps, {**together, "soft_b": 3}) == 1
    synchronous = replace(warps, issues=tuple(replace(issue, synchronous=True) for issue in warps.issues))
    assert exposed_waits(synchronous, {**together, "mma_a": 3, "mma_b": 3}) == 2


def test_fewer_operations_expose_no_more() -> None:
    for seed in range(40):
        draw = random.Random(seed)
        warps = random_warps(draw)
        home = {name: draw.randint(1, 2) for name in classes(warps)}
        roles = {issue.operation for issue in warps.issues if issue.role}
        groups = {name: 0 if name in roles else group for names, group in home.items() for name in names}
        part = {name: group for name, group in groups.items() if draw.random() < 0.5}
        assert exposed_waits(warps, part) <= exposed_waits(warps, groups)
        assert exposed_waits(warps, homes_of(warps, None)) <= exposed_waits(warps, groups)


def test_products_leave_synchronous_work_where_waits_come_first() -> None:
    """Barriers and groups are paid for hidden waits exactly where the order of levels says so."""
    warps = apart()
    usual = schedule(warps)
    assert exposed_waits(warps, usual.schedule.groups) == 2
    hidden = schedule(warps, Options(objective=LEVELS))
    assert exposed_waits(warps, hidden.schedule.groups) == 0
    assert hidden.certificate["exposed_waits"].value == 0
    assert value_of(warps, hidden.schedule, "barriers") > value_of(warps, usual.schedule, "barriers")
    assert recheck_warps(warps, hidden.schedule, hidden.certificate).findings == ()


@pytest.mark.parametrize("seed", range(6))
def test_equals_exhaustive_search(seed: int) -> None:
    draw = random.Random(f"waits {seed}")
    for _ in range(3):
        warps = next(w for w in (random_warps(draw) for _ in range(99)) if len(w.loop.operations) < 5)
        try:
            expected = expected_rank(warps, LEVELS)
        except TooLarge:
            continue
        found = compare(warps, expected, LEVELS)
        assert not found["differs"]
        assert not found["findings"]
        assert found.get("accepted", (0, 0))[1] == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"value": 1, "bound": 1}, "TRD411"),
        ({"value": 2, "bound": 2}, "TRD413"),
        ({"evidence": {"forced": 1}}, "TRD413"),
        ({"evidence": {}}, "TRD414"),
        ({"proof": ProofKind.RESOURCE}, "TRD414"),
        ({"unit": "cycles"}, "TRD410"),
    ],
)
def test_damaged_claims_are_found(changes: dict[str, object], code: str) -> None:
    warps = apart()
    solution = schedule(warps, Options(objective=LEVELS))
    assert solution.certificate["exposed_waits"].proof is ProofKind.COUNT
    levels = tuple(
        replace(level, **changes) if level.name == "exposed_waits" else level  # type: ignore[arg-type]  # by name
        for level in solution.certificate.levels
    )
    findings = recheck_warps(warps, solution.schedule, replace(solution.certificate, levels=levels)).findings
    assert code in [finding.code for finding in findings]


def test_the_order_may_name_it() -> None:
    assert objective_levels("traffic_bytes,exposed_waits,length") == (
        "ii",
        "traffic_bytes",
        "exposed_waits",
        "length",
    )
    with pytest.raises(InvalidValue, match="exposed_waits"):
        objective_levels("exposed")
