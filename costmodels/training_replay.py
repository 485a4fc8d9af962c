"""Replay of a training step: every forward and backward of every microbatch and virtual stage, with hops and tails.

A rank runs its list in the order of the schedule: 1F1B (arXiv 2006.09503), or Megatron-LM's interleaved 1F1B
(arXiv 2104.04473, section 2.2). An entry starts when the rank is free and its tensor has arrived. Nothing here is a
formula of the step time: this is what the formulas and bounds are checked against.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

from treadle.costmodels.training_memory import (
    layer_saved_bytes,
    stage_kinds,
    stage_parameters,
    state_bytes,
    transient_bytes,
)
from treadle.costmodels.training_step import (
    LayerTimer,
    Pass,
    Setting,
    embedding_pass,
    hop_us,
    loss_pass,
    predictor_pass,
    tail_us,
    tied_sum_us,
)
from treadle.ir.training.plan import Degrees, StageFigures, StageLayout

Entry = tuple[bool, int, int]
"""(forward?, chunk, microbatch)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One run of a chunk in the timeline, in microseconds."""

    rank: int
    forward: bool
    chunk: int
    microbatch: int
    start_us: float
    end_us: float


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


def work_of(setting: Setting, degrees: Degrees, layout: StageLayout, timer: LayerTimer | None = None) -> Work:
    """Return times and sizes of every virtual stage of a plan."""
    timer = timer or LayerTimer(setting)
    kinds = stage_kinds(setting.model, layout, degrees)
    last_rank = degrees.pipeline - 1
    passes: list[tuple[Pass, ...]] = []
    saved: list[tuple[float, ...]] = []
    tails: list[float] = []
    sizes: list[tuple[float, float, float]] = []
    for rank, chunks in enumerate(kinds):
        times, bytes_kept = _chunks(setting, degrees, timer, rank, chunks)
        merged: dict[str, int] = {}
        for counts in chunks:
            for name, count in counts.items():
                merged[name] = merged.get(name, 0) + count
        first, last = rank == 0, rank == last_rank
        dense, routed = stage_parameters(setting.model, degrees, merged, first, last)
        layers = sum(merged.values())
        tail = tail_us(setting, degrees, dense, routed, sum(item.backward_us for item in times), layers)
        tails.append(tail + (tied_sum_us(setting, degrees) if first or last else 0.0))
        passes.append(times)
        saved.append(bytes_kept)
        state = state_bytes(setting.spec, degrees, dense, routed)
        sizes.append((dense + routed, state, transient_bytes(setting, degrees, merged, last)))
    parameters, states, transients = zip(*sizes, strict=True)
    return Work(tuple(passes), tuple(saved), hop_us(setting, degrees), tuple(tails), parameters, states, transients)


def _chunks(
    setting: Setting, degrees: Degrees, timer: LayerTimer, rank: int, chunks: list[dict[str, int]]
) -> tuple[tuple[Pass, ...], tuple[float, ...]]:
    model = setting.model
    times: list[Pass] = []
    kept: list[float] = []
    for chunk, counts in enumerate(chunks):
        time = Pass(0.0, 0.0)
        size = 0.0
        for name, count in counts.items():
            time += timer.layer(name, degrees) * count
            size += layer_saved_bytes(model.kind(name), setting.spec, degrees, model.hidden) * count
        if rank == 0 and chunk == 0:
            time += embedding_pass(setting, degrees)
        if rank == degrees.pipeline - 1 and chunk == degrees.virtual - 1:
            time += loss_pass(setting, degrees) + predictor_pass(setting, degrees, timer) * model.predictors
            last = model.kind(model.order[-1][0])
            size += layer_saved_bytes(last, setting.spec, degrees, model.hidden) * model.predictors
        times.append(time)
        kept.append(size)
    return tuple(times), tuple(kept)


@lru_cache(maxsize=512)
def order_of(rank: int, ranks: int, chunks: int, microbatches: int) -> tuple[Entry, ...]:
    """Return what a rank runs, in order."""
    total = microbatches * chunks
    warm = ranks - rank - 1 if chunks == 1 else 2 * (ranks - rank - 1) + (chunks - 1) * ranks
    warm = min(warm, total)
    entries = [_entry(True, number, ranks, chunks) for number in range(warm)]
    for number in range(total - warm):
        entries.append(_entry(True, warm + number, ranks, chunks))
        entries.append(_entry(False, number, ranks, chunks))
    entries.extend(_entry(False, number, ranks, chunks) for number in range(total - warm, total))
    return tuple(entries)


def _entry(forward: bool, number: int, ranks: int, chunks: int) -> Entry:
    """Return the number-th forward or backward: groups of `ranks` microbatches pass chunk after chunk."""
    if chunks == 1:
        return forward, 0, number
    inside = number % (ranks * chunks)
    chunk = inside // ranks
    microbatch = number // (ranks * chunks) * ranks + inside % ranks
    return forward, chunk if forward else chunks - 1 - chunk, microbatch


def peak_saved_bytes(rank: int, degrees: Degrees, microbatches: int, saved: tuple[float, ...]) -> float:
    """Return the most activation bytes a rank holds at once, along its order.

    The order repeats after every group of `pipeline` microbatches: four groups show warm-up and steady state.
    """
    if len(saved) == 1:
        return saved[0] * min(microbatches, degrees.pipeline - rank)
    held = peak = 0.0
    settled = min(microbatches, 4 * degrees.pipeline)
    for forward, chunk, _ in order_of(rank, degrees.pipeline, degrees.virtual, settled):
        held += saved[chunk] if forward else -saved[chunk]
        peak = max(peak, held)
    return peak


def replay(
    setting: Setting, degrees: Degrees, layout: StageLayout, timer: LayerTimer | None = None, record: bool = False
) -> Replay:
    """Run a plan's step; with `record` the timeline is kept."""
    work = work_of(setting, degrees, layout, timer)
    microbatches = degrees.microbatches(setting.spec.global_batch)
    ends, events = run(work, degrees, microbatches, record)
    stages = tuple(
        StageFigures(
            rank,
            sum(item.forward_us for item in work.passes[rank]),
            sum(item.backward_us for item in work.passes[rank]),
            round(work.parameters[rank]),
            round(work.state_bytes[rank]),
            round(peak_saved_bytes(rank, degrees, microbatches, work.saved_bytes[rank])),
            round(work.transient_bytes[rank]),
        )
        for rank in range(degrees.pipeline)
    )
    step = max(end + tail for end, tail in zip(ends, work.tails_us, strict=True))
    busy = tuple(microbatches * sum(item.total_us for item in chunks) for chunks in work.passes)
    return Replay(step, max(ends), busy, stages, events)


def run(work: Work, degrees: Degrees, microbatches: int, record: bool = False) -> tuple[list[float], tuple[Event, ...]]:
    """Return each rank's end, and the events when recorded."""
    ranks, chunks = degrees.pipeline, degrees.virtual
    orders = [order_of(rank, ranks, chunks, microbatches) for rank in range(ranks)]
    durations = [[(item.backward_us, item.forward_us) for item in work.passes[rank]] for rank in range(ranks)]
    slots = ranks * chunks
    arrival: list[list[list[float]]] = [[[-1.0] * microbatches for _ in range(slots)] for _ in range(2)]
    arrival[1][0] = [0.0] * microbatches
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
            forward, chunk, microbatch = order[at]
            slot = chunk * ranks + rank
            ready = arrival[forward][slot][microbatch]
            if ready < 0:
                break
            start = ready if ready > clock else clock
            clock = start + durations[rank][chunk][forward]
            if record:
                events.append(Event(rank, forward, chunk, microbatch, start, clock))
            at += 1
            target = slot + 1 if forward else slot - 1
            if forward and target == slots:
                arrival[0][slot][microbatch] = clock
            elif target >= 0:
                arrival[forward][target][microbatch] = clock + (work.hop_us if ranks > 1 else 0.0)
                woken.add(target % ranks)
        free[rank], position[rank] = clock, at
        for other in woken:
            if other != rank and not queued[other]:
                queued[other] = True
                waiting.append(other)
    return free, tuple(events)
