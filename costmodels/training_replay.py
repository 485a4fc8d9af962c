"""Replay of a training step: every forward and backward of every microbatch and virtual stage, with hops and tails.

A rank runs its list in the order of the schedule (`training_schedules`). An entry starts when the rank is free and its
tensor has arrived. Nothing here is a formula of the step time: this is what the formulas and bounds are checked
against.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from treadle.costmodels.training_ends import embedding_pass, loss_pass, predictor_pass
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_memory import (
    host_bytes,
    layer_saved_bytes,
    stage_again,
    stage_kinds,
    stage_parameters,
    state_bytes,
    transient_bytes,
)
from treadle.costmodels.training_schedules import BACKWARD, FORWARD, WEIGHT, holdings, schedule_of, settled
from treadle.costmodels.training_setting import Pass, Setting
from treadle.costmodels.training_traffic import hop_us, tail_us, tied_sum_us
from treadle.ir.training.plan import Degrees, StageFigures, StageLayout
from treadle.ir.training.spec import Pipeline, Recompute


@dataclass(frozen=True, slots=True)
class Event:
    """One run of a chunk in the timeline, in microseconds."""

    rank: int
    forward: bool
    chunk: int
    microbatch: int
    start_us: float
    end_us: float
    weight: bool = False
    """Weight gradients that run apart from their backward."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Outcome of a replay."""

    step_us: float
    pipeline_us: float
    """Latest end of a backward."""
    busy_us: tuple[float, ...]
    """Work per rank, tails apart."""
    stages: tuple[StageFigures, ...]
    events: tuple[Event, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """Highest memory of any GPU."""
        return max(stage.memory_bytes for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Work:
    """Times and sizes of a plan's virtual stages: `passes[rank][chunk]`, `saved_bytes[rank][chunk]`."""

    passes: tuple[tuple[Pass, ...], ...]
    saved_bytes: tuple[tuple[float, ...], ...]
    hop_us: float
    tails_us: tuple[float, ...]
    parameters: tuple[float, ...]
    state_bytes: tuple[float, ...]
    transient_bytes: tuple[float, ...]
    whole_bytes: tuple[tuple[float, ...], ...] = ()
    """What a chunk holds between its backward and its weight gradients, per rank and chunk."""
    host_bytes: tuple[float, ...] = ()


def work_of(setting: Setting, degrees: Degrees, layout: StageLayout, timer: LayerTimer | None = None) -> Work:
    """Return times and sizes of every virtual stage of a plan."""
    timer = timer or LayerTimer(setting)
    kinds = stage_kinds(setting.model, layout, degrees)
    stages = timer.of_stages(degrees)
    again = stage_again(setting.model, layout, degrees)
    chunks = [_chunks(stages[rank], degrees, rank, kinds[rank], again[rank]) for rank in range(degrees.pipeline)]
    passes = tuple(item[0] for item in chunks)
    tails: list[float] = []
    sizes: list[tuple[float, float, float, float]] = []
    for rank, items in enumerate(kinds):
        here = stages[rank].setting
        merged: dict[str, int] = {}
        for counts in items:
            for name, count in counts.items():
                merged[name] = merged.get(name, 0) + count
        first, last = rank == 0, rank == degrees.last_rank
        dense, routed = stage_parameters(setting.model, degrees, merged, first, last)
        layers = sum(merged.values())
        tail = tail_us(here, degrees, dense, routed, sum(item.backward_us for item in passes[rank]), layers)
        tails.append(tail + (slowest(stages, lambda one: tied_sum_us(one, degrees)) if first != last else 0.0))
        state = state_bytes(here, degrees, dense, routed)
        kept = host_bytes(here, degrees, dense, routed, merged)
        twice = {name for counts in again[rank] for name in counts}
        sizes.append((dense + routed, state, transient_bytes(here, degrees, merged, last, twice), kept))
    parameters, states, transients, hosts = zip(*sizes, strict=True)
    saved, whole = tuple(item[1] for item in chunks), tuple(item[2] for item in chunks)
    hop = slowest(stages, lambda one: hop_us(one, degrees))
    return Work(passes, saved, hop, tuple(tails), parameters, states, transients, whole, hosts)


def slowest(stages: list[LayerTimer], time: Callable[[Setting], float]) -> float:
    """Return the longest time that any stage's GPU type takes for something between stages: the slower end decides."""
    settings = {id(stage): stage.setting for stage in stages}
    return max(time(setting) for setting in settings.values())


def _chunks(
    timer: LayerTimer, degrees: Degrees, rank: int, chunks: list[dict[str, int]], again: list[dict[str, int]]
) -> tuple[tuple[Pass, ...], tuple[float, ...], tuple[float, ...]]:
    setting, model = timer.setting, timer.setting.model
    times: list[Pass] = []
    kept: list[float] = []
    whole: list[float] = []
    for chunk, counts in enumerate(chunks):
        time, held = Pass(0.0, 0.0), dict(counts)
        for name, count in counts.items():
            time += timer.layer(name, degrees) * count
        for name, count in again[chunk].items():
            time += again_pass(timer, name, degrees) * count
        if rank == 0 and chunk == 0:
            time += embedding_pass(setting, degrees)
        if rank == degrees.last_rank and chunk == degrees.virtual - 1:
            time += loss_pass(setting, degrees) + predictor_pass(setting, degrees, timer) * model.predictors
            last = model.order[-1][0]
            held[last] = held.get(last, 0) + model.predictors
        times.append(time)
        for sums, mode in ((kept, None), (whole, Recompute.NONE)):
            drop = 0.0
            if mode is None:
                drop = sum(saved_again(setting, name, degrees) * count for name, count in again[chunk].items())
            size = [layer_saved_bytes(model.kind(name), setting.spec, degrees, model.hidden, mode) for name in held]
            sums.append(sum(one * count for one, count in zip(size, held.values(), strict=True)) - drop)
    return tuple(times), tuple(kept), tuple(whole)


def again_pass(timer: LayerTimer, name: str, degrees: Degrees) -> Pass:
    """Return what running a whole layer again adds to its backward."""
    plain, full = (timer.layer(name, replace(degrees, recompute=mode)) for mode in (Recompute.NONE, Recompute.FULL))
    return Pass(0.0, full.backward_us - plain.backward_us)


def saved_again(setting: Setting, name: str, degrees: Degrees) -> float:
    """Return the bytes that a layer keeps less for the backward pass of a microbatch when it runs again whole."""
    kind, hidden = setting.model.kind(name), setting.model.hidden
    plain, full = (
        layer_saved_bytes(kind, setting.spec, degrees, hidden, mode) for mode in (Recompute.NONE, Recompute.FULL)
    )
    return plain - full


def peak_saved_bytes(
    rank: int, degrees: Degrees, microbatches: int, saved: tuple[float, ...], whole: tuple[float, ...] = ()
) -> float:
    """Return the most activation bytes a rank holds at once, along its order.

    `whole` is what chunks hold between backward and weight gradients, where the schedule has such a time.
    """
    if not degrees.schedule.splits_backward and len(saved) == 1:
        return saved[0] * min(microbatches, degrees.pipeline - rank)
    count = settled(degrees, microbatches)
    peaks = holdings(rank, degrees.pipeline, degrees.virtual, degrees.schedule, count)
    return float((peaks @ np.array([*saved, *(whole or saved)])).max())


def replay(
    setting: Setting, degrees: Degrees, layout: StageLayout, timer: LayerTimer | None = None, record: bool = False
) -> Replay:
    """Run a plan's step; with `record` the timeline is kept."""
    work = work_of(setting, degrees, layout, timer)
    microbatches = degrees.microbatches(setting.spec.global_batch)
    if record:
        ends, events = run(work, degrees, microbatches, record)
    else:
        ends, events = _ends(work.passes, work.hop_us, degrees.schedule, microbatches), ()
    stages = tuple(
        StageFigures(
            rank,
            sum(item.forward_us for item in work.passes[rank]),
            sum(item.backward_us for item in work.passes[rank]),
            round(work.parameters[rank]),
            round(work.state_bytes[rank]),
            round(peak_saved_bytes(rank, degrees, microbatches, work.saved_bytes[rank], work.whole_bytes[rank])),
            round(work.transient_bytes[rank]),
            round(work.host_bytes[rank]),
        )
        for rank in range(degrees.pipeline)
    )
    step = max(end + tail for end, tail in zip(ends, work.tails_us, strict=True))
    busy = tuple(microbatches * sum(item.total_us for item in chunks) for chunks in work.passes)
    return Replay(step, max(ends), busy, stages, events)


@lru_cache(maxsize=128)
def _ends(passes: tuple[tuple[Pass, ...], ...], hop_us: float, schedule: Pipeline, microbatches: int) -> list[float]:
    """Return each rank's end: plans that differ in their tails and memory alone have the same."""
    nothing = (0.0,) * len(passes)
    degrees = Degrees(1, 1, 1, len(passes), 1, len(passes[0]), schedule=schedule)
    return run(Work(passes, (), hop_us, nothing, nothing, nothing, nothing), degrees, microbatches)[0]


def run(work: Work, degrees: Degrees, microbatches: int, record: bool = False) -> tuple[list[float], tuple[Event, ...]]:
    """Return each rank's end, and the events when recorded."""
    ranks, slots = degrees.pipeline, degrees.slots
    orders = [schedule_of(rank, degrees, microbatches) for rank in range(ranks)]
    places = [degrees.slots_of(rank) for rank in range(ranks)]
    owners = [degrees.rank_of(slot) for slot in range(slots)]
    split = degrees.schedule.splits_backward
    durations = [[_durations(item, split) for item in work.passes[rank]] for rank in range(ranks)]
    arrival: list[list[list[float]]] = [[[-1.0] * microbatches for _ in range(slots)] for _ in range(2)]
    arrival[FORWARD][0] = [0.0] * microbatches
    free, position = [0.0] * ranks, [0] * ranks
    events: list[Event] = []
    waiting = deque(range(ranks))
    queued = [True] * ranks
    while waiting:
        rank = waiting.popleft()
        queued[rank] = False
        order, clock, at = orders[rank], free[rank], position[rank]
        woken: set[int] = set()
        while at < len(order):
            kind, chunk, microbatch = order[at]
            slot = places[rank][chunk]
            ready = clock if kind == WEIGHT else arrival[kind][slot][microbatch]
            if ready < 0:
                break
            start = ready if ready > clock else clock
            clock = start + durations[rank][chunk][kind]
            if record:
                events.append(Event(rank, kind == FORWARD, chunk, microbatch, start, clock, kind == WEIGHT))
            at += 1
            if kind == WEIGHT:
                continue
            target = slot + 1 if kind == FORWARD else slot - 1
            if target == slots:
                arrival[BACKWARD][slot][microbatch] = clock
            elif target >= 0:
                arrival[kind][target][microbatch] = clock + (work.hop_us if owners[target] != rank else 0.0)
                woken.add(owners[target])
        free[rank], position[rank] = clock, at
        for other in woken:
            if other != rank and not queued[other]:
                queued[other] = True
                waiting.append(other)
    return free, tuple(events)


def _durations(item: Pass, split: bool) -> tuple[float, float, float]:
    """Return the times of a chunk's backward, forward and weight gradients."""
    weight = item.weight_us if split else 0.0
    return item.backward_us - weight, item.forward_us, weight
