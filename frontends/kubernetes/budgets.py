"""Disruption budgets: how many of the selected pods may be down at once, and which pods stay because of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from treadle.frontends.kubernetes import rules
from treadle.frontends.kubernetes.objects import Object
from treadle.frontends.kubernetes.remarks import Remarks
from treadle.ir.cluster.cluster import PENDING, Budget, Pod, Shape
from treadle.ir.cluster.labels import selects


def budget_of(item: Object, pods: tuple[Pod, ...], shapes: tuple[Shape, ...], remarks: Remarks) -> Budget:
    """Return a budget: `status.disruptionsAllowed`, or without a status what its specification gives."""
    selector = rules.label_selector(item, item.get("spec", "selector"))
    allowed = item.get("status", "disruptionsAllowed")
    if item.get("spec", "unhealthyPodEvictionPolicy"):
        remarks.add(
            "disruption budgets with `unhealthyPodEvictionPolicy`; pods that are not ready count like ready ones",
            item.name,
        )
    if allowed is None:
        remarks.add("disruption budgets without a status: computed from their specification", item.name)
        matched = {
            index
            for index, shape in enumerate(shapes)
            if shape.namespace == item.namespace and selects(selector, shape.labels)
        }
        expected = sum(pod.shape in matched for pod in pods)
        running = sum(pod.shape in matched and pod.node != PENDING for pod in pods)
        allowed = running - _desired(item, expected)
    item.whole("status.disruptionsAllowed", allowed, least=-(2**31))
    return Budget(item.name, item.namespace, selector, max(0, allowed))


def _desired(item: Object, expected: int) -> int:
    """Return how many pods must stay up (pkg/controller/disruption: both fields round up)."""
    most, least = item.get("spec", "maxUnavailable"), item.get("spec", "minAvailable")
    if most is not None:
        return expected - _count(item, "maxUnavailable", most, expected)
    return _count(item, "minAvailable", least, expected) if least is not None else expected


def _count(item: Object, field: str, value: Any, expected: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdecimal():
        return -(-expected * int(value[:-1]) // 100)
    raise item.wrong(f"spec.{field}", value, "a whole number or a percentage such as `25%`")


def pinned_by_budgets(pods: tuple[Pod, ...], shapes: tuple[Shape, ...], budgets: tuple[Budget, ...]) -> tuple[Pod, ...]:
    """Return the pods, those that no eviction may remove pinned.

    A budget that allows no disruption keeps its pods, unless a replacement may start first; of pods under several
    budgets the eviction API removes none (pkg/registry/core/pod/storage/eviction.go).
    """
    spaces: dict[str, list[Budget]] = defaultdict(list)
    for budget in budgets:
        spaces[budget.namespace].append(budget)
    of = [[one for one in spaces.get(shape.namespace, ()) if selects(one.selector, shape.labels)] for shape in shapes]
    return tuple(
        replace(pod, pinned=reason)
        if pod.node != PENDING and not pod.pinned and (reason := _reason(of[pod.shape], pod.surge))
        else pod
        for pod in pods
    )


def _reason(budgets: list[Budget], surge: bool) -> str:
    if len(budgets) > 1:
        return f"several budgets: {budgets[0].name}, {budgets[1].name}"
    if budgets and not budgets[0].disruptions_allowed and not surge:
        return f"budget {budgets[0].name}"
    return ""
