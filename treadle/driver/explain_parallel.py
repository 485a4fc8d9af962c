"""What binds a training plan, what single changes of the cluster would do, and what each of its choices is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from treadle.costmodels.collectives import Links
from treadle.costmodels.training_breakdown import PARTS, binding_stage, breakdowns, busiest
from treadle.costmodels.training_machine import TrainingGpu
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import Setting, setting_of
from treadle.ir.plan import Plan
from treadle.ir.training.cluster import Curve
from treadle.ir.training.plan import Degrees, ParallelBody
from treadle.ir.training.spec import Offload, Pipeline, Recompute, SearchSpace
from treadle.solvers.parallel.solve import search

Edit = Callable[[Setting], Setting]
MORE = 1.25
_AGAIN = frozenset(Recompute) - {Recompute.NONE}
_WHOLE_BACKWARD = (Pipeline.ONE_F_ONE_B, Pipeline.INTERLEAVED)


@dataclass(frozen=True, slots=True)
class Change:
    """A change in words, the fastest plan under it (empty: nothing fits), its step and tokens per GPU and second.

    Every change is searched whole, so each time is the least there is.
    """

    change: str
    plan: str
    step_us: float = 0.0
    tokens_per_gpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ParallelExplanation:
    """The plan, the shares of its busiest rank's step, the stage nearest its memory, and the changes."""

    name: str
    plan: str
    step_us: float
    tokens_per_gpu_s: float
    rank: int
    shares: dict[str, float]
    binds: str
    fullest_stage: int
    fullest_share: float
    changes: tuple[Change, ...]


def explain_parallel(plan: Plan, progress: Callable[[str], None] | None = None) -> ParallelExplanation:
    """Explain a plan of kind `parallel`, each change searched whole and told to `progress` first."""
    body: ParallelBody = plan.body
    setting = setting_of(body.model, body.cluster, body.spec)
    played = replay(setting, body.degrees, body.layout)
    most = busiest(breakdowns(setting, body.degrees, body.layout, played))
    stage, share = binding_stage(setting, body.degrees, played.stages)
    changes: list[Change] = []
    for words, edit in (*_machines(setting), *_choices(setting, body.degrees)):
        if progress:
            progress(f"searching with {words}")
        changes.append(_changed(words, edit(setting)))
    return ParallelExplanation(
        f"{body.model.name} on {body.cluster.text}",
        body.degrees.text(),
        played.step_us,
        _rate(setting, played.step_us),
        most.rank,
        {name: most.parts_us[name] / played.step_us for name in PARTS},
        most.binds,
        stage,
        share,
        tuple(changes),
    )


def _rate(setting: Setting, step_us: float) -> float:
    tokens = setting.spec.global_batch * setting.spec.sequence_tokens
    return tokens / (step_us / 1e6) / setting.cluster.gpus


def _changed(words: str, setting: Setting) -> Change:
    found = search(setting, 1)
    if not found.found:
        return Change(words, "")
    step_us = found.best.replay.step_us
    return Change(words, found.best.degrees.text(), step_us, _rate(setting, step_us))


def _machines(setting: Setting) -> Iterator[tuple[str, Edit]]:
    """Yield the changes of GPUs, links and batch; those of links that no rank crosses are left out."""
    yield "products a quarter faster", lambda it: it.changed(gpu=_faster_products)
    yield "no time to launch kernels", lambda it: it.changed(gpu=_launched)
    if setting.cluster.domain > 1:
        yield "links inside a node twice as fast", lambda it: it.changed(links=_faster_links)
    if setting.cluster.gpus > setting.cluster.domain:
        yield "network twice as fast", lambda it: it.changed(links=_faster_network)
    yield "a quarter more GPU memory", _more_memory
    yield "twice the batch", lambda it: _spec(it, global_batch=2 * it.spec.global_batch)


def _faster_products(gpu: TrainingGpu) -> TrainingGpu:
    return _constants(gpu, product_efficiency=MORE * gpu.constants.product_efficiency)


def _launched(gpu: TrainingGpu) -> TrainingGpu:
    return _constants(gpu, host_us_per_kernel=0.0)


def _constants(gpu: TrainingGpu, **values: float) -> TrainingGpu:
    return replace(gpu, constants=replace(gpu.constants, **values))


def _faster_links(links: Links) -> Links:
    return replace(links, fast_bytes_per_us=2 * links.fast_bytes_per_us, curves=_doubled(links, inside=True))


def _faster_network(links: Links) -> Links:
    return replace(links, slow_bytes_per_us=2 * links.slow_bytes_per_us, curves=_doubled(links, inside=False))


def _doubled(links: Links, *, inside: bool) -> tuple[Curve, ...]:
    """Return the measured curves, those of groups inside a node, or across nodes, twice as high."""
    return tuple(
        replace(curve, busbw_gbytes_per_s=tuple(2 * rate for rate in curve.busbw_gbytes_per_s))
        if (curve.nodes == 1) == inside
        else curve
        for curve in links.curves
    )


def _more_memory(setting: Setting) -> Setting:
    larger = setting.changed(gpu=lambda gpu: replace(gpu, memory_bytes=MORE * gpu.memory_bytes))
    return _space(larger, most_memory=int(MORE * setting.spec.search.most_memory))


def _spec(setting: Setting, **values: Any) -> Setting:
    return replace(setting, spec=replace(setting.spec, **values))


def _space(setting: Setting, **values: Any) -> Setting:
    return _spec(setting, search=replace(setting.spec.search, **values))


@dataclass(frozen=True, slots=True)
class _Choice:
    """A field of the search space: how people call it free and forbidden, and the values that do without it."""

    field: str
    free: str
    without: str = ""
    plain: tuple[Any, ...] = ()
    used: Callable[[Degrees], bool] = lambda _: False


def _ranks(name: str, words: str) -> _Choice:
    return _Choice(name, f"any {words}", f"no {words}", (1,), lambda degrees: getattr(degrees, name) > 1)


_CHOICES = (
    _Choice("data", "any data ranks"),
    *(_ranks(name, f"{name} ranks") for name in ("tensor", "context", "pipeline", "expert")),
    _ranks("virtual", "virtual stages"),
    _Choice("micro_batch", "any microbatch"),
    _Choice("recompute", "any recomputation", "no recomputation", (Recompute.NONE,), lambda it: it.recompute in _AGAIN),
    _Choice("offload", "any offload", "no offload", (Offload.NONE,), lambda it: it.offload is not Offload.NONE),
    _Choice("zero", "any ZeRO stage", "no ZeRO", (0,), lambda it: it.zero > 0),
    _Choice("overlap_tensor", "either overlap", "no overlap of tensor traffic", (False,), lambda it: it.overlap_tensor),
    _Choice("schedule", "any schedule", "no zero bubble", _WHOLE_BACKWARD, lambda it: it.schedule.splits_backward),
    _Choice("sharding", "any sharding group"),
    _Choice("context_mode", "any exchange of context ranks"),
    _Choice("order", "any rank order"),
    _Choice("trainer", "any trainer"),
)


def _choices(setting: Setting, degrees: Degrees) -> Iterator[tuple[str, Edit]]:
    """Yield every limit of the search lifted, and every free choice that the plan makes use of forbidden."""
    for choice in _CHOICES:
        free = getattr(SearchSpace(), choice.field)
        if getattr(setting.spec.search, choice.field) != free:
            yield choice.free, _held(choice.field, free)
        elif choice.used(degrees):
            yield choice.without, _held(choice.field, choice.plain)


def _held(name: str, values: Any) -> Edit:
    """Return an edit that leaves one choice these values."""
    return lambda setting: _space(setting, **{name: values})
