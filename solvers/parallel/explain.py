"""Why nothing fits: a smallest set of requirements that conflict, and the nearest change that would do.

Deletion filter: a requirement is dropped for good when the rest conflicts without it; what is left is minimal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_machine import TrainingGpu
from treadle.costmodels.training_setting import Setting
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import Unmet
from treadle.ir.training.plan import Degrees
from treadle.ir.training.space import Space
from treadle.ir.training.spec import Recompute, SearchSpace

_MOST_DOUBLINGS = 6
_MOST_TRIALS = 400
"""Layouts solved per question; beyond, the least memory of the rest is taken as not fitting."""


_HOST_GBYTES = 256.0
"""Host memory per GPU of an 8-GPU server with 2 TB (DGX H100 data sheet)."""
_OPTIONS = (
    ("schedule", "allow other schedules"),
    ("sharding", "allow other sharding groups"),
    ("offload", "allow offload"),
    ("context_mode", "allow other context exchanges"),
    ("order", "allow other rank orders"),
)


class NoPlanFits(Unmet):
    """No legal choice of degrees fits the memory, or none is legal."""

    code = "TRD320"
    template = "no plan meets these together: {conflict}"


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that can be given up: how people call it, the problem without it, and the advice."""

    name: str
    without: Callable[[Setting], Setting]
    words: str = ""

    def advice(self, setting: Setting) -> str:
        """Return what to change when giving up this one alone is enough, or an empty string."""
        if self.words:
            return self.words if feasible(self.without(setting)) else ""
        for doublings in range(1, _MOST_DOUBLINGS + 1):
            if feasible(more_gpus(setting, 2**doublings)):
                return f"use {2**doublings} times the GPUs"
        return ""


def feasible(setting: Setting) -> bool:
    """Whether some legal choice of degrees has a layout that fits."""
    quick, space = Quick(setting, LayerTimer(setting)), Space(setting.model, setting.cluster, setting.spec)
    found: list[Degrees] = []
    for family in space.families():
        for branch in _leanest(space, family):
            if quick.may_fit(branch):
                found.append(branch)
    found.sort(key=lambda item: (_kept(item), item.micro_batch, -item.zero, item.virtual, -item.tensor))
    return any(choices(setting, degrees, quick) for degrees in found[:_MOST_TRIALS])


def _kept(degrees: Degrees) -> int:
    """Return how much a state keeps for the backward pass: the less, the more is recomputed or offloaded."""
    if degrees.offload.activations:
        return -1
    modes = Recompute.FULL, Recompute.CORE_MLP_NORM, Recompute.MLP_NORM, Recompute.CORE_MLP, Recompute.CORE_NORM
    return modes.index(degrees.recompute) if degrees.recompute in modes else len(modes)


def _leanest(space: Space, family: Degrees) -> list[Degrees]:
    """Return a family's choices that keep the least, one for each ZeRO stage, sharding group and offload."""
    least: dict[tuple[object, ...], Degrees] = {}
    for state, leaves in space.branches(family):
        degrees = leaves[0].of(state.of(family))
        key = state.zero, state.sharding, state.offload
        if key not in least or _kept(degrees) < _kept(least[key]):
            least[key] = degrees
    return list(least.values())


def explain(setting: Setting, most_tokens: int = 0) -> TreadleError:
    """Return the error for a problem without a plan; `most_tokens` is what plans found held of one sequence."""
    if most_tokens:
        longest = max(setting.spec.lengths)
        conflict = f"a sequence of {longest:,} tokens; memory of {setting.cluster.text}"
        hint = f"cut sequences at {most_tokens:,} tokens; or use {-(-longest // most_tokens)} times the GPUs"
        return NoPlanFits(conflict=conflict, hint=hint)
    everything = kept = requirements(setting)
    for requirement in everything:
        rest = [item for item in kept if item is not requirement]
        if not feasible(_only(setting, everything, rest)):
            kept = rest
    advice = [found for item in kept if (found := item.advice(setting))]
    conflict = "; ".join(item.name for item in kept) or "the model and this cluster"
    return NoPlanFits(conflict=conflict, hint="; or ".join(advice) or "relax more than one of them")


def requirements(setting: Setting) -> list[Requirement]:
    """Return what can be given up, in the order in which it is tried to be dropped from the conflict."""
    spec, space = setting.spec, setting.spec.search
    found: list[Requirement] = []
    for name in ("data", "virtual", "micro_batch", "expert", "context", "pipeline", "tensor"):
        if values := getattr(space, name):
            found.append(Requirement(f"{name} in {list(values)}", _free(name, ()), f"leave search.{name} free"))
    for name, advice in _OPTIONS:
        free = getattr(SearchSpace(), name)
        if set(getattr(space, name)) != set(free):
            values = [item.value for item in getattr(space, name)]
            found.append(Requirement(f"{name} in {values}", _free(name, free), advice))
    if space.zero != (0, 1, 3):
        found.append(Requirement(f"zero in {list(space.zero)}", _free("zero", (0, 1, 3)), "allow other ZeRO stages"))
    if set(space.recompute) != set(Recompute):
        words = [mode.value for mode in space.recompute]
        found.append(Requirement(f"recompute in {words}", _free("recompute", tuple(Recompute)), "allow recompute"))
    if not setting.cluster.host_gbytes:
        found.append(Requirement("no host memory", _hosts, "give cluster.host_memory to offload"))
    gpus = setting.cluster.gpus
    size = f"{gpus} GPU{'s' if gpus > 1 else ''}"
    found.append(Requirement(size, lambda problem: more_gpus(problem, 2**_MOST_DOUBLINGS)))
    if space.most_memory:
        limit = f"search.most_memory {space.most_memory / 2**30:.1f} GiB"
        found.append(Requirement(limit, _free("most_memory", 0), "raise search.most_memory"))
    rooms = {gpu.id: gpu.memory_bytes * (1 - spec.memory_reserve) / 2**30 for gpu in _types(setting)}
    said = ", ".join(f"{name}: {room:.1f} GiB" for name, room in rooms.items())
    found.append(Requirement(f"memory of {said}", _endless_memory, "use GPUs with more memory"))
    return found


def more_gpus(setting: Setting, factor: int) -> Setting:
    """Return the problem on `factor` times the nodes."""
    groups = tuple(replace(group, nodes=factor * group.nodes) for group in setting.cluster.groups)
    return replace(setting, cluster=replace(setting.cluster, groups=groups))


def _types(setting: Setting) -> list[TrainingGpu]:
    return [gpu for gpu, _ in setting.parts] or [setting.gpu]


def _free(name: str, value: object) -> Callable[[Setting], Setting]:
    def without(setting: Setting) -> Setting:
        changed: dict[str, Any] = {name: value}
        space = replace(setting.spec.search, **changed)
        return replace(setting, spec=replace(setting.spec, search=space))

    return without


def _hosts(setting: Setting) -> Setting:
    return replace(setting, cluster=replace(setting.cluster, host_gbytes=_HOST_GBYTES))


def _endless_memory(setting: Setting) -> Setting:
    return setting.changed(lambda gpu: replace(gpu, memory_bytes=math.inf))


def _only(setting: Setting, everything: list[Requirement], kept: list[Requirement]) -> Setting:
    """Return the problem with just the kept requirements."""
    for requirement in everything:
        if requirement not in kept:
            setting = requirement.without(setting)
    return setting
