"""Small loops for the tests: written by hand, and drawn by hypothesis."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit


def accumulate() -> Loop:
    """Load, multiply, add to a running sum: the adder's recurrence of 4 cycles binds."""
    return Loop(
        "accumulate",
        (Unit("port", 1), Unit("multiplier", 1), Unit("adder", 1)),
        (
            Operation("load", "port", 1, 3),
            Operation("scale", "multiplier", 1, 2),
            Operation("sum", "adder", 1, 4),
            Operation("store", "port", 1, 1),
        ),
        (
            Dependence("load", "scale", 3),
            Dependence("scale", "sum", 2),
            Dependence("sum", "sum", 4, 1),
            Dependence("sum", "store", 4),
        ),
    )


def staged(depth: int = 4, capacity_bytes: int = 1000) -> Loop:
    """A long load into a ring, read by two products that fill their unit for ten cycles."""
    return Loop(
        "staged",
        (Unit("copy", 1), Unit("tensor", 1)),
        (
            Operation("load", "copy", 3, 25),
            Operation("first", "tensor", 5, 8),
            Operation("second", "tensor", 5, 8),
        ),
        (Dependence("load", "first", 25), Dependence("first", "second", 8)),
        (Ring("tile", "shared", 100, "load", (Reader("first", 5), Reader("second", 5)), depth),),
        (Capacity("shared", capacity_bytes, 0),),
    )


def packed() -> Loop:
    """Five operations of two cycles on two instances, chained into one recurrence over two iterations."""
    names = [f"step{i}" for i in range(5)]
    chain = [Dependence(a, b, 2) for a, b in pairwise(names)]
    return Loop(
        "packed",
        (Unit("lane", 2),),
        tuple(Operation(name, "lane", 2, 2) for name in names),
        (*chain, Dependence("step4", "step0", 2, 2)),
    )


@st.composite
def small_loops(draw: st.DrawFn, most_operations: int = 5, *, rings: bool = True) -> Loop:
    """A loop of 1 to `most_operations` operations with short times, carried dependences and perhaps a ring."""
    count = draw(st.integers(1, most_operations))
    units = tuple(Unit(name, draw(st.sampled_from([1, 1, 2, None]))) for name in ("a", "b"))
    operations = tuple(
        Operation(
            f"o{i}", draw(st.sampled_from(["a", "b"])), draw(st.sampled_from([0, 1, 1, 2])), draw(st.integers(0, 3))
        )
        for i in range(count)
    )
    ends = st.integers(0, count - 1)
    dependences: list[Dependence] = []
    for _ in range(draw(st.integers(0, count + 2))):
        source, target = draw(ends), draw(ends)
        carried = source >= target or draw(st.integers(0, 4)) == 0
        distance = draw(st.integers(1, 2)) if carried else 0
        dependences.append(Dependence(f"o{source}", f"o{target}", draw(st.integers(-1, 4)), distance))
    if not rings or not draw(st.booleans()):
        return Loop("small", units, operations, tuple(dependences))
    drawn = tuple(
        Ring(
            f"r{number}",
            "shared",
            draw(st.integers(1, 3)),
            f"o{draw(ends)}",
            (Reader(f"o{draw(ends)}", draw(st.integers(0, 3)), draw(st.integers(0, 1))),),
            draw(st.integers(1, 3)),
        )
        for number in range(draw(st.integers(1, 2)))
    )
    return Loop("small", units, operations, tuple(dependences), drawn, (Capacity("shared", draw(st.integers(2, 9))),))
