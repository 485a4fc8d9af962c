"""Cores of loops and orders of full units: what is left out, and what is not."""

from __future__ import annotations

from dataclasses import replace

from tests.scheduling.warp_loops import two_tiles
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.orders import core, is_whole, orders
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.pipeline.framed import framed


def _one_part() -> WarpLoop:
    """Two tiles of which the second waits for the first: without the load there is still one part."""
    warps = two_tiles()
    first = warps.loop.dependences[1]
    tied = replace(first, source="soft_a", target="soft_b", delay_cycles=10)
    loop: Loop = replace(warps.loop, dependences=(*warps.loop.dependences, tied))
    return replace(warps, loop=loop)


def test_a_core_that_falls_into_parts_leaves_out_loads() -> None:
    warps = two_tiles()
    reduced = core(warps, 19)
    assert "load" not in reduced.loop.index
    assert not is_whole(warps, reduced)
    assert not framed(warps, 19).whole


def test_a_core_in_one_part_is_the_whole_loop() -> None:
    """Rings, memory and stages of the loads then count: its schedules are schedules of the loop."""
    warps = _one_part()
    reduced = core(warps, 19)
    assert [o.name for o in reduced.loop.operations] == [o.name for o in warps.loop.operations]
    assert is_whole(warps, reduced)
    assert framed(warps, 19).whole


def test_units_of_loads_have_no_order() -> None:
    warps = two_tiles()
    tensor = [operation.name for operation in warps.loop.operations if operation.unit == "tensor"]
    assert [sorted(order.by_name) for order in orders(warps, 16)] == [sorted(tensor)]
    roles = replace(
        warps, issues=tuple(replace(i, role="copies") if i.operation == "mma_b" else i for i in warps.issues)
    )
    assert [order.by_name for order in orders(roles, 16)] == [{}]
