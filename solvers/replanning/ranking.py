"""The plans of a re-plan's space, fastest first, below the time of a plan that is already known."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_elastic import fits, padded
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting
from treadle.costmodels.training_tails import best_with_tails
from treadle.ir.training.elastic import grain_of
from treadle.ir.training.elastic_space import elastic_candidates, even_counts
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout


@dataclass(frozen=True, slots=True)
class Timed:
    """A choice of degrees with its layout and its even step."""

    degrees: Degrees
    layout: StageLayout
    step_us: float


class Ranking:
    """Ranks the plans of one re-plan; its questions share times, bounds and candidates."""

    def __init__(self, setting: Setting, before: ParallelBody, even: bool) -> None:
        self.setting, self.before, self.even = setting, before, even
        self.timer = LayerTimer(setting)
        self._known: dict[int, tuple[Setting, Quick]] = {}
        self._candidates: dict[int, tuple[Degrees, ...]] = {}

    def candidates(self, gpus: int) -> tuple[Degrees, ...]:
        """Return the space on so many GPUs."""
        if gpus not in self._candidates:
            self._candidates[gpus] = tuple(elastic_candidates(self.before, gpus, self.even))
        return self._candidates[gpus]

    def fastest(self, gpus: int) -> Timed | None:
        """Return the fastest plan; what runs now, on fewer data ranks, is what the others have to beat."""
        known = self.as_before(gpus)
        return next(self.plans(gpus, known.step_us if known else math.inf), known)

    def as_before(self, gpus: int) -> Timed | None:
        """Return the plan with fewer data ranks and nothing else changed, where it is possible and fits."""
        before = self.before
        for degrees in self.candidates(gpus):
            if replace(degrees, data=before.degrees.data) == before.degrees:
                problem = padded(self.setting, degrees, even_counts(before, degrees))
                played = replay(problem, degrees, before.layout, self.timer)
                return Timed(degrees, before.layout, played.step_us) if fits(problem, played) else None
        return None

    def plans(self, gpus: int, below_us: float = math.inf) -> Iterator[Timed]:
        """Yield the plans that take less than `below_us`: bound, solved layout, tails, replay."""
        heap: list[tuple[float, int, int, Degrees, StageLayout | None]] = []
        for degrees in self.candidates(gpus):
            quick = self._problem(degrees)[1]
            bound = quick.bound_us(degrees)
            if bound < below_us and quick.may_fit(degrees):
                heap.append((bound, len(heap), 0, degrees, None))
        heapq.heapify(heap)
        while heap and heap[0][0] < below_us:
            bound, number, stage, degrees, layout = heapq.heappop(heap)
            problem, quick = self._problem(degrees)
            if layout is None:
                for option in choices(problem, degrees, quick, below_us):
                    heapq.heappush(heap, (max(bound, option.step_us), number, 1, degrees, option.layout))
            elif stage == 1 and degrees.virtual == 1 and degrees.pipeline > 1:
                sharp = best_with_tails(problem, degrees, self.timer, layout, below_us)
                if sharp.layout is not None:
                    heapq.heappush(heap, (max(bound, sharp.step_us), number, 2, degrees, sharp.layout))
            elif stage < 3:
                step = replay(problem, degrees, layout, self.timer).step_us
                heapq.heappush(heap, (step, number, 3, degrees, layout))
            else:
                yield Timed(degrees, layout, bound)

    def _problem(self, degrees: Degrees) -> tuple[Setting, Quick]:
        """Return the even problem in which every data rank runs as many microbatches as the fullest, and its bounds."""
        total, grain = self.before.spec.global_batch // degrees.micro_batch, grain_of(degrees)
        batch = grain * -(-(total // grain) // degrees.data) * degrees.data * degrees.micro_batch
        if batch not in self._known:
            problem = replace(self.setting, spec=replace(self.setting.spec, global_batch=batch))
            self._known[batch] = problem, Quick(problem, self.timer)
        return self._known[batch]
