"""Events, timelines as SVG, trace and text, rooflines."""

from __future__ import annotations

import json
from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.sample import KERNEL, LOOP, SCHEDULE
from treadle.codegen.events import slots_in_use, steady_window, unrolled
from treadle.codegen.svg_roofline import Point, Roof, roofline_svg
from treadle.codegen.svg_timeline import standalone_svg
from treadle.codegen.text_timeline import timeline_rows
from treadle.codegen.timeline import timeline_json
from treadle.ir.tile.loop import Loop, Operation, Unit
from treadle.ir.tile.schedule import Schedule, length_of


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=8), st.integers(1, 20))
def test_lanes_never_overlap(work: list[tuple[int, int]], ii: int) -> None:
    operations = tuple(Operation(f"o{i}", "u", occupancy, 1) for i, (_, occupancy) in enumerate(work))
    loop = Loop("random", (Unit("u", None),), operations, ())
    starts = {f"o{i}": start for i, (start, _) in enumerate(work)}
    schedule = Schedule("random", ii, starts, length_of(loop, starts), {})
    events = unrolled(loop, schedule, range(4))
    assert len(events) == 4 * len(work)
    last: dict[int, int] = {}
    for event in (event for event in events if event.end > event.start):
        assert event.start >= last.get(event.lane, 0)
        last[event.lane] = max(last.get(event.lane, 0), event.end)
    lanes = 1 + max(event.lane for event in events)
    crowd = max(sum(e.start <= t < e.end for e in events) for t in {e.start for e in events})
    assert lanes <= max(1, crowd)


def test_rings_in_the_steady_state_need_their_depth() -> None:
    begin, end = steady_window(SCHEDULE)
    steps = slots_in_use(LOOP.rings[0], SCHEDULE, begin, end, range(-10, 10))
    assert max(count for _, _, count in steps) == SCHEDULE.ring_depths["keys"] == 5
    assert steps[0][0] == begin
    assert steps[-1][1] == end


def test_svg_is_xml_with_every_operation() -> None:
    root = ElementTree.fromstring(standalone_svg(KERNEL))
    assert root.attrib["role"] == "img"
    titles = [element.text or "" for element in root.iter() if element.tag.endswith("title")]
    for operation in LOOP.operations:
        assert any(title.startswith(f"{operation.name}, iteration") for title in titles)
    named = {element.attrib.get("id") for element in root.iter()}
    assert set(root.attrib["aria-labelledby"].split()) <= named


def test_trace_is_valid_and_slices_of_a_track_do_not_overlap() -> None:
    trace = json.loads(timeline_json(KERNEL))
    assert timeline_json(KERNEL) == timeline_json(KERNEL)
    slices = [event for event in trace["traceEvents"] if event["ph"] in "Xi"]
    assert len(slices) == 4 * len(LOOP.operations)
    tracks = {event["tid"]: event["args"]["name"] for event in trace["traceEvents"] if event["name"] == "thread_name"}
    assert {event["tid"] for event in slices} == set(tracks)
    for track in tracks:
        mine = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices if e["tid"] == track and e["ph"] == "X")
        assert all(before[1] <= after[0] for before, after in pairwise(mine))


def test_text_timeline_fits() -> None:
    for width in (40, 80, 200):
        rows = timeline_rows(KERNEL, width)
        assert {row.name.split()[0] for row in rows} == {"tensor_core", "mufu", "dma"}
        assert all(len(row.line(width)) == width for row in rows)
    assert "scores" in timeline_rows(KERNEL, 120)[0].line(120)


def test_roofline() -> None:
    roof = Roof("demo", 1e15, 4e12)
    assert roof.attainable(1) == 4e12
    assert roof.attainable(1e6) == 1e15
    drawn = roofline_svg(roof, [Point("a", 10, 3e13, "decode"), Point("b", 10, 3e13), Point("c", 900, 7e14)])
    root = ElementTree.fromstring(drawn)
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == 3
    names = {e.text: float(e.attrib["y"]) for e in root.iter() if e.text in ("a", "b")}
    assert abs(names["a"] - names["b"]) >= 12
