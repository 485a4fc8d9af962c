"""Least time over all cuts: shortest path over (tasks done, tensors held, mode), backwards, for the potentials."""

from __future__ import annotations

from treadle.costmodels.sections import START, NoModeFits, SectionCosts, State
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.machine import Machine
from treadle.ir.sections.graph import Section, SectionMode, SectionsBody, TaskGraph


def cut(
    graph: TaskGraph, machine: Machine, modes: frozenset[SectionMode] = frozenset(SectionMode)
) -> tuple[SectionsBody, Certificate]:
    """Return the cut of least time and its certificate (level `time`, with the potential of every state).

    Args:
        graph: the tasks.
        machine: what they run on.
        modes: those allowed; a proof holds for all of them only.

    Raises:
        NoModeFits: some task fits no mode even with everything else in memory.
        MissingFigure: the machine lacks a number.
    """
    costs = SectionCosts(graph, machine)
    _check_fits(costs, graph)
    layers: list[dict[State, list[tuple[Section, State, int]]]] = [{} for _ in range(len(graph.tasks) + 1)]
    layers[0][START] = []
    for layer in layers[:-1]:
        for state, options in layer.items():
            for section, after, cost in costs.options(state):
                if section.mode in modes:
                    options.append((section, after, cost))
                    layers[after.cut].setdefault(after, [])
    rest: dict[State, int] = dict.fromkeys(layers[-1], 0)
    best: dict[State, tuple[Section, State]] = {}
    for layer in reversed(layers[:-1]):
        for state, options in layer.items():
            for section, after, cost in options:
                if after in rest and cost + rest[after] < rest.get(state, cost + rest[after] + 1):
                    rest[state] = cost + rest[after]
                    best[state] = section, after
    sections: list[Section] = []
    state = START
    while state.cut < len(graph.tasks):
        section, state = best[state]
        sections.append(section)
    potentials = {state.key: value for state, value in rest.items() if state.cut < len(graph.tasks)}
    level = Level(
        "time", "ns", rest[START], rest[START], Status.OPTIMAL, ProofKind.ENUMERATION, {"potentials": potentials}
    )
    return SectionsBody(graph, machine, tuple(sections)), Certificate("sections", "section times", (level,))


def _check_fits(costs: SectionCosts, graph: TaskGraph) -> None:
    for position, task in enumerate(graph.tasks):
        alone = [Section(position, position + 1, mode) for mode in (SectionMode.IN_TURN, SectionMode.STREAM)]
        if all(costs.cost_ns(section, frozenset(), False) is None for section in alone):
            need = min(costs.need_bytes(section, frozenset()) for section in alone)
            raise NoModeFits(task=task.name, machine=costs.machine.id, need=need, capacity=costs.rates.on_chip_bytes)
