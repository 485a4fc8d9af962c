"""Where a step's time goes and what its memory holds over time, from replays alone.

The time of the step's critical rank is taken apart by ablation: the same plan without recomputation, with endless
links, with a host that launches at once; what a part costs is what leaving it out saves, in this order. The parts and
the rest (compute), the idle time of the pipeline and the tail add up to the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_memory import stage_capacities
from treadle.costmodels.training_replay import Event, Replay, Work, work_of
from treadle.costmodels.training_setting import Setting
from treadle.ir.training.plan import Degrees, ParallelBody, StageFigures, StageLayout
from treadle.ir.training.spec import Recompute

COMPUTE, HOST, COMMUNICATION, AGAIN = "compute", "waiting for the host", "communication", "recomputation"
IDLE, TAIL = "pipeline idle time", "gradients and update"
PARTS = (COMPUTE, HOST, COMMUNICATION, AGAIN, IDLE, TAIL)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The parts of a rank's step in microseconds, by the names of `PARTS`."""

    rank: int
    parts_us: dict[str, float]

    @property
    def binds(self) -> str:
        """The largest part besides compute, or compute where it is more than two thirds."""
        total = sum(self.parts_us.values())
        if self.parts_us[COMPUTE] > total * 2 / 3:
            return COMPUTE
        return max((name for name in PARTS if name != COMPUTE), key=lambda name: self.parts_us[name])


def breakdowns(setting: Setting, degrees: Degrees, layout: StageLayout, played: Replay) -> tuple[Breakdown, ...]:
    """Return the breakdown of every pipeline rank; parts add up to the step.

    A rank that is done early waits for the others: that is idle time too.
    """
    count = degrees.microbatches(setting.spec.global_batch)
    plain = replace(degrees, recompute=Recompute.NONE)
    endless: dict[str, Any] = {"fast_bytes_per_us": math.inf, "slow_bytes_per_us": math.inf, "latency_us": 0.0}
    joined = setting.changed(links=lambda links: replace(links, curves=(), **endless))
    swift = joined.changed(lambda gpu: replace(gpu, constants=replace(gpu.constants, host_us_per_kernel=0.0)))
    once = StageLayout(layout.layers)
    works = [_busy(work_of(setting, degrees, layout), count)]
    works += [_busy(work_of(problem, plain, once), count) for problem in (setting, joined, swift)]
    tails = work_of(setting, degrees, layout).tails_us
    found: list[Breakdown] = []
    for rank in range(degrees.pipeline):
        whole, kept, near, bare = (busy[rank] for busy in works)
        near, bare = min(near, kept), min(bare, near, kept)
        kept = min(kept, whole)
        tail = min(tails[rank], played.step_us - whole)
        parts = {COMPUTE: min(bare, kept), HOST: max(0.0, min(near, kept) - bare), AGAIN: whole - kept}
        parts |= {COMMUNICATION: max(0.0, kept - near), TAIL: tail, IDLE: played.step_us - whole - tail}
        found.append(Breakdown(rank, {name: parts[name] for name in PARTS}))
    return tuple(found)


def busiest(found: Sequence[Breakdown]) -> Breakdown:
    """Return the breakdown of the rank with the most work of its own: neither idle nor in its tail."""
    return max(found, key=lambda item: sum(item.parts_us[name] for name in PARTS if name not in (IDLE, TAIL)))


def _busy(work: Work, microbatches: int) -> list[float]:
    return [microbatches * sum(item.total_us for item in chunks) for chunks in work.passes]


def memory_over_time(
    setting: Setting, degrees: Degrees, layout: StageLayout, events: Iterable[Event], rank: int
) -> tuple[tuple[float, float], ...]:
    """Return (time in us, bytes) wherever a rank's memory changes: state, transients and saved activations.

    Activations come with a forward and go after the backward, or after the weight gradients where those run apart.
    """
    work = work_of(setting, degrees, layout, LayerTimer(setting))
    split = degrees.schedule.splits_backward
    saved, whole = work.saved_bytes[rank], work.whole_bytes[rank]
    changes: list[tuple[float, int, float]] = []
    for event in events:
        if event.rank != rank:
            continue
        if event.forward:
            changes.append((event.start_us, 1, saved[event.chunk]))
        elif event.weight:
            changes.append((event.end_us, 0, -whole[event.chunk]))
        else:
            changes.append((event.end_us, 0, (whole[event.chunk] if split else 0.0) - saved[event.chunk]))
    held = work.state_bytes[rank] + work.transient_bytes[rank]
    points = [(0.0, held)]
    for at, _, size in sorted(changes):
        held += size
        points.append((at, held))
    return tuple(points)


def binding_stage(setting: Setting, degrees: Degrees, stages: Sequence[StageFigures]) -> tuple[int, float]:
    """Return the stage nearest its memory, and the share of the allowed memory it takes."""
    capacities = stage_capacities(setting, degrees)
    shares = [stage.memory_bytes / capacity for stage, capacity in zip(stages, capacities, strict=True)]
    rank = shares.index(max(shares))
    return rank, shares[rank]


def figures_of(setting: Setting, body: ParallelBody, played: Replay) -> dict[str, tuple[float, str]]:
    """Return the figures people ask for, with their units; memory is that of the stage nearest its capacity."""
    rank = binding_stage(setting, body.degrees, played.stages)[0]
    gpu = LayerTimer(setting).of_stages(body.degrees)[rank].setting.gpu
    tokens = body.spec.global_batch * body.spec.sequence_tokens
    return {
        "step_time": (played.step_us / 1e6, "s"),
        "peak_memory": (played.stages[rank].memory_bytes / 2**30, "GiB"),
        "tokens_per_gpu": (tokens / (played.step_us / 1e6) / body.degrees.gpus, "token/s"),
        "capacity": (gpu.memory_bytes / 2**30, "GiB"),
    }
