"""The CP-SAT model of an operator loop with the period as a variable; one small function per constraint family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import networkx as nx
from ortools.sat.python import cp_model

from treadle.ir.operator.loop import OperatorLoop


@dataclass(slots=True)
class Model:
    """The CP-SAT model and its variables by operator (and mode)."""

    loop: OperatorLoop
    largest_ns: int
    stages: int
    cp: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    slots: dict[str, cp_model.IntVar] = field(default_factory=dict[str, cp_model.IntVar])
    again: dict[str, cp_model.IntVar] = field(default_factory=dict[str, cp_model.IntVar])
    starts: dict[str, cp_model.IntVar] = field(default_factory=dict[str, cp_model.IntVar])
    durations: dict[str, cp_model.IntVar] = field(default_factory=dict[str, cp_model.IntVar])
    stages_of: dict[str, cp_model.IntVar] = field(default_factory=dict[str, cp_model.IntVar])
    modes: dict[tuple[str, str], cp_model.IntVar] = field(default_factory=dict[tuple[str, str], cp_model.IntVar])
    period: cp_model.IntVar | None = None
    latency: cp_model.IntVar | None = None


def build(loop: OperatorLoop, smallest_ns: int, largest_ns: int, stages: int) -> Model:
    """Assemble the model: period between the bounds, at most `stages` iterations in flight."""
    model = Model(loop, largest_ns, stages)
    model.period = model.cp.new_int_var(smallest_ns, largest_ns, "period")
    for operator in loop.operators:
        _add_times(model, operator.name)
        _add_modes(model, operator.name)
    _add_dependences(model)
    _add_streams(model)
    _add_volumes(model)
    _add_recurrences(model)
    _fix_rotation(model)
    _add_latency(model)
    return model


def _add_times(model: Model, name: str) -> None:
    """Start = slot + period * stage, with the slot inside the period."""
    slot = model.cp.new_int_var(0, model.largest_ns - 1, f"slot {name}")
    model.cp.add(slot < _period(model))
    model.slots[name] = slot
    again = model.cp.new_int_var(0, 2 * model.largest_ns, f"slot {name}, one period later")
    model.cp.add(again == slot + _period(model))
    model.again[name] = again
    if model.stages == 1:
        model.starts[name] = slot
        return
    stage = model.cp.new_int_var(0, model.stages - 1, f"stage {name}")
    model.stages_of[name] = stage
    begun = model.cp.new_int_var(0, model.largest_ns * (model.stages - 1), f"begun {name}")
    model.cp.add_multiplication_equality(begun, [_period(model), stage])
    start = model.cp.new_int_var(0, model.largest_ns * model.stages, f"start {name}")
    model.cp.add(start == slot + begun)
    model.starts[name] = start


def _add_modes(model: Model, name: str) -> None:
    """Exactly one mode, which sets the duration; no operator overlaps itself."""
    operator = model.loop.operator(name)
    capacities = {stream.name: stream.capacity_milli for stream in model.loop.streams}
    for mode in operator.modes:
        chosen = model.cp.new_bool_var(f"{name} as {mode.name}")
        model.modes[name, mode.name] = chosen
        if any(share > capacities[stream] for stream, share in mode.shares_milli.items()):
            model.cp.add(chosen == 0)
    model.cp.add_exactly_one(model.modes[name, mode.name] for mode in operator.modes)
    duration = model.cp.new_int_var_from_domain(
        cp_model.Domain.from_values([mode.duration_ns for mode in operator.modes]), f"duration {name}"
    )
    model.cp.add(duration == sum(mode.duration_ns * model.modes[name, mode.name] for mode in operator.modes))
    model.cp.add(duration <= _period(model))
    model.durations[name] = duration


def _add_dependences(model: Model) -> None:
    for dependence in model.loop.dependences:
        ended = model.starts[dependence.source] + model.durations[dependence.source]
        model.cp.add(model.starts[dependence.target] >= ended - dependence.distance * _period(model))


def _add_streams(model: Model) -> None:
    """Every running operator twice, at its slot and one period later; the window between is the periodic load."""
    for stream in model.loop.streams:
        intervals: list[cp_model.IntervalVar] = []
        demands: list[int] = []
        for operator in model.loop.operators:
            for mode in operator.modes:
                share = mode.shares_milli.get(stream.name, 0)
                if not share:
                    continue
                slot, chosen = model.slots[operator.name], model.modes[operator.name, mode.name]
                label = f"{operator.name} {mode.name} on {stream.name}"
                shifts = (slot, model.again[operator.name]) if model.loop.periodic else (slot,)
                for shift in shifts:
                    intervals.append(
                        model.cp.new_optional_fixed_size_interval_var(shift, mode.duration_ns, chosen, label)
                    )
                    demands.append(share)
        model.cp.add_cumulative(intervals, demands, stream.capacity_milli)


def _add_volumes(model: Model) -> None:
    """Implied: what all operators hold of a stream, over time, fits into one period (seen by the relaxation)."""
    for stream in model.loop.streams:
        volume = sum(
            mode.duration_ns * mode.shares_milli.get(stream.name, 0) * model.modes[operator.name, mode.name]
            for operator in model.loop.operators
            for mode in operator.modes
        )
        model.cp.add(volume <= stream.capacity_milli * _period(model))


def _add_recurrences(model: Model) -> None:
    """Implied: durations around a cycle fit into its distance times the period (one cycle per carried dependence)."""
    for cycle in carried_cycles(model.loop):
        if model.loop.periodic:
            model.cp.add(sum(model.durations[name] for name in cycle) <= _period(model))


def _fix_rotation(model: Model) -> None:
    """A periodic schedule may be turned: the first operator starts its slot, and its stage, at 0."""
    if model.loop.periodic and any(d.distance for d in model.loop.dependences):
        first = model.loop.operators[0].name
        model.cp.add(model.slots[first] == 0)


def carried_cycles(loop: OperatorLoop) -> list[list[str]]:
    """Return, for every dependence of distance 1, a longest chain (by operators) that it closes."""
    graph: Any = nx.DiGraph()  # the stub of dag_longest_path wants nodes of type object
    graph.add_nodes_from(loop.index)
    graph.add_edges_from((d.source, d.target) for d in loop.dependences if d.distance == 0)
    cycles: list[list[str]] = []
    for dependence in loop.dependences:
        if dependence.distance != 1:
            continue
        between = nx.descendants(graph, dependence.target) & nx.ancestors(graph, dependence.source)
        inner = graph.subgraph({*between, dependence.source, dependence.target})
        if dependence.source == dependence.target or between or graph.has_edge(dependence.target, dependence.source):
            cycles.append(nx.dag_longest_path(inner))
    return cycles


def _add_latency(model: Model) -> None:
    latency = model.cp.new_int_var(0, model.largest_ns * (model.stages + 1), "latency")
    # A turned schedule need not begin at time 0.
    begin = model.cp.new_int_var(0, model.largest_ns * model.stages if model.loop.periodic else 0, "begin")
    for name in model.loop.index:
        model.cp.add(begin <= model.starts[name])
        model.cp.add(latency >= model.starts[name] + model.durations[name] - begin)
    if not model.loop.periodic:
        model.cp.add(latency == _period(model))
    model.latency = latency


def _period(model: Model) -> cp_model.IntVar:
    assert model.period is not None
    return model.period
