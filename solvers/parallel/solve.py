"""Best-first search over all legal choices: quick bound, solved layout, replay, until the next bound cannot win.

Choices enter as families (degrees, microbatch, schedule) with a bound for all their options; when a family's is the
least, its members enter with their own. When a member's is the least, its layout is solved (and its bound sharpened);
when it is the least again, the tails of all ranks are counted in (1F1B, ZB-H1); and then it is replayed. The search
ends when the least remaining bound is not below the best replayed time, so the enumeration proves the best plan over
all candidates with their solved layouts.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field

from treadle.costmodels.training_bounds import Quick, says_less
from treadle.costmodels.training_group_costs import holds_longest, longest_held
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_replay import Replay, replay
from treadle.costmodels.training_room import memory_key
from treadle.costmodels.training_setting import Setting
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.training.plan import Alternative, Degrees, StageLayout
from treadle.ir.training.space import Leaf, Space
from treadle.ir.training.spec import ContextMode, Order, Sharding

_FAMILY, _BRANCH, _MEMBER, _LAYOUT, _TAILS = range(5)
_Node = tuple[float, int, int, int, Degrees, StageLayout | tuple[Leaf, ...] | None]
"""(bound, how far it is solved, number, place among its layouts, degrees, leaves or layout)."""
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
    families: int = 0
    too_large: int = 0
    solved: int = 0
    cut_us: float = math.inf
    """Least bound of what was dropped because it could not win any more."""
    found: list[Found] = field(default_factory=list[Found])
    next_bound_us: float = math.inf
    least_bound_us: float = math.inf
    """Least bound over all layouts of the candidates not replayed and of those replayed."""
    refused_us: float = math.inf
    """Least bound of candidates whose solved layout does not hold the longest sequence: another might."""
    most_tokens: int = 0
    """Of the longest sequence that one of them holds."""

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
    state.solved, state.families = sum(part.solved for part in parts), sum(part.families for part in parts)
    state.found = sorted((item for part in parts for item in part.found), key=lambda item: item.number)
    state.next_bound_us = min((part.next_bound_us for part in parts), default=math.inf)
    state.least_bound_us = min((part.least_bound_us for part in parts), default=math.inf)
    state.most_tokens = max((part.most_tokens for part in parts), default=0)
    return state


class Known:
    """What searches of one problem under several memory limits share: its space, its times and bounds."""

    def __init__(self, setting: Setting) -> None:
        self.quick = Quick(setting, LayerTimer(setting))
        self.space = Space(setting.model, setting.cluster, setting.spec)


def search_share(
    setting: Setting,
    top: int,
    share: int,
    shares: int,
    progress: Progress | None = None,
    known: Known | None = None,
) -> Search:
    """Search one part of the candidates: every `shares`-th mesh, from `share` on."""
    known, state, heap = known or Known(setting), Search(), list[_Node]()
    quick, space = known.quick.limited(setting), known.space
    for number, family in _of_share(space, share, shares, state):
        heap.append((quick.branch_us(family, space.branches(family)[0][1]), _FAMILY, number, 0, family, None))
    heapq.heapify(heap)
    oversized, fastest = _Oversized(setting), _Fastest(top)
    while heap and heap[0][0] < fastest.cutoff_us:
        bound, stage, number, _, degrees, rest = heapq.heappop(heap)
        if stage in (_FAMILY, _BRANCH):
            opened = (
                _members(quick, number, degrees, rest, state)
                if isinstance(rest, tuple)
                else _branches(space, quick, number, degrees, state)
            )
            for node in opened:
                if node[0] < fastest.cutoff_us:
                    heapq.heappush(heap, node)
                else:
                    state.cut_us = min(state.cut_us, node[0])
            continue
        if stage == _MEMBER:
            for node in _layouts(quick, oversized, bound, number, degrees, state):
                heapq.heappush(heap, node)
            continue
        layout = rest
        assert isinstance(layout, StageLayout)
        if stage == _LAYOUT and degrees.virtual == 1 and degrees.pipeline > 1:
            sharpened = best_with_tails(setting, degrees, quick.timer, layout, fastest.cutoff_us)
            if sharpened.layout is not None:
                heapq.heappush(heap, (max(bound, sharpened.step_us), _TAILS, number, 0, degrees, sharpened.layout))
            else:
                state.cut_us = min(state.cut_us, max(bound, sharpened.step_us))
            continue
        if says_less(setting, degrees, layout):
            continue
        found = Found(number, degrees, layout, bound, replay(setting, degrees, layout, quick.timer))
        if not _holds_longest(setting, found, state):
            continue
        state.found.append(found)
        fastest.add(found)
        if progress and len(state.found) % 20 == 1:
            best = state.best.replay.step_us
            progress(f"{len(state.found)} replayed, best {best / 1e6:.3f} s, next bound {bound / 1e6:.3f} s")
    state.next_bound_us = min(heap[0][0] if heap else math.inf, state.cut_us)
    reached = [item.bound_us if item.degrees.virtual == 1 else item.replay.step_us for item in state.found]
    state.least_bound_us = min([state.next_bound_us, state.refused_us, *reached])
    return state


def _holds_longest(setting: Setting, found: Found, state: Search) -> bool:
    """Whether a plan has room for the longest sequence of the batch; one that has not is noted with what it holds."""
    stages = found.replay.stages
    if holds_longest(setting, found.degrees, stages):
        return True
    state.refused_us = min(state.refused_us, found.bound_us)
    state.most_tokens = max(state.most_tokens, longest_held(setting, found.degrees, stages))
    return False


def _layouts(
    quick: Quick, oversized: _Oversized, bound_us: float, number: int, degrees: Degrees, state: Search
) -> Iterator[_Node]:
    """Yield the solved layouts of a candidate, each with its bound; counts those that do not fit."""
    options = [] if oversized.known(degrees) else choices(quick.setting, degrees, quick)
    state.solved += 1
    if not options:
        oversized.add(degrees)
        state.too_large += 1
    for place, option in enumerate(options):
        assert option.layout is not None
        if degrees.virtual == 1 or not says_less(quick.setting, degrees, option.layout):
            yield max(bound_us, option.step_us), _LAYOUT, number, place, degrees, option.layout


def _branches(space: Space, quick: Quick, number: int, family: Degrees, state: Search) -> Iterator[_Node]:
    """Yield a family's states that may fit the memory, each with a bound for all its leaves."""
    for choice, leaves in space.branches(family):
        branch = choice.of(family)
        if branch.sharding is not Sharding.GLOBAL or quick.may_fit(branch):
            yield quick.branch_us(branch, leaves), _BRANCH, number, 0, branch, leaves
        else:
            state.too_large += len(leaves)
        number += len(leaves)


def _members(quick: Quick, number: int, branch: Degrees, leaves: tuple[Leaf, ...], state: Search) -> Iterator[_Node]:
    """Yield a branch's members, each with its quick bound; groups inside a domain hang on the rank order."""
    fits: dict[tuple[Order, bool], bool] = {}
    for place, leaf in enumerate(leaves):
        degrees = None
        if branch.sharding is not Sharding.GLOBAL:
            key = leaf.order, leaf.context_mode is ContextMode.BIDIRECTIONAL
            if key not in fits:
                degrees = leaf.of(branch)
                fits[key] = quick.may_fit(degrees)
            if not fits[key]:
                state.too_large += 1
                continue
        degrees = degrees or leaf.of(branch)
        yield quick.bound_us(degrees), _MEMBER, number + place, 0, degrees, None


def _of_share(space: Space, share: int, shares: int, state: Search) -> Iterator[tuple[int, Degrees]]:
    """Yield the families of a part, each with the number of its first member; a mesh stays in one part."""
    mesh, position, number = None, -1, 0
    for family in space.families():
        here = (family.data, family.tensor, family.context, family.pipeline)
        if here != mesh:
            mesh, position = here, position + 1
        size = space.size(family)
        if position % shares == share:
            state.total += size
            state.families += 1
            yield number, family
        number += size


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
        self._least: dict[tuple[object, ...], int] = {}

    def add(self, degrees: Degrees) -> None:
        """Remember that nothing fits."""
        key = memory_key(degrees)
        self._least[key] = min(degrees.micro_batch, self._least.get(key, degrees.micro_batch))

    def known(self, degrees: Degrees) -> bool:
        """Whether a smaller microbatch did not fit, both in the regime where that decides."""
        least = self._least.get(memory_key(degrees))
        if least is None or degrees.micro_batch < least:
            return False
        return degrees.microbatches(self.batch) >= 2 * degrees.pipeline


def _order(found: Found) -> tuple[float, int, float]:
    return found.replay.step_us, found.number, found.bound_us


def certificate(state: Search, chosen: Found | None = None, grouped_us: float | None = None) -> Certificate:
    """Return the two claims: best of the enumeration, and distance from the bound over all layouts.

    Of mixed lengths the plan chosen may be another than the fastest; its grouped step is a claim without a bound.
    """
    best, value = state.best.replay.step_us, (chosen or state.best).replay.step_us
    bound = state.least_bound_us if state.least_bound_us < best * (1 - ROUNDING) else best
    levels = [_level("step_time", value, best, state), _level("step_time_any_layout", value, bound, state)]
    if grouped_us is not None:
        levels.append(Level("grouped_step_time", "us", grouped_us, None, Status.FEASIBLE, ProofKind.NONE))
    return Certificate("parallel", COST_MODEL, tuple(levels))


def _level(name: str, value: float, bound: float, state: Search) -> Level:
    status = Status.OPTIMAL if bound == value else Status.FEASIBLE
    return Level(name, "us", value, bound, status, ProofKind.ENUMERATION, {"candidates": state.total})


def alternatives(state: Search, top: int) -> tuple[Alternative, ...]:
    """Return the next best plans, and what each loses by."""
    ranked = ranking(state)
    best = ranked[0]
    return tuple(
        Alternative(item.degrees, item.layout, item.replay.step_us, item.replay.peak_bytes, reason(best, item))
        for item in ranked[1 : top + 1]
    )


def ranking(state: Search) -> list[Found]:
    """Return the replayed plans with one layout for each choice of degrees, fastest first."""
    fastest: dict[Degrees, Found] = {}
    for item in sorted(state.found, key=_order):
        fastest.setdefault(item.degrees, item)
    return list(fastest.values())


def reason(best: Found, other: Found) -> str:
    """Return why a plan is slower: idle time, work, or what follows the pipeline."""
    lost = other.replay.step_us - best.replay.step_us
    if lost <= best.replay.step_us * ROUNDING:
        return "as fast: comes later in the order of choices"
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
