"""The front of time, memory and GPUs: a search for every part of the cluster and memory limit, each proven.

Searches of one part share what they know about times: only memory differs.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future

from treadle.costmodels.training_setting import Setting, setting_of
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.front import limited, next_limit, parts_of
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.plan import FrontStep
from treadle.ir.training.spec import TrainingSpec
from treadle.solvers.parallel.solve import Known, Progress, Search, search_share


def front_steps(
    setting: Setting, progress: Progress | None = None, executor: Executor | None = None
) -> tuple[FrontStep, ...]:
    """Return the steps of every part of the cluster, the largest first; a lost worker's part is done here."""
    model, spec = setting.model, setting.spec
    found: list[FrontStep] = []
    waiting = [_submitted(executor, model, cluster, spec) for cluster in parts_of(setting.cluster)]
    for cluster, future in zip(parts_of(setting.cluster), waiting, strict=True):
        steps = _result(future) if future else None
        steps = part_steps(model, cluster, spec) if steps is None else steps
        if progress:
            progress(f"front: {len(steps) - 1} memory limits on {cluster.gpus} GPUs")
        found += steps
    return tuple(found)


def _submitted(
    executor: Executor | None, model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec
) -> Future[tuple[FrontStep, ...]] | None:
    try:
        return executor.submit(part_steps, model, cluster, spec) if executor else None
    except BrokenExecutor:
        return None


def _result(future: Future[tuple[FrontStep, ...]]) -> tuple[FrontStep, ...] | None:
    try:
        return future.result()
    except (BrokenExecutor, CancelledError):
        return None


def part_steps(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> tuple[FrontStep, ...]:
    """Return the steps of one part: limits fall until nothing fits; that step has no plan."""
    known, limit, found = Known(setting_of(model, cluster, spec)), spec.search.most_memory, list[FrontStep]()
    while True:
        state = search_share(setting_of(model, cluster, limited(spec, limit)), 1, 0, 1, known=known)
        found.append(_step(cluster.gpus, limit, state))
        limit = next_limit(found[-1].peak_memory_bytes)
        if not state.found or limit <= 0:
            return tuple(found)


def _step(gpus: int, limit: int, state: Search) -> FrontStep:
    if not state.found:
        return FrontStep(gpus, limit, state.total)
    best = state.best
    played = best.replay
    return FrontStep(gpus, limit, state.total, best.degrees, best.layout, played.step_us, played.peak_bytes)
