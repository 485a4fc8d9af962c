"""The re-plan: degrees and layout by a proven best-first search, seats by a flow, transfers from both.

Slow nodes are tried two ways: left out as if lost, or kept, together in as few data ranks as may be, which then run
fewer microbatches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice

from treadle.costmodels.training_elastic import (
    Pipelines,
    checkpoints_of,
    elastic_replay,
    old_setting,
    slow_ranks,
)
from treadle.costmodels.training_keeping import Keeping
from treadle.costmodels.training_replay import replay
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.training.check_replan import state_of, survives
from treadle.ir.training.elastic import (
    Event,
    NothingLeft,
    Recovery,
    ReplanBody,
    Terms,
    grain_of,
    least_count,
    node_size,
    require_elastic,
    seats_left,
    unit_of,
)
from treadle.ir.training.elastic_space import even_counts
from treadle.ir.training.holdings import cell_of, pieces_of
from treadle.ir.training.plan import Degrees, ParallelBody
from treadle.solvers.replanning.ranking import Ranking, Timed
from treadle.solvers.replanning.seats import Seating, seating
from treadle.solvers.replanning.transfers import Transfers

COST_MODEL = "treadle training step, calibrated (costmodels/data/training)"
_MOST_TRIES = 40
"""Plans whose migration is computed, fastest first, before a limit on migrated bytes is called unmet."""
_KEPT_TRIES = 3
"""Plans tried with slow nodes in them, fastest first."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A plan with seats."""

    timed: Timed
    counts: tuple[int, ...]
    seats: tuple[int, ...]
    seating: Seating
    keeping: Keeping
    step_us: float

    @property
    def migrated_bytes(self) -> int:
        """Bytes that move when everything that stays may stay."""
        kept = sum(self.keeping.kept(seat, block) for block, seat in enumerate(self.seats))
        return self.timed.degrees.tensor * (self.keeping.needed_bytes - kept)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A re-plan with its certificate."""

    body: ReplanBody
    certificate: Certificate
    step_us: float
    before_us: float


def replan(before: ParallelBody, event: Event, terms: Terms) -> Outcome:
    """Return the plan that goes on; raises NotElastic, NothingLeft."""
    require_elastic(before)
    setting = old_setting(before)
    before_us = replay(setting, before.degrees, before.layout).step_us
    state = state_of(before, event.lost, terms.mirrored)
    recovery = Recovery.LIVE if survives(state) else Recovery.CHECKPOINT
    left = seats_left(before, event.lost)
    if not event.lost and not event.slow:
        best, bound = _unchanged(before, left, before_us), before_us
    else:
        best, bound = _best(Ranking(setting, before, terms.even), event, terms, left, recovery)
    degrees, layout = best.timed.degrees, best.timed.layout
    pieces = pieces_of(before.model, before.spec, degrees, layout)
    transfers = Transfers(state, degrees, pieces, recovery).all(best.seats)
    slow = slow_ranks(before, event, degrees, best.seats)
    played = elastic_replay(setting, degrees, layout, best.counts, slow)
    nodes = len(best.seats) * max(1, unit_of(before) // node_size(before))
    saved = checkpoints_of(setting, terms, played.step_us, nodes)
    body = ReplanBody(
        before,
        event,
        terms,
        degrees,
        layout,
        best.counts,
        best.seats,
        recovery,
        transfers,
        played.replay.stages,
        saved,
    )
    return Outcome(body, _certificate(body, best, bound, played.step_us), played.step_us, before_us)


def _certificate(body: ReplanBody, best: Attempt, bound_us: float, step_us: float) -> Certificate:
    closed = bound_us >= step_us * (1 - 1e-9)
    step = Level(
        "step_time",
        "us",
        step_us,
        step_us if closed else bound_us,
        Status.OPTIMAL if closed else Status.FEASIBLE,
        ProofKind.ENUMERATION,
    )
    moved = float(body.migrated_bytes)
    prices = {"seats": list(best.seating.seat_prices), "blocks": list(best.seating.block_prices)}
    least = float(body.degrees.tensor * (best.keeping.needed_bytes - best.seating.kept_bytes))
    if body.recovery is Recovery.CHECKPOINT or not moved:
        bytes_level = Level("migrated_bytes", "B", moved, moved, Status.OPTIMAL, ProofKind.COUNT)
    else:
        status = Status.OPTIMAL if least == moved else Status.FEASIBLE
        bytes_level = Level("migrated_bytes", "B", moved, least, status, ProofKind.LP_DUAL, prices)
    wasted = body.checkpoints.wasted
    saving = Level("wasted_share", "1", wasted, wasted, Status.OPTIMAL, ProofKind.ENUMERATION)
    return Certificate("replan", COST_MODEL, (step, bytes_level, saving))


def _unchanged(before: ParallelBody, left: tuple[int, ...], step_us: float) -> Attempt:
    """Return the running plan itself, for when nothing happened."""
    keeping = Keeping(before, before.degrees, before.layout)
    seats = left[: keeping.blocks]
    counts = (before.degrees.microbatches(before.spec.global_batch),) * before.degrees.data
    timed = Timed(before.degrees, before.layout, step_us)
    kept = Seating(seats, keeping.needed_bytes, (), ())
    return Attempt(timed, counts, seats, kept, keeping, step_us)


def _best(
    ranking: Ranking, event: Event, terms: Terms, left: tuple[int, ...], recovery: Recovery
) -> tuple[Attempt, float]:
    """Return the best plan within the limit on migrated bytes, and a bound on the step of any."""
    before = ranking.before
    node, unit = node_size(before), unit_of(before)
    slow_seats = {item.node * node // unit for item in event.slow}
    sound = tuple(seat for seat in left if seat not in slow_seats)
    limit = terms.most_migrated_bytes
    if limit is None:
        without = ranking.fastest(len(sound) * unit) if sound else None
        bounds = [without.step_us] if without else []
        if slow_seats & set(left):
            found, even_us = _with_slow(ranking, event, terms, left, without.step_us if without else math.inf)
            bounds.append(even_us)
            if found:
                return found[0], min(bounds)
        if without:
            return _seated(before, without, sound, even_counts(before, without.degrees)), min(bounds)
        raise NothingLeft(nodes=len(left) * max(1, unit // node), limit="")
    return _best_within(ranking, event, terms, (left, sound), recovery, limit)


def _best_within(
    ranking: Ranking,
    event: Event,
    terms: Terms,
    seats: tuple[tuple[int, ...], tuple[int, ...]],
    recovery: Recovery,
    limit: int,
) -> tuple[Attempt, float]:
    """Return what `_best` does under a limit; `seats` are those that are left, and the sound ones of them."""
    left, sound = seats
    attempts: list[Attempt] = []
    bounds: list[float] = []
    without = _first_within(ranking, sound, limit, recovery) if sound else None
    if without:
        attempts.append(without[0])
        bounds.append(without[1])
    if len(sound) < len(left):
        found, even_us = _with_slow(ranking, event, terms, left, math.inf)
        attempts += [item for item in found if _moved(item, recovery) <= limit]
        bounds.append(even_us)
    if not attempts:
        nodes = len(left) * max(1, unit_of(ranking.before) // node_size(ranking.before))
        least = _least_moved(ranking, sound or left, recovery)
        if not math.isfinite(least):
            raise NothingLeft(nodes=nodes, limit="")
        words = f" with at most {limit / 1e9:g} GB migrated"
        raise NothingLeft(nodes=nodes, limit=words, hint=f"the least found is --most-migrated {least / 1e9:.3f}GB")
    return min(attempts, key=lambda item: item.step_us), min(bounds)


def _moved(attempt: Attempt, recovery: Recovery) -> int:
    if recovery is Recovery.CHECKPOINT:
        return attempt.keeping.needed_bytes * attempt.timed.degrees.tensor
    return attempt.migrated_bytes


def _least_moved(ranking: Ranking, seats: tuple[int, ...], recovery: Recovery) -> float:
    """Return the least bytes that one of the plans tried migrates."""
    before, gpus, least = ranking.before, len(seats) * unit_of(ranking.before), math.inf
    for timed in (*islice(ranking.plans(gpus), _MOST_TRIES - 1), ranking.as_before(gpus)):
        if timed is not None:
            attempt = _seated(before, timed, seats, even_counts(before, timed.degrees))
            least = min(least, _moved(attempt, recovery))
    return least


def _first_within(
    ranking: Ranking, seats: tuple[int, ...], limit: int, recovery: Recovery
) -> tuple[Attempt, float] | None:
    """Return the fastest plan within the limit on migrated bytes, and the step of the fastest of all."""
    before, gpus, fastest = ranking.before, len(seats) * unit_of(ranking.before), math.inf
    for number, timed in enumerate(ranking.plans(gpus)):
        fastest = min(fastest, timed.step_us)
        if number >= _MOST_TRIES:
            return None
        if number == _MOST_TRIES - 1:
            timed = ranking.as_before(gpus) or timed
        attempt = _seated(before, timed, seats, even_counts(before, timed.degrees))
        if _moved(attempt, recovery) <= limit:
            return attempt, fastest
    return None


def _seated(before: ParallelBody, timed: Timed, seats: tuple[int, ...], counts: tuple[int, ...]) -> Attempt:
    keeping = Keeping(before, timed.degrees, timed.layout)
    chosen = seating(keeping, seats)
    return Attempt(timed, counts, chosen.seats, chosen, keeping, timed.step_us)


def _with_slow(
    ranking: Ranking, event: Event, terms: Terms, left: tuple[int, ...], below_us: float
) -> tuple[list[Attempt], float]:
    """Return the best plan that keeps the slow nodes, with its split of the microbatches, and the best even step.

    Only what is below `below_us`: a step with slow nodes is never shorter than the even one. Which of the fastest even
    plans suffers least is found with seats as they are; only its seats are then optimized.
    """
    before, unit = ranking.before, unit_of(ranking.before)
    found: list[tuple[float, Timed]] = []
    even_us = math.inf
    for timed in islice(ranking.plans(len(left) * unit, below_us), _KEPT_TRIES):
        even_us = min(even_us, timed.step_us)
        keeping = Keeping(before, timed.degrees, timed.layout)
        rough = Seating(left[: keeping.blocks], 0, (), ())
        attempt = Attempt(timed, even_counts(before, timed.degrees), rough.seats, rough, keeping, timed.step_us)
        found.append((_slowed(ranking, event, terms, attempt).step_us, timed))
    found.sort(key=lambda item: item[0])
    plans = [timed for step_us, timed in found[:1] if step_us < below_us]
    seated = [_seated(before, timed, left, even_counts(before, timed.degrees)) for timed in plans]
    slowed = [_slowed(ranking, event, terms, attempt) for attempt in seated]
    return [attempt for attempt in slowed if attempt.step_us < below_us], even_us


def _slowed(ranking: Ranking, event: Event, terms: Terms, attempt: Attempt) -> Attempt:
    """Return the plan with its slow seats together, fewer microbatches on them, and the step of that."""
    setting, before = ranking.setting, ranking.before
    timed, counts = attempt.timed, attempt.counts
    seats = _gathered(attempt, before, event)
    slow = slow_ranks(before, event, timed.degrees, seats)
    pipelines = Pipelines(setting, timed.degrees, timed.layout, ranking.timer)
    if slow and not terms.even:
        counts = _balanced(pipelines, before, timed, slow)
    step = pipelines.longest_us(counts, slow)
    return replace(attempt, seats=seats, counts=counts, step_us=step)


def _gathered(attempt: Attempt, before: ParallelBody, event: Event) -> tuple[int, ...]:
    """Return the seats with slow ones swapped onto blocks of the same data ranks."""
    node, unit, degrees = node_size(before), unit_of(before), attempt.timed.degrees
    seats = list(attempt.seats)
    ranks = [_data_ranks(degrees, unit, block) for block in range(len(seats))]
    touched: set[int] = set()
    taken: set[int] = set()
    for seat in dict.fromkeys(item.node * node // unit for item in event.slow):
        if seat not in seats:
            continue
        here = seats.index(seat)
        free = [block for block in range(len(seats)) if block not in taken and touched and ranks[block] <= touched]
        if not ranks[here] <= touched and free:
            keeping = attempt.keeping
            there = max(free, key=lambda block: keeping.kept(seat, block) + keeping.kept(seats[block], here))
            seats[here], seats[there] = seats[there], seats[here]
            here = there
        taken.add(here)
        touched |= ranks[here]
    return tuple(seats)


def _data_ranks(degrees: Degrees, unit: int, block: int) -> set[int]:
    ranks = range(block * unit, min((block + 1) * unit, degrees.gpus), degrees.tensor)
    return {cell_of(degrees, rank)[1] // degrees.context for rank in ranks}


def _balanced(
    pipelines: Pipelines, before: ParallelBody, timed: Timed, slow: dict[int, tuple[float, ...]]
) -> tuple[int, ...]:
    """Return microbatches per data rank: slow ones run fewer, as many as makes the later of both ends earliest.

    The number at which both end together if time went with the slowest stage's work is where the search starts.
    """
    degrees = timed.degrees
    grain = grain_of(degrees)
    total = before.spec.global_batch // degrees.micro_batch // grain
    least, fast = -(-least_count(degrees) // grain), degrees.data - len(slow)
    plain = (1.0,) * degrees.pipeline

    def others(count: int) -> int:
        return -(-(total - len(slow) * count) // fast) if fast else 0

    def ends(count: int) -> tuple[float, float]:
        late = max(pipelines.step_us(factors, grain * count) for factors in set(slow.values()))
        return late, pipelines.step_us(plain, grain * others(count)) if fast else 0.0

    low, high = least, total // degrees.data
    if not fast or high <= low:
        return even_counts(before, degrees)
    worst = max(max(factors) for factors in slow.values())
    middle, stride = int(total / (fast * worst + len(slow))), 1
    while low < high:
        middle = min(max(middle, low + 1), high)
        late, sound = ends(middle)
        low, high = (middle, high) if late <= sound else (low, middle - 1)
        middle = middle + stride if late <= sound else middle - stride
        stride *= 2
    best = min((count for count in (low, low + 1) if count <= total // degrees.data), key=lambda item: max(ends(item)))
    share, rest = divmod(total - len(slow) * best, fast)
    sound_ranks = [data for data in range(degrees.data) if data not in slow]
    more = set(sound_ranks[:rest])
    return tuple(grain * (best if data in slow else share + (data in more)) for data in range(degrees.data))
