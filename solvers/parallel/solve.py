"""Best-first search over all legal degrees: quick bound, solved layout, replay, until the next bound cannot win.

Every candidate enters with its quick bound; when it is the least, its layout is solved (and its bound sharpened); when
it is the least again, the tails of all ranks are counted in (1F1B); and the third time it is replayed. The search ends
when the least remaining bound is not below the best replayed time, so the enumeration proves the best plan over all
candidates with their solved layouts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field, replace

from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_replay import Replay, replay
from treadle.costmodels.training_step import LayerTimer, Setting
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.training.plan import Alternative, Degrees, StageLayout
from treadle.ir.training.space import candidates

ROUNDING = 1e-9
"""Relative difference of two sums of the same times in another order."""
Progress = Callable[[str], None]
COST_MODEL = "treadle training step, calibrated (costmodels/data/training)"


@dataclass(frozen=True, slots=True)
class Found:
    """A replayed candidate, with its number among all."""

    number: int
    degrees: Degrees
    layout: StageLayout
    bound_us: float
    replay: Replay


@dataclass
class Search:
    """State of a search: what was seen, replayed, and what remains."""

    total: int = 0
    too_large: int = 0
    solved: int = 0
    found: list[Found] = field(default_factory=list[Found])
    next_bound_us: float = math.inf
    least_bound_us: float = math.inf
    """Least bound over all layouts of the candidates not replayed and of those replayed."""

    @property
    def best(self) -> Found:
        """The fastest replayed candidate; the earliest among equals."""
        return min(self.found, key=_order)


def search(
    setting: Setting,
    top: int = 5,
    progress: Progress | None = None,
    executor: Executor | None = None,
    shares: int = 1,
) -> Search:
    """Return the finished search; `found` is empty when nothing fits.

    Args:
        setting: the problem.
        top: how many of the fastest plans to prove, where so many fit.
        progress: called with a line of text now and then.
        executor: runs `shares` parts of the candidates side by side; any `concurrent.futures.Executor`.
        shares: parts; the plans found do not depend on them.
    """
    if executor is None or shares == 1:
        return search_share(setting, top, 0, 1, progress)
    waiting = [_submitted(executor, setting, top, share, shares) for share in range(shares)]
    parts: list[Search] = []
    for share, future in enumerate(waiting):
        try:
            parts.append(future.result())
        except (BrokenExecutor, CancelledError):
            if progress:
                progress(f"a worker was lost; part {share + 1} of {shares} is searched here")
            parts.append(search_share(setting, top, share, shares, progress))
    return _joined(parts)


def _submitted(executor: Executor, setting: Setting, top: int, share: int, shares: int) -> Future[Search]:
    """Hand a part over; a pool that broke meanwhile gives a future that failed."""
    try:
        return executor.submit(search_share, setting, top, share, shares)
    except BrokenExecutor as error:
        failed: Future[Search] = Future()
        failed.set_exception(error)
        return failed


def _joined(parts: list[Search]) -> Search:
    """Return one search of several: what is among the fastest of all stays found."""
    state = Search(sum(part.total for part in parts), sum(part.too_large for part in parts))
    state.solved = sum(part.solved for part in parts)
    state.found = sorted((item for part in parts for item in part.found), key=lambda item: item.number)
    state.next_bound_us = min((part.next_bound_us for part in parts), default=math.inf)
    state.least_bound_us = min((part.least_bound_us for part in parts), default=math.inf)
    return state


def search_share(setting: Setting, top: int, share: int, shares: int, progress: Progress | None = None) -> Search:
    """Search one part of the candidates: every `shares`-th mesh, from `share` on."""
    timer, state = LayerTimer(setting), Search()
    quick = Quick(setting, timer)
    heap: list[tuple[float, int, int, int, Degrees, StageLayout | None]] = []
    for number, degrees in _of_share(setting, share, shares):
        state.total += 1
        if not quick.may_fit(degrees):
            state.too_large += 1
            continue
        heap.append((quick.bound_us(degrees), 0, number, 0, degrees, None))
    heapq.heapify(heap)
    oversized, fastest = _Oversized(setting), _Fastest(top)
    while heap and heap[0][0] < fastest.cutoff_us:
        bound, stage, number, _, degrees, layout = heapq.heappop(heap)
        if stage == 0:
            options = [] if oversized.known(degrees) else choices(setting, degrees, quick)
            state.solved += 1
            if not options:
                oversized.add(degrees)
                state.too_large += 1
            for place, option in enumerate(options):
                heapq.heappush(heap, (max(bound, option.step_us), 1, number, place, degrees, option.layout))
            continue
        assert layout is not None
        if stage == 1 and degrees.virtual == 1 and degrees.pipeline > 1:
            sharpened = best_with_tails(setting, degrees, timer, layout, fastest.cutoff_us)
            if sharpened.layout is not None:
                heapq.heappush(heap, (max(bound, sharpened.step_us), 2, number, 0, degrees, sharpened.layout))
            continue
        found = Found(number, degrees, layout, bound, replay(setting, degrees, layout, timer))
        state.found.append(found)
        fastest.add(found)
        if progress and len(state.found) % 20 == 1:
            best = state.best.replay.step_us
            progress(f"{len(state.found)} replayed, best {best / 1e6:.3f} s, next bound {bound / 1e6:.3f} s")
    state.next_bound_us = heap[0][0] if heap else math.inf
    reached = [item.bound_us if item.degrees.virtual == 1 else item.replay.step_us for item in state.found]
    state.least_bound_us = min([state.next_bound_us, *reached])
    return state


def _of_share(setting: Setting, share: int, shares: int) -> Iterator[tuple[int, Degrees]]:
    """Yield the candidates of a part with their numbers among all; a mesh stays in one part."""
    mesh, position = None, -1
    for number, degrees in enumerate(candidates(setting.model, setting.cluster, setting.spec)):
        here = (degrees.data, degrees.tensor, degrees.context, degrees.pipeline)
        if here != mesh:
            mesh, position = here, position + 1
        if position % shares == share:
            yield number, degrees


class _Fastest:
    """The fastest plans so far, one for each choice of degrees; what is not faster than the last of them is cut off."""

    def __init__(self, top: int) -> None:
        self.top = max(1, top)
        self._times: dict[Degrees, float] = {}
        self.cutoff_us = math.inf

    def add(self, found: Found) -> None:
        """Count a replayed plan."""
        known = self._times.get(found.degrees, math.inf)
        self._times[found.degrees] = min(known, found.replay.step_us)
        if len(self._times) >= self.top:
            self.cutoff_us = sorted(self._times.values())[self.top - 1]


class _Oversized:
    """Choices known not to fit: the same with a larger microbatch needs more memory.

    With 2 p microbatches or more, as many activations are held whatever the number of microbatches.
    """

    def __init__(self, setting: Setting) -> None:
        self.batch = setting.spec.global_batch
        self._least: dict[Degrees, int] = {}

    def add(self, degrees: Degrees) -> None:
        """Remember that nothing fits."""
        key = replace(degrees, micro_batch=1)
        self._least[key] = min(degrees.micro_batch, self._least.get(key, degrees.micro_batch))

    def known(self, degrees: Degrees) -> bool:
        """Whether a smaller microbatch did not fit, both in the regime where that decides."""
        least = self._least.get(replace(degrees, micro_batch=1))
        if least is None or degrees.micro_batch < least:
            return False
        return degrees.microbatches(self.batch) >= 2 * degrees.pipeline


def _order(found: Found) -> tuple[float, int, float]:
    return found.replay.step_us, found.number, found.bound_us


def certificate(state: Search) -> Certificate:
    """Return the two claims: best of the enumeration, and distance from the bound over all layouts."""
    best = state.best.replay.step_us
    evidence = {"candidates": state.total}
    closed = Level("step_time", "us", best, best, Status.OPTIMAL, ProofKind.ENUMERATION, evidence)
    bound = state.least_bound_us if state.least_bound_us < best * (1 - ROUNDING) else best
    status = Status.OPTIMAL if bound == best else Status.FEASIBLE
    wide = Level("step_time_any_layout", "us", best, bound, status, ProofKind.ENUMERATION, evidence)
    return Certificate("parallel", COST_MODEL, (closed, wide))


def alternatives(state: Search, top: int) -> tuple[Alternative, ...]:
    """Return the next best plans, and what each loses by."""
    fastest: dict[Degrees, Found] = {}
    for item in sorted(state.found, key=_order):
        fastest.setdefault(item.degrees, item)
    ranked = list(fastest.values())
    best = ranked[0]
    return tuple(
        Alternative(item.degrees, item.layout, item.replay.step_us, item.replay.peak_bytes, reason(best, item))
        for item in ranked[1 : top + 1]
    )


def reason(best: Found, other: Found) -> str:
    """Return why a plan is slower: idle time, work, or what follows the pipeline."""
    lost = other.replay.step_us - best.replay.step_us
    parts = {
        "more work per GPU (communication, recomputation, smaller products)": max(other.replay.busy_us)
        - max(best.replay.busy_us),
        "more pipeline idle time": (other.replay.pipeline_us - max(other.replay.busy_us))
        - (best.replay.pipeline_us - max(best.replay.busy_us)),
        "slower gradient reduction and update": (other.replay.step_us - other.replay.pipeline_us)
        - (best.replay.step_us - best.replay.pipeline_us),
    }
    name = max(parts, key=lambda key: parts[key])
    return f"+{lost / best.replay.step_us:.2%}: {name}"
