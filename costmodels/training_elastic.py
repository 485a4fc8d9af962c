"""Replay of a re-plan: its step with uneven data ranks and slow nodes, the time its transfers take, checkpoints.

Every data rank is a pipeline of its own until gradients are reduced: the step ends with the slowest. Checkpoints:
failures have exponential gaps of mean M; with restarts of R, a segment of t work and d writing takes
e^(R/M) M (e^((t + d)/M) - 1) in expectation (Daly 2006, doi 10.1016/j.future.2004.11.016, equation 13). Young (1974,
doi 10.1145/361147.361115) has t = sqrt(2 d M); the exact optimum over whole steps is where that over t is least.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace

from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_memory import capacity_bytes
from treadle.costmodels.training_replay import Replay, Work, replay, run, work_of
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.ir.plan import Prediction
from treadle.ir.training.check_replan import padded_spec_batch
from treadle.ir.training.elastic import (
    CHECKPOINT,
    Checkpoints,
    Event,
    Recovery,
    ReplanBody,
    Terms,
    Transfer,
    node_size,
    unit_of,
)
from treadle.ir.training.holdings import cell_of
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout

Factors = tuple[float, ...]
"""How many times as long every stage of a data rank takes."""


def padded(setting: Setting, degrees: Degrees, counts: tuple[int, ...]) -> Setting:
    """Return the even problem whose every data rank runs as many microbatches as the fullest one."""
    return replace(setting, spec=replace(setting.spec, global_batch=padded_spec_batch(degrees, counts)))


def slow_ranks(before: ParallelBody, event: Event, degrees: Degrees, seats: tuple[int, ...]) -> dict[int, Factors]:
    """Return the factors of every data rank with a slow node."""
    node, unit = node_size(before), unit_of(before)
    factors = {item.node: item.factor for item in event.slow}
    block_of = {seat: block for block, seat in enumerate(seats)}
    found: dict[int, list[float]] = {}
    for number, factor in factors.items():
        block = block_of.get(number * node // unit)
        if block is None:
            continue
        first = block * unit + number * node % unit
        for rank in range(first, min(first + node, degrees.gpus), min(node, degrees.tensor)):
            stage, holder = cell_of(degrees, rank)
            row = found.setdefault(holder // degrees.context, [1.0] * degrees.pipeline)
            row[stage] = max(row[stage], factor)
    return {data: tuple(row) for data, row in found.items()}


@dataclass(frozen=True, slots=True)
class Elastic:
    """Outcome of a replay: the step, and the even plan's figures of stages."""

    step_us: float
    replay: Replay


class Pipelines:
    """Times of one plan's data ranks by their factors and numbers of microbatches, remembered."""

    def __init__(self, setting: Setting, degrees: Degrees, layout: StageLayout, timer: LayerTimer | None = None):
        self.degrees = degrees
        self.work = work_of(setting, degrees, layout, timer)
        self._known: dict[tuple[Factors, int], float] = {}

    def step_us(self, factors: Factors, count: int) -> float:
        """Return when a data rank is done, tails included."""
        key = factors, count
        if key not in self._known:
            work = _scaled(self.work, factors)
            ends, _ = run(work, self.degrees, count)
            self._known[key] = max(end + tail for end, tail in zip(ends, work.tails_us, strict=True))
        return self._known[key]

    def longest_us(self, counts: tuple[int, ...], slow: dict[int, Factors]) -> float:
        """Return when the last of all data ranks is done; `counts` has their microbatches, `slow` their factors."""
        plain = (1.0,) * self.degrees.pipeline
        kinds = {(slow.get(data, plain), count) for data, count in enumerate(counts)}
        return max(self.step_us(*kind) for kind in kinds)


def _scaled(work: Work, factors: Factors) -> Work:
    passes = tuple(tuple(item * factor for item in row) for row, factor in zip(work.passes, factors, strict=True))
    tails = tuple(tail * factor for tail, factor in zip(work.tails_us, factors, strict=True))
    return replace(work, passes=passes, tails_us=tails)


def elastic_replay(
    setting: Setting, degrees: Degrees, layout: StageLayout, counts: tuple[int, ...], slow: dict[int, Factors]
) -> Elastic:
    """Replay a re-plan's step on the problem `setting` (its own batch; counts say who runs what)."""
    even = padded(setting, degrees, counts)
    played = replay(even, degrees, layout)
    return Elastic(Pipelines(even, degrees, layout).longest_us(counts, slow), played)


def fits(setting: Setting, played: Replay) -> bool:
    """Whether every stage is within the memory."""
    return played.peak_bytes <= capacity_bytes(setting)


def transfer_us(
    setting: Setting,
    before: ParallelBody,
    seats: tuple[int, ...],
    transfers: tuple[Transfer, ...],
    terms: Terms,
    tensor: int,
) -> float:
    """Return the time in which all transfers are done, each lane sending and receiving at its links' rate.

    Between seats over the network, inside a seat over the fast links, from the checkpoint over each node's share of the
    storage.
    """
    unit, node = unit_of(before), node_size(before)
    sent: dict[tuple[int, bool], int] = defaultdict(int)
    received: dict[tuple[int, bool], int] = defaultdict(int)
    read: dict[int, int] = defaultdict(int)
    for item in transfers:
        block, local = divmod(item.target, unit)
        place = seats[block] * unit + local
        if item.source == CHECKPOINT:
            read[place // unit] += item.lane_bytes * tensor
            continue
        near = item.source // unit == place // unit
        sent[item.source, near] += item.lane_bytes
        received[place, near] += item.lane_bytes
    rates = {True: setting.links.fast_bytes_per_us, False: setting.links.slow_bytes_per_us}
    network = max((size / rates[key[1]] for side in (sent, received) for key, size in side.items()), default=0.0)
    storage = max(read.values(), default=0) / (terms.storage_bytes_per_us * max(1, unit // node))
    return max(network, storage)


def checkpoints_of(setting: Setting, terms: Terms, step_us: float, nodes: int) -> Checkpoints:
    """Return the best number of steps between checkpoints, and what the two classic formulas say.

    The state is written once, by all nodes together.
    """
    state = setting.model.parameters * (2 + setting.spec.optimizer_bytes)
    write = state / (nodes * terms.storage_bytes_per_us)
    mtbf = terms.node_mtbf_h * 3.6e9 / nodes
    steps = best_steps(step_us, write, mtbf)
    restart = terms.restart_us + write
    return Checkpoints(
        steps,
        steps * step_us,
        write,
        mtbf,
        wasted_share(steps * step_us, write, restart, mtbf),
        math.sqrt(2 * write * mtbf),
        daly_us(write, mtbf),
    )


def daly_us(write_us: float, mtbf_us: float) -> float:
    """Return Daly's higher-order interval (equation 37)."""
    if write_us >= 2 * mtbf_us:
        return mtbf_us
    ratio = write_us / (2 * mtbf_us)
    return math.sqrt(2 * write_us * mtbf_us) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write_us


def expected_us(work_us: float, write_us: float, restart_us: float, mtbf_us: float) -> float:
    """Return the expected time of a segment of work and the checkpoint after it."""
    return math.exp(restart_us / mtbf_us) * mtbf_us * math.expm1((work_us + write_us) / mtbf_us)


def wasted_share(work_us: float, write_us: float, restart_us: float, mtbf_us: float) -> float:
    """Return the expected share of time without progress."""
    return 1 - work_us / expected_us(work_us, write_us, restart_us, mtbf_us)


def best_steps(step_us: float, write_us: float, mtbf_us: float) -> int:
    """Return the number of steps between checkpoints with the least expected time a step.

    (e^((k s + d)/M) - 1) / k falls, then rises: the first k that is not beaten by k + 1 is the best.
    """
    low, high = 1, 2
    while high * step_us < 50 * mtbf_us and _cost(high, step_us, write_us, mtbf_us) < _cost(
        high - 1, step_us, write_us, mtbf_us
    ):
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if _cost(middle + 1, step_us, write_us, mtbf_us) < _cost(middle, step_us, write_us, mtbf_us):
            low = middle + 1
        else:
            high = middle
    return low


def _cost(steps: int, step_us: float, write_us: float, mtbf_us: float) -> float:
    return math.expm1((steps * step_us + write_us) / mtbf_us) / steps


def lost_us(recovery: Recovery, before_us: float, moved_us: float, terms: Terms, saved: Checkpoints) -> float:
    """Return the expected time until the new plan's first step: restart, transfers, and work done again.

    A slow node needs no restart. Live: the step that was running. From a checkpoint: half an interval.
    """
    again = before_us if recovery is Recovery.LIVE else saved.interval_us / 2
    return terms.restart_us + moved_us + again


def old_setting(before: ParallelBody) -> Setting:
    """Return the problem of the running plan with GPU type and links."""
    return setting_of(before.model, before.cluster, before.spec)


def replan_predictions(body: ReplanBody) -> tuple[Prediction, ...]:
    """Return the figures of a re-plan that people ask for, from its decisions alone."""
    before = body.before
    setting = old_setting(before)
    old_us = replay(setting, before.degrees, before.layout).step_us
    slow = slow_ranks(before, body.event, body.degrees, body.seats)
    played = elastic_replay(setting, body.degrees, body.layout, body.counts, slow)
    moved_us = transfer_us(setting, before, body.seats, body.transfers, body.terms, body.degrees.tensor)
    happened = bool(body.event.lost or body.event.slow)
    terms = body.terms if body.event.lost else replace(body.terms, restart_us=0.0)
    lost = lost_us(body.recovery, old_us, moved_us, terms, body.checkpoints) if happened else 0.0
    return (
        Prediction("step_time_before", old_us / 1e6, "s"),
        Prediction("step_time", played.step_us / 1e6, "s"),
        Prediction("peak_memory", played.replay.peak_bytes / 2**30, "GiB"),
        Prediction("migrated", body.migrated_bytes / 1e9, "GB"),
        Prediction("transfer_time", moved_us / 1e6, "s"),
        Prediction("lost_time", lost / 1e6, "s"),
        Prediction("checkpoint_every", body.checkpoints.interval_us / 1e6, "s"),
    )
