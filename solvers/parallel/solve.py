"""Best-first search over all legal degrees: quick bound, solved layout, replay, until the next bound cannot win.

Every candidate enters with its quick bound; when it is the least, its layout is solved (and its bound sharpened); when
it is the least again, the tails of all ranks are counted in (1F1B); and the third time it is replayed. The search ends
when the least remaining bound is not below the best replayed time, so the enumeration proves the best plan over all
candidates with their solved layouts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
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
COST_MODEL = "treadle training step, calibrated (costmodels/data/training)"


@dataclass(frozen=True, slots=True)
class Found:
    """A replayed candidate."""

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
        return min(self.found, key=lambda item: item.replay.step_us)


def search(setting: Setting, top: int = 5, progress: Callable[[str], None] | None = None) -> Search:
    """Return the finished search; `found` is empty when nothing fits.

    Args:
        setting: the problem.
        top: how many plans to have timed besides the best, where so many fit.
        progress: called with a line of text now and then.
    """
    timer, state = LayerTimer(setting), Search()
    quick = Quick(setting, timer)
    heap: list[tuple[float, int, int, int, Degrees, StageLayout | None]] = []
    for number, degrees in enumerate(candidates(setting.model, setting.cluster, setting.spec)):
        state.total += 1
        if not quick.may_fit(degrees):
            state.too_large += 1
            continue
        heap.append((quick.bound_us(degrees), 0, number, 0, degrees, None))
    heapq.heapify(heap)
    oversized = _Oversized(setting)
    best = math.inf
    while heap and (heap[0][0] < best or len(state.found) < top):
        bound, stage, number, _, degrees, layout = heapq.heappop(heap)
        if stage == 0:
            if oversized.known(degrees):
                state.too_large += 1
                continue
            options = choices(setting, degrees, quick)
            state.solved += 1
            if not options:
                oversized.add(degrees)
                state.too_large += 1
            for place, option in enumerate(options):
                heapq.heappush(heap, (max(bound, option.step_us), 1, number, place, degrees, option.layout))
            continue
        assert layout is not None
        if stage == 1 and degrees.virtual == 1 and degrees.pipeline > 1:
            cutoff = best if len(state.found) >= top else math.inf
            sharpened = best_with_tails(setting, degrees, timer, layout, cutoff)
            if sharpened.layout is not None:
                heapq.heappush(heap, (max(bound, sharpened.step_us), 2, number, 0, degrees, sharpened.layout))
            continue
        played = replay(setting, degrees, layout, timer)
        state.found.append(Found(degrees, layout, bound, played))
        best = min(best, played.step_us)
        if progress and len(state.found) % 20 == 1:
            progress(f"{len(state.found)} replayed, best {best / 1e6:.3f} s, next bound {bound / 1e6:.3f} s")
    state.next_bound_us = heap[0][0] if heap else math.inf
    reached = [item.bound_us if item.degrees.virtual == 1 else item.replay.step_us for item in state.found]
    state.least_bound_us = min([state.next_bound_us, *reached])
    return state


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


def certificate(state: Search) -> Certificate:
    """Return the two claims: best of the enumeration, and distance from the bound over all layouts."""
    best = state.best.replay.step_us
    evidence = {
        "candidates": state.total,
        "replayed": len(state.found),
        "next_bound_us": None if math.isinf(state.next_bound_us) else state.next_bound_us,
    }
    closed = Level("step_time", "us", best, best, Status.OPTIMAL, ProofKind.ENUMERATION, evidence)
    bound = state.least_bound_us if state.least_bound_us < best * (1 - ROUNDING) else best
    status = Status.OPTIMAL if bound == best else Status.FEASIBLE
    wide = Level("step_time_any_layout", "us", best, bound, status, ProofKind.ENUMERATION, {"candidates": state.total})
    return Certificate("parallel", COST_MODEL, (closed, wide))


def alternatives(state: Search, top: int) -> tuple[Alternative, ...]:
    """Return the next best plans, and what each loses by."""
    fastest: dict[Degrees, Found] = {}
    for item in sorted(state.found, key=lambda item: item.replay.step_us):
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
