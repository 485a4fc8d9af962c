"""Small loops with warps for the tests."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from benchmarks.warp_oracle import random_warps
from treadle.ir.tile.exhaustive_warps import TooLarge, best_rank
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.warps import Crossing, Issue, RegisterValue, WarpLimits, WarpLoop


def two_tiles(registers_per_group: int = 40, most_groups: int = 3) -> WarpLoop:
    """A load for two tiles, each multiplied asynchronously and then worked on for 10 cycles by its group."""
    operations = [Operation("load", "copy", 4, 12)]
    dependences: list[Dependence] = []
    issues = [Issue("load", 1, "load")]
    values: list[RegisterValue] = []
    for tile in "ab":
        operations += [Operation(f"mma_{tile}", "tensor", 8, 9), Operation(f"soft_{tile}", f"alu_{tile}", 10, 10)]
        dependences += [
            Dependence("load", f"mma_{tile}", 12),
            Dependence(f"mma_{tile}", f"soft_{tile}", 9),
            Dependence(f"soft_{tile}", f"mma_{tile}", 10, 1),
        ]
        issues += [Issue(f"mma_{tile}", 1), Issue(f"soft_{tile}", 10)]
        values.append(RegisterValue(f"mma_{tile}", f"mma_{tile}", 16, (Reader(f"soft_{tile}", 10),), 20))
    loop = Loop(
        "two_tiles",
        (Unit("copy", 1), Unit("tensor", 1), Unit("alu_a", 1), Unit("alu_b", 1)),
        tuple(operations),
        tuple(dependences),
        (Ring("tile", "shared", 10, "load", (Reader("mma_a", 9), Reader("mma_b", 9)), 4),),
        (Capacity("shared", 40),),
    )
    crossings = [
        Crossing(position, 3, 0 if d.source == "load" else 64, 1) for position, d in enumerate(loop.dependences)
    ]
    limits = WarpLimits(most_groups, registers_per_group, 100, fixed_registers=4, role_registers=2)
    return WarpLoop(loop, tuple(issues), tuple(crossings), tuple(values), limits)


@st.composite
def small_warps(draw: st.DrawFn) -> WarpLoop:
    """Two to four operations on two units, at most two groups, short times, values of a few registers."""
    count = draw(st.integers(2, 3))
    operations = tuple(
        Operation(f"o{i}", draw(st.sampled_from(["a", "b"])), draw(st.integers(1, 2)), draw(st.integers(1, 3)))
        for i in range(count)
    )
    dependences: list[Dependence] = []
    for target in range(1, count):
        source = draw(st.integers(0, target - 1))
        dependences.append(Dependence(f"o{source}", f"o{target}", draw(st.integers(0, 3))))
    if draw(st.booleans()):
        dependences.append(Dependence(f"o{count - 1}", "o0", draw(st.integers(1, 3)), draw(st.integers(1, 2))))
    loop = Loop("small", (Unit("a", 1), Unit("b", 1)), operations, tuple(dependences))
    role = draw(st.booleans())
    issues = tuple(Issue(f"o{i}", draw(st.integers(0, 2)), "load" if role and i == 0 else "") for i in range(count))
    crossings = tuple(
        Crossing(
            position,
            draw(st.integers(0, 2)),
            draw(st.sampled_from([0, 4])),
            1,
            allowed=(role and "o0" in (d.source, d.target)) or draw(st.integers(0, 3)) > 0,
        )
        for position, d in enumerate(dependences)
    )
    values = tuple(
        RegisterValue(
            d.source, d.source, draw(st.integers(1, 3)), (Reader(d.target, draw(st.integers(0, 2)), d.distance),), 2
        )
        for position, d in enumerate(dependences)
        if not (role and d.source == "o0") and d.source not in [e.source for e in dependences[:position]]
    )
    limits = WarpLimits(2, draw(st.integers(3, 9)), 12, fixed_registers=1, role_registers=1, most_stages=2)
    return WarpLoop(loop, issues, crossings, values, limits)


def ranked(draws: random.Random) -> tuple[WarpLoop, tuple[int, ...]]:
    """Return a random loop that has a schedule, and its best levels by trying everything."""
    while True:
        warps = random_warps(draws)
        try:
            rank = best_rank(warps, 12, most_tries=60_000)
        except TooLarge:
            continue
        if rank is not None:
            return warps, tuple(rank)
