"""Cuts into sections: least time against all cuts, proofs, mutations, errors, the verb."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.cli.main import main
from treadle.costmodels.section_tasks import task_graph
from treadle.costmodels.sections import (
    NoModeFits,
    SectionCosts,
    dataflow_sections,
    in_turn_sections,
    potential_bound_ns,
    section_machine,
    total_ns,
)
from treadle.driver.sections import SectionsRequest, plan_sections
from treadle.frontends.hf import parse_model
from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.sections.graph import OUTSIDE, Operand, Section, SectionMode, Task, TaskGraph, check
from treadle.solvers.sections.solve import cut
from treadle.verification.core import review_plan, verify

GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 256, "n_layer": 2, "n_head": 4,
    "n_positions": 1024, "vocab_size": 1000, "activation_function": "gelu_new", "torch_dtype": "float32",
}  # fmt: skip


def small_machine(on_chip: int) -> Machine:
    """The U280 with little memory and a costly reconfiguration, in round figures."""
    figures = {
        "compute_units": 8, "stream_units": 2, "flops_per_unit_per_s": 1e9, "compute_efficiency": 1,
        "memory_bandwidth_bytes_per_s": 1e9, "on_chip_bytes": on_chip, "reconfiguration_s": 5e-9, "tile_rows": 1,
        "task_buffer_bytes": 4, "stream_buffer_bytes": 1,
    }  # fmt: skip
    machine = section_machine("u280")
    return replace(
        machine, figures=tuple(replace(f, value=figures.get(f.name, f.value)) for f in machine.figures), id="small"
    )


@st.composite
def graphs(draw: st.DrawFn) -> TaskGraph:
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 4))):
        before = [OUTSIDE, *(task.name for task in tasks)]
        sources = draw(st.lists(st.sampled_from(before), min_size=1, max_size=2, unique=True))
        operands = tuple(Operand(source, draw(st.booleans())) for source in sources)
        amounts = [draw(st.integers(0, 60)), draw(st.integers(0, 20)), draw(st.integers(1, 30))]
        tasks.append(Task(f"t{number}", amounts[0], amounts[1], operands, amounts[2], draw(st.sampled_from([1, 4]))))
    return TaskGraph("random", tuple(tasks), draw(st.integers(1, 20)))


def every_cut(graph: TaskGraph, first: int = 0, held: frozenset[str] = frozenset()) -> list[tuple[Section, ...]]:
    """All legal cuts from a task on."""
    if first == len(graph.tasks):
        return [()] if not held else []
    found: list[tuple[Section, ...]] = []
    for end in range(first + 1, len(graph.tasks) + 1):
        made = {task.name for task in graph.tasks[first:end]}
        keep = sorted((made | held) & graph.live[end])
        for kept in chain.from_iterable(combinations(keep, count) for count in range(len(keep) + 1)):
            for mode in SectionMode:
                if mode is SectionMode.PIPELINE or end == first + 1:
                    section = Section(first, end, mode, kept)
                    found += [(section, *rest) for rest in every_cut(graph, end, frozenset(kept))]
    return found


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(1, 120))
def test_least_time_equals_all_cuts(graph: TaskGraph, on_chip: int) -> None:
    machine = small_machine(on_chip)
    costs = SectionCosts(graph, machine)
    times = [time for sections in every_cut(graph) if (time := total_ns(costs, sections)) is not None]
    try:
        body, certificate = cut(graph, machine)
    except NoModeFits:
        assert not times
        return
    level = certificate["time"]
    assert check(body) == []
    assert total_ns(costs, body.sections) == level.value
    assert potential_bound_ns(costs, level.evidence["potentials"]) == level.value
    # A pipeline of one task is a way to run it; the search has it in turn, which is never slower.
    assert level.value == min(times)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small blocks."""
    path = tmp_path_factory.mktemp("gpt2") / "config.json"
    path.write_text(json.dumps(GPT2))
    return path


@pytest.fixture(scope="module")
def plan(config: Path) -> Plan:
    """The two blocks on the U280."""
    return plan_sections(config, SectionsRequest("u280", 1, 512)).sealed()


def test_plan_is_reviewed(plan: Plan, tmp_path: Path) -> None:
    assert review_plan(plan, None).findings == ()
    costs = SectionCosts(plan.body.graph, plan.body.machine)
    time = total_ns(costs, plan.body.sections)
    for other in (in_turn_sections(plan.body.graph), dataflow_sections(plan.body.graph)):
        if (slower := total_ns(costs, other)) is not None:
            assert time is not None
            assert time <= slower


def _codes(plan: Plan) -> set[str]:
    return {finding.code for finding in review_plan(plan.sealed(), None).findings}


def test_mutations_are_found(plan: Plan) -> None:
    body, chosen = plan.body, plan.certificates[0]
    level = chosen.levels[0]

    def cut_as(sections: tuple[Section, ...]) -> set[str]:
        return _codes(replace(plan, body=replace(body, sections=sections)))

    def claimed(**fields: Any) -> set[str]:
        return _codes(replace(plan, certificates=(replace(chosen, levels=(replace(level, **fields),)),)))

    first, *rest = body.sections
    assert cut_as(tuple(rest)) == {"TRD380"}
    assert cut_as((replace(first, end=first.end + 1), *rest)) == {"TRD380"}
    assert cut_as((replace(first, held=("0.down",)), *rest)) == {"TRD381"}
    assert "TRD383" in cut_as(in_turn_sections(body.graph))
    tight = replace(
        body.machine,
        figures=tuple(replace(f, value=1.0) if f.name == "on_chip_bytes" else f for f in body.machine.figures),
    )
    assert "TRD382" in _codes(replace(plan, body=replace(body, machine=tight)))
    assert claimed(value=level.value + 1, bound=level.value + 1) == {"TRD383", "TRD384"}
    assert claimed(evidence={}) == {"TRD384"}
    raised = {key: value + 1 for key, value in level.evidence["potentials"].items()}
    assert claimed(evidence={"potentials": raised}) == {"TRD384"}
    assert _codes(replace(plan, certificates=())) == {"TRD383"}


def test_machines_are_whole() -> None:
    model = parse_model(json.dumps(GPT2), name="gpt2")
    for name in ("u280", "sn40l", "ve2302"):
        graph = task_graph(model, section_machine(name), 1, 64, layers=1)
        body, certificate = cut(graph, section_machine(name))
        assert check(body) == []
        assert certificate["time"].proof.checkable


def test_bad_requests(config: Path) -> None:
    with pytest.raises(UnknownName, match="u281"):
        section_machine("u281")
    with pytest.raises(InvalidValue, match="3 layers"):
        plan_sections(config, SectionsRequest("u280", 1, 64, 3))
    with pytest.raises(InvalidValue, match="at least one"):
        plan_sections(config, SectionsRequest("u280", 0, 64))
    task = Task("a", 1, 1, (Operand("b"),), 1, 1)
    with pytest.raises(InvalidValue, match="not made before"):
        TaskGraph("late", (task,), 1)
    with pytest.raises(InvalidValue, match="empty"):
        TaskGraph("none", (), 1)
    with pytest.raises(InvalidValue, match="negative"):
        Task("a", -1, 1, (), 1, 1)
    twice = Task("a", 1, 1, (Operand(OUTSIDE),), 1, 1)
    with pytest.raises(InvalidValue, match="two tasks"):
        TaskGraph("twice", (twice, twice), 1)
    with pytest.raises(NoModeFits, match="fits no mode"):
        cut(TaskGraph("one", (twice,), 1), small_machine(0))


def test_verb(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plan"
    words = ["sections", str(config), "--machine", "u280", "--tokens", "256", "--layers", "1"]
    assert main([*words, "-o", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "optimal" in out
    assert "one fixed pipeline a layer" in out
    assert verify(folder).findings == ()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "sections"
    assert main(["sections", str(config), "--machine", "none"]) == 2
    assert "TRD" in capsys.readouterr().err
