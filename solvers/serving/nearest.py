"""What would have to change where a request cannot be met: the nearest levels that some engine meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING

from treadle.costmodels.engine_candidates import Setting, all_candidates
from treadle.ir.serving.errors import UnmetLevels
from treadle.ir.serving.plan import Stream
from treadle.ir.workload import Metric, ServiceLevel

if TYPE_CHECKING:
    from treadle.solvers.serving.fleet_plan import ServingRequest

_FURTHEST = 4096.0
"""Factor on a limit beyond which relaxing it is not proposed."""


def unmet_levels(request: ServingRequest, class_name: str = "") -> UnmetLevels:
    """Return the error: the levels asked for, and for each the nearest limit with which some engine meets all."""
    streams = [one for one in request.all_streams if not class_name or one.name == class_name]
    asked = tuple(dict.fromkeys(level for stream in streams for level in stream.levels))
    found = [_text(asked, eased) for metric in Metric if (eased := _relaxed(request, streams, asked, (metric,), {}))]
    if not found and (together := _relaxed(request, streams, asked, tuple(Metric), {})):
        for metric in together:  # each as little as the others allow
            together = {**together, **_relaxed(request, streams, asked, (metric,), together)}
        found = [_text(asked, together)]
    shortest = f"; its prompts have {streams[0].lengths.prompt_at(0.9):,} tokens at p90"
    nearest = " or ".join(found) if found else "no limits help: the longest requests fit no engine's cache"
    return UnmetLevels(
        gpu=", ".join(sorted({kind.gpu for kind in request.kinds})),
        levels=", ".join(level_text(level) for level in asked) + (f" for {class_name}" if class_name else ""),
        nearest=f"nearest that can: {nearest}{shortest}",
        expected=", ".join(dict.fromkeys(kind.name for kind in request.kinds)),
    )


def level_text(level: ServiceLevel) -> str:
    """Return a level as a specification writes it."""
    return f"{level.metric.value}_p{level.percentile:g} <= {level.limit_s * 1e3:,.6g} ms"


Factors = dict[Metric, float]
"""By how much the limits of each metric are eased."""


def _text(asked: Sequence[ServiceLevel], factors: Factors) -> str:
    eased = [level for level in asked if factors.get(level.metric, 1.0) > 1]
    return " with ".join(level_text(replace(one, limit_s=one.limit_s * factors[one.metric])) for one in eased)


def _relaxed(
    request: ServingRequest,
    streams: Sequence[Stream],
    asked: Sequence[ServiceLevel],
    metrics: Sequence[Metric],
    others: Factors,
) -> Factors:
    """Return the least factor on some metrics' limits, beside those of others, that some engine meets; else nothing."""
    touched = [metric for metric in metrics if any(level.metric is metric for level in asked)]
    if not touched or not _possible(request, streams, {**others, **dict.fromkeys(touched, _FURTHEST)}):
        return {}
    low, high = 1.0, _FURTHEST
    while high / low > 1.02:
        middle = sqrt(low * high)
        possible = _possible(request, streams, {**others, **dict.fromkeys(touched, middle)})
        low, high = (low, middle) if possible else (middle, high)
    return dict.fromkeys(touched, high)


def _possible(request: ServingRequest, streams: Sequence[Stream], factors: Factors) -> bool:
    eased = [
        replace(
            stream,
            levels=tuple(
                replace(level, limit_s=level.limit_s * factors.get(level.metric, 1.0)) for level in stream.levels
            ),
        )
        for stream in streams
    ]
    setting = Setting(
        request.roles,
        kv_bytes_per_token=request.kv_bytes_per_token,
        link_bytes_per_s=request.link_bytes_per_s,
        classes=max(1, len(request.classes)),
    )
    roles = {engine.role.value for engine in all_candidates(request.kinds, eased, setting)}
    return "aggregated" in roles or {"prefill", "decode"} <= roles
